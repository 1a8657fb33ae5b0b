//! `shadegrad bench kernels` and `bench models`: the engine under the device's roofs.

use super::baseline::{self, Baseline};
use super::cases::{Case, Job, like};
use super::chart;
use super::report::{Format, Row};
use super::timing::{Times, on_device, sets};
use crate::cli::say;
use indicatif::{ProgressBar, ProgressStyle};
use shadegrad::gpu::Options;
use shadegrad::tune::Roofline;
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
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, requires = "compare")]
    regression: f64,
    /// Choose kernels by measurement first
    #[arg(long)]
    tune: bool,
    /// Seconds of measurement for each case
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
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
    let cases = like(all, &args.only);
    if cases.is_empty() {
        return Err(Error::argument("bench", format!("no case is like {:?}; --list names them", args.only)));
    }
    if args.list {
        return cases.iter().try_for_each(|case| say(&case.name));
    }
    // A baseline that cannot be read is told before the work.
    let baseline = args.compare.as_deref().map(Baseline::load).transpose()?;
    let budget = Duration::try_from_secs_f64(args.seconds)
        .map_err(|_| Error::argument("--seconds", format!("{} is no length of time", args.seconds)))?;
    let gpu = Gpu::open(&Options { adapter: args.adapter.clone(), tune: args.tune, ..Options::default() })?;
    if let Some(baseline) = &baseline {
        baseline.check(&gpu.to_string())?;
    }
    super::warn_if_busy();
    let roofline = Roofline::of(&gpu, false)?;
    let quick = |case: &Case| !args.only.is_empty() || case.flops < LONGEST * roofline.arithmetic * 1e9;
    let (cases, long): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(quick);
    if !long.is_empty() {
        let names: Vec<&str> = long.iter().map(|case| case.name.as_str()).collect();
        log::warn!(
            "left out, as a run takes more than a second on this device, unless they are named: {}",
            names.join(", ")
        );
    }
    args.format.head(&gpu.to_string(), gpu.clock(), &roofline)?;
    let bar = ProgressBar::new(cases.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").unwrap_or(ProgressStyle::default_bar()));
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for case in &cases {
        bar.set_message(case.name.clone());
        match measure(&gpu, case, budget) {
            Ok((row, program)) => {
                let row = row.under(&roofline, case.factors);
                bar.suspend(|| args.format.row(&row))?;
                if args.profile {
                    let profile = program.profile()?;
                    bar.suspend(|| say(&profile.to_string()))?;
                }
                rows.push(row);
            }
            Err(error) => {
                bar.suspend(|| args.format.failure(&case.name, &error))?;
                failed.push(case.name.as_str());
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let wide: Vec<&str> = rows.iter().filter(|row| row.is_wide()).map(|row| row.name.as_str()).collect();
    if !wide.is_empty() {
        eprintln!("the times of {} are spread widely: their medians say little", wide.join(", "));
    }
    let above: Vec<&str> = rows.iter().filter(|row| row.is_above_roof()).map(|row| row.name.as_str()).collect();
    if !above.is_empty() {
        eprintln!(
            "{} came above the roof: either a cache or a method with fewer operations explains it, or the roof was measured \
             in a slow moment, and `shadegrad bench device --fresh` measures it anew",
            above.join(", ")
        );
    }
    let changes = baseline.as_ref().map(|baseline| baseline.changes(&rows)).unwrap_or_default();
    if let Some(path) = &args.svg {
        chart::draw(path, &gpu.to_string(), &roofline, &rows, &changes)?;
    }
    if !failed.is_empty() {
        return Err(Error::argument("bench", format!("{} could not be measured", failed.join(", "))));
    }
    if baseline.is_some() && changes.is_empty() {
        return Err(Error::argument("--compare", "no case that was measured is in the baseline"));
    }
    baseline::judge(&changes, args.regression)
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
    let kernels = summary(&kernels);
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
    let row = Row { name, median, min, spread, reps, flops, bytes, roof: None, kernels, cold, clock };
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

/// A few names, and how many more there are.
fn summary(kernels: &[&str]) -> String {
    const SHOWN: usize = 4;
    let more = kernels.len().saturating_sub(SHOWN);
    let shown = kernels[..kernels.len().min(SHOWN)].join("+");
    if more > 0 { format!("{shown}+{more} more") } else { shown }
}
