//! The commands of the `shadegrad` program.

mod bench;
mod info;
mod launch;
mod tune;

use clap::{Parser, Subcommand};
use shadegrad::{Error, Result};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about = "Neural networks as hand-written WGSL compute shaders")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every adapter: its limits, its features and what a launch costs on it
    Info(info::Args),
    /// Measurements: of the engine, of the device, or of a WGSL kernel of your own
    Bench(Box<bench::Args>),
    /// Measures the kernels of networks ahead of time and keeps what wins, for programs that run with SHADEGRAD_TUNE=1
    Tune(tune::Args),
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let started = bench::Start::now();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn,wgpu_hal=off")).init();
    let done = match Cli::parse().command {
        Command::Info(args) => info::run(&args),
        Command::Bench(args) => bench::run(&args, started),
        Command::Tune(args) => tune::run(&args),
    };
    match done {
        // The reader had enough (`shadegrad ... | head`).
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done if even this cannot be written.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// Prints one or more lines at once.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| Error::io("standard output", e))
}

/// The middle of `values` (the mean of both middle ones); NaN of none.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
