//! Stacks of recurrent layers, in one direction or both, from the loops and ordinary products.

use super::forward::Loop;
use super::{Cell, Extents};
use crate::graph::{DType, Tensor};

/// The weights of one layer in one direction, laid out as PyTorch's: gate by gate in the order of [`Cell`]'s variants.
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// Of the input, [gates hidden, inputs].
    pub input: Tensor,
    /// Of the former state, [gates hidden, hidden].
    pub hidden: Tensor,
    /// Added to the input's part, [gates hidden].
    pub input_bias: Option<Tensor>,
    /// Added to the recurrent part, [gates hidden]; in [`Cell::Gru`] the candidate's share of it is under the reset gate.
    pub hidden_bias: Option<Tensor>,
}

/// The states of all layers and directions.
#[derive(Clone, Debug)]
pub struct States {
    /// [layers directions, N, hidden].
    pub h: Tensor,
    /// The same; only an LSTM has it.
    pub c: Option<Tensor>,
}

/// How a sequence goes through recurrent layers; see [`Tensor::recurrent`].
#[derive(Clone, Debug)]
pub struct Recurrence {
    cell: Cell,
    bidirectional: bool,
    batch_first: bool,
    dropout: f32,
    checkpoint: Option<usize>,
    lengths: Option<Tensor>,
    initial: Option<States>,
}

impl Recurrence {
    /// One direction, time first, from zero states.
    pub fn new(cell: Cell) -> Self {
        Recurrence {
            cell,
            bidirectional: false,
            batch_first: false,
            dropout: 0.0,
            checkpoint: None,
            lengths: None,
            initial: None,
        }
    }

    /// A second direction, from the end to the begin; its weights follow those of the first, layer by layer.
    pub fn bidirectional(mut self, both: bool) -> Self {
        self.bidirectional = both;
        self
    }

    /// Input and result are [N, T, features] instead of [T, N, features].
    pub fn batch_first(mut self, first: bool) -> Self {
        self.batch_first = first;
        self
    }

    /// In training, zeroes elements between the layers with this probability.
    pub fn dropout(mut self, p: f32) -> Self {
        self.dropout = p;
        self
    }

    /// Sequences of different lengths, u32 `[N]`, from 1 to T each: behind its end a sequence's state stays as it is
    /// and the result is 0; the second direction starts at the end.
    pub fn lengths(mut self, lengths: &Tensor) -> Self {
        self.lengths = Some(lengths.clone());
        self
    }

    /// The states before the first step.
    pub fn initial(mut self, states: &States) -> Self {
        self.initial = Some(states.clone());
        self
    }

    /// For long sequences: keeps only the states after every so many steps, and computes the rest again in the gradient
    /// pass, [`Graph::checkpoint`](crate::Graph::checkpoint). In one direction, without lengths.
    pub fn checkpoint(mut self, steps: usize) -> Self {
        self.checkpoint = Some(steps);
        self
    }

    fn directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }

    /// The axis of time.
    fn time(&self) -> isize {
        isize::from(self.batch_first)
    }
}

/// One layer's weights, those of all directions together.
struct Stacked {
    input: Tensor,
    hidden: Tensor,
    bias: Option<Tensor>,
    candidate: Option<Tensor>,
}

impl Tensor {
    /// This sequence, [T, N, inputs] (or [N, T, inputs]), through recurrent layers, and their last states: the result
    /// is [T, N, directions hidden] (or [N, T, directions hidden]).
    ///
    /// `weights` has an entry for each layer and direction, in the order layer 0 forward, layer 0 backward, layer 1
    /// forward, and so on; deeper layers' inputs are the results of all directions of the one before.
    #[track_caller]
    pub fn recurrent(&self, weights: &[LayerWeights], options: &Recurrence) -> (Tensor, States) {
        if let Err(message) = check(self, weights, options) {
            let tensor = self.graph().poison("recurrent", message);
            return (tensor.clone(), States { h: tensor.clone(), c: Some(tensor) });
        }
        if let Some(lengths) = &options.lengths {
            let steps = self.shape()[usize::from(options.batch_first)] as u32;
            self.graph().bound(lengths, 1..steps.saturating_add(1), &[]);
        }
        let directions = options.directions();
        let layers = weights.len() / directions;
        let (mut x, mut h, mut c) = (self.clone(), Vec::new(), Vec::new());
        for (layer, weights) in weights.chunks(directions).enumerate() {
            let initial = options.initial.as_ref().map(|states| part(states, layer * directions, directions));
            let (y, last) = match options.checkpoint {
                Some(steps) => in_segments(&x, weights, initial, options, steps.max(1)),
                None => one_layer(&x, weights, initial.as_ref(), options),
            };
            h.push(last.h);
            c.extend(last.c);
            x = y;
            if layer + 1 < layers && options.dropout > 0.0 && self.graph().is_training() {
                x = x.dropout(options.dropout);
            }
        }
        (x, States { h: joined(&h, 0), c: (!c.is_empty()).then(|| joined(&c, 0)) })
    }
}

/// Whether everything fits.
fn check(x: &Tensor, weights: &[LayerWeights], options: &Recurrence) -> Result<(), String> {
    let (gates, directions) = (options.cell.gates(), options.directions());
    if x.rank() != 3 || x.dtype() != DType::F32 {
        return Err(format!("it needs f32 sequences of three axes (time, batch, features), not {}", x.desc()));
    }
    let [steps, batch] = if options.batch_first { [x.shape()[1], x.shape()[0]] } else { [x.shape()[0], x.shape()[1]] };
    if steps == 0 {
        return Err(format!("the sequences {} have no steps", x.desc()));
    }
    let hidden = match weights.first() {
        Some(first) if weights.len().is_multiple_of(directions) && first.hidden.rank() == 2 => first.hidden.shape()[1],
        _ => return Err(format!("{} sets of weights are no layers of {directions} directions", weights.len())),
    };
    if hidden == 0 {
        return Err("the layers have no units".into());
    }
    let mut features = x.shape()[2];
    for (n, weights) in weights.iter().enumerate() {
        let (layer, direction) = (n / directions, if n % directions == 0 { "" } else { ", backward" });
        let wrong = |what: &str, got: &Tensor, want: &[usize]| {
            let message = format!("layer {layer}{direction}: the {what} {} are not f32{want:?}", got.desc());
            if got.shape() == want && got.dtype() == DType::F32 { Ok(()) } else { Err(message) }
        };
        wrong("input weights", &weights.input, &[gates * hidden, features])?;
        wrong("recurrent weights", &weights.hidden, &[gates * hidden, hidden])?;
        for bias in weights.input_bias.iter().chain(&weights.hidden_bias) {
            wrong("biases", bias, &[gates * hidden])?;
        }
        if n % directions == directions - 1 {
            features = directions * hidden;
        }
    }
    if let Some(lengths) = &options.lengths
        && (lengths.shape() != [batch] || lengths.dtype() != DType::U32)
    {
        return Err(format!("the lengths are {}, not u32[{batch}]", lengths.desc()));
    }
    if options.checkpoint.is_some() && (options.bidirectional || options.lengths.is_some()) {
        return Err("a checkpoint every few steps is for one direction, without lengths".into());
    }
    let Some(initial) = &options.initial else { return Ok(()) };
    let want = [weights.len(), batch, hidden];
    if (options.cell == Cell::Lstm) != initial.c.is_some() {
        return Err("only an LSTM, and every LSTM, has states c beside h".into());
    }
    match std::iter::once(&initial.h).chain(&initial.c).find(|state| state.shape() != want) {
        Some(state) => Err(format!("the first states are {}, not f32{want:?}", state.desc())),
        None => Ok(()),
    }
}

/// Tensors one after the other along an axis; one alone as it is.
fn joined(tensors: &[Tensor], dim: isize) -> Tensor {
    let others: Vec<&Tensor> = tensors[1..].iter().collect();
    if others.is_empty() { tensors[0].clone() } else { tensors[0].concat(&others, dim) }
}

/// The states of some of the layers and directions.
fn part(states: &States, start: usize, count: usize) -> States {
    let cut = |state: &Tensor| state.narrow(0, start, count);
    States { h: cut(&states.h), c: states.c.as_ref().map(cut) }
}

fn stack(weights: &[LayerWeights], cell: Cell, hidden: usize) -> Stacked {
    let all = |of: &dyn Fn(&LayerWeights) -> Option<Tensor>| {
        let parts: Option<Vec<Tensor>> = weights.iter().map(|w| of(w).map(|t| t.unsqueeze(0))).collect();
        parts.map(|parts| joined(&parts, 0))
    };
    let gated = (2 * hidden, hidden);
    let bias = |w: &LayerWeights| match (&w.input_bias, &w.hidden_bias) {
        // The candidate's recurrent bias is under the reset gate.
        (Some(a), Some(b)) if cell == Cell::Gru => Some(a + b.narrow(0, 0, gated.0).spread(a.shape(), &[(0, 1)])),
        (None, Some(b)) if cell == Cell::Gru => Some(b.narrow(0, 0, gated.0).spread(b.shape(), &[(0, 1)])),
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.clone().or_else(|| b.clone()),
    };
    let candidate = |w: &LayerWeights| w.hidden_bias.as_ref().map(|b| b.narrow(0, gated.0, gated.1));
    let input = weights.iter().map(|w| w.input.unsqueeze(0)).collect::<Vec<_>>();
    let recurrent = weights.iter().map(|w| w.hidden.unsqueeze(0)).collect::<Vec<_>>();
    Stacked {
        input: joined(&input, 0),
        hidden: joined(&recurrent, 0),
        bias: all(&bias),
        candidate: if cell == Cell::Gru { all(&candidate) } else { None },
    }
}

/// One layer, a few steps at a time, which the gradient pass computes again.
fn in_segments(
    x: &Tensor,
    weights: &[LayerWeights],
    initial: Option<States>,
    options: &Recurrence,
    steps: usize,
) -> (Tensor, States) {
    let (g, time) = (x.graph(), options.time());
    let (total, batch) = (x.shape()[time as usize], x.shape()[1 - time as usize]);
    let zeros = || g.full([1, batch, weights[0].hidden.shape()[1]], 0.0);
    let c = || (options.cell == Cell::Lstm).then(zeros);
    let mut states = initial.unwrap_or_else(|| States { h: zeros(), c: c() });
    let mut results = Vec::new();
    for start in (0..total).step_by(steps) {
        let part = x.narrow(time, start, steps.min(total - start));
        let mut inputs = vec![&part, &states.h];
        inputs.extend(&states.c);
        inputs.extend([&weights[0].input, &weights[0].hidden]);
        inputs.extend(weights[0].input_bias.iter().chain(&weights[0].hidden_bias));
        let (own, biases) = (options.clone(), [&weights[0].input_bias, &weights[0].hidden_bias].map(Option::is_some));
        let outputs = g.checkpoint(&inputs, move |inputs| segment(inputs, &own, biases).unwrap_or_default());
        let mut outputs = outputs.into_iter();
        let (Some(y), Some(h)) = (outputs.next(), outputs.next()) else { break };
        results.push(y);
        states = States { h, c: outputs.next() };
    }
    match results.is_empty() {
        true => (g.poison("recurrent", "a segment failed"), states),
        false => (joined(&results, time), states),
    }
}

/// A layer over some steps: its result and last states, from the sequence, the states before it and the layer's weights
/// in this order; `None` where any of them is missing.
fn segment(inputs: &[Tensor], options: &Recurrence, biases: [bool; 2]) -> Option<Vec<Tensor>> {
    let mut inputs = inputs.iter().cloned();
    let mut next = || inputs.next();
    let (x, h) = (next()?, next()?);
    let initial = States { h, c: if options.cell == Cell::Lstm { Some(next()?) } else { None } };
    let layer = LayerWeights {
        input: next()?,
        hidden: next()?,
        input_bias: if biases[0] { Some(next()?) } else { None },
        hidden_bias: if biases[1] { Some(next()?) } else { None },
    };
    let (y, last) = one_layer(&x, &[layer], Some(&initial), options);
    Some([y, last.h].into_iter().chain(last.c).collect())
}

/// One layer: its result and its last states, [directions, N, hidden].
fn one_layer(x: &Tensor, weights: &[LayerWeights], initial: Option<&States>, options: &Recurrence) -> (Tensor, States) {
    let g = x.graph();
    let hidden = weights[0].hidden.shape()[1];
    let weights = stack(weights, options.cell, hidden);
    let [first, second] = [x.shape()[0], x.shape()[1]];
    let (steps, batch) = if options.batch_first { (second, first) } else { (first, second) };
    let directions = options.directions();
    let rows = x.reshape([steps * batch, x.shape()[2]]);
    // All inputs of all steps with all gates' weights.
    let projected = if directions == 1 {
        let bias = weights.bias.as_ref().map(|bias| bias.squeeze(0));
        rows.linear(&weights.input.squeeze(0), bias.as_ref()).unsqueeze(0)
    } else {
        let product = rows.unsqueeze(0).matmul_t(&weights.input, false, true);
        weights.bias.as_ref().map_or(product.clone(), |bias| &product + bias.unsqueeze(1))
    };
    let initial = initial.map(|states| match &states.c {
        Some(c) => states.h.unsqueeze(0).concat(&[&c.unsqueeze(0)], 0),
        None => states.h.unsqueeze(0),
    });
    let extents = Extents {
        cell: options.cell,
        steps,
        batch,
        hidden,
        directions,
        batch_first: options.batch_first,
        initial: initial.is_some(),
        lengths: options.lengths.is_some(),
    };
    let mut inputs = vec![&projected, &weights.hidden];
    inputs.extend(&initial);
    inputs.extend(&options.lengths);
    inputs.extend(&weights.candidate);
    let mut outputs = g.push(Loop(extents), &inputs);
    let c = if options.cell == Cell::Lstm { outputs.pop() } else { None };
    let y = outputs.swap_remove(0);
    let h = last_h(&y, hidden, options);
    (y, States { h, c })
}

/// The last h of every direction, [directions, N, hidden], from the layer's result.
fn last_h(y: &Tensor, hidden: usize, options: &Recurrence) -> Tensor {
    let time = options.time();
    let [steps, batch] = if options.batch_first { [y.shape()[1], y.shape()[0]] } else { [y.shape()[0], y.shape()[1]] };
    let at_end = match &options.lengths {
        None => y.narrow(time, steps - 1, 1).reshape([batch, y.shape()[2]]),
        Some(lengths) => {
            // The row of each sequence's last step.
            let g = y.graph();
            let before = lengths - g.full_u32([], 1);
            let own: Vec<u32> = (0..batch as u32).collect();
            let own = g.constant_u32([batch], &own);
            let row = match options.batch_first {
                true => own * g.full_u32([], steps as u32) + before,
                false => before * g.full_u32([], batch as u32) + own,
            };
            y.reshape([steps * batch, y.shape()[2]]).index_select(0, &row)
        }
    };
    let forward = at_end.narrow(1, 0, hidden).unsqueeze(0);
    if !options.bidirectional {
        return forward;
    }
    let at_begin = y.narrow(time, 0, 1).reshape([batch, y.shape()[2]]);
    forward.concat(&[&at_begin.narrow(1, hidden, hidden).unsqueeze(0)], 0)
}
