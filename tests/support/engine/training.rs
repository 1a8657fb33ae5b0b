//! Cases that run for several steps: optimizers and whole training traces.

use shadegrad::graph::Role;
use shadegrad::ops::{Conv2dOptions, Window};
use shadegrad::optim::{Adagrad, Adam, AdamW, Optimizer, RmsProp, Schedule, Sgd};
use shadegrad::{Gpu, Graph, Param, Program, Result, Tensor};

use super::{Answer, Got, Outcome};
use crate::support::golden::{Case, Data};
use crate::support::reference::{Attrs, convnet, optim};

/// The outcome of one of these ops; `None` for any other.
pub fn run(gpu: &Gpu, case: &Case) -> Option<Result<Outcome>> {
    let answer = match case.op.as_str() {
        "optimizer" => optimizer_case(gpu, case),
        "model_trace" if case.attrs["model"] == "cnn" => convnet_trace(gpu, case),
        _ => return None,
    };
    Some(answer.map(Outcome::Answer))
}

/// Gradients are handed in; the parameters are read after every step.
fn optimizer_case(gpu: &Gpu, case: &Case) -> Result<Answer> {
    let attrs = Attrs(&case.attrs);
    let (optimizer, base) = optimizer(attrs, "");
    let schedule = schedule(attrs, base);
    let graph = Graph::new();
    let mut pairs = Vec::new();
    let mut given = Vec::new();
    for (name, first) in case.inputs.iter().filter_map(|(name, t)| Some((name.strip_prefix("p0.")?, t))) {
        let param = Param::new(name, Role::Weight, first.shape.as_slice(), first.f32().unwrap_or_default());
        pairs.push((param, graph.input(first.shape.as_slice())));
        given.push(case.inputs[&format!("g.{name}")].f32().unwrap_or_default());
    }
    let function = graph.apply(graph.function([]), &pairs, optimizer);
    let norm = function.outputs().first().cloned();
    let program = gpu.compile(&function)?;
    let (mut rates, mut norms, mut courses) = (Vec::new(), Vec::new(), vec![Vec::new(); pairs.len()]);
    let steps = attrs.usize("steps");
    for step in 0..steps {
        program.set("lr", (base * f64::from(schedule.at(step as u64))) as f32)?;
        for ((_, input), values) in pairs.iter().zip(&given) {
            let size = input.elements();
            program.write(input, &values[step * size..][..size])?;
        }
        program.run()?;
        rates.push(rate(gpu, &program)?);
        if let Some(norm) = &norm {
            norms.extend(program.read(norm)?);
        }
        for ((param, _), course) in pairs.iter().zip(&mut courses) {
            course.extend(gpu.read_param(param)?);
        }
    }
    let mut answer = Answer::default();
    answer.outputs.insert("lr".into(), flat(rates));
    if norm.is_some() {
        answer.outputs.insert("grad_norm".into(), flat(norms));
    }
    for ((param, input), values) in pairs.iter().zip(courses) {
        let shape = [&[steps], input.shape()].concat();
        answer.outputs.insert(format!("p.{}", param.name()), Got { shape, values });
    }
    Ok(answer)
}

/// The rate that the device has used.
fn rate(gpu: &Gpu, program: &Program) -> Result<f32> {
    let hyper = program.params().iter().find(|param| param.name() == "hyper").expect("hyper-parameters");
    Ok(gpu.read_param(hyper)?[0])
}

/// conv(5x5, padding 2), relu, max-pool 2, twice; then linear, relu, linear: trained for some steps.
fn convnet_trace(gpu: &Gpu, case: &Case) -> Result<Answer> {
    let attrs = Attrs(&case.attrs);
    let (optimizer, _) = optimizer(attrs, "optimizer_");
    let (images, labels) = (&case.inputs["x"], &case.inputs["y"]);
    let images_f32 = images.f32().unwrap_or_default();
    let labels_u32: Vec<u32> = match &labels.data {
        Data::I32(values) => values.iter().map(|&v| v as u32).collect(),
        _ => Vec::new(),
    };
    let params: Vec<Param> = convnet::PARAMETERS
        .iter()
        .map(|&name| {
            let first = &case.inputs[&format!("init.{name}")];
            Param::new(name, Role::Weight, first.shape.as_slice(), first.f32().unwrap_or_default())
        })
        .collect();
    let graph = Graph::new();
    let (x, y) = (graph.input(&images.shape[1..]), graph.input_u32(&labels.shape[1..]));
    let leaves: Vec<Tensor> = params.iter().map(|param| graph.param(param)).collect();
    let logits = convnet(&x, &leaves);
    let loss = logits.cross_entropy(&y);
    let grads = graph.grad(&loss, &leaves);
    let pairs: Vec<(Param, Tensor)> = params.iter().cloned().zip(grads.iter().cloned()).collect();
    let function = graph.function([&loss, &logits].into_iter().chain(&grads));
    let program = gpu.compile(&graph.apply(function, &pairs, optimizer))?;
    let use_it = gpu.compile(&graph.function([&logits]))?;

    let mut answer = Answer::default();
    let mut losses = Vec::new();
    for step in 0..attrs.usize("steps") {
        let batch = &images_f32[step * x.elements()..][..x.elements()];
        program.write(&x, batch)?.write_u32(&y, &labels_u32[step * y.elements()..][..y.elements()])?.run()?;
        losses.extend(program.read(&loss)?);
        if step == 0 {
            answer.outputs.insert("logits_step0".into(), of(&logits, program.read(&logits)?));
            for (param, grad) in params.iter().zip(&grads) {
                let mut values = program.read(grad)?;
                answer.outputs.insert(format!("grad_stats.{}", param.name()), statistics(&values));
                // Large ones are stored as their first 256 values.
                let cut = case.grads.get(&param.name()).is_some_and(|(want, _)| want.shape == [256]);
                values.truncate(if cut { 256 } else { values.len() });
                answer.grads.insert(param.name(), if cut { flat(values) } else { of(grad, values) });
            }
        }
    }
    use_it.write(&x, &images_f32[..x.elements()])?.run()?;
    answer.outputs.insert("logits_final".into(), of(&logits, use_it.read(&logits)?));
    answer.outputs.insert("losses".into(), flat(losses));
    for param in &params {
        answer.outputs.insert(format!("stats.{}", param.name()), statistics(&gpu.read_param(param)?));
    }
    Ok(answer)
}

fn convnet(x: &Tensor, params: &[Tensor]) -> Tensor {
    let [w1, b1, w2, b2, w3, b3, w4, b4] = params else { panic!("{} parameters", params.len()) };
    let layer = |x: &Tensor, weight: &Tensor, bias: &Tensor| {
        let y = x.conv2d(weight, &Conv2dOptions::new().padding([2, 2]));
        (y + bias.reshape([bias.elements(), 1, 1])).relu().max_pool2d(&Window::new([2, 2]))
    };
    let features = layer(&layer(x, w1, b1), w2, b2).flatten(1);
    features.linear(w3, Some(b3)).relu().linear(w4, Some(b4))
}

/// Sum, Euclidean norm, the first six values.
fn statistics(values: &[f32]) -> Got {
    let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
    let squares: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
    flat([sum as f32, squares.sqrt() as f32].into_iter().chain(values.iter().copied().take(6)).collect())
}

fn of(tensor: &Tensor, values: Vec<f32>) -> Got {
    Got { shape: tensor.shape().to_vec(), values }
}

fn flat(values: Vec<f32>) -> Got {
    Got { shape: vec![values.len()], values }
}

/// The optimizer that the attributes name, and its base rate.
fn optimizer(attrs: Attrs, prefix: &str) -> (Optimizer, f64) {
    let (twin, lr) = attrs.optimizer(prefix);
    let decay = twin.weight_decay;
    let optimizer: Optimizer = match twin.rule {
        optim::Rule::Sgd { momentum, dampening, nesterov } => {
            Sgd::new(lr).momentum(momentum).dampening(dampening).nesterov(nesterov).weight_decay(decay).into()
        }
        optim::Rule::Adam { betas: [b1, b2], eps, amsgrad, decoupled: false } => {
            Adam::new(lr).betas(b1, b2).eps(eps).amsgrad(amsgrad).weight_decay(decay).into()
        }
        optim::Rule::Adam { betas: [b1, b2], eps, amsgrad, decoupled: true } => {
            AdamW::new(lr).betas(b1, b2).eps(eps).amsgrad(amsgrad).weight_decay(decay).into()
        }
        optim::Rule::RmsProp { alpha, eps, momentum, centered } => {
            RmsProp::new(lr).alpha(alpha).eps(eps).momentum(momentum).centered(centered).weight_decay(decay).into()
        }
        optim::Rule::Adagrad { lr_decay, eps, initial_accumulator } => {
            let rule = Adagrad::new(lr).lr_decay(lr_decay).eps(eps);
            rule.initial_accumulator_value(initial_accumulator).weight_decay(decay).into()
        }
    };
    match attrs.f64_or("clip_norm", f64::INFINITY) {
        limit if limit.is_finite() => (optimizer.clip_norm(limit), lr),
        _ => (optimizer, lr),
    }
}

fn schedule(attrs: Attrs, base: f64) -> Schedule {
    match attrs.schedule() {
        optim::Schedule::Constant => Schedule::constant(),
        optim::Schedule::Step { size, gamma } => Schedule::step(size as u64, gamma),
        optim::Schedule::Cosine { period, min } => Schedule::cosine(period as u64, min / base),
        optim::Schedule::WarmupCosine { warmup, total } => {
            Schedule::cosine((total - warmup) as u64, 0.0).warmup(warmup as u64)
        }
    }
}
