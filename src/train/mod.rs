//! What a training run needs around its steps.

pub mod pictures;
