//! Element-wise ops of one, two or three tensors.

use shadegrad::Tensor;

use super::{Named, one};
use crate::support::reference::Attrs;

/// The outputs of an element-wise op; `None` for any other.
pub fn build(op: &str, attrs: Attrs, x: &Named) -> Option<Named> {
    one("y", unary(op, attrs, x).or_else(|| several(op, x))?)
}

fn unary(op: &str, attrs: Attrs, inputs: &Named) -> Option<Tensor> {
    let (x, float) = (inputs.get("x")?, |name| attrs.f64(name) as f32);
    Some(match op {
        "relu" => x.relu(),
        "relu6" => x.relu6(),
        "leaky_relu" => x.leaky_relu(float("negative_slope")),
        "elu" => x.elu(float("alpha")),
        "selu" => x.selu(),
        "celu" => x.celu(float("alpha")),
        "gelu" => x.gelu(),
        "gelu_tanh" => x.gelu_tanh(),
        "silu" => x.silu(),
        "mish" => x.mish(),
        "softplus" => x.softplus(float("beta"), float("threshold")),
        "softsign" => x.softsign(),
        "hardsigmoid" => x.hardsigmoid(),
        "hardswish" => x.hardswish(),
        "hardtanh" => x.hardtanh(float("min_val"), float("max_val")),
        "clamp" => x.clamp(float("min"), float("max")),
        "sigmoid" => x.sigmoid(),
        "tanh" => x.tanh(),
        "logsigmoid" => x.logsigmoid(),
        "tanhshrink" => x.tanhshrink(),
        "exp" => x.exp(),
        "expm1" => x.expm1(),
        "log" => x.log(),
        "log1p" => x.log1p(),
        "sqrt" => x.sqrt(),
        "rsqrt" => x.rsqrt(),
        "reciprocal" => x.reciprocal(),
        "square" => x.square(),
        "pow_scalar" => x.pow_scalar(float("exponent")),
        "abs" => x.abs(),
        "neg" => x.neg(),
        "sign" => x.sign(),
        "erf" => x.erf(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        "round" => x.round(),
        "glu" => x.glu(attrs.i64("dim") as isize),
        _ => return None,
    })
}

fn several(op: &str, inputs: &Named) -> Option<Tensor> {
    if op == "prelu" {
        return Some(inputs["x"].prelu(&inputs["weight"]));
    }
    let (a, b) = (inputs.get("a")?, inputs.get("b")?);
    Some(match op {
        "add" => a + b,
        "sub" => a - b,
        "mul" => a * b,
        "div" => a / b,
        "pow" => a.pow(b),
        "maximum" => a.maximum(b),
        "minimum" => a.minimum(b),
        "where" => inputs["cond"].where_(a, b),
        _ => return None,
    })
}
