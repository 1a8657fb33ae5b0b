//! Every kernel variant that ships translates to what each kind of device is fed: SPIR-V, MSL, HLSL and GLSL.
//!
//! Plans are made without a device, for the abilities of several kinds of devices and every candidate, over graphs that
//! use every op, so the shaders seen here are the ones that a program would compile.

use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use shadegrad::graph::Role;
use shadegrad::graph::choose::Choices;
use shadegrad::graph::plan::Plan;
use shadegrad::graph::{Caps, Place};
use shadegrad::nn::{self, Module};
use shadegrad::ops::{
    Attention, Cell, Conv2dOptions, CrossEntropy, ImageBatch, LayerWeights, PadMode, Recurrence, States, Window,
};
use shadegrad::optim::{Adagrad, Adam, AdamW, Optimizer, RmsProp, Sgd};
use shadegrad::translate::Wgsl;
use shadegrad::{DType, Function, Graph, Param, Tensor};
use std::collections::BTreeMap;

/// Graphs that together use every op, forward and backward.
fn functions() -> Vec<(&'static str, Function)> {
    let mut all = vec![("pointwise", pointwise()), ("movement", movement()), ("reductions", reductions())];
    all.push(("norms", norms()));
    all.push(("attention", attention()));
    all.push(("products", products()));
    all.push(("convolutions", convolutions()));
    all.push(("pooling", pooling()));
    all.push(("recurrent", recurrent()));
    all.push(("a table", table()));
    let optimizers: [(&'static str, Optimizer); 6] = [
        ("sgd", Sgd::new(0.1).momentum(0.9).nesterov(true).clip_norm(1.0).into()),
        ("adam", Adam::new(0.1).amsgrad(true).clip_value(1.0).into()),
        ("adamw", AdamW::new(0.1).into()),
        ("rmsprop", RmsProp::new(0.1).centered(true).momentum(0.5).into()),
        ("adagrad", Adagrad::new(0.1).into()),
        ("plain sgd", Sgd::new(0.1).into()),
    ];
    all.extend(optimizers.map(|(name, optimizer)| (name, training(optimizer))));
    all
}

/// The outputs, and the gradients of their sum with respect to the inputs.
fn with_gradients(g: &Graph, outputs: Vec<Tensor>, inputs: &[&Tensor]) -> Function {
    let floats = outputs.iter().filter(|t| t.dtype() == DType::F32).map(|t| t.sum(&[], false));
    let loss = floats.reduce(|a, b| a + b).expect("an output is f32");
    let grads = g.grad(&loss, inputs.iter().copied());
    g.function(outputs.iter().chain(&grads))
}

fn pointwise() -> Function {
    let g = Graph::new();
    let (x, y) = (g.input([3, 5, 7]), g.input([5, 1]));
    let mut outputs = vec![
        x.relu(),
        x.leaky_relu(0.1),
        x.elu(1.0),
        x.selu(),
        x.celu(1.5),
        x.gelu(),
        x.gelu_tanh(),
        x.silu(),
        x.mish(),
        x.softplus(1.0, 20.0),
        x.softsign(),
        x.hardsigmoid(),
        x.hardswish(),
        x.hardtanh(-1.0, 1.0),
        x.sigmoid(),
        x.tanh(),
        x.logsigmoid(),
        x.tanhshrink(),
        x.exp(),
        x.expm1(),
        x.abs(),
        x.erf(),
        x.sin(),
        x.cos(),
        x.square(),
        x.clamp(-0.5, 0.5),
        x.log(),
        x.log1p(),
        x.sqrt(),
        x.rsqrt(),
        x.reciprocal(),
        x.pow_scalar(2.5),
        x.floor(),
        x.ceil(),
        x.round(),
        x.sign(),
        x.dropout(0.3),
    ];
    outputs.extend([&x + &y, &x - &y, &x * &y, &x / &y, x.pow(&y), x.maximum(&y), x.minimum(&y)]);
    outputs.extend([x.gt(&y), x.eq(&y), x.gt(&y).where_(&x, &y), x.cast(DType::U32).cast(DType::F32)]);
    with_gradients(&g, outputs, &[&x, &y])
}

fn movement() -> Function {
    let g = Graph::new();
    let (x, index) = (g.input([4, 6, 5]), g.input_u32([3]));
    let whole = g.input_u32([4, 2, 5]);
    let outputs = vec![
        x.permute(&[2, 0, 1]),
        g.input([8, 12, 64]).permute(&[1, 2, 0]),
        x.slice(&[(3, -1, -2), (1, 6, 2)]),
        x.concat(&[&x.relu()], 1),
        x.pad(&[(1, 2), (0, 1), (3, 0)], PadMode::Constant(0.5)),
        x.pad(&[(0, 0), (1, 2), (2, 1)], PadMode::Reflect),
        x.index_select(1, &index),
        x.gather(1, &whole),
        index.one_hot(7),
        x.tril(0),
        x.narrow(2, 1, 2).expand([2, 4, 6, 2]),
    ];
    with_gradients(&g, outputs, &[&x])
}

fn reductions() -> Function {
    let g = Graph::new();
    let (x, labels) = (g.input([9, 300, 70]), g.input_u32([9, 70]));
    let outputs = vec![
        x.sum(&[0, 2], false),
        x.mean(&[], false),
        x.amax(&[1], false),
        x.amin(&[2], true),
        x.prod(&[0], false),
        x.argmax(&[1], false),
        x.argmin(&[0], true),
        x.var(&[1], 1.0, false),
        x.norm(&[2], false),
        x.cumsum(1),
        x.cumsum(2),
        x.softmax(2),
        x.softmax(1),
        x.log_softmax(0),
        x.logsumexp(1, false),
        x.cross_entropy_with(&labels, &CrossEntropy::new().label_smoothing(0.1).ignore_index(3)),
    ];
    with_gradients(&g, outputs, &[&x])
}

fn norms() -> Function {
    let g = Graph::new();
    let (x, images, weight) = (g.input([9, 70, 64]), g.input([2, 6, 5, 8]), g.input([6]));
    let (odd, whole) = (g.input([9, 70, 65]), g.input([64]));
    let few_lines = g.input([1, 8, 64, 32]);
    let (mean, variance) = images.batch_statistics();
    let outputs = vec![
        x.layer_norm(&[64], Some(&whole), Some(&whole), 1e-5),
        x.layer_norm(&[70, 64], None, None, 1e-5).relu(),
        x.rms_norm(&[64], Some(&whole), 1e-5),
        odd.layer_norm(&[70, 65], None, None, 1e-5),
        odd.rms_norm(&[65], None, 1e-5),
        images.group_norm(3, Some(&weight), Some(&weight), 1e-5),
        images.instance_norm(None, Some(&weight), 1e-5),
        few_lines.group_norm(1, None, None, 1e-5).relu(),
        images.batch_norm(&mean, &variance, Some(&weight), Some(&weight), 1e-5),
    ];
    let inputs = [&x, &odd, &images, &few_lines, &weight, &whole];
    let first = with_gradients(&g, outputs, &inputs);
    // Gradients of gradients.
    let grads = first.outputs()[9..].to_vec();
    with_gradients(&g, grads, &inputs)
}

fn attention() -> Function {
    let g = Graph::new();
    // Heads beside each other, as a projection leaves them.
    let [q, k, v] = [64, 64, 128].map(|width| g.input([2, 70, 3, width]));
    let mask = g.input([70, 70]);
    let heads = |x: &Tensor| x.permute(&[0, 2, 1, 3]);
    let attend = |options: Attention| heads(&q).scaled_dot_product_attention(&heads(&k), &heads(&v), &options);
    // One query, whose keys are cut into parts.
    let [one, keys] = [1, 700].map(|rows| g.input([rows, 128]));
    let outputs = vec![
        attend(Attention::new().causal(true)),
        attend(Attention::new().mask(&mask)),
        one.scaled_dot_product_attention(&keys, &keys, &Attention::new()),
    ];
    with_gradients(&g, outputs, &[&q, &k, &v, &one, &keys])
}

fn products() -> Function {
    let g = Graph::new();
    let (a, b, c) = (g.input([2, 65, 130]), g.input([2, 70, 130]), g.input([3, 600]));
    let tall = g.input([600, 5]);
    let mut outputs = vec![a.matmul_t(&b, false, true).gelu(), a.matmul_t(&a, true, false).tanh(), c.matmul(&tall)];
    let [ha, hb, hc] = [&a, &b, &c].map(|t| t.cast(DType::F16));
    outputs.extend([ha.matmul_t(&hb, false, true), hc.matmul_t(&hc, true, false), hc.matmul(&tall)]);
    // Of whole vec4s, along either axis, for cooperative matrices.
    let (p, q) = (g.input([2, 64, 132]), g.input([2, 132, 68]));
    for (p, q) in [(&p, &q), (&p.cast(DType::F16), &q.cast(DType::F16))] {
        outputs.extend([p.matmul(q), q.matmul_t(p, true, true)]);
    }
    let (narrow, wide) = (g.input([16, 68]), g.input([68, 136]));
    outputs.extend([narrow.matmul(&wide), wide.matmul_t(&narrow, true, true)]);
    outputs.extend([hc.permute(&[1, 0]).cast(DType::F32), hc.narrow(1, 1, 7).cast(DType::F32)]);
    // Long enough for subgroups abreast.
    let (long, lines) = (g.input([1 << 16, 8]), g.input([8192, 512]));
    outputs.push(g.input([1000, 800]).transpose(0, 1).relu());
    outputs.extend([long.concat(&[&long], 1), lines.index_select(0, &g.input_u32([4096]))]);
    outputs.extend([long.relu() + &g.input([8]), lines.softmax(1), lines.log_softmax(1), lines.sum(&[1], false)]);
    with_gradients(&g, outputs, &[&a, &b, &c, &tall])
}

fn recurrent() -> Function {
    let g = Graph::new();
    let (x, lengths) = (g.input([5, 3, 6]), g.input_u32([3]));
    let mut outputs = Vec::new();
    for cell in [Cell::Lstm, Cell::Gru, Cell::GruResetBefore, Cell::RnnTanh, Cell::RnnRelu] {
        // With whole vec4s and without, with all options and without.
        for (hidden, all) in [(8, false), (7, true), (600, true)] {
            let rows = cell.gates() * hidden;
            let layer = || LayerWeights {
                input: g.input([rows, 6]),
                hidden: g.input([rows, hidden]),
                input_bias: Some(g.input([rows])),
                hidden_bias: Some(g.input([rows])),
            };
            let state = || g.input([2, 3, hidden]);
            let mut options = Recurrence::new(cell);
            if all {
                let c = (cell == Cell::Lstm).then(state);
                options = options.bidirectional(true).lengths(&lengths).initial(&States { h: state(), c });
            }
            let (y, last) = x.recurrent(&vec![layer(); 1 + usize::from(all)], &options);
            outputs.extend([y, last.h].into_iter().chain(last.c));
        }
    }
    with_gradients(&g, outputs, &[&x])
}

/// A table of many rows, updated row by row.
fn table() -> Function {
    let g = Graph::new();
    let tokens = g.input_u32([9]);
    let table = Param::new("table", Role::Weight, [1000, 6], &[]);
    let y = tokens.embedding(&g.param(&table), Some(3));
    let drawn = y.sample().cast(DType::F32).sum(&[], false).detach();
    g.minimize(&(y.square().sum(&[], false) + drawn), Adagrad::new(0.1).clip_norm(1.0))
}

fn convolutions() -> Function {
    let g = Graph::new();
    let x = g.input([2, 8, 17, 19]);
    let options = Conv2dOptions::new;
    let shapes = [
        ([16, 8, 5, 5], options().padding([2, 2])),
        ([12, 8, 3, 3], options().stride([2, 2]).padding([1, 1])),
        ([6, 4, 3, 2], options().dilation([2, 1]).groups(2)),
        ([8, 1, 3, 3], options().groups(8).flipped(true)),
        ([24, 8, 1, 1], options()),
        ([3, 8, 11, 11], options().padding([5, 5])),
        ([1024, 8, 3, 3], options()),
    ];
    let weights: Vec<Tensor> = shapes.iter().map(|(shape, _)| g.input(*shape)).collect();
    let outputs = weights.iter().zip(&shapes).map(|(w, (_, o))| x.conv2d(w, o).relu()).collect();
    let inputs: Vec<&Tensor> = weights.iter().chain([&x]).collect();
    with_gradients(&g, outputs, &inputs)
}

fn pooling() -> Function {
    let g = Graph::new();
    let x = g.input([2, 3, 13, 11]);
    let overlapping = Window::new([3, 3]).stride([2, 2]).padding([1, 1]).ceil_mode(true);
    // Large enough for subgroups abreast.
    let large = g.input([16, 64, 64, 36]);
    let outputs = vec![
        large.max_pool2d(&Window::new([2, 2])),
        large.max_pool2d(&overlapping),
        large.avg_pool2d(&Window::new([2, 2])),
        x.max_pool2d(&Window::new([2, 2])),
        x.max_pool2d(&overlapping),
        x.max_pool2d(&Window::new([4, 3]).centred()),
        x.avg_pool2d(&overlapping),
        x.avg_pool2d(&overlapping.clone().count_include_pad(false)),
    ];
    with_gradients(&g, outputs, &[&x, &large])
}

fn training(optimizer: Optimizer) -> Function {
    let net = nn::sequential((
        nn::Conv2d::new(1, 8, 3).padding(1),
        nn::Relu,
        nn::MaxPool2d::new(2),
        nn::Dropout(0.2),
        nn::Flatten,
        nn::Linear::new(8 * 36, 10),
    ));
    let g = Graph::new();
    let (words, which, y) =
        (g.input_of(shadegrad::graph::Desc::new([36 * 50], DType::U32)), g.input_u32([16]), g.input_u32([16]));
    let x = words.image_batch(&which, &ImageBatch::new([1, 12, 12], 0.1, 0.3).shift(2).mirror(true));
    g.minimize(&net.forward(&x).cross_entropy(&y), optimizer)
}

/// The kinds of devices whose kernels differ.
fn kinds() -> [(&'static str, Caps); 9] {
    let cpu = Caps { cpu: true, ..Caps::webgpu() };
    [
        ("a GPU within WebGPU's limits", Caps::webgpu()),
        ("a GPU with subgroups of several sizes", Caps { subgroups: true, ..Caps::webgpu() }),
        ("a GPU with subgroups of 32", Caps { subgroups: true, subgroup: Some(32), ..Caps::webgpu() }),
        (
            "a GPU with cooperative matrices",
            Caps {
                subgroups: true,
                subgroup: Some(32),
                matrices: vec![(DType::F16, 16), (DType::F32, 8)],
                ..Caps::webgpu()
            },
        ),
        ("a CPU adapter without subgroups", cpu.clone()),
        ("a CPU adapter with subgroups of 8", Caps { subgroups: true, subgroup: Some(8), ..cpu.clone() }),
        ("a CPU adapter with texture operands", Caps { mirrors: 4, ..cpu.clone() }),
        ("a CPU adapter with 64-bit words", Caps { wide: true, subgroups: true, subgroup: Some(8), ..cpu.clone() }),
        (
            "a CPU adapter whose lanes lie abreast",
            Caps { wide: true, abreast: true, subgroups: true, subgroup: Some(8), ..cpu },
        ),
    ]
}

/// Kernels that an op offers for the same work at the most. The golden tests and the twins run the first six of
/// every op; where an op offers more, they have to run those, too.
const KERNELS: usize = 6;

/// The different specialised shaders of all graphs: text to (file, entry point, bindings written).
fn shaders() -> BTreeMap<String, (String, &'static str)> {
    let mut found = BTreeMap::new();
    for (name, function) in functions() {
        function.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        for (kind, caps) in kinds() {
            for candidate in 0..KERNELS {
                let caps = Caps { candidate: Some(candidate), ..caps.clone() };
                let place = |param: &shadegrad::Param| Place {
                    slab: 1 + param.role() as u64,
                    offset: param.id() as usize * 4096,
                };
                let plan = Plan::new(&function, &caps, &place, &Choices::default())
                    .unwrap_or_else(|e| panic!("{name} on {kind}: {e}"));
                for work in &plan.works {
                    let mut names = work.candidates.clone();
                    names.sort_unstable();
                    names.dedup();
                    assert_eq!(names.len(), work.candidates.len(), "two kernels of one name: {work:?}");
                    assert!(names.len() <= KERNELS, "more kernels than the tests run: {work:?}");
                }
                for step in plan.steps {
                    let title = format!("{} for {name} on {kind}", step.kernel.shader.name);
                    found.insert(step.source, (title, step.kernel.entry));
                }
            }
        }
    }
    found
}

/// Nothing but subgroups goes beyond WebGPU's core.
fn is_portable(text: &str) -> bool {
    // `pack2x16float` is WGSL's core, though a capability to naga.
    let capabilities = Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
    naga::front::wgsl::parse_str(text).is_ok_and(|module| validator.validate(&module).is_ok())
}

fn translate(name: &str, text: &str, entry: &str) -> shadegrad::Result<()> {
    let wgsl = Wgsl::parse(name, text)?;
    if text.contains("u64") {
        // For CPU adapters, on Vulkan.
        return wgsl.spirv(entry).map(drop);
    }
    if text.starts_with("enable wgpu_cooperative_matrix;") {
        // Only Vulkan and Metal have them.
        wgsl.spirv(entry)?;
        return wgsl.msl(entry).map(drop);
    }
    assert!(is_portable(text), "{name}, {entry}");
    wgsl.spirv(entry)?;
    wgsl.msl(entry)?;
    wgsl.hlsl(entry)?;
    // Subgroup operations are outside GLSL's core; on GL adapters the engine chooses kernels without them.
    if !wgsl.shuffles() {
        wgsl.glsl(entry, false)?;
        wgsl.glsl(entry, true)?;
    }
    Ok(())
}

#[test]
fn every_variant_translates_to_every_language() {
    let shaders = shaders();
    let mut failures = Vec::new();
    for (text, (name, entry)) in &shaders {
        if let Err(error) = translate(name, text, entry) {
            failures.push(format!("{entry}: {error}"));
        }
    }
    println!("{} shader variants", shaders.len());
    let wide = shaders.keys().filter(|text| text.contains("u64")).count();
    assert!(wide >= 100, "only {wide} move 64-bit words");
    let abreast = shaders.keys().filter(|text| text.contains("var<immediate>")).count();
    assert!(abreast >= 12, "only {abreast} of lanes abreast");
    let matrices = shaders.values().filter(|(_, entry)| *entry == "matrices").count();
    assert!(matrices >= 4, "only {matrices} of cooperative matrices");
    assert!(shaders.len() > 200, "only {} variants were found", shaders.len());
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), shaders.len(), failures.join("\n"));
}
