//! `shadegrad tune`: chooses kernels by measurement.

use super::bench::{cases, kernels, warn_if_busy};
use super::say;
use shadegrad::gpu::Options;
use shadegrad::graph::choose::Choices;
use shadegrad::{Error, Gpu, Result};

#[derive(clap::Args)]
pub struct Args {
    /// Networks or single ops: names, or parts of names, as `--list` of `shadegrad bench models` and `bench kernels` shows them
    #[arg(default_values = ["mnist", "rnn"])]
    models: Vec<String>,
    /// Show everything that was tried, and why the winner won
    #[arg(long)]
    explain: bool,
    /// Measure anew what is known already
    #[arg(long)]
    fresh: bool,
    /// A backend, a part of the adapter's name, or both as gl:llvmpipe
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let all = [cases::models(), kernels::all()].into_iter().flatten().collect();
    let cases = cases::like(all, &args.models, "--list of `shadegrad bench models` and `bench kernels`")?;
    let choices = args.fresh.then(Choices::default);
    let gpu = Gpu::open(&Options { adapter: args.adapter.clone(), tune: true, choices, ..Options::default() })?;
    say(&gpu.to_string())?;
    warn_if_busy();
    let mut unkept = None;
    for case in cases {
        let tuned = gpu.tune(&case.job().function)?;
        let text = tuned.to_string();
        unkept = tuned.unkept.or(unkept);
        let shown = if args.explain { text.as_str() } else { text.lines().next_back().unwrap_or_default() };
        say(&format!("{}: {}{shown}", case.name, if args.explain { "\n" } else { "" }))?;
    }
    match unkept {
        Some(message) => Err(Error::argument("tune", format!("the choices are not kept: {message}"))),
        None => Ok(()),
    }
}
