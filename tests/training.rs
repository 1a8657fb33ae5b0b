//! What a training run promises: the same seed gives the same bits, a resumed run too, memory does not grow, and
//! nothing is lost when a loss diverges.

use shadegrad::data::{Images, Order, digits};
use shadegrad::graph::Role;
use shadegrad::io::{StateDict, load_state_dict, state_dict};
use shadegrad::nn::{self, Module};
use shadegrad::ops::ImageBatch;
use shadegrad::optim::{Adam, Optimizer, Sgd};
use shadegrad::train::{Losses, Session};
use shadegrad::{Error, Gpu, Graph, Param, Program, Result, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

const BATCH: usize = 16;
const SEED: u64 = 5;

/// A small convolutional network in training, with dropout and augmentation so that random state matters.
struct Run {
    net: nn::Sequential,
    program: Program,
    indices: Tensor,
    loss: Tensor,
    images: Images,
}

impl Run {
    fn new(gpu: &Gpu, optimizer: impl Into<Optimizer>) -> Result<Run> {
        let images = digits::draw(320, 9)?;
        nn::manual_seed(SEED);
        let net = nn::sequential((
            ("conv", nn::Conv2d::new(1, 6, 3).padding(1)),
            nn::Relu,
            nn::MaxPool2d::new(2),
            nn::Dropout(0.2),
            nn::Flatten,
            ("fc", nn::Linear::new(6 * 14 * 14, 10)),
        ));
        let store = images.store();
        let g = Graph::new();
        let indices = g.input_u32([BATCH]);
        let rule = ImageBatch::new(store.shape, 0.1, 0.3).shift(2);
        let x = g.param(&store.pixels).image_batch(&indices, &rule);
        let loss = net.forward(&x).cross_entropy(&g.param(&store.labels).index_select(0, &indices));
        let program = gpu.compile(&g.minimize(&loss, optimizer))?;
        Ok(Run { net, program, indices, loss, images })
    }

    /// Runs the steps `from..to`; the rate falls, as under a schedule.
    fn steps(&self, from: u64, to: u64) -> Result<()> {
        let mut order = Order::new(self.images.len(), BATCH, SEED)?;
        for step in from..to {
            self.program.set("lr", 0.01 / (1.0 + step as f32))?;
            self.program.write_u32(&self.indices, order.batch(step))?.run()?;
        }
        Ok(())
    }

    fn session(&self) -> Result<Session<'_>> {
        Session::new(&self.program, self.net.parameters(), SEED)
    }

    fn weights(&self) -> Result<StateDict> {
        state_dict(self.program.gpu(), &self.net.parameters())
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_and_so_does_a_resumed_run() -> Result<()> {
    let gpu = Gpu::new()?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.safetensors");

    let whole = Run::new(&gpu, Adam::new(0.01))?;
    whole.session()?;
    let before = whole.weights()?;
    whole.steps(0, 30)?;
    assert_ne!(whole.weights()?, before, "training changed nothing");

    let again = Run::new(&gpu, Adam::new(0.01))?;
    again.session()?;
    again.steps(0, 30)?;
    assert_eq!(whole.weights()?, again.weights()?, "two runs with one seed differ");

    let first = Run::new(&gpu, Adam::new(0.01))?;
    let session = first.session()?;
    first.steps(0, 13)?;
    session.save(&path, 13, 0, &BTreeMap::new())?;
    drop(session);
    drop(first);

    let other = Gpu::new()?;
    let second = Run::new(&other, Adam::new(0.01))?;
    let step = second.session()?.resume(&path)?;
    assert_eq!(step, 13);
    second.steps(step, 30)?;
    assert_eq!(whole.weights()?, second.weights()?, "a resumed run differs from one never interrupted");
    Ok(())
}

#[test]
fn memory_after_many_steps_is_memory_after_the_first() -> Result<()> {
    let gpu = Gpu::new()?;
    let run = Run::new(&gpu, Adam::new(0.01))?;
    let mut losses = Losses::new(&run.loss, 2);
    let mut order = Order::new(run.images.len(), BATCH, SEED)?;
    let mut resident = Vec::new();
    for step in 0..600 {
        run.program.write_u32(&run.indices, order.batch(step))?.run()?;
        losses.step(&run.program, step + 1)?;
        if step == 200 || step == 599 {
            losses.finish()?;
            gpu.wait()?;
            resident.push(resident_bytes());
        }
    }
    let growth = resident[1].saturating_sub(resident[0]);
    // The allocator's own slack; 400 leaked read-backs or submissions would be far more.
    assert!(growth < 1 << 20, "resident memory grew by {growth} bytes over 400 steps");
    Ok(())
}

/// Bytes of this process in memory; 0 where the system does not tell.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).map_or(0, |pages| pages * 4096)
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint() -> Result<()> {
    let gpu = Gpu::new()?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.safetensors");
    let run = Run::new(&gpu, Sgd::new(0.01))?;
    let session = run.session()?;
    run.steps(0, 3)?;
    session.save(&path, 3, 0, &BTreeMap::new())?;
    let good = std::fs::read(&path).expect("the checkpoint");

    let mut losses = Losses::new(&run.loss, 2);
    let mut order = Order::new(run.images.len(), BATCH, SEED)?;
    run.program.set("lr", 1e30)?;
    let mut diverge = || -> Result<()> {
        for step in 3..40 {
            run.program.write_u32(&run.indices, order.batch(step))?.run()?;
            losses.step(&run.program, step + 1)?;
        }
        losses.finish().map(|_| ())
    };
    let error = diverge().expect_err("a rate of 1e30 diverges");
    assert!(matches!(error, Error::NotFinite { step: 4..=8, .. }), "{error}");
    assert!(error.to_string().contains("lower learning rate"), "{error}");

    assert!(matches!(session.save(&path, 40, 0, &BTreeMap::new()), Err(Error::NotFinite { .. })), "NaN was saved");
    assert_eq!(std::fs::read(&path).expect("the checkpoint"), good);
    Ok(())
}

#[test]
fn a_resumed_run_of_another_network_or_seed_is_refused() -> Result<()> {
    let gpu = Gpu::new()?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.safetensors");
    let run = Run::new(&gpu, Sgd::new(0.01))?;
    run.steps(0, 3)?;
    run.session()?.save(&path, 3, 0, &BTreeMap::new())?;

    let message = Session::new(&run.program, run.net.parameters(), 6)?.resume(&path).unwrap_err().to_string();
    assert!(message.contains("seed 5") && message.contains('6'), "{message}");
    let adam = Run::new(&gpu, Adam::new(0.01))?;
    let before = adam.weights()?;
    let message = adam.session()?.resume(&path).unwrap_err().to_string();
    assert!(message.contains("does not fit"), "{message}");
    assert_eq!(adam.weights()?, before, "a refused checkpoint changed weights");
    let message = run.session()?.resume(Path::new("nowhere.safetensors")).unwrap_err().to_string();
    assert!(message.contains("nowhere.safetensors"), "{message}");
    Ok(())
}

#[test]
fn names_are_distinct_and_what_the_optimizer_keeps_is_finite() -> Result<()> {
    let gpu = Gpu::new()?;
    let twice = nn::sequential((("fc", nn::Linear::new(2, 2)), nn::Relu, ("fc", nn::Linear::new(2, 2))));
    let by_place = nn::sequential((("1", nn::Linear::new(2, 2)), nn::Linear::new(2, 2)));
    for (net, name) in [(&twice, "fc.weight"), (&by_place, "1.weight")] {
        let message = state_dict(&gpu, &net.parameters()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("one of its own"), "{message}");
        assert!(load_state_dict(&gpu, &net.parameters(), &StateDict::new()).unwrap_err().to_string().contains(name));
    }
    let run = Run::new(&gpu, Adam::new(0.01))?;
    assert!(Session::new(&run.program, twice.parameters(), SEED).is_err());

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.safetensors");
    let session = run.session()?;
    session.save(&path, 0, 0, &BTreeMap::new())?;
    let moments = run.program.params().iter().find(|param| param.name().starts_with("exp_avg")).expect("moments");
    let mut words = vec![0; moments.desc().words()];
    words[3] = f32::INFINITY.to_bits();
    gpu.write_param_words(moments, &words)?;
    let message = session.save(&path, 1, 0, &BTreeMap::new()).unwrap_err().to_string();
    assert!(message.contains("exp_avg") && message.contains("is inf at step 1"), "{message}");
    Ok(())
}

#[test]
fn a_setting_reaches_every_group_of_weights() -> Result<()> {
    let gpu = Gpu::new()?;
    let [a, b] = ["a", "b"].map(|name| Param::new(name, Role::Weight, [1], &[1.0]));
    let g = Graph::new();
    let loss = (g.param(&a) + g.param(&b)).sum(&[], false);
    let grads = g.grad(&loss, [&g.param(&a), &g.param(&b)]);
    let function = g.apply(g.function([&loss]), &[(a.clone(), grads[0].clone())], Sgd::new(0.1));
    let program = gpu.compile(&g.apply(function, &[(b.clone(), grads[1].clone())], Sgd::new(0.5)))?;
    program.run()?;
    assert_eq!([gpu.read_param(&a)?, gpu.read_param(&b)?].concat(), [0.9, 0.5]);
    program.set("lr", 0.25)?.run()?;
    assert_eq!([gpu.read_param(&a)?, gpu.read_param(&b)?].concat(), [0.9 - 0.25, 0.25]);
    for value in [f32::NAN, f32::INFINITY] {
        let message = program.set("lr", value).err().expect("an error").to_string();
        assert!(message.contains("lr") && message.contains("not finite"), "{message}");
    }
    Ok(())
}

#[test]
fn a_state_dict_moves_between_networks_and_programs_share_weights_in_place() -> Result<()> {
    let gpu = Gpu::new()?;
    let run = Run::new(&gpu, Adam::new(0.01))?;
    let names: Vec<String> = run.net.parameters().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]);

    // A program that only answers, over the same weights, before and after training.
    let g = Graph::inference();
    let x = g.input([1, 1, 28, 28]);
    let logits = run.net.forward(&x);
    let ask = gpu.compile(&g.function([&logits]))?;
    ask.write(&x, &[0.5; 784])?.run()?;
    let before = ask.read(&logits)?;
    run.steps(0, 5)?;
    ask.run()?;
    let after = ask.read(&logits)?;
    assert_ne!(before, after);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("weights.safetensors");
    run.weights()?.save(&path)?;
    run.steps(5, 10)?;
    load_state_dict(&gpu, &run.net.parameters(), &StateDict::load(&path)?)?;
    ask.run()?;
    assert_eq!(ask.read(&logits)?, after, "loading did not bring the weights back");

    let mut wrong = StateDict::load(&path)?;
    wrong.tensors.remove("fc.bias");
    let message = load_state_dict(&gpu, &run.net.parameters(), &wrong).unwrap_err().to_string();
    assert!(message.contains("fc.bias"), "{message}");
    Ok(())
}

#[test]
fn every_run_draws_anew_with_or_without_an_optimizer() -> Result<()> {
    let gpu = Gpu::new()?;
    let g = Graph::new();
    let y = g.full([256], 1.0).dropout(0.5);
    let program = gpu.compile(&g.function([&y]))?;
    let draw = || program.run().and_then(|()| program.read(&y));
    let (first, second) = (draw()?, draw()?);
    assert_ne!(first, second);
    assert!(first.iter().all(|v| *v == 0.0 || *v == 2.0));
    Ok(())
}

#[test]
fn batch_norm_keeps_running_statistics() -> Result<()> {
    let gpu = Gpu::new()?;
    let norm = nn::BatchNorm::new(2).momentum(0.25);
    let g = Graph::new();
    let x = g.input([3, 2]);
    let y = norm.forward(&x);
    // A program of nothing that depends on the statistics leaves them alone, even where it computes the same.
    let (mean, _) = x.batch_statistics();
    let other = gpu.compile(&g.function([&x.relu(), &mean]))?;
    let program = gpu.compile(&g.function([&y]))?;
    let kept = || -> Result<Vec<f32>> {
        let all = norm.parameters().into_iter().filter(|(name, _)| name.starts_with("running"));
        Ok(all.map(|(_, param)| gpu.read_param(&param)).collect::<Result<Vec<_>>>()?.concat())
    };
    other.write(&x, &[1.0; 6])?.run()?;
    assert_eq!(kept()?, [0.0, 0.0, 1.0, 1.0]);
    // Means 2 and 4, unbiased variances 1 and 16.
    for _ in 0..2 {
        program.write(&x, &[1.0, 0.0, 2.0, 4.0, 3.0, 8.0])?.run()?;
    }
    let want = [0.875, 1.75, 1.0, 7.5625];
    assert!(kept()?.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-5), "{:?}", kept()?);
    let sum: f32 = program.read(&y)?.iter().sum();
    assert!(sum.abs() < 1e-5, "{sum}");

    let g = Graph::inference();
    let x = g.input([1, 2]);
    let y = norm.forward(&x);
    let program = gpu.compile(&g.function([&y]))?;
    program.write(&x, &[1.875, 1.75])?.run()?;
    let y = program.read(&y)?;
    assert!((y[0] - 1.0).abs() < 1e-4 && y[1].abs() < 1e-6, "{y:?}");
    Ok(())
}
