//! `shadegrad bench FILE.wgsl`: a kernel of the user's own under the device's roofs, alone or against another.

mod compare;
mod consts;
mod content;
mod spec;
mod subject;
mod translation;

use super::report::{Format, Row, warn_of_doubtful};
use super::timing::{on_device_in_turn, seconds};
use crate::cli::say;
use compare::Agreement;
use shadegrad::tune::Roofline;
use shadegrad::{Error, Gpu, Result, wgpu};
use spec::Spec;
use std::path::PathBuf;
use std::time::Duration;
use subject::{Made, Subject};

#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// A WGSL file; what is not said here is taken from its `//!` lines, in the same words:
    /// `//! grid: 64 1 1`, `//! buffer x: f32[1024] random`
    file: Option<PathBuf>,
    /// The compute entry point; not needed where there is only one
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// Workgroups: "X", "X Y" or "X Y Z"
    #[arg(long, value_name = "GRID")]
    grid: Option<String>,
    /// A buffer by its variable's name: "NAME: TYPE[COUNT] FILL", FILL being random, zero, count, a number or file:PATH;
    /// arrays of a fixed size need no TYPE[COUNT]
    #[arg(long = "buffer", value_name = "BUFFER")]
    buffers: Vec<String>,
    /// The value of a `const` or `override`: "NAME = VALUE"
    #[arg(long = "const", value_name = "CONST")]
    consts: Vec<String>,
    /// Operations of a run, also as a product: "2*512*512*512"
    #[arg(long, value_name = "N")]
    flops: Option<String>,
    /// Bytes moved in a run; without it, each buffer counts once
    #[arg(long, value_name = "N")]
    bytes: Option<String>,
    /// Another kernel for the same work: both are timed in turn, and what they write has to be the same
    #[arg(long, value_name = "FILE.wgsl")]
    against: Option<PathBuf>,
    /// By how much each float may differ, relative to itself or to 3 % of the buffer's median magnitude
    #[arg(long, default_value_t = 1e-4, requires = "against", value_parser = tolerance)]
    tolerance: f64,
    /// Write what the shader becomes in SPIR-V, MSL, HLSL and GLSL into this folder
    #[arg(long, value_name = "FOLDER")]
    translate: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
    /// Seconds of measurement for each kernel
    #[arg(long, default_value = "1", value_parser = seconds, allow_negative_numbers = true)]
    seconds: Duration,
    /// A backend, a part of the adapter's name, or both as gl:llvmpipe
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
    value.ok_or_else(|| "it is a number from 0".into())
}

pub fn run(args: &Args) -> Result<()> {
    let missing = || Error::argument("bench", "name a suite or a WGSL file; --help lists what there is");
    let file = args.file.as_ref().ok_or_else(missing)?;
    let said = args.said()?;
    let mut first = Subject::read(file, &said, None)?;
    if args.against.is_none() {
        known(&said, std::slice::from_ref(&first))?;
    }
    if let Some(folder) = &args.translate {
        translation::write(file, &first, folder)?;
        if let Some(unknown) = first.unknown() {
            eprintln!("{} is not run, as {unknown}", first.name);
            return Ok(());
        }
    }
    first.size()?;
    let mut subjects = vec![first];
    if let Some(path) = &args.against {
        let mut other = Subject::read(path, &said, subjects.first())?;
        other.size()?;
        subjects.push(other);
        known(&said, &subjects)?;
    }
    let gpu = super::open(&args.adapter)?;
    let mut made = subjects.into_iter().map(|subject| subject.make(&gpu)).collect::<Result<Vec<Made>>>()?;
    super::warn_if_busy();
    let roofline = super::roofline(&gpu, false)?;
    let table = args.format.table(made.iter().map(|made| made.subject.name.as_str()), false);
    table.head(&format!("{gpu}, with run-time checks"), gpu.clock(), &roofline)?;
    made.iter_mut().try_for_each(|made| made.run(&gpu))?;
    let agreement = match &made[..] {
        [one, other] => Some(compare::compare(one, other, args.tolerance)?),
        _ => None,
    };
    let rows = time(&gpu, &made, args.seconds, &roofline)?;
    rows.iter().try_for_each(|row| table.row(row))?;
    if let (Some(agreement), [one, other]) = (agreement, &rows[..]) {
        say(&verdict(&agreement, one, other, args.format))?;
    }
    warn(&gpu, &rows, &roofline);
    Ok(())
}

impl Args {
    /// What the command line says of the kernel.
    fn said(&self) -> Result<Spec> {
        let mut spec = Spec::default();
        let lines = [("entry:", &self.entry), ("grid:", &self.grid), ("flops:", &self.flops), ("bytes:", &self.bytes)];
        let lines = lines.into_iter().filter_map(|(key, value)| Some(format!("{key} {}", value.as_ref()?)));
        let buffers = self.buffers.iter().map(|buffer| format!("buffer {buffer}"));
        let consts = self.consts.iter().map(|value| format!("const {value}"));
        for line in lines.chain(buffers).chain(consts) {
            spec.set(&line).map_err(|message| Error::argument("bench", message))?;
        }
        Ok(spec)
    }
}

/// That every buffer and constant of the command line is one of a kernel's.
fn known(said: &Spec, subjects: &[Subject]) -> Result<()> {
    let named = |list: &[(String, String)], name: &String| list.iter().any(|(known, _)| known == name);
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
    if let Some((name, _)) = said.consts.iter().find(|(name, _)| !subjects.iter().any(|s| named(&s.spec.consts, name)))
    {
        let message = format!("there is no const or override {name:?} in {}", names.join(" or "));
        return Err(Error::argument("--const", message));
    }
    let bound = |name: &String| subjects.iter().flat_map(|subject| &subject.bound).any(|bound| bound.name == *name);
    if let Some((name, _)) = said.buffers.iter().find(|(name, _)| !bound(name)) {
        let Subject { entry, bound, .. } = &subjects[0];
        return Err(Error::argument("--buffer", format!("{entry} {}", subject::uses(bound, name))));
    }
    Ok(())
}

/// Times the kernels in turn, and warns where they write what is no number.
fn time(gpu: &Gpu, made: &[Made], budget: Duration, roofline: &Roofline) -> Result<Vec<Row>> {
    let warn = |made: &Made, when: &str| {
        let found = made.not_finite()?;
        found.iter().for_each(|found| eprintln!("{}: {found}, {when}", made.subject.name));
        Ok::<bool, Error>(found.is_empty())
    };
    let clean = made.iter().map(|made| warn(made, "after the first run")).collect::<Result<Vec<bool>>>()?;
    let mut turns = vec![0; made.len()];
    let times = on_device_in_turn(gpu, budget, made.len(), |n, encoder: &mut wgpu::CommandEncoder| {
        let sets = &made[n].sets;
        sets[turns[n] % sets.len()].record(encoder, 1);
        turns[n] += 1;
    })?;
    for (made, _) in made.iter().zip(clean).filter(|(_, clean)| *clean) {
        warn(made, "after many runs, each on what the one before left: its times may be those of such numbers")?;
    }
    Ok(made.iter().zip(times).map(|(made, times)| made.row(gpu, times, roofline)).collect())
}

/// How the results and the times of two kernels compare.
fn verdict(agreement: &Agreement, one: &Row, other: &Row, format: Format) -> String {
    let ratio = other.median / one.median;
    if format.json {
        let worst = agreement.worst.as_ref().map(|worst| {
            let compare::Worst { buffer, at, ours, theirs, .. } = worst;
            serde_json::json!({ "buffer": buffer, "index": at, "values": [ours, theirs] })
        });
        return serde_json::json!({
            "against": other.name, "difference": agreement.error(), "worst": worst, "nan": agreement.nans,
            "times_as_fast": ratio,
        })
        .to_string();
    }
    if format.csv {
        return format!("\ndifference,times_as_fast\n{:e},{ratio:.4}", agreement.error());
    }
    let faster = match ratio {
        ratio if !ratio.is_finite() || ratio <= 0.0 => "runs are too short to say which is faster".to_string(),
        ratio if ratio < 1.0 => format!("{} is {:.2} times as slow as {}", one.name, 1.0 / ratio, other.name),
        ratio => format!("{} is {ratio:.2} times as fast as {}", one.name, other.name),
    };
    format!("\n{agreement}; {faster}")
}

/// Says what makes these times doubtful.
fn warn(gpu: &Gpu, rows: &[Row], roofline: &Roofline) {
    warn_of_doubtful(rows);
    let turns = gpu.caps().turns;
    for row in rows.iter().filter(|row| turns < usize::MAX && row.rate(row.flops) > 1.05 * roofline.arithmetic) {
        eprintln!(
            "{}: this driver leaves all loops of an invocation after {turns} turns, so it may have done less than its `flops`, \
             and its results be wrong",
            row.name
        );
    }
}
