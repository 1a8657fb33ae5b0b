//! The network of the digit cases: two convolutions and two linear layers.

use super::cases::{Builder, Job, random};
use shadegrad::graph::Role;
use shadegrad::ops::{Conv2dOptions, Window};
use shadegrad::{Param, Tensor};

/// Floating-point operations for one image, forward.
pub const FLOPS: usize = 2 * (28 * 28 * 32 * 25 + 14 * 14 * 64 * 32 * 25 + 3136 * 128 + 128 * 10);

/// Weight and bias of each layer.
struct Network {
    conv1: [Param; 2],
    conv2: [Param; 2],
    linear1: [Param; 2],
    linear2: [Param; 2],
}

impl Network {
    fn new() -> Network {
        Network {
            conv1: conv("conv1", [32, 1, 5, 5], 11, 0.4),
            conv2: conv("conv2", [64, 32, 5, 5], 13, 0.07),
            linear1: linear("linear1", 3136, 128, 15, 0.036),
            linear2: linear("linear2", 128, 10, 17, 0.18),
        }
    }

    /// Logits [N, 10] of images [N, 1, 28, 28].
    fn forward(&self, x: &Tensor) -> Tensor {
        let graph = x.graph();
        let conv = |x: &Tensor, [weight, bias]: &[Param; 2]| {
            let options = Conv2dOptions::new().padding([2; 2]);
            let y = x.conv2d_bias(&graph.param(weight), &graph.param(bias), &options);
            y.relu().max_pool2d(&Window::new([2, 2]))
        };
        let linear = |x: &Tensor, [weight, bias]: &[Param; 2]| x.linear(&graph.param(weight), Some(&graph.param(bias)));
        let x = conv(&conv(x, &self.conv1), &self.conv2).flatten(1);
        linear(&linear(&x, &self.linear1).relu(), &self.linear2)
    }
}

fn conv(name: &str, shape: [usize; 4], seed: u32, scale: f32) -> [Param; 2] {
    let weight = random(shape.iter().product(), seed, scale);
    layer(name, shape.to_vec(), &weight, shape[0], seed, scale)
}

/// The numbers are drawn as [inputs, outputs] and stored as [outputs, inputs].
fn linear(name: &str, inputs: usize, outputs: usize, seed: u32, scale: f32) -> [Param; 2] {
    let drawn = random(inputs * outputs, seed, scale);
    let weight: Vec<f32> = (0..inputs * outputs).map(|i| drawn[i % inputs * outputs + i / inputs]).collect();
    layer(name, vec![outputs, inputs], &weight, outputs, seed, scale)
}

fn layer(name: &str, shape: Vec<usize>, weight: &[f32], outputs: usize, seed: u32, scale: f32) -> [Param; 2] {
    let bias = random(outputs, seed + 1, scale);
    [
        Param::new(format!("{name}.weight"), Role::Weight, shape, weight),
        Param::new(format!("{name}.bias"), Role::Weight, [outputs], &bias),
    ]
}

/// Logits of a batch.
pub fn infer(b: &mut Builder, batch: usize) -> Job {
    let x = b.input([batch, 1, 28, 28], 1, 2.0);
    let y = Network::new().forward(&x);
    b.forward(y)
}

/// One training step on a batch.
pub fn train(b: &mut Builder, batch: usize) -> Job {
    let (x, labels) = (b.input([batch, 1, 28, 28], 1, 2.0), b.labels(batch, 3, 10));
    let loss = Network::new().forward(&x).cross_entropy(&labels);
    b.train(loss)
}
