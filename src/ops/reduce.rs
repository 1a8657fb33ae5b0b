//! Reductions along any axes.

use super::lines;
use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, Op, Tensor, View};
use crate::shader;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Sum,
    Max,
    Min,
    Prod,
    ArgMax,
    ArgMin,
}

/// One reduction; the result keeps the reduced axes with extent 1.
#[derive(Debug)]
struct Reduce {
    kind: Kind,
    axes: Vec<usize>,
}

/// The axes of a tensor that run along the lines (`along`), or those that count them.
fn part(x: &View, axes: &[usize], along: bool) -> View {
    let chosen: Vec<usize> = (0..x.shape.len()).filter(|axis| axes.contains(axis) == along).collect();
    View {
        shape: chosen.iter().map(|&a| x.shape[a]).collect(),
        strides: chosen.iter().map(|&a| x.strides[a]).collect(),
        offset: if along { 0 } else { x.offset },
    }
}

/// Which element of a tensor is the r-th of line o, where `axes` run along the lines: index rules of `o` and `r`.
fn lines(x: &View, axes: &[usize]) -> String {
    let (o, r) = (part(x, axes, false).wgsl("o"), part(x, axes, true).wgsl("r"));
    format!("fn place(o: u32, r: u32) -> u32 {{\n    return {o} + {r};\n}}")
}

/// Neighbouring invocations that walk through one stretch of memory side by side: a workgroup, or the lanes of one SIMD
/// vector on a CPU, where vectors run one after the other.
pub(super) fn team(caps: &Caps) -> usize {
    if caps.cpu { 8 } else { 64 }
}

/// Elements from which on it pays to sum lines side by side in vec4s, a kernel that takes longer to compile.
const LARGE: usize = 1 << 15;

/// Elements in a row among which one invocation finds the largest.
const ARG_RUN: usize = 1024;

/// Loads of an invocation from a line at the most, which keeps rounding errors of sums small.
const RUN: usize = 256;

/// Elements of a line that a subgroup reads abreast, or twice as many where that is the whole line: the more there are, the
/// longer its code.
const ABREAST: usize = 512;

/// Invocations that share each of some lines: enough to fill the device.
pub(super) fn splits([outputs, length]: [usize; 2], inner: bool, caps: &Caps) -> usize {
    if length <= 64 || (outputs >= 8192 && length <= 1024) {
        return 1;
    }
    // A large GPU has some 65,536 invocations under way.
    let run = if caps.cpu { RUN } else { ((outputs * length) >> 16).clamp(32, RUN) };
    let (splits, team) = (length.div_ceil(run), team(caps));
    if inner && splits > team { splits.next_multiple_of(team) } else { splits }
}

/// BLOCK, in vec4s, and SPAN: how many of `columns`, at most `most`, an invocation goes down, and how many neighbours share
/// as many times more. A CPU takes one SIMD vector of invocations through all lines before the next, and long stretches of
/// each line are what its caches are made for; but they take long to compile, which must be worth it.
pub(super) fn block(columns: usize, elements: usize, most: usize, caps: &Caps) -> [usize; 2] {
    const SPAN: usize = 8;
    const LONG: usize = 1 << 20;
    let most = if elements >= LONG { most } else { most / 4 };
    let fits = |block: &usize| caps.cpu && *block <= most && columns.is_multiple_of(SPAN * block);
    [32, 24, 16, 8, 4, 2].into_iter().find(fits).map_or([1, 1], |block| [block, SPAN])
}

/// `kernel` with the function `piece` for single vec4s, or with `of_two` for pairs of them, whose loads take less time than
/// two of vec4s where they are 64-bit words; and how many of those are `count` vec4s.
pub(super) fn in_pieces(
    kernel: Kernel,
    piece: &'static str,
    of_two: &'static str,
    count: usize,
    pairs: bool,
) -> (Kernel, usize) {
    if !pairs || !count.is_multiple_of(2) {
        return (kernel, count);
    }
    let kernel = kernel.set("PIECE", 2u32).replace("Piece", "alias Piece = array<vec4<f32>, 2>;");
    (kernel.choose(piece, of_two), count / 2)
}

impl Reduce {
    fn code(&self) -> u32 {
        match self.kind {
            Kind::Sum => 0,
            Kind::Max | Kind::ArgMax => 1,
            Kind::Min | Kind::ArgMin => 2,
            Kind::Prod => 3,
        }
    }

    /// A kernel that reduces `length` elements into each of `outputs` results, or of parts of them.
    fn stage(
        &self,
        entry: &'static str,
        [outputs, length]: [usize; 2],
        splits: usize,
        inner: bool,
        caps: &Caps,
    ) -> Kernel {
        Kernel::new(shader!("reduce.wgsl"), entry)
            .set("OUTPUTS", outputs)
            .set("LENGTH", length)
            .set("SPLITS", splits)
            .set("INNER", inner)
            .set("TEAM", splits.min(team(caps)))
            .set("KIND", self.code())
            .set("COUNT", outputs * splits)
            .grid(caps.fold((outputs * splits).div_ceil(64)))
    }

    /// Of `argmax` and `argmin`: the best of each part of a line, then the best of those.
    fn places(&self, [outputs, length]: [usize; 2], vectors: bool, rule: String, caps: &Caps) -> Candidate {
        let parts = length.div_ceil(ARG_RUN);
        let kernel = match vectors {
            true => self.stage("arg_vec4", [outputs, length / 4], parts, false, caps).stream(Arg::In(0)),
            false => self.stage("arg", [outputs, length], parts, false, caps).bind([Arg::In(0)]),
        };
        let kernel = kernel.replace("place", rule.clone());
        if parts == 1 {
            return Candidate::single("serial", kernel.bind([Arg::Out(0)]));
        }
        let first = kernel.bind([Arg::ScratchOut(0)]);
        let last = self.stage("arg_of_parts", [outputs, length], 1, false, caps).set("PARTS", parts);
        let last = last.replace("place", rule).bind([Arg::In(0), Arg::Out(0), Arg::ScratchIn(0)]);
        Candidate::new("staged", vec![first, last], vec![outputs * parts * 4]).turns(parts + 1)
    }

    /// `staged` and, for lines of neighbouring elements, the kernels of which a workgroup or a subgroup takes each line.
    fn beside(&self, staged: Candidate, [outputs, length]: [usize; 2], x: &View, caps: &Caps) -> Vec<Candidate> {
        let kept = (0..x.shape.len()).rfind(|axis| x.shape[*axis] != 1 && !self.axes.contains(axis));
        let trailing = self.axes.iter().all(|&axis| x.shape[axis] == 1 || Some(axis) > kept);
        let contiguous = x.offset == 0 && x.merged().len() <= 1 && x.merged().iter().all(|&(_, stride)| stride == 1);
        if self.kind == Kind::Prod || !trailing || !contiguous || length < 32 {
            return vec![staged];
        }
        let steps = if length.is_multiple_of(4) { length / 4 } else { length };
        let width = lines::width([outputs, steps], caps);
        // Places look through their line twice where there is a NaN.
        let turns = |team: usize| 2 * steps.div_ceil(team).div_ceil(4) + 30;
        let short = |team: usize| self.kind != Kind::Sum || steps.div_ceil(team) <= RUN;
        let args = [Arg::In(0), Arg::Out(0)];
        let grouped = if short(width) { self.grouped([outputs, length], args.clone(), caps) } else { Vec::new() };
        let subgroup = caps.subgroup.filter(|&size| size > 1 && short(size as usize));
        let alone = subgroup.map(|size| {
            let kernel = self.of_lines("by_subgroup", [outputs, length], size as usize, args, caps);
            let kernel = lines::in_a_subgroup(kernel, size, outputs, caps);
            Candidate::single("in_a_subgroup", kernel).turns(turns(size as usize))
        });
        let places = matches!(self.kind, Kind::ArgMax | Kind::ArgMin);
        let few_long = !caps.cpu && outputs * width < 16_384 && steps > 8 * width;
        let in_parts = if few_long && !places { self.in_parts([outputs, length], caps) } else { None };
        let (staged, alone) = (vec![in_parts.unwrap_or(staged)], alone.into_iter().collect::<Vec<_>>());
        let order = if caps.cpu {
            // Sums of teams cost more than those of single invocations: lines must be long enough to repay them.
            let long = outputs >= 16 * caps.threads && steps >= 64;
            if long { [alone, staged, grouped] } else { [staged, alone, grouped] }
        } else if few_long && !places {
            [staged, grouped, alone]
        } else if outputs >= 4096 || steps <= 128 {
            // As many lines as a large GPU has subgroups under way, or short ones.
            [alone, grouped, staged]
        } else {
            [grouped, alone, staged]
        };
        let mut all = order.concat();
        all.splice(0..0, self.abreast([outputs, length], caps));
        all
    }

    /// A workgroup for each line; without and with subgroups, the preferred one first.
    fn grouped(&self, [outputs, length]: [usize; 2], args: [Arg; 2], caps: &Caps) -> Vec<Candidate> {
        let steps = if length.is_multiple_of(4) { length / 4 } else { length };
        let width = lines::width([outputs, steps], caps);
        let kernel = self.of_lines("grouped", [outputs, length], width, args, caps).grid(caps.fold(outputs));
        // Places look through their line twice where there is a NaN.
        let turns = 2 * steps.div_ceil(width).div_ceil(4) + 30;
        lines::teams(["grouped", "grouped_by_subgroups"], kernel, width, turns, caps)
    }

    /// Few long lines in parts that are enough for a large GPU, each the work of a workgroup, and then the parts together.
    fn in_parts(&self, [outputs, length]: [usize; 2], caps: &Caps) -> Option<Candidate> {
        // A workgroup of 256 is to have four loads for each of its invocations.
        let most = (length / 4096).min(1024.max(outputs) / outputs);
        let parts = (2..=most).rev().find(|parts| length.is_multiple_of(4 * parts))?;
        if (length / parts).div_ceil(4 * 256) > RUN {
            return None;
        }
        let stage = |dims, args| self.grouped(dims, args, caps).into_iter().next()?.kernels.pop();
        let first = stage([outputs * parts, length / parts], [Arg::In(0), Arg::ScratchOut(0)])?;
        let last = stage([outputs, parts], [Arg::ScratchIn(0), Arg::Out(0)])?;
        Some(Candidate::new("in_parts", vec![first, last], vec![outputs * parts * 4]))
    }

    /// Lines by a subgroup each, whose lanes lie abreast; long ones in parts, and what these leave in parts of that.
    fn abreast(&self, [outputs, length]: [usize; 2], caps: &Caps) -> Option<Candidate> {
        let size = caps.subgroup.filter(|_| caps.abreast)? as usize;
        let places = matches!(self.kind, Kind::ArgMax | Kind::ArgMin);
        // Measured: what stays in a cache is read no faster so, what does not twice as fast.
        if places || outputs * length < 1 << 22 {
            return None;
        }
        let mut candidate = Candidate::new("abreast", Vec::new(), Vec::new());
        let (mut left, mut from) = (length, Arg::In(0));
        loop {
            let least = if left > 2 * ABREAST { left.div_ceil(ABREAST) } else { 1 };
            let parts = (least..=left / 64).find(|parts| left.is_multiple_of(8 * parts));
            let Some(parts) = parts.filter(|parts| outputs * parts <= lines::ABREAST_LINES) else { break };
            let to = if parts == 1 { Arg::Out(0) } else { Arg::ScratchOut(candidate.scratch.len()) };
            let lines = [outputs * parts, left / parts];
            let kernel = self.of_lines("by_subgroup_abreast", lines, size, [from, to], caps);
            let kernel = kernel.choose("of_line", "reduce_abreast").set("ABREAST", true);
            let kernel = kernel.set("HELD", lines[1].div_ceil(8 * size)).set("ROUNDS", 1u32);
            candidate.kernels.push(lines::in_a_subgroup(kernel, size as u32, lines[0], caps));
            if parts == 1 {
                return Some(candidate);
            }
            from = Arg::ScratchIn(candidate.scratch.len());
            candidate.scratch.push(outputs * parts * 4);
            left = parts;
        }
        if candidate.kernels.is_empty() || left.div_ceil(size) > RUN {
            return None;
        }
        let last = self.of_lines("by_subgroup", [outputs, left], size, [from, Arg::Out(0)], caps);
        candidate.kernels.push(lines::in_a_subgroup(last, size as u32, outputs, caps));
        Some(candidate)
    }

    /// A kernel of which `team` invocations share a line, with four loads under way for each of them.
    fn of_lines(
        &self,
        entry: &'static str,
        [outputs, length]: [usize; 2],
        team: usize,
        [from, to]: [Arg; 2],
        caps: &Caps,
    ) -> Kernel {
        let places = matches!(self.kind, Kind::ArgMax | Kind::ArgMin);
        let mut kernel = Kernel::new(shader!("reduce_lines.wgsl"), entry);
        kernel = kernel.choose("of_line", if places { "locate" } else { "reduce" });
        let vectors = length.is_multiple_of(4);
        if !vectors {
            kernel = lines::one_lane(kernel).choose("loudest_of", "loudest_of_one");
        }
        let steps = if vectors { length / 4 } else { length };
        let (kernel, pieces) = in_pieces(kernel, "piece", "piece_of_two", steps, vectors && caps.wide);
        let loads = pieces.div_ceil(team);
        let kernel = kernel.set("KIND", self.code()).set("LINES", outputs).set("LENGTH", length);
        let kernel = kernel.set("HELD", loads.min(4)).set("ROUNDS", loads.div_ceil(4));
        kernel.stream(from).bind([to])
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Max => "amax",
            Kind::Min => "amin",
            Kind::Prod => "prod",
            Kind::ArgMax => "argmax",
            Kind::ArgMin => "argmin",
        }
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let x = &inputs[0];
        if x.dtype != DType::F32 {
            return Err(format!("it needs an f32 tensor, not {x}; use cast"));
        }
        let empty = self.axes.iter().any(|&a| x.shape[a] == 0);
        if empty && !matches!(self.kind, Kind::Sum | Kind::Prod) {
            return Err(format!("{x} has no elements along the reduced axes"));
        }
        let shape: Vec<usize> =
            x.shape.iter().enumerate().map(|(a, &n)| if self.axes.contains(&a) { 1 } else { n }).collect();
        let dtype = if matches!(self.kind, Kind::ArgMax | Kind::ArgMin) { DType::U32 } else { DType::F32 };
        Ok(vec![Desc::new(shape, dtype)])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let x = node.x(0);
        let dy = node.dy();
        let dims: Vec<isize> = self.axes.iter().map(|&a| a as isize).collect();
        let y = &node.outputs[0];
        vec![match self.kind {
            Kind::Sum => Some(dy.expand(x.shape())),
            // Equal extrema share the gradient, as in PyTorch's amax.
            Kind::Max | Kind::Min => {
                let hits = x.eq(&y.expand(x.shape()));
                let share = dy / hits.sum(&dims, true);
                Some(hits * share)
            }
            // The product of the others, also where one factor is zero.
            Kind::Prod => {
                let zero = x.eq(&x.zeros_like());
                let count = zero.sum(&dims, true);
                let others = zero.where_(&x.ones_like(), x).prod(&dims, true) * count.eq(&count.ones_like());
                let quotient = y / zero.where_(&x.ones_like(), x);
                Some(dy * zero.where_(&others.expand(x.shape()), &quotient))
            }
            Kind::ArgMax | Kind::ArgMin => None,
        }]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let shape = &io.inputs[0].shape;
        let (outputs, whole) = (io.elements(), self.axes.iter().map(|&a| shape[a]).product::<usize>());
        let x = io.view(0);
        let rule = lines(&x, &self.axes);
        let innermost = (0..shape.len()).rev().find(|&a| shape[a] != 1);
        let inner = innermost.is_some_and(|a| self.axes.contains(&a));
        // Whole vec4s, where every line consists of them, or lines side by side do.
        let (along, across) = (part(&x, &self.axes, true), part(&x, &self.axes, false));
        let vectors_of = |width| along.in_parts(width) && across.keeps_parts(width);
        let columns_of = |width| across.in_parts(width) && along.keeps_parts(width);
        let pairs = caps.wide && outputs * whole > 0 && (vectors_of(8) || columns_of(8));
        let vectors = vectors_of(4);
        if matches!(self.kind, Kind::ArgMax | Kind::ArgMin) {
            let staged = self.places([outputs, whole], vectors, rule, caps);
            return self.beside(staged, [outputs, whole], &x, caps);
        }
        let mut candidate = Candidate::new("staged", Vec::new(), Vec::new());
        let (mut entry, mut length) = if vectors {
            ("reduce_vec4", whole / if pairs { 8 } else { 4 })
        } else if columns_of(4) && outputs * whole >= LARGE {
            ("reduce_columns_vec4", whole)
        } else {
            ("reduce", whole)
        };
        let (mut inner, mut rule, mut from) = (inner, rule, Arg::In(0));
        loop {
            let [block, span] = block(outputs / 4, outputs * whole, 32, caps);
            let lines = if entry == "reduce_columns_vec4" { outputs / 4 / block } else { outputs };
            let splits = splits([lines, length], inner, caps);
            let to = if splits == 1 {
                Arg::Out(0)
            } else {
                candidate.scratch.push(outputs * splits * 4);
                Arg::ScratchOut(candidate.scratch.len() - 1)
            };
            let kernel = self.stage(entry, [lines, length], splits, inner, caps).replace("place", rule);
            let in_pieces = |count| in_pieces(kernel.clone(), "piece", "piece_of_two", count, pairs);
            let kernel = match entry {
                "reduce_columns_vec4" => {
                    let (kernel, pieces) = in_pieces(block);
                    kernel.set("BLOCK", pieces).set("SPAN", span).stream(from)
                }
                "reduce_vec4" => in_pieces(whole / 4).0.stream(from),
                _ => kernel.bind([from]),
            };
            candidate.kernels.push(kernel.bind([to]));
            if splits == 1 {
                return self.beside(candidate, [outputs, whole], &x, caps);
            }
            from = Arg::ScratchIn(candidate.scratch.len() - 1);
            rule = format!("fn place(o: u32, r: u32) -> u32 {{ return r * {outputs}u + o; }}");
            (entry, length, inner) = ("reduce", splits, outputs == 1);
        }
    }

    fn epilogue(&self) -> bool {
        !matches!(self.kind, Kind::ArgMax | Kind::ArgMin)
    }

    fn reads(&self, _n: usize, _view: &View) -> bool {
        true
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        inputs[0].elements() as u64
    }
}

/// Running sums along one axis.
#[derive(Debug)]
struct Cumsum(usize);

impl Op for Cumsum {
    fn name(&self) -> &'static str {
        "cumsum"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        match inputs[0].dtype {
            DType::F32 => Ok(vec![inputs[0].clone()]),
            _ => Err(format!("it needs an f32 tensor, not {}", inputs[0])),
        }
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let dim = self.0 as isize;
        vec![Some(node.dy().flip(dim).cumsum(dim).flip(dim))]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let (shape, x) = (&io.inputs[0].shape, io.view(0));
        let length = shape[self.0];
        let count = io.elements() / length.max(1);
        let kernel = |entry, groups| {
            Kernel::new(shader!("reduce.wgsl"), entry)
                .set("OUTPUTS", count)
                .set("LENGTH", length)
                .replace("place", lines(&x, &[self.0]))
                .bind([Arg::In(0), Arg::Out(0)])
                .grid(caps.fold(groups))
        };
        let serial = Candidate::single("serial", kernel("cumsum", count.div_ceil(64))).turns(length + 1);
        if caps.cpu || shape[self.0 + 1..].iter().any(|extent| *extent > 1) || length < 64 {
            return vec![serial];
        }
        let width = lines::width([count, length], caps);
        let scan = kernel("scan", count).set("WIDTH", width);
        vec![Candidate::single("scan", scan).turns(length.div_ceil(4 * width) * 12 + 1), serial]
    }
}

impl Tensor {
    /// What `op` gives where `dims` are not axes of this tensor.
    #[track_caller]
    pub(crate) fn no_axes(&self, op: &str, dims: &[isize]) -> Option<Tensor> {
        match self.desc().shape.axes(dims) {
            Ok(_) => None,
            Err(message) => Some(self.graph().poison(op, message)),
        }
    }

    #[track_caller]
    fn reduce(&self, kind: Kind, dims: &[isize], keepdim: bool) -> Tensor {
        let op = Reduce { kind, axes: self.desc().shape.axes(dims).unwrap_or_default() };
        if let Some(poison) = self.no_axes(op.name(), dims) {
            return poison;
        }
        let axes = op.axes.clone();
        let kept = self.graph().push1(op, &[self]);
        if keepdim || self.graph().failed() {
            return kept;
        }
        let left = (0..self.rank()).filter(|a| !axes.contains(a)).map(|a| self.shape()[a]).collect::<Vec<_>>();
        kept.reshape(left)
    }

    /// Sum along `dims` (none: all).
    #[track_caller]
    pub fn sum(&self, dims: &[isize], keepdim: bool) -> Tensor {
        self.reduce(Kind::Sum, dims, keepdim)
    }

    /// Product along `dims`.
    #[track_caller]
    pub fn prod(&self, dims: &[isize], keepdim: bool) -> Tensor {
        self.reduce(Kind::Prod, dims, keepdim)
    }

    /// Largest element along `dims`; equal ones share the gradient.
    #[track_caller]
    pub fn amax(&self, dims: &[isize], keepdim: bool) -> Tensor {
        self.reduce(Kind::Max, dims, keepdim)
    }

    /// Smallest element along `dims`; equal ones share the gradient.
    #[track_caller]
    pub fn amin(&self, dims: &[isize], keepdim: bool) -> Tensor {
        self.reduce(Kind::Min, dims, keepdim)
    }

    /// Place (u32) of the first largest element along `dims`, flat over them.
    #[track_caller]
    pub fn argmax(&self, dims: &[isize], keepdim: bool) -> Tensor {
        self.reduce(Kind::ArgMax, dims, keepdim)
    }

    /// Place (u32) of the first smallest element along `dims`, flat over them.
    #[track_caller]
    pub fn argmin(&self, dims: &[isize], keepdim: bool) -> Tensor {
        self.reduce(Kind::ArgMin, dims, keepdim)
    }

    /// How many elements a reduction along `dims` takes together.
    fn length(&self, dims: &[isize]) -> f32 {
        let axes = self.desc().shape.axes(dims).unwrap_or_default();
        axes.iter().map(|&a| self.shape()[a]).product::<usize>() as f32
    }

    /// Mean along `dims`.
    #[track_caller]
    pub fn mean(&self, dims: &[isize], keepdim: bool) -> Tensor {
        if let Some(poison) = self.no_axes("mean", dims) {
            return poison;
        }
        self.sum(dims, keepdim) * (1.0 / self.length(dims))
    }

    /// Variance along `dims`, the sum of squares divided by `n - correction` (1: unbiased, 0: biased).
    #[track_caller]
    pub fn var(&self, dims: &[isize], correction: f32, keepdim: bool) -> Tensor {
        if let Some(poison) = self.no_axes("var", dims) {
            return poison;
        }
        let centred = self - self.mean(dims, true);
        centred.square().sum(dims, keepdim) * (1.0 / (self.length(dims) - correction))
    }

    /// Standard deviation along `dims`: the root of [`Tensor::var`]. Where it is 0, so is its gradient.
    #[track_caller]
    pub fn std(&self, dims: &[isize], correction: f32, keepdim: bool) -> Tensor {
        self.var(dims, correction, keepdim).root()
    }

    /// Euclidean norm along `dims`. Where it is 0, so is its gradient.
    #[track_caller]
    pub fn norm(&self, dims: &[isize], keepdim: bool) -> Tensor {
        if let Some(poison) = self.no_axes("norm", dims) {
            return poison;
        }
        self.square().sum(dims, keepdim).root()
    }

    /// Running sums along `dim`.
    #[track_caller]
    pub fn cumsum(&self, dim: isize) -> Tensor {
        match self.desc().shape.axis(dim) {
            Ok(axis) => self.graph().push1(Cumsum(axis), &[self]),
            Err(message) => self.graph().poison("cumsum", message),
        }
    }
}
