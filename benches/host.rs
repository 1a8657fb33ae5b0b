//! What it costs the host to make a program, step by step and without a device: `cargo bench --bench host`.

use criterion::{Criterion, criterion_group, criterion_main};
use shadegrad::graph::choose::Choices;
use shadegrad::graph::fuse::fuse;
use shadegrad::graph::plan::Plan;
use shadegrad::graph::{Caps, Function, Place};
use shadegrad::nn::Module;
use shadegrad::{Graph, nn, optim};
use std::hint::black_box;

/// The digit network: conv 5x5, relu, max-pool 2, twice; linear, relu, linear.
fn digits() -> nn::Sequential {
    nn::sequential((
        nn::Conv2d::new(1, 32, 5).padding(2),
        nn::Relu,
        nn::MaxPool2d::new(2),
        nn::Conv2d::new(32, 64, 5).padding(2),
        nn::Relu,
        nn::MaxPool2d::new(2),
        nn::Flatten,
        nn::Linear::new(3136, 128),
        nn::Relu,
        nn::Linear::new(128, 10),
    ))
}

/// A training step of it: the gradient pass and the optimizer's update.
fn step(net: &nn::Sequential) -> Function {
    let graph = Graph::new();
    let (x, y) = (graph.input([64, 1, 28, 28]), graph.input_u32([64]));
    graph.minimize(&net.forward(&x).cross_entropy(&y), optim::Adam::new(1e-3))
}

fn passes(c: &mut Criterion) {
    let net = digits();
    let function = step(&net);
    let place = |param: &shadegrad::Param| Place { slab: 1 + param.role() as u64, offset: param.id() as usize * 4096 };
    let cpu = Caps { cpu: true, subgroup: Some(8), mirrors: 8, wide: true, ..Caps::webgpu() };
    c.bench_function("graph and gradients", |b| b.iter(|| step(black_box(&net))));
    c.bench_function("fusion", |b| b.iter(|| fuse(black_box(&function), 8)));
    for (name, caps) in [("plan for a GPU", Caps::webgpu()), ("plan for a CPU adapter", cpu)] {
        c.bench_function(name, |b| b.iter(|| Plan::new(black_box(&function), &caps, &place, &Choices::default())));
    }
}

criterion_group!(benches, passes);
criterion_main!(benches);
