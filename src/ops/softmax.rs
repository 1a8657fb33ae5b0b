//! Softmax and its logarithm along one axis.

use super::lines;
use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Op, Tensor};
use crate::shader;

#[derive(Debug)]
struct Softmax {
    axis: usize,
    log: bool,
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let x = &inputs[0];
        if x.dtype != DType::F32 || x.shape[self.axis] == 0 {
            return Err(format!("it needs f32 elements along dim {}, not {x}", self.axis));
        }
        Ok(vec![x.clone()])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (dy, y, dim) = (node.dy(), &node.outputs[0], [self.axis as isize]);
        vec![Some(if self.log {
            let total = dy.sum(&dim, true);
            dy - y.exp() * total
        } else {
            let inner = (&dy * y).sum(&dim, true);
            y * (dy - inner)
        })]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let shape = &io.inputs[0].shape;
        let length = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        let lines = lines::Lines {
            count: io.elements() / length,
            length,
            step: inner,
            tensors: 1,
            taken: 1,
            block: lines::BLOCK,
            alone: lines::ALONE,
            abreast: true,
        };
        let kernels = lines::kernels(shader!("softmax.wgsl"), "softmax").map(|kernel| {
            let kernel = kernel.set("LOG", self.log).bind([Arg::In(0), Arg::Out(0)]);
            if lines.vectors() { kernel } else { lines::one_lane(kernel) }
        });
        let hold = |kernel| lines::hold(kernel).choose("of_line", "softmax_in_registers");
        lines::candidates(kernels, &lines, hold, caps)
    }

    fn epilogue(&self) -> bool {
        true
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        5 * inputs[0].elements() as u64
    }
}

impl Tensor {
    #[track_caller]
    fn soft(&self, dim: isize, log: bool) -> Tensor {
        match self.desc().shape.axis(dim) {
            Ok(axis) => self.graph().push1(Softmax { axis, log }, &[self]),
            Err(message) => self.graph().poison(if log { "log_softmax" } else { "softmax" }, message),
        }
    }

    /// `exp(x) / sum(exp(x))` along `dim`, computed without overflow.
    #[track_caller]
    pub fn softmax(&self, dim: isize) -> Tensor {
        self.soft(dim, false)
    }

    /// `log(softmax(x))` along `dim`.
    #[track_caller]
    pub fn log_softmax(&self, dim: isize) -> Tensor {
        self.soft(dim, true)
    }

    /// `softmax(-x)` along `dim`.
    #[track_caller]
    pub fn softmin(&self, dim: isize) -> Tensor {
        (-self).softmax(dim)
    }

    /// `log(sum(exp(x)))` along `dim`, computed without overflow; -inf of nothing but -inf.
    #[track_caller]
    pub fn logsumexp(&self, dim: isize, keepdim: bool) -> Tensor {
        let empty = self.desc().shape.axis(dim).is_ok_and(|axis| self.shape()[axis] == 0);
        if let Some(poison) = self.no_axes("logsumexp", &[dim]) {
            return poison;
        }
        if empty {
            return self.graph().poison("logsumexp", format!("{} has no elements along dim {dim}", self.desc()));
        }
        // The shift cancels, so no gradient flows through it. Where the largest is infinite, it is the result.
        let most = self.amax(&[dim], true).detach();
        let total = (self - most.finite_or_zero()).exp().sum(&[dim], true).log() + most;
        if keepdim { total } else { total.squeeze(dim) }
    }
}
