//! Losses on their way from the device.

use crate::gpu::Readback;
use crate::{Error, Program, Result, Tensor};
use std::collections::VecDeque;

/// Reads a step's loss (and what lies beside it in one tensor) some steps later, so that training never waits for it.
pub struct Losses {
    output: Tensor,
    pending: VecDeque<(u64, Readback)>,
    depth: usize,
}

impl Losses {
    /// Follows `output`, f32 with the loss as its first element; a value is at most `depth` steps late.
    pub fn new(output: &Tensor, depth: usize) -> Self {
        Losses { output: output.clone(), pending: VecDeque::new(), depth }
    }

    /// Notes that `program` has run step number `step` (from 1); gives the values that have arrived since, with their
    /// steps, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a loss that is NaN or infinite, naming its step.
    pub fn step(&mut self, program: &Program, step: u64) -> Result<Vec<(u64, Vec<f32>)>> {
        self.pending.push_back((step, program.fetch(&self.output)?));
        self.take(self.depth)
    }

    /// [`Losses::step`], waiting for this step's own value, too.
    pub fn wait(&mut self, program: &Program, step: u64) -> Result<Vec<(u64, Vec<f32>)>> {
        self.pending.push_back((step, program.fetch(&self.output)?));
        self.take(0)
    }

    /// Waits for all that are under way.
    pub fn finish(&mut self) -> Result<Vec<(u64, Vec<f32>)>> {
        self.take(0)
    }

    fn take(&mut self, left: usize) -> Result<Vec<(u64, Vec<f32>)>> {
        let mut arrived = Vec::new();
        while self.pending.len() > left {
            let Some((step, readback)) = self.pending.pop_front() else { break };
            let values = readback.wait_f32()?;
            match values.first() {
                Some(loss) if !loss.is_finite() => {
                    self.pending.clear();
                    return Err(Error::NotFinite {
                        what: "the loss".into(),
                        value: *loss,
                        step,
                        remedy:
                            "training stopped before anything was saved over the last good checkpoint; try a lower \
                                 learning rate, or clip the gradients"
                                .into(),
                    });
                }
                _ => arrived.push((step, values)),
            }
        }
        Ok(arrived)
    }
}
