//! The trait by which the graph knows its operations.

use super::{Candidate, Caps, Desc, Tensor};
use crate::graph::Param;
use std::fmt;

/// What a node does: its shape rule, its gradient rule, its kernels.
///
/// `Debug` must print every attribute: two nodes whose ops print alike and have the same inputs are one. One of your own
/// enters a graph by [`super::Graph::custom`].
pub trait Op: fmt::Debug {
    /// The name in errors and listings.
    fn name(&self) -> &'static str;

    /// The shape rule: outputs from inputs, or what is wrong with the inputs.
    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String>;

    /// The gradient rule: from the gradient that arrives at each output, the gradient for each input
    /// (`None`: no gradient flows there).
    fn grad(&self, _node: &Backward<'_>) -> Vec<Option<Tensor>> {
        Vec::new()
    }

    /// The ways to compute this node on a device with these abilities, the preferred one first.
    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate>;

    /// For an op that works element by element: the expression, so that it can be fused.
    fn pointwise(&self) -> Option<Pointwise> {
        None
    }

    /// For an op that only rearranges: output element `i` is input element `view(i)`.
    fn view(&self, _input: &Desc) -> Option<View> {
        None
    }

    /// Whether the kernels can read input `n` through this rearrangement of another tensor ([`Io::views`]).
    fn reads(&self, _n: usize, _view: &View) -> bool {
        false
    }

    /// Whether inputs may be f16; those of mere rearrangements always may.
    fn halves(&self) -> bool {
        false
    }

    /// Each output is the memory of the input of its number, perhaps under another shape.
    fn alias(&self) -> bool {
        false
    }

    /// Whether the last dispatch of every candidate hands each element it writes to the shader's `epilogue(v, i)`.
    fn epilogue(&self) -> bool {
        false
    }

    /// Persistent state that the kernels change in place.
    fn state(&self) -> Vec<Param> {
        Vec::new()
    }

    /// How many of this many inputs, from the first, must lie in one buffer (bound as [`super::Arg::Pack`]).
    fn packed(&self, _inputs: usize) -> usize {
        0
    }

    /// For a gradient that is zero but in some rows: inputs 0 and 1 are these rows [n, width] and their numbers, u32
    /// `[n]`, each only once; numbers of no row go with zeros.
    fn sparse(&self) -> bool {
        false
    }

    /// Floating-point operations of one run.
    fn flops(&self, _inputs: &[Desc], outputs: &[Desc]) -> u64 {
        outputs.iter().map(|o| o.elements() as u64).sum()
    }
}

/// What a gradient rule sees.
pub struct Backward<'a> {
    /// The node's inputs.
    pub inputs: &'a [Tensor],
    /// Its outputs.
    pub outputs: &'a [Tensor],
    /// The gradient that arrives at each output; `None` where nothing depends on it.
    pub grads: &'a [Option<Tensor>],
}

impl Backward<'_> {
    /// Input `n`.
    pub fn x(&self, n: usize) -> &Tensor {
        &self.inputs[n]
    }

    /// The gradient arriving at the only (or first) output; zeros where none does.
    pub fn dy(&self) -> Tensor {
        self.grads[0].clone().unwrap_or_else(|| self.outputs[0].zeros_like())
    }
}

/// An element-wise expression in WGSL: `{0}`, `{1}`... stand for the operands, `{i}` for the flat index of the
/// output element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointwise(pub String);

/// A rearrangement: the output's element at coordinates c is the input's at `offset + sum(c[a] * strides[a])`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The output's extents.
    pub shape: Vec<usize>,
    /// Input elements per step along each output axis.
    pub strides: Vec<isize>,
    /// The input element of output element 0.
    pub offset: usize,
}

/// Where a piece of state lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The slab.
    pub slab: u64,
    /// Its first element there (in elements of four bytes).
    pub offset: usize,
}

/// What an op sees when it names its kernels.
pub struct Io<'a> {
    /// Descriptions of the inputs.
    pub inputs: &'a [Desc],
    /// How each input lies in what is bound for it, where not as it is described.
    pub views: &'a [Option<View>],
    /// Descriptions of the outputs.
    pub outputs: &'a [Desc],
    /// Whether anything reads them; memory is only given to those that something reads or a kernel binds.
    pub used: &'a [bool],
    /// Places of the state, in the order of [`Op::state`].
    pub state: &'a [Place],
    /// Element offsets of the packed inputs in their common buffer.
    pub pack: &'a [usize],
}

impl Io<'_> {
    /// How input `n` lies in what is bound for it.
    pub fn view(&self, n: usize) -> View {
        let dense = || View::broadcast(&self.inputs[n].shape, &self.inputs[n].shape);
        self.views[n].clone().unwrap_or_else(dense)
    }

    /// Elements of output 0.
    pub fn elements(&self) -> usize {
        self.outputs[0].elements()
    }
}
