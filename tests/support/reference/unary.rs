//! Functions of one value, their slopes (with PyTorch's choice at kinks), and the two gated activations.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use super::{Array, axis};

/// SELU's constants, as published.
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    Relu,
    Relu6,
    LeakyRelu { slope: f64 },
    Elu { alpha: f64 },
    Selu,
    Celu { alpha: f64 },
    Gelu,
    GeluTanh,
    Silu,
    Mish,
    Softplus { beta: f64, threshold: f64 },
    Softsign,
    HardSigmoid,
    HardSwish,
    HardTanh { min: f64, max: f64 },
    Sigmoid,
    Tanh,
    LogSigmoid,
    TanhShrink,
    Exp,
    Expm1,
    Abs,
    Neg,
    Erf,
    Sin,
    Cos,
    Square,
    Clamp { min: f64, max: f64 },
    Log,
    Log1p,
    Sqrt,
    Rsqrt,
    Reciprocal,
    PowScalar { exponent: f64 },
    Sign,
    Floor,
    Ceil,
    Round,
}

impl Unary {
    pub fn value(self, x: f64) -> f64 {
        match self {
            Unary::Relu => clamp(x, 0.0, f64::INFINITY),
            Unary::Relu6 => clamp(x, 0.0, 6.0),
            Unary::LeakyRelu { slope } => if_positive(x, x, slope * x),
            Unary::Elu { alpha } => if_positive(x, x, alpha * x.exp_m1()),
            Unary::Selu => SELU_SCALE * if_positive(x, x, SELU_ALPHA * x.exp_m1()),
            Unary::Celu { alpha } => if_positive(x, x, alpha * (x / alpha).exp_m1()),
            Unary::Gelu => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
            Unary::GeluTanh => 0.5 * x * (1.0 + gelu_inner(x).tanh()),
            Unary::Silu => x * sigmoid(x),
            Unary::Mish => x * softplus(x).tanh(),
            Unary::Softplus { beta, threshold } if beta * x > threshold => x,
            Unary::Softplus { beta, .. } => softplus(beta * x) / beta,
            Unary::Softsign => x / (1.0 + x.abs()),
            Unary::HardSigmoid => clamp(x + 3.0, 0.0, 6.0) / 6.0,
            Unary::HardSwish => x * clamp(x + 3.0, 0.0, 6.0) / 6.0,
            Unary::HardTanh { min, max } | Unary::Clamp { min, max } => clamp(x, min, max),
            Unary::Sigmoid => sigmoid(x),
            Unary::Tanh => x.tanh(),
            Unary::LogSigmoid => -softplus(-x),
            Unary::TanhShrink => x - x.tanh(),
            Unary::Exp => x.exp(),
            Unary::Expm1 => x.exp_m1(),
            Unary::Abs => x.abs(),
            Unary::Neg => -x,
            Unary::Erf => erf(x),
            Unary::Sin => x.sin(),
            Unary::Cos => x.cos(),
            Unary::Square => x * x,
            Unary::Log => x.ln(),
            Unary::Log1p => x.ln_1p(),
            Unary::Sqrt => x.sqrt(),
            Unary::Rsqrt => 1.0 / x.sqrt(),
            Unary::Reciprocal => 1.0 / x,
            Unary::PowScalar { exponent } => x.powf(exponent),
            Unary::Sign => sign(x),
            Unary::Floor => x.floor(),
            Unary::Ceil => x.ceil(),
            Unary::Round => x.round_ties_even(),
        }
    }

    /// The derivative at `x`.
    pub fn slope(self, x: f64) -> f64 {
        match self {
            Unary::Relu => if_positive(x, 1.0, 0.0),
            Unary::Relu6 => inside(x, 0.0, 6.0),
            Unary::LeakyRelu { slope } => if_positive(x, 1.0, slope),
            Unary::Elu { alpha } => if_positive(x, 1.0, alpha * x.exp()),
            Unary::Selu => SELU_SCALE * if_positive(x, 1.0, SELU_ALPHA * x.exp()),
            Unary::Celu { alpha } => if_positive(x, 1.0, (x / alpha).exp()),
            Unary::Gelu => {
                let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
                0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)) + x * density
            }
            Unary::GeluTanh => {
                let t = gelu_inner(x).tanh();
                let inner_slope = (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner_slope
            }
            Unary::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
            Unary::Mish => {
                let t = softplus(x).tanh();
                t + x * (1.0 - t * t) * sigmoid(x)
            }
            Unary::Softplus { beta, threshold } if beta * x > threshold => 1.0,
            Unary::Softplus { beta, .. } => sigmoid(beta * x),
            Unary::Softsign => (1.0 + x.abs()).powi(-2),
            Unary::HardSigmoid => inside(x, -3.0, 3.0) / 6.0,
            Unary::HardSwish if x <= -3.0 => 0.0,
            Unary::HardSwish if x < 3.0 => x / 3.0 + 0.5,
            Unary::HardSwish => 1.0,
            Unary::HardTanh { min, max } => inside(x, min, max),
            Unary::Clamp { min, max } => f64::from(u8::from((min..=max).contains(&x))),
            Unary::Sigmoid => sigmoid(x) * sigmoid(-x),
            Unary::Tanh => 1.0 - x.tanh().powi(2),
            Unary::LogSigmoid => sigmoid(-x),
            Unary::TanhShrink => x.tanh().powi(2),
            Unary::Exp | Unary::Expm1 => x.exp(),
            Unary::Abs => sign(x),
            Unary::Neg => -1.0,
            Unary::Erf => FRAC_2_SQRT_PI * (-x * x).exp(),
            Unary::Sin => x.cos(),
            Unary::Cos => -x.sin(),
            Unary::Square => 2.0 * x,
            Unary::Log => 1.0 / x,
            Unary::Log1p => 1.0 / (1.0 + x),
            Unary::Sqrt => 0.5 / x.sqrt(),
            Unary::Rsqrt => -0.5 / (x * x.sqrt()),
            Unary::Reciprocal => -1.0 / (x * x),
            Unary::PowScalar { exponent } => exponent * x.powf(exponent - 1.0),
            Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round => 0.0,
        }
    }

    pub fn apply(self, x: &Array) -> Array {
        x.map(|v| self.value(v))
    }

    pub fn vjp(self, x: &Array, dy: &Array) -> Array {
        x.zip(dy, |v, d| d * self.slope(v))
    }
}

/// `max(x, 0)` for the channels of axis 1 with a slope per channel (or one for all) below zero.
pub fn prelu(x: &Array, weight: &Array) -> Array {
    Array::from_fn(x.shape.clone(), |i| if_positive(x.at(i), x.at(i), x.at(i) * weight.data[channel(weight, i)]))
}

/// Gradients of [`prelu`] with respect to `x` and `weight`.
pub fn prelu_vjp(x: &Array, weight: &Array, dy: &Array) -> [Array; 2] {
    let dx = Array::from_fn(x.shape.clone(), |i| dy.at(i) * if_positive(x.at(i), 1.0, weight.data[channel(weight, i)]));
    let mut dw = Array::zeros(weight.shape.clone());
    for i in 0..x.len() {
        let slot = channel(weight, &x.index_of(i));
        dw.data[slot] += dy.data[i] * if_positive(x.data[i], 0.0, x.data[i]);
    }
    [dx, dw]
}

fn channel(weight: &Array, index: &[usize]) -> usize {
    if weight.len() == 1 { 0 } else { index[1] }
}

/// The first half along `dim` times the sigmoid of the second.
pub fn glu(x: &Array, dim: i64) -> Array {
    let dim = axis(dim, x.rank());
    let mut shape = x.shape.clone();
    shape[dim] /= 2;
    let half = shape[dim];
    Array::from_fn(shape, |i| {
        let mut gate = i.to_vec();
        gate[dim] += half;
        x.at(i) * sigmoid(x.at(&gate))
    })
}

/// The error function: its Taylor series near zero, a continued fraction of the complement beyond.
pub fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() > 6.0 {
        return x.signum();
    }
    if x.abs() < 2.5 {
        // erf(x) = 2/sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (1 * 3 * ... * (2n+1)); all terms have one sign
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term.abs() > sum.abs() * 1e-18 {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    }
    // erfc(z) = exp(-z^2)/sqrt(pi) / (z + (1/2)/(z + 1/(z + (3/2)/(z + ...))))
    let z = x.abs();
    let tail = (1..200).rev().fold(z, |tail, k| z + 0.5 * f64::from(k) / tail);
    x.signum() * (1.0 - 0.5 * FRAC_2_SQRT_PI * (-z * z).exp() / tail)
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// log(1 + exp(x)) without overflow.
pub(super) fn softplus(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}

fn gelu_inner(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)
}

/// Keeps NaN, as `f64::max` doesn't.
fn clamp(x: f64, min: f64, max: f64) -> f64 {
    if x < min {
        min
    } else if x > max {
        max
    } else {
        x
    }
}

/// NaN where `x` is one.
fn if_positive(x: f64, yes: f64, no: f64) -> f64 {
    if x.is_nan() {
        x
    } else if x > 0.0 {
        yes
    } else {
        no
    }
}

/// 1 strictly between the bounds, else 0.
fn inside(x: f64, min: f64, max: f64) -> f64 {
    f64::from(u8::from(min < x && x < max))
}

fn sign(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() { x } else { x.signum() }
}
