//! Trains a convolutional network on handwritten digits: drawn by the program itself, or MNIST's files.
//!
//! `cargo run --release --example mnist -- --help`

mod report;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use shadegrad::data::{Images, Order, digits, idx, order};
use shadegrad::gpu::Options;
use shadegrad::nn::{self, Module};
use shadegrad::ops::ImageBatch;
use shadegrad::optim::{self, Optimizer, Schedule};
use shadegrad::train::{Losses, Session};
use shadegrad::{Error, Gpu, Graph, Program, Result, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Trains a convolutional network on handwritten digits.
#[derive(Parser)]
struct Args {
    /// Folder with MNIST's IDX files, plain or gzipped; without it the program draws its own digits
    #[arg(long)]
    data: Option<PathBuf>,
    /// Passes over the training images
    #[arg(long)]
    epochs: Option<u64>,
    /// Images per step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Learning rate
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// sgd (momentum 0.9), adam, adamw, rmsprop or adagrad
    #[arg(long, default_value = "adam")]
    optimizer: String,
    /// Learning-rate schedule: constant, cosine, step:EVERY:GAMMA; warmup:STEPS+... before any
    #[arg(long, default_value = "warmup:50+cosine")]
    schedule: String,
    /// Seed of the first weights and of the order of the images
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Adapter: a backend (vulkan, gl, metal, dx12) or a part of the name
    #[arg(long)]
    adapter: Option<String>,
    /// Checkpoint to write after each epoch and at the end
    #[arg(long, default_value = "target/mnist.safetensors")]
    save: PathBuf,
    /// Checkpoint to go on from
    #[arg(long)]
    resume: Option<PathBuf>,
    /// Print the training program's dispatches
    #[arg(long)]
    listing: bool,
    /// Time each dispatch of the training program, and stop
    #[arg(long)]
    profile: bool,
}

fn main() {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn,wgpu_hal=off")).init();
    if let Err(error) = run(&Args::parse()) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn network() -> nn::Sequential {
    nn::sequential((
        ("conv1", nn::Conv2d::new(1, 32, 5).padding(2)),
        nn::Relu,
        nn::MaxPool2d::new(2),
        ("conv2", nn::Conv2d::new(32, 64, 5).padding(2)),
        nn::Relu,
        nn::MaxPool2d::new(2),
        nn::Flatten,
        ("fc1", nn::Linear::new(3136, 128)),
        nn::Relu,
        ("fc2", nn::Linear::new(128, 10)),
    ))
}

fn optimizer(name: &str, lr: f64) -> Result<Optimizer> {
    Ok(match name {
        "sgd" => optim::Sgd::new(lr).momentum(0.9).into(),
        "adam" => optim::Adam::new(lr).into(),
        "adamw" => optim::AdamW::new(lr).into(),
        "rmsprop" => optim::RmsProp::new(lr).into(),
        "adagrad" => optim::Adagrad::new(lr).into(),
        other => {
            return Err(Error::argument(other, "no such optimizer; there are sgd, adam, adamw, rmsprop and adagrad"));
        }
    })
}

/// One step of training on images that lie on the device: the program, its input (which images), and loss and
/// accuracy in one output.
struct Step {
    program: Program,
    indices: Tensor,
    stats: Tensor,
}

impl Step {
    fn new(gpu: &Gpu, net: &nn::Sequential, train: &Images, batch: usize, optimizer: Optimizer) -> Result<Step> {
        let (mean, std) = train.mean_std();
        let store = train.store();
        let g = Graph::new();
        let indices = g.input_u32([batch]);
        let x = g.param(&store.pixels).image_batch(&indices, &ImageBatch::new(store.shape, mean, std));
        let labels = g.param(&store.labels).index_select(0, &indices);
        let logits = net.forward(&x);
        let loss = logits.cross_entropy(&labels);
        let right = logits.argmax(&[1], false).eq(&labels).mean(&[], false);
        let stats = loss.reshape([1]).concat(&[&right.reshape([1])], 0);
        let program = gpu.compile(&g.minimize(&loss, optimizer).output(&stats))?;
        Ok(Step { program, indices, stats })
    }
}

/// The network's answers for all of `images`.
fn evaluate(gpu: &Gpu, net: &nn::Sequential, images: &Images, scale: (f32, f32)) -> Result<Vec<u32>> {
    const BATCH: usize = 250;
    let store = images.store();
    let g = Graph::inference();
    let indices = g.input_u32([BATCH]);
    let x = g.param(&store.pixels).image_batch(&indices, &ImageBatch::new(store.shape, scale.0, scale.1));
    let answers = net.forward(&x).argmax(&[1], false);
    let program = gpu.compile(&g.function([&answers]))?;
    let mut all = Vec::new();
    for range in order::ranges(images.len(), BATCH)? {
        // The last batch is filled up with its first image.
        let batch: Vec<u32> = (0..BATCH).map(|i| (range.start + if i < range.len() { i } else { 0 }) as u32).collect();
        program.write_u32(&indices, &batch)?.run()?;
        all.extend_from_slice(&program.read_u32(&answers)?[..range.len()]);
    }
    Ok(all)
}

fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let (train, test, epochs) = match &args.data {
        Some(folder) => {
            let (train, test) = idx::mnist(folder)?;
            (train, test, args.epochs.unwrap_or(3))
        }
        None => {
            let mut train = digits::draw(24_000, args.seed)?;
            let test = train.split_off(20_000)?;
            (train, test, args.epochs.unwrap_or(2))
        }
    };
    let gpu = Gpu::open(&Options { adapter: args.adapter.clone(), ..Options::default() })?;
    nn::manual_seed(args.seed);
    let net = network();
    let step = Step::new(&gpu, &net, &train, args.batch, optimizer(&args.optimizer, args.lr)?)?;
    if args.listing {
        println!("{}", step.program);
    }
    if args.profile {
        println!("{}", step.program.profile()?);
        return Ok(());
    }
    let mut order = Order::new(train.len(), args.batch, args.seed)?;
    let steps = epochs * order.steps_per_epoch();
    let schedule = Schedule::parse(&args.schedule, steps)?;
    let session = Session::new(&step.program, net.parameters(), args.seed)?;
    let first = match &args.resume {
        Some(path) => session.resume(path)?,
        None => 0,
    };
    println!("{gpu}\n{} training images, {} test images, {steps} steps of {}", train.len(), test.len(), args.batch);

    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let handler = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    handler.map_err(|error| Error::argument("Ctrl-C", error.to_string()))?;

    let style = "{bar:30.cyan/blue} {pos}/{len} steps  {msg}  {eta} left";
    let bar =
        ProgressBar::new(steps).with_style(ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()));
    bar.set_position(first);
    bar.reset_eta();
    let mut history = report::History::default();
    let mut losses = Losses::new(&step.stats, 2);
    let notes = BTreeMap::from([("optimizer".to_string(), args.optimizer.clone())]);
    let save =
        |done: u64| -> Result<()> { session.save(&args.save, done, done / order_len(&train, args.batch), &notes) };
    let begun = Instant::now();
    let mut done = first;
    while done < steps && !stop.load(Ordering::Relaxed) {
        step.program.set("lr", (args.lr * f64::from(schedule.at(done))) as f32)?;
        step.program.write_u32(&step.indices, order.batch(done))?.run()?;
        done += 1;
        for (at, values) in losses.step(&step.program, done)? {
            if at == first + 1 {
                bar.println(format!("first step after {:.2} s", started.elapsed().as_secs_f64()));
            }
            history.push(at, values[0], values[1]);
        }
        let rate = (done - first) as f64 * args.batch as f64 / begun.elapsed().as_secs_f64();
        bar.set_message(format!("{}  {rate:.0} images/s", history.recent()));
        bar.set_position(done);
        if done % order.steps_per_epoch() == 0 && done < steps {
            drop(losses.finish()?.into_iter().map(|(at, v)| history.push(at, v[0], v[1])).collect::<Vec<_>>());
            save(done)?;
        }
    }
    losses.finish()?.into_iter().for_each(|(at, v)| history.push(at, v[0], v[1]));
    let seconds = begun.elapsed().as_secs_f64();
    bar.finish_and_clear();
    save(done)?;
    if done < steps {
        println!("stopped after step {done}; to go on: add --resume {}", args.save.display());
        return Ok(());
    }
    let rate = (done - first) as f64 * args.batch as f64 / seconds;
    println!("{} in {seconds:.1} s, {rate:.0} images/s", history.recent());
    let answers = evaluate(&gpu, &net, &test, train.mean_std())?;
    report::finish(&gpu, &net, &test, &answers, &history)?;
    println!("{:.1} s in all", started.elapsed().as_secs_f64());
    Ok(())
}

fn order_len(images: &Images, batch: usize) -> u64 {
    (images.len() / batch).max(1) as u64
}
