//! The loop forward.

use super::backward::{Former, LoopGrad};
use super::{Cell, Extents, Style, Team, expect, lengths_desc, of_cell};
use crate::graph::{Arg, Backward, Candidate, Caps, Desc, Io, Kernel, Op, Tensor};
use crate::shader;

/// One layer's loop over time. Reads the projected input with its biases [directions, T N, gates hidden], the recurrent
/// weights [directions, gates hidden, hidden] and, where there are any, the first states [1 or 2, directions, N, hidden],
/// the lengths u32 `[N]`, and a GRU's bias of the candidate's recurrent part [directions, hidden].
///
/// Gives y; for cells with gates, what they were; for an LSTM, the c before each step and the last.
#[derive(Debug)]
pub(super) struct Loop(pub Extents);

impl Loop {
    fn has_bias(&self, inputs: usize) -> bool {
        inputs > 2 + usize::from(self.0.initial) + usize::from(self.0.lengths)
    }

    fn lengths(&self) -> usize {
        2 + usize::from(self.0.initial)
    }
}

impl Op for Loop {
    fn name(&self) -> &'static str {
        match self.0.cell {
            Cell::Lstm => "lstm",
            Cell::Gru | Cell::GruResetBefore => "gru",
            Cell::RnnTanh | Cell::RnnRelu => "rnn",
        }
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let e = &self.0;
        let (gates, states) = (e.cell.gates() * e.hidden, e.states());
        expect("projected inputs", inputs.first(), &Desc::f32([e.directions, e.rows(), gates]))?;
        expect("recurrent weights", inputs.get(1), &Desc::f32([e.directions, gates, e.hidden]))?;
        let mut others = inputs[2..].iter();
        if e.initial {
            expect("first states", others.next(), &states)?;
        }
        if e.lengths {
            expect("lengths", others.next(), &lengths_desc(e))?;
        }
        if let Some(bias) = others.next() {
            expect("candidate's biases", Some(bias), &Desc::f32([e.directions, e.hidden]))?;
        }
        let mut outputs = vec![e.sequence(e.directions * e.hidden)];
        if e.cell.gates() > 1 {
            outputs.push(Desc::f32([e.directions, e.rows(), e.hidden, 4]));
        }
        if e.cell == Cell::Lstm {
            outputs.extend([Desc::f32([e.directions, e.rows(), e.hidden]), e.state()]);
        }
        Ok(outputs)
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (e, g) = (&self.0, node.x(0).graph());
        let h = e.hidden;
        let lengths = e.lengths.then(|| node.x(self.lengths()));
        let mut from = vec![&node.outputs[0]];
        from.extend(e.initial.then(|| node.x(2)));
        from.extend(lengths);
        let former = g.push1(Former(e.clone()), &from);
        let (dy, dc) = (node.grads[0].as_ref(), node.grads.get(3).and_then(Option::as_ref));
        let op = LoopGrad { extents: e.clone(), arriving: dy.is_some(), final_c: dc.is_some() };
        // A cell of one gate is known by its result.
        let mut inputs = vec![node.x(1), node.outputs.get(1).unwrap_or(&node.outputs[0])];
        inputs.extend(dy);
        inputs.extend(node.outputs.get(2).filter(|_| e.cell == Cell::Lstm));
        inputs.extend(e.cell.is_gru().then_some(&former));
        inputs.extend(dc);
        inputs.extend(lengths);
        let mut all = g.push(op, &inputs).into_iter();
        let (Some(dx), Some(initial)) = (all.next(), all.next()) else { return Vec::new() };
        let part = |start: usize, count: usize| dx.narrow(-1, start * h, count * h);
        let weights = |slopes: &Tensor, states: &Tensor| slopes.matmul_t(states, true, false);
        let (to_input, to_weights) = match e.cell {
            // Planes q, r, z, n.
            Cell::Gru => {
                let all = weights(&part(0, 3), &former);
                (part(1, 3), all.narrow(1, h, 2 * h).concat(&[&all.narrow(1, 0, h)], 1))
            }
            Cell::GruResetBefore => {
                let reset = node.outputs[1].narrow(-1, 0, 1).squeeze(-1);
                let candidate = weights(&part(2, 1), &(&former * reset));
                (dx.clone(), weights(&part(0, 2), &former).concat(&[&candidate], 1))
            }
            _ => (dx.clone(), weights(&dx, &former)),
        };
        let mut grads = vec![Some(to_input), Some(to_weights)];
        grads.extend(e.initial.then_some(Some(initial)));
        grads.extend(e.lengths.then_some(None));
        if self.has_bias(node.inputs.len()) {
            grads.push(Some(part(0, 1).sum(&[1], false)));
        }
        grads
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        Style::all(&self.0, caps).into_iter().filter_map(|style| self.candidate(io, style, caps)).collect()
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        2 * (inputs[0].elements() * self.0.hidden) as u64
    }
}

impl Loop {
    /// The weights of all gates side by side, into the last scratch buffer.
    fn pack(&self, style: Style, caps: &Caps) -> (Kernel, usize) {
        let e = &self.0;
        let count = e.directions * e.columns() * e.hidden;
        let kernel = e
            .kernel(shader!("recurrent_weights.wgsl"), "pack")
            .set("COUNT", count)
            .set("K_ROWS", e.columns())
            .bind([Arg::In(1), Arg::ScratchOut(packed(style))])
            .grid(caps.fold(count.div_ceil(64)));
        if e.cell.gates() == 1 { (kernel.choose("weights", "one_weight"), count * 4) } else { (kernel, count * 16) }
    }

    /// What a kernel of `recurrent_forward.wgsl` reads and writes beside its own state.
    fn wire(&self, kernel: Kernel, io: &Io<'_>, style: Style) -> Kernel {
        let e = &self.0;
        let mut kernel =
            kernel.set("K_ROWS", e.columns()).bind([Arg::ScratchIn(packed(style)), Arg::In(0), Arg::Out(0)]);
        kernel = of_cell(kernel, "cell", ["gru_cell", "tanh_cell", "relu_cell"], e.cell);
        match e.cell.gates() {
            3 => kernel = kernel.choose("x_gates", "x_three_gates"),
            1 => kernel = kernel.choose("x_gates", "x_one_gate").replace("Sum", "alias Sum = f32;"),
            _ => {}
        }
        if e.initial {
            kernel = kernel.choose("state_before", "state_given").bind_as("INITIAL", Arg::In(2));
        }
        if e.lengths {
            kernel = kernel.choose("length_of", "length_given").bind_as("LENGTHS", Arg::In(self.lengths()));
        }
        if self.has_bias(io.inputs.len()) {
            let bias = Arg::In(io.inputs.len() - 1);
            kernel = kernel.choose("sum_before", "sum_with_bias").bind_as("CANDIDATE_BIAS", bias);
        }
        match e.cell {
            Cell::Lstm if io.used[1] || io.used[2] => kernel
                .choose("keep", "keep_gates_and_c")
                .bind_as("KEPT_GATES", Arg::Out(1))
                .bind_as("KEPT_C", Arg::Out(2)),
            Cell::Gru | Cell::GruResetBefore if io.used[1] => {
                kernel.choose("keep", "keep_gates").bind_as("KEPT_GATES", Arg::Out(1))
            }
            _ => kernel,
        }
    }

    fn candidate(&self, io: &Io<'_>, style: Style, caps: &Caps) -> Option<Candidate> {
        let e = &self.0;
        let before = e.cell == Cell::GruResetBefore;
        let planes = if before { 4 } else { 2 };
        let team = Team::new(e, e.hidden, planes, style, caps)?;
        let make = |entry| {
            let kernel = self.wire(e.kernel(shader!("recurrent_forward.wgsl"), entry), io, style);
            self.carry(team.set(kernel, planes, caps), io, style)
        };
        let (pack, bytes) = self.pack(style, caps);
        if style == Style::Steps {
            let step = make(if before { "step_before" } else { "step" });
            let count = e.steps * if before { 2 } else { 1 };
            let kernels = team.steps(make("begin_states"), &step, count, e.hidden.div_ceil(team.group), caps);
            let kernels = std::iter::once(pack).chain(kernels).collect();
            return Some(Candidate::new(style.name(), kernels, vec![team.count * planes * team.plane * 4, bytes]));
        }
        let products = e.hidden.div_ceil(team.group) * (e.columns() / 4 + team.rows + 3);
        let turns = [(products + 2) * if before { 2 } else { 1 } + 2, team.plane.div_ceil(team.group) * (planes + 2)];
        let kernel = make(if before { "sequence_before" } else { "sequence" });
        let mut kernels = team.segments(kernel, e.steps, turns, caps)?;
        kernels.insert(0, pack);
        let mut candidate = Candidate::new(style.name(), kernels, vec![bytes]);
        if style == Style::Group {
            return Some(candidate);
        }
        let carried = usize::from(e.cell == Cell::Lstm);
        candidate.texels.push(team.count * (planes + carried) * team.plane);
        Some(candidate)
    }

    /// Where an LSTM's c lies from step to step.
    fn carry(&self, kernel: Kernel, io: &Io<'_>, style: Style) -> Kernel {
        if self.0.cell != Cell::Lstm {
            return kernel;
        }
        match (style, io.used[3]) {
            (Style::Texels, false) => kernel.choose("carry", "carry_texel").choose("put_carry", "put_carry_texel"),
            (Style::Texels, true) => kernel
                .choose("carry", "carry_texel")
                .choose("put_carry", "put_carry_texel_and_last")
                .bind_as("CARRY", Arg::Out(3)),
            _ => kernel
                .choose("carry", "carry_in_place")
                .choose("put_carry", "put_carry_in_place")
                .bind_as("CARRY", Arg::Out(3)),
        }
    }
}

/// The scratch buffer that the packed weights are in; a dispatch to each step keeps its states in the first one.
pub(super) fn packed(style: Style) -> usize {
    usize::from(style == Style::Steps)
}
