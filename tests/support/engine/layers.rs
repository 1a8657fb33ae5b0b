//! Normalization and attention.

use shadegrad::Tensor;
use shadegrad::ops::Attention;

use super::{Named, one};
use crate::support::reference::Attrs;

/// The outputs of a normalization or of attention; `None` for any other op.
pub fn build(op: &str, attrs: Attrs, inputs: &Named) -> Option<Named> {
    let (weight, bias) = (inputs.get("weight"), inputs.get("bias"));
    let eps = || attrs.f64("eps") as f32;
    if op == "scaled_dot_product_attention" {
        return one("y", attention(attrs, inputs));
    }
    let x = inputs.get("x")?;
    match op {
        "layer_norm" => one("y", x.layer_norm(&attrs.usizes("normalized_shape"), weight, bias, eps())),
        "rms_norm" => one("y", x.rms_norm(&attrs.usizes("normalized_shape"), weight, eps())),
        "group_norm" => one("y", x.group_norm(attrs.usize("num_groups"), weight, bias, eps())),
        "instance_norm" => one("y", x.instance_norm(weight, bias, eps())),
        "batch_norm" => Some(batch_norm(attrs, inputs)),
        _ => None,
    }
}

fn batch_norm(attrs: Attrs, inputs: &Named) -> Named {
    let (x, kept) = (&inputs["x"], ["running_mean", "running_var"].map(|name| &inputs[name]));
    let (weight, bias, eps) = (inputs.get("weight"), inputs.get("bias"), attrs.f64("eps") as f32);
    let (y, after): (Tensor, [Tensor; 2]) = if attrs.bool("training") {
        let (mean, variance) = x.batch_statistics();
        let count = (x.elements() / x.shape()[1]) as f32;
        let momentum = attrs.f64("momentum") as f32;
        let unbiased = &variance * (count / (count - 1.0));
        let after = [(kept[0], &mean), (kept[1], &unbiased)].map(|(old, new)| old * (1.0 - momentum) + new * momentum);
        (x.batch_norm(&mean, &variance, weight, bias, eps), after)
    } else {
        (x.batch_norm(kept[0], kept[1], weight, bias, eps), kept.map(|kept| kept * 1.0))
    };
    let [mean, var] = after;
    [("y", y), ("running_mean", mean), ("running_var", var)].map(|(name, t)| (name.to_owned(), t)).into()
}

fn attention(attrs: Attrs, inputs: &Named) -> Tensor {
    let mut options = Attention::new().causal(attrs.bool("causal")).scale(attrs.f64("scale") as f32);
    if let Some(mask) = inputs.get("mask") {
        let allowed = attrs.0["mask"].as_str() == Some("bool");
        options = if allowed { options.allowed(mask) } else { options.mask(mask) };
    }
    inputs["q"].scaled_dot_product_attention(&inputs["k"], &inputs["v"], &options)
}
