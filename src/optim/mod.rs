//! Optimizers, gradient clipping and learning-rate schedules.
//!
//! An optimizer step is one kernel over every element of every parameter: parameters, gradients and moments each lie
//! in one buffer. Hyper-parameters live on the device, too, and can be set between runs.

mod kinds;
mod rows;
pub mod schedule;
mod step;

pub use kinds::{Adagrad, Adam, AdamW, Optimizer, RmsProp, Sgd};
pub use schedule::Schedule;

use crate::graph::{Function, Graph, Param, Role, Source, Tensor};

impl Graph {
    /// What one training step computes: the loss (the first output), its gradients with respect to every weight that
    /// it depends on, and the optimizer's update of those.
    ///
    /// ```no_run
    /// use shadegrad::{Graph, Gpu, graph::{Param, Role}, optim::Adam};
    /// let weight = Param::new("weight", Role::Weight, [1, 3], &[0.1, 0.2, 0.3]);
    /// let g = Graph::new();
    /// let (x, y) = (g.input([8, 3]), g.input([8, 1]));
    /// let loss = x.linear(&g.param(&weight), None).mse_loss(&y, Default::default());
    /// let step = Gpu::new()?.compile(&g.minimize(&loss, Adam::new(1e-3)))?;
    /// step.write(&x, &[0.5; 24])?.write(&y, &[1.0; 8])?.run()?;
    /// # Ok::<(), shadegrad::Error>(())
    /// ```
    #[track_caller]
    pub fn minimize(&self, loss: &Tensor, optimizer: impl Into<Optimizer>) -> Function {
        self.own("minimize", [loss]);
        if self.failed() {
            return self.function([loss]);
        }
        let weights = self.weights(loss);
        if weights.is_empty() {
            self.fail("minimize", "the loss depends on no weights");
        }
        if loss.elements() != 1 {
            self.fail("minimize", format!("the loss is {}, not one number", loss.desc()));
        }
        let leaves: Vec<Tensor> = weights.iter().map(|w| self.param(w)).collect();
        let grads = self.grad(loss, &leaves);
        let pairs: Vec<(Param, Tensor)> = weights.into_iter().zip(grads).collect();
        self.apply(self.function([loss]), &pairs, optimizer)
    }

    /// Adds to `function` an optimizer's update of these weights by these gradients.
    #[track_caller]
    pub fn apply(&self, function: Function, pairs: &[(Param, Tensor)], optimizer: impl Into<Optimizer>) -> Function {
        step::add(self, function, pairs, &optimizer.into())
    }

    /// The weights that `loss` depends on, in the order in which they were made.
    fn weights(&self, loss: &Tensor) -> Vec<Param> {
        let inner = self.inner();
        let mut reached = vec![false; inner.nodes.len()];
        reached[loss.value().node] = true;
        let mut found = Vec::new();
        for id in (0..inner.nodes.len()).rev().filter(|&id| id <= loss.value().node) {
            if !reached[id] {
                continue;
            }
            inner.nodes[id].inputs.iter().for_each(|v| reached[v.node] = true);
            if let Source::Param(param) = &inner.nodes[id].source
                && param.role() == Role::Weight
            {
                found.push(param.clone());
            }
        }
        found.sort_by_key(Param::id);
        found
    }
}
