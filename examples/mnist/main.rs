//! Trains a convolutional network on handwritten digits: drawn by the program itself, or MNIST's files.
//!
//! `cargo run --release --example mnist -- --help`

mod report;

use clap::Parser;
use shadegrad::data::{Images, Order, Store, digits, idx, order};
use shadegrad::gpu::Options;
use shadegrad::nn::{self, Module};
use shadegrad::ops::ImageBatch;
use shadegrad::optim::{self, Optimizer, Schedule};
use shadegrad::train::{Losses, Session, interrupt, positive, progress};
use shadegrad::{Error, Gpu, Graph, Program, Result, Tensor};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

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
    #[arg(long, default_value_t = 64, value_parser = positive())]
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
    fn new(gpu: &Gpu, net: &nn::Sequential, data: &Data, batch: usize, optimizer: Optimizer) -> Result<Step> {
        let store = &data.store;
        let g = Graph::new();
        let indices = g.input_u32([batch]);
        let x = g.param(&store.pixels).image_batch(&indices, &data.rule);
        let labels = g.param(&store.labels).index_select(0, &indices);
        let logits = net.forward(&x);
        let loss = logits.cross_entropy(&labels);
        let right = logits.argmax(&[1], false).eq(&labels).mean(&[], false);
        let stats = loss.reshape([1]).concat(&[&right.reshape([1])], 0);
        let program = gpu.compile(&g.minimize(&loss, optimizer).output(&stats))?;
        Ok(Step { program, indices, stats })
    }
}

/// The same weights at work: answers for all test images.
struct Exam {
    program: Program,
    indices: Tensor,
    answers: Tensor,
    images: usize,
}

impl Exam {
    const BATCH: usize = 250;

    fn new(gpu: &Gpu, net: &nn::Sequential, test: &Images, rule: &ImageBatch) -> Result<Exam> {
        let store = test.store();
        let g = Graph::inference();
        let indices = g.input_u32([Self::BATCH]);
        let x = g.param(&store.pixels).image_batch(&indices, rule);
        let answers = net.forward(&x).argmax(&[1], false);
        let program = gpu.compile(&g.function([&answers]))?;
        Ok(Exam { program, indices, answers, images: test.len() })
    }

    fn take(&self) -> Result<Vec<u32>> {
        let mut all = Vec::new();
        for range in order::ranges(self.images, Self::BATCH)? {
            // The last batch is filled up with its first image.
            let fill = |i| (range.start + if i < range.len() { i } else { 0 }) as u32;
            let batch: Vec<u32> = (0..Self::BATCH).map(fill).collect();
            self.program.write_u32(&self.indices, &batch)?.run()?;
            all.extend_from_slice(&self.program.read_u32(&self.answers)?[..range.len()]);
        }
        Ok(all)
    }
}

/// The images, some of them still on their way, and what programs have to know of them beforehand.
struct Data {
    store: Store,
    rule: ImageBatch,
    epochs: u64,
    images: JoinHandle<Result<(Images, Images)>>,
}

impl Data {
    /// Reads the folder's images for training and test, or starts to draw some.
    fn open(folder: Option<&Path>, seed: u64) -> Result<Data> {
        const TRAIN: usize = 16_000;
        const TEST: usize = 4_000;
        let (count, (mean, std), epochs, images) = match folder {
            Some(folder) => {
                let (train, test) = idx::mnist(folder)?;
                (train.len(), train.mean_std(), 3, thread::spawn(|| Ok((train, test))))
            }
            None => {
                let draw = move || {
                    let mut train = digits::draw(TRAIN + TEST, seed)?;
                    let test = train.split_off(TRAIN)?;
                    Ok((train, test))
                };
                (TRAIN, digits::MEAN_STD, 2, thread::spawn(draw))
            }
        };
        let shape = [1, digits::SIDE, digits::SIDE];
        Ok(Data { store: Store::new(shape, count), rule: ImageBatch::new(shape, mean, std), epochs, images })
    }
}

fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    // Better now than when there is something to save.
    if let Some(folder) = args.save.parent() {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    }
    nn::manual_seed(args.seed);
    let net = network();
    // The device opens and compiles while digits are drawn.
    let data = Data::open(args.data.as_deref(), args.seed)?;
    let gpu = Gpu::open(&Options { adapter: args.adapter.clone(), ..Options::default() })?;
    let step = Step::new(&gpu, &net, &data, args.batch, optimizer(&args.optimizer, args.lr)?)?;
    step.program.warm_up()?;
    let (train, test) = data.images.join().map_err(|_| Error::argument("digits", "drawing them failed"))??;
    data.store.fill(&gpu, &train)?;
    if args.listing || args.profile {
        println!("{}", step.program);
    }
    let mut order = Order::new(train.len(), args.batch, args.seed)?;
    if args.profile {
        step.program.write_u32(&step.indices, order.batch(0))?;
        println!("{}", step.program.profile()?);
        return Ok(());
    }
    let per_epoch = order.steps_per_epoch();
    let steps = args.epochs.unwrap_or(data.epochs) * per_epoch;
    let schedule = Schedule::parse(&args.schedule, steps)?;
    let session = Session::new(&step.program, net.parameters(), args.seed)?;
    let first = args.resume.as_ref().map_or(Ok(0), |path| session.resume(path))?;
    println!("{gpu}\n{} training images, {} test images, {steps} steps of {}", train.len(), test.len(), args.batch);

    let notes = BTreeMap::from([("optimizer".to_string(), args.optimizer.clone())]);
    let save = |done: u64| session.save(&args.save, done, done / per_epoch, &notes);
    let stop = interrupt()?;
    let bar = progress(steps, first);
    let mut history = report::History::default();
    let mut losses = Losses::new(&step.stats, 2);
    let mut exam = None;
    let (mut done, mut training) = (first, Duration::ZERO);
    while done < steps && !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        step.program.set("lr", (args.lr * f64::from(schedule.at(done))) as f32)?;
        step.program.write_u32(&step.indices, order.batch(done))?.run()?;
        done += 1;
        let last = done % per_epoch == 0 || done == steps;
        // The first step and an epoch's last are waited for; the others arrive two steps later.
        let arrived = if last || done == first + 1 {
            losses.wait(&step.program, done)?
        } else {
            losses.step(&step.program, done)?
        };
        arrived.iter().for_each(|(at, values)| history.push(*at, values[0], values[1]));
        training += begun.elapsed();
        if done == first + 1 {
            bar.suspend(|| println!("first step {:.2} s after the start", started.elapsed().as_secs_f64()));
        }
        let rate = (done - first) as f64 * args.batch as f64 / training.as_secs_f64();
        bar.set_message(format!("{}  {rate:.0} images/s", history.recent()));
        bar.set_position(done);
        if last {
            save(done)?;
            if exam.is_none() {
                exam = Some(Exam::new(&gpu, &net, &test, &data.rule)?);
            }
            let answers = exam.as_ref().map_or(Ok(Vec::new()), Exam::take)?;
            let right = report::share_right(&test, &answers);
            bar.suspend(|| {
                println!(
                    "epoch {}: {}, test {:.2} %, {rate:.0} images/s",
                    done / per_epoch,
                    history.recent(),
                    100.0 * right
                )
            });
            if done == steps {
                bar.finish_and_clear();
                report::finish(&gpu, &net, &test, &answers, &history)?;
            }
        }
    }
    if done < steps {
        losses.finish()?;
        save(done)?;
        bar.finish_and_clear();
        println!("stopped after step {done}; to go on, add --resume {}", args.save.display());
    }
    println!("{:.1} s in all", started.elapsed().as_secs_f64());
    Ok(())
}
