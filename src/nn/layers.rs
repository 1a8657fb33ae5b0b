//! The layers themselves.

use super::Module;
use super::init::{bound, uniform};
use crate::graph::{Param, Tensor};
use crate::ops::{Conv2dOptions, Window};

/// `y = x W' + b`: [..., inputs] -> [..., outputs].
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Param,
    bias: Option<Param>,
}

impl Linear {
    /// With a bias; weight [outputs, inputs] and bias `[outputs]` uniform within `1 / sqrt(inputs)`.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        let bound = bound(inputs);
        let weight = uniform("weight", &[outputs, inputs], bound);
        Linear { weight, bias: Some(uniform("bias", &[outputs], bound)) }
    }

    /// Without a bias.
    pub fn without_bias(mut self) -> Self {
        self.bias = None;
        self
    }
}

pub(super) fn named(weight: &Param, bias: &Option<Param>) -> Vec<(String, Param)> {
    let bias = bias.iter().map(|bias| ("bias".into(), bias.clone()));
    std::iter::once(("weight".into(), weight.clone())).chain(bias).collect()
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Tensor {
        let g = x.graph();
        x.linear(&g.param(&self.weight), self.bias.as_ref().map(|b| g.param(b)).as_ref())
    }

    fn parameters(&self) -> Vec<(String, Param)> {
        named(&self.weight, &self.bias)
    }
}

/// Two-dimensional convolution: [N, inputs, H, W] -> [N, outputs, Ho, Wo], in deep learning's sense, a
/// cross-correlation; [`Conv2d::flipped`] makes it the mathematical one.
#[derive(Clone, Debug)]
pub struct Conv2d {
    inputs: usize,
    kernel: [usize; 2],
    options: Conv2dOptions,
    weight: Param,
    bias: Option<Param>,
}

impl Conv2d {
    /// A square kernel, stride 1, no padding, with a bias; weight [outputs, inputs, kernel, kernel] and bias `[outputs]`
    /// uniform within `1 / sqrt(inputs kernel^2)`.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self::with_kernel(inputs, outputs, [kernel; 2], 1)
    }

    /// A kernel of `[height, width]`, in `groups` groups (each input channel by itself: depthwise).
    pub fn with_kernel(inputs: usize, outputs: usize, kernel: [usize; 2], groups: usize) -> Self {
        let own = inputs / groups.max(1);
        let bound = bound(own * kernel[0] * kernel[1]);
        let weight = uniform("weight", &[outputs, own, kernel[0], kernel[1]], bound);
        let bias = Some(uniform("bias", &[outputs], bound));
        Conv2d { inputs, kernel, options: Conv2dOptions::new().groups(groups), weight, bias }
    }

    /// Zeros around the image, the same on all sides.
    pub fn padding(mut self, padding: usize) -> Self {
        self.options = self.options.padding([padding; 2]);
        self
    }

    /// Pixels from one output to the next, in both directions.
    pub fn stride(mut self, stride: usize) -> Self {
        self.options = self.options.stride([stride; 2]);
        self
    }

    /// Pixels from one tap to the next, in both directions.
    pub fn dilation(mut self, dilation: usize) -> Self {
        self.options = self.options.dilation([dilation; 2]);
        self
    }

    /// The mathematical convolution: the kernel flipped in both axes.
    pub fn flipped(mut self) -> Self {
        self.options = self.options.flipped(true);
        self
    }

    /// Without a bias.
    pub fn without_bias(mut self) -> Self {
        self.bias = None;
        self
    }

    /// Input channels and kernel size.
    pub fn extents(&self) -> (usize, [usize; 2]) {
        (self.inputs, self.kernel)
    }
}

impl Module for Conv2d {
    fn forward(&self, x: &Tensor) -> Tensor {
        let g = x.graph();
        match &self.bias {
            Some(bias) => x.conv2d_bias(&g.param(&self.weight), &g.param(bias), &self.options),
            None => x.conv2d(&g.param(&self.weight), &self.options),
        }
    }

    fn parameters(&self) -> Vec<(String, Param)> {
        named(&self.weight, &self.bias)
    }
}

/// The maximum of each window, [N, C, H, W] -> [N, C, Ho, Wo].
#[derive(Clone, Debug)]
pub struct MaxPool2d(Window);

impl MaxPool2d {
    /// Square windows side by side.
    pub fn new(kernel: usize) -> Self {
        MaxPool2d(Window::new([kernel; 2]))
    }

    /// Any windows.
    pub fn with_window(window: Window) -> Self {
        MaxPool2d(window)
    }
}

impl Module for MaxPool2d {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.max_pool2d(&self.0)
    }
}

/// The mean of each window, [N, C, H, W] -> [N, C, Ho, Wo].
#[derive(Clone, Debug)]
pub struct AvgPool2d(Window);

impl AvgPool2d {
    /// Square windows side by side.
    pub fn new(kernel: usize) -> Self {
        AvgPool2d(Window::new([kernel; 2]))
    }

    /// Any windows.
    pub fn with_window(window: Window) -> Self {
        AvgPool2d(window)
    }
}

impl Module for AvgPool2d {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.avg_pool2d(&self.0)
    }
}

/// In training, zeroes elements with this probability and scales the rest up (Srivastava et al., 2014); otherwise
/// nothing.
#[derive(Clone, Debug)]
pub struct Dropout(pub f32);

impl Module for Dropout {
    fn forward(&self, x: &Tensor) -> Tensor {
        if x.graph().is_training() { x.dropout(self.0) } else { x.clone() }
    }
}

/// `max(0, x)`, or with this slope left of 0.
#[derive(Clone, Debug)]
pub struct LeakyRelu(pub f32);

impl Module for LeakyRelu {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.leaky_relu(self.0)
    }
}

macro_rules! stateless {
    ($($(#[$doc:meta])* $name:ident = |$x:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl Module for $name {
            fn forward(&self, $x: &Tensor) -> Tensor {
                $body
            }
        }
    )*};
}

stateless! {
    /// `max(x, 0)`.
    Relu = |x| x.relu();
    /// `x Phi(x)`.
    Gelu = |x| x.gelu();
    /// `x sigmoid(x)`.
    Silu = |x| x.silu();
    /// `1 / (1 + exp(-x))`.
    Sigmoid = |x| x.sigmoid();
    /// Hyperbolic tangent.
    Tanh = |x| x.tanh();
    /// All axes but the first as one: [N, ...] -> [N, features].
    Flatten = |x| x.flatten(1);
}
