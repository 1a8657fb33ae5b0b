//! An LSTM learns to tell sequences apart by something that happened long before their end.
//!
//! Each sequence is 20 to 60 random tokens, in which the markers A and B stand once each, anywhere. Its class says which of
//! them came first and whether a third marker, C, stood between them: four classes, which no count of tokens tells.
//!
//! `cargo run --release --example rnn_classifier -- --help`

use clap::Parser;
use shadegrad::gpu::Options;
use shadegrad::nn::{self, Module};
use shadegrad::ops::States;
use shadegrad::optim::{Adam, Schedule};
use shadegrad::train::{Losses, interrupt, positive, progress};
use shadegrad::{Function, Gpu, Graph, Param, Program, Result, Tensor};
use std::sync::atomic::Ordering;
use std::time::Instant;

const LONGEST: usize = 60;
const SHORTEST: usize = 20;
/// Token 0 fills sequences up, 1 to 3 are the markers, the others are noise.
const TOKENS: usize = 20;
const CLASSES: usize = 4;

/// An LSTM learns the order of markers in long sequences.
#[derive(Parser)]
struct Args {
    /// Training steps
    #[arg(long, default_value_t = 800)]
    steps: u64,
    /// Sequences per step
    #[arg(long, default_value_t = 64, value_parser = positive())]
    batch: usize,
    /// Units in a layer
    #[arg(long, default_value_t = 64, value_parser = positive())]
    hidden: usize,
    /// LSTM layers
    #[arg(long, default_value_t = 2, value_parser = positive())]
    layers: usize,
    /// Learning rate, which follows a cosine to 0
    #[arg(long, default_value_t = 4e-3)]
    lr: f64,
    /// Held-out sequences
    #[arg(long, default_value_t = 4096, value_parser = positive())]
    test: usize,
    /// Seed of the first weights and of the sequences
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Adapter: a backend (vulkan, gl, metal, dx12) or a part of the name
    #[arg(long)]
    adapter: Option<String>,
}

/// Embedding, LSTM layers, linear on the last step.
struct Classifier {
    embedding: nn::Embedding,
    lstm: nn::Lstm,
    fc: nn::Linear,
}

impl Classifier {
    fn new(hidden: usize, layers: usize) -> Classifier {
        Classifier {
            embedding: nn::Embedding::new(TOKENS, 32).padding_idx(0),
            lstm: nn::Lstm::new(32, hidden).layers(layers).batch_first(),
            fc: nn::Linear::new(hidden, CLASSES),
        }
    }

    /// Zeros for the states before the first step, [layers, N, hidden].
    fn init_hidden(&self, g: &Graph, batch: usize) -> States {
        let zeros = || g.full(self.lstm.state_shape(batch), 0.0);
        States { h: zeros(), c: Some(zeros()) }
    }

    /// Tokens [N, T], their lengths `[N]` and the states before them -> logits [N, classes] and the states after.
    fn forward(&self, tokens: &Tensor, lengths: &Tensor, hidden: &States) -> (Tensor, States) {
        let x = self.embedding.forward(tokens);
        let (_, last) = self.lstm.run(&x, Some(hidden), Some(lengths));
        // The top layer's state at each sequence's own last step.
        let layers = last.h.shape()[0];
        (self.fc.forward(&last.h.narrow(0, layers - 1, 1).squeeze(0)), last)
    }

    fn parameters(&self) -> Vec<(String, Param)> {
        let parts: [(&str, &dyn Module); 3] = [("embedding", &self.embedding), ("lstm", &self.lstm), ("fc", &self.fc)];
        parts.into_iter().flat_map(|(name, part)| nn::prefixed(name, part)).collect()
    }
}

/// A batch of sequences, their lengths and their classes.
struct Batch {
    tokens: Vec<u32>,
    lengths: Vec<u32>,
    classes: Vec<u32>,
}

fn draw(rng: &mut fastrand::Rng, count: usize) -> Batch {
    let mut batch = Batch { tokens: Vec::new(), lengths: Vec::new(), classes: Vec::new() };
    for _ in 0..count {
        let length = rng.usize(SHORTEST..=LONGEST);
        let mut tokens: Vec<u32> = (0..LONGEST).map(|_| rng.u32(4..TOKENS as u32)).collect();
        tokens[length..].fill(0);
        // Two places with at least one between them, and the third marker between or outside.
        let early = rng.usize(..length - 2);
        let late = rng.usize(early + 2..length);
        let outside: Vec<usize> = (0..length).filter(|&at| at < early || at > late).collect();
        let between = outside.is_empty() || rng.bool();
        let third = if between { rng.usize(early + 1..late) } else { outside[rng.usize(..outside.len())] };
        let a_first = rng.bool();
        (tokens[early], tokens[late], tokens[third]) = if a_first { (1, 2, 3) } else { (2, 1, 3) };
        batch.tokens.extend(tokens);
        batch.lengths.push(length as u32);
        batch.classes.push(2 * u32::from(a_first) + u32::from(between));
    }
    batch
}

/// A program with its inputs, and one output: the loss, or the answers.
struct Task {
    program: Program,
    tokens: Tensor,
    lengths: Tensor,
    classes: Option<Tensor>,
    output: Tensor,
}

impl Task {
    fn new(gpu: &Gpu, net: &Classifier, batch: usize, optimizer: Option<Adam>) -> Result<Task> {
        let g = if optimizer.is_some() { Graph::new() } else { Graph::inference() };
        let (tokens, lengths) = (g.input_u32([batch, LONGEST]), g.input_u32([batch]));
        let (logits, _) = net.forward(&tokens, &lengths, &net.init_hidden(&g, batch));
        let (function, classes, output): (Function, _, _) = match optimizer {
            Some(optimizer) => {
                let classes = g.input_u32([batch]);
                let loss = logits.cross_entropy(&classes);
                (g.minimize(&loss, optimizer), Some(classes), loss)
            }
            None => {
                let answers = logits.argmax(&[1], false);
                (g.function([&answers]), None, answers)
            }
        };
        Ok(Task { program: gpu.compile(&function)?, tokens, lengths, classes, output })
    }

    fn run(&self, batch: &Batch) -> Result<()> {
        self.program.write_u32(&self.tokens, &batch.tokens)?.write_u32(&self.lengths, &batch.lengths)?;
        if let Some(classes) = &self.classes {
            self.program.write_u32(classes, &batch.classes)?;
        }
        self.program.run()
    }
}

fn main() {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn,wgpu_hal=off")).init();
    if let Err(error) = run(&Args::parse()) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let gpu = Gpu::open(&Options { adapter: args.adapter.clone(), ..Options::default() })?;
    nn::manual_seed(args.seed);
    let net = Classifier::new(args.hidden, args.layers);
    let weights: usize = net.parameters().iter().map(|(_, param)| param.desc().elements()).sum();
    let train = Task::new(&gpu, &net, args.batch, Some(Adam::new(args.lr).clip_norm(1.0)))?;
    let schedule = Schedule::parse("warmup:20+cosine", args.steps)?;
    println!("{gpu}\n{weights} weights; sequences of {SHORTEST} to {LONGEST} tokens, {CLASSES} classes");

    let mut rng = fastrand::Rng::with_seed(args.seed);
    let stop = interrupt()?;
    let bar = progress(args.steps, 0);
    let mut losses = Losses::new(&train.output, 2);
    let mut recent = f32::NAN;
    for step in 0..args.steps {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        train.program.set("lr", (args.lr * f64::from(schedule.at(step))) as f32)?;
        train.run(&draw(&mut rng, args.batch))?;
        for (_, loss) in losses.step(&train.program, step + 1)? {
            recent = if recent.is_nan() { loss[0] } else { 0.98 * recent + 0.02 * loss[0] };
        }
        bar.set_message(format!("loss {recent:.4}"));
        bar.inc(1);
    }
    losses.finish()?;
    bar.finish_and_clear();

    // Sequences of a generator of their own, which training has not seen.
    let mut rng = fastrand::Rng::with_seed(!args.seed);
    let exam = Task::new(&gpu, &net, 256, None)?;
    let mut table = [[0u32; CLASSES]; CLASSES];
    for _ in 0..args.test.div_ceil(256) {
        let batch = draw(&mut rng, 256);
        exam.run(&batch)?;
        let answers = exam.program.read_u32(&exam.output)?;
        batch.classes.iter().zip(&answers).for_each(|(&class, &answer)| table[class as usize][answer as usize] += 1);
    }
    let right: u32 = (0..CLASSES).map(|class| table[class][class]).sum();
    let all: u32 = table.iter().flatten().sum();
    println!(
        "loss {recent:.4}; of {all} held-out sequences {:.2} % are right",
        100.0 * f64::from(right) / f64::from(all)
    );
    let names = ["B before A", "B, C, A", "A before B", "A, C, B"];
    println!("{:12} {}", "", names.map(|name| format!("{name:>11}")).concat());
    for (name, row) in names.iter().zip(&table) {
        println!("{name:12} {}", row.map(|count| format!("{count:>11}")).concat());
    }
    println!("{:.1} s in all", started.elapsed().as_secs_f64());
    Ok(())
}
