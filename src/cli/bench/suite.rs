//! `shadegrad bench kernels` and `bench models`: the engine under the device's roofs.

use super::baseline::{self, Baseline, percent};
use super::cases::{Case, Job, like};
use super::chart;
use super::report::{Format, Row, warn_of_doubtful};
use super::timing::{Times, on_device, seconds, sets};
use crate::cli::say;
use indicatif::{ProgressBar, ProgressStyle};
use shadegrad::gpu::Options;
use shadegrad::{Error, Gpu, Program, Result, Tensor};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    /// Names, or parts of names; all cases without
    only: Vec<String>,
    #[command(flatten)]
    format: Format,
    /// Draw the roofline with each case as a point and, beside a baseline, a bar for each case
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Compare with what --json printed before; fails if a case became slower
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// How much longer than in the baseline a case may take
    #[arg(long, value_name = "PERCENT", default_value = "10", requires = "compare")]
    #[arg(value_parser = percent, allow_negative_numbers = true)]
    regression: f64,
    /// Choose kernels by measurement first
    #[arg(long)]
    tune: bool,
    /// Seconds of measurement for each case
    #[arg(long, default_value = "1", value_parser = seconds, allow_negative_numbers = true)]
    seconds: Duration,
    /// Print the names of the cases alone
    #[arg(long)]
    list: bool,
    /// A backend, a part of the adapter's name, or both as gl:llvmpipe
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// After each case, print the time of each of its dispatches
    #[arg(long, conflicts_with_all = ["json", "csv", "markdown"])]
    profile: bool,
}

/// Seconds of a run, at the device's peak, of cases that are measured without being named.
const LONGEST: f64 = 1.0;

pub fn run(args: &Args, all: Vec<Case>) -> Result<()> {
    let cases = like(all, &args.only, "--list")?;
    if args.list {
        return cases.iter().try_for_each(|case| say(&case.name));
    }
    // A baseline that cannot be read is told before the work.
    let baseline = args.compare.as_deref().map(Baseline::load).transpose()?;
    let gpu = Gpu::open(&Options { adapter: args.adapter.clone(), tune: args.tune, ..Options::default() })?;
    if let Some(baseline) = &baseline {
        baseline.check(&gpu.to_string())?;
    }
    super::warn_if_busy();
    let roofline = super::roofline(&gpu, false)?;
    let quick = |case: &Case| !args.only.is_empty() || case.flops < LONGEST * roofline.arithmetic * 1e9;
    let (cases, long): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(quick);
    if !long.is_empty() {
        let names: Vec<&str> = long.iter().map(|case| case.name.as_str()).collect();
        log::warn!(
            "left out, as a run takes more than a second on this device, unless they are named: {}",
            names.join(", ")
        );
    }
    let table = args.format.table(cases.iter().map(|case| case.name.as_str()), baseline.is_some());
    table.head(&gpu.to_string(), gpu.clock(), &roofline)?;
    let bar = ProgressBar::new(cases.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").unwrap_or(ProgressStyle::default_bar()));
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for case in &cases {
        bar.set_message(case.name.clone());
        match measure(&gpu, case, args.seconds) {
            Ok((row, program)) => {
                let mut row = row.under(&roofline, case.factors);
                row.ratio = baseline.as_ref().and_then(|baseline| baseline.ratio(&row));
                bar.suspend(|| table.row(&row))?;
                if args.profile {
                    let profile = program.profile()?;
                    bar.suspend(|| say(&profile.to_string()))?;
                }
                rows.push(row);
            }
            Err(error) => {
                bar.suspend(|| table.failure(&case.name, &error))?;
                failed.push(case.name.as_str());
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    warn_of_doubtful(&rows);
    if let Some(path) = &args.svg {
        chart::draw(path, &gpu.to_string(), &roofline, &rows)?;
    }
    all_measured(&failed)?;
    if baseline.is_some() { baseline::judge(&rows, args.regression) } else { Ok(()) }
}

/// An error if there are cases that failed.
pub fn all_measured(failed: &[&str]) -> Result<()> {
    match failed {
        [] => Ok(()),
        _ => Err(Error::argument("bench", format!("{} could not be measured", failed.join(", ")))),
    }
}

fn measure(gpu: &Gpu, case: &Case, budget: Duration) -> Result<(Row, Program)> {
    let start = Instant::now();
    let first = program(gpu, case.job())?;
    first.run()?;
    gpu.wait()?;
    let cold = start.elapsed().as_secs_f64() * 1e3;
    let plan = first.plan();
    let ports = plan.inputs.iter().chain(&plan.outputs).map(|port| port.desc.bytes());
    let weights = first.params().iter().map(|param| param.desc().bytes());
    let ports = ports.chain(weights).sum::<usize>() as f64;
    let bytes = if case.bytes > 0.0 { case.bytes } else { ports };
    let flops = if case.flops > 0.0 { case.flops } else { plan.steps.iter().map(|step| step.flops as f64).sum() };
    let mut kernels: Vec<&str> = plan.steps.iter().map(|step| step.candidate).collect();
    kernels.dedup();
    let kernels = kernels.join("+");
    let sets = sets(ports);
    let mut programs = vec![first];
    for _ in 1..sets {
        programs.push(program(gpu, case.job())?);
    }
    let (mut turn, mut recorded) = (0, Ok(()));
    let Times { median, min, spread, reps } = on_device(gpu, budget, |encoder| {
        recorded = programs[turn % sets].record(encoder);
        turn += 1;
    })?;
    recorded?;
    let (name, clock) = (case.name.clone(), gpu.clock());
    let row = Row { name, median, min, spread, reps, flops, bytes, roof: None, kernels, cold, clock, ratio: None };
    Ok((row, programs.swap_remove(0)))
}

/// The program, its inputs written.
pub fn program(gpu: &Gpu, job: Job) -> Result<Program> {
    let program = gpu.compile(&job.function)?;
    // A gradient does not need every input.
    let needed = |tensor: &Tensor| program.plan().inputs.iter().any(|port| port.value == tensor.value());
    for (tensor, data) in job.data.iter().filter(|(tensor, _)| needed(tensor)) {
        data.write(&program, tensor)?;
    }
    gpu.wait()?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_that_failed_are_named() {
        assert!(all_measured(&[]).is_ok());
        assert_eq!(all_measured(&["a", "b"]).unwrap_err().to_string(), "bench: a, b could not be measured");
    }
}
