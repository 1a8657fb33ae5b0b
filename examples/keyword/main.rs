//! Learns to recognise short spoken-like words: waveforms that the program synthesises, log-mel features computed on the
//! GPU, a bidirectional GRU over them.
//!
//! `cargo run --release --example keyword -- --help`

mod features;
mod synth;

use clap::Parser;
use features::Features;
use shadegrad::gpu::Options;
use shadegrad::nn::{self, Module};
use shadegrad::optim::{Adam, Schedule};
use shadegrad::train::{Losses, interrupt, pictures, positive, progress};
use shadegrad::{Gpu, Graph, Program, Result, Tensor};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A bidirectional GRU learns synthesised words from their sound.
#[derive(Parser)]
struct Args {
    /// Training steps
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// Words per step
    #[arg(long, default_value_t = 32, value_parser = positive())]
    batch: usize,
    /// Units in each direction
    #[arg(long, default_value_t = 48, value_parser = positive())]
    hidden: usize,
    /// Learning rate, which follows a cosine to 0
    #[arg(long, default_value_t = 4e-3)]
    lr: f64,
    /// Held-out words
    #[arg(long, default_value_t = 1024, value_parser = positive())]
    test: usize,
    /// Seed of the first weights and of the sounds
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Adapter: a backend (vulkan, gl, metal, dx12) or a part of the name
    #[arg(long)]
    adapter: Option<String>,
}

/// Features, both directions of a GRU, linear on the mean over time.
struct Net {
    features: Features,
    gru: nn::Gru,
    fc: nn::Linear,
}

impl Net {
    /// Sounds [N, samples] -> log-mel features [N, frames, bands] and logits [N, words].
    fn forward(&self, sound: &Tensor) -> (Tensor, Tensor) {
        let x = self.features.of(sound);
        let y = self.gru.forward(&x).mean(&[1], false);
        (x, self.fc.forward(&y))
    }
}

/// A program that hears a batch of sounds.
struct Task {
    program: Program,
    sound: Tensor,
    words: Option<Tensor>,
    output: Tensor,
    features: Tensor,
}

impl Task {
    fn new(gpu: &Gpu, net: &Net, batch: usize, optimizer: Option<Adam>) -> Result<Task> {
        let g = if optimizer.is_some() { Graph::new() } else { Graph::inference() };
        let sound = g.input([batch, synth::SAMPLES]);
        let (features, logits) = net.forward(&sound);
        let (function, words, output) = match optimizer {
            Some(optimizer) => {
                let words = g.input_u32([batch]);
                let loss = logits.cross_entropy(&words);
                (g.minimize(&loss, optimizer), Some(words), loss)
            }
            None => {
                let answers = logits.argmax(&[1], false);
                (g.function([&answers, &features]), None, answers)
            }
        };
        Ok(Task { program: gpu.compile(&function)?, sound, words, output, features })
    }

    fn run(&self, (sound, words): &(Vec<f32>, Vec<u32>)) -> Result<()> {
        self.program.write(&self.sound, sound)?;
        if let Some(input) = &self.words {
            self.program.write_u32(input, words)?;
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
    let net = Net {
        features: Features::new(),
        gru: nn::Gru::new(features::BANDS, args.hidden).bidirectional().batch_first(),
        fc: nn::Linear::new(2 * args.hidden, synth::WORDS.len()),
    };
    let train = Task::new(&gpu, &net, args.batch, Some(Adam::new(args.lr).clip_norm(1.0)))?;
    let schedule = Schedule::parse("warmup:10+cosine", args.steps)?;
    println!("{gpu}\n{} words of {} samples at {} Hz", synth::WORDS.len(), synth::SAMPLES, synth::RATE);

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
        train.run(&synth::batch(&mut rng, args.batch))?;
        for (_, loss) in losses.step(&train.program, step + 1)? {
            recent = if recent.is_nan() { loss[0] } else { 0.95 * recent + 0.05 * loss[0] };
        }
        bar.set_message(format!("loss {recent:.4}"));
        bar.inc(1);
    }
    losses.finish()?;
    bar.finish_and_clear();

    let mut rng = fastrand::Rng::with_seed(!args.seed);
    let exam = Task::new(&gpu, &net, 64, None)?;
    let (mut right, mut all) = (0, 0);
    let (mut heard, mut spectra) = (Vec::new(), Vec::new());
    for _ in 0..args.test.div_ceil(64) {
        let batch = synth::batch(&mut rng, 64);
        exam.run(&batch)?;
        let answers = exam.program.read_u32(&exam.output)?;
        right += batch.1.iter().zip(&answers).filter(|(word, answer)| word == answer).count();
        all += answers.len();
        spectra = exam.program.read(&exam.features)?;
        heard = batch.1.into_iter().zip(answers).collect();
    }
    println!("loss {recent:.4}; of {all} held-out words {:.2} % are right", 100.0 * right as f64 / all as f64);
    draw(&heard, &spectra)?;
    println!("log-mel spectra in target/keyword.png; {:.1} s in all", started.elapsed().as_secs_f64());
    Ok(())
}

/// Some words as the network hears them, with its answers: time to the right, pitch upwards.
fn draw(heard: &[(u32, u32)], spectra: &[f32]) -> Result<()> {
    let (frames, bands) = (features::FRAMES, features::BANDS);
    let grey = |value: f32| (127.5 + 127.5 * value).clamp(0.0, 255.0) as u8;
    let turned = |one: &[f32]| -> Vec<u8> {
        let places = (0..bands).rev().flat_map(|band| (0..frames).map(move |frame| frame * bands + band));
        places.map(|place| grey(one[place])).collect()
    };
    let images: Vec<Vec<u8>> = spectra.chunks(frames * bands).take(16).map(turned).collect();
    let name = |word: u32| synth::WORDS[word as usize].name;
    let caption = |&(word, answer): &(u32, u32)| match word == answer {
        true => name(word).to_string(),
        false => format!("{}, not {}", name(answer), name(word)),
    };
    let mut tiles = Vec::new();
    for (pixels, answer) in images.iter().zip(heard) {
        let wrong = answer.0 != answer.1;
        tiles.push(pictures::Tile { pixels, height: bands, width: frames, caption: caption(answer), wrong });
    }
    pictures::contact_sheet("target/keyword.png", &tiles, 8)
}
