//! The gradients of attention, without the matrix of scores in memory unless it is small.

use super::attention::{ALONE, Fused, Work, alone, in_fours, lane_rows, placed, row};
use super::{gemm, matmul};
use crate::graph::{Arg, Backward, Candidate, Caps, Desc, Io, Kernel, Op, Tensor, View};
use crate::shader;

/// Rows that a workgroup of a GPU takes, and the most columns that it shares at a time.
const TILE_ROWS: usize = 64;
const TILE: usize = 32;

/// Elements of operands and sums that an invocation is to keep in registers.
const REGISTERS: usize = 96;

/// The most invocations that share a row. Every device's subgroups are so large.
const SHARERS: usize = 4;

/// Bytes of scores that are stored at the most, twice.
const MOST_STORED: usize = 32 << 20;

/// Queries [..., M, D], keys [..., N, D], values [..., N, E], what arrives at the results [..., M, E], statistics
/// [3, ..., M] - largest scores, sums of exp(score - largest), and sums of results times what arrives at them - and perhaps
/// a mask, to the gradients of queries, keys and values.
#[derive(Debug)]
pub(super) struct FusedGrad(pub(super) Fused);

/// What is differentiated: queries, which meet keys and values, or keys and values, which meet queries.
struct Side<'a> {
    work: &'a Work<'a>,
    of_keys: bool,
}

impl Side<'_> {
    fn rows(&self) -> usize {
        if self.of_keys { self.work.n } else { self.work.m }
    }

    fn columns(&self) -> usize {
        if self.of_keys { self.work.m } else { self.work.n }
    }

    /// One dispatch, or several for parts of the columns where a driver stops loops of so many turns; `turns` are what
    /// `step` columns take.
    fn dispatches(&self, kernel: Kernel, groups: usize, step: usize, turns: usize) -> Vec<Kernel> {
        let (caps, columns) = (self.work.caps, self.columns());
        // Besides there are the loop's own end and the one that stores rows.
        let steps = (caps.turns.saturating_sub(32) / turns).max(1);
        let part = steps.saturating_mul(step).min(columns);
        let kernel = kernel.grid(caps.fold(groups));
        let parts = (0..columns).step_by(part);
        parts.map(|first| kernel.clone().set("FIRST", first).set("END", (first + part).min(columns))).collect()
    }

    fn kernel(&self, entry: &'static str) -> Kernel {
        let &Work { op, io, ref batch, d, e, .. } = self.work;
        let (query_like, key_like) = ([0, 3], [1, 2]);
        let (own, others) = if self.of_keys { (key_like, query_like) } else { (query_like, key_like) };
        let [a, b, own_a, own_b] = [others[0], others[1], own[0], own[1]];
        let mut kernel = Kernel::new(shader!("attention_grad.wgsl"), entry)
            .set("OF_KEYS", self.of_keys)
            .set("ROWS", self.rows())
            .set("COLUMNS", self.columns())
            .set("A4", d / 4)
            .set("B4", e / 4)
            .bind([a, b, own_a, own_b, 4].map(Arg::In));
        let names =
            [["A_ROW", "a_batch"], ["B_ROW", "b_batch"], ["OWN_A_ROW", "own_a_batch"], ["OWN_B_ROW", "own_b_batch"]];
        for (n, names) in [a, b, own_a, own_b].into_iter().zip(names) {
            kernel = placed(kernel, io, n, batch, names);
        }
        kernel = match self.of_keys {
            true => kernel.bind([Arg::Out(1), Arg::Out(2)]).choose("add_to_db", "add_to_db_of_keys"),
            false => kernel.bind([Arg::Out(0)]),
        };
        op.scored(kernel, batch, [self.work.m, self.work.n], io, 5)
    }

    /// Rows in blocks, each shared by as many invocations: one, or several, which takes subgroups.
    fn tiles(&self, sharers: usize) -> Vec<Kernel> {
        let &Work { caps, d, e, .. } = self.work;
        // Both tiles together take half of the workgroup memory, so that two workgroups fit.
        let fit = caps.workgroup_memory as usize / 2 / (4 * (d + e + 4));
        let tile = fit.clamp(1, TILE);
        let mut kernel = self.kernel("tiles").set("TILE_ROWS", TILE_ROWS).set("TILE", tile).set("SHARE", sharers);
        if sharers > 1 {
            kernel = kernel.choose("of_row", "of_row_of_several");
        }
        let fill = [d, e].map(|length| (tile * length / 4).div_ceil(TILE_ROWS) + 1);
        let groups = self.work.batch.elements() * self.rows().div_ceil(TILE_ROWS);
        self.dispatches(kernel, groups, tile, 1 + fill[0] + fill[1] + tile * 4 + 1)
    }

    /// A row for each invocation of a CPU without subgroups.
    fn alone(&self) -> Vec<Kernel> {
        let kernel = alone(self.kernel("tiles")).choose("stats_of_tile", "stats_of_column");
        self.dispatches(kernel, self.work.batch.elements() * self.rows().div_ceil(ALONE), ALONE, ALONE + 2)
    }

    /// Elements of operands and sums of a row.
    fn registers(&self) -> usize {
        2 * self.work.d + if self.of_keys { 2 * self.work.e } else { self.work.e }
    }

    /// Whether `tiles` suit a GPU: an invocation's registers hold its part of a row, and there are workgroups for many cores.
    fn fits(&self) -> bool {
        let groups = self.work.batch.elements() * self.rows().div_ceil(TILE_ROWS);
        self.registers() / self.sharers() <= 2 * REGISTERS && groups >= 64
    }

    /// How many invocations share a row on a GPU.
    fn sharers(&self) -> usize {
        let &Work { caps, d, e, .. } = self.work;
        let registers = self.registers();
        let divides = |n: &usize| d.is_multiple_of(4 * n) && e.is_multiple_of(4 * n);
        let all = [1, 2, SHARERS].into_iter().filter(|n| divides(n) && (*n == 1 || caps.subgroups));
        all.reduce(|fewer, more| if registers / fewer <= REGISTERS { fewer } else { more }).unwrap_or(1)
    }

    /// Rows for each SIMD vector of a CPU.
    fn lanes(&self) -> Vec<Kernel> {
        let &Work { d, e, .. } = self.work;
        let rows = lane_rows(self.rows());
        let longest = if self.of_keys { d.max(e) } else { d };
        let kernel = self.kernel("lanes").set("LANE_ROWS", rows).set("OWN", longest.div_ceil(32));
        let groups = self.work.batch.elements() * self.rows().div_ceil(rows);
        self.dispatches(kernel, groups, 32, 1 + d / 4 + 1 + e / 4 + 1 + 9 + 9)
    }
}

impl Work<'_> {
    /// The kernels of both sides, as far as they are used.
    fn of_sides(&self, name: &'static str, kernels: &dyn Fn(&Side<'_>) -> Vec<Kernel>) -> Candidate {
        Candidate::new(name, self.sides().flat_map(|side| kernels(&side)).collect(), Vec::new())
    }

    fn sides(&self) -> impl Iterator<Item = Side<'_>> {
        let used = [self.io.used[0], self.io.used[1] || self.io.used[2]];
        let sides = [false, true].map(|of_keys| Side { work: self, of_keys });
        sides.into_iter().zip(used).filter(|(_, used)| *used).map(|(side, _)| side)
    }

    /// Five products, and the shares and scores' gradients in memory between them, where these do not take much of it.
    fn grads_by_products(&self) -> Option<Candidate> {
        let (io, caps) = (self.io, self.caps);
        let scores = Desc::f32([&self.batch[..], &[self.m, self.n]].concat());
        if !self.n.is_multiple_of(4) || !scores.shape.is_countable() || scores.bytes() > MOST_STORED {
            return None;
        }
        let elements = scores.elements();
        let scores = || (scores.clone(), None);
        let input = |n: usize| (io.inputs[n].clone(), io.views[n].clone());
        let in_place = Kernel::new(shader!("attention_grad.wgsl"), "in_place")
            .set("END", self.n)
            .bind([Arg::ScratchOut(0), Arg::ScratchOut(1)])
            .bind_as("STATS", Arg::In(4))
            .grid(caps.fold((elements / 4).div_ceil(64)));
        let in_place = self.op.scored(in_place, &self.batch, [self.m, self.n], io, 5);
        // Where shares and scores' gradients are, and what they are multiplied by.
        let (q, k, v, dy, shares, grads) = (0, 1, 2, 3, 0, 1);
        let (mut kernels, mut scratch) = (Vec::new(), vec![elements * 4; 2]);
        for (a, b, place) in [(q, k, shares), (dy, v, grads)] {
            let args = [Arg::In(a), Arg::In(b), Arg::ScratchOut(place)];
            kernels.extend(matmul::dispatches([false, true], [input(a), input(b)], args, &mut scratch, caps)?);
        }
        kernels.push(in_place);
        for (flip, place, b, out) in [(false, grads, k, 0), (true, grads, q, 1), (true, shares, dy, 2)] {
            if io.used[out] {
                let args = [Arg::ScratchIn(place), Arg::In(b), Arg::Out(out)];
                kernels.extend(matmul::dispatches([flip, false], [scores(), input(b)], args, &mut scratch, caps)?);
            }
        }
        Some(Candidate::new("stored", kernels, scratch))
    }
}

impl Op for FusedGrad {
    fn name(&self) -> &'static str {
        "attention_grad"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(inputs[..3].to_vec())
    }

    /// With P the shares, A = dY V' - inner and what arrives, gQ, gK and gV: the gradient of the sum of all elements of
    /// P A W + P (dY gV'), where W = SCALE (gQ K' + Q gK'). The largest scores have none: P is the same whatever they are.
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
        let dv = by_arriving.matmul_t(dy, true, false);
        let ddy = by_arriving.matmul(v) + shares.matmul(&gv);
        let of_stats = |t: Tensor| t.sum(&[-1], false).unsqueeze(0);
        let dsums = -of_stats(&at_scores / row(stats, 1));
        let dstats = dsums.zeros_like().concat(&[&dsums, &-of_stats(by_arriving)], 0);
        let mut grads = vec![Some(dq), Some(dk), Some(dv), Some(ddy), Some(dstats)];
        grads.extend(mask.map(|mask| Some(at_scores.sum_to(&mask.desc().shape))));
        grads
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let work = Work::new(&self.0, io, caps);
        let lanes = (gemm::lanes(caps) == 8).then(|| work.of_sides("lanes", &|side| side.lanes()));
        let stored = work.grads_by_products();
        if caps.cpu {
            let fused = lanes.into_iter().chain([work.of_sides("alone", &|side| side.alone())]);
            // Measured: what `lanes` computes twice costs less than memory where heads are small, or half of it is not seen.
            return match self.0.causal || work.d.max(work.e) < 64 {
                true => fused.chain(stored).collect(),
                false => stored.into_iter().chain(fused).collect(),
            };
        }
        let shared = work.sides().any(|side| side.sharers() > 1);
        let shared = shared.then(|| work.of_sides("shared_tiles", &|side| side.tiles(side.sharers())));
        let tiles = work.of_sides("tiles", &|side| side.tiles(1));
        let fused = shared.into_iter().chain([tiles]);
        match work.sides().all(|side| side.fits()) {
            true => fused.chain(stored).chain(lanes).collect(),
            false => stored.into_iter().chain(fused).chain(lanes).collect(),
        }
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
