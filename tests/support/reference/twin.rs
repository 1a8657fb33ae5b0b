//! The twin of an op by its name in the golden manifest.

use std::collections::BTreeMap;

use serde_json::Value;

use super::attrs::Attrs;
use super::loss::{self, CrossEntropy, Elementwise};
use super::recurrent::Stack;
use super::shape::{self, Fill, movement_vjp};
use super::*;

/// Arrays by the names that the manifest gives them.
pub type Named = BTreeMap<String, Array>;

type Forward = Box<dyn Fn(&Named) -> Named>;
type Vjp = Box<dyn Fn(&Named, &Named) -> Named>;

/// An op with its attributes set.
pub struct Twin {
    /// The name of the differentiable output, or of the first of them.
    pub output: &'static str,
    forward: Forward,
    vjp: Option<Vjp>,
    /// Outputs through which no gradient flows.
    others: Option<Forward>,
}

impl Twin {
    fn new(forward: impl Fn(&Named) -> Array + 'static) -> Self {
        let forward = move |x: &Named| Named::from([("y".to_owned(), forward(x))]);
        Twin { output: "y", forward: Box::new(forward), vjp: None, others: None }
    }

    /// Of an op with several differentiable outputs; `y` is one of them.
    fn several(forward: impl Fn(&Named) -> Named + 'static, vjp: impl Fn(&Named, &Named) -> Named + 'static) -> Self {
        Twin { output: "y", forward: Box::new(forward), vjp: Some(Box::new(vjp)), others: None }
    }

    /// Renames the only output.
    fn output(self, output: &'static str) -> Self {
        let (forward, vjp, was) = (self.forward, self.vjp, self.output);
        let renamed = |mut named: Named, from: &str, to: &str| {
            named.remove(from).map(|array| Named::from([(to.to_owned(), array)])).unwrap_or_default()
        };
        let vjp = vjp.map(|vjp| -> Vjp { Box::new(move |x, dys| vjp(x, &renamed(dys.clone(), output, was))) });
        Twin { output, forward: Box::new(move |x| renamed(forward(x), was, output)), vjp, ..self }
    }

    /// The gradients of the inputs with the names `inputs`.
    fn vjp<const N: usize>(
        self,
        inputs: [&'static str; N],
        vjp: impl Fn(&Named, &Array) -> [Array; N] + 'static,
    ) -> Self {
        let output = self.output;
        let named =
            move |x: &Named, dys: &Named| inputs.map(str::to_owned).into_iter().zip(vjp(x, &dys[output])).collect();
        Twin { vjp: Some(Box::new(named)), ..self }
    }

    /// The (first) differentiable output.
    pub fn value(&self, inputs: &Named) -> Array {
        self.differentiable(inputs).remove(self.output).expect("the output")
    }

    /// All differentiable outputs.
    pub fn differentiable(&self, inputs: &Named) -> Named {
        (self.forward)(inputs)
    }

    /// All outputs.
    pub fn outputs(&self, inputs: &Named) -> Named {
        let mut outputs = self.differentiable(inputs);
        outputs.extend(self.others.iter().flat_map(|others| others(inputs)));
        outputs
    }

    /// The gradients by formula, for an op that has one; `dy` arrives at [`Twin::output`].
    pub fn grads(&self, inputs: &Named, dy: &Array) -> Option<Named> {
        self.grads_from(inputs, &Named::from([(self.output.to_owned(), dy.clone())]))
    }

    /// The same where something arrives at several outputs.
    pub fn grads_from(&self, inputs: &Named, dys: &Named) -> Option<Named> {
        self.vjp.as_ref().map(|vjp| vjp(inputs, dys))
    }
}

/// `None` for an op that has no twin.
pub fn twin(op: &str, attrs: &Value) -> Option<Twin> {
    let attrs = Attrs(attrs);
    unary_twin(op, attrs)
        .or_else(|| binary_twin(op))
        .or_else(|| product_twin(op, attrs))
        .or_else(|| pool_twin(op, attrs))
        .or_else(|| reduce_twin(op, attrs))
        .or_else(|| softmax_twin(op, attrs))
        .or_else(|| normalize_twin(op, attrs))
        .or_else(|| loss_twin(op, attrs))
        .or_else(|| shape_twin(op, attrs))
        .or_else(|| {
            let (forward, back) = (Stack::new(op, attrs)?, Stack::new(op, attrs)?);
            Some(Twin::several(move |x| forward.forward(x), move |x, dys| back.grads(x, dys)))
        })
}

fn unary_twin(op: &str, attrs: Attrs) -> Option<Twin> {
    let f = match op {
        "relu" => Unary::Relu,
        "relu6" => Unary::Relu6,
        "leaky_relu" => Unary::LeakyRelu { slope: attrs.f64("negative_slope") },
        "elu" => Unary::Elu { alpha: attrs.f64("alpha") },
        "selu" => Unary::Selu,
        "celu" => Unary::Celu { alpha: attrs.f64("alpha") },
        "gelu" => Unary::Gelu,
        "gelu_tanh" => Unary::GeluTanh,
        "silu" => Unary::Silu,
        "mish" => Unary::Mish,
        "softplus" => Unary::Softplus { beta: attrs.f64("beta"), threshold: attrs.f64("threshold") },
        "softsign" => Unary::Softsign,
        "hardsigmoid" => Unary::HardSigmoid,
        "hardswish" => Unary::HardSwish,
        "hardtanh" => Unary::HardTanh { min: attrs.f64("min_val"), max: attrs.f64("max_val") },
        "sigmoid" => Unary::Sigmoid,
        "tanh" => Unary::Tanh,
        "logsigmoid" => Unary::LogSigmoid,
        "tanhshrink" => Unary::TanhShrink,
        "exp" => Unary::Exp,
        "expm1" => Unary::Expm1,
        "abs" => Unary::Abs,
        "neg" => Unary::Neg,
        "erf" => Unary::Erf,
        "sin" => Unary::Sin,
        "cos" => Unary::Cos,
        "square" => Unary::Square,
        "clamp" => Unary::Clamp { min: attrs.f64("min"), max: attrs.f64("max") },
        "log" => Unary::Log,
        "log1p" => Unary::Log1p,
        "sqrt" => Unary::Sqrt,
        "rsqrt" => Unary::Rsqrt,
        "reciprocal" => Unary::Reciprocal,
        "pow_scalar" => Unary::PowScalar { exponent: attrs.f64("exponent") },
        "sign" => Unary::Sign,
        "floor" => Unary::Floor,
        "ceil" => Unary::Ceil,
        "round" => Unary::Round,
        "prelu" => {
            let twin = Twin::new(|x| prelu(&x["x"], &x["weight"]));
            return Some(twin.vjp(["x", "weight"], |x, dy| prelu_vjp(&x["x"], &x["weight"], dy)));
        }
        "glu" => {
            let dim = attrs.i64("dim");
            return Some(Twin::new(move |x| glu(&x["x"], dim)));
        }
        _ => return None,
    };
    Some(Twin::new(move |x| f.apply(&x["x"])).vjp(["x"], move |x, dy| [f.vjp(&x["x"], dy)]))
}

fn binary_twin(op: &str) -> Option<Twin> {
    let f = match op {
        "add" => Binary::Add,
        "sub" => Binary::Sub,
        "mul" => Binary::Mul,
        "div" => Binary::Div,
        "pow" => Binary::Pow,
        "maximum" => Binary::Maximum,
        "minimum" => Binary::Minimum,
        "where" => {
            let twin = Twin::new(|x| select(&x["cond"], &x["a"], &x["b"]));
            return Some(twin.vjp(["a", "b"], |x, dy| select_vjp(&x["cond"], &x["a"], &x["b"], dy)));
        }
        _ => return None,
    };
    Some(Twin::new(move |x| f.apply(&x["a"], &x["b"])).vjp(["a", "b"], move |x, dy| f.vjp(&x["a"], &x["b"], dy)))
}

fn product_twin(op: &str, attrs: Attrs) -> Option<Twin> {
    match op {
        "matmul" => {
            let (ta, tb) = (attrs.bool("transpose_a"), attrs.bool("transpose_b"));
            let twin = Twin::new(move |x| matmul(&x["a"], &x["b"], ta, tb));
            Some(twin.vjp(["a", "b"], move |x, dy| matmul_vjp(&x["a"], &x["b"], ta, tb, dy)))
        }
        "scaled_dot_product_attention" => {
            let attention = Attention::new(attrs);
            let twin = Twin::new(move |x| attention.forward(x));
            Some(Twin { vjp: Some(Box::new(move |x, dys| attention.vjp(x, &dys["y"]))), ..twin })
        }
        "linear" => {
            let twin = Twin::new(|x| linear(&x["x"], &x["weight"], x.get("bias")));
            Some(twin.vjp(["x", "weight", "bias"], |x, dy| linear_vjp(&x["x"], &x["weight"], dy)))
        }
        "conv2d" => {
            let [vertical, horizontal] = attrs.pair("padding");
            let conv = Conv2d {
                stride: attrs.pair("stride"),
                padding: [vertical, vertical, horizontal, horizontal],
                dilation: attrs.pair("dilation"),
                groups: attrs.usize("groups"),
                flip: false,
            };
            let twin = Twin::new(move |x| conv.forward(&x["x"], &x["weight"], x.get("bias")));
            Some(twin.vjp(["x", "weight", "bias"], move |x, dy| {
                let (x, weight) = (&x["x"], &x["weight"]);
                let dx = conv.grad_x(dy, weight, &x.shape);
                [dx, conv.grad_weight(dy, x, &weight.shape), conv.grad_bias(dy)]
            }))
        }
        _ => None,
    }
}

fn pool_twin(op: &str, attrs: Attrs) -> Option<Twin> {
    match op {
        "max_pool2d" => {
            let pool = MaxPool2d {
                kernel: attrs.pair("kernel_size"),
                stride: attrs.pair("stride"),
                padding: attrs.pair("padding"),
                dilation: attrs.pair("dilation"),
                ceil_mode: attrs.bool("ceil_mode"),
            };
            let twin = Twin::new(move |x| pool.forward(&x["x"]).0).vjp(["x"], move |x, dy| [pool.grad(&x["x"], dy)]);
            let indices = move |x: &Named| Named::from([("indices".to_owned(), pool.forward(&x["x"]).1)]);
            Some(Twin { others: Some(Box::new(indices)), ..twin })
        }
        "avg_pool2d" => {
            let pool = AvgPool2d {
                kernel: attrs.pair("kernel_size"),
                stride: attrs.pair("stride"),
                padding: attrs.pair("padding"),
                ceil_mode: attrs.bool("ceil_mode"),
                count_include_pad: attrs.bool("count_include_pad"),
                divisor: None,
            };
            let twin = Twin::new(move |x| pool.forward(&x["x"]));
            Some(twin.vjp(["x"], move |x, dy| [pool.grad(&x["x"].shape, dy)]))
        }
        _ => None,
    }
}

fn reduce_twin(op: &str, attrs: Attrs) -> Option<Twin> {
    let kind = match op {
        "sum" => Reduce::Sum,
        "mean" => Reduce::Mean,
        "amax" => Reduce::Max,
        "amin" => Reduce::Min,
        "prod" => Reduce::Prod,
        "var" => Reduce::Var,
        "var_biased" => Reduce::VarBiased,
        "std" => Reduce::Std,
        "norm2" => Reduce::Norm2,
        "argmax" | "argmin" | "cumsum" => {
            let (dim, keepdim) = (attrs.ints("dim")[0], attrs.bool("keepdim"));
            return Some(match op {
                "argmax" => Twin::new(move |x| argmax(&x["x"], dim, keepdim)),
                "argmin" => Twin::new(move |x| argmin(&x["x"], dim, keepdim)),
                _ => Twin::new(move |x| cumsum(&x["x"], dim))
                    .vjp(["x"], move |_, dy| [shape::flip(&cumsum(&shape::flip(dy, &[dim]), dim), &[dim])]),
            });
        }
        _ => return None,
    };
    let (dims, keepdim) = (attrs.ints("dim"), attrs.bool("keepdim"));
    let vjp_dims = dims.clone();
    let twin = Twin::new(move |x| reduce(kind, &x["x"], &dims, keepdim));
    Some(twin.vjp(["x"], move |x, dy| [reduce_vjp(kind, &x["x"], &vjp_dims, dy)]))
}

fn softmax_twin(op: &str, attrs: Attrs) -> Option<Twin> {
    match op {
        "softmax" => {
            let dim = attrs.i64("dim");
            Some(Twin::new(move |x| softmax(&x["x"], dim)).vjp(["x"], move |x, dy| [softmax_vjp(&x["x"], dim, dy)]))
        }
        "softmin" => {
            let dim = attrs.i64("dim");
            let negated = |x: &Named| x["x"].map(|v| -v);
            Some(
                Twin::new(move |x| softmax(&negated(x), dim))
                    .vjp(["x"], move |x, dy| [softmax_vjp(&negated(x), dim, dy).map(|v| -v)]),
            )
        }
        "log_softmax" => {
            let dim = attrs.i64("dim");
            Some(
                Twin::new(move |x| log_softmax(&x["x"], dim))
                    .vjp(["x"], move |x, dy| [log_softmax_vjp(&x["x"], dim, dy)]),
            )
        }
        "logsumexp" => {
            let dim = attrs.i64("dim");
            Some(Twin::new(move |x| logsumexp(&x["x"], dim, false)))
        }
        _ => None,
    }
}

fn normalize_twin(op: &str, attrs: Attrs) -> Option<Twin> {
    let normalize = Normalize::new(op, attrs)?;
    let grads = ["x", "weight", "bias"];
    if op != "batch_norm" {
        return Some(Twin::new(move |x| normalize.forward(x)).vjp(grads, move |x, dy| normalize.vjp(x, dy)));
    }
    let (eps, momentum, training) = (attrs.f64("eps"), attrs.f64("momentum"), attrs.bool("training"));
    let twin = match training {
        true => Twin::new(move |x| normalize.forward(x)).vjp(grads, move |x, dy| normalize.vjp(x, dy)),
        false => Twin::new(move |x| batch_norm_eval(x, eps)).vjp(grads, move |x, dy| batch_norm_eval_vjp(x, eps, dy)),
    };
    let running = move |x: &Named| {
        let kept = [x["running_mean"].clone(), x["running_var"].clone()];
        let after = if training { normalize.running(x, momentum) } else { kept };
        ["running_mean", "running_var"].map(str::to_owned).into_iter().zip(after).collect()
    };
    Some(Twin { others: Some(Box::new(running)), ..twin })
}

fn loss_twin(op: &str, attrs: Attrs) -> Option<Twin> {
    if !op.ends_with("_loss") && !op.starts_with("cross_entropy") && op != "bce_with_logits" {
        return None;
    }
    let reduction = attrs.reduction();
    let smoothing = attrs.f64_or("label_smoothing", 0.0);
    let twin = match op {
        "cross_entropy" => {
            let ignore_index = attrs.f64_or("ignore_index", -100.0) as i64;
            let loss = move |x: &Named| CrossEntropy {
                reduction,
                ignore_index,
                label_smoothing: smoothing,
                weight: x.get("weight").cloned(),
            };
            Twin::new(move |x| loss(x).forward(&x["x"], &x["target"]))
                .vjp(["x"], move |x, dy| [loss(x).grad(&x["x"], &x["target"], dy)])
        }
        "cross_entropy_prob_target" => {
            Twin::new(move |x| loss::cross_entropy_distribution(&x["x"], &x["target"], smoothing, reduction))
        }
        "bce_with_logits" => {
            Twin::new(move |x| loss::bce_with_logits(&x["x"], &x["target"], x.get("pos_weight"), reduction))
                .vjp(["x"], move |x, dy| {
                    [loss::bce_with_logits_grad(&x["x"], &x["target"], x.get("pos_weight"), reduction, dy)]
                })
        }
        _ => {
            let f = match op {
                "mse_loss" => Elementwise::Mse,
                "l1_loss" => Elementwise::L1,
                "smooth_l1_loss" => Elementwise::SmoothL1 { beta: attrs.f64("beta") },
                "huber_loss" => Elementwise::Huber { delta: attrs.f64("delta") },
                _ => return None,
            };
            Twin::new(move |x| f.forward(&x["x"], &x["target"], reduction))
                .vjp(["x"], move |x, dy| [f.grad(&x["x"], &x["target"], reduction, dy)])
        }
    };
    Some(twin.output("loss"))
}

fn shape_twin(op: &str, attrs: Attrs) -> Option<Twin> {
    /// An op of the input `x` that only moves values.
    fn movement(op: impl Fn(&Named, &Array) -> Array + Clone + 'static) -> Twin {
        let forward = op.clone();
        Twin::new(move |x| forward(x, &x["x"]))
            .vjp(["x"], move |x, dy| [movement_vjp(|labels| op(x, labels), &x["x"].shape, dy)])
    }
    let twin = match op {
        "permute" => {
            let dims = attrs.ints("dims");
            movement(move |_, x| shape::permute(x, &dims))
        }
        "slice" => {
            let [start, end, step] = ["start", "end", "step"].map(|name| attrs.usizes(name));
            movement(move |_, x| shape::slice(x, &start, &end, &step))
        }
        "pad" => {
            let amounts = attrs.usizes("pad_left_right_top_bottom");
            let fill = match attrs.str_or("mode", "constant") {
                "reflect" => Fill::Reflect,
                "replicate" => Fill::Replicate,
                _ => Fill::Constant(attrs.f64_or("value", 0.0)),
            };
            let padded = move |x: &Array, fill| shape::pad(x, &shape::pad_amounts(&amounts, x.rank()), fill);
            let border = padded.clone();
            let zeros = if let Fill::Constant(_) = fill { Fill::Constant(0.0) } else { fill };
            Twin::new(move |x| padded(&x["x"], fill))
                .vjp(["x"], move |x, dy| [movement_vjp(|labels| border(labels, zeros), &x["x"].shape, dy)])
        }
        "index_select" => {
            let dim = attrs.i64("dim");
            movement(move |all, x| shape::index_select(x, dim, &all["index"]))
        }
        "embedding" => {
            let padding = attrs.0["padding_idx"].as_u64().map(|row| row as f64);
            let rows = |x: &Array, index: &Array| {
                let taken = shape::index_select(x, 0, &index.clone().reshape([index.len()]));
                taken.reshape([&index.shape[..], &x.shape[1..]].concat())
            };
            Twin::new(move |x| rows(&x["weight"], &x["indices"])).vjp(["weight"], move |x, dy| {
                let mut grad = movement_vjp(|labels| rows(labels, &x["indices"]), &x["weight"].shape, dy);
                let width = grad.shape[1];
                padding.into_iter().for_each(|row| grad.data[row as usize * width..][..width].fill(0.0));
                [grad]
            })
        }
        "gather" => {
            let dim = attrs.i64("dim");
            movement(move |all, x| shape::gather(x, dim, &all["index"]))
        }
        "tril" => {
            let diagonal = attrs.i64("diagonal");
            movement(move |_, x| shape::tril(x, diagonal))
        }
        "concat" => {
            let dim = attrs.i64("dim");
            Twin::new(move |x| {
                let parts: Vec<&Array> = (0..).map_while(|i| x.get(&format!("x{i}"))).collect();
                shape::concat(&parts, dim)
            })
        }
        _ => return None,
    };
    Some(twin)
}
