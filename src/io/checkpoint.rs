//! What a training run needs to go on after it was stopped, in one safetensors file.
//!
//! Tensors are called `model.*` and `optim.*`; the header's strings hold the rest: `checkpoint.format` (the version of
//! this layout), `checkpoint.library`, `checkpoint.step` and so on, with numbers in decimal, and `note.*`, `model.*` and
//! `optim.*` for free-form strings. Any safetensors reader can open it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{HostTensor, StateDict, atomic, safetensors};
use crate::{Error, Result};

/// The version of the layout; a reader refuses any other.
const FORMAT: &str = "1";
const FORMAT_KEY: &str = "checkpoint.format";
const LIBRARY_KEY: &str = "checkpoint.library";
const MODEL: &str = "model.";
const OPTIM: &str = "optim.";
const NOTE: &str = "note.";

/// Where in its data a run is: enough to go on in the same order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataOrder {
    /// What the order is drawn from.
    pub seed: u64,
    /// How far the run has come in it; [`Session`](crate::train::Session) counts steps.
    pub position: u64,
}

/// The state of a training run.
///
/// [`Checkpoint::save`] keeps the checkpoint that it replaces as `<name>.previous`. At every instant, also while a save
/// is under way, at least one of the two files is complete.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// # let folder = tempfile::tempdir().map_err(|e| shadegrad::Error::io("temporary folder", e))?;
/// # let path = folder.path().join("run.safetensors");
/// use shadegrad::io::{Checkpoint, HostTensor};
///
/// let mut checkpoint = Checkpoint { step: 100, seed: 7, ..Checkpoint::default() };
/// checkpoint.model.tensors.insert("fc.bias".into(), HostTensor::from_f32(&[2], &[0.5, -0.5])?);
/// checkpoint.notes.insert("lr".into(), "1e-3".into());
/// checkpoint.save(&path)?;
/// assert_eq!(Checkpoint::load_latest(&path)?, checkpoint);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The network's tensors, by parameter name.
    pub model: StateDict,
    /// The optimizer's tensors.
    pub optim: StateDict,
    /// Optimizer steps done.
    pub step: u64,
    /// Whole epochs done.
    pub epoch: u64,
    /// The seed of the run.
    pub seed: u64,
    /// Where in its data the run is.
    pub order: DataOrder,
    /// Hyper-parameters and whatever else should go with the file.
    pub notes: BTreeMap<String, String>,
}

impl Checkpoint {
    /// The name under which the checkpoint before the one at `path` is kept: `<name>.previous` in the same folder (the
    /// folder of the file that `path` points to, if it is a symbolic link).
    ///
    /// # Errors
    /// [`Error::Argument`] if `path` names no file.
    pub fn previous(path: impl AsRef<Path>) -> Result<PathBuf> {
        atomic::sibling(&atomic::resolve(path.as_ref()), ".previous")
    }

    /// Writes the checkpoint atomically and keeps the one that was there as [`Checkpoint::previous`] (unless that one is
    /// damaged: then the older one stays).
    ///
    /// # Errors
    /// As for [`StateDict::save`]; the old checkpoint is then still there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut tensors: BTreeMap<String, &HostTensor> = BTreeMap::new();
        let mut metadata: BTreeMap<String, String> = BTreeMap::new();
        for (prefix, state) in [(MODEL, &self.model), (OPTIM, &self.optim)] {
            tensors.extend(state.tensors.iter().map(|(name, t)| (format!("{prefix}{name}"), t)));
            metadata.extend(state.metadata.iter().map(|(key, v)| (format!("{prefix}{key}"), v.clone())));
        }
        metadata.extend(self.notes.iter().map(|(key, v)| (format!("{NOTE}{key}"), v.clone())));
        metadata.insert(FORMAT_KEY.into(), FORMAT.into());
        metadata.insert(LIBRARY_KEY.into(), env!("CARGO_PKG_VERSION").into());
        let mut numbers = self.clone_numbers();
        metadata.extend(numbers.fields().map(|(key, value)| (key.to_owned(), value.to_string())));

        let staged = safetensors::stage(path.as_ref(), &tensors, &metadata)?;
        if safetensors::looks_whole(staged.target()) {
            atomic::keep(staged.target(), &Self::previous(staged.target())?)?;
        }
        staged.commit()
    }

    /// Reads the checkpoint at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is damaged, is no checkpoint or has a layout that
    /// this version does not know. If it is missing or damaged and there is a previous one, the message names that.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match StateDict::load(path) {
            Ok(state) => Self::from_state(state).map_err(|message| Error::format(path, message)),
            Err(error) => Err(match Self::fallback(path, &error) {
                Some(previous) => with_hint(
                    error,
                    &format!("; the checkpoint before it is in {}, `load_latest` takes that", previous.display()),
                ),
                None => error,
            }),
        }
    }

    /// Reads the checkpoint at `path` or, if that is missing or damaged, the one kept before it, with a warning in the log.
    ///
    /// # Errors
    /// As for [`Checkpoint::load`]. A checkpoint that is whole but not readable by this version is an error, not a reason
    /// to go back to an older one.
    pub fn load_latest(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let error = match StateDict::load(path) {
            Ok(state) => return Self::from_state(state).map_err(|message| Error::format(path, message)),
            Err(error) => error,
        };
        let Some(previous) = Self::fallback(path, &error) else { return Err(error) };
        match StateDict::load(&previous) {
            Ok(state) => {
                let checkpoint = Self::from_state(state).map_err(|message| Error::format(&previous, message))?;
                log::warn!("{error}; going on from {} at step {}", previous.display(), checkpoint.step);
                Ok(checkpoint)
            }
            Err(second) => Err(with_hint(error, &format!("; nor can the one before it be read: {second}"))),
        }
    }

    /// The previous checkpoint's file, if there is one and `error` says that the present one is missing or damaged.
    fn fallback(path: &Path, error: &Error) -> Option<PathBuf> {
        let lost = match error {
            Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Error::Format { .. } => true,
            _ => false,
        };
        Self::previous(path).ok().filter(|previous| lost && previous.is_file())
    }

    fn from_state(state: StateDict) -> Result<Self, String> {
        let StateDict { tensors, mut metadata } = state;
        let library = metadata.remove(LIBRARY_KEY).unwrap_or_else(|| "an unknown version".into());
        match metadata.remove(FORMAT_KEY).as_deref() {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(format!(
                    "checkpoint format {other}, written by shadegrad {library}, is unknown to shadegrad {}, which reads \
                     format {FORMAT}; use a version that knows it",
                    env!("CARGO_PKG_VERSION")
                ));
            }
            None => {
                return Err(format!(
                    "this safetensors file is not a checkpoint: it has no `{FORMAT_KEY}` in its metadata; \
                     weights alone are read with `StateDict::load`"
                ));
            }
        }
        let mut checkpoint = Self::default();
        for (key, value) in checkpoint.fields() {
            let text =
                metadata.remove(key).ok_or_else(|| format!("damaged: no `{key}` in the checkpoint's metadata"))?;
            *value = text.parse().map_err(|_| format!("damaged: `{key}` is {text:?}, not a whole number"))?;
        }
        for (name, tensor) in tensors {
            let (state, rest) = if let Some(rest) = name.strip_prefix(MODEL) {
                (&mut checkpoint.model, rest)
            } else if let Some(rest) = name.strip_prefix(OPTIM) {
                (&mut checkpoint.optim, rest)
            } else {
                return Err(format!("damaged: tensor `{name}` is neither the model's nor the optimizer's"));
            };
            state.tensors.insert(rest.to_owned(), tensor);
        }
        for (key, value) in metadata {
            if let Some(rest) = key.strip_prefix(MODEL) {
                checkpoint.model.metadata.insert(rest.to_owned(), value);
            } else if let Some(rest) = key.strip_prefix(OPTIM) {
                checkpoint.optim.metadata.insert(rest.to_owned(), value);
            } else if let Some(rest) = key.strip_prefix(NOTE) {
                checkpoint.notes.insert(rest.to_owned(), value);
            }
        }
        Ok(checkpoint)
    }

    /// The numbers beside the tensors, with their names in the file: the one list for writing and reading.
    fn fields(&mut self) -> impl Iterator<Item = (&'static str, &mut u64)> {
        [
            ("checkpoint.step", &mut self.step),
            ("checkpoint.epoch", &mut self.epoch),
            ("checkpoint.seed", &mut self.seed),
            ("checkpoint.data_seed", &mut self.order.seed),
            ("checkpoint.data_position", &mut self.order.position),
        ]
        .into_iter()
    }

    /// A checkpoint with the same numbers and nothing else.
    fn clone_numbers(&self) -> Self {
        Self { step: self.step, epoch: self.epoch, seed: self.seed, order: self.order, ..Self::default() }
    }
}

/// `error` with more words at its end.
fn with_hint(error: Error, hint: &str) -> Error {
    match error {
        Error::Io { path, source } => {
            Error::Io { path, source: io::Error::new(source.kind(), format!("{source}{hint}")) }
        }
        Error::Format { path, message } => Error::Format { path, message: message + hint },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sample(step: u64) -> Checkpoint {
        let mut c = Checkpoint {
            step,
            epoch: 3,
            seed: u64::MAX,
            order: DataOrder { seed: (1 << 53) + 1, position: 640 },
            ..Checkpoint::default()
        };
        let weights = HostTensor::from_f32(&[2, 2], &[step as f32; 4]).unwrap();
        c.model.tensors.insert("model.fc.weight".into(), weights.clone());
        c.model.metadata.insert("name".into(), "digits".into());
        c.optim.tensors.insert("fc.weight.m".into(), weights);
        c.optim.tensors.insert("step".into(), HostTensor::from_u32(&[], &[9]).unwrap());
        c.notes.insert("lr".into(), "1e-3".into());
        c.notes.insert("checkpoint.step".into(), "not the step".into());
        c
    }

    fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn round_trip_and_previous() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        for step in 1..=3 {
            sample(step).save(&path).unwrap();
            assert_eq!(Checkpoint::load(&path).unwrap(), sample(step));
        }
        let previous = Checkpoint::previous(&path).unwrap();
        assert_eq!(previous, folder.path().join("c.safetensors.previous"));
        assert_eq!(Checkpoint::load(previous).unwrap(), sample(2));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn falls_back_to_the_previous() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        assert!(matches!(Checkpoint::load_latest(&path), Err(Error::Io { .. })));
        sample(1).save(&path).unwrap();
        sample(2).save(&path).unwrap();
        let whole = fs::read(&path).unwrap();

        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let text = message(Checkpoint::load(&path));
        assert!(
            text.contains("truncated") && text.contains("c.safetensors.previous, `load_latest` takes that"),
            "{text}"
        );
        assert_eq!(Checkpoint::load_latest(&path).unwrap(), sample(1));

        fs::remove_file(&path).unwrap();
        let error = Checkpoint::load(&path).unwrap_err();
        assert!(matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound));
        assert!(error.to_string().contains("c.safetensors.previous"));
        assert_eq!(Checkpoint::load_latest(&path).unwrap(), sample(1));

        fs::write(Checkpoint::previous(&path).unwrap(), b"").unwrap();
        let text = message(Checkpoint::load_latest(&path));
        assert!(text.contains("nor can the one before it be read") && text.contains("is empty"), "{text}");
    }

    #[test]
    fn a_damaged_checkpoint_does_not_push_out_a_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        sample(1).save(&path).unwrap();
        sample(2).save(&path).unwrap();
        fs::write(&path, b"damaged").unwrap();
        sample(3).save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), sample(3));
        assert_eq!(Checkpoint::load(Checkpoint::previous(&path).unwrap()).unwrap(), sample(1));
    }

    #[test]
    fn what_is_no_checkpoint_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        sample(1).save(&path).unwrap();
        sample(2).save(&path).unwrap();
        let good = StateDict::load(&path).unwrap();
        let with = |key: &str, value: Option<&str>| {
            let mut state = good.clone();
            state.metadata.remove(key);
            state.metadata.extend(value.map(|v| (key.to_owned(), v.to_owned())));
            state.save(&path).unwrap();
            // Both refuse: going back to an older checkpoint would lose the newer program's work.
            assert_eq!(message(Checkpoint::load(&path)), message(Checkpoint::load_latest(&path)));
            message(Checkpoint::load(&path))
        };
        assert!(with(FORMAT_KEY, Some("2")).contains("checkpoint format 2, written by shadegrad 0."));
        assert!(with(FORMAT_KEY, None).contains("is not a checkpoint"));
        assert!(with("checkpoint.step", None).contains("no `checkpoint.step`"));
        assert!(with("checkpoint.seed", Some("-1")).contains("`checkpoint.seed` is \"-1\", not a whole number"));
        let mut state = good.clone();
        state.tensors.insert("other".into(), HostTensor::from_f32(&[], &[0.0]).unwrap());
        state.save(&path).unwrap();
        assert!(message(Checkpoint::load(&path)).contains("tensor `other` is neither"));
    }

    #[cfg(unix)]
    #[test]
    fn through_a_symbolic_link() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("run")).unwrap();
        let link = folder.path().join("latest");
        sample(1).save(folder.path().join("run/c")).unwrap();
        std::os::unix::fs::symlink("run/c", &link).unwrap();
        sample(2).save(&link).unwrap();
        assert!(link.is_symlink());
        assert_eq!(Checkpoint::load(&link).unwrap(), sample(2));
        assert_eq!(Checkpoint::load(folder.path().join("run/c.previous")).unwrap(), sample(1));
    }
}
