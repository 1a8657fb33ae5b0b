//! Concatenation, padding, and selection by index.

use super::embedding::table_grad;
use crate::graph::{
    Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, MOST_UNIFORM, Op, Pointwise, Shape, Tensor, View, float,
};
use crate::shader;
use std::fmt::Write;

/// The longest axis that signed index arithmetic allows.
const MOST: usize = i32::MAX as usize;

/// How many neighbours an invocation moves at once, of those that `fit`: pairs of vec4s where a driver moves wide words,
/// vec4s, or single elements.
pub(super) fn together(dtype: DType, caps: &Caps, fit: impl Fn(usize) -> bool) -> usize {
    let can = |n: &usize| dtype != DType::F16 && (*n == 4 || caps.wide && dtype == DType::F32);
    [8, 4].into_iter().filter(can).find(|&n| fit(n)).unwrap_or(1)
}

/// A kernel that moves `count` elements, `together` at once.
pub(super) fn kernel(entry: &'static str, dtype: DType, together: usize, count: usize, caps: &Caps) -> Kernel {
    let element = match together {
        1 => dtype.to_string(),
        4 => format!("vec4<{dtype}>"),
        _ => format!("array<vec4<{dtype}>, 2>"),
    };
    Kernel::new(shader!("movement.wgsl"), entry)
        .replace("Element", format!("alias Element = {element};"))
        .set("COUNT", count / together)
        .moves(true)
        .grid(caps.fold((count / together).div_ceil(64)))
}

/// Elements that one dispatch moves from which subgroups do it whose lanes lie abreast.
const ABREAST_FROM: usize = 1 << 19;

/// The same by subgroups whose lanes lie abreast: `None` where an adapter has none, or the elements are few. Each moves as
/// many pairs of vec4s after one another as `fit`, counted in pairs.
fn abreast(
    entry: &'static str,
    [together, count]: [usize; 2],
    fit: impl Fn(usize) -> bool,
    caps: &Caps,
) -> Option<Kernel> {
    let lanes = caps.subgroup.filter(|_| caps.abreast && together == 8 && count >= ABREAST_FROM)? as usize;
    let turns = [4, 2, 1].into_iter().find(|turns| fit(turns * lanes))?;
    let size = turns * lanes;
    let kernel = kernel(entry, DType::F32, together, count, caps).set("SUBGROUP", lanes).set("TURNS", turns);
    (count / together / size < MOST_UNIFORM as usize)
        .then(|| kernel.grid(caps.fold((count / together).div_ceil(64 * turns))))
}

/// `kernel` with `value` in the elements that nothing is moved to.
fn filled(kernel: Kernel, together: usize, value: &str) -> Kernel {
    let each = if together == 8 { format!("vec4({value}), vec4({value})") } else { value.into() };
    kernel.replace("fill", format!("fn fill() -> Element {{\n    return Element({each});\n}}"))
}

/// Tensors one after the other along an axis.
#[derive(Debug)]
struct Concat(usize);

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let mut shape = inputs[0].shape.to_vec();
        shape[self.0] = 0;
        for input in inputs {
            let fits = input.dtype == inputs[0].dtype
                && input.shape.len() == shape.len()
                && (0..shape.len()).all(|a| a == self.0 || input.shape[a] == shape[a]);
            if !fits {
                return Err(format!("{input} does not fit to {} along axis {}", inputs[0], self.0));
            }
            shape[self.0] += input.shape[self.0];
        }
        Ok(vec![Desc::new(shape, inputs[0].dtype)])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let dy = node.dy();
        let mut start = 0;
        let part = |x: &Tensor| {
            let length = x.shape()[self.0];
            start += length;
            Some(dy.narrow(self.0 as isize, start - length, length))
        };
        node.inputs.iter().map(part).collect()
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        // Along the axis and those behind it, elements stay neighbours.
        let run = |desc: &Desc| desc.shape[self.0..].iter().product::<usize>();
        let (dtype, whole) = (io.inputs[0].dtype, run(&io.outputs[0]));
        let together = together(dtype, caps, |n| io.inputs.iter().all(|input| run(input).is_multiple_of(n)));
        let mut kernels = Vec::new();
        let mut start = 0;
        for (n, input) in io.inputs.iter().enumerate().filter(|(_, input)| input.elements() > 0) {
            let (count, run) = (input.elements(), run(input));
            let view = View {
                shape: vec![count / run, run / together],
                strides: vec![(whole / together) as isize, 1],
                offset: start / together,
            };
            let rule = format!("fn target_of(i: u32) -> u32 {{\n    return {};\n}}", view.wgsl("i"));
            let one = abreast("scatter_abreast", [together, count], |_| true, caps)
                .unwrap_or_else(|| kernel("scatter", dtype, together, count, caps));
            let one = one.replace("target_of", rule);
            kernels.push(one.stream(Arg::In(n)).bind([Arg::Out(0)]));
            start += run;
        }
        vec![Candidate::new("scatter", kernels, Vec::new())]
    }
}

/// A larger tensor with the input's elements at `start + step * coordinate` along each axis, the rest filled.
#[derive(Debug)]
struct Spread {
    shape: Shape,
    starts: Vec<(usize, isize)>,
    fill: u32,
}

impl Op for Spread {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::new(&self.shape, inputs[0].dtype)])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let x = node.x(0);
        let range = |(&(start, step), &extent): (&(usize, isize), &usize)| {
            let last = start as isize + step * (extent as isize - 1);
            (start, last + step.signum(), step)
        };
        let ranges: Vec<_> = self.starts.iter().zip(x.shape()).map(range).collect();
        vec![Some(if x.elements() == 0 { x.zeros_like() } else { node.dy().slice(&ranges) })]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let dtype = io.inputs[0].dtype;
        let (mut from, mut to, mut starts) = (io.inputs[0].shape.to_vec(), self.shape.to_vec(), self.starts.clone());
        let together = together(dtype, caps, |n| match (from.last(), to.last(), starts.last()) {
            (Some(from), Some(to), Some((start, 1))) => [from, to, start].iter().all(|extent| extent.is_multiple_of(n)),
            _ => false,
        });
        if let (Some(from), Some(to), Some((start, _))) = (from.last_mut(), to.last_mut(), starts.last_mut()) {
            [from, to, start].into_iter().for_each(|extent| *extent /= together);
        }
        let (own, strides) = (Shape::from(from.as_slice()).strides(), Shape::from(to.as_slice()).strides());
        let mut rule = String::from("fn source_of(i: u32) -> u32 {\n    var at = 0u;\n");
        for (axis, &(start, step)) in starts.iter().enumerate() {
            let _ = writeln!(rule, "    let c{axis} = i32((i / {}u) % {}u) - {start};", strides[axis], to[axis].max(1));
            let _ = writeln!(rule, "    let q{axis} = c{axis} / {step};");
            let _ = writeln!(
                rule,
                "    if (q{axis} * {step} != c{axis} || q{axis} < 0 || q{axis} >= {}) {{ return 0xffffffffu; }}",
                from[axis]
            );
            let _ = writeln!(rule, "    at += u32(q{axis}) * {}u;", own[axis]);
        }
        rule.push_str("    return at;\n}");
        let fill = match dtype {
            DType::F32 | DType::F16 => float(f32::from_bits(self.fill)),
            DType::U32 => format!("{}u", self.fill),
            DType::I32 => format!("{}i", self.fill as i32),
        };
        let one = kernel("spread", dtype, together, io.elements(), caps).replace("source_of", rule);
        let one = filled(one, together, &fill).stream(Arg::In(0)).bind([Arg::Out(0)]);
        vec![Candidate::single("spread", one)]
    }
}

/// Selection along an axis, and its gradient.
#[derive(Debug)]
struct Gather {
    axis: usize,
    /// An index for each element, not one list for all.
    whole: bool,
    /// For the gradient: the extent of the axis that was selected from.
    back: Option<usize>,
}

impl Gather {
    /// [outer, along, inner] of a shape.
    fn split(&self, shape: &Shape) -> (usize, usize, usize) {
        (shape[..self.axis].iter().product(), shape[self.axis], shape[self.axis + 1..].iter().product())
    }
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        match (self.back, self.whole) {
            (Some(_), _) => "gather_grad",
            (None, true) => "gather",
            (None, false) => "index_select",
        }
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let (x, index) = (&inputs[0], &inputs[1]);
        if index.dtype != DType::U32 {
            return Err(format!("the index is {index}, not u32"));
        }
        let mut shape = x.shape.to_vec();
        shape[self.axis] = self.back.unwrap_or(if self.whole { index.shape[self.axis] } else { index.elements() });
        if self.whole && self.back.is_none() && index.shape[..] != shape[..] {
            return Err(format!("the index {index} does not fit {x} along dim {}", self.axis));
        }
        Ok(vec![Desc::new(shape, x.dtype)])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        if node.x(1).elements() == 0 {
            return vec![Some(node.x(0).zeros_like()), None];
        }
        if self.back.is_none() && !self.whole && self.axis == 0 && node.x(0).dtype() == DType::F32 {
            let (dy, shape) = (node.dy(), node.x(0).shape());
            let rows = dy.reshape([dy.shape()[0], shape[1..].iter().product()]);
            let index = node.x(1).reshape([dy.shape()[0]]);
            return vec![Some(table_grad(&rows, &index, shape[0]).reshape(shape)), None];
        }
        let back = match self.back {
            Some(_) => None,
            None => Some(node.x(0).shape()[self.axis]),
        };
        let op = Gather { axis: self.axis, whole: self.whole, back };
        vec![Some(node.x(0).graph().push1(op, &[&node.dy(), node.x(1)])), None]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let (outer, along, inner) = self.split(&io.inputs[0].shape);
        let (entry, length, taken) = match self.back {
            Some(length) => ("gather_grad", length, along),
            None => ("gather", along, io.outputs[0].shape[self.axis]),
        };
        let dtype = io.inputs[0].dtype;
        // As many as share an index; the gradient adds them up, which pairs cannot be.
        let together = together(dtype, caps, |n| {
            !self.whole && inner.is_multiple_of(n) && (n == 4 || self.back.is_none()) && dtype == DType::F32
        });
        let fit = |size: usize| !self.whole && (inner / together).is_multiple_of(size) && length > 0;
        let large = match self.back {
            None if outer * length <= MOST_UNIFORM as usize => {
                abreast("gather_abreast", [together, io.elements()], fit, caps)
            }
            _ => None,
        };
        let mut one = large
            .unwrap_or_else(|| kernel(entry, dtype, together, io.elements(), caps))
            .set("OUTER", outer)
            .set("LENGTH", length)
            .set("INNER", inner / together)
            .set("TAKEN", taken)
            .set("WHOLE", self.whole);
        if dtype == DType::F32 {
            one = filled(one, together, "nan()");
        }
        let turns = if self.back.is_some() { along + 1 } else { 0 };
        let one = if self.back.is_some() { one.bind([Arg::In(0)]) } else { one.stream(Arg::In(0)) };
        vec![Candidate::single(entry, one.bind([Arg::In(1), Arg::Out(0)])).turns(turns)]
    }
}

/// The coordinate along an axis.
#[derive(Debug)]
struct Iota {
    shape: Shape,
    axis: usize,
}

impl Op for Iota {
    fn name(&self) -> &'static str {
        "iota"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::new(&self.shape, DType::U32)])
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn pointwise(&self) -> Option<Pointwise> {
        let inner: usize = self.shape[self.axis + 1..].iter().product();
        Some(Pointwise(format!("(({{i}} / {inner}u) % {}u)", self.shape[self.axis].max(1))))
    }
}

/// What [`Tensor::pad`] puts around.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// A constant.
    Constant(f32),
    /// The inside mirrored at the border, which is not repeated.
    Reflect,
    /// The border repeated.
    Replicate,
}

impl Tensor {
    /// This tensor and then `others`, one after the other along `dim`.
    #[track_caller]
    pub fn concat(&self, others: &[&Tensor], dim: isize) -> Tensor {
        match self.desc().shape.axis(dim) {
            Ok(axis) => {
                let all: Vec<&Tensor> = std::iter::once(self).chain(others.iter().copied()).collect();
                self.graph().push1(Concat(axis), &all)
            }
            Err(message) => self.graph().poison("concat", message),
        }
    }

    #[track_caller]
    pub(crate) fn spread(&self, shape: &[usize], starts: &[(usize, isize)]) -> Tensor {
        self.graph().push1(Spread { shape: shape.into(), starts: starts.to_vec(), fill: 0 }, &[self])
    }

    /// Elements added along each axis, `(before, after)` for each, first axis first.
    #[track_caller]
    pub fn pad(&self, widths: &[(usize, usize)], mode: PadMode) -> Tensor {
        if widths.len() != self.rank() {
            return self.graph().poison("pad", format!("{} pairs of widths for {}", widths.len(), self.desc()));
        }
        let wide = self.shape().iter().zip(widths).find(|(n, (a, b))| n.saturating_add(*a).saturating_add(*b) > MOST);
        if let Some((n, widths)) = wide {
            return self.graph().poison("pad", format!("the widths {widths:?} around {n} are too large"));
        }
        let PadMode::Constant(value) = mode else { return self.pad_by_index(widths, mode) };
        let shape: Vec<usize> = self.shape().iter().zip(widths).map(|(n, (a, b))| n + a + b).collect();
        let fill = match self.dtype() {
            DType::F32 | DType::F16 => value.to_bits(),
            DType::U32 => value as u32,
            DType::I32 => value as i32 as u32,
        };
        let starts = widths.iter().map(|&(before, _)| (before, 1)).collect();
        self.graph().push1(Spread { shape: shape.into(), starts, fill }, &[self])
    }

    #[track_caller]
    fn pad_by_index(&self, widths: &[(usize, usize)], mode: PadMode) -> Tensor {
        let mut padded = self.clone();
        for (axis, &(before, after)) in widths.iter().enumerate().filter(|(_, w)| **w != (0, 0)) {
            let extent = self.shape()[axis] as isize;
            let reflect = mode == PadMode::Reflect;
            if extent == 0 || (reflect && before.max(after) as isize >= extent) {
                let message = format!("{before} and {after} are too wide for axis {axis} of {}", self.desc());
                return self.graph().poison("pad", message);
            }
            let place = |i: isize| match i {
                i if i < 0 && reflect => -i,
                i if i >= extent && reflect => 2 * (extent - 1) - i,
                i => i.clamp(0, extent - 1),
            };
            let index: Vec<u32> = (-(before as isize)..extent + after as isize).map(|i| place(i) as u32).collect();
            let index = self.graph().constant_u32([index.len()], &index);
            padded = padded.index_select(axis as isize, &index);
        }
        padded
    }

    /// The slices of `dim` that `index` (u32 `[K]`) names, in its order.
    #[track_caller]
    pub fn index_select(&self, dim: isize, index: &Tensor) -> Tensor {
        match self.desc().shape.axis(dim) {
            Ok(axis) => {
                self.graph().bound(index, 0..self.shape()[axis] as u32, &[]);
                self.graph().push1(Gather { axis, whole: false, back: None }, &[self, index])
            }
            Err(message) => self.graph().poison("index_select", message),
        }
    }

    /// `y[i][j][k] = x[index[i][j][k]][j][k]` for dim 0, and so on; `index` (u32) has this tensor's rank and is
    /// nowhere larger but along `dim`.
    #[track_caller]
    pub fn gather(&self, dim: isize, index: &Tensor) -> Tensor {
        let axis = match self.desc().shape.axis(dim) {
            Ok(axis) if index.rank() == self.rank() => axis,
            Ok(_) => {
                return self.graph().poison("gather", format!("{} and {} differ in rank", self.desc(), index.desc()));
            }
            Err(message) => return self.graph().poison("gather", message),
        };
        self.graph().bound(index, 0..self.shape()[axis] as u32, &[]);
        let mut x = self.clone();
        for other in (0..self.rank()).filter(|&a| a != axis && index.shape()[a] < self.shape()[a]) {
            x = x.narrow(other as isize, 0, index.shape()[other]);
        }
        self.graph().push1(Gather { axis, whole: true, back: None }, &[&x, index])
    }

    /// f32 [..., classes]: 1 at each element's own class, else 0; for u32 class indices.
    #[track_caller]
    pub fn one_hot(&self, classes: usize) -> Tensor {
        let mut shape = self.shape().to_vec();
        shape.push(classes);
        self.graph().bound(self, 0..classes as u32, &[]);
        let axis = shape.len() - 1;
        self.unsqueeze(-1).eq(&self.graph().push1(Iota { shape: shape.into(), axis }, &[]))
    }

    /// u32, this tensor's shape: each element's coordinate along `dim`.
    #[track_caller]
    pub fn coordinate(&self, dim: isize) -> Tensor {
        match self.desc().shape.axis(dim) {
            Ok(axis) => self.graph().push1(Iota { shape: self.desc().shape.clone(), axis }, &[]),
            Err(message) => self.graph().poison("coordinate", message),
        }
    }

    /// The lower triangle of the last two axes; elements above the `diagonal`-th diagonal are 0.
    #[track_caller]
    pub fn tril(&self, diagonal: isize) -> Tensor {
        if self.rank() < 2 {
            return self.graph().poison("tril", format!("{} has fewer than two axes", self.desc()));
        }
        let row = self.coordinate(-2).cast(DType::F32) + (diagonal as f32 + 0.5);
        let keep = self.coordinate(-1).cast(DType::F32).lt(&row);
        keep.where_(self, &self.zeros_like())
    }
}
