//! Scaled dot-product attention without the matrix of scores in memory.

mod backward;
mod forward;

use super::matmul::Operand;
use crate::graph::{Arg, Caps, DType, Desc, Io, Kernel, Shape, Tensor, View, float};

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

/// The fewest rows, and invocations, of a GPU's workgroup, and the most columns that it shares at a time.
const TILE_ROWS: usize = 64;
const TILE: usize = 32;

/// Elements of operands and sums that an invocation of a GPU is to keep in registers.
const REGISTERS: usize = 128;

/// Rows, and columns in a turn, of the kernels for CPUs without subgroups.
const ALONE: usize = 8;

/// Workgroups that occupy a large GPU, and the fewest columns that are worth a workgroup of their own.
const MANY_GROUPS: usize = 512;
const SHORTEST_PART: usize = 256;

/// Queries [..., M, D], keys [..., N, D], values [..., N, E] and perhaps a mask, to results [..., M, E] and the statistics
/// [2, ..., M]: the largest score of each query, and the sums of exp(score - largest).
#[derive(Clone, Debug)]
struct Fused {
    scale: f32,
    causal: bool,
    masked: bool,
}

impl Fused {
    /// The shares [..., M, N] that keys have in queries' results. They are the same whatever is taken for the largest score.
    fn shares(&self, q: &Tensor, k: &Tensor, mask: Option<&Tensor>, stats: &Tensor) -> Tensor {
        let scores = scores(q, k, mask, self.scale, self.causal);
        let shares = (&scores - row(stats, 0).detach()).exp() / row(stats, 1);
        scores.le_scalar(NOTHING).where_(&scores.zeros_like(), &shares)
    }

    /// Pairs of a query and a key that it sees: query i sees i + 1 keys where only earlier ones count, until it sees all.
    fn seen(&self, q: &[usize], k: &[usize]) -> usize {
        let (m, n) = (q[q.len() - 2], k[k.len() - 2]);
        let pairs = if self.causal { m.min(n) * (m.min(n) + 1) / 2 + m.saturating_sub(n) * n } else { m * n };
        q[..q.len() - 2].iter().product::<usize>() * pairs
    }
}

/// Row `n` of statistics, to go with scores.
fn row(stats: &Tensor, n: usize) -> Tensor {
    stats.narrow(0, n, 1).squeeze(0).unsqueeze(-1)
}

/// Whether kernels can read queries, keys or values that lie so: in vec4s of neighbours.
fn in_fours(view: &View) -> bool {
    let Some((last, others)) = view.strides.split_last() else { return false };
    *last == 1 && view.offset.is_multiple_of(4) && others.iter().all(|s| *s >= 0 && s % 4 == 0)
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
fn lane_rows(rows: usize) -> usize {
    rows.next_power_of_two().clamp(4, 16)
}

/// `tiles` without workgroup memory, a row for each invocation.
fn without_tiles(tiles: Kernel) -> Kernel {
    let tiles = tiles.set("TILE_ROWS", ALONE).set("TILE", ALONE).choose("fill_tile", "fill_nothing");
    tiles.choose("a_of_tile", "a_of_column").choose("b_of_tile", "b_of_column")
}

/// How `tiles` are taken: rows of an invocation, and neighbours that share them, which takes subgroups. Every device's
/// subgroups are of 4 at least.
#[derive(Clone, Copy)]
struct Block {
    each: usize,
    share: usize,
}

impl Block {
    /// A row for each invocation.
    const ONE: Block = Block { each: 1, share: 1 };

    /// Rows of a workgroup.
    fn rows(self) -> usize {
        TILE_ROWS.max(TILE_ROWS * self.each / self.share)
    }

    fn invocations(self) -> usize {
        self.rows() / self.each * self.share
    }
}

/// What kernels are for: queries [batch, m, d], keys [batch, n, d] and values [batch, n, e].
struct Work<'a> {
    op: &'a Fused,
    io: &'a Io<'a>,
    caps: &'a Caps,
    batch: Shape,
    m: usize,
    n: usize,
    d: usize,
    e: usize,
}

impl<'a> Work<'a> {
    /// Of the first three inputs.
    fn new(op: &'a Fused, io: &'a Io<'a>, caps: &'a Caps) -> Self {
        let [q, k, v] = [0, 1, 2].map(|n| &io.inputs[n].shape[..]);
        let rank = q.len();
        let (m, n, d, e) = (q[rank - 2], k[rank - 2], q[rank - 1], v[rank - 1]);
        Work { op, io, caps, batch: Shape::from(&q[..rank - 2]), m, n, d, e }
    }

    /// Keys that some query sees.
    fn seen_keys(&self) -> usize {
        if self.op.causal { self.n.min(self.m) } else { self.n }
    }

    /// How many of so many columns are a part, in whole steps, and how many parts there are: on a GPU enough to occupy a
    /// large one, where a part takes `groups` workgroups, and everywhere so many that no driver stops their loops; a step of
    /// so many columns takes `turns`.
    fn parts(&self, columns: usize, groups: usize, [step, turns]: [usize; 2]) -> [usize; 2] {
        // Besides there are the loop's own end and those behind it: over rows to store, or over a workgroup's sums.
        let most = (self.caps.turns.saturating_sub(256) / turns).max(1).saturating_mul(step);
        let wanted = if self.caps.cpu { 1 } else { MANY_GROUPS / groups };
        let parts = wanted.clamp(1, (columns / SHORTEST_PART).max(1));
        let run = columns.div_ceil(parts).next_multiple_of(step).min(most);
        [run, columns.div_ceil(run)]
    }

    /// How an invocation takes two rows, which halves what is read from workgroup memory, or else no more of one than its
    /// registers hold; a row's operands and sums are so many elements.
    fn block(&self, row: usize) -> Option<Block> {
        let blocks = [[2, 1], [2, 2], [2, 4], [1, 2], [1, 4]].map(|[each, share]| Block { each, share });
        let divides = |n: usize| self.d.is_multiple_of(4 * n) && self.e.is_multiple_of(4 * n);
        let can = |block: &Block| divides(block.share) && (block.share == 1 || self.caps.subgroups);
        blocks.into_iter().find(|block| can(block) && block.each * row / block.share <= REGISTERS)
    }

    /// `kernel` by tiles, with `more` floats in workgroup memory for each column; besides, the columns of a tile, and the
    /// turns that it takes.
    fn tiled(&self, kernel: Kernel, block: Block, more: usize) -> (Kernel, [usize; 2]) {
        // A tile takes half of the workgroup memory, so that two workgroups fit.
        let fit = self.caps.workgroup_memory as usize / 2 / (4 * (self.d + self.e + more));
        let tile = fit.clamp(1, TILE);
        let kernel = kernel.set("TILE_ROWS", block.rows()).set("TILE", tile);
        let kernel = kernel.set("EACH", block.each).set("SHARE", block.share);
        let kernel = if block.share > 1 { kernel.choose("of_sharers", "of_several_sharers") } else { kernel };
        // The loop over tiles, two that fill them, one over their columns and one over sharers; each loop's end is a turn, too.
        let fill = |length: usize| (tile * length / 4).div_ceil(block.invocations()) + 1;
        let sharers = block.each * if block.share > 1 { block.share.ilog2() as usize + 1 } else { 0 };
        (kernel, [tile, 1 + fill(self.d) + fill(self.e) + tile * (1 + sharers) + 1])
    }

    /// `kernel` with the place of input `n`: the `const` for the elements from one row to the next, and the function for
    /// where a batch begins.
    fn placed(&self, kernel: Kernel, n: usize, [row, begin]: [&'static str; 2]) -> Kernel {
        let operand = Operand::new(&self.io.view(n), &self.batch, false);
        kernel.set(row, operand.rows as usize).replace(begin, operand.begin(begin))
    }

    /// `kernel` with what scores take, and with the mask that is input `at`, if there is one.
    fn scored(&self, kernel: Kernel, at: usize) -> Kernel {
        let &Work { op, io, ref batch, m, n, .. } = self;
        let kernel = kernel
            .set("BATCHES", batch.elements())
            .set("QUERIES", m)
            .set("KEYS", n)
            .set("SCALE", op.scale)
            .set("CAUSAL", op.causal);
        let Some(mask) = io.inputs.get(at).filter(|_| op.masked) else { return kernel };
        let place = View::broadcast(&mask.shape, &Shape::from([&batch[..], &[m, n]].concat())).wgsl("i");
        let place = format!("fn mask_place(i: u32) -> u32 {{\n    return {place};\n}}");
        kernel.choose("mask", "mask_given").replace("mask_place", place).bind_as("MASK", Arg::In(at))
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
