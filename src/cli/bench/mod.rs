//! `shadegrad bench`: times the engine.

mod cases;
mod host;
mod networks;
mod peers;
mod recurrent;
mod timing;

pub use timing::Start;

use clap::Subcommand;
use shadegrad::gpu::Options;
use shadegrad::{Gpu, Result};

#[derive(Subcommand)]
pub enum Command {
    /// The cases that other engines are measured by, too
    Peers(peers::Args),
    /// What a run costs the host, per dispatch
    Host(host::Args),
}

pub fn run(command: &Command, start: Start) -> Result<()> {
    match command {
        Command::Peers(args) => peers::run(args, start),
        Command::Host(args) => host::run(args),
    }
}

/// Opens the adapter that was named, else the best one.
fn open(adapter: &Option<String>) -> Result<Gpu> {
    Gpu::open(&Options { adapter: adapter.clone(), ..Options::default() })
}
