//! Scaled dot-product attention without the matrix of scores in memory.

use super::attention_grad::FusedGrad;
use super::gemm;
use super::matmul::Operand;
use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, Op, Shape, Tensor, View, float};
use crate::shader;

/// Options of [`Tensor::scaled_dot_product_attention`].
#[derive(Clone, Debug, Default)]
pub struct Attention {
    causal: bool,
    scale: Option<f32>,
    mask: Option<Tensor>,
}

impl Attention {
    /// Every query sees every key; scores are divided by the root of a query's length.
    pub fn new() -> Self {
        Self::default()
    }

    /// Query m sees keys 0 to m alone, as PyTorch's `is_causal`.
    pub fn causal(mut self, causal: bool) -> Self {
        self.causal = causal;
        self
    }

    /// What products of queries and keys are multiplied by.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = Some(scale);
        self
    }

    /// What is added to the scaled scores, f32 of a shape that broadcasts to [..., queries, keys]; where it is
    /// -1e30 or less, down to minus infinity, nothing is seen.
    pub fn mask(mut self, mask: &Tensor) -> Self {
        self.mask = Some(mask.clone());
        self
    }

    /// PyTorch's mask of bools: where `mask`, f32 of a shape that broadcasts to [..., queries, keys], is 0, nothing is seen.
    #[track_caller]
    pub fn allowed(self, mask: &Tensor) -> Self {
        let hidden = mask.eq(&mask.zeros_like());
        self.mask(&(hidden * NOTHING))
    }
}

/// A score that counts for nothing.
const NOTHING: f32 = -1e30;

/// Most elements of a query or value that the fused kernels hold in registers.
const LONGEST: usize = 128;

/// Keys that a workgroup of a GPU shares at a time, and queries that it answers.
const TILE_KEYS: usize = 32;
const TILE_ROWS: usize = 64;

/// Rows, and columns in a turn, of the kernels for CPUs without subgroups.
pub(super) const ALONE: usize = 8;

/// The most queries that get a workgroup each, and its invocations.
const FEW: usize = 16;
const FEW_WIDTH: usize = 128;

/// Queries [..., M, D], keys [..., N, D], values [..., N, E] and perhaps a mask, to results [..., M, E] and the statistics
/// [2, ..., M]: the largest score of each query, and the sums of exp(score - largest).
#[derive(Clone, Debug)]
pub(super) struct Fused {
    pub(super) scale: f32,
    pub(super) causal: bool,
    pub(super) masked: bool,
}

impl Fused {
    /// The shares [..., M, N] that keys have in queries' results. They are the same whatever is taken for the largest score.
    pub(super) fn shares(&self, q: &Tensor, k: &Tensor, mask: Option<&Tensor>, stats: &Tensor) -> Tensor {
        let scores = scores(q, k, mask, self.scale, self.causal);
        let parts = (&scores - row(stats, 0).detach()).exp();
        parts / row(stats, 1) * scores.gt_scalar(NOTHING)
    }

    /// Pairs of a query and a key that it sees: query i sees i + 1 keys where only earlier ones count, until it sees all.
    pub(super) fn seen(&self, q: &[usize], k: &[usize]) -> usize {
        let (m, n) = (q[q.len() - 2], k[k.len() - 2]);
        let pairs = if self.causal { m.min(n) * (m.min(n) + 1) / 2 + m.saturating_sub(n) * n } else { m * n };
        q[..q.len() - 2].iter().product::<usize>() * pairs
    }

    /// `kernel` for scores [batch, m, n], with the mask that is input `at`, if there is one.
    pub(super) fn scored(&self, kernel: Kernel, batch: &Shape, [m, n]: [usize; 2], io: &Io<'_>, at: usize) -> Kernel {
        let kernel = kernel
            .set("BATCHES", batch.elements())
            .set("QUERIES", m)
            .set("KEYS", n)
            .set("SCALE", self.scale)
            .set("CAUSAL", self.causal);
        let Some(mask) = io.inputs.get(at).filter(|_| self.masked) else { return kernel };
        let place = View::broadcast(&mask.shape, &Shape::from([&batch[..], &[m, n]].concat())).wgsl("i");
        let place = format!("fn mask_place(i: u32) -> u32 {{\n    return {place};\n}}");
        kernel.choose("mask", "mask_given").replace("mask_place", place).bind_as("MASK", Arg::In(at))
    }
}

/// Row `n` of statistics, to go with scores.
pub(super) fn row(stats: &Tensor, n: usize) -> Tensor {
    stats.narrow(0, n, 1).squeeze(0).unsqueeze(-1)
}

/// Whether kernels can read queries, keys or values that lie so: in vec4s of neighbours.
pub(super) fn in_fours(view: &View) -> bool {
    let Some((last, others)) = view.strides.split_last() else { return false };
    *last == 1 && view.offset.is_multiple_of(4) && others.iter().all(|s| *s >= 0 && s % 4 == 0)
}

/// `kernel` with the place of input `n`: the `const` for the elements from one row to the next, and the function for where
/// a batch begins.
pub(super) fn placed(kernel: Kernel, io: &Io<'_>, n: usize, batch: &Shape, [row, begin]: [&'static str; 2]) -> Kernel {
    let operand = Operand::new(&io.view(n), batch, false);
    kernel.set(row, operand.rows as usize).replace(begin, operand.begin(begin))
}

/// The scores [..., M, N]; those that count for nothing are [`NOTHING`].
fn scores(q: &Tensor, k: &Tensor, mask: Option<&Tensor>, scale: f32, causal: bool) -> Tensor {
    let products = q.matmul_t(k, false, true) * scale;
    let scores = mask.map_or(products.clone(), |mask| products + mask);
    let scores = scores.maximum(&q.graph().full([], NOTHING));
    if !causal {
        return scores;
    }
    let seen = scores.ones_like().tril(0).detach();
    seen.where_(&scores, &scores.full_like(NOTHING))
}

/// How many of these rows a SIMD vector of a CPU takes. More would be hardly faster, and compile twice as long.
pub(super) fn lane_rows(rows: usize) -> usize {
    rows.next_power_of_two().clamp(4, 16)
}

/// `tiles` without workgroup memory, a row for each invocation.
pub(super) fn alone(tiles: Kernel) -> Kernel {
    let tiles = tiles.set("TILE_ROWS", ALONE).set("TILE", ALONE).choose("fill_tile", "fill_nothing");
    tiles.choose("a_of_tile", "a_of_column").choose("b_of_tile", "b_of_column")
}

/// What kernels are for: queries [batch, m, d], keys [batch, n, d] and values [batch, n, e].
pub(super) struct Work<'a> {
    pub(super) op: &'a Fused,
    pub(super) io: &'a Io<'a>,
    pub(super) caps: &'a Caps,
    pub(super) batch: Shape,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) d: usize,
    pub(super) e: usize,
}

impl<'a> Work<'a> {
    /// Of the first three inputs.
    pub(super) fn new(op: &'a Fused, io: &'a Io<'a>, caps: &'a Caps) -> Self {
        let [q, k, v] = [0, 1, 2].map(|n| &io.inputs[n].shape[..]);
        let rank = q.len();
        let (m, n, d, e) = (q[rank - 2], k[rank - 2], q[rank - 1], v[rank - 1]);
        Work { op, io, caps, batch: Shape::from(&q[..rank - 2]), m, n, d, e }
    }
}

impl Work<'_> {
    /// Queries of all batches.
    fn rows(&self) -> usize {
        self.batch.elements() * self.m
    }

    fn kernel(&self, entry: &'static str, [y, stats]: [Arg; 2]) -> Kernel {
        let mut kernel = Kernel::new(shader!("attention.wgsl"), entry)
            .set("COLUMNS", self.n)
            .set("END", self.n)
            .set("A4", self.d / 4)
            .set("B4", self.e / 4)
            .bind([1, 2, 0].map(Arg::In))
            .bind_as("Y", y)
            .bind_as("STATS", stats);
        for (n, names) in [["Q_ROW", "q_batch"], ["A_ROW", "a_batch"], ["B_ROW", "b_batch"]].into_iter().enumerate() {
            kernel = placed(kernel, self.io, n, &self.batch, names);
        }
        self.op.scored(kernel, &self.batch, [self.m, self.n], self.io, 3)
    }

    /// Queries in blocks, each shared by as many invocations: one, or two, which takes subgroups.
    fn tiles(&self, sharers: usize) -> Candidate {
        let lengths = [self.d, self.e];
        // Both tiles together take half of the workgroup memory, so that two workgroups fit.
        let fit = self.caps.workgroup_memory as usize / 2 / (4 * (self.d + self.e));
        let keys = fit.clamp(1, TILE_KEYS);
        let kernel = self.kernel("tiles", [0, 1].map(Arg::Out)).set("TILE_ROWS", TILE_ROWS).set("TILE", keys);
        let groups = self.batch.elements() * self.m.div_ceil(TILE_ROWS);
        let kernel = kernel.set("SHARE", sharers).grid(self.caps.fold(groups));
        // The loop over tiles, two that fill them, one over their keys; each loop's end is a turn, too.
        let fill = lengths.map(|length| (keys * length / 4).div_ceil(TILE_ROWS) + 1);
        let turns = self.n.div_ceil(keys) * (1 + fill[0] + fill[1] + keys + 1) + 1;
        match sharers {
            1 => Candidate::single("tiles", kernel),
            _ => Candidate::single("tiles_of_two", kernel.choose("of_query", "of_query_of_two")),
        }
        .turns(turns)
    }

    /// A query for each invocation of a CPU without subgroups: all read the same of a key at a time, in one load.
    fn alone(&self) -> Candidate {
        let kernel = alone(self.kernel("tiles", [0, 1].map(Arg::Out)));
        let groups = self.batch.elements() * self.m.div_ceil(ALONE);
        Candidate::single("alone", kernel.grid(self.caps.fold(groups))).turns(self.n.div_ceil(ALONE) * (ALONE + 2) + 1)
    }

    /// Queries for each SIMD vector of a CPU.
    fn lanes(&self) -> Candidate {
        let rows = lane_rows(self.m);
        let kernel = self.kernel("lanes", [0, 1].map(Arg::Out)).set("LANE_ROWS", rows).set("OWN", self.e.div_ceil(32));
        let kernel = kernel.grid(self.caps.fold(self.batch.elements() * self.m.div_ceil(rows)));
        Candidate::single("lanes", kernel).turns(self.n.div_ceil(32) * (1 + self.d / 4 + 1 + 9) + 1 + rows + 1)
    }

    /// A few queries on a GPU: in one dispatch, or in parts of at least two turns and another that puts them together,
    /// where it takes these to occupy a large GPU.
    fn few(&self) -> Candidate {
        let (rows, vectors) = (self.rows(), self.e / 4);
        let parts = (512 / rows).clamp(1, self.n.div_ceil(2 * FEW_WIDTH));
        let results = [0, 1].map(if parts == 1 { Arg::Out } else { Arg::ScratchOut });
        let mut kernel = self.kernel("few", results).set("PARTS", parts).set("WIDTH", FEW_WIDTH);
        kernel = kernel.grid(self.caps.fold(parts * rows));
        if self.caps.subgroups {
            kernel = kernel.choose("all_max", "all_max_by_subgroups").choose("all_sum", "all_sum_by_subgroups");
        }
        // A turn has a key's products, two loops over values and shares, and what the workgroup combines.
        let groups = FEW_WIDTH / vectors;
        let turn = 1 + (self.d / 16 + 2) + (FEW_WIDTH / groups + 2) + 16;
        let turns = self.n.div_ceil(parts).div_ceil(FEW_WIDTH) * turn + groups + 17;
        if parts == 1 {
            return Candidate::single("few", kernel).turns(turns);
        }
        let merge = Kernel::new(shader!("attention.wgsl"), "merge")
            .set("BATCHES", rows)
            .set("B4", vectors)
            .set("PARTS", parts)
            .bind([0, 1].map(Arg::ScratchIn))
            .bind_as("Y", Arg::Out(0))
            .bind_as("STATS", Arg::Out(1))
            .grid(self.caps.fold((rows * vectors).div_ceil(64)));
        let scratch = [self.e, 2].map(|length| parts * rows * length * 4);
        Candidate::new("few", vec![kernel, merge], scratch.to_vec()).turns(turns)
    }
}

impl Op for Fused {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let (q, v) = (&inputs[0].shape, &inputs[2].shape);
        let lead = &q[..q.len() - 1];
        Ok(vec![Desc::f32([lead, &v[v.len() - 1..]].concat()), Desc::f32([&[2], lead].concat())])
    }

    /// What arrives at the sums adds P times it times the sums to the scores' gradient, and so counts as what results and
    /// what arrives at them have in common. A mask's gradient takes the scores, others do not.
    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (q, k, v, dy, stats) = (node.x(0), node.x(1), node.x(2), node.dy(), &node.outputs[1]);
        let mut inner = (&dy * &node.outputs[0]).sum(&[-1], true);
        if let Some(dstats) = &node.grads[1] {
            inner = inner - row(dstats, 1) * row(stats, 1);
        }
        let mask = node.inputs.get(3);
        let dmask = mask.map(|mask| {
            let dscores = self.shares(q, k, Some(mask), stats) * (dy.matmul_t(v, false, true) - &inner);
            Some(dscores.sum_to(&mask.desc().shape))
        });
        let stats = stats.concat(&[&inner.squeeze(-1).unsqueeze(0)], 0);
        let inputs: Vec<&Tensor> = [q, k, v, &dy, &stats].into_iter().chain(mask).collect();
        let grads = q.graph().push(FusedGrad(self.clone()), &inputs);
        grads.into_iter().map(Some).chain(dmask).collect()
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let work = Work::new(self, io, caps);
        let (m, d, e) = (work.m, work.d, work.e);
        let lanes = (gemm::lanes(caps) == 8).then(|| work.lanes());
        if caps.cpu {
            return lanes.into_iter().chain([work.alone()]).collect();
        }
        let few = (m <= FEW).then(|| work.few());
        let mut tiles = vec![work.tiles(1)];
        if caps.subgroups && d.is_multiple_of(8) && e.is_multiple_of(8) {
            // One invocation's registers do not hold a long query and its sums.
            tiles.insert(usize::from(d + e <= 192), work.tiles(2));
        }
        few.into_iter().chain(tiles).chain(lanes).collect()
    }

    fn reads(&self, n: usize, view: &View) -> bool {
        n < 3 && in_fours(view)
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        let (q, v) = (&inputs[0].shape, &inputs[2].shape);
        (2 * self.seen(q, v) * (q[q.len() - 1] + v[v.len() - 1])) as u64
    }
}

impl Tensor {
    /// `softmax(q k' scale + mask) v` for queries (`self`) [..., M, D], keys [..., N, D] and values [..., N, E], whose
    /// leading axes are alike -> [..., M, E] (Vaswani et al., 2017). A query that sees no key gets zeros.
    ///
    /// Where D and E are multiples of 4 up to 128, no score is stored: gradients compute them again. Only a mask's gradient,
    /// a gradient's gradient, and kernels for scores of up to 32 MiB store them, [..., M, N], while they need them.
    ///
    /// ```
    /// use shadegrad::{Graph, ops::Attention};
    /// let g = Graph::new();
    /// let [q, k, v] = [0, 1, 2].map(|_| g.input([2, 8, 100, 64]));
    /// let y = q.scaled_dot_product_attention(&k, &v, &Attention::new().causal(true));
    /// assert_eq!(y.shape(), [2, 8, 100, 64]);
    /// ```
    #[track_caller]
    pub fn scaled_dot_product_attention(&self, keys: &Tensor, values: &Tensor, options: &Attention) -> Tensor {
        if let Err(message) = check(self.desc(), keys.desc(), values.desc(), options) {
            return self.graph().poison("scaled_dot_product_attention", message);
        }
        let (d, e) = (self.shape()[self.rank() - 1], values.shape()[values.rank() - 1]);
        if keys.shape()[keys.rank() - 2] == 0 {
            return self.graph().full([&self.shape()[..self.rank() - 1], &[e]].concat(), 0.0);
        }
        let scale = options.scale.unwrap_or_else(|| (d as f32).sqrt().recip());
        let fits = |n: usize| n.is_multiple_of(4) && (4..=LONGEST).contains(&n);
        if fits(d) && fits(e) && self.elements() > 0 && keys.elements() > 0 {
            let op = Fused { scale, causal: options.causal, masked: options.mask.is_some() };
            let inputs: Vec<&Tensor> = [self, keys, values].into_iter().chain(&options.mask).collect();
            return self.graph().push1(op, &inputs);
        }
        let scores = scores(self, keys, options.mask.as_ref(), scale, options.causal);
        let seen = scores.gt_scalar(NOTHING);
        (scores.softmax(-1) * seen).matmul(values)
    }
}

fn check(q: &Desc, k: &Desc, v: &Desc, options: &Attention) -> Result<(), String> {
    let rank = q.shape.len();
    let matrices = [q, k, v].iter().all(|t| t.dtype == DType::F32 && t.shape.len() == rank) && rank >= 2;
    let alike = || [k, v].iter().all(|t| t.shape[..rank - 2] == q.shape[..rank - 2]);
    if !matrices || !alike() || k.shape[rank - 1] != q.shape[rank - 1] || v.shape[rank - 2] != k.shape[rank - 2] {
        return Err(format!(
            "f32 queries [..., M, D], keys [..., N, D], values [..., N, E] are needed, not {q}, {k}, {v}"
        ));
    }
    if let Some(scale) = options.scale.filter(|scale| !scale.is_finite()) {
        return Err(format!("the scale is {}", float(scale)));
    }
    let scores = Shape::from([&q.shape[..rank - 1], &[k.shape[rank - 2]]].concat());
    match options.mask.as_ref().map(Tensor::desc) {
        Some(_) if !scores.is_countable() => {
            Err(format!("with a mask, the scores {scores} must not be more than 32 bits can count; split the batch"))
        }
        Some(mask) if mask.dtype != DType::F32 || mask.shape.broadcast(&scores).is_none_or(|both| both != scores) => {
            Err(format!("the mask is {mask}, but must be f32 that broadcasts to {scores}"))
        }
        _ => Ok(()),
    }
}
