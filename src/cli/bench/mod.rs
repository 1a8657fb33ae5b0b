//! `shadegrad bench`: times the engine.

mod baseline;
pub mod cases;
mod chart;
mod device;
mod host;
mod kernel;
pub mod kernels;
mod networks;
mod peers;
mod recurrent;
mod report;
mod suite;
mod timing;

pub use timing::Start;

use clap::Subcommand;
use shadegrad::gpu::Options;
use shadegrad::{Gpu, Result};

#[derive(Subcommand)]
pub enum Command {
    /// The device's own limits: arithmetic, memory, workgroup memory, launches
    Device(device::Args),
    /// Single ops in shapes that networks have
    Kernels(suite::Args),
    /// Networks: inference and training steps
    Models(suite::Args),
    /// The cases that other engines are measured by, too
    Peers(peers::Args),
    /// What a run costs the host, per dispatch
    Host(host::Args),
}

/// A suite, or a file.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    suite: Option<Command>,
    #[command(flatten)]
    kernel: kernel::Args,
}

pub fn run(args: &Args, start: Start) -> Result<()> {
    match &args.suite {
        Some(Command::Device(args)) => device::run(args),
        Some(Command::Kernels(args)) => suite::run(args, kernels::all()),
        Some(Command::Models(args)) => suite::run(args, cases::models()),
        Some(Command::Peers(args)) => peers::run(args, start),
        Some(Command::Host(args)) => host::run(args),
        None => kernel::run(&args.kernel),
    }
}

/// Says so if other programs keep the machine busy, where the system tells.
fn warn_if_busy() {
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load: Option<f64> = load.and_then(|text| text.split(' ').next()?.parse().ok());
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    if let Some(load) = load.filter(|load| *load > 0.5 * cores) {
        eprintln!("the machine is busy: a load of {load} on {cores} cores; times will be longer than they need be");
    }
}

/// Opens the adapter that was named, else the best one.
fn open(adapter: &Option<String>) -> Result<Gpu> {
    Gpu::open(&Options { adapter: adapter.clone(), ..Options::default() })
}
