//! Losses that are composed of other ops.

use crate::graph::Tensor;

/// How the losses of single elements become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Their mean; in a weighted cross-entropy, weighted.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Not at all.
    None,
}

impl Tensor {
    /// Squared differences to `target`, reduced.
    #[track_caller]
    pub fn mse_loss(&self, target: &Tensor, reduction: Reduction) -> Tensor {
        let losses = (self - target).square();
        match reduction {
            Reduction::Mean => losses.mean(&[], false),
            Reduction::Sum => losses.sum(&[], false),
            Reduction::None => losses,
        }
    }
}
