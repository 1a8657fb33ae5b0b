//! Which images make up which batch.

use std::ops::Range;

use crate::rng::Rng;
use crate::{Error, Result};

/// The order in which training sees a dataset: shuffled anew for each epoch, cut into batches of equal size.
///
/// A batch follows from `(len, batch, seed)` and the step number alone. The step number is therefore all that a
/// checkpoint has to keep: a resumed run sees the batches that the unbroken one would have seen.
///
/// The last, partial batch of an epoch is dropped, as training programs are built for one batch size; another shuffle
/// leaves out other images next time. To evaluate, where every image must count once, use [`ranges`].
#[derive(Clone, Debug)]
pub struct Order {
    batch: usize,
    seed: u64,
    /// The epoch that `indices` is for.
    epoch: u64,
    /// `0..len`, shuffled for `epoch`.
    indices: Vec<u32>,
}

impl Order {
    /// The order of `len` items in batches of `batch`.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `batch` is 0 or above `len`, or if `len` is more than `u32` can count.
    pub fn new(len: usize, batch: usize, seed: u64) -> Result<Self> {
        if batch == 0 {
            return Err(Error::argument("batch size", "0; a batch needs at least one item"));
        }
        if batch > len {
            return Err(Error::argument(
                "batch size",
                format!("a batch of {batch} does not fit in {len} items; use a batch of at most {len}, or more data"),
            ));
        }
        let Ok(count) = u32::try_from(len) else {
            return Err(Error::argument("dataset", format!("{len} items are more than can be counted in 32 bits")));
        };
        let mut order = Self { batch, seed, epoch: 0, indices: (0..count).collect() };
        order.shuffle(0);
        Ok(order)
    }

    /// The batch of a step, counted from 0 and on through the epochs: indices into the dataset, exactly the batch size
    /// of them.
    ///
    /// Steps may be asked for in any order; the first one of an epoch shuffles, the others only look up.
    pub fn batch(&mut self, step: u64) -> &[u32] {
        let epoch = self.epoch(step);
        if epoch != self.epoch {
            self.shuffle(epoch);
        }
        // Below the length, which fits in 32 bits.
        let start = (step % self.steps_per_epoch()) as usize * self.batch;
        &self.indices[start..start + self.batch]
    }

    /// The epoch of a step, both counted from 0.
    pub fn epoch(&self, step: u64) -> u64 {
        step / self.steps_per_epoch()
    }

    /// Whole batches in the dataset, at least 1.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.indices.len() / self.batch) as u64
    }

    fn shuffle(&mut self, epoch: u64) {
        // Always from the same start, so that an epoch's order does not depend on what was asked for before.
        for (i, index) in self.indices.iter_mut().enumerate() {
            *index = i as u32;
        }
        Rng::new(self.seed, epoch).shuffle(&mut self.indices);
        self.epoch = epoch;
    }
}

/// `0..len` as consecutive ranges of `batch`, in order, for evaluation: every item once, the last range shorter where
/// `batch` does not divide `len`. None at all if `len` is 0.
///
/// # Errors
///
/// [`Error::Argument`] if `batch` is 0.
pub fn ranges(len: usize, batch: usize) -> Result<impl ExactSizeIterator<Item = Range<usize>> + Clone> {
    if batch == 0 {
        return Err(Error::argument("batch size", "0; a batch needs at least one item"));
    }
    Ok((0..len.div_ceil(batch)).map(move |i| i * batch..len.min((i + 1).saturating_mul(batch))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_is_a_permutation_of_its_own() {
        let mut order = Order::new(120, 10, 9).unwrap();
        assert_eq!(order.steps_per_epoch(), 12);
        let epochs: Vec<Vec<u32>> =
            (0..4).map(|e| (0..12).flat_map(|s| order.batch(e * 12 + s).to_vec()).collect()).collect();
        for (e, epoch) in epochs.iter().enumerate() {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..120), "epoch {e}: {epoch:?}");
            assert_ne!(epoch, &sorted);
            assert!(epochs[..e].iter().all(|earlier| earlier != epoch));
        }
    }

    #[test]
    fn the_step_is_the_whole_state() {
        let mut unbroken = Order::new(103, 7, 5).unwrap();
        let expected: Vec<Vec<u32>> = (0..60).map(|s| unbroken.batch(s).to_vec()).collect();
        for step in [59, 0, 31, 14, 13, 15, 58] {
            let mut resumed = Order::new(103, 7, 5).unwrap();
            assert_eq!(resumed.batch(step), expected[step as usize], "step {step}");
            assert_eq!(unbroken.batch(step), expected[step as usize], "step {step}, out of order");
        }
        let mut other = Order::new(103, 7, 6).unwrap();
        assert_ne!(other.batch(0), expected[0]);
        assert_eq!(other.batch(u64::MAX).len(), 7);
    }

    #[test]
    fn the_partial_batch_is_dropped_in_training_only() {
        let mut order = Order::new(10, 4, 1).unwrap();
        assert_eq!(order.steps_per_epoch(), 2);
        assert_eq!((order.epoch(1), order.epoch(2)), (0, 1));
        assert!((0..20).all(|s| order.batch(s).len() == 4));
        assert_eq!(ranges(10, 4).unwrap().collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
        assert_eq!(ranges(8, 4).unwrap().len(), 2);
        assert_eq!(ranges(3, usize::MAX).unwrap().collect::<Vec<_>>(), std::slice::from_ref(&(0..3)));
        assert_eq!(ranges(0, 4).unwrap().count(), 0);
    }

    #[test]
    fn impossible_batches_are_refused() {
        let message = |len, batch| Order::new(len, batch, 0).unwrap_err().to_string();
        assert_eq!(message(5, 0), "batch size: 0; a batch needs at least one item");
        assert!(message(5, 6).contains("a batch of 6 does not fit in 5 items"), "{}", message(5, 6));
        assert!(message(0, 1).contains("0 items"), "{}", message(0, 1));
        assert!(ranges(5, 0).is_err());
    }
}
