//! `shadegrad bench`: times the engine.

mod baseline;
pub mod cases;
mod chart;
mod device;
mod host;
mod kernel;
pub mod kernels;
mod labels;
mod networks;
mod peers;
mod recurrent;
mod report;
mod suite;
mod timing;

pub use timing::Start;

use clap::Subcommand;
use indicatif::ProgressBar;
use shadegrad::gpu::Options;
use shadegrad::tune::{self, Roofline};
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
pub fn warn_if_busy() {
    if let Some(share) = tune::busy() {
        let percent = 100.0 * share;
        eprintln!(
            "the machine is busy: other programs use {percent:.0} % of its processors; times will be longer than they need be"
        );
    }
}

/// The device's limits; says so where they have to be measured first, which takes a while.
fn roofline(gpu: &Gpu, fresh: bool) -> Result<Roofline> {
    let mut bar: Option<ProgressBar> = None;
    let roofline = Roofline::of(gpu, fresh, &mut |what| {
        let bar = bar.get_or_insert_with(|| {
            eprintln!("measuring what the device can do at the most, for this and later runs: about half a minute");
            ProgressBar::new_spinner()
        });
        bar.set_message(what.to_string());
        bar.tick();
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    roofline
}

/// Opens the adapter that was named, else the best one.
fn open(adapter: &Option<String>) -> Result<Gpu> {
    Gpu::open(&Options { adapter: adapter.clone(), ..Options::default() })
}
