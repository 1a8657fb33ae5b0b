//! The gradients of attention, without the matrix of scores in memory either.

use super::attention::{ALONE, Fused, alone, in_fours, placed, row};
use super::gemm;
use crate::graph::{Arg, Backward, Candidate, Caps, Desc, Io, Kernel, Op, Shape, Tensor, View};
use crate::shader;

/// Rows that a workgroup of a GPU takes, and the most columns that it shares at a time.
const TILE_ROWS: usize = 64;
const TILE: usize = 32;

/// Elements of operands and sums that an invocation is to keep in registers.
const REGISTERS: usize = 96;

/// The most invocations that share a row. Every device's subgroups are so large.
const SHARERS: usize = 4;

/// Queries [..., M, D], keys [..., N, D], values [..., N, E], what arrives at the results [..., M, E], statistics
/// [3, ..., M] - largest scores, sums of exp(score - largest), and sums of results times what arrives at them - and perhaps
/// a mask, to the gradients of queries, keys and values.
#[derive(Debug)]
pub(super) struct FusedGrad(pub(super) Fused);

/// What is differentiated: queries, which meet keys and values, or keys and values, which meet queries.
struct Side<'a> {
    op: &'a Fused,
    io: &'a Io<'a>,
    caps: &'a Caps,
    batch: Shape,
    of_keys: bool,
    rows: usize,
    columns: usize,
    /// Extents of queries and of values.
    d: usize,
    e: usize,
}

impl Side<'_> {
    /// One dispatch, or several for parts of the columns where a driver stops loops of so many turns; `turns` are what
    /// `step` columns take.
    fn dispatches(&self, kernel: Kernel, groups: usize, step: usize, turns: usize) -> Vec<Kernel> {
        // Besides there are the loop's own end and the one that stores rows.
        let steps = (self.caps.turns.saturating_sub(16) / turns).max(1);
        let part = steps.saturating_mul(step).min(self.columns);
        let kernel = kernel.grid(self.caps.fold(groups));
        let parts = (0..self.columns).step_by(part);
        parts.map(|first| kernel.clone().set("FIRST", first).set("END", (first + part).min(self.columns))).collect()
    }

    fn kernel(&self, entry: &'static str) -> Kernel {
        let (query_like, key_like) = ([0, 3], [1, 2]);
        let (own, others) = if self.of_keys { (key_like, query_like) } else { (query_like, key_like) };
        let [a, b, own_a, own_b] = [others[0], others[1], own[0], own[1]];
        let mut kernel = Kernel::new(shader!("attention_grad.wgsl"), entry)
            .set("OF_KEYS", self.of_keys)
            .set("ROWS", self.rows)
            .set("COLUMNS", self.columns)
            .set("A4", self.d / 4)
            .set("B4", self.e / 4)
            .bind([a, b, own_a, own_b, 4].map(Arg::In));
        let names =
            [["A_ROW", "a_batch"], ["B_ROW", "b_batch"], ["OWN_A_ROW", "own_a_batch"], ["OWN_B_ROW", "own_b_batch"]];
        for (n, names) in [a, b, own_a, own_b].into_iter().zip(names) {
            kernel = placed(kernel, self.io, n, &self.batch, names);
        }
        kernel = match self.of_keys {
            true => kernel.bind([Arg::Out(1), Arg::Out(2)]).choose("add_to_db", "add_to_db_of_keys"),
            false => kernel.bind([Arg::Out(0)]),
        };
        let scores = if self.of_keys { [self.columns, self.rows] } else { [self.rows, self.columns] };
        self.op.scored(kernel, &self.batch, scores, self.io, 5)
    }

    /// Rows in blocks, each shared by as many invocations: one, or several, which takes subgroups.
    fn tiles(&self, sharers: usize) -> Vec<Kernel> {
        // Both tiles together take half of the workgroup memory, so that two workgroups fit.
        let fit = self.caps.workgroup_memory as usize / 2 / (4 * (self.d + self.e + 4));
        let tile = fit.clamp(1, TILE);
        let mut kernel = self.kernel("tiles").set("TILE_ROWS", TILE_ROWS).set("TILE", tile).set("SHARE", sharers);
        if sharers > 1 {
            kernel = kernel.choose("of_row", "of_row_of_several");
        }
        let fill = [self.d, self.e].map(|length| (tile * length / 4).div_ceil(TILE_ROWS) + 1);
        let groups = self.batch.elements() * self.rows.div_ceil(TILE_ROWS);
        self.dispatches(kernel, groups, tile, 1 + fill[0] + fill[1] + tile * 4 + 1)
    }

    /// A row for each invocation of a CPU without subgroups.
    fn alone(&self) -> Vec<Kernel> {
        let kernel = alone(self.kernel("tiles")).choose("stats_of_tile", "stats_of_column");
        self.dispatches(kernel, self.batch.elements() * self.rows.div_ceil(ALONE), ALONE, ALONE + 2)
    }

    /// How many invocations share a row on a GPU.
    fn sharers(&self) -> usize {
        let registers = if self.of_keys { 2 * self.d + 2 * self.e } else { 2 * self.d + self.e };
        let divides = |n: &usize| self.d.is_multiple_of(4 * n) && self.e.is_multiple_of(4 * n);
        let all = [1, 2, SHARERS].into_iter().filter(|n| divides(n) && (*n == 1 || self.caps.subgroups));
        all.reduce(|fewer, more| if registers / fewer <= REGISTERS { fewer } else { more }).unwrap_or(1)
    }

    /// Rows for each SIMD vector of a CPU.
    fn lanes(&self) -> Vec<Kernel> {
        let longest = self.d.max(self.e);
        let rows = if longest > 64 { 4 } else { 8 };
        let kernel = self.kernel("lanes").set("LANE_ROWS", rows).set("OWN", longest.div_ceil(32));
        let groups = self.batch.elements() * self.rows.div_ceil(rows);
        self.dispatches(kernel, groups, 32, 1 + self.d / 4 + 1 + self.e / 4 + 1 + 9 + 9)
    }
}

impl Op for FusedGrad {
    fn name(&self) -> &'static str {
        "attention_grad"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(inputs[..3].to_vec())
    }

    /// With P the shares, A = dY V' - inner what arrives at the scores by way of them, dS = P A the scores' gradient, and
    /// gQ, gK and gV what arrives at the gradients, these have the sum of dS W + P dY gV' in them, W = gQ K' + Q gK'.
    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let [q, k, v, dy, stats] = [0, 1, 2, 3, 4].map(|n| node.x(n));
        let [gq, gk, gv] = [0, 1, 2].map(|n| node.grads[n].clone().unwrap_or_else(|| node.outputs[n].zeros_like()));
        let mask = node.inputs.get(5);
        let shares = self.0.shares(q, k, mask, stats);
        let arriving = dy.matmul_t(v, false, true) - row(stats, 2);
        let dscores = &shares * &arriving * self.0.scale;
        let by_scores = (gq.matmul_t(k, false, true) + q.matmul_t(&gk, false, true)) * self.0.scale;
        let by_arriving = &shares * &by_scores;
        let at_scores = &shares * (by_scores * arriving + dy.matmul_t(&gv, false, true));
        let products = &at_scores * self.0.scale;
        let dq = products.matmul(k) + dscores.matmul(&gk);
        let dk = products.matmul_t(q, true, false) + dscores.matmul_t(&gq, true, false);
        let dv = by_arriving.matmul_t(&dy, true, false);
        let ddy = by_arriving.matmul(v) + shares.matmul(&gv);
        let of_stats = |t: Tensor| t.sum(&[-1], false).unsqueeze(0);
        let dsums = -of_stats(&at_scores / row(stats, 1));
        let dstats = dsums.zeros_like().concat(&[&dsums, &-of_stats(by_arriving)], 0);
        let mut grads = vec![Some(dq), Some(dk), Some(dv), Some(ddy), Some(dstats)];
        grads.extend(mask.map(|mask| Some(at_scores.sum_to(&mask.desc().shape))));
        grads
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let [q, k, v] = [0, 1, 2].map(|n| &io.inputs[n].shape[..]);
        let rank = q.len();
        let (m, n, d, e) = (q[rank - 2], k[rank - 2], q[rank - 1], v[rank - 1]);
        let side = |of_keys: bool| {
            let (rows, columns) = if of_keys { (n, m) } else { (m, n) };
            Side { op: &self.0, io, caps, batch: Shape::from(&q[..rank - 2]), of_keys, rows, columns, d, e }
        };
        let mut sides = Vec::new();
        if io.used[0] {
            sides.push(side(false));
        }
        if io.used[1] || io.used[2] {
            sides.push(side(true));
        }
        let of = |name, kernels: &dyn Fn(&Side<'_>) -> Vec<Kernel>| {
            Candidate::new(name, sides.iter().flat_map(kernels).collect(), Vec::new())
        };
        let lanes = (gemm::lanes(caps) == 8).then(|| of("lanes", &|side| side.lanes()));
        let tiles = of("tiles", &|side| side.tiles(1));
        if caps.cpu {
            return lanes.into_iter().chain([of("alone", &|side| side.alone()), tiles]).collect();
        }
        let shared = sides.iter().any(|side| side.sharers() > 1);
        let shared = shared.then(|| of("shared_tiles", &|side| side.tiles(side.sharers())));
        shared.into_iter().chain([tiles]).chain(lanes).collect()
    }

    fn reads(&self, n: usize, view: &View) -> bool {
        n < 4 && in_fours(view)
    }

    /// Five products; that the kernels compute two of them twice does not count.
    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        let (q, v) = (&inputs[0].shape, &inputs[2].shape);
        (2 * self.0.seen(q, v) * (3 * q[q.len() - 1] + 2 * v[v.len() - 1])) as u64
    }
}
