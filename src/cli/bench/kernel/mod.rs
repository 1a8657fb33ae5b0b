//! `shadegrad bench FILE.wgsl`: a kernel of the user's own under the device's roofs, alone or against another.

mod spec;

use super::report::{Format, Row, warn_of_doubtful};
use super::timing::{Times, on_device_in_turn, seconds, sets as sets_for};
use crate::cli::say;
use shadegrad::DType;
use shadegrad::gpu::{RawBuffer, RawKernel};
use shadegrad::translate::{Bound, Wgsl};
use shadegrad::tune::Roofline;
use shadegrad::{Error, Gpu, Result, wgpu};
use spec::{Kind, Spec};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// A WGSL file; what is not said here is taken from `//!` lines at its top, in the same words:
    /// `//! grid: 64 1 1`, `//! buffer x: f32[1024] random`
    file: Option<PathBuf>,
    /// The compute entry point; not needed where there is only one
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// Workgroups: "X", "X Y" or "X Y Z"
    #[arg(long, value_name = "GRID")]
    grid: Option<String>,
    /// A buffer by its variable's name: "NAME: TYPE[COUNT] FILL", FILL being random, zero, count, a number or file:PATH
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
    /// By how much results may differ, relative to the larger of the value and the mean magnitude
    #[arg(long, default_value_t = 1e-4, requires = "against")]
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

/// A kernel that is ready to run, with several sets of buffers to rotate over.
struct Subject {
    name: String,
    spec: Spec,
    wgsl: Wgsl,
    overrides: Vec<(String, f64)>,
    bound: Vec<Bound>,
    sets: Vec<RawKernel>,
    bytes: f64,
    cold: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let missing = || Error::argument("bench", "name a suite or a WGSL file; --help lists what there is");
    let file = args.file.as_ref().ok_or_else(missing)?;
    let gpu = super::open(&args.adapter)?;
    let said = args.said()?;
    let first = Subject::new(&gpu, file, Spec::default(), &said)?;
    if let Some(folder) = &args.translate {
        translate(file, &first, folder)?;
    }
    let mut subjects = vec![first];
    if let Some(path) = &args.against {
        // What the other file does not say is as for the first.
        let shared = Spec { entry: None, consts: Vec::new(), ..subjects[0].spec.clone() };
        subjects.push(Subject::new(&gpu, path, shared, &Spec::default())?);
    }
    let difference = match &subjects[..] {
        [one, other] => Some(one.compare(other, args.tolerance)?),
        _ => None,
    };
    super::warn_if_busy();
    let roofline = super::roofline(&gpu, false)?;
    let mut turns = vec![0; subjects.len()];
    let times = on_device_in_turn(&gpu, args.seconds, subjects.len(), |n, encoder: &mut wgpu::CommandEncoder| {
        let sets = &subjects[n].sets;
        sets[turns[n] % sets.len()].record(encoder, 1);
        turns[n] += 1;
    })?;
    let rows: Vec<Row> =
        subjects.iter().zip(times).map(|(subject, times)| subject.row(&gpu, times, &roofline)).collect();
    let table = args.format.table(rows.iter().map(|row| row.name.as_str()), false);
    table.head(&format!("{gpu}, with run-time checks"), gpu.clock(), &roofline)?;
    rows.iter().try_for_each(|row| table.row(row))?;
    warn_of_doubtful(&rows);
    if let (Some(difference), [one, other]) = (difference, &rows[..])
        && !args.format.json
        && !args.format.csv
    {
        let ratio = other.median / one.median;
        say(&format!("\n{difference}; {} is {ratio:.2} times as fast as {}", one.name, other.name))?;
    }
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

impl Subject {
    /// Reads and compiles a kernel, of which `before` is known already and `said` is said on the command line.
    fn new(gpu: &Gpu, path: &Path, before: Spec, said: &Spec) -> Result<Subject> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let spec = before.overridden(Spec::of_head(path, &text)?).overridden(said.clone());
        let plain = Wgsl::parse(&name, &text)?;
        let (text, overrides) = with_consts(&name, text, &plain, &spec)?;
        let wgsl = Wgsl::parse(&name, &text)?;
        let entry = entry(&wgsl, &name, &spec)?;
        let bound = wgsl.bound(&entry)?;
        let missing = |what: &str, how: &str| Error::argument(&name, format!("{what} is not known; {how}"));
        let grid = spec.grid.ok_or_else(|| missing("the grid", "say --grid \"X Y Z\" or `//! grid: X Y Z`"))?;
        if let Some((unknown, _)) = spec.buffers.iter().find(|(name, _)| bound.iter().all(|bound| bound.name != *name))
        {
            let names: Vec<&str> = bound.iter().map(|bound| bound.name.as_str()).collect();
            let message = format!("{entry} uses no buffer {unknown:?}; it uses {}", names.join(", "));
            return Err(Error::argument(&name, message));
        }
        let bytes: usize = spec.buffers.iter().map(|(_, content)| 4 * content.count).sum();
        let values: Vec<(&str, f64)> = overrides.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let start = Instant::now();
        let (mut sets, mut cold) = (Vec::new(), 0.0);
        for set in 0..sets_for(bytes as f64) {
            let buffers = bound.iter().map(|bound| buffer(&name, bound, &spec, set)).collect::<Result<Vec<_>>>()?;
            let made = gpu.raw_kernel(&text, &entry, &values, &buffers, grid);
            let kernel = made.map_err(|error| match error {
                Error::Shader { message, .. } => Error::Shader { shader: name.clone(), message },
                other => other,
            })?;
            if set == 0 {
                gpu.time(gpu.clock(), |encoder| kernel.record(encoder, 1))?;
                cold = start.elapsed().as_secs_f64() * 1e3;
            }
            sets.push(kernel);
        }
        let bytes = spec.bytes.unwrap_or(bytes as f64);
        let spec = Spec { entry: Some(entry), ..spec };
        Ok(Subject { name, spec, wgsl, overrides, bound, sets, bytes, cold })
    }

    fn row(&self, gpu: &Gpu, times: Times, roofline: &Roofline) -> Row {
        let Times { median, min, spread, reps } = times;
        let (flops, bytes, cold, clock) = (self.spec.flops.unwrap_or(0.0), self.bytes, self.cold, gpu.clock());
        let kernels = self.spec.entry.clone().unwrap_or_default();
        let name = self.name.clone();
        Row { name, median, min, spread, reps, flops, bytes, roof: None, kernels, cold, clock, ratio: None }
            .under(roofline, DType::F32)
    }

    /// Says how close the results of both are after their first run, or fails where they are not the same.
    fn compare(&self, other: &Subject, tolerance: f64) -> Result<String> {
        let mut worst = 0.0;
        let mut compared = 0;
        for (n, bound) in self.bound.iter().enumerate().filter(|(_, bound)| bound.writes) {
            let Some(m) = other.bound.iter().position(|b| b.name == bound.name && b.writes) else { continue };
            let content = self.spec.buffers.iter().find(|(name, _)| *name == bound.name).map(|(_, content)| content);
            let (kind, count) = content.map_or((Kind::F32, 0), |content| (content.kind, content.count));
            let read = |subject: &Subject, n: usize| subject.sets[0].read(n).map(|words| numbers(&words, kind, count));
            let (ours, theirs) = (read(self, n)?, read(other, m)?);
            if ours.len() != theirs.len() {
                let message =
                    format!("{} has {} elements in one, {} in the other", bound.name, ours.len(), theirs.len());
                return Err(Error::argument("--against", message));
            }
            let (at, error) = worst_of(&ours, &theirs);
            if error > tolerance {
                let (a, b, name) = (ours[at], theirs[at], &bound.name);
                let message = format!(
                    "the results differ: {name}[{at}] is {a} in {} and {b} in {}, an error of {error:.1e}; allowed are \
                     {tolerance:e} (--tolerance)",
                    self.name, other.name
                );
                return Err(Error::argument("--against", message));
            }
            worst = f64::max(worst, error);
            compared += 1;
        }
        if compared == 0 {
            let message = "the kernels write no buffer of the same name, so there is nothing to compare";
            return Err(Error::argument("--against", message));
        }
        Ok(format!("the results are the same, to {worst:.1e}"))
    }
}

/// The entry point that was named, or the only one.
fn entry(wgsl: &Wgsl, name: &str, spec: &Spec) -> Result<String> {
    match (&spec.entry, &wgsl.entries()[..]) {
        (Some(entry), _) => Ok(entry.clone()),
        (None, [only]) => Ok(only.to_string()),
        (None, []) => Err(Error::argument(name, "there is no compute entry point in it")),
        (None, several) => {
            let message = format!("there are several entry points; choose one by --entry: {}", several.join(", "));
            Err(Error::argument(name, message))
        }
    }
}

/// The text with its `const`s set, and the values of its `override`s.
fn with_consts(name: &str, mut text: String, wgsl: &Wgsl, spec: &Spec) -> Result<(String, Vec<(String, f64)>)> {
    let mut overrides = Vec::new();
    for (constant, value) in &spec.consts {
        if let Some(key) = wgsl.override_key(constant) {
            let number = match value.as_str() {
                "false" => Ok(0.0),
                "true" => Ok(1.0),
                _ => value.trim_end_matches(['u', 'i', 'f', 'h']).parse(),
            };
            let number = number.map_err(|_| Error::argument(name, format!("{constant} = {value:?} is no number")))?;
            overrides.push((key, number));
            continue;
        }
        let after = |at: usize| text[at..].find('=').map(|equals| at + equals + 1);
        let starts = [format!("const {constant} "), format!("const {constant}:"), format!("const {constant}=")];
        // At the start of a line: the head of the file, and comments, may name it, too.
        let declared = |head: &String| match text.starts_with(head) {
            true => Some(0),
            false => text.find(&format!("\n{head}")).map(|at| at + 1),
        };
        let start = starts.iter().find_map(declared).and_then(after);
        let end = start.and_then(|start| text[start..].find(';').map(|end| start + end));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(Error::argument(name, format!("there is no const or override {constant:?} in it")));
        };
        text.replace_range(start..end, &format!(" {value}"));
    }
    Ok((text, overrides))
}

fn buffer(name: &str, bound: &Bound, spec: &Spec, set: usize) -> Result<RawBuffer> {
    let variable = &bound.name;
    let Some((_, content)) = spec.buffers.iter().find(|(known, _)| known == variable) else {
        let how = format!("say --buffer \"{variable}: f32[1024] random\" or `//! buffer {variable}: f32[1024] random`");
        return Err(Error::argument(name, format!("the size of the buffer {variable} is not known; {how}")));
    };
    if 4 * content.count < bound.bytes {
        let message =
            format!("the buffer {variable} has {} bytes, but the shader wants {}", 4 * content.count, bound.bytes);
        return Err(Error::argument(name, message));
    }
    let Bound { group, binding, uniform, .. } = *bound;
    Ok(RawBuffer { group, binding, uniform, words: content.words(variable, set)? })
}

fn numbers(words: &[u32], kind: Kind, count: usize) -> Vec<f64> {
    let number = |word: &u32| match kind {
        Kind::F32 => f64::from(f32::from_bits(*word)),
        Kind::U32 => f64::from(*word),
        Kind::I32 => f64::from(*word as i32),
    };
    words.iter().take(count).map(number).collect()
}

/// Where two results differ most, and by how much: relative to the larger of the value and the mean magnitude.
fn worst_of(ours: &[f64], theirs: &[f64]) -> (usize, f64) {
    let finite = theirs.iter().filter(|v| v.is_finite());
    let mean = finite.map(|v| v.abs()).sum::<f64>() / theirs.len().max(1) as f64;
    let error = |(a, b): (&f64, &f64)| {
        let same = a == b || (a.is_nan() && b.is_nan());
        let relative = (a - b).abs() / b.abs().max(mean).max(f64::MIN_POSITIVE);
        if same {
            0.0
        } else if relative.is_nan() {
            f64::INFINITY
        } else {
            relative
        }
    };
    let errors = ours.iter().zip(theirs).map(error).enumerate();
    errors.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0))
}

/// Writes the translations; a language that has no words for the shader is told of.
fn translate(path: &Path, subject: &Subject, folder: &Path) -> Result<()> {
    let entry = subject.spec.entry.clone().unwrap_or_default();
    let wgsl = subject.wgsl.with_overrides(&entry, &subject.overrides)?;
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let stem = path.file_stem().unwrap_or_default();
    let words = wgsl.spirv(&entry).map(|words| words.iter().flat_map(|word| word.to_le_bytes()).collect());
    let bytes = |text: Result<String>| text.map(String::into_bytes);
    let results: [(&str, Result<Vec<u8>>); 5] = [
        ("spv", words),
        ("metal", bytes(wgsl.msl(&entry))),
        ("hlsl", bytes(wgsl.hlsl(&entry))),
        ("glsl", bytes(wgsl.glsl(&entry, false))),
        ("es.glsl", bytes(wgsl.glsl(&entry, true))),
    ];
    let mut written = 0;
    for (extension, result) in results {
        let file = folder.join(stem).with_extension(extension);
        match result {
            Ok(bytes) => {
                std::fs::write(&file, bytes).map_err(|e| Error::io(&file, e))?;
                written += 1;
            }
            Err(error) => eprintln!("{error}"),
        }
    }
    match written {
        0 => Err(Error::argument("--translate", "no language has words for this shader")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_difference_is_found_and_nan_is_one() {
        assert_eq!(worst_of(&[1.0, 2.0, 3.5], &[1.0, 2.0, 3.0]).0, 2);
        assert_eq!(worst_of(&[1.0, f64::NAN], &[1.0, 1.0]), (1, f64::INFINITY));
        assert_eq!(worst_of(&[f64::NAN], &[f64::NAN]).1, 0.0);
        assert!(worst_of(&[1e-9, 1.0], &[0.0, 1.0]).1 < 1e-8);
    }

    #[test]
    fn consts_and_overrides_are_set() {
        let head = "//! const N = 8u\n";
        let text = format!("{head}const N: u32 = 4u; // elements\noverride M = 2.0;\n");
        let wgsl = Wgsl::parse("a.wgsl", &text).unwrap();
        let mut spec = Spec::default();
        spec.set("const N = 8u").unwrap();
        spec.set("const M = 3f").unwrap();
        let (text, overrides) = with_consts("a.wgsl", text, &wgsl, &spec).unwrap();
        assert!(text.starts_with(&format!("{head}const N: u32 = 8u; // elements\n")), "{text}");
        assert_eq!(overrides, [("M".to_string(), 3.0)]);
        spec.set("const K = 1").unwrap();
        let message = with_consts("a.wgsl", text, &wgsl, &spec).unwrap_err().to_string();
        assert!(message.contains("no const or override \"K\""), "{message}");
    }
}
