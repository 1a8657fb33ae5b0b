//! Normalization layers.

use super::Module;
use super::layers::named;
use crate::graph::{Param, Role, Tensor};

/// What is added to variances unless another value is set.
const EPS: f32 = 1e-5;

fn filled(name: &str, role: Role, shape: &[usize], value: f32) -> Param {
    Param::new(name, role, shape, &vec![value; shape.iter().product()])
}

/// Factors that begin as 1, and shifts that begin as 0.
fn affine(shape: &[usize]) -> (Param, Option<Param>) {
    (filled("weight", Role::Weight, shape, 1.0), Some(filled("bias", Role::Weight, shape, 0.0)))
}

macro_rules! settings {
    ($name:ident) => {
        impl $name {
            /// What is added to the variance, 1e-5 unless set.
            pub fn eps(mut self, eps: f32) -> Self {
                self.eps = eps;
                self
            }

            fn leaves(&self, x: &Tensor) -> (Tensor, Option<Tensor>) {
                (x.graph().param(&self.weight), self.bias.as_ref().map(|bias| x.graph().param(bias)))
            }
        }
    };
}

/// [`Tensor::layer_norm`] over the last axes, with weight (at first 1) and bias (at first 0).
///
/// ```
/// use shadegrad::{Graph, nn::{self, Module}};
/// let norm = nn::LayerNorm::new(&[64]);
/// assert_eq!(norm.forward(&Graph::new().input([32, 10, 64])).shape(), [32, 10, 64]);
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    shape: Vec<usize>,
    eps: f32,
    weight: Param,
    bias: Option<Param>,
}

impl LayerNorm {
    /// Over the last axes, which have this shape.
    pub fn new(shape: &[usize]) -> Self {
        let (weight, bias) = affine(shape);
        LayerNorm { shape: shape.to_vec(), eps: EPS, weight, bias }
    }

    /// Without a bias.
    pub fn without_bias(mut self) -> Self {
        self.bias = None;
        self
    }
}

settings!(LayerNorm);

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = self.leaves(x);
        x.layer_norm(&self.shape, Some(&weight), bias.as_ref(), self.eps)
    }

    fn parameters(&self) -> Vec<(String, Param)> {
        named(&self.weight, &self.bias)
    }
}

/// [`Tensor::rms_norm`] over the last axes, with a weight (at first 1).
#[derive(Clone, Debug)]
pub struct RmsNorm {
    shape: Vec<usize>,
    eps: f32,
    weight: Param,
    bias: Option<Param>,
}

impl RmsNorm {
    /// Over the last axes, which have this shape.
    pub fn new(shape: &[usize]) -> Self {
        RmsNorm { shape: shape.to_vec(), eps: EPS, weight: affine(shape).0, bias: None }
    }
}

settings!(RmsNorm);

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.rms_norm(&self.shape, Some(&self.leaves(x).0), self.eps)
    }

    fn parameters(&self) -> Vec<(String, Param)> {
        named(&self.weight, &self.bias)
    }
}

/// [`Tensor::group_norm`] of [N, channels, ...], with weight (at first 1) and bias (at first 0) for each channel.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    groups: usize,
    eps: f32,
    weight: Param,
    bias: Option<Param>,
}

impl GroupNorm {
    /// `channels` in `groups` groups.
    pub fn new(groups: usize, channels: usize) -> Self {
        let (weight, bias) = affine(&[channels]);
        GroupNorm { groups, eps: EPS, weight, bias }
    }
}

settings!(GroupNorm);

impl Module for GroupNorm {
    fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = self.leaves(x);
        x.group_norm(self.groups, Some(&weight), bias.as_ref(), self.eps)
    }

    fn parameters(&self) -> Vec<(String, Param)> {
        named(&self.weight, &self.bias)
    }
}

/// Batch normalization of [N, channels, ...], PyTorch's `BatchNorm1d`, `2d` and `3d`.
///
/// In a graph for training each channel gets the batch's mean and variance, and every run of a program that needs the
/// result moves the running mean and variance towards them (the variance by its unbiased estimate); in
/// [`Graph::inference`](crate::Graph::inference) those are used instead. Of a layer that is used several times in a graph
/// the last use counts.
///
/// ```
/// use shadegrad::{Graph, nn::{self, Module}};
/// let norm = nn::BatchNorm::new(16);
/// assert_eq!(norm.forward(&Graph::inference().input([32, 16, 8, 8])).shape(), [32, 16, 8, 8]);
/// let names: Vec<String> = norm.parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["weight", "bias", "running_mean", "running_var"]);
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm {
    eps: f32,
    momentum: f32,
    weight: Param,
    bias: Option<Param>,
    mean: Param,
    variance: Param,
}

impl BatchNorm {
    /// Running means begin as 0, variances as 1.
    pub fn new(channels: usize) -> Self {
        let (weight, bias) = affine(&[channels]);
        let mean = filled("running_mean", Role::Buffer, &[channels], 0.0);
        let variance = filled("running_var", Role::Buffer, &[channels], 1.0);
        BatchNorm { eps: EPS, momentum: 0.1, weight, bias, mean, variance }
    }

    /// The part of the way that the running values move towards a batch's, 0.1 unless set.
    pub fn momentum(mut self, momentum: f32) -> Self {
        self.momentum = momentum;
        self
    }

    /// What training needs.
    fn check(&self, x: &Tensor) -> Result<(), String> {
        let channels = self.mean.desc().elements();
        if !(0.0..=1.0).contains(&self.momentum) {
            return Err(format!("the momentum is {}, but must be from 0 to 1", self.momentum));
        }
        if x.rank() < 2 || x.shape()[1] != channels || x.elements() <= channels {
            let wanted = format!("[N, {channels}, ...] with several elements for each channel was expected");
            return Err(format!("{wanted}, not {}", x.desc()));
        }
        Ok(())
    }

    /// The batch's mean; programs that need it move the running values.
    #[track_caller]
    fn keep(&self, x: &Tensor, batch_mean: &Tensor, batch_variance: &Tensor) -> Tensor {
        let (g, count) = (x.graph(), (x.elements() / x.shape()[1]) as f32);
        let unbiased = batch_variance * (count / (count - 1.0));
        let updates = [(&self.mean, batch_mean), (&self.variance, &unbiased)].map(|(running, batch)| {
            let next = g.param(running) * (1.0 - self.momentum) + batch.detach() * self.momentum;
            g.assign(running, &next)
        });
        g.upkeep(batch_mean, updates)
    }
}

settings!(BatchNorm);

impl Module for BatchNorm {
    fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = self.leaves(x);
        let (mean, variance) = if x.graph().is_training() {
            if let Err(message) = self.check(x) {
                return x.graph().poison("batch_norm", message);
            }
            let (mean, variance) = x.batch_statistics();
            (self.keep(x, &mean, &variance), variance)
        } else {
            (x.graph().param(&self.mean), x.graph().param(&self.variance))
        };
        x.batch_norm(&mean, &variance, Some(&weight), bias.as_ref(), self.eps)
    }

    fn parameters(&self) -> Vec<(String, Param)> {
        let mut all = named(&self.weight, &self.bias);
        all.extend([("running_mean", &self.mean), ("running_var", &self.variance)].map(|(n, p)| (n.into(), p.clone())));
        all
    }
}
