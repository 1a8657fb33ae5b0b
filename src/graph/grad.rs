//! The gradient pass: reverse-mode differentiation as a graph-to-graph transformation.
//!
//! Gradients are ordinary nodes, so a gradient can be differentiated again wherever the ops allow it.

use super::{Backward, Desc, Graph, Source, Tensor, Value};
use std::collections::HashMap;

impl Graph {
    /// The gradients of `loss` (summed, if it is not a scalar) with respect to `wrt`: parameters, inputs or any
    /// intermediate tensor; zeros for what it does not depend on.
    #[track_caller]
    pub fn grad<'a>(&self, loss: &Tensor, wrt: impl IntoIterator<Item = &'a Tensor>) -> Vec<Tensor> {
        self.grad_from(&[(loss.clone(), loss.ones_like())], wrt)
    }

    /// Vector-Jacobian product: the gradients of `sum(output * cotangent)` over all pairs.
    #[track_caller]
    pub fn grad_from<'a>(&self, seeds: &[(Tensor, Tensor)], wrt: impl IntoIterator<Item = &'a Tensor>) -> Vec<Tensor> {
        let wrt: Vec<&Tensor> = wrt.into_iter().collect();
        self.own("grad", wrt.iter().copied().chain(seeds.iter().flat_map(|(output, cotangent)| [output, cotangent])));
        if self.failed() {
            return wrt.into_iter().cloned().collect();
        }
        let needed = self.depends_on(&wrt);
        let mut grads: HashMap<Value, Tensor> = HashMap::new();
        let mut last = 0;
        for (output, cotangent) in seeds {
            // The gradients of an f16 tensor are f32.
            if !output.dtype().is_float() || *cotangent.desc() != Desc::f32(output.shape()) {
                self.fail("grad", format!("the cotangent is {}, the output {}", cotangent.desc(), output.desc()));
                return wrt.into_iter().cloned().collect();
            }
            accumulate(&mut grads, output.value(), cotangent.clone());
            last = last.max(output.value().node);
        }
        for id in (0..=last).rev() {
            let node = self.inner().nodes[id].clone();
            let Source::Op(op) = &node.source else { continue };
            if !needed[id] {
                continue;
            }
            let arriving: Vec<Option<Tensor>> =
                (0..node.outputs.len()).map(|output| grads.get(&Value { node: id, output }).cloned()).collect();
            if arriving.iter().all(Option::is_none) {
                continue;
            }
            let inputs: Vec<Tensor> = node.inputs.iter().map(|&v| self.tensor(v)).collect();
            let outputs: Vec<Tensor> =
                (0..node.outputs.len()).map(|o| self.tensor(Value { node: id, output: o })).collect();
            let leaving = op.grad(&Backward { inputs: &inputs, outputs: &outputs, grads: &arriving });
            for (input, grad) in inputs.iter().zip(leaving) {
                if let (Some(grad), true) = (grad, needed[input.value().node]) {
                    if grad.shape() != input.shape() {
                        self.fail(op.name(), format!("its gradient rule gave {} for {}", grad.desc(), input.desc()));
                    }
                    accumulate(&mut grads, input.value(), grad);
                }
            }
        }
        wrt.into_iter().map(|t| grads.get(&t.value()).cloned().unwrap_or_else(|| t.zeros_like())).collect()
    }

    /// A handle on a value of this graph.
    pub(crate) fn tensor(&self, value: Value) -> Tensor {
        let desc = self.inner().nodes[value.node].outputs[value.output].clone();
        Tensor::new(self.clone(), value, desc)
    }

    /// For each node, whether a float path leads from `wrt` to it.
    fn depends_on(&self, wrt: &[&Tensor]) -> Vec<bool> {
        let inner = self.inner();
        let mut needed = vec![false; inner.nodes.len()];
        for tensor in wrt {
            needed[tensor.value().node] = true;
        }
        for (id, node) in inner.nodes.iter().enumerate() {
            needed[id] |=
                node.inputs.iter().any(|v| needed[v.node] && inner.nodes[v.node].outputs[v.output].dtype.is_float());
        }
        needed
    }
}

fn accumulate(grads: &mut HashMap<Value, Tensor>, value: Value, grad: Tensor) {
    let sum = match grads.get(&value) {
        Some(before) => before + &grad,
        None => grad,
    };
    grads.insert(value, sum);
}
