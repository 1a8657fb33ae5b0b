//! A kernel of the user's own: read from its file, checked, made and run.

use super::consts;
use super::content::{self, Content, Fill};
use super::spec::{Spec, put};
use crate::cli::bench::report::Row;
use crate::cli::bench::timing::{Times, sets as sets_for};
use shadegrad::gpu::{RawBuffer, RawKernel};
use shadegrad::reflect::{Bound, Wgsl};
use shadegrad::tune::Roofline;
use shadegrad::{DType, Error, Gpu, Result};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A kernel as its file and the command line describe it.
pub struct Subject {
    pub name: String,
    pub spec: Spec,
    pub wgsl: Wgsl,
    pub entry: String,
    pub overrides: Vec<(String, f64)>,
    /// Its buffers.
    pub bound: Vec<Bound>,
    /// What each of them holds at first, once [`Subject::size`] has found out.
    pub contents: Vec<Content>,
}

impl Subject {
    /// Reads a kernel, of which `said` is said on the command line; what is not said of one that is measured against
    /// `first` is as for that one.
    pub fn read(path: &Path, said: &Spec, first: Option<&Subject>) -> Result<Subject> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let text = text.trim_start_matches('\u{feff}').to_string();
        let plain = Wgsl::parse(&name, &text)?;
        let head = Spec::of_head(path, &text)?;
        let before = match first {
            Some(first) => Spec { entry: None, consts: Vec::new(), buffers: Vec::new(), ..first.spec.clone() },
            None => Spec::default(),
        };
        let mut spec = before.overridden(head);
        if first.is_none() {
            spec.entry = said.entry.clone().or(spec.entry);
        }
        let entry = entry(&plain, &name, &spec)?;
        let bound = plain.bound(&entry)?;
        if let Some((unknown, _)) = spec.buffers.iter().find(|(name, _)| !has(&bound, name)) {
            return Err(Error::argument(&name, format!("{entry} {}", uses(&bound, unknown))));
        }
        // What is said holds for each of two kernels that knows the name.
        let mut said = Spec { entry: None, ..said.clone() };
        said.buffers.retain(|(name, _)| has(&bound, name));
        said.consts.retain(|(name, _)| consts::exists(name, &plain, &text));
        let mut spec = spec.overridden(said);
        if let Some(first) = first {
            share(&mut spec, &name, &bound, first)?;
        }
        let (text, overrides) = consts::set(&name, text, &plain, &spec.consts)?;
        let wgsl = Wgsl::parse(&name, &text)?;
        // Anew, as a constant may be the size of an array.
        let bound = wgsl.bound(&entry)?;
        Ok(Subject { name, spec, wgsl, entry, overrides, bound, contents: Vec::new() })
    }

    /// What keeps it from being run, if anything is not known.
    pub fn unknown(&self) -> Option<String> {
        let sized = |bound: &Bound| {
            self.spec.buffers.iter().any(|(name, content)| *name == bound.name && content.size.is_some())
        };
        let missing = |bound: &&Bound| !bound.fixed && !sized(bound);
        match self.spec.grid {
            None => Some("the grid is not known; say --grid \"X Y Z\" or `//! grid: X Y Z`".into()),
            Some(_) => Some(self.content(self.bound.iter().find(missing)?).err()?),
        }
    }

    fn content(&self, bound: &Bound) -> Result<Content, String> {
        let said = self.spec.buffers.iter().find(|(name, _)| *name == bound.name).map(|(_, content)| content);
        said.unwrap_or(&Content { size: None, fill: Fill::Random }).sized(bound)
    }

    /// Finds out the size of each buffer.
    pub fn size(&mut self) -> Result<()> {
        let contents: Result<_, String> = self.bound.iter().map(|bound| self.content(bound)).collect();
        self.contents = contents.map_err(|message| Error::argument(&self.name, message))?;
        Ok(())
    }

    /// Compiles it, with several sets of buffers.
    pub fn make(self, gpu: &Gpu) -> Result<Made> {
        let grid = self.spec.grid.ok_or_else(|| Error::argument(&self.name, self.unknown().unwrap_or_default()))?;
        for (bound, content) in self.bound.iter().zip(&self.contents) {
            let (need, most) = (content.bytes(), gpu.largest_buffer(bound.uniform));
            if need as u64 > most {
                return Err(Error::Limit {
                    what: format!("the buffer {} of {}", bound.name, self.name),
                    need: format!("{need} bytes"),
                    limit: format!("{most} bytes"),
                    remedy: "make it smaller".into(),
                });
            }
        }
        let bytes: usize = self.contents.iter().map(Content::bytes).sum();
        let values: Vec<(&str, f64)> = self.overrides.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let (mut sets, mut compiling) = (Vec::new(), Duration::ZERO);
        for set in 0..sets_for(bytes as f64) {
            let buffer = |(bound, content): (&Bound, &Content)| {
                let Bound { group, binding, uniform, .. } = *bound;
                Ok(RawBuffer { group, binding, uniform, words: content.words(&self.wgsl, bound, set)? })
            };
            let buffers = self.bound.iter().zip(&self.contents).map(buffer).collect::<Result<Vec<_>>>()?;
            let start = Instant::now();
            let made = patiently(&format!("{} is still being compiled", self.name), || {
                gpu.raw_kernel(self.wgsl.text(), &self.entry, &values, &buffers, grid)
            });
            compiling = if set == 0 { start.elapsed() } else { compiling };
            sets.push(made.map_err(|error| match error {
                Error::Shader { message, .. } => Error::Shader { shader: self.name.clone(), message },
                other => other,
            })?);
        }
        let bytes = self.spec.bytes.unwrap_or(bytes as f64);
        Ok(Made { subject: self, sets, bytes, cold: compiling })
    }
}

/// A kernel that is ready to run, with several sets of buffers to rotate over.
pub struct Made {
    pub subject: Subject,
    pub sets: Vec<RawKernel>,
    bytes: f64,
    /// What compiling and the first run took.
    cold: Duration,
}

/// The numbers in a buffer.
pub struct Numbers<'a> {
    words: Vec<u32>,
    dtype: DType,
    layout: Box<dyn Fn(usize) -> Option<DType> + 'a>,
}

impl Numbers<'_> {
    pub fn len(&self) -> usize {
        self.words.len() * 4 / content::bytes_of(self.dtype)
    }

    /// The n-th number and its type; none where there is padding.
    pub fn get(&self, at: usize) -> Option<(DType, f64)> {
        let byte = at * content::bytes_of(self.dtype);
        let (dtype, word) = ((self.layout)(byte)?, self.words[byte / 4]);
        let value = match dtype {
            DType::F32 => f32::from_bits(word).into(),
            DType::F16 => half::f16::from_bits((word >> (8 * (byte % 4))) as u16).into(),
            DType::U32 => word.into(),
            DType::I32 => (word as i32).into(),
        };
        Some((dtype, value))
    }
}

impl Made {
    /// Runs it for the first time.
    pub fn run(&mut self, gpu: &Gpu) -> Result<()> {
        let start = Instant::now();
        patiently(&format!("the first run of {} is still under way", self.subject.name), || {
            gpu.time(gpu.clock(), |encoder| self.sets[0].record(encoder, 1))
        })?;
        self.cold += start.elapsed();
        Ok(())
    }

    /// What the n-th buffer of the first set holds now.
    pub fn numbers(&self, n: usize) -> Result<Numbers<'_>> {
        let Subject { wgsl, bound, contents, .. } = &self.subject;
        let layout = Box::new(wgsl.layout(&bound[n]));
        Ok(Numbers { words: self.sets[0].read(n)?, dtype: contents[n].extent().0, layout })
    }

    /// NaNs and infinities in the buffers that it writes, in words; empty where there are none.
    pub fn not_finite(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (n, Bound { name, .. }) in self.subject.bound.iter().enumerate().filter(|(_, bound)| bound.writes) {
            let numbers = self.numbers(n)?;
            let is = |at: &usize, kind: fn(f64) -> bool| numbers.get(*at).is_some_and(|(_, value)| kind(value));
            let places: Vec<usize> = (0..numbers.len()).filter(|at| is(at, |value| !value.is_finite())).collect();
            let Some(first) = places.first() else { continue };
            let (nans, all) = (places.iter().filter(|at| is(at, f64::is_nan)).count(), numbers.len());
            let infinite = places.len() - nans;
            found.push(format!(
                "{nans} NaN and {infinite} infinite of {all} numbers in {name}, the first {name}[{first}]"
            ));
        }
        Ok(found)
    }

    pub fn row(&self, gpu: &Gpu, times: Times, roofline: &Roofline) -> Row {
        let Times { median, min, spread, reps } = times;
        let Subject { name, spec, entry, .. } = &self.subject;
        Row {
            name: name.clone(),
            median,
            min,
            spread,
            reps,
            flops: spec.flops.unwrap_or(0.0),
            bytes: self.bytes,
            roof: None,
            kernels: entry.clone(),
            cold: self.cold.as_secs_f64() * 1e3,
            clock: gpu.clock(),
            ratio: None,
        }
        .under(roofline, DType::F32)
    }
}

/// How long work may take in silence.
const PATIENCE: Duration = Duration::from_secs(2);

/// Does the work, and says what is going on if it takes long.
fn patiently<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what}; Ctrl-C ends it");
            }
        });
        let result = work();
        drop(done);
        result
    })
}

fn has(bound: &[Bound], name: &str) -> bool {
    bound.iter().any(|bound| bound.name == name)
}

/// That there is no such buffer, and which there are.
pub fn uses(bound: &[Bound], unknown: &str) -> String {
    let names: Vec<String> = bound.iter().map(|bound| format!("{} (line {})", bound.name, bound.line)).collect();
    let names = if names.is_empty() { "none at all".into() } else { names.join(", ") };
    format!("uses no buffer {unknown:?}; it uses {names}")
}

/// Gives buffers of the same name the same contents as `first` has.
fn share(spec: &mut Spec, name: &str, bound: &[Bound], first: &Subject) -> Result<()> {
    for (theirs, content) in first.bound.iter().zip(&first.contents).filter(|(theirs, _)| has(bound, &theirs.name)) {
        let own = spec.buffers.iter().find(|(buffer, _)| *buffer == theirs.name).and_then(|(_, own)| own.size);
        if own.is_some_and(|own| Some(own) != content.size) {
            let message = format!(
                "the buffer {0} is of another size or type in {1}, where it has to hold the same; give it another name, or \
                 say --buffer \"{0}: ...\" for both",
                theirs.name, first.name
            );
            return Err(Error::argument(name, message));
        }
        put(&mut spec.buffers, &theirs.name, content.clone());
    }
    Ok(())
}

/// The entry point that was named, or the only one.
fn entry(wgsl: &Wgsl, name: &str, spec: &Spec) -> Result<String> {
    match (&spec.entry, &wgsl.entries()[..]) {
        (Some(entry), _) => Ok(entry.clone()),
        (None, [only]) => Ok(only.to_string()),
        (None, []) => Err(Error::argument(name, "there is no compute entry point in it")),
        (None, several) => {
            let message = format!(
                "there are several entry points; choose one by --entry or `//! entry:`: {}",
                several.join(", ")
            );
            Err(Error::argument(name, message))
        }
    }
}
