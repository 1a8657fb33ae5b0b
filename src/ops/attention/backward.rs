//! The gradients of attention, without the matrix of scores in memory unless it is small.

use super::{ALONE, Block, Fused, Work, in_fours, lane_rows, row, without_tiles};
use crate::graph::{Arg, Backward, Candidate, Caps, Desc, Io, Kernel, Op, Tensor, View};
use crate::ops::{gemm, matmul};
use crate::shader;

/// The most elements of operands and sums that an invocation of a GPU keeps without spilling registers to memory; up to
/// [`super::REGISTERS`] there are enough invocations at a time, too.
const MOST_REGISTERS: usize = 192;

/// Workgroups without which tiles leave most of a GPU idle.
const FEWEST_GROUPS: usize = 64;

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
        if self.of_keys { self.work.m } else { self.work.seen_keys() }
    }

    /// Rows of all batches in blocks of so many, a workgroup for each.
    fn groups(&self, rows: usize) -> usize {
        self.work.batch.elements() * self.rows().div_ceil(rows)
    }

    /// `kernel` over the columns, `step` of which take `turns`: all in one dispatch of so many workgroups, or in parts and
    /// other dispatches that add these.
    fn in_parts(
        &self,
        kernel: Kernel,
        groups: usize,
        [step, turns]: [usize; 2],
        scratch: &mut Vec<usize>,
    ) -> Vec<Kernel> {
        let &Work { caps, io, ref batch, d, e, .. } = self.work;
        let [run, parts] = self.work.parts(self.columns(), groups, [step, turns]);
        let outs = match self.of_keys {
            true => [("DA", "keep_da", Some(1), d), ("DB", "keep_db", Some(2), e)],
            false => [("DA", "keep_da", Some(0), d), ("DB", "keep_db", None, e)],
        };
        let mut kernel = kernel.set("RUN", run).set("PARTS", parts).grid(caps.fold(groups * parts));
        let mut sums = Vec::new();
        for (name, keep, out, length) in outs {
            let Some(out) = out.filter(|out| io.used[*out]) else {
                kernel = kernel.choose(keep, "keep_nothing");
                continue;
            };
            if parts == 1 {
                kernel = kernel.bind_as(name, Arg::Out(out));
                continue;
            }
            let (count, place) = (batch.elements() * self.rows() * length, scratch.len());
            scratch.push(parts * count * 4);
            kernel = kernel.bind_as(name, Arg::ScratchOut(place));
            sums.push(gemm::sum_splits([Arg::ScratchIn(place), Arg::Out(out)], count, parts, caps));
        }
        [vec![kernel], sums].concat()
    }

    fn kernel(&self, entry: &'static str) -> Kernel {
        let &Work { d, e, .. } = self.work;
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
            kernel = self.work.placed(kernel, n, names);
        }
        self.work.scored(kernel, 5)
    }

    /// Rows by tiles of columns.
    fn tiles(&self, block: Block, scratch: &mut Vec<usize>) -> Vec<Kernel> {
        let (kernel, tile) = self.work.tiled(self.kernel("tiles"), block, 4);
        self.in_parts(kernel, self.groups(block.rows()), tile, scratch)
    }

    /// A row for each invocation of a CPU without subgroups.
    fn alone(&self, scratch: &mut Vec<usize>) -> Vec<Kernel> {
        let kernel = without_tiles(self.kernel("tiles")).choose("stats_of_tile", "stats_of_column");
        self.in_parts(kernel, self.groups(ALONE), [ALONE, ALONE + 2], scratch)
    }

    /// Rows for each SIMD vector of a CPU.
    fn lanes(&self, scratch: &mut Vec<usize>) -> Vec<Kernel> {
        let &Work { d, e, .. } = self.work;
        let rows = lane_rows(self.rows());
        let longest = if self.of_keys { d.max(e) } else { d };
        let kernel = self.kernel("lanes").set("LANE_ROWS", rows).set("OWN", longest.div_ceil(32));
        self.in_parts(kernel, self.groups(rows), [32, 1 + d / 4 + 1 + e / 4 + 1 + 9 + 9], scratch)
    }

    /// Elements of operands and sums of a row.
    fn registers(&self) -> usize {
        2 * self.work.d + if self.of_keys { 2 * self.work.e } else { self.work.e }
    }

    fn block(&self) -> Option<Block> {
        self.work.block(self.registers())
    }

    /// Whether `tiles` suit a GPU: an invocation's registers hold its part of rows, and there are workgroups for many cores.
    fn fits(&self) -> bool {
        let block = self.block().unwrap_or(Block::ONE);
        let groups = self.groups(block.rows());
        // In whole tiles there may be fewer.
        let [_, parts] = self.work.parts(self.columns(), groups, [1, 1]);
        block.each * self.registers() / block.share <= MOST_REGISTERS && groups * parts >= FEWEST_GROUPS
    }
}

impl Work<'_> {
    /// The kernels of both sides, as far as they are used.
    fn of_sides(&self, name: &'static str, kernels: &dyn Fn(&Side<'_>, &mut Vec<usize>) -> Vec<Kernel>) -> Candidate {
        let mut scratch = Vec::new();
        let kernels = self.sides().flat_map(|side| kernels(&side, &mut scratch)).collect();
        Candidate::new(name, kernels, scratch)
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
            .set("COLUMNS", self.n)
            .bind([Arg::ScratchOut(0), Arg::ScratchOut(1)])
            .bind_as("STATS", Arg::In(4))
            .grid(caps.fold((elements / 4).div_ceil(64)));
        let in_place = self.scored(in_place, 5);
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
        let [gq, gk, gv] = [0, 1, 2].map(|n| node.grads[n].as_ref());
        let (mask, scale) = (node.inputs.get(5), self.0.scale);
        let shares = self.0.shares(q, k, mask, stats);
        let arriving = dy.matmul_t(v, false, true) - row(stats, 2);
        let dscores = &shares * &arriving * scale;
        let by_scores = plus(gq.map(|gq| gq.matmul_t(k, false, true)), gk.map(|gk| q.matmul_t(gk, false, true)));
        let by_arriving = by_scores.map(|w| &shares * w * scale);
        let by_values = gv.map(|gv| &shares * dy.matmul_t(gv, false, true));
        let Some(at_scores) = plus(by_arriving.as_ref().map(|g| g * &arriving), by_values) else {
            return vec![None; node.inputs.len()];
        };
        let products = &at_scores * scale;
        let dq = plus(Some(products.matmul(k)), gk.map(|gk| dscores.matmul(gk)));
        let dk = plus(Some(products.matmul_t(q, true, false)), gq.map(|gq| dscores.matmul_t(gq, true, false)));
        let dv = by_arriving.as_ref().map(|g| g.matmul_t(dy, true, false));
        let ddy = plus(by_arriving.as_ref().map(|g| g.matmul(v)), gv.map(|gv| shares.matmul(gv)));
        let of_stats = |t: &Tensor| t.sum(&[-1], false).unsqueeze(0);
        let dsums = -of_stats(&(&at_scores / row(stats, 1)));
        let none = dsums.zeros_like();
        let dinner = by_arriving.map_or_else(|| none.clone(), |g| -of_stats(&g));
        let dmask = mask.map(|mask| Some(at_scores.sum_to(&mask.desc().shape)));
        [dq, dk, dv, ddy, Some(none.concat(&[&dsums, &dinner], 0))].into_iter().chain(dmask).collect()
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let work = Work::new(&self.0, io, caps);
        let lanes = (gemm::lanes(caps) == 8).then(|| work.of_sides("lanes", &|side, scratch| side.lanes(scratch)));
        let stored = work.grads_by_products();
        if caps.cpu {
            let fused = lanes.into_iter().chain([work.of_sides("alone", &|side, scratch| side.alone(scratch))]);
            // Measured: what `lanes` computes twice costs less than memory where heads are small, or half of it is not seen.
            return match self.0.causal || work.d.max(work.e) < 64 {
                true => fused.chain(stored).collect(),
                false => stored.into_iter().chain(fused).collect(),
            };
        }
        let blocks = work
            .sides()
            .any(|side| side.block().is_some())
            .then(|| work.of_sides("blocks", &|side, scratch| side.tiles(side.block().unwrap_or(Block::ONE), scratch)));
        let tiles = work.of_sides("tiles", &|side, scratch| side.tiles(Block::ONE, scratch));
        let fused = blocks.into_iter().chain([tiles]);
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

/// The sum of what there is.
fn plus(a: Option<Tensor>, b: Option<Tensor>) -> Option<Tensor> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}
