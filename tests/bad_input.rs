//! Mistakes: each comes back as an error that names the op, the shapes, and the line of this file. None panics.

use shadegrad::gpu::Options;
use shadegrad::graph::{Desc, Role};
use shadegrad::nn::{self, Module};
use shadegrad::ops::{Attention, Conv2dOptions, CrossEntropy, ImageBatch, PadMode, Reduction, Window};
use shadegrad::optim::{Adagrad, Adam, AdamW, Optimizer, RmsProp, Sgd};
use shadegrad::{DType, Error, Gpu, Graph, Param, Tensor};

fn gpu() -> Gpu {
    Gpu::open(&Options { webgpu_limits: true, ..Options::default() }).expect("an adapter")
}

/// The graph's error is about `op`, holds every part, and names this file.
#[track_caller]
fn refused(graph: &Graph, op: &str, parts: &[&str]) {
    match graph.error() {
        Err(Error::Graph { op: named, message, site }) => {
            assert_eq!(named, op, "{message}");
            let missing: Vec<_> = parts.iter().filter(|part| !message.contains(**part)).collect();
            assert!(missing.is_empty(), "{missing:?} not in: {message}");
            assert!(site.starts_with("tests/bad_input.rs:"), "{op}: {site}");
        }
        Err(other) => panic!("{op}: {other}"),
        Ok(()) => panic!("{op}: nothing was refused"),
    }
}

/// What `build` makes of an f32 [2, 3] and an f32 [4, 5] is refused.
#[track_caller]
fn refuses(op: &str, parts: &[&str], build: impl Fn(&Graph, &Tensor, &Tensor) -> Tensor) {
    let g = Graph::new();
    let (a, b) = (g.input([2, 3]), g.input([4, 5]));
    let y = build(&g, &a, &b);
    // What follows a mistake doesn't hide it.
    let _ = g.grad(&(y.relu() * 2.0 + 1.0).sum(&[], false), [&a]);
    refused(&g, op, parts);
}

/// The message of an error of another kind.
#[track_caller]
fn says<T>(result: shadegrad::Result<T>, parts: &[&str]) {
    let message = result.err().map(|e| e.to_string()).expect("an error");
    let missing: Vec<_> = parts.iter().filter(|part| !message.contains(**part)).collect();
    assert!(missing.is_empty(), "{missing:?} not in: {message}");
}

#[test]
fn the_line_is_named() {
    let g = Graph::new();
    let (a, b) = (g.input([2, 3]), g.input([4, 5]));
    let line = line!() + 1;
    let _ = &a + &b;
    let message = g.error().expect_err("a mistake").to_string();
    assert!(message.ends_with(&format!("(at tests/bad_input.rs:{line})")), "{message}");
}

#[test]
fn gradients_of_integers() {
    refuses("grad", &["u32[2, 3]"], |g, a, _| g.grad(&a.cast(DType::U32), [a]).remove(0));
}

#[test]
fn shapes_that_do_not_broadcast() {
    let both = ["[2, 3]", "[4, 5]"];
    refuses("add", &both, |_, a, b| a + b);
    refuses("sub", &both, |_, a, b| a - b);
    refuses("mul", &both, |_, a, b| a * b);
    refuses("div", &both, |_, a, b| a / b);
    refuses("pow", &both, |_, a, b| a.pow(b));
    refuses("maximum", &both, |_, a, b| a.maximum(b));
    refuses("minimum", &both, |_, a, b| a.minimum(b));
    refuses("gt", &both, |_, a, b| a.gt(b));
    refuses("lt", &both, |_, a, b| a.lt(b));
    refuses("eq", &both, |_, a, b| a.eq(b));
    refuses("where", &both, |_, a, b| a.where_(b, b));
    refuses("mul", &["[2, 3]", "[7]"], |g, a, _| a.prelu(&g.input([7])));
    refuses("expand", &both, |_, a, _| a.expand([4, 5]));
    refuses("sub", &both, |_, a, b| a.mse_loss(b, Reduction::Mean));
}

#[test]
fn element_types_that_do_not_fit() {
    refuses("add", &["f32[2, 3]", "u32[2, 3]", "cast"], |g, a, _| a + g.input_u32([2, 3]));
    refuses("where", &["u32[2, 3]"], |g, a, _| g.input_u32([2, 3]).where_(a, a));
    refuses("relu", &["u32[2]", "cast"], |g, _, _| g.input_u32([2]).relu());
    refuses("sum", &["u32[2]"], |g, _, _| g.input_u32([2]).sum(&[], false));
    refuses("cumsum", &["u32[2]"], |g, _, _| g.input_u32([2]).cumsum(0));
    refuses("softmax", &["u32[2]"], |g, _, _| g.input_u32([2]).softmax(0));
    refuses("matmul", &["u32[3, 2]"], |g, a, _| a.matmul(&g.input_u32([3, 2])));
    refuses("dropout", &["u32[2]"], |g, _, _| g.input_u32([2]).dropout(0.5));
    refuses("index_select", &["f32[4, 5]", "u32"], |_, a, b| a.index_select(0, b));
    refuses("gather", &["f32[4, 5]", "u32"], |_, a, b| a.gather(0, b));
    refuses("concat", &["u32[2, 3]", "f32[2, 3]"], |g, a, _| a.concat(&[&g.input_u32([2, 3])], 0));
    let rule = ImageBatch::new([1, 2, 2], 0.0, 1.0);
    refuses("image_batch", &["f32[2, 3]", "u32"], |_, a, b| a.image_batch(b, &rule));
}

#[test]
fn axes_out_of_range() {
    let named = ["dim 2", "[2, 3]"];
    for (op, build) in [
        ("sum", (|a| a.sum(&[2], false)) as fn(&Tensor) -> Tensor),
        ("mean", |a| a.mean(&[2], false)),
        ("var", |a| a.var(&[2], 1.0, false)),
        ("norm", |a| a.norm(&[2], false)),
        ("argmax", |a| a.argmax(&[2], true)),
        ("cumsum", |a| a.cumsum(2)),
        ("softmax", |a| a.softmax(2)),
        ("log_softmax", |a| a.log_softmax(2)),
        ("logsumexp", |a| a.logsumexp(2, false)),
        ("squeeze", |a| a.squeeze(2)),
        ("permute", |a| a.permute(&[0, 2])),
        ("transpose", |a| a.transpose(0, 2)),
        ("narrow", |a| a.narrow(2, 0, 1)),
        ("flip", |a| a.flip(2)),
        ("glu", |a| a.glu(2)),
        ("concat", |a| a.concat(&[a], 2)),
        ("coordinate", |a| a.coordinate(2)),
        ("index_select", |a| a.index_select(2, &a.graph().input_u32([1]))),
        ("gather", |a| a.gather(2, &a.graph().input_u32([1, 1]))),
    ] {
        refuses(op, &named, |_, a, _| build(a));
    }
    refuses("unsqueeze", &["dim 4", "[2, 3]"], |_, a, _| a.unsqueeze(4));
    refuses("sum", &["twice", "[0, -2]"], |_, a, _| a.sum(&[0, -2], false));
}

#[test]
fn movements_that_do_not_fit() {
    refuses("reshape", &["f32[2, 3] has 6", "[4] has 4"], |_, a, _| a.reshape([4]));
    refuses("squeeze", &["dim 1", "[2, 3]", "3, not 1"], |_, a, _| a.squeeze(1));
    refuses("permute", &["[0, 0]", "[2, 3]"], |_, a, _| a.permute(&[0, 0]));
    refuses("permute", &["[0]", "[2, 3]"], |_, a, _| a.permute(&[0]));
    refuses("slice", &["(1, 3, 0)", "axis 1", "[2, 3]"], |_, a, _| a.slice(&[(0, 1, 1), (1, 3, 0)]));
    refuses("slice", &["(4, 5, 1)", "axis 1"], |_, a, _| a.slice(&[(0, 1, 1), (4, 5, 1)]));
    refuses("slice", &["(0, -2, -1)", "axis 0"], |_, a, _| a.slice(&[(0, -2, -1)]));
    refuses("slice", &["3 ranges", "[2, 3]"], |_, a, _| a.slice(&[(0, 1, 1); 3]));
    refuses("narrow", &["2 elements from 2", "dim 1", "[2, 3]"], |_, a, _| a.narrow(1, 2, 2));
    refuses("narrow", &["dim 1", "[2, 3]"], |_, a, _| a.narrow(1, 2, usize::MAX));
    refuses("glu", &["3 is odd"], |_, a, _| a.glu(1));
    refuses("tril", &["f32[4]"], |g, _, _| g.input([4]).tril(0));
    refuses("pad", &["1 pairs", "[2, 3]"], |_, a, _| a.pad(&[(1, 1)], PadMode::Constant(0.0)));
    refuses("pad", &["0 and 3", "axis 1"], |_, a, _| a.pad(&[(0, 0), (0, 3)], PadMode::Reflect));
    refuses("concat", &["[4, 5]", "[2, 3]", "axis 0"], |_, a, b| a.concat(&[b], 0));
    refuses("gather", &["[2, 3]", "[2]", "rank"], |g, a, _| a.gather(0, &g.input_u32([2])));
    refuses("gather", &["[2, 4]", "[2, 3]"], |g, a, _| a.gather(0, &g.input_u32([2, 4])));
    refuses("constant", &["2 values", "[3]"], |g, _, _| g.constant([3], &[1.0, 2.0]));
}

#[test]
fn products_and_windows_that_do_not_fit() {
    let conv = |x: [usize; 4], w: [usize; 4], options: Conv2dOptions| {
        move |g: &Graph, _: &Tensor, _: &Tensor| g.input(x).conv2d(&g.input(w), &options)
    };
    let plain = Conv2dOptions::new;
    refuses("matmul", &["[2, 3]", "[4, 5]", "3 and 4"], |_, a, b| a.matmul(b));
    refuses("matmul", &["f32[]", "scalar"], |g, a, _| a.matmul(&g.input([])));
    refuses("matmul", &["[2, 4, 3]", "[3, 3, 5]", "batches"], |g, _, _| g.input([2, 4, 3]).matmul(&g.input([3, 3, 5])));
    refuses("matmul", &["[2, 3]", "[4, 5]", "3 and 5"], |_, a, b| a.linear(b, None));
    refuses("matmul", &["bias", "f32[3]", "f32[4]"], |g, a, _| a.linear(&g.input([4, 3]), Some(&g.input([3]))));
    refuses("conv2d", &["f32[2, 3]", "[N, C, H, W]"], |_, a, b| a.conv2d(b, &Conv2dOptions::new()));
    refuses("conv2d", &["[1, 3, 5, 5]", "[2, 4, 3, 3]", "1 groups"], conv([1, 3, 5, 5], [2, 4, 3, 3], plain()));
    refuses("conv2d", &["bias", "f32[3]", "f32[2]"], |g, _, _| {
        g.input([1, 1, 5, 5]).conv2d_bias(&g.input([2, 1, 3, 3]), &g.input([3]), &Conv2dOptions::new())
    });
    refuses("conv2d", &["3 groups"], conv([1, 4, 5, 5], [6, 1, 3, 3], plain().groups(3)));
    refuses("conv2d", &["0 groups"], conv([1, 4, 5, 5], [6, 1, 3, 3], plain().groups(0)));
    refuses("conv2d", &["reaches 7", "only 5"], conv([1, 1, 5, 5], [1, 1, 7, 7], plain()));
    refuses("conv2d", &["at least 1"], conv([1, 1, 5, 5], [1, 1, 3, 3], plain().stride([0, 1])));
    refuses("conv2d", &["at least 1"], conv([1, 1, 5, 5], [1, 1, 3, 3], plain().dilation([1, 0])));
    refuses("conv2d", &["at least 1"], conv([1, 1, 5, 5], [1, 1, 0, 3], plain()));
    refuses("conv2d", &["too large"], conv([1, 1, 5, 5], [1, 1, 3, 3], plain().padding([usize::MAX; 2])));
    refuses("conv2d", &["too large"], conv([1, 1, 5, 5], [1, 1, 3, 3], plain().dilation([usize::MAX; 2])));
    let images = |g: &Graph| g.input([1, 1, 4, 4]);
    refuses("max_pool2d", &["f32[2, 3]"], |_, a, _| a.max_pool2d(&Window::new([2, 2])));
    refuses("max_pool2d", &["window 5", "extent 4", "[1, 1, 4, 4]"], |g, _, _| {
        images(g).max_pool2d(&Window::new([5, 1]))
    });
    refuses("max_pool2d", &["at least 1"], |g, _, _| images(g).max_pool2d(&Window::new([0, 1])));
    refuses("max_pool2d", &["too large"], |g, _, _| {
        images(g).max_pool2d(&Window::new([2, 2]).dilation([usize::MAX; 2]))
    });
    refuses("avg_pool2d", &["padding 2", "window 2"], |g, _, _| {
        images(g).avg_pool2d(&Window::new([2, 2]).padding([2, 2]))
    });
    refuses("avg_pool2d", &["dilation"], |g, _, _| images(g).avg_pool2d(&Window::new([2, 2]).dilation([2, 2])));
}

#[test]
fn reductions_of_nothing() {
    for op in ["amax", "amin", "argmax", "argmin", "softmax", "logsumexp"] {
        refuses(op, &["[2, 0]"], |g, _, _| {
            let x = g.input([2, 0]);
            match op {
                "amax" => x.amax(&[1], false),
                "amin" => x.amin(&[1], false),
                "argmax" => x.argmax(&[1], false).cast(DType::F32),
                "argmin" => x.argmin(&[], false).cast(DType::F32),
                "logsumexp" => x.logsumexp(1, false),
                _ => x.softmax(1),
            }
        });
    }
}

#[test]
fn norms_that_do_not_fit() {
    refuses("layer_norm", &["[2, 3]", "[2]"], |_, a, _| a.layer_norm(&[2], None, None, 1e-5));
    refuses("layer_norm", &["the weight", "[4, 5]", "3 f32"], |_, a, b| a.layer_norm(&[3], Some(b), None, 1e-5));
    refuses("layer_norm", &["eps is -1"], |_, a, _| a.layer_norm(&[3], None, None, -1.0));
    refuses("layer_norm", &["eps is NaN"], |_, a, _| a.layer_norm(&[3], None, None, f32::NAN));
    refuses("layer_norm", &["[2, 3]", "[]"], |_, a, _| a.layer_norm(&[], None, None, 1e-5));
    refuses("layer_norm", &["[2, 3]"], |_, a, _| a.layer_norm(&[usize::MAX, 2], None, None, 1e-5));
    refuses("batch_norm", &["[N, C, ...]", "f32[5]"], |g, _, _| {
        let none = g.input([0]);
        g.input([5]).batch_norm(&none, &none, None, None, 1e-5)
    });
    refuses("rms_norm", &["u32[3]", "cast"], |g, _, _| g.input_u32([3]).rms_norm(&[3], None, 1e-5));
    refuses("group_norm", &["2 groups", "[2, 3]"], |_, a, _| a.group_norm(2, None, None, 1e-5));
    refuses("group_norm", &["0 groups"], |_, a, _| a.group_norm(0, None, None, 1e-5));
    refuses("instance_norm", &["f32[3]"], |g, _, _| g.input([3]).instance_norm(None, None, 1e-5));
    refuses("group_norm", &["[1, 2, 0]", "without elements"], |g, _, _| {
        g.input([1, 2, 0]).group_norm(1, None, None, 1e-5)
    });
    refuses("batch_norm", &["the mean", "f32[4, 5]", "3 f32"], |_, a, b| a.batch_norm(b, b, None, None, 1e-5));
    refuses("batch_statistics", &["f32[3]"], |g, _, _| g.input([3]).batch_statistics().1);
    refuses("batch_norm", &["[N, 4, ...]", "[2, 3]"], |_, a, _| nn::BatchNorm::new(4).forward(a));
    refuses("batch_norm", &["momentum is 1.5"], |_, a, _| nn::BatchNorm::new(3).momentum(1.5).forward(a));
    refuses("batch_norm", &["several elements", "[1, 3]"], |g, _, _| nn::BatchNorm::new(3).forward(&g.input([1, 3])));
    refuses("layer_norm", &["[2, 3]", "[5]"], |_, a, _| nn::LayerNorm::new(&[5]).forward(a));
}

#[test]
fn attention_that_does_not_fit() {
    let op = "scaled_dot_product_attention";
    let plain = Attention::new();
    refuses(op, &["[2, 3]", "[4, 5]"], |_, a, b| a.scaled_dot_product_attention(b, b, &plain));
    refuses(op, &["f32[3]"], |g, _, b| g.input([3]).scaled_dot_product_attention(b, b, &plain));
    refuses(op, &["u32[4, 5]"], |g, _, b| b.scaled_dot_product_attention(&g.input_u32([4, 5]), b, &plain));
    refuses(op, &["f32[1, 4, 5]"], |_, _, b| b.scaled_dot_product_attention(b, &b.unsqueeze(0), &plain));
    refuses(op, &["32 bits", "[1, 16, 20000, 20000]"], |g, _, _| {
        let x = g.input([1, 16, 20000, 64]);
        x.scaled_dot_product_attention(&x, &x, &Attention::new().mask(&g.input([1, 1, 1, 20000])))
    });
    refuses(op, &["the mask is f32[2, 3]", "[4, 4]"], |_, a, b| {
        b.scaled_dot_product_attention(b, b, &Attention::new().mask(a))
    });
    refuses(op, &["the mask", "f32[7, 4, 4]"], |g, _, b| {
        b.scaled_dot_product_attention(b, b, &Attention::new().mask(&g.input([7, 4, 4])))
    });
    refuses(op, &["the scale is"], |_, _, b| b.scaled_dot_product_attention(b, b, &Attention::new().scale(f32::NAN)));
}

#[test]
fn losses_that_do_not_fit() {
    refuses("cross_entropy", &["f32[2, 3]", "[2]", "f32[4, 5]"], |_, a, b| a.cross_entropy(b));
    refuses("cross_entropy", &["f32[2, 3]", "u32[3]"], |g, a, _| a.cross_entropy(&g.input_u32([3])));
    refuses("cross_entropy", &["f32[3]"], |g, _, _| g.input([3]).cross_entropy(&g.input_u32([])));
    refuses("cross_entropy", &["f32[4, 5]", "3 classes"], |g, a, b| {
        a.cross_entropy_with(&g.input_u32([2]), &CrossEntropy::new().weight(b))
    });
    for p in [1.0, -0.1, f32::NAN] {
        refuses("dropout", &["p is", "below 1"], move |_, a, _| a.dropout(p));
    }
    let still = ImageBatch::new([1, 2, 2], 0.0, 0.0);
    refuses("image_batch", &["deviation 0"], move |g, _, _| g.input_u32([8]).image_batch(&g.input_u32([2]), &still));
}

#[test]
fn gradients_and_training_that_do_not_fit() {
    let training = |op: &str, parts: &[&str], build: fn(&Graph, &Tensor, &Tensor, &Param)| {
        let g = Graph::new();
        let (x, y) = (g.input([2, 3]), g.input([2]));
        build(&g, &x, &y, &Param::new("w", Role::Weight, [3], &[1.0; 3]));
        refused(&g, op, parts);
    };
    training("grad", &["f32[2]", "f32[2, 3]"], |g, x, y, _| drop(g.grad_from(&[(x.relu(), y.clone())], [x])));
    training("minimize", &["no weights"], |g, x, _, _| drop(g.minimize(&x.sum(&[], false), Adam::new(1e-3))));
    training("minimize", &["f32[2, 3]", "one number"], |g, x, _, w| {
        drop(g.minimize(&(x * g.param(w)), Adam::new(1e-3)))
    });
    training("optimizer", &["w", "f32[2]", "f32[3]"], |g, _, y, w| {
        drop(g.apply(g.function([]), &[(w.clone(), y.clone())], Sgd::new(0.1)))
    });
}

#[test]
fn hyper_parameters_out_of_range() {
    let refused_as = |parts: &[&str], optimizer: Optimizer| {
        let g = Graph::new();
        let w = g.param(&Param::new("w", Role::Weight, [3], &[1.0; 3]));
        let _ = g.minimize(&w.sum(&[], false), optimizer);
        refused(&g, "optimizer", parts);
    };
    refused_as(&["the lr is NaN", "finite"], Adam::new(f64::NAN).into());
    refused_as(&["the lr is -0.1"], Sgd::new(-0.1).into());
    refused_as(&["the lr is inf"], Adagrad::new(f64::INFINITY).into());
    refused_as(&["the beta1 is 1", "below 1"], Adam::new(0.1).betas(1.0, 0.999).into());
    refused_as(&["the beta2 is -0.5"], AdamW::new(0.1).betas(0.9, -0.5).into());
    refused_as(&["the alpha is 2"], RmsProp::new(0.1).alpha(2.0).into());
    refused_as(&["the momentum is -1"], RmsProp::new(0.1).momentum(-1.0).into());
    refused_as(&["the eps is -1"], Adam::new(0.1).eps(-1.0).into());
    refused_as(&["the weight_decay is NaN"], Adam::new(0.1).weight_decay(f64::NAN).into());
    refused_as(&["limit", "-1"], Sgd::new(0.1).clip_norm(-1.0).into());
    refused_as(&["limit", "NaN"], Sgd::new(0.1).clip_value(f64::NAN).into());
    refused_as(&["nesterov", "momentum"], Sgd::new(0.1).nesterov(true).into());
    refused_as(&["nesterov", "dampening"], Sgd::new(0.1).momentum(0.9).dampening(0.1).nesterov(true).into());

    let g = Graph::new();
    let w = Param::new("w", Role::State, [3], &[0.0; 3]);
    let _ = g.function([]).setting("rate", &w, 3);
    refused(&g, "setting", &["rate", "element 3", "f32[3]"]);
}

/// A mistake in a layer is one of the line that the network is used in, also where networks hold networks.
#[test]
fn the_layer_is_named() {
    let inner = nn::sequential((("wide", nn::Linear::new(3, 4)), nn::Relu, ("narrow", nn::Linear::new(5, 2))));
    let net = nn::sequential((nn::Tanh, ("block", inner)));
    let g = Graph::new();
    let line = line!() + 1;
    let _ = net.forward(&g.input([2, 3]));
    let message = g.error().expect_err("a mistake").to_string();
    assert!(message.contains("layer block: layer narrow: "), "{message}");
    assert!(message.ends_with(&format!("(at tests/bad_input.rs:{line})")), "{message}");
}

/// What the host reads and writes has the type that it says.
#[test]
fn elements_of_another_type() {
    let gpu = gpu();
    let g = Graph::new();
    let (x, n) = (g.input([2]), g.input_of(Desc::new([2], DType::I32)));
    let outputs = [x.argmax(&[0], false), n.cast(DType::F32), x.cast(DType::I32)];
    let program = gpu.compile(&g.function(&outputs)).expect("a program");
    says(program.write(&n, &[1.0; 2]), &["2 values of f32", "i32[2]"]);
    program.write(&x, &[-3.0, 7.0]).and_then(|p| p.write_i32(&n, &[-5, 6])).and_then(|p| p.run()).expect("a run");
    says(program.read(&outputs[0]), &["u32[]", "read_u32"]);
    says(program.read(&outputs[2]), &["i32[2]", "read_i32"]);
    says(program.read_u32(&outputs[1]), &["f32[2]", "not u32"]);
    assert_eq!(program.read_u32(&outputs[0]).expect("a place"), [1]);
    assert_eq!(program.read(&outputs[1]).expect("values"), [-5.0, 6.0]);
    assert_eq!(program.read_i32(&outputs[2]).expect("values"), [-3, 7]);
    let count = Param::new_u32("count", Role::State, [2], &[1, 2]);
    says(gpu.read_param(&count), &["count", "u32[2]", "read_params"]);
    says(gpu.write_param(&count, &[1.0; 2]), &["count", "u32[2]", "write_param_words"]);
}

/// A mistake stays: a graph that was refused once is refused again.
#[test]
fn mistakes_stay() {
    let g = Graph::new();
    let y = g.input([2, 3]) + g.input([4, 5]);
    let gpu = gpu();
    for _ in 0..2 {
        says(gpu.compile(&g.function([&y])), &["add", "[2, 3]", "[4, 5]"]);
        refused(&g, "add", &["[2, 3]", "[4, 5]"]);
    }
}

#[test]
fn tensors_of_other_graphs() {
    let mixed = |op: &str, build: fn(&Graph, &Tensor, &Tensor)| {
        let (g, other) = (Graph::new(), Graph::new());
        other.input([1]);
        build(&g, &g.input([2]), &other.input([2]));
        refused(&g, op, &["different graphs"]);
    };
    mixed("add", |_, a, b| drop(a + b));
    mixed("grad", |g, a, b| drop(g.grad(&b.sum(&[], false), [a])));
    mixed("grad", |g, a, b| drop(g.grad(&a.sum(&[], false), [b])));
    mixed("function", |g, _, b| drop(g.function([b])));
    mixed("output", |g, a, b| drop(g.function([a]).output(b)));
    mixed("minimize", |g, _, b| drop(g.minimize(&(b + 1.0).sum(&[], false), Adam::new(0.1))));
    mixed("sgd", |g, _, b| {
        drop(g.apply(g.function([]), &[(Param::new("w", Role::Weight, [2], &[1.0; 2]), b + 1.0)], Sgd::new(0.1)))
    });
    mixed("checkpoint", |g, a, b| {
        let far = (b + 1.0).relu();
        drop(g.checkpoint(&[a], move |_| vec![far.clone()]))
    });
    mixed("assign", |g, _, b| {
        let _ = g.assign(&Param::new("s", Role::State, [2], &[0.0; 2]), &(b + 1.0).relu());
    });
    mixed("update", |g, a, b| {
        let state = Param::new("s", Role::State, [2], &[0.0; 2]);
        drop(g.function([a]).update(b.graph().assign(&state, &(b + 1.0).relu())))
    });
    mixed("upkeep", |g, a, b| {
        let state = Param::new("s", Role::State, [2], &[0.0; 2]);
        drop(g.upkeep(a, [b.graph().assign(&state, &(b + 1.0).relu())]))
    });
    for op in ["cross_entropy", "index_select", "gather"] {
        let (g, other) = (Graph::new(), Graph::new());
        (0..9).for_each(|n| drop(other.input([n])));
        let (x, index) = (g.input([2, 3]), other.input_u32([2]));
        drop(match op {
            "cross_entropy" => x.cross_entropy(&index),
            "index_select" => x.index_select(0, &index),
            _ => x.gather(0, &index.reshape([1, 2])),
        });
        assert!(g.error().is_err_and(|error| error.to_string().contains("different graphs")), "{op}");
    }
    let (g, other) = (Graph::new(), Graph::new());
    let (a, b) = (g.input([2]), other.input([2]));
    let program = gpu().compile(&g.function([&a.relu()])).expect("a program");
    says(program.write(&b, &[1.0; 2]), &["input", "another graph"]);
    says(program.read(&b), &["output", "another graph"]);
    says(program.read(&a.relu().neg()), &["is no output"]);
    says(program.write(&g.input([2]), &[1.0; 2]), &["is no input"]);
}

#[test]
fn values_that_do_not_fit() {
    let g = Graph::new();
    let (x, labels) = (g.input([2, 3]), g.input_u32([2]));
    let options = CrossEntropy::new().ignore_index(7);
    let loss = x.cross_entropy_with(&labels, &options);
    let rows = x.index_select(0, &g.input_u32([1]));
    let gpu = gpu();
    let program = gpu.compile(&g.function([&loss, &rows])).expect("a program");
    says(program.run(), &["input0 (f32[2, 3])", "never written"]);
    says(program.write(&x, &[0.0; 5]), &["5 values of f32", "f32[2, 3]"]);
    says(program.write_u32(&x, &[0; 6]), &["6 values of u32", "f32[2, 3]"]);
    says(program.write(&labels, &[0.0; 2]), &["2 values of f32", "u32[2]"]);
    says(program.write_u32(&labels, &[0, 3]), &["element 1 is 3", "below 3"]);
    assert!(program.write_u32(&labels, &[7, 2]).is_ok());
    says(program.set("momentun", 0.9), &["momentun", "no such setting"]);
    says(program.read_u32(&loss), &["f32[]", "not u32"]);
    let param = Param::new("w", Role::Weight, [3], &[0.0; 3]);
    says(gpu.write_param(&param, &[0.0; 4]), &["w", "4 values", "f32[3]"]);
}

#[test]
fn parameters_of_other_devices() {
    let (here, there) = (gpu(), gpu());
    let param = Param::new("w", Role::Weight, [3], &[1.0, 2.0, 3.0]);
    let function = || {
        let g = Graph::new();
        g.function([&(g.param(&param) * 2.0)])
    };
    here.compile(&function()).expect("a program");
    says(there.compile(&function()), &["w", "another device"]);
    says(there.read_param(&param), &["w", "another device"]);
    assert_eq!(here.read_param(&param).expect("values"), [1.0, 2.0, 3.0]);
}

/// Larger than the device allows, than u32 can count, than usize can.
#[test]
fn tensors_that_are_too_large() {
    let compile = |build: &dyn Fn(&Graph) -> Tensor| {
        let g = Graph::new();
        let y = build(&g);
        gpu().compile(&g.function([&y]))
    };
    says(compile(&|g| g.input([1 << 26]).relu()), &["f32[67108864]", "268435456 bytes", "134217728 bytes"]);
    says(compile(&|g| g.input([1 << 13, 1]) + g.input([1, 1 << 13])), &["f32[8192, 8192]", "134217728"]);
    says(compile(&|g| g.param(&Param::new("w", Role::Weight, [1 << 26], &[]))), &["parameter w", "134217728"]);
    let huge = usize::MAX;
    for shape in [[huge, 2], [huge, huge], [1 << 40, 1 << 40], [1 << 63, 2], [1 << 62, 1]] {
        says(compile(&|g| g.input(shape).relu()), &["too many elements", "tests/bad_input.rs"]);
        says(compile(&|g| g.full(shape, 1.0)), &["too many elements", "tests/bad_input.rs"]);
        says(compile(&|g| g.input([1]).expand(shape)), &["too many elements", "tests/bad_input.rs"]);
        says(compile(&|g| g.constant(shape, &[1.0])), &["too many elements", "tests/bad_input.rs"]);
    }
    let wide = 1 << 30;
    says(compile(&|g| g.input([wide, 1, 1]) + g.input([1, wide, 1]) + g.input([1, 1, wide])), &["too many elements"]);
    says(compile(&|g| g.input([wide, 1]).matmul(&g.input([1, wide])).flatten(0).relu()), &["too many elements"]);
    says(compile(&|g| g.input([2]).pad(&[(huge, huge)], PadMode::Constant(0.0))), &["too"]);
    says(compile(&|g| g.input([2]).pad(&[(huge, 1)], PadMode::Replicate)), &["too"]);
    says(compile(&|g| g.input_u32([2]).one_hot(huge)), &["too many elements"]);
}
