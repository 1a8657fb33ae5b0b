//! Attention's results and what their gradients need of the scores.

use super::backward::FusedGrad;
use super::{ALONE, Block, Fused, TILE_ROWS, Work, in_fours, lane_rows, row, without_tiles};
use crate::graph::{Arg, Backward, Candidate, Caps, Desc, Io, Kernel, Op, Tensor, View};
use crate::ops::gemm;
use crate::shader;

/// The most queries that get a workgroup each, and its invocations.
const FEW: usize = 16;
const FEW_WIDTH: usize = 128;

impl Work<'_> {
    fn kernel(&self, entry: &'static str) -> Kernel {
        let mut kernel = Kernel::new(shader!("attention.wgsl"), entry)
            .set("COLUMNS", self.seen_keys())
            .set("A4", self.d / 4)
            .set("B4", self.e / 4)
            .bind([1, 2, 0].map(Arg::In));
        for (n, names) in [["Q_ROW", "q_batch"], ["A_ROW", "a_batch"], ["B_ROW", "b_batch"]].into_iter().enumerate() {
            kernel = self.placed(kernel, n, names);
        }
        self.scored(kernel, 3)
    }

    /// `kernel` over the keys, `step` of which take `turns`: all in one dispatch of so many workgroups, or in parts and
    /// another dispatch that puts them together.
    fn in_parts(&self, name: &'static str, kernel: Kernel, groups: usize, [step, turns]: [usize; 2]) -> Candidate {
        let (rows, vectors) = (self.batch.elements() * self.m, self.e / 4);
        let [run, parts] = self.parts(self.seen_keys(), groups, [step, turns]);
        let [y, stats] = [0, 1].map(if parts == 1 { Arg::Out } else { Arg::ScratchOut });
        let kernel = kernel.set("RUN", run).set("PARTS", parts).bind_as("Y", y).bind_as("STATS", stats);
        let kernel = kernel.grid(self.caps.fold(groups * parts));
        if parts == 1 {
            return Candidate::single(name, kernel);
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
        Candidate::new(name, vec![kernel, merge], scratch.to_vec())
    }

    /// Queries by tiles of keys.
    fn tiles(&self, name: &'static str, block: Block) -> Candidate {
        let (kernel, tile) = self.tiled(self.kernel("tiles"), block, 0);
        self.in_parts(name, kernel, self.batch.elements() * self.m.div_ceil(block.rows()), tile)
    }

    /// A query for each invocation of a CPU without subgroups: all read the same of a key at a time, in one load.
    fn alone(&self) -> Candidate {
        let groups = self.batch.elements() * self.m.div_ceil(ALONE);
        self.in_parts("alone", without_tiles(self.kernel("tiles")), groups, [ALONE, ALONE + 2])
    }

    /// Queries for each SIMD vector of a CPU.
    fn lanes(&self) -> Candidate {
        let rows = lane_rows(self.m);
        let kernel = self.kernel("lanes").set("LANE_ROWS", rows).set("OWN", self.e.div_ceil(32));
        let groups = self.batch.elements() * self.m.div_ceil(rows);
        self.in_parts("lanes", kernel, groups, [32, 1 + self.d / 4 + 1 + 9])
    }

    /// A few queries on a GPU.
    fn few(&self) -> Candidate {
        let mut kernel = self.kernel("few").set("WIDTH", FEW_WIDTH);
        if self.caps.subgroups {
            kernel = kernel.choose("all_max", "all_max_by_subgroups").choose("all_sum", "all_sum_by_subgroups");
        }
        // A turn has a key's products, two loops over values and shares, and what the workgroup combines, by subgroups of four
        // at the least.
        let groups = FEW_WIDTH / (self.e / 4);
        let turns = 1 + (self.d / 16 + 2) + (FEW_WIDTH / groups + 2) + FEW_WIDTH / 4;
        self.in_parts("few", kernel, self.batch.elements() * self.m, [FEW_WIDTH, turns])
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

    /// The kernels take the gradient of a score as P (dP - inner), where P is its share, dP what arrives at that, and `inner`
    /// the sum of results times what arrives at them. What arrives at a query's sum of exponentials adds P times both, so
    /// that `inner` takes it in. A mask's gradient is the scores', which it stores.
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
        let lanes = (gemm::lanes(caps) == 8).then(|| work.lanes());
        if caps.cpu {
            return lanes.into_iter().chain([work.alone()]).collect();
        }
        let few = (work.m <= FEW).then(|| work.few());
        let mut tiles = vec![work.tiles("tiles", Block::ONE)];
        if let Some(block) = work.block(work.d + work.e) {
            // Two rows are idle half of the time where there are few.
            let first = work.m > TILE_ROWS || block.share > 1;
            tiles.insert(usize::from(!first), work.tiles("blocks", block));
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
