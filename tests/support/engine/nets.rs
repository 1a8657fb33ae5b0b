//! Products, convolutions, pooling, reductions, softmax, losses, movement.

use shadegrad::Tensor;
use shadegrad::ops::{Conv2dOptions, CrossEntropy, PadMode, Reduction, Window};

use super::{Named, one};
use crate::support::reference::{Attrs, loss};

/// The outputs of one of these ops; `None` for any other.
pub fn build(op: &str, attrs: Attrs, x: &Named) -> Option<Named> {
    match op {
        "max_pool2d" => {
            let window = window(attrs).dilation(attrs.pair("dilation"));
            let (y, indices) = x["x"].max_pool2d_with_indices(&window);
            Some(Named::from([("y".to_owned(), y), ("indices".to_owned(), indices)]))
        }
        "cross_entropy" | "mse_loss" => one("loss", loss(op, attrs, x)),
        "embedding" => {
            let padding = attrs.0["padding_idx"].as_u64().map(|row| row as usize);
            one("y", x["indices"].embedding(&x["weight"], padding))
        }
        _ => {
            let y = product(op, attrs, x).or_else(|| reduction(op, attrs, x)).or_else(|| movement(op, attrs, x));
            one("y", y?)
        }
    }
}

fn window(attrs: Attrs) -> Window {
    Window::new(attrs.pair("kernel_size"))
        .stride(attrs.pair("stride"))
        .padding(attrs.pair("padding"))
        .ceil_mode(attrs.bool("ceil_mode"))
}

fn dim(attrs: Attrs) -> isize {
    attrs.i64("dim") as isize
}

fn dims(attrs: Attrs, name: &str) -> Vec<isize> {
    attrs.ints(name).into_iter().map(|v| v as isize).collect()
}

fn product(op: &str, attrs: Attrs, inputs: &Named) -> Option<Tensor> {
    let get = |name: &str| &inputs[name];
    Some(match op {
        "matmul" => match (attrs.bool("transpose_a"), attrs.bool("transpose_b")) {
            (false, false) => get("a").matmul(get("b")),
            (a, b) => get("a").matmul_t(get("b"), a, b),
        },
        "linear" => get("x").linear(get("weight"), inputs.get("bias")),
        "conv2d" => {
            let options = Conv2dOptions::new()
                .stride(attrs.pair("stride"))
                .padding(attrs.pair("padding"))
                .dilation(attrs.pair("dilation"))
                .groups(attrs.usize("groups"));
            let y = get("x").conv2d(get("weight"), &options);
            match inputs.get("bias") {
                Some(bias) => y + bias.reshape([bias.elements(), 1, 1]),
                None => y,
            }
        }
        "avg_pool2d" => get("x").avg_pool2d(&window(attrs).count_include_pad(attrs.bool("count_include_pad"))),
        _ => return None,
    })
}

fn reduction(op: &str, attrs: Attrs, inputs: &Named) -> Option<Tensor> {
    let x = inputs.get("x")?;
    let axes = || dims(attrs, "dim");
    let keep = || attrs.bool("keepdim");
    Some(match op {
        "sum" => x.sum(&axes(), keep()),
        "mean" => x.mean(&axes(), keep()),
        "amax" => x.amax(&axes(), keep()),
        "amin" => x.amin(&axes(), keep()),
        "prod" => x.prod(&axes(), keep()),
        "var" => x.var(&axes(), 1.0, keep()),
        "var_biased" => x.var(&axes(), 0.0, keep()),
        "std" => x.std(&axes(), 1.0, keep()),
        "norm2" => x.norm(&axes(), keep()),
        "argmax" => x.argmax(&axes(), keep()),
        "argmin" => x.argmin(&axes(), keep()),
        "cumsum" => x.cumsum(axes()[0]),
        "softmax" => x.softmax(dim(attrs)),
        "log_softmax" => x.log_softmax(dim(attrs)),
        "softmin" => x.softmin(dim(attrs)),
        "logsumexp" => x.logsumexp(dim(attrs), attrs.bool_or("keepdim", false)),
        _ => return None,
    })
}

fn loss(op: &str, attrs: Attrs, inputs: &Named) -> Tensor {
    let (x, target) = (&inputs["x"], &inputs["target"]);
    let reduction = match attrs.reduction() {
        loss::Reduction::Mean => Reduction::Mean,
        loss::Reduction::Sum => Reduction::Sum,
        loss::Reduction::None => Reduction::None,
    };
    if op == "mse_loss" {
        return x.mse_loss(target, reduction);
    }
    let mut options =
        CrossEntropy::new().reduction(reduction).label_smoothing(attrs.f64_or("label_smoothing", 0.0) as f32);
    if attrs.0["ignore_index"].is_i64() {
        options = options.ignore_index(attrs.i64("ignore_index") as u32);
    }
    if let Some(weight) = inputs.get("weight") {
        options = options.weight(weight);
    }
    x.cross_entropy_with(target, &options)
}

fn movement(op: &str, attrs: Attrs, inputs: &Named) -> Option<Tensor> {
    if op == "concat" {
        let parts: Vec<&Tensor> = (0..inputs.len()).map(|i| &inputs[&format!("x{i}")]).collect();
        return Some(parts[0].concat(&parts[1..], dim(attrs)));
    }
    let x = inputs.get("x")?;
    Some(match op {
        "permute" => x.permute(&dims(attrs, "dims")),
        "slice" => {
            let (end, step) = (dims(attrs, "end"), dims(attrs, "step"));
            let starts = attrs.usizes("start").into_iter().enumerate();
            x.slice(&starts.map(|(axis, start)| (start, end[axis], step[axis])).collect::<Vec<_>>())
        }
        "pad" => {
            // Pairs from the last axis to the first.
            let pairs = attrs.usizes("pad_left_right_top_bottom");
            let mut widths = vec![(0, 0); x.rank()];
            for (width, pair) in widths.iter_mut().rev().zip(pairs.chunks_exact(2)) {
                *width = (pair[0], pair[1]);
            }
            let mode = match attrs.str_or("mode", "constant") {
                "reflect" => PadMode::Reflect,
                "replicate" => PadMode::Replicate,
                _ => PadMode::Constant(attrs.f64("value") as f32),
            };
            x.pad(&widths, mode)
        }
        "index_select" => x.index_select(dim(attrs), &inputs["index"]),
        "gather" => x.gather(dim(attrs), &inputs["index"]),
        "tril" => x.tril(attrs.i64("diagonal") as isize),
        _ => return None,
    })
}
