//! The loop backward, and the states that the weights' gradient is made from.

use super::forward::packed;
use super::{Cell, Extents, Style, Team, of_cell};
use crate::graph::{Arg, Backward, Candidate, Caps, Desc, Io, Kernel, Op, Tensor};
use crate::shader;

/// The gradients of a loop's gates and of its first states. Reads (weights, gates or result, [gradient of the result],
/// [c before each step], [h before each step], [gradient of the last c], [lengths]).
#[derive(Debug)]
pub(super) struct LoopGrad {
    pub extents: Extents,
    /// Whether a gradient arrives at the result, and at the last c.
    pub arriving: bool,
    pub final_c: bool,
}

impl Op for LoopGrad {
    fn name(&self) -> &'static str {
        match self.extents.cell {
            Cell::Lstm => "lstm_grad",
            Cell::Gru | Cell::GruResetBefore => "gru_grad",
            Cell::RnnTanh | Cell::RnnRelu => "rnn_grad",
        }
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let e = &self.extents;
        let (planes, _) = e.cell.slopes();
        Ok(vec![Desc::f32([e.directions, e.rows(), planes * e.hidden]), e.states()])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let message =
            "the gradient of a recurrent layer cannot be differentiated again; compose the cell from other ops";
        node.x(0).graph().fail(self.name(), message);
        Vec::new()
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let styles = Style::all(&self.extents, caps);
        styles.into_iter().filter_map(|style| self.candidate(io, style, caps)).collect()
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        2 * (inputs[0].elements() * self.extents.rows()) as u64
    }
}

impl LoopGrad {
    /// Whether gradients go back past the recurrent product.
    fn skips(&self) -> bool {
        self.extents.cell.is_gru() || self.extents.lengths
    }

    /// The weights with rows of whole vec4s: as they are, or padded into the last scratch buffer.
    fn weights(&self, style: Style, caps: &Caps) -> (Vec<Kernel>, Vec<usize>, Arg) {
        let e = &self.extents;
        if e.hidden.is_multiple_of(4) {
            return (Vec::new(), Vec::new(), Arg::In(0));
        }
        let count = e.directions * e.cell.gates() * e.hidden * e.columns();
        let pad = e
            .kernel(shader!("recurrent_weights.wgsl"), "pad")
            .set("COUNT", count)
            .set("COLUMNS", e.columns())
            .bind([Arg::In(0), Arg::ScratchOut(packed(style))])
            .grid(caps.fold(count.div_ceil(64)));
        (vec![pad], vec![count * 4], Arg::ScratchIn(packed(style)))
    }

    /// What a kernel of `recurrent_backward.wgsl` reads and writes beside its own state.
    fn wire(&self, kernel: Kernel, weights: Arg) -> Kernel {
        let e = &self.extents;
        let (out, back) = e.cell.slopes();
        let mut next = 2;
        let mut input = || {
            next += 1;
            Arg::In(next - 1)
        };
        let rotate = if e.cell == Cell::Gru { 2 * e.hidden } else { 0 };
        let mut kernel = kernel
            .set("OUT", out)
            .set("BACK", back)
            .set("ROTATE", rotate)
            .set("W_ROWS", e.cell.gates() * e.hidden)
            .set("COLUMNS", e.columns())
            .set("KEEPS_C", e.cell == Cell::Lstm)
            .set("SKIPS", self.skips());
        let whole = e.hidden.is_multiple_of(4);
        // Bindings 0, 1 and 2.
        kernel = kernel.bind([weights]);
        kernel = match self.arriving {
            true => kernel.bind([input()]),
            // Nothing reads it, but it has a number.
            false => kernel.choose("grads_at", "no_grads").bind([Arg::In(1)]),
        };
        kernel = kernel.bind([Arg::Out(0)]);
        if whole && self.arriving {
            kernel = kernel.choose("grads_at", "grads_at_by_four");
        }
        if whole {
            kernel = kernel.choose("store", "store_by_four");
        }
        kernel = of_cell(kernel, "slopes", ["gru_slopes", "tanh_slopes", "relu_slopes"], e.cell);
        if e.cell.gates() == 1 {
            kernel = kernel.choose("gates_at", "result_at");
        }
        kernel = kernel.bind_as("KEPT_GATES", Arg::In(1));
        if e.cell == Cell::Lstm {
            kernel = kernel.choose("c_before", "c_kept").bind_as("KEPT_C", input());
        }
        if e.cell.is_gru() {
            kernel = kernel.choose("h_before", "h_former").bind_as("FORMER", input());
        }
        if self.final_c {
            kernel = kernel.choose("c_grad_behind", "c_grad_given").bind_as("FINAL_C_GRAD", input());
        }
        if e.lengths {
            kernel = kernel.choose("length_of", "length_given").bind_as("LENGTHS", input());
        }
        kernel
    }

    fn candidate(&self, io: &Io<'_>, style: Style, caps: &Caps) -> Option<Candidate> {
        let e = &self.extents;
        let (before, (_, back)) = (e.cell == Cell::GruResetBefore, e.cell.slopes());
        // An invocation that owns columns one after the other must not overwrite what the next ones still read.
        let once = style == Style::Group && (caps.invocations as usize) * 4 >= e.columns();
        let (planes, double) = match (before, once) {
            (true, _) => (4, false),
            (false, true) => (back, false),
            (false, false) => (2 * back, true),
        };
        let team = Team::new(e, e.columns() / 4, planes, style, caps)?;
        let (mut kernels, mut scratch, weights) = self.weights(style, caps);
        let make = |entry| {
            let kernel = self
                .wire(e.kernel(shader!("recurrent_backward.wgsl"), entry), weights.clone())
                .set("DOUBLE", double)
                .set("FINAL", io.used[1]);
            self.carry(team.set(kernel, planes, caps), io, style)
        };
        if style == Style::Steps {
            let step = make(if before { "step_before" } else { "step" });
            let count = e.steps * if before { 2 } else { 1 } + usize::from(io.used[1]);
            let blocks = e.columns().div_ceil(4 * team.group);
            kernels.extend(team.steps(make("begin_states"), &step, count, blocks, caps));
            scratch.insert(0, team.count * planes * team.plane * 4);
            return Some(Candidate::new(style.name(), kernels, scratch));
        }
        let products = e.columns().div_ceil(4 * team.group) * (back.max(2) * e.columns() / 4 + team.rows + 3);
        let turns = [(products + 2) * if before { 2 } else { 1 } + 2, team.plane.div_ceil(team.group) * (planes + 2)];
        let kernel = make(if before { "sequence_before" } else { "sequence" });
        kernels.extend(team.segments(kernel, e.steps + 1, turns, caps)?);
        let mut candidate = Candidate::new(style.name(), kernels, scratch);
        if style == Style::Texels {
            candidate.texels.push(team.count * (planes + 2) * team.plane);
        }
        Some(candidate)
    }

    /// Where the gradients that stay with their own unit lie from step to step.
    fn carry(&self, kernel: Kernel, io: &Io<'_>, style: Style) -> Kernel {
        let first = |kernel: Kernel| kernel.bind_as("INITIAL_GRAD", Arg::Out(1));
        match (style, io.used[1]) {
            (Style::Texels, true) => {
                first(kernel.choose("carry", "carry_texel").choose("put_carry", "put_carry_texel_and_last"))
            }
            (Style::Texels, false) => kernel
                .choose("carry", "carry_texel")
                .choose("put_carry", "put_carry_texel")
                .choose("put_initial", "put_nothing"),
            (_, used) if used || self.skips() || self.extents.cell == Cell::Lstm => first(kernel),
            // A plain cell carries nothing from step to step.
            _ => kernel.choose("put_initial", "put_nothing").choose("carry", "no_carry"),
        }
    }
}

/// The h before each step [directions, T N, hidden], from the results, the first states and the lengths.
#[derive(Debug)]
pub(super) struct Former(pub Extents);

impl Op for Former {
    fn name(&self) -> &'static str {
        "former_states"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::f32([self.0.directions, self.0.rows(), self.0.hidden])])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        node.x(0).graph().fail(self.name(), "the gradient of a recurrent layer cannot be differentiated again");
        Vec::new()
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let e = &self.0;
        let mut kernel = e
            .kernel(shader!("recurrent_weights.wgsl"), "former_states")
            .set("COUNT", io.elements())
            .bind([Arg::In(0), Arg::Out(0)])
            .grid(caps.fold(io.elements().div_ceil(64)));
        if e.initial {
            kernel = kernel.choose("state_before", "state_given").bind_as("INITIAL", Arg::In(1));
        }
        if e.lengths {
            let lengths = Arg::In(1 + usize::from(e.initial));
            kernel = kernel.choose("length_of", "length_given").bind_as("LENGTHS", lengths);
        }
        vec![Candidate::single("direct", kernel)]
    }
}
