//! A small convolutional network with its backward pass written out, as one of the golden traces trains it.

use super::loss::CrossEntropy;
use super::{Array, Conv2d, MaxPool2d, Unary, linear, linear_vjp};

/// The parameters, in the order that [`step`] takes and returns them.
pub const PARAMETERS: [&str; 8] =
    ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"];

const CONV: Conv2d = Conv2d { stride: [1, 1], padding: [2; 4], dilation: [1, 1], groups: 1, flip: false };
const POOL: MaxPool2d =
    MaxPool2d { kernel: [2, 2], stride: [2, 2], padding: [0, 0], dilation: [1, 1], ceil_mode: false };

/// What a training step computes before the update.
pub struct Step {
    pub logits: Array,
    pub loss: f64,
    pub grads: Vec<Array>,
}

/// conv(5x5, padding 2), relu, max-pool 2, twice; then linear, relu, linear; mean cross-entropy with `labels`.
pub fn step(params: &[Array], x: &Array, labels: &Array) -> Step {
    let [w1, b1, w2, b2, w3, b3, w4, b4] = params else { panic!("{} parameters", params.len()) };
    let conv1 = CONV.forward(x, w1, Some(b1));
    let relu1 = Unary::Relu.apply(&conv1);
    let pool1 = POOL.forward(&relu1).0;
    let conv2 = CONV.forward(&pool1, w2, Some(b2));
    let relu2 = Unary::Relu.apply(&conv2);
    let pool2 = POOL.forward(&relu2).0;
    let flat = pool2.clone().reshape([x.shape[0], w3.shape[1]]);
    let fc1 = linear(&flat, w3, Some(b3));
    let relu3 = Unary::Relu.apply(&fc1);
    let logits = linear(&relu3, w4, Some(b4));
    let loss = CrossEntropy::default();

    let d = loss.grad(&logits, labels, &Array::scalar(1.0));
    let [d, dw4, db4] = linear_vjp(&relu3, w4, &d);
    let d = Unary::Relu.vjp(&fc1, &d);
    let [d, dw3, db3] = linear_vjp(&flat, w3, &d);
    let d = POOL.grad(&relu2, &d.reshape(pool2.shape));
    let d = Unary::Relu.vjp(&conv2, &d);
    let (dw2, db2) = (CONV.grad_weight(&d, &pool1, &w2.shape), CONV.grad_bias(&d));
    let d = POOL.grad(&relu1, &CONV.grad_x(&d, w2, &pool1.shape));
    let d = Unary::Relu.vjp(&conv1, &d);
    let (dw1, db1) = (CONV.grad_weight(&d, x, &w1.shape), CONV.grad_bias(&d));
    let loss = loss.forward(&logits, labels).data[0];
    Step { logits, loss, grads: vec![dw1, db1, dw2, db2, dw3, db3, dw4, db4] }
}
