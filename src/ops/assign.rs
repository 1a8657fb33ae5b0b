//! State that programs set themselves.

use super::movement;
use crate::graph::{Arg, Candidate, Caps, DType, Desc, Graph, Io, Op, Param, Source, Tensor, Update};

/// Copies its input into a piece of state.
#[derive(Debug)]
struct Assign(Param);

impl Op for Assign {
    fn name(&self) -> &'static str {
        "assign"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        match inputs[0] == *self.0.desc() {
            true => Ok(Vec::new()),
            false => Err(format!("{} is {}, not {}", self.0.name(), self.0.desc(), inputs[0])),
        }
    }

    fn halves(&self) -> bool {
        true
    }

    fn state(&self) -> Vec<Param> {
        vec![self.0.clone()]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        // Words of any type.
        let words = io.inputs[0].words();
        let together = movement::together(DType::U32, caps, |n| words.is_multiple_of(n));
        let copy = movement::kernel("scatter", DType::U32, together, words, caps);
        vec![Candidate::single("copy", copy.stream(Arg::In(0)).bind([Arg::State(0)]))]
    }
}

impl Graph {
    /// After everything that reads `param`, its values become those of `tensor`: for states carried from run to run.
    /// It takes effect in a [`crate::graph::Function`] that it is added to.
    ///
    /// ```no_run
    /// use shadegrad::{Gpu, Graph, Param, graph::Role};
    /// let total = Param::new("total", Role::State, [4], &[0.0; 4]);
    /// let g = Graph::new();
    /// let x = g.input([4]);
    /// let sum = g.param(&total) + &x;
    /// let program = Gpu::new()?.compile(&g.function([&sum]).update(g.assign(&total, &sum)))?;
    /// # Ok::<(), shadegrad::Error>(())
    /// ```
    #[track_caller]
    pub fn assign(&self, param: &Param, tensor: &Tensor) -> Update {
        let is_state = {
            let inner = tensor.graph().inner();
            let mut value = tensor.value();
            while inner.nodes[value.node].op().is_some_and(|op| op.alias()) {
                value = inner.nodes[value.node].inputs[value.output];
            }
            matches!(inner.nodes[value.node].source, Source::Param(_))
        };
        if is_state {
            self.fail(
                "assign",
                format!("{} is to become another state as it is, not something computed", param.name()),
            );
        }
        self.update(Assign(param.clone()), &[tensor])
    }
}
