//! A network's tensors by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{HostTensor, HostType};
use crate::{Error, Result};

/// How many names of one kind a message lists before it only counts.
const LISTED: usize = 8;

/// Named tensors, in the order of their names, and a map of strings beside them: what a safetensors file holds.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// use shadegrad::io::{HostTensor, HostType, StateDict};
///
/// let mut state = StateDict::new();
/// state.tensors.insert("module.fc.bias".into(), HostTensor::from_f32(&[2], &[0.5, -0.5])?);
/// state.strip_prefix("module.")?;
/// state.check(&[("fc.bias".into(), HostType::F32, vec![2])])?;
/// assert_eq!(state.get("fc.bias")?.to_f32()?, [0.5, -0.5]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDict {
    /// The tensors, by name.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Free-form strings: safetensors' `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

impl StateDict {
    /// A state dict without tensors or metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::State`] if there is none.
    pub fn get(&self, name: &str) -> Result<&HostTensor> {
        self.tensors.get(name).ok_or_else(|| Error::State(format!("there is no tensor `{name}`")))
    }

    /// Removes `prefix` from every tensor name that begins with it and returns how many did.
    ///
    /// Wrappers leave such prefixes behind: PyTorch's data-parallel ones `module.`, `torch.compile` `_orig_mod.`.
    ///
    /// # Errors
    /// [`Error::State`] if two tensors would get the same name, or one an empty name; then nothing is renamed.
    pub fn strip_prefix(&mut self, prefix: &str) -> Result<usize> {
        self.rename(|name| name.strip_prefix(prefix).map(str::to_owned))
    }

    /// Puts `prefix` before every tensor name.
    pub fn add_prefix(&mut self, prefix: &str) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors.into_iter().map(|(name, t)| (format!("{prefix}{name}"), t)).collect();
    }

    fn rename(&mut self, new_name: impl Fn(&str) -> Option<String>) -> Result<usize> {
        let mut taken = BTreeMap::new();
        let mut renamed = 0;
        for old in self.tensors.keys() {
            let new = new_name(old);
            renamed += usize::from(new.is_some());
            let new = new.unwrap_or_else(|| old.clone());
            if new.is_empty() {
                return Err(Error::State(format!("`{old}` would be left without a name")));
            }
            if let Some(other) = taken.insert(new.clone(), old.clone()) {
                return Err(Error::State(format!("`{other}` and `{old}` would both be called `{new}`")));
            }
        }
        let mut tensors = std::mem::take(&mut self.tensors);
        self.tensors = taken.into_iter().filter_map(|(new, old)| Some((new, tensors.remove(&old)?))).collect();
        Ok(renamed)
    }

    /// Whether these are the tensors of a network: exactly the names, types and shapes in `expected`.
    ///
    /// # Errors
    /// [`Error::State`] with every tensor that is missing, superfluous or of another type or shape (at most eight of
    /// each by name, the rest as a count), and the prefix to strip or add where the names differ by just that.
    pub fn check(&self, expected: &[(String, HostType, Vec<usize>)]) -> Result<()> {
        let wanted: BTreeMap<&str, (HostType, &[usize])> =
            expected.iter().map(|(name, dtype, shape)| (name.as_str(), (*dtype, shape.as_slice()))).collect();
        let missing: BTreeSet<&str> = wanted.keys().copied().filter(|&name| !self.tensors.contains_key(name)).collect();
        let mut extra = BTreeSet::new();
        let mut misfits = Vec::new();
        for (name, found) in &self.tensors {
            match wanted.get(name.as_str()) {
                None => _ = extra.insert(name.as_str()),
                Some(&(dtype, shape)) if (dtype, shape) != (found.dtype, &found.shape[..]) => {
                    let (has, had) = (found.dtype, &found.shape);
                    misfits.push(format!("`{name}` should be {dtype} {shape:?}, but is {has} {had:?}"));
                }
                Some(_) => {}
            }
        }
        if missing.is_empty() && extra.is_empty() && misfits.is_empty() {
            return Ok(());
        }
        let mut parts = Vec::new();
        list(&mut parts, "missing", missing.iter().map(|name| format!("`{name}`")));
        list(&mut parts, "unexpected", extra.iter().map(|name| format!("`{name}`")));
        list(&mut parts, "of another type or shape", misfits.into_iter());
        if let Some((prefix, count)) = common_prefix(&extra, &missing) {
            parts.push(format!(
                "{count} of the unexpected names are missing ones after the prefix `{prefix}`: \
                 call `strip_prefix({prefix:?})` first"
            ));
        } else if let Some((prefix, count)) = common_prefix(&missing, &extra) {
            parts.push(format!(
                "{count} of the missing names are unexpected ones after the prefix `{prefix}`: \
                 call `add_prefix({prefix:?})` first"
            ));
        }
        Err(Error::State(parts.join("; ")))
    }
}

/// Adds "3 missing: a, b, c" to `parts`, if there is anything to list.
fn list(parts: &mut Vec<String>, what: &str, items: impl ExactSizeIterator<Item = String>) {
    let count = items.len();
    if count == 0 {
        return;
    }
    let mut text = format!("{count} {what}: {}", items.take(LISTED).collect::<Vec<_>>().join(", "));
    if count > LISTED {
        // Writing to a `String` cannot fail.
        let _ = write!(text, " and {} more", count - LISTED);
    }
    parts.push(text);
}

/// The prefix, ending in a dot, that most often leads from a name of `long` to one of `short` when it is stripped, and
/// how often it does.
fn common_prefix<'a>(long: &BTreeSet<&'a str>, short: &BTreeSet<&str>) -> Option<(&'a str, usize)> {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for name in long {
        for (dot, _) in name.match_indices('.') {
            let (prefix, rest) = name.split_at(dot + 1);
            if short.contains(rest) {
                *votes.entry(prefix).or_default() += 1;
            }
        }
    }
    // Of prefixes with as many votes, the shorter one: it comes first in the map, and `max_by_key` keeps the last.
    votes.into_iter().rev().max_by_key(|&(_, count)| count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(entries: &[(&str, &[usize])]) -> StateDict {
        let mut state = StateDict::new();
        for &(name, shape) in entries {
            let zeros = vec![0.0; shape.iter().product()];
            state.tensors.insert(name.into(), HostTensor::from_f32(shape, &zeros).unwrap());
        }
        state
    }

    fn expected(entries: &[(&str, &[usize])]) -> Vec<(String, HostType, Vec<usize>)> {
        entries.iter().map(|&(name, shape)| (name.to_owned(), HostType::F32, shape.to_vec())).collect()
    }

    #[test]
    fn all_misfits_are_listed() {
        let s = state(&[("b", &[3, 4]), ("z", &[1]), ("y", &[1]), ("ok", &[2])]);
        let mut wanted = expected(&[("b", &[4, 3]), ("ok", &[2]), ("d", &[1]), ("c", &[1])]);
        let message = s.check(&wanted).unwrap_err().to_string();
        assert_eq!(
            message,
            "the state does not fit the network: 2 missing: `c`, `d`; 2 unexpected: `y`, `z`; \
             1 of another type or shape: `b` should be f32 [4, 3], but is f32 [3, 4]"
        );
        wanted = expected(&[("b", &[3, 4]), ("ok", &[2]), ("y", &[1]), ("z", &[1])]);
        s.check(&wanted).unwrap();
        wanted[0].1 = HostType::I32;
        assert!(s.check(&wanted).unwrap_err().to_string().contains("should be i32 [3, 4], but is f32 [3, 4]"));
    }

    #[test]
    fn long_lists_are_counted() {
        let names: Vec<String> = (0..20).map(|i| format!("w{i:02}")).collect();
        let wanted: Vec<_> = names.iter().map(|n| (n.clone(), HostType::F32, vec![1])).collect();
        let message = StateDict::new().check(&wanted).unwrap_err().to_string();
        assert!(message.contains("20 missing: `w00`") && message.ends_with("`w07` and 12 more"), "{message}");
    }

    #[test]
    fn prefixes_are_found_and_stripped() {
        let wanted = expected(&[("fc.weight", &[2, 2]), ("fc.bias", &[2])]);
        for prefix in ["module.", "_orig_mod.", "module._orig_mod."] {
            let mut s = state(&[(&format!("{prefix}fc.weight"), &[2, 2]), (&format!("{prefix}fc.bias"), &[2])]);
            let message = s.check(&wanted).unwrap_err().to_string();
            assert!(message.contains(&format!("call `strip_prefix({prefix:?})` first")), "{message}");
            assert_eq!(s.strip_prefix(prefix).unwrap(), 2);
            s.check(&wanted).unwrap();
        }
        let mut s = state(&[("weight", &[2, 2]), ("bias", &[2])]);
        let message = s.check(&wanted).unwrap_err().to_string();
        assert!(message.contains("call `add_prefix(\"fc.\")` first"), "{message}");
        s.add_prefix("fc.");
        s.check(&wanted).unwrap();
    }

    #[test]
    fn a_prefix_that_collides_changes_nothing() {
        let mut s = state(&[("a", &[1]), ("module.a", &[2])]);
        let before = s.clone();
        let message = s.strip_prefix("module.").unwrap_err().to_string();
        assert!(message.contains("`a` and `module.a` would both be called `a`"), "{message}");
        assert!(s.strip_prefix("module.a").is_err());
        assert_eq!(s, before);
        assert_eq!(s.strip_prefix("nothing.").unwrap(), 0);
    }
}
