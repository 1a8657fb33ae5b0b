//! Cases that run for several steps: optimizers and whole training traces.

use shadegrad::{Gpu, Result};

use super::Outcome;
use crate::support::golden::Case;

/// The ops of this module.
pub const OPS: &[&str] = &["optimizer", "model_trace"];

/// Not yet: the engine has no optimizers.
pub fn run(_gpu: &Gpu, _case: &Case) -> Result<Outcome> {
    Ok(Outcome::Unsupported)
}
