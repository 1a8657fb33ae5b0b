//! A training run that can be stopped and goes on with the same bits.

use crate::graph::{Param, Role};
use crate::io::{Checkpoint, DataOrder, load_state_dict, state_dict};
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
    pub fn new(program: &'a Program, parameters: Vec<(String, Param)>, seed: u64) -> Result<Self> {
        let kept = program.params().iter().filter(|param| param.role() == Role::State);
        let state: Vec<(String, Param)> =
            kept.enumerate().map(|(n, param)| (format!("{n}.{}", param.name()), param.clone())).collect();
        program.seed(seed)?;
        Ok(Session { program, parameters, state, seed })
    }

    /// Saves everything after `step` steps, atomically; `notes` are kept beside it.
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
        if let Some((name, _)) = checkpoint.model.tensors.iter().find(|(_, t)| has_nan(t)) {
            return Err(Error::NotFinite {
                what: format!("the weight {name}"),
                value: f32::NAN,
                step,
                remedy: "nothing was saved; the last good checkpoint is intact".into(),
            });
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
            let message = format!("the checkpoint was made with seed {}, this run has {}", checkpoint.seed, self.seed);
            return Err(Error::argument("seed", message));
        }
        let gpu = self.program.gpu();
        load_state_dict(gpu, &self.parameters, &checkpoint.model)?;
        load_state_dict(gpu, &self.state, &checkpoint.optim)?;
        Ok(checkpoint.step)
    }
}

fn has_nan(tensor: &crate::io::HostTensor) -> bool {
    tensor.to_f32().is_ok_and(|values| values.iter().any(|v| v.is_nan()))
}
