//! Cases that run for several steps: optimizers and whole training traces.

use shadegrad::graph::Role;
use shadegrad::nn::{self, Module};
use shadegrad::ops::{Conv2dOptions, Window};
use shadegrad::optim::{Adagrad, Adam, AdamW, Optimizer, RmsProp, Schedule, Sgd};
use shadegrad::{Gpu, Graph, Param, Program, Result, Tensor};

use super::{Answer, Got, Outcome};
use crate::support::golden::Case;
use crate::support::reference::{Attrs, convnet, optim};

/// The outcome of one of these ops; `None` for any other.
pub fn run(gpu: &Gpu, case: &Case) -> Option<Result<Outcome>> {
    let answer = match case.op.as_str() {
        "optimizer" => optimizer_case(gpu, case),
        "model_trace" => trace(gpu, case, &Net::of(case)?),
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

/// From a batch to its logits, and the parameters by name.
struct Net {
    parameters: Vec<(String, Param)>,
    logits: Box<dyn Fn(&Tensor) -> Tensor>,
}

impl Net {
    /// The case's network, made of layers.
    fn of(case: &Case) -> Option<Net> {
        match case.attrs["model"].as_str()? {
            "cnn" => {
                let shape = |name: &str| case.inputs[&format!("init.{name}")].shape.clone();
                let params = convnet::PARAMETERS.map(|name| Param::new(name, Role::Weight, shape(name), &[]));
                let parameters = params.iter().map(|param| (param.name(), param.clone())).collect();
                let leaves = move |g: &Graph| params.iter().map(|param| g.param(param)).collect::<Vec<_>>();
                Some(Net { parameters, logits: Box::new(move |x| convnet(x, &leaves(x.graph()))) })
            }
            "rnn_classifier" => {
                let (embedding, fc) = (nn::Embedding::new(60, 24), nn::Linear::new(48, 4));
                let lstm = nn::Lstm::new(24, 48).layers(2).batch_first();
                let parameters = named([("embedding", &embedding), ("lstm", &lstm), ("fc", &fc)]);
                let logits =
                    move |x: &Tensor| fc.forward(&lstm.forward(&embedding.forward(x)).narrow(1, 19, 1).squeeze(1));
                Some(Net { parameters, logits: Box::new(logits) })
            }
            "char_gru" => {
                let (embedding, fc) = (nn::Embedding::new(40, 16), nn::Linear::new(32, 40));
                let gru = nn::Gru::new(16, 32).batch_first();
                let parameters = named([("embedding", &embedding), ("gru", &gru), ("fc", &fc)]);
                Some(Net { parameters, logits: Box::new(move |x| fc.forward(&gru.forward(&embedding.forward(x)))) })
            }
            _ => None,
        }
    }
}

fn named<const N: usize>(parts: [(&str, &dyn Module); N]) -> Vec<(String, Param)> {
    parts.into_iter().flat_map(|(name, part)| nn::prefixed(name, part)).collect()
}

/// A network trained for some steps.
fn trace(gpu: &Gpu, case: &Case, net: &Net) -> Result<Answer> {
    let attrs = Attrs(&case.attrs);
    let (optimizer, _) = optimizer(attrs, "optimizer_");
    let (inputs, labels) = (&case.inputs["x"], &case.inputs["y"]);
    for (name, param) in &net.parameters {
        gpu.write_param(param, case.inputs[&format!("init.{name}")].f32().unwrap_or_default())?;
    }
    let graph = Graph::new();
    let (x, y) = (super::leaf(&graph, &inputs.data, &inputs.shape[1..]), graph.input_u32(&labels.shape[1..]));
    let leaves: Vec<Tensor> = net.parameters.iter().map(|(_, param)| graph.param(param)).collect();
    let logits = (net.logits)(&x);
    // Every step of a sequence is a case of its own.
    let logits = logits.reshape([y.elements(), logits.shape()[logits.rank() - 1]]);
    let loss = logits.cross_entropy(&y.reshape([y.elements()]));
    let grads = graph.grad(&loss, &leaves);
    let pairs: Vec<_> = net.parameters.iter().map(|(_, param)| param.clone()).zip(grads.iter().cloned()).collect();
    let function = graph.apply(graph.function([&loss, &logits].into_iter().chain(&grads)), &pairs, optimizer);
    let norm = function.outputs().get(2 + grads.len()).cloned();
    let program = gpu.compile(&function)?;
    let use_it = gpu.compile(&graph.function([&logits]))?;

    let mut answer = Answer::default();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..attrs.usize("steps") {
        super::write(&program, &x, &inputs.data, step)?;
        super::write(&program, &y, &labels.data, step)?;
        program.run()?;
        losses.extend(program.read(&loss)?);
        norms.extend(norm.as_ref().map(|norm| program.read(norm)).transpose()?.into_iter().flatten());
        if step == 0 {
            answer.outputs.insert("logits_step0".into(), of(&logits, program.read(&logits)?));
            for ((name, _), grad) in net.parameters.iter().zip(&grads) {
                let mut values = program.read(grad)?;
                answer.outputs.insert(format!("grad_stats.{name}"), statistics(&values));
                // Large ones are stored as their first 256 values.
                let cut = case.grads.get(name).is_some_and(|(want, _)| want.shape == [256]);
                values.truncate(if cut { 256 } else { values.len() });
                answer.grads.insert(name.clone(), if cut { flat(values) } else { of(grad, values) });
            }
        }
    }
    super::write(&use_it, &x, &inputs.data, 0)?;
    use_it.run()?;
    answer.outputs.insert("logits_final".into(), of(&logits, use_it.read(&logits)?));
    answer.outputs.insert("losses".into(), flat(losses));
    answer.outputs.insert("grad_norm".into(), flat(norms));
    for (name, param) in &net.parameters {
        answer.outputs.insert(format!("stats.{name}"), statistics(&gpu.read_param(param)?));
    }
    Ok(answer)
}

/// conv(5x5, padding 2), relu, max-pool 2, twice; then linear, relu, linear.
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
