//! Recurrent layers.

use super::Module;
use super::init::{bound, uniform};
use crate::graph::{Param, Role, Tensor, Update};
use crate::ops::{Cell, LayerWeights, Recurrence, States};
use std::marker::PhantomData;

/// Long short-term memory (Hochreiter and Schmidhuber, 1997), as PyTorch's `LSTM`.
pub type Lstm = Recurrent<kind::Lstm>;

/// Gated recurrent units, as PyTorch's `GRU`; [`Gru::reset_before`] makes them those of Cho et al., 2014.
pub type Gru = Recurrent<kind::Gru>;

/// Plain recurrent layers, as PyTorch's `RNN`.
pub type Rnn = Recurrent<kind::Rnn>;

/// What tells [`Recurrent`] layers apart.
pub mod kind {
    /// Of [`super::Lstm`].
    #[derive(Clone, Copy, Debug)]
    pub enum Lstm {}
    /// Of [`super::Gru`].
    #[derive(Clone, Copy, Debug)]
    pub enum Gru {}
    /// Of [`super::Rnn`].
    #[derive(Clone, Copy, Debug)]
    pub enum Rnn {}
}

/// Recurrent layers over sequences [T, N, inputs] (or [N, T, inputs]): an [`Lstm`], a [`Gru`] or an [`Rnn`].
///
/// Parameters are named and laid out as PyTorch's (`weight_ih_l0`, `weight_hh_l0_reverse`, ...), so that its state
/// dicts load; first values are uniform within `1 / sqrt(hidden)`.
///
/// ```
/// use shadegrad::{Graph, nn};
/// let gru = nn::Gru::new(40, 64).layers(2).bidirectional().batch_first();
/// let g = Graph::new();
/// let (x, lengths) = (g.input([8, 100, 40]), g.input_u32([8]));
/// let (y, last) = gru.run(&x, None, Some(&lengths));
/// assert_eq!(y.shape(), [8, 100, 128]);
/// assert_eq!(last.h.shape(), [4, 8, 64]);
/// ```
#[derive(Clone, Debug)]
pub struct Recurrent<Kind> {
    cell: Cell,
    inputs: usize,
    hidden: usize,
    layers: usize,
    bidirectional: bool,
    batch_first: bool,
    biased: bool,
    single: bool,
    dropout: f32,
    checkpoint: Option<usize>,
    /// For each layer and direction: weight_ih, weight_hh and, with biases, bias_ih, bias_hh.
    weights: Vec<Vec<(String, Param)>>,
    kind: PhantomData<Kind>,
}

impl Lstm {
    /// One layer in one direction, time first, with biases.
    pub fn new(inputs: usize, hidden: usize) -> Self {
        Recurrent::with_cell(Cell::Lstm, inputs, hidden)
    }
}

impl Gru {
    /// One layer in one direction, time first, with biases; the reset gate after the recurrent product, as in PyTorch
    /// and cuDNN.
    pub fn new(inputs: usize, hidden: usize) -> Self {
        Recurrent::with_cell(Cell::Gru, inputs, hidden)
    }

    /// The reset gate before the recurrent product: `h~ = tanh(W x + U (r h) + b)`, `h' = (1 - z) h + z h~`.
    pub fn reset_before(mut self) -> Self {
        self.cell = Cell::GruResetBefore;
        self
    }
}

impl Rnn {
    /// One layer of tanh units in one direction, time first, with biases.
    pub fn new(inputs: usize, hidden: usize) -> Self {
        Recurrent::with_cell(Cell::RnnTanh, inputs, hidden)
    }

    /// `max(0, x)` instead of tanh.
    pub fn relu(mut self) -> Self {
        self.cell = Cell::RnnRelu;
        self
    }
}

impl<Kind> Recurrent<Kind> {
    fn with_cell(cell: Cell, inputs: usize, hidden: usize) -> Self {
        let layers = Recurrent {
            cell,
            inputs,
            hidden,
            layers: 1,
            bidirectional: false,
            batch_first: false,
            biased: true,
            single: false,
            dropout: 0.0,
            checkpoint: None,
            weights: Vec::new(),
            kind: PhantomData,
        };
        layers.drawn()
    }

    /// With new weights.
    fn drawn(mut self) -> Self {
        let bound = bound(self.hidden);
        let rows = self.cell.gates() * self.hidden;
        let directions = self.directions();
        self.weights.clear();
        for n in 0..self.layers * directions {
            let layer = n / directions;
            let inputs = if layer == 0 { self.inputs } else { directions * self.hidden };
            let suffix = match (self.single, n % directions) {
                (true, _) => String::new(),
                (false, 0) => format!("_l{layer}"),
                (false, _) => format!("_l{layer}_reverse"),
            };
            let draw = |name: &str, shape: &[usize]| {
                let name = format!("{name}{suffix}");
                (name.clone(), uniform(&name, shape, bound))
            };
            let mut weights = vec![draw("weight_ih", &[rows, inputs]), draw("weight_hh", &[rows, self.hidden])];
            if self.biased {
                weights.extend(["bias_ih", "bias_hh"].map(|name| draw(name, &[rows])));
            }
            self.weights.push(weights);
        }
        self
    }

    /// This many layers on top of each other. It draws new weights.
    pub fn layers(mut self, layers: usize) -> Self {
        self.layers = layers.max(1);
        self.drawn()
    }

    /// A second direction, from the end to the begin; results have both side by side. It draws new weights.
    pub fn bidirectional(mut self) -> Self {
        self.bidirectional = true;
        self.drawn()
    }

    /// Without biases. It draws new weights.
    pub fn without_bias(mut self) -> Self {
        self.biased = false;
        self.drawn()
    }

    /// Names the parameters as those of PyTorch's `LSTMCell`, `GRUCell` or `RNNCell`: `weight_ih`, `weight_hh`, ... It
    /// draws new weights, those of one layer.
    pub fn cell(mut self) -> Self {
        (self.single, self.layers, self.bidirectional) = (true, 1, false);
        self.drawn()
    }

    /// Sequences are [N, T, inputs] instead of [T, N, inputs].
    pub fn batch_first(mut self) -> Self {
        self.batch_first = true;
        self
    }

    /// In training, zeroes elements between the layers with this probability.
    pub fn dropout(mut self, p: f32) -> Self {
        self.dropout = p;
        self
    }

    /// See [`Recurrence::checkpoint`].
    pub fn checkpoint(mut self, steps: usize) -> Self {
        self.checkpoint = Some(steps);
        self
    }

    fn directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }

    /// The extents of the states of a batch, [layers directions, N, hidden].
    pub fn state_shape(&self, batch: usize) -> [usize; 3] {
        [self.layers * self.directions(), batch, self.hidden]
    }

    /// Sequences through all layers: the result, [T, N, directions hidden] (or [N, T, ...]), and the last states.
    ///
    /// Without `initial` states they start from zeros; `lengths`, u32 `[N]`, are those of the sequences where they differ
    /// ([`Recurrence::lengths`]).
    #[track_caller]
    pub fn run(&self, x: &Tensor, initial: Option<&States>, lengths: Option<&Tensor>) -> (Tensor, States) {
        let mut options = Recurrence::new(self.cell)
            .bidirectional(self.bidirectional)
            .batch_first(self.batch_first)
            .dropout(self.dropout);
        if let Some(initial) = initial {
            options = options.initial(initial);
        }
        if let Some(lengths) = lengths {
            options = options.lengths(lengths);
        }
        if let Some(steps) = self.checkpoint {
            options = options.checkpoint(steps);
        }
        x.recurrent(&self.leaves(x), &options)
    }

    /// One step, [N, inputs] -> [N, directions hidden]: for sampling, and wherever inputs come one by one.
    ///
    /// [`Recurrent::carried`] keeps the states on the GPU from call to call.
    #[track_caller]
    pub fn step(&self, x: &Tensor, states: &States) -> (Tensor, States) {
        if x.rank() != 2 {
            let poison = x.graph().poison("step", format!("one step takes [N, inputs], not {}", x.desc()));
            return (poison, states.clone());
        }
        let axis = isize::from(self.batch_first);
        let (y, states) = self.run(&x.unsqueeze(axis), Some(states), None);
        (y.squeeze(axis), states)
    }

    /// States of `batch` sequences that stay on the GPU from run to run; zeros at first.
    pub fn carried(&self, batch: usize) -> Carried {
        let state = |name| Param::new(name, Role::State, self.state_shape(batch), &[]);
        Carried { h: state("h"), c: (self.cell == Cell::Lstm).then(|| state("c")) }
    }

    fn leaves(&self, x: &Tensor) -> Vec<LayerWeights> {
        let leaf = |weights: &[(String, Param)], n: usize| weights.get(n).map(|(_, param)| x.graph().param(param));
        let layer = |weights: &Vec<(String, Param)>| {
            Some(LayerWeights {
                input: leaf(weights, 0)?,
                hidden: leaf(weights, 1)?,
                input_bias: leaf(weights, 2),
                hidden_bias: leaf(weights, 3),
            })
        };
        self.weights.iter().filter_map(layer).collect()
    }
}

impl<Kind> Module for Recurrent<Kind> {
    /// The result of [`Recurrent::run`] from zero states.
    fn forward(&self, x: &Tensor) -> Tensor {
        self.run(x, None, None).0
    }

    fn parameters(&self) -> Vec<(String, Param)> {
        self.weights.iter().flatten().cloned().collect()
    }
}

/// The states of recurrent layers in memory of their own, which programs read and change in place: for truncated
/// back-propagation through time, where each run goes on from the states that the last one left, and for sampling.
///
/// ```no_run
/// use shadegrad::{Gpu, Graph, nn};
/// let gpu = Gpu::new()?;
/// let lstm = nn::Lstm::new(3, 16);
/// let carried = lstm.carried(1);
/// let g = Graph::inference();
/// let x = g.input([1, 3]);
/// let (y, next) = lstm.step(&x, &carried.states(&g));
/// let program = gpu.compile(&carried.keep(g.function([&y]), &next))?;
/// for sample in [[0.0, 0.5, 1.0], [0.1, 0.4, 0.9]] {
///     program.write(&x, &sample)?.run()?;
///     println!("{:?}", program.read(&y)?);
/// }
/// # Ok::<(), shadegrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Carried {
    h: Param,
    c: Option<Param>,
}

impl Carried {
    /// The states as they are before a run. No gradient goes past them.
    pub fn states(&self, graph: &crate::Graph) -> States {
        States { h: graph.param(&self.h), c: self.c.as_ref().map(|c| graph.param(c)) }
    }

    /// Adds to a function that these states shall be kept for its next run.
    #[track_caller]
    pub fn keep(&self, function: crate::graph::Function, states: &States) -> crate::graph::Function {
        let graph = states.h.graph();
        let updates: Vec<Update> = std::iter::once(graph.assign(&self.h, &states.h))
            .chain(self.c.iter().zip(&states.c).map(|(param, c)| graph.assign(param, c)))
            .collect();
        updates.into_iter().fold(function, |function, update| function.update(update))
    }

    /// Their memory, by name: h and, for an LSTM, c.
    pub fn params(&self) -> Vec<(String, Param)> {
        let c = self.c.iter().map(|c| ("c".to_string(), c.clone()));
        std::iter::once(("h".to_string(), self.h.clone())).chain(c).collect()
    }
}
