//! `shadegrad bench host`: what a run costs the host, per dispatch.

use crate::cli::launch::chain;
use crate::cli::{median, say};
use serde_json::json;
use shadegrad::Result;
use shadegrad::wgpu;
use std::time::Instant;

/// Dispatches of the measured program.
const DISPATCHES: usize = 200;
const REPEATS: usize = 200;

#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A backend, a part of the adapter's name, or both as gl:llvmpipe
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let gpu = super::open(&args.adapter)?;
    super::warn_if_busy();
    let (program, _) = chain(&gpu, DISPATCHES)?;
    let dispatches = program.plan().steps.len() as f64;
    // The device is idle when a call begins, so that nothing but the host's own work is in it.
    let mut run = Vec::new();
    let mut parts: [Vec<f64>; 4] = Default::default();
    for _ in 0..REPEATS {
        let start = Instant::now();
        program.run()?;
        run.push(start.elapsed().as_secs_f64() * 1e6);
        gpu.wait()?;

        let mut mark = Instant::now();
        let mut lap = |part: usize| {
            parts[part].push(mark.elapsed().as_secs_f64() * 1e6);
            mark = Instant::now();
        };
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        lap(0);
        program.record(&mut encoder)?;
        lap(1);
        let commands = encoder.finish();
        lap(2);
        gpu.queue().submit([commands]);
        lap(3);
        gpu.wait()?;
    }
    let run = median(&mut run);
    let [encoder, record, finish, submit] = parts.map(|mut part| median(&mut part));
    if args.json {
        let line = json!({
            "device": gpu.to_string(), "dispatches": dispatches, "us_per_dispatch": run / dispatches, "run_us": run,
            "encoder_us": encoder, "record_us": record, "finish_us": finish, "submit_us": submit,
        });
        return say(&line.to_string());
    }
    say(&format!(
        "{gpu}\n{dispatches} dispatches, {:.2} us of the host for each\n\
         a run {run:.0} us; of its parts: encoder {encoder:.0}, record {record:.0}, finish {finish:.0}, submit {submit:.0}",
        run / dispatches
    ))
}
