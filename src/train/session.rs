//! A training run that can be stopped and goes on with the same bits.

use crate::graph::{Param, Role};
use crate::io::{Checkpoint, DataOrder, HostTensor, check_state_dict, distinct, load_state_dict, state_dict};
use crate::{Error, Program, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// The state of a training run: the network's weights, what the step program keeps (optimizer moments, counters,
/// hyper-parameters, random state), and where in the data it is.
pub struct Session<'a> {
    program: &'a Program,
    parameters: Vec<(String, Param)>,
    state: Vec<(String, Param)>,
    seed: u64,
}

impl<'a> Session<'a> {
    /// A run of `program` over the network with these named parameters, seeded by `seed` (which the data order and the
    /// program's random numbers follow).
    ///
    /// # Errors
    /// Two parameters of one name; what the device reports.
    pub fn new(program: &'a Program, parameters: Vec<(String, Param)>, seed: u64) -> Result<Self> {
        distinct(&parameters)?;
        let kept = program.params().iter().filter(|param| param.role() == Role::State);
        let state: Vec<(String, Param)> =
            kept.enumerate().map(|(n, param)| (format!("{n}.{}", param.name()), param.clone())).collect();
        program.seed(seed)?;
        Ok(Session { program, parameters, state, seed })
    }

    /// Saves everything after `step` steps, atomically; `notes` are kept beside it.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where a weight or what the optimizer keeps is not finite; what the device reports, or the file
    /// system. The old checkpoint is then still there.
    pub fn save(&self, path: &Path, step: u64, epoch: u64, notes: &BTreeMap<String, String>) -> Result<()> {
        let gpu = self.program.gpu();
        let checkpoint = Checkpoint {
            model: state_dict(gpu, &self.parameters)?,
            optim: state_dict(gpu, &self.state)?,
            step,
            epoch,
            seed: self.seed,
            order: DataOrder { seed: self.seed, position: step },
            notes: notes.clone(),
        };
        for (kind, state) in [("weight", &checkpoint.model), ("optimizer's", &checkpoint.optim)] {
            let found = state.tensors.iter().find_map(|(name, tensor)| Some((name, not_finite(tensor)?)));
            if let Some((name, value)) = found {
                return Err(Error::NotFinite {
                    what: format!("the {kind} {name}"),
                    value,
                    step,
                    remedy: "nothing was saved; the last good checkpoint is intact".into(),
                });
            }
        }
        checkpoint.save(path)
    }

    /// Takes up a checkpoint (or, if it is damaged, the one before it): the step to go on from.
    ///
    /// # Errors
    /// A file that is none, or one of another network, optimizer or seed.
    pub fn resume(&self, path: &Path) -> Result<u64> {
        let checkpoint = Checkpoint::load_latest(path)?;
        if checkpoint.seed != self.seed {
            let (before, now) = (checkpoint.seed, self.seed);
            let message =
                format!("the checkpoint was made with seed {before}, this run has {now}; run it with {before}");
            return Err(Error::argument("seed", message));
        }
        let gpu = self.program.gpu();
        // Both, before either is written.
        check_state_dict(&self.parameters, &checkpoint.model)?;
        check_state_dict(&self.state, &checkpoint.optim)?;
        load_state_dict(gpu, &self.parameters, &checkpoint.model)?;
        load_state_dict(gpu, &self.state, &checkpoint.optim)?;
        Ok(checkpoint.step)
    }
}

/// The first float that is none to go on with.
fn not_finite(tensor: &HostTensor) -> Option<f32> {
    tensor.to_f32().ok()?.into_iter().find(|value| !value.is_finite())
}
