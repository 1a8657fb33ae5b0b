//! Learns to write, character by character: from a text file, or from small stories that the program makes up.
//!
//! `cargo run --release --example char_rnn -- --help`

mod model;
mod text;

use clap::{Parser, ValueEnum};
use model::{Model, Pass, Writer};
use shadegrad::gpu::Options;
use shadegrad::io::{Checkpoint, load_state_dict};
use shadegrad::nn;
use shadegrad::optim::{Adam, Schedule};
use shadegrad::train::{Losses, Session, interrupt, positive, progress};
use shadegrad::{Error, Gpu, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use text::Alphabet;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Cell {
    Gru,
    Lstm,
}

/// Learns to write, character by character.
#[derive(Parser)]
struct Args {
    /// Text to learn from; without it the program makes up its own
    #[arg(long)]
    text: Option<PathBuf>,
    /// Recurrent cell
    #[arg(long, value_enum, default_value = "gru")]
    cell: Cell,
    /// Units in a layer
    #[arg(long, default_value_t = 256, value_parser = positive())]
    hidden: usize,
    /// Recurrent layers
    #[arg(long, default_value_t = 1, value_parser = positive())]
    layers: usize,
    /// Characters that gradients go back through
    #[arg(long, default_value_t = 64, value_parser = positive())]
    steps: usize,
    /// Passages read at the same time
    #[arg(long, default_value_t = 32, value_parser = positive())]
    batch: usize,
    /// Passes over the text
    #[arg(long, default_value_t = 4)]
    epochs: u64,
    /// Learning rate
    #[arg(long, default_value_t = 4e-3)]
    lr: f64,
    /// Learning-rate schedule: constant, cosine, step:EVERY:GAMMA; warmup:STEPS+... before any
    #[arg(long, default_value = "warmup:20+cosine")]
    schedule: String,
    /// Seed of the first weights, of the made-up text and of the samples
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Adapter: a backend (vulkan, gl, metal, dx12) or a part of the name
    #[arg(long)]
    adapter: Option<String>,
    /// Checkpoint to write after each epoch and at the end
    #[arg(long, default_value = "target/char_rnn.safetensors")]
    save: PathBuf,
    /// Checkpoint to go on from
    #[arg(long, conflicts_with = "sample")]
    resume: Option<PathBuf>,
    /// Do not train: write with the model in this checkpoint
    #[arg(long, value_name = "CHECKPOINT")]
    sample: Option<PathBuf>,
    /// Characters to write
    #[arg(long, default_value_t = 300)]
    length: usize,
    /// What a sample begins with
    #[arg(long, default_value = "\n")]
    prompt: String,
    /// Below 1 the likely becomes likelier, above 1 the rest does
    #[arg(long, default_value_t = 0.8)]
    temperature: f32,
    /// Print the training program's dispatches
    #[arg(long)]
    listing: bool,
    /// Time each dispatch of the training program, and stop
    #[arg(long)]
    profile: bool,
}

fn main() {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn,wgpu_hal=off")).init();
    let args = Args::parse();
    let done = match &args.sample {
        Some(checkpoint) => sample(&args, checkpoint),
        None => train(&args),
    };
    if let Err(error) = done {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn open(args: &Args) -> Result<Gpu> {
    if !(args.temperature > 0.0 && args.temperature.is_finite()) {
        return Err(Error::argument("temperature", format!("{} is not above 0", args.temperature)));
    }
    Gpu::open(&Options { adapter: args.adapter.clone(), ..Options::default() })
}

/// What a checkpoint says about its model.
fn notes(args: &Args, alphabet: &Alphabet) -> BTreeMap<String, String> {
    let cell = if args.cell == Cell::Lstm { "lstm" } else { "gru" };
    let note = |name: &str, value: String| (name.to_string(), value);
    BTreeMap::from([
        note("alphabet", alphabet.text()),
        note("cell", cell.into()),
        note("hidden", args.hidden.to_string()),
        note("layers", args.layers.to_string()),
    ])
}

fn sample(args: &Args, path: &PathBuf) -> Result<()> {
    let gpu = open(args)?;
    let checkpoint = Checkpoint::load_latest(path)?;
    let note = |name: &str| {
        let missing = || Error::argument(path.display().to_string(), format!("is no character model: no {name}"));
        checkpoint.notes.get(name).ok_or_else(missing)
    };
    let number = |name: &str| {
        let text = note(name)?;
        text.parse().map_err(|_| Error::argument(name, format!("{text:?} in the checkpoint is no number")))
    };
    let alphabet = Alphabet::of(note("alphabet")?);
    let model = Model::new(note("cell")? == "lstm", alphabet.len(), number("hidden")?, number("layers")?);
    load_state_dict(&gpu, &model.parameters(), &checkpoint.model)?;
    let writer = Writer::new(&gpu, &model)?;
    let written = writer.write(&alphabet.encode(&args.prompt)?, args.length, args.temperature, args.seed)?;
    println!("{}{}", args.prompt.trim_start(), alphabet.decode(&written));
    Ok(())
}

/// Nats as bits.
fn bits(loss: f32) -> f32 {
    loss / std::f32::consts::LN_2
}

/// The mean loss over a text.
fn validate(pass: &Pass, text: &[u32]) -> Result<f32> {
    pass.forget()?;
    let steps = pass.steps(text);
    let mut sum = 0.0;
    for n in 0..steps {
        pass.run(text, n)?;
        sum += pass.program.read(&pass.loss)?[0];
    }
    Ok(sum / steps as f32)
}

fn train(args: &Args) -> Result<()> {
    let started = Instant::now();
    // Better now than when there is something to save.
    if let Some(folder) = args.save.parent() {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
    }
    let gpu = open(args)?;
    let text = text::load(args.text.as_deref(), args.seed)?;
    let alphabet = Alphabet::of(&text);
    let tokens = alphabet.encode(&text)?;
    // A step of training, and one of validation.
    let least = 10 * args.batch * (args.steps + 1);
    if tokens.len() < least {
        let message = format!("{} characters are too few for this batch and length: at least {least}", tokens.len());
        return Err(Error::argument("text", message));
    }
    // The last tenth is for validation.
    let (learn, check) = tokens.split_at(tokens.len() - tokens.len() / 10);
    nn::manual_seed(args.seed);
    let model = Model::new(args.cell == Cell::Lstm, alphabet.len(), args.hidden, args.layers);
    let optimizer = Adam::new(args.lr).clip_norm(1.0);
    let pass = Pass::new(&gpu, &model, [args.steps, args.batch], Some(optimizer))?;
    if args.listing || args.profile {
        println!("{}", pass.program);
    }
    if args.profile {
        pass.run(learn, 0)?;
        println!("{}", pass.program.profile()?);
        return Ok(());
    }
    let exam = Pass::new(&gpu, &model, [args.steps, args.batch], None)?;
    let writer = Writer::new(&gpu, &model)?;
    let per_epoch = pass.steps(learn) as u64;
    let steps = args.epochs * per_epoch;
    let schedule = Schedule::parse(&args.schedule, steps)?;
    let session = Session::new(&pass.program, model.parameters(), args.seed)?;
    let first = args.resume.as_ref().map_or(Ok(0), |path| session.resume(path))?;
    println!("{gpu}\n{} characters, {} different ones; {steps} steps", tokens.len(), alphabet.len());

    let notes = notes(args, &alphabet);
    let prompt = alphabet.encode(&args.prompt)?;
    let stop = interrupt()?;
    let bar = progress(steps, first);
    let mut losses = Losses::new(&pass.loss, 2);
    let (mut done, mut recent, mut training) = (first, f32::NAN, Duration::ZERO);
    while done < steps && !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        if done % per_epoch == 0 {
            pass.forget()?;
        }
        pass.program.set("lr", (args.lr * f64::from(schedule.at(done))) as f32)?;
        pass.run(learn, (done % per_epoch) as usize)?;
        done += 1;
        let last = done % per_epoch == 0;
        let arrived = if last { losses.wait(&pass.program, done)? } else { losses.step(&pass.program, done)? };
        for (_, loss) in arrived {
            recent = if recent.is_nan() { loss[0] } else { 0.95 * recent + 0.05 * loss[0] };
        }
        training += begun.elapsed();
        let rate = (done - first) as f64 * (args.steps * args.batch) as f64 / training.as_secs_f64();
        bar.set_message(format!("{:.3} bits/char  {rate:.0} chars/s", bits(recent)));
        bar.set_position(done);
        if last {
            session.save(&args.save, done, done / per_epoch, &notes)?;
            let loss = validate(&exam, check)?;
            let written = writer.write(&prompt, args.length, args.temperature, args.seed)?;
            bar.suspend(|| {
                let [epoch, all] = [done / per_epoch, args.epochs];
                println!(
                    "epoch {epoch} of {all}: {:.3}, validation {:.3} bits/char, {rate:.0} chars/s",
                    bits(recent),
                    bits(loss)
                );
                println!("---\n{}\n---", alphabet.decode(&written).trim());
            });
        }
    }
    bar.finish_and_clear();
    if done < steps {
        losses.finish()?;
        session.save(&args.save, done, done / per_epoch, &notes)?;
        println!("stopped after step {done}; to go on, add --resume {}", args.save.display());
    } else {
        println!("to write more: --sample {}", args.save.display());
    }
    println!("{:.1} s in all", started.elapsed().as_secs_f64());
    Ok(())
}
