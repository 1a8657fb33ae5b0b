//! The cases of `shadegrad bench kernels`: single ops, in shapes that networks have.

use super::cases::{self, Builder, Case};
use shadegrad::graph::Role;
use shadegrad::ops::{Attention, Conv2dOptions, Window};
use shadegrad::optim::Adam;
use shadegrad::{Param, Tensor};

/// The peers' single ops, and more.
pub fn all() -> Vec<Case> {
    let networks = ["mnist", "rnn_train"];
    let mut all = cases::all();
    all.retain(|case| !networks.iter().any(|name| case.name.starts_with(name)));
    all.extend(products());
    all.extend(convolutions());
    all.extend(reductions());
    all.extend(layers());
    all.extend(pointwise());
    all
}

fn products() -> impl Iterator<Item = Case> {
    // A transformer's layers, a vector by a matrix, a sum much longer than the result is large, and what fills a large GPU.
    let shapes = [
        (512, 768, 768),
        (512, 768, 3072),
        (512, 3072, 768),
        (1, 4096, 4096),
        (64, 16384, 64),
        (127, 509, 251),
        (4096, 4096, 4096),
    ];
    let halves = [(1024, 1024, 1024), (4096, 4096, 4096), (512, 768, 3072), (1, 4096, 4096)];
    let full = shapes.into_iter().map(|(m, k, n)| cases::matmul(format!("matmul_{m}x{k}x{n}"), m, k, n));
    full.chain(halves.into_iter().map(|(m, k, n)| of_halves(m, k, n)))
}

/// A layer's product of f16, its weights [n, k].
fn of_halves(m: usize, k: usize, n: usize) -> Case {
    let build = move |b: &mut Builder| {
        let (x, weight) = (b.halves([m, k], 1, 2.0), b.halves([n, k], 2, 2.0));
        b.forward(x.linear(&weight, None))
    };
    Case::new(format!("linear_f16_{m}x{k}x{n}"), build).flops(2 * m * k * n).halves()
}

/// One pass of a convolution.
#[derive(Clone, Copy)]
enum Pass {
    Forward,
    InputGrad,
    WeightGrad,
}

fn convolutions() -> impl Iterator<Item = Case> {
    // Batch, channels in and out, kernel, side, stride: the digit network's second layer, and ResNet's.
    let shapes = [
        (32, 32, 64, 5, 14, 1),
        (1, 3, 64, 7, 224, 2),
        (8, 64, 64, 3, 56, 1),
        (8, 64, 128, 3, 56, 2),
        (8, 128, 128, 3, 28, 1),
        (8, 256, 256, 3, 14, 1),
        (8, 512, 512, 3, 7, 1),
        (8, 256, 512, 1, 28, 2),
    ];
    let passes = [(Pass::Forward, "forward"), (Pass::InputGrad, "dgrad"), (Pass::WeightGrad, "wgrad")];
    shapes.into_iter().flat_map(move |shape| passes.into_iter().map(move |(pass, name)| convolution(shape, pass, name)))
}

fn convolution(
    (batch, from, to, k, side, stride): (usize, usize, usize, usize, usize, usize),
    pass: Pass,
    name: &str,
) -> Case {
    let step = if stride > 1 { format!("_s{stride}") } else { String::new() };
    let name = format!("conv2d_{batch}x{from}x{side}_to_{to}_k{k}{step}_{name}");
    let out = side.div_ceil(stride);
    let build = move |b: &mut Builder| {
        let x = b.input([batch, from, side, side], 1, 2.0);
        let w = b.input([to, from, k, k], 2, 0.1);
        let y = x.conv2d(&w, &Conv2dOptions::new().padding([k / 2; 2]).stride([stride; 2]));
        match pass {
            Pass::Forward => b.forward(y),
            Pass::InputGrad => b.gradient(&y, &x),
            Pass::WeightGrad => b.gradient(&y, &w),
        }
    };
    Case::new(name, build).flops(2 * batch * to * out * out * from * k * k)
}

fn case(name: &str, build: impl Fn(&mut Builder) -> Tensor + 'static) -> Case {
    Case::new(name, move |b| {
        let y = build(b);
        b.forward(y)
    })
}

fn reductions() -> Vec<Case> {
    let of =
        |name: &str, shape: [usize; 2], op: fn(&Tensor) -> Tensor| case(name, move |b| op(&b.input(shape, 1, 2.0)));
    vec![
        of("sum_rows_4096x1024", [4096, 1024], |x| x.sum(&[1], false)),
        of("sum_columns_4096x1024", [4096, 1024], |x| x.sum(&[0], false)),
        of("amax_rows_4096x1024", [4096, 1024], |x| x.amax(&[1], false)),
        of("argmax_rows_256x32000", [256, 32000], |x| x.argmax(&[1], false)),
        of("softmax_256x32000", [256, 32000], |x| x.softmax(1)),
        losses("cross_entropy_256x32000", false),
        losses("cross_entropy_256x32000_fb", true),
        of("log_softmax_16384x64", [16384, 64], |x| x.log_softmax(1)),
        case("avg_pool_2x2", |b| b.input([32, 32, 56, 56], 1, 2.0).avg_pool2d(&Window::new([2, 2]))),
        case("max_pool_3x3_s2", |b| b.input([8, 64, 112, 112], 1, 2.0).max_pool2d(&Window::new([3, 3]).stride([2, 2]))),
    ]
}

/// The loss of a language model, by itself or with its gradient.
fn losses(name: &str, backward: bool) -> Case {
    Case::new(name, move |b| {
        let (x, labels) = (b.input([256, 32000], 1, 8.0), b.labels(256, 2, 32000));
        let loss = x.cross_entropy(&labels);
        if backward { b.gradient(&loss, &x) } else { b.forward(loss) }
    })
    .traffic(if backward { 3 } else { 1 } * 256 * 32000)
}

/// Normalization and attention, forward and backward.
fn layers() -> Vec<Case> {
    let attend = |causal: bool| {
        move |b: &mut Builder| {
            let [q, k, v] = [1, 2, 3].map(|seed| b.input([1, 12, 1024, 64], seed, 2.0));
            let y = q.scaled_dot_product_attention(&k, &v, &Attention::new().causal(causal));
            ([q, k, v], y)
        }
    };
    let one_query = |b: &mut Builder| {
        let [q, k, v] = [(1, 1), (4096, 2), (4096, 3)].map(|(rows, seed)| b.input([1, 32, rows, 128], seed, 2.0));
        let y = q.scaled_dot_product_attention(&k, &v, &Attention::new());
        b.forward(y)
    };
    let both = |name: &str, causal| {
        Case::new(name, move |b| {
            let ([q, k, v], y) = attend(causal)(b);
            b.gradients(y, &[&q, &k, &v])
        })
    };
    let norm = |b: &mut Builder| {
        let (x, weight, bias) = (b.input([4096, 768], 1, 8.0), b.input([768], 2, 2.0), b.input([768], 3, 2.0));
        let y = x.layer_norm(&[768], Some(&weight), Some(&bias), 1e-5);
        b.gradients(y, &[&x, &weight, &bias])
    };
    let batch_norm = |b: &mut Builder| {
        let (x, weight, bias) = (b.input([8, 64, 56, 56], 1, 8.0), b.input([64], 2, 2.0), b.input([64], 3, 2.0));
        let (mean, variance) = x.batch_statistics();
        let y = x.batch_norm(&mean, &variance, Some(&weight), Some(&bias), 1e-5);
        b.gradients(y, &[&x, &weight, &bias])
    };
    vec![
        Case::new("batchnorm_8x64x56x56_fb", batch_norm).traffic(8 * 8 * 64 * 56 * 56),
        Case::new("layernorm_4096x768_fb", norm).traffic(5 * 4096 * 768),
        case("rmsnorm_4096x768", |b| b.input([4096, 768], 1, 8.0).rms_norm(&[768], None, 1e-5)),
        case("groupnorm_8x64x56x56", |b| b.input([8, 64, 56, 56], 1, 8.0).group_norm(8, None, None, 1e-5)),
        case("attention_12x1024x64", move |b| attend(false)(b).1),
        case("attention_12x1024x64_causal", move |b| attend(true)(b).1),
        both("attention_12x1024x64_fb", false),
        both("attention_12x1024x64_causal_fb", true),
        Case::new("attention_32x4096x128_one_query", one_query).traffic(2 * 32 * 4096 * 128),
    ]
}

fn pointwise() -> Vec<Case> {
    let long = [1 << 22];
    vec![
        case("add_4m", move |b| b.input(long, 1, 2.0) + b.input(long, 2, 2.0)),
        case("relu_4m", move |b| b.input(long, 1, 2.0).relu()),
        case("add_bias_relu_4096x1024", |b| (b.input([4096, 1024], 1, 2.0) + b.input([1024], 2, 2.0)).relu()),
        case("transpose_2048x2048", |b| b.input([2048, 2048], 1, 2.0).permute(&[1, 0])),
        case("embedding_64x128_of_10000x128", |b| {
            let table = b.input([10_000, 128], 1, 2.0);
            let tokens = b.labels(64 * 128, 2, 10_000);
            table.index_select(0, &tokens)
        }),
        Case::new("adam_1m", |b| {
            let weight = Param::new("weight", Role::Weight, [1 << 20], &[0.5; 1 << 20]);
            let loss = (b.graph.param(&weight) * b.input([1 << 20], 1, 2.0)).sum(&[], false);
            b.minimize(&loss, Adam::new(1e-3))
        })
        .traffic(7 << 20),
    ]
}
