//! Matrix products: `matmul` with batches and any transposition, and `linear`.

use super::gemm::{self, Extents, Layout};
use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, Op, Shape, Tensor, View};
use crate::shader;

/// `a x b` over the last two axes, each transposed first if so marked, plus a bias `[N]` where there is a third input;
/// leading axes are batches that broadcast.
#[derive(Debug)]
struct Matmul {
    transpose_a: bool,
    transpose_b: bool,
}

/// Rows of a product that is bound by memory.
const FEW: usize = 4;

impl Matmul {
    /// (M, N, K) of these operands.
    fn extents(&self, a: &Desc, b: &Desc) -> Result<(usize, usize, usize), String> {
        if a.shape.len() < 2 || b.shape.len() < 2 || !a.dtype.is_float() || !b.dtype.is_float() {
            return Err(format!("it needs f32 or f16 matrices, not {a} and {b}"));
        }
        let last = |d: &Desc, flip: bool| {
            let (r, c) = (d.shape[d.shape.len() - 2], d.shape[d.shape.len() - 1]);
            if flip { (c, r) } else { (r, c) }
        };
        let ((m, k), (other, n)) = (last(a, self.transpose_a), last(b, self.transpose_b));
        if k != other {
            return Err(format!("the inner extents of {a} and {b} differ: {k} and {other}"));
        }
        Ok((m, n, k))
    }
}

/// Where an operand's elements lie: strides along its last two axes, and where each batch of the result begins in it.
pub(super) struct Operand {
    pub(super) rows: isize,
    columns: isize,
    batches: View,
}

impl Operand {
    /// Of a tensor that lies as `view` says, for a result with these batches; `flip` swaps the last two axes.
    pub(super) fn new(view: &View, batch: &Shape, flip: bool) -> Operand {
        let own = view.shape.len() - 2;
        let (mut rows, mut columns) = (view.strides[own], view.strides[own + 1]);
        if flip {
            (rows, columns) = (columns, rows);
        }
        let lead = batch.len() - own;
        let stride = |axis: usize| match axis.checked_sub(lead) {
            Some(own) if view.shape[own] != 1 => view.strides[own],
            _ => 0,
        };
        let strides = (0..batch.len()).map(stride).collect();
        Operand { rows, columns, batches: View { shape: batch.to_vec(), strides, offset: view.offset } }
    }

    /// Whether it can be read in vec4s, along its rows or its columns.
    fn in_quads(&self) -> bool {
        let other = if self.columns == 1 { self.rows } else { self.columns };
        (self.columns == 1 || self.rows == 1) && other % 4 == 0 && self.batches.keeps_parts(4)
    }

    /// The function that says where a batch begins.
    pub(super) fn begin(&self, name: &str) -> String {
        format!("fn {name}(batch: u32) -> u32 {{\n    return {};\n}}", self.batches.wgsl("batch"))
    }
}

fn batch_shape(desc: &Desc) -> Shape {
    Shape::from(&desc.shape[..desc.shape.len() - 2])
}

/// Neighbouring steps along k that `pack` copies of a panel before it goes to the next one.
const PACKED_STEPS: usize = 32;

/// `quads` that reads operands from panels, where these are worth their making. `None` where none is.
fn packed(quads: &Candidate, operands: [&Operand; 2], io: &Io<'_>, e: Extents, caps: &Caps) -> Option<Candidate> {
    let [product] = &quads.kernels[..] else { return None };
    if e.batches != 1 {
        return None;
    }
    let mut product = product.clone();
    let (mut kernels, mut scratch) = (Vec::new(), Vec::new());
    // How long the rows of an operand are, and how many of the result share it. What is large, in long rows, gains most; the
    // bounds were set by hand after some 40 shapes on lavapipe.
    let pays = |n: usize, line: usize, shared: usize| {
        let least = [[1000, 768], [512, 96]][n][usize::from(line >= 2048)];
        io.inputs[n].dtype == DType::F32 && e.k * line >= 1_000_000 && shared >= least
    };
    let a = (operands[0].columns, e.m, e.n, gemm::quad_rows(e.m), "a_quad", "a_quad_of_panel");
    let b = (operands[1].rows, e.n, e.m, 32, "b_quads", "b_quads_of_panel");
    for (n, (row, line, shared, panel, function, of_panel)) in [a, b].into_iter().enumerate() {
        if row == 1 || !pays(n, line, shared) {
            continue;
        }
        let bytes = line.next_multiple_of(panel) * e.k * 4;
        if bytes + caps.guard > caps.binding.min(caps.buffer) as usize {
            continue;
        }
        let count = e.k.next_multiple_of(PACKED_STEPS) * line.next_multiple_of(panel) / 4;
        let pack = Kernel::new(shader!("matmul.wgsl"), "pack")
            .moves(true)
            .set("K", e.k)
            .set("LINE", line)
            .set("PANEL", panel)
            .set("STEPS", PACKED_STEPS)
            .set("A_K", row as usize)
            .replace("a_batch", operands[n].begin("a_batch"))
            .stream(Arg::In(n))
            .bind([Arg::ScratchOut(scratch.len())]);
        kernels.push(pack.grid(caps.fold(count.div_ceil(64))));
        product = product.choose(function, of_panel);
        product.args[n] = Arg::ScratchIn(scratch.len());
        scratch.push(bytes);
    }
    if kernels.is_empty() {
        return None;
    }
    kernels.push(product);
    Some(Candidate::new("packed", kernels, scratch))
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let (a, b) = (&inputs[0], &inputs[1]);
        let (m, n, _) = self.extents(a, b)?;
        if let Some(bias) = inputs.get(2).filter(|bias| **bias != Desc::f32([n])) {
            return Err(format!("the bias is {bias}, not f32[{n}]"));
        }
        let batch = batch_shape(a).broadcast(&batch_shape(b));
        let mut shape = batch.ok_or_else(|| format!("the batches of {a} and {b} do not broadcast"))?.to_vec();
        shape.extend([m, n]);
        Ok(vec![Desc::f32(shape)])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (a, b, dy) = (node.x(0), node.x(1), node.dy());
        // With Y = A B: dA = dY B', dB = A' dY, each transposed as the operand is stored.
        let da = if self.transpose_a {
            b.matmul_t(&dy, self.transpose_b, true)
        } else {
            dy.matmul_t(b, false, !self.transpose_b)
        };
        let db = if self.transpose_b {
            dy.matmul_t(a, true, self.transpose_a)
        } else {
            a.matmul_t(&dy, !self.transpose_a, false)
        };
        let mut grads = vec![Some(da.sum_to(&a.desc().shape)), Some(db.sum_to(&b.desc().shape))];
        grads.extend(node.inputs.get(2).map(|bias| Some(dy.sum_to(&bias.desc().shape))));
        grads
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let Ok((m, n, k)) = self.extents(&io.inputs[0], &io.inputs[1]) else { return Vec::new() };
        let batch = batch_shape(&io.outputs[0]);
        let a = Operand::new(&io.view(0), &batch, self.transpose_a);
        let b = Operand::new(&io.view(1), &batch, self.transpose_b);
        let bias = (io.inputs.len() > 2).then(|| gemm::bias(false, 3));
        let settle = |kernel: Kernel| {
            let kernel = kernel
                .set("A_M", a.rows as usize)
                .set("A_K", a.columns as usize)
                .set("B_K", b.rows as usize)
                .set("B_N", b.columns as usize)
                .set("A_ALONG_K", a.columns == 1)
                .set("B_ALONG_K", b.columns != 1)
                .replace("a_batch", a.begin("a_batch"))
                .replace("b_batch", b.begin("b_batch"));
            let halves = |kernel: Kernel, operand: usize, [at, half_at, four, four_halves]: [&'static str; 4]| match io
                .inputs[operand]
                .dtype
            {
                DType::F16 => kernel.choose(at, half_at).choose(four, four_halves),
                _ => kernel,
            };
            let kernel = halves(kernel, 0, ["a_at", "a_half_at", "a_four", "a_four_halves"]);
            let kernel = halves(kernel, 1, ["b_at", "b_half_at", "b_four", "b_four_halves"]);
            bias.iter().fold(kernel, |kernel, (name, text)| kernel.replace(*name, text.clone()))
        };
        let make = |entry| settle(Kernel::new(shader!("matmul.wgsl"), entry));
        let extents = Extents { batches: batch.elements(), m, n, k };
        let behind: &[Arg] = if bias.is_some() { &[Arg::In(2)] } else { &[] };
        // Operands consist of whole vec4s, each along its neighbours.
        let layout = |operand: &Operand, along_k: bool, other: usize| Layout {
            along_k,
            whole: operand.in_quads() && if along_k { k.is_multiple_of(4) } else { other.is_multiple_of(4) },
        };
        let layouts = [layout(&a, a.columns == 1, m), layout(&b, b.columns != 1, n)];
        let whole = layouts.iter().all(|layout| layout.whole);
        // ... and so do rows of the result, and steps along k.
        let whole = whole && n.is_multiple_of(4) && k.is_multiple_of(4) && k > 0;
        // B consists of whole pairs of vec4s.
        let pairs = io.inputs[1].dtype == DType::F32 && b.rows % 8 == 0 && b.batches.keeps_parts(8);
        // `columns` stores vec4s, `dots` single elements.
        let few_whole = whole || (b.columns != 1 && k.is_multiple_of(4) && k > 0 && a.in_quads() && b.in_quads());
        let few = (few_whole && m <= FEW && n > 0 && a.columns == 1)
            .then(|| gemm::few(make, extents, b.columns != 1, pairs, behind, caps));
        let quads = (caps.cpu && whole).then(|| {
            let mut kernel = make("quads");
            if a.columns != 1 {
                kernel = kernel.choose("a_quad", "a_quad_along_m");
            }
            if b.columns != 1 {
                kernel = kernel.choose("b_quads", "b_quads_along_k");
            }
            gemm::quads(kernel, extents, behind, caps)
        });
        let (types, along) = ([io.inputs[0].dtype, io.inputs[1].dtype], [a.columns == 1, b.columns != 1]);
        let matrices = (whole && types[0] == types[1] && m > 0 && n > 0)
            .then(|| gemm::matrices(settle, extents, types[0], along, behind, caps))
            .flatten();
        let packed = quads.as_ref().and_then(|quads| packed(quads, [&a, &b], io, extents, caps));
        let others = gemm::candidates(make, extents, layouts, behind, caps);
        let streams = b.columns == 1 && few.is_some() && gemm::few_block(extents, caps)[0] > 1;
        // Of a block of 32 columns, three quarters would be idle; of little work, blocks are small.
        let narrow = n <= 8 && k >= 256 && a.columns == 1 && batch.elements() * m * n * k > 1 << 18;
        // Many steps side by side, each of which is hardly worth a load.
        let flat = k <= 8 && m <= FEW && few.is_some() && b.columns == 1 && batch.elements() * n >= 4096;
        if !caps.cpu {
            few.into_iter().chain(others).chain(matrices).collect()
        } else if streams || flat {
            few.into_iter().chain(quads).chain(others).chain(matrices).collect()
        } else if narrow {
            others.into_iter().chain(quads).chain(few).chain(matrices).collect()
        } else {
            packed.into_iter().chain(quads).chain(others).chain(few).chain(matrices).collect()
        }
    }

    fn halves(&self) -> bool {
        true
    }

    fn reads(&self, n: usize, view: &View) -> bool {
        n < 2 && view.shape.len() >= 2 && view.strides.iter().all(|stride| *stride >= 0)
    }

    fn epilogue(&self) -> bool {
        true
    }

    fn flops(&self, inputs: &[Desc], outputs: &[Desc]) -> u64 {
        let k = self.extents(&inputs[0], &inputs[1]).map_or(0, |e| e.2);
        2 * (k * outputs[0].elements()) as u64
    }
}

/// The dispatches of a product within another op's candidate, by its preferred kernels: of operands like these, bound as
/// the first two of `args`, into the third. Scratch buffers of their own go behind those in `scratch`.
pub(super) fn dispatches(
    [transpose_a, transpose_b]: [bool; 2],
    operands: [(Desc, Option<View>); 2],
    args: [Arg; 3],
    scratch: &mut Vec<usize>,
    caps: &Caps,
) -> Option<Vec<Kernel>> {
    let op = Matmul { transpose_a, transpose_b };
    let (inputs, views): (Vec<_>, Vec<_>) = operands.into_iter().unzip();
    let outputs = op.outputs(&inputs).ok()?;
    let io = Io { inputs: &inputs, views: &views, outputs: &outputs, used: &[true], state: &[], pack: &[] };
    let mut candidates = op.candidates(&io, caps).into_iter();
    let candidate = candidates.find(|candidate| candidate.turns <= caps.turns && candidate.texels.is_empty())?;
    let (mut kernels, before) = (candidate.kernels, scratch.len());
    for arg in kernels.iter_mut().flat_map(|kernel| &mut kernel.args) {
        *arg = match &*arg {
            Arg::In(n) => args[*n].clone(),
            Arg::Out(_) => args[2].clone(),
            Arg::ScratchOut(n) => Arg::ScratchOut(before + *n),
            Arg::ScratchIn(n) => Arg::ScratchIn(before + *n),
            other => other.clone(),
        };
    }
    scratch.extend(candidate.scratch);
    Some(kernels)
}

impl Tensor {
    /// Matrix product over the last two axes, the others being batches that broadcast; a vector is taken as a row
    /// (left) or a column (right), as in PyTorch. Operands may be f16 ([`DType::F16`]), both or one of them: products and
    /// sums are f32, and so is the result.
    ///
    /// ```no_run
    /// use shadegrad::{DType, Gpu, Graph, Param, graph::Role};
    /// // Weights at half the memory, for a network that is only used: a product with a few rows is bound by reading them.
    /// let weight = Param::new_f16("weight", Role::Weight, [1024, 1024], &[0.5; 1024 * 1024]);
    /// let g = Graph::inference();
    /// let x = g.input([1, 1024]);
    /// let y = x.linear(&g.param(&weight), None);
    /// // In training, weights stay f32 and are rounded for each product.
    /// let z = y.cast(DType::F16).matmul(&y.cast(DType::F16).transpose(0, 1));
    /// let program = Gpu::new()?.compile(&g.function([&z]))?;
    /// # Ok::<(), shadegrad::Error>(())
    /// ```
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        match (self.rank(), other.rank()) {
            (0, _) | (_, 0) => {
                self.graph().poison("matmul", format!("{} and {}: a scalar is no matrix", self.desc(), other.desc()))
            }
            (1, 1) => self.unsqueeze(0).matmul_t(&other.unsqueeze(1), false, false).reshape([]),
            (1, _) => self.unsqueeze(0).matmul_t(other, false, false).squeeze(-2),
            (_, 1) => self.matmul_t(&other.unsqueeze(1), false, false).squeeze(-1),
            _ => self.matmul_t(other, false, false),
        }
    }

    /// [`Tensor::matmul`] of the operands' transposes, which are read in place.
    #[track_caller]
    pub fn matmul_t(&self, other: &Tensor, transpose_a: bool, transpose_b: bool) -> Tensor {
        self.product(other, None, transpose_a, transpose_b)
    }

    #[track_caller]
    fn product(&self, other: &Tensor, bias: Option<&Tensor>, transpose_a: bool, transpose_b: bool) -> Tensor {
        let op = Matmul { transpose_a, transpose_b };
        // Nothing is transposed by a batch that only the left operand has, so it is more rows of one product.
        if self.rank() > 2 && other.rank() == 2 && !transpose_a {
            let rows = self.elements() / self.shape()[self.rank() - 1].max(1);
            let flat = self.reshape([rows, self.shape()[self.rank() - 1]]);
            let y = self.graph().push1(op, &with_bias(&flat, other, bias));
            if self.graph().failed() {
                return y;
            }
            let mut shape = self.shape()[..self.rank() - 1].to_vec();
            shape.push(y.shape()[1]);
            return y.reshape(shape);
        }
        self.graph().push1(op, &with_bias(self, other, bias))
    }

    /// `x W' + b`: x [..., in], weight [out, in], bias `[out]` -> [..., out].
    #[track_caller]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        if self.rank() == 1 {
            self.unsqueeze(0).product(weight, bias, false, true).squeeze(0)
        } else {
            self.product(weight, bias, false, true)
        }
    }
}

fn with_bias<'a>(a: &'a Tensor, b: &'a Tensor, bias: Option<&'a Tensor>) -> Vec<&'a Tensor> {
    [a, b].into_iter().chain(bias).collect()
}
