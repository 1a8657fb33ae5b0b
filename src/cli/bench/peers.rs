//! `shadegrad bench peers`: one line per case, as a table or as the JSON lines that every harness prints.

use super::cases::{self, Case};
use super::suite;
use super::timing::{Sample, Start, budget, measure};
use crate::cli::say;
use serde_json::Value;
use shadegrad::{Error, Gpu, Program, Result};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    /// Names, or parts of names; all cases without
    names: Vec<String>,
    /// Print one JSON line per case
    #[arg(long)]
    json: bool,
    /// The same, with commas in between
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    only: Vec<String>,
    /// Print the names of the cases and stop
    #[arg(long)]
    list: bool,
    /// A backend, a part of the adapter's name, or both as gl:llvmpipe
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// After each case, print the time of each of its dispatches
    #[arg(long, conflicts_with = "json")]
    profile: bool,
}

pub fn run(args: &Args, start: Start) -> Result<()> {
    let cases = cases::like(cases::all(), &[&args.names[..], &args.only].concat(), "--list")?;
    if args.list {
        return cases.iter().try_for_each(|case| say(&case.name));
    }
    let budget = budget()?;
    let gpu = super::open(&args.adapter)?;
    let width = cases.iter().map(|case| case.name.len()).fold("case".len(), usize::max);
    // The cold start of a later case leaves out the cases before it.
    let opened = start.elapsed();
    super::warn_if_busy();
    if !args.json {
        say(&format!("{gpu}\n{}", header(width)))?;
    }
    let mut failed = Vec::new();
    for case in &cases {
        let begun = Instant::now();
        let timed = time(&gpu, case, budget, || opened + begun.elapsed());
        let line = match &timed {
            _ if args.json => json(&gpu.to_string(), case, timed.as_ref().map(|(sample, _)| sample)),
            Ok((sample, _)) => row(case, sample, width),
            Err(error) => format!("{:<width$} failed: {error}", case.name),
        };
        say(&line)?;
        if timed.is_err() {
            failed.push(case.name.as_str());
        }
        if let (true, Ok((_, program))) = (args.profile, &timed) {
            say(&format!("{}\n", program.profile()?))?;
        }
    }
    suite::all_measured(&failed)
}

fn time(gpu: &Gpu, case: &Case, budget: Duration, cold: impl FnOnce() -> Duration) -> Result<(Sample, Program)> {
    let job = case.job();
    let (check, reads) = (job.check.clone(), job.reads);
    let program = suite::program(gpu, job)?;
    let call = |wanted: bool| {
        program.run()?;
        if !reads && !wanted {
            gpu.wait()?;
            return Ok(0.0);
        }
        check.iter().map(|tensor| Ok(mean_magnitude(&program.read(tensor)?))).sum()
    };
    Ok((measure(call, cold, budget)?, program))
}

fn mean_magnitude(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len() as f64
}

/// `work` per second, in units of 10^9; 0 where nothing was counted.
fn rate(work: f64, milliseconds: f64) -> f64 {
    if milliseconds > 0.0 { work / milliseconds / 1e6 } else { 0.0 }
}

fn header(width: usize) -> String {
    format!(
        "{:<width$} {:>10} {:>10} {:>5} {:>9} {:>8} {:>10} {:>10} {:>10}  check",
        "case", "median ms", "min ms", "reps", "GFLOP/s", "GB/s", "items/s", "first ms", "cold ms"
    )
}

fn row(case: &Case, sample: &Sample, width: usize) -> String {
    let some = |value: f64, digits: usize| if value > 0.0 { format!("{value:.digits$}") } else { "-".into() };
    format!(
        "{:<width$} {:>10.3} {:>10.3} {:>5} {:>9} {:>8} {:>10} {:>10.1} {:>10.1}  {:.5e}",
        case.name,
        sample.median,
        sample.min,
        sample.reps,
        some(rate(case.flops, sample.median), 2),
        some(rate(case.bytes, sample.median), 2),
        some(case.items / sample.median * 1e3, 1),
        sample.first,
        sample.cold,
        sample.check
    )
}

fn json(device: &str, case: &Case, timed: Result<&Sample, &Error>) -> String {
    let (median, min, reps, note) = match timed {
        Ok(sample) => (sample.median, sample.min, sample.reps, note(case, sample)),
        Err(error) => (-1.0, -1.0, 0, format!("FAILED: {error}")),
    };
    // Keys in the order of the other harnesses, which a JSON object would not keep.
    format!(
        "{{\"peer\":\"shadegrad\",\"case\":{},\"device\":{},\"median_ms\":{median:.4},\"min_ms\":{min:.4},\
         \"reps\":{reps},\"flops\":{:.0},\"gflops\":{:.2},\"note\":{}}}",
        Value::from(case.name.as_str()),
        Value::from(device),
        case.flops,
        rate(case.flops, median),
        Value::from(note)
    )
}

fn note(case: &Case, sample: &Sample) -> String {
    let mut note = format!("cold_ms={:.1};first_ms={:.1};chk={:.5e}", sample.cold, sample.first, sample.check);
    if case.bytes > 0.0 {
        note += &format!(";gbps={:.2}", rate(case.bytes, sample.median));
    }
    if case.items > 0.0 {
        note += &format!(";{}_per_s={:.1}", case.unit, case.items / sample.median * 1e3);
    }
    if !sample.check.is_finite() {
        note += ";NOT_FINITE";
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_other_harnesses() {
        let cases = cases::all();
        let case = cases.iter().find(|case| case.name == "mnist_infer_b1").unwrap();
        let sample = Sample { median: 2.0, min: 1.5, reps: 5, first: 9.25, cold: 100.0, check: 0.0723808 };
        let start = r#"{"peer":"shadegrad","case":"mnist_infer_b1","device":"a \"b\"","median_ms":"#;
        let line = json("a \"b\"", case, Ok(&sample));
        let rest = r#"2.0000,"min_ms":1.5000,"reps":5,"flops":22130176,"gflops":11.07,"note":"#;
        let note = r#""cold_ms=100.0;first_ms=9.2;chk=7.23808e-2;img_per_s=500.0"}"#;
        assert_eq!(line, format!("{start}{rest}{note}"));
        let failed = json("x", case, Err(&Error::argument("a", "b")));
        let failed: Value = serde_json::from_str(&failed).unwrap();
        assert_eq!((failed["median_ms"].as_f64(), failed["note"].as_str()), (Some(-1.0), Some("FAILED: a: b")));
    }
}
