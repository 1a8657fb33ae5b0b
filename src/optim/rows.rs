//! The step of a table of which a batch uses few rows: only these are read and changed.

use super::Optimizer;
use super::kinds::Kind;
use super::step::{GRADIENT_NORM, moments_of, tuned};
use crate::graph::{Arg, Candidate, Caps, Desc, Io, Op, Param, Tensor};

/// Reads the rows' gradients [n, width], their numbers u32 `[n]` and, where it clips, the norm of all gradients.
#[derive(Debug)]
pub(super) struct RowStep {
    optimizer: Optimizer,
    clip_norm: bool,
    /// Counters, hyper-parameters, moments, the table.
    state: Vec<Param>,
}

impl RowStep {
    /// Whether a row whose gradient is zero stays as it is under this optimizer, its moments included.
    pub(super) fn fits(optimizer: &Optimizer) -> bool {
        let still = match optimizer.kind {
            Kind::Sgd { .. } => optimizer.beta1 == 0.0,
            Kind::Adagrad => true,
            _ => false,
        };
        still && optimizer.weight_decay == 0.0
    }

    /// The rows and their numbers, if that is what the gradient is made from.
    pub(super) fn rows(grad: &Tensor) -> Option<[Tensor; 2]> {
        let graph = grad.graph();
        let inputs = {
            let inner = graph.inner();
            let (mut value, mut node) = (grad.value(), &inner.nodes[grad.value().node]);
            while node.op().is_some_and(|op| op.alias()) {
                value = node.inputs[value.output];
                node = &inner.nodes[value.node];
            }
            node.op().filter(|op| op.sparse())?;
            [node.inputs[0], node.inputs[1]]
        };
        Some(inputs.map(|value| graph.tensor(value)))
    }

    pub(super) fn new(optimizer: &Optimizer, table: &Param, hyper: &Param, clip_norm: bool) -> RowStep {
        let (counters, moments) = moments_of(optimizer, table.desc().elements());
        let state = vec![counters, hyper.clone(), moments, table.clone()];
        RowStep { optimizer: optimizer.clone(), clip_norm, state }
    }
}

impl Op for RowStep {
    fn name(&self) -> &'static str {
        if self.optimizer.kind == Kind::Adagrad { "adagrad_rows" } else { "sgd_rows" }
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(Vec::new())
    }

    fn state(&self) -> Vec<Param> {
        self.state.clone()
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let [taken, width] = [io.inputs[0].shape[0], io.inputs[0].shape[1]];
        // The parameter may be a table under another shape.
        let rows = self.state[3].desc().elements() / width.max(1);
        let mut args = vec![Arg::In(0), Arg::In(1), Arg::State(1), Arg::State(0), Arg::State(3), Arg::State(2)];
        if self.clip_norm {
            args.push(Arg::In(2));
        }
        let kernel = |entry| {
            let kernel = tuned(&self.optimizer, entry, rows * width)
                .set("LANES", 1u32)
                .replace("Lanes", "alias Lanes = f32;")
                .choose("clamped", "clamped_one")
                .set("TAKEN", taken)
                .set("WIDTH", width)
                .set("ROWS", rows)
                .bind(args.iter().cloned());
            if self.clip_norm { kernel.replace("gradient_norm", GRADIENT_NORM) } else { kernel }
        };
        let step = kernel("step_rows").grid(caps.fold((taken * width).div_ceil(64)));
        vec![Candidate::new("rows", vec![kernel("advance"), step], Vec::new())]
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        6 * inputs[0].elements() as u64
    }
}
