//! Measuring candidates: each computes the same work on the same numbers, alone; the fastest that is right wins.

use super::program::Home;
use super::{Gpu, Program, lock};
use crate::graph::choose::{Choice, Choices, Trial, Work};
use crate::graph::plan::Plan;
use crate::graph::{Caps, Function};
use crate::ops::complete;
use crate::{Error, Result};
use std::fmt;
use std::time::{Duration, Instant};

/// Rounds in which the candidates take turns; two, where these have taken [`ENOUGH`] for each of them.
const ROUNDS: usize = 6;
const ENOUGH: Duration = Duration::from_secs(1);
/// Time for a candidate's runs in one round, its first run aside.
const BUDGET: Duration = Duration::from_millis(20);
/// Time that runs submitted together should take at least, so that the clock's steps do not count.
const BATCH: Duration = Duration::from_millis(2);
/// Runs submitted together at most.
const MOST: usize = 100;
/// A candidate that is slower than the best by this factor is not measured again.
const HOPELESS: f64 = 3.0;
/// A run that takes longer than this need not be repeated in the same round: no launch and hardly a pause is as long.
const LONG: f64 = 20e-3;
/// The shipped default stays unless another is faster by this factor: less is noise.
const WORTH: f64 = 1.03;

/// What [`Gpu::tune`] did; prints as a table of everything that was tried.
#[derive(Clone, Debug, Default)]
pub struct Tuned {
    /// The choices for all work of the function that leaves one, by that work.
    pub choices: Vec<(String, Choice)>,
    /// How many of them are new.
    pub new: usize,
    /// How long it took.
    pub time: Duration,
    /// Why the new ones are not kept for later processes, where they should have been.
    pub unkept: Option<String>,
}

/// A candidate on trial.
struct Entrant {
    program: Option<Program>,
    trial: Trial,
}

impl Gpu {
    /// Measures the candidate kernels of all work in `function` that is new to this device, and chooses. Takes some
    /// tenths of a second for each kind of work, most of it the driver's compiling, and says so in the log.
    ///
    /// A candidate's result has to agree with that of the shipped default; one that does not, or that the device refuses,
    /// is left out, and the reason kept. No state changes: ops that update parameters are not tried.
    ///
    /// Where no candidate can be tried - for want of memory, say - the default stays, and the next time tries again.
    ///
    /// Where [`Options::tune`](super::Options::tune) is on, what was chosen is kept for later processes.
    ///
    /// # Errors
    /// What [`Gpu::compile`] would report; a lost device. A file that cannot be written is only warned of
    /// ([`Tuned::unkept`]).
    pub fn tune(&self, function: &Function) -> Result<Tuned> {
        function.graph.error()?;
        let start = Instant::now();
        let function = &complete(function);
        let home = Home::of(self, function)?;
        let plan = Plan::new(function, self.caps(), &|param| home.places[&param.id()], &self.choices())?;
        let mut tuned = Tuned::default();
        let (mut seen, mut new): (Vec<&str>, Choices) = Default::default();
        let mut outcome = Ok(());
        for work in &plan.works {
            if seen.contains(&work.key.as_str()) {
                continue;
            }
            seen.push(&work.key);
            let choices = self.choices();
            let known = choices.of(work).cloned();
            if let (None, Some(choice)) = (&known, choices.0.get(&work.key))
                && choice.fingerprint == work.fingerprint
            {
                log::warn!(
                    "{}: {:?} was chosen, which is no candidate; it is measured anew",
                    work.key,
                    choice.candidate
                );
            }
            let choice = match known.map_or_else(|| self.try_all(function, &home, work), |choice| Ok(Some(choice))) {
                Ok(Some(choice)) => choice,
                Ok(None) => continue,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            if self.choices().of(work).is_none() {
                lock(&self.0.choices).0.insert(work.key.clone(), choice.clone());
                new.0.insert(work.key.clone(), choice.clone());
            }
            tuned.choices.push((work.key.clone(), choice));
        }
        (tuned.new, tuned.time) = (new.0.len(), start.elapsed());
        // Also where the device was lost on the way: what is known by then need not be measured again.
        if let (Some(file), false) = (&self.0.tuning, new.0.is_empty()) {
            log::info!("chose kernels for {} kinds of work in {:.1} s", tuned.new, tuned.time.as_secs_f64());
            tuned.unkept = file.save(&new).err().map(|error| error.to_string());
        }
        if let Some(error) = &tuned.unkept {
            log::warn!("what was tuned is not kept: {error}");
        }
        outcome.map(|()| tuned)
    }

    /// Tries every candidate; nothing where none ran, or one might run another time.
    fn try_all(&self, function: &Function, home: &Home, work: &Work) -> Result<Option<Choice>> {
        let mut short_of_memory = false;
        let mut reference: Option<Vec<Vec<u32>>> = None;
        let mut entrants = Vec::new();
        for (n, name) in work.candidates.iter().enumerate() {
            let caps = Caps { candidate: Some(n), ..self.caps().clone() };
            let made = Plan::isolated(function, &caps, &|param| home.places[&param.id()], work.unit)
                .and_then(|plan| Program::play(self, plan, function, home.clone()));
            let checked = made.and_then(|program| {
                program.fill()?;
                program.submit()?;
                let outputs = program.outputs()?;
                let verdict = match &reference {
                    Some(reference) => program.differs(reference, &outputs),
                    None => {
                        reference = Some(outputs);
                        None
                    }
                };
                Ok((program, verdict))
            });
            let (program, remark) = match checked {
                Ok((program, None)) => (Some(program), String::new()),
                Ok((_, Some(remark))) => (None, remark),
                Err(error @ Error::DeviceLost(_)) => return Err(error),
                Err(error) => {
                    short_of_memory |= matches!(error, Error::OutOfMemory { .. });
                    (None, error.to_string())
                }
            };
            if !remark.is_empty() {
                log::warn!("{} for {}: {remark}", name, work.key);
            }
            entrants.push(Entrant {
                program,
                trial: Trial { candidate: name.to_string(), microseconds: None, rounds: 0, remark },
            });
        }
        self.race(&mut entrants)?;
        let trials: Vec<Trial> = entrants.into_iter().map(|entrant| entrant.trial).collect();
        let time = |trial: &Trial| trial.microseconds.unwrap_or(f64::INFINITY);
        let fastest = trials.iter().min_by(|a, b| time(a).total_cmp(&time(b)));
        let first = trials.iter().find(|trial| trial.microseconds.is_some());
        let winner = match (first, fastest) {
            _ if short_of_memory => return Ok(None),
            (Some(first), Some(fastest)) if time(first) > WORTH * time(fastest) => fastest,
            (Some(first), _) => first,
            _ => return Ok(None),
        };
        Ok(Some(Choice { candidate: winner.candidate.clone(), fingerprint: work.fingerprint, trials }))
    }

    /// Rounds, in turn, so that a slow moment of the machine does not decide; the least median counts.
    fn race(&self, entrants: &mut [Entrant]) -> Result<()> {
        let mut best = f64::INFINITY;
        let (start, enough) = (Instant::now(), ENOUGH * entrants.len() as u32);
        for round in 0..ROUNDS {
            if round >= 2 && start.elapsed() > enough {
                break;
            }
            for Entrant { program, trial } in entrants.iter_mut() {
                let Some(program) = program else { continue };
                if trial.microseconds.is_some_and(|time| time > HOPELESS * best) {
                    continue;
                }
                let time = program.microseconds()?;
                let least = trial.microseconds.map_or(time, |before| before.min(time));
                trial.microseconds = Some(least);
                trial.rounds += 1;
                best = best.min(least);
            }
        }
        Ok(())
    }
}

impl Program {
    /// Writes numbers into every input: uniform in [-1, 1), or indices that are allowed.
    fn fill(&self) -> Result<()> {
        for (n, port) in self.plan.inputs.iter().enumerate() {
            let number =
                |i: usize| (crate::rng::mix((n as u64) << 40 | i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
            let index = port.allowed.as_ref().map_or(0, |allowed| allowed.range.end.saturating_sub(1));
            let words: Vec<u32> = match port.desc.dtype {
                dtype if dtype.is_float() => dtype.words(&(0..port.desc.elements()).map(number).collect::<Vec<f32>>()),
                _ => vec![index; port.desc.elements()],
            };
            let buffer = self.memory(port.region.memory);
            self.gpu.write_words("filling inputs", buffer, port.region.offset as u64, &words)?;
        }
        Ok(())
    }

    fn outputs(&self) -> Result<Vec<Vec<u32>>> {
        let fetch = |port: &crate::graph::plan::Port| {
            self.gpu.fetch(self.memory(port.region.memory), port.region.offset as u64, port.desc.bytes())?.wait()
        };
        self.plan.outputs.iter().map(fetch).collect()
    }

    /// How these outputs differ from those of the reference by more than rounding, if they do.
    fn differs(&self, reference: &[Vec<u32>], outputs: &[Vec<u32>]) -> Option<String> {
        let ports = self.plan.outputs.iter().zip(reference.iter().zip(outputs));
        ports.into_iter().find_map(|(port, (want, got))| match port.desc.dtype {
            dtype if dtype.is_float() => {
                let floats = |words| dtype.floats(words, port.desc.elements());
                floats_differ(&floats(want), &floats(got))
            }
            _ => want.iter().zip(got).position(|(a, b)| a != b).map(|at| unlike(at, want[at], got[at])),
        })
    }

    /// Microseconds of one run, the median of some; of a single one where that is long.
    fn microseconds(&self) -> Result<f64> {
        let clock = self.gpu.clock();
        let batch = |runs| self.gpu.time(clock, |encoder| (0..runs).for_each(|_| self.append(encoder)));
        let start = Instant::now();
        let single = batch(1)?.max(1e-9);
        if single > LONG {
            return Ok(single * 1e6);
        }
        let runs = ((BATCH.as_secs_f64() / single) as usize).clamp(1, MOST);
        let mut times = Vec::new();
        while times.len() < 3 || start.elapsed() < BUDGET {
            times.push(batch(runs)? / runs as f64 * 1e6);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }
}

fn unlike(at: usize, want: impl fmt::Display, got: impl fmt::Display) -> String {
    format!("its element {at} is {got}, where the default's is {want}: wrong on this device")
}

/// Sums in another order differ by a small part of the terms, which are as large as the results are on average.
fn floats_differ(want: &[f32], got: &[f32]) -> Option<String> {
    let square: f64 = want.iter().map(|v| f64::from(*v).powi(2)).filter(|v| v.is_finite()).sum();
    let scale = (square / want.len().max(1) as f64).sqrt() as f32;
    let near = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-3 * (a.abs() + scale);
    want.iter().zip(got).position(|pair| !near(pair)).map(|at| unlike(at, want[at], got[at]))
}

impl fmt::Display for Tuned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.choices.iter().flat_map(|(_, choice)| &choice.trials).map(|trial| trial.candidate.len());
        let width = names.max().unwrap_or(0);
        for (work, choice) in &self.choices {
            writeln!(f, "{work}")?;
            let default = choice.trials.first().and_then(|trial| trial.microseconds);
            for (n, trial) in choice.trials.iter().enumerate() {
                let mark = if trial.candidate == choice.candidate { "*" } else { " " };
                let time = trial.microseconds.map_or_else(|| "-".into(), |time| format!("{time:.1}"));
                let notes = notes(trial, default.filter(|_| n > 0));
                let first = if n == 0 { "the default, " } else { "" };
                writeln!(f, "  {mark} {:<width$} {time:>12} us  {first}{notes}", trial.candidate)?;
            }
            writeln!(f, "  {}", reason(choice))?;
        }
        let known = self.choices.len() - self.new;
        write!(f, "{} kinds of work tuned in {:.1} s, {known} known before", self.new, self.time.as_secs_f64())
    }
}

/// How a trial went, beside the default's time.
fn notes(trial: &Trial, default: Option<f64>) -> String {
    let Some(time) = trial.microseconds else { return format!("refused: {}", trial.remark) };
    let factor = default.map(|default| format!("{:.2} times as fast, ", default / time)).unwrap_or_default();
    let rounds = if trial.rounds == 1 { "measured once".into() } else { format!("measured {} times", trial.rounds) };
    factor + &rounds
}

/// Why the winner won.
fn reason(choice: &Choice) -> String {
    let measured = |trial: &Trial| Some((trial.candidate.clone(), trial.microseconds?));
    let winner = &choice.candidate;
    let times: Vec<(String, f64)> = choice.trials.iter().filter_map(measured).collect();
    let time = |name: &String| times.iter().find(|(other, _)| other == name).map_or(f64::NAN, |(_, time)| *time);
    let default = choice.trials.first().map_or(winner, |trial| &trial.candidate);
    if winner != default {
        return match time(default) / time(winner) {
            factor if factor.is_nan() => format!("{winner} is taken, as the default was refused"),
            factor => format!("{winner} is taken: {factor:.2} times as fast as the default, and right"),
        };
    }
    let others = times.iter().filter(|(name, _)| name != winner);
    match others.min_by(|a, b| a.1.total_cmp(&b.1)) {
        None => "the default stays: no other is right and runs".into(),
        Some((_, other)) if *other >= time(winner) => "the default stays: no other is as fast".into(),
        Some((name, other)) => format!(
            "the default stays: {name} is {:.3} times as fast, and less than {WORTH} counts as noise",
            time(winner) / other
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Graph;
    use crate::gpu::Options;
    use crate::graph::{Arg, Candidate, Desc, Io, Kernel, Op, Shader};

    #[test]
    fn rounding_is_no_difference_and_a_wrong_sum_is() {
        let right: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
        let rounded: Vec<f32> = right.iter().map(|v| v * (1.0 + 3e-6) + 1e-5).collect();
        assert_eq!(floats_differ(&right, &rounded), None);
        assert!(floats_differ(&[27.1], &[591.0]).unwrap().contains("is 591, where the default's is 27.1"));
        let mut one_wrong = right.clone();
        one_wrong[77] = f32::NAN;
        assert!(floats_differ(&right, &one_wrong).unwrap().starts_with("its element 77 is NaN"));
        assert_eq!(floats_differ(&one_wrong, &one_wrong), None);
    }

    #[test]
    fn the_table_is_aligned_and_says_why() {
        let trial = |candidate: &str, microseconds, rounds, remark: &str| Trial {
            candidate: candidate.into(),
            microseconds,
            rounds,
            remark: remark.into(),
        };
        let choice = |candidate: &str, default: Option<f64>| Choice {
            candidate: candidate.into(),
            fingerprint: 0,
            trials: vec![
                trial("tile", default, 2, ""),
                trial("held_by_subgroups", Some(98.0), 1, ""),
                trial("block", None, 0, "its element 7 is 1"),
            ],
        };
        let tuned = |choice| Tuned { choices: vec![("work".into(), choice)], ..Tuned::default() }.to_string();
        let text = tuned(choice("held_by_subgroups", Some(196.0)));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "    tile                     196.0 us  the default, measured 2 times");
        assert_eq!(lines[2], "  * held_by_subgroups         98.0 us  2.00 times as fast, measured once");
        assert_eq!(lines[3], "    block                        - us  refused: its element 7 is 1");
        assert_eq!(lines[4], "  held_by_subgroups is taken: 2.00 times as fast as the default, and right");
        assert!(tuned(choice("held_by_subgroups", None)).contains("is taken, as the default was refused"));
        assert!(tuned(choice("tile", Some(98.0))).contains("the default stays: no other is as fast"));
        assert!(
            tuned(choice("tile", Some(99.0))).contains("held_by_subgroups is 1.010 times as fast, and less than 1.03")
        );
    }

    /// Doubles; the candidates are slow and right, fast and wrong, none that a device takes, and fast and right.
    #[derive(Debug)]
    struct Double;

    impl Op for Double {
        fn name(&self) -> &'static str {
            "double"
        }

        fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
            Ok(vec![inputs[0].clone()])
        }

        fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
            let source = "const N = 1u;\nconst TURNS = 1u;\nconst FACTOR = 2.0;\n\
                @group(0) @binding(0) var<storage, read> x: array<f32>; // [N]\n\
                @group(0) @binding(1) var<storage, read_write> y: array<f32>; // [N]\n\
                @compute @workgroup_size(64)\n\
                fn double(@builtin(global_invocation_id) id: vec3<u32>) {\n\
                if (id.x < N) {\nvar sum = 0.0;\n\
                for (var i = 0u; i < TURNS; i++) {\nsum += FACTOR * x[(id.x + i * 64u) % N] / f32(TURNS);\n}\n\
                y[id.x] = FACTOR * x[id.x] + 1e-20 * sum;\n}\n}\n\
                fn broken() {\nno such thing\n}\n";
            let kernel = |entry, turns: usize, factor: f32| {
                Kernel::new(Shader { name: "double.wgsl", source }, entry)
                    .set("N", io.elements())
                    .set("TURNS", turns)
                    .set("FACTOR", factor)
                    .bind([Arg::In(0), Arg::Out(0)])
                    .grid(caps.fold(io.elements().div_ceil(64)))
            };
            vec![
                Candidate::single("slow", kernel("double", 500, 2.0)),
                Candidate::single("wrong", kernel("double", 1, 2.1)),
                Candidate::single("broken", kernel("broken", 1, 2.0)),
                Candidate::single("fast", kernel("double", 1, 2.0)),
            ]
        }
    }

    fn doubled() -> Function {
        let g = Graph::inference();
        g.function([&g.push1(Double, &[&g.input([1 << 16])]).relu()])
    }

    #[test]
    fn the_fastest_that_is_right_wins_and_stays_chosen() {
        let gpu = Gpu::new().unwrap();
        let tuned = gpu.tune(&doubled()).unwrap();
        let [(work, choice)] = &tuned.choices[..] else { panic!("{tuned}") };
        assert!(work.starts_with("Double f32[65536] -> f32[65536]") && tuned.new == 1, "{tuned}");
        assert_eq!(choice.candidate, "fast", "{tuned}");
        let [slow, wrong, broken, fast] = &choice.trials[..] else { panic!("{tuned}") };
        assert!(slow.microseconds > fast.microseconds && fast.remark.is_empty(), "{tuned}");
        assert!(wrong.remark.contains("wrong on this device") && wrong.microseconds.is_none(), "{tuned}");
        assert!(broken.remark.contains("double.wgsl") && broken.microseconds.is_none(), "{tuned}");
        let text = tuned.to_string();
        for part in ["  * fast ", " us  the default, measured ", " us  refused: its element 0 is ", "fast is taken: "] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(fast.rounds == ROUNDS && wrong.rounds == 0, "{text}");

        // Known now, also to another process; and without choices the default is taken.
        assert_eq!(gpu.tune(&doubled()).unwrap().new, 0);
        let other = Gpu::open(&Options { choices: Some(gpu.choices()), ..Options::default() }).unwrap();
        let taken = |gpu: &Gpu| gpu.compile(&doubled()).unwrap().plan().steps[0].candidate;
        assert_eq!((taken(&gpu), taken(&other), taken(&Gpu::new().unwrap())), ("fast", "fast", "slow"));
    }
}
