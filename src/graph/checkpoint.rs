//! Recomputation: what a part of a network keeps for the gradient pass is computed again there, and needs no memory
//! in between (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016).

use super::{Backward, Candidate, Caps, Desc, Graph, Io, Op, Role, Source, Tensor, Value};
use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;

type Part = Rc<dyn Fn(&[Tensor]) -> Vec<Tensor>>;

impl Graph {
    /// The outputs of `part` on these inputs, as PyTorch's `checkpoint`: the same values, but the gradient pass
    /// computes the part once more instead of reading what it has left behind.
    ///
    /// `inputs` must hold every weight and every input of the graph that the part uses, and everything made from these;
    /// dropout draws the same numbers again.
    ///
    /// ```
    /// use shadegrad::{Graph, Tensor};
    /// let g = Graph::new();
    /// let (x, w) = (g.input([8, 64]), g.input([64, 64]));
    /// let block = |inputs: &[Tensor]| vec![inputs[0].matmul(&inputs[1]).gelu().matmul(&inputs[1])];
    /// let y = g.checkpoint(&[&x, &w], block).remove(0);
    /// let grads = g.grad(&y, [&x, &w]);
    /// assert_eq!(grads[1].shape(), [64, 64]);
    /// # assert!(g.error().is_ok());
    /// ```
    #[track_caller]
    pub fn checkpoint(&self, inputs: &[&Tensor], part: impl Fn(&[Tensor]) -> Vec<Tensor> + 'static) -> Vec<Tensor> {
        let given: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
        let salt = self.inner().salt;
        let outputs = part(&given);
        if self.failed() {
            return outputs;
        }
        if let Some(name) = self.captured(&outputs, &given) {
            self.fail("checkpoint", not_given(&name));
        }
        let op = Checkpoint { part: Rc::new(part), salt, outputs: outputs.len() };
        self.push(op, &outputs.iter().chain(&given).collect::<Vec<_>>())
    }

    /// What `outputs` depend on, not through `inputs`, and gradients would have to reach.
    fn captured(&self, outputs: &[Tensor], inputs: &[Tensor]) -> Option<String> {
        let inner = self.inner();
        let mut seen: HashSet<Value> = inputs.iter().map(|t| t.value()).collect();
        // What belongs to another graph is refused by whatever reads it.
        let own = outputs.iter().filter(|t| t.graph().id() == inner.id);
        let mut stack: Vec<Value> = own.map(|t| t.value()).collect();
        while let Some(value) = stack.pop() {
            if !seen.insert(value) {
                continue;
            }
            let node = &inner.nodes[value.node];
            match &node.source {
                Source::Param(param) if param.role() == Role::Weight => return Some(param.name()),
                Source::Input(name) if node.outputs[0].dtype.is_float() => return Some(name.clone()),
                _ => stack.extend(&node.inputs),
            }
        }
        None
    }
}

fn not_given(name: &str) -> String {
    format!("the part uses {name}, or what was made from it, which is not among its inputs")
}

/// Reads a part's outputs and then its inputs, and gives the outputs.
struct Checkpoint {
    part: Part,
    /// Where the numbers of its random nodes start.
    salt: u32,
    outputs: usize,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint {:?} {}", Rc::as_ptr(&self.part), self.salt)
    }
}

impl Op for Checkpoint {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(inputs[..self.outputs].to_vec())
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let graph = node.x(0).graph();
        let again = node.inputs[self.outputs..].iter().enumerate().map(|(n, t)| graph.push1(Again("again", n), &[t]));
        let again: Vec<Tensor> = again.collect();
        let salt = std::mem::replace(&mut graph.0.borrow_mut().salt, self.salt);
        let outputs = (self.part)(&again);
        graph.0.borrow_mut().salt = salt;
        if let Some(name) = graph.captured(&outputs, &again) {
            graph.fail(self.name(), not_given(&name));
            return Vec::new();
        }
        let seeds: Vec<(Tensor, Tensor)> =
            outputs.into_iter().zip(node.grads).filter_map(|(y, dy)| Some((y, dy.clone()?))).collect();
        let floats: Vec<&Tensor> = again.iter().filter(|t| t.dtype().is_float()).collect();
        let mut grads = graph.grad_from(&seeds, floats).into_iter();
        let own = again.iter().map(|t| if t.dtype().is_float() { grads.next() } else { None });
        vec![None; self.outputs].into_iter().chain(own).collect()
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn alias(&self) -> bool {
        true
    }
}

/// A tensor under another name: nodes that read it are not those that read the tensor itself.
///
/// What it is for and a number - its place among a part's inputs, say - tell apart those that are the same.
pub(super) struct Again(pub &'static str, pub usize);

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

impl Op for Again {
    fn name(&self) -> &'static str {
        self.0
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![inputs[0].clone()])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![Some(node.dy())]
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn alias(&self) -> bool {
        true
    }
}
