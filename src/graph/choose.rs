//! Choosing a kernel: which of the ways to compute a unit is taken on a device.
//!
//! An op names its candidates, the one that serves this class of devices best first. That one is taken, unless
//! [`Choices`] - what measurements on the device itself have shown - say otherwise.

use super::{Candidate, Caps, Io, Kernel, Op, wgsl};
use std::collections::BTreeMap;

/// What a candidate showed when it was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its name.
    pub candidate: String,
    /// Microseconds of one run, the median of several.
    pub microseconds: Option<f64>,
    /// How many times it was measured so; once where that had shown it to be hopeless.
    pub rounds: usize,
    /// Why it could not be taken; empty where all went well.
    pub remark: String,
}

/// The candidate that won some work, and the trials that it won.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The winner's name.
    pub candidate: String,
    /// Of the candidates' kernels as they were then ([`Work::fingerprint`]); others have to be measured anew.
    pub fingerprint: u64,
    /// Every candidate, as it was tried.
    pub trials: Vec<Trial>,
}

/// The choices made for one device, by the work that they are for. Given the same choices, plans are the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices(pub BTreeMap<String, Choice>);

impl Choices {
    /// The choice for this work, if its candidates are still the same and one of them was chosen.
    pub fn of(&self, work: &Work) -> Option<&Choice> {
        let known = |choice: &&Choice| work.candidates.contains(&choice.candidate.as_str());
        self.0.get(&work.key).filter(|choice| choice.fingerprint == work.fingerprint).filter(known)
    }
}

/// Work that several kernels can do.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The unit of the fused graph.
    pub unit: usize,
    /// Op, attributes and shapes: the same for work that takes the same time.
    pub key: String,
    /// A hash of the candidates' kernels and their shaders.
    pub fingerprint: u64,
    /// The candidates' names.
    pub candidates: Vec<&'static str>,
}

/// The candidates that the device can run.
pub(super) fn permitted(op: &dyn Op, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
    let mut all = op.candidates(io, caps);
    all.retain(|candidate| candidate.turns <= caps.turns);
    // Those that bind more buffers than allowed are dropped; if that is all of them, those stay whose operands may still
    // become textures.
    let buffers = |kernel: &Kernel| kernel.args.iter().filter(|arg| !matches!(arg, super::Arg::Texels(_))).count();
    let binds = |candidate: &Candidate| candidate.kernels.iter().map(buffers).max().unwrap_or(0);
    let some_fit = all.iter().any(|candidate| binds(candidate) <= caps.storage_buffers);
    let most = if some_fit { caps.storage_buffers } else { caps.storage_buffers + caps.mirrors };
    all.retain(|candidate| binds(candidate) <= most);
    all
}

/// Why no candidate is left.
pub(super) fn none_left(caps: &Caps) -> String {
    let message = "no kernel fits this device's limits for these shapes";
    match caps.turns {
        usize::MAX => message.into(),
        turns => format!(
            "{message}: its driver stops an invocation's loops after {turns} turns (docs/adapters.md); split the longest \
             axis"
        ),
    }
}

/// What a choice among these candidates would be for; nothing where there is none, or where trying would change state.
pub(super) fn work(unit: usize, op: &dyn Op, io: &Io<'_>, candidates: &[Candidate]) -> Option<Work> {
    if candidates.len() < 2 || !op.state().is_empty() {
        return None;
    }
    let list = |descs: &[super::Desc]| descs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let views: String = io.views.iter().flatten().map(|view| format!(" {view:?}")).collect();
    let used: String = io.used.iter().map(|used| if *used { '+' } else { '-' }).collect();
    Some(Work {
        unit,
        key: format!("{op:?} {}{views} -> {} {used}", list(io.inputs), list(io.outputs)),
        fingerprint: fingerprint(candidates),
        candidates: candidates.iter().map(|candidate| candidate.name).collect(),
    })
}

/// Takes the candidate that is forced, or was chosen, or else the first.
pub(super) fn pick(mut all: Vec<Candidate>, caps: &Caps, work: Option<&Work>, choices: &Choices) -> Option<Candidate> {
    let chosen = work.and_then(|work| choices.of(work));
    let at = match (caps.candidate, chosen) {
        (Some(forced), _) => forced % all.len().max(1),
        (None, Some(choice)) => all.iter().position(|candidate| candidate.name == choice.candidate).unwrap_or(0),
        (None, None) => 0,
    };
    (at < all.len()).then(|| all.swap_remove(at))
}

/// FNV-1a (Fowler, Noll and Vo) over everything that makes the candidates' kernels. Tables and places differ from
/// program to program and are left out.
fn fingerprint(candidates: &[Candidate]) -> u64 {
    let mut hash = Fnv::default();
    // A loop over time may be a thousand kernels of one file, which is hashed once.
    let mut last = "";
    for candidate in candidates {
        hash.add(candidate.name);
        for kernel in &candidate.kernels {
            hash.add(kernel.entry);
            if !std::ptr::eq(last, kernel.shader.source) {
                last = kernel.shader.source;
                hash.add(last);
            }
            let Kernel { consts, functions, choices, streamed, moves, grid, .. } = kernel;
            hash.add(&format!("{consts:?} {functions:?} {choices:?} {streamed:?} {moves} {grid:?}"));
        }
    }
    hash.0 ^ wgsl::library_fingerprint()
}

/// A 64-bit hash that is the same on every machine and in every version.
pub(crate) struct Fnv(pub u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Kernel, Shader};

    fn candidate(name: &'static str, source: &'static str) -> Candidate {
        Candidate::single(name, Kernel::new(Shader { name: "test.wgsl", source }, "main"))
    }

    #[test]
    fn the_first_is_taken_unless_another_was_chosen_or_is_forced() {
        let all = || vec![candidate("a", "x"), candidate("b", "y"), candidate("c", "z")];
        let candidates = vec!["a", "b", "c"];
        let work = Work { unit: 0, key: "k".into(), fingerprint: fingerprint(&all()), candidates };
        let mut choices = Choices::default();
        let caps = Caps::webgpu();
        let picked = |caps: &Caps, choices: &Choices| pick(all(), caps, Some(&work), choices).unwrap().name;
        assert_eq!(picked(&caps, &choices), "a");
        let choice = Choice { candidate: "b".into(), fingerprint: work.fingerprint, trials: Vec::new() };
        choices.0.insert("k".into(), choice.clone());
        assert_eq!(picked(&caps, &choices), "b");
        assert_eq!(picked(&Caps { candidate: Some(5), ..caps.clone() }, &choices), "c");
        // The kernels have changed since.
        choices.0.insert("k".into(), Choice { fingerprint: 1, ..choice.clone() });
        assert_eq!(picked(&caps, &choices), "a");
        choices.0.insert("k".into(), Choice { candidate: "unknown".into(), ..choice });
        assert_eq!((choices.of(&work), picked(&caps, &choices)), (None, "a"));
    }

    #[test]
    fn a_changed_shader_or_name_has_another_fingerprint() {
        let of = |name, source| fingerprint(&[candidate(name, source)]);
        assert!(of("a", "x") != of("a", "y") && of("a", "x") != of("b", "x") && of("a", "x") == of("a", "x"));
    }
}
