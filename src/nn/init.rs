//! First values of parameters.

use crate::graph::{Param, Role};
use crate::rng::Rng;
use std::cell::RefCell;

thread_local! {
    static GENERATOR: RefCell<Rng> = RefCell::new(Rng::new(0, 0));
}

/// Starts this thread's generator of first values anew, as `torch.manual_seed`: the same layers made in the same order
/// after it get the same values. Without it the seed is 0.
pub fn manual_seed(seed: u64) {
    GENERATOR.with(|g| *g.borrow_mut() = Rng::new(seed, 0));
}

/// A weight with values uniform in `-bound..bound`.
pub(super) fn uniform(name: &str, shape: &[usize], bound: f32) -> Param {
    let count = shape.iter().product();
    let values: Vec<f32> = GENERATOR.with(|g| {
        let mut rng = g.borrow_mut();
        (0..count).map(|_| rng.between(-bound, bound)).collect()
    });
    Param::new(name, Role::Weight, shape, &values)
}

/// Rows of bell-shaped values, mean 0 and variance 1, but for one of zeros.
pub(super) fn normal(name: &str, shape: &[usize], zeros: Option<usize>) -> Param {
    let count = shape.iter().product();
    let mut values: Vec<f32> = GENERATOR.with(|g| {
        let mut rng = g.borrow_mut();
        (0..count).map(|_| rng.bell()).collect()
    });
    if let (Some(row), &[rows, width]) = (zeros, shape)
        && row < rows
    {
        values[row * width..][..width].fill(0.0);
    }
    Param::new(name, Role::Weight, shape, &values)
}

/// PyTorch's default bound for the weights and biases of linear and convolution layers: `1 / sqrt(fan_in)`, which is
/// `kaiming_uniform_` with `a = sqrt(5)` (He et al., 2015).
pub(super) fn bound(fan_in: usize) -> f32 {
    1.0 / (fan_in.max(1) as f32).sqrt()
}
