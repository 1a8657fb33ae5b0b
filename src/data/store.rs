//! Datasets on the device.

use super::Images;
use crate::graph::{Param, Role};

/// A dataset as persistent device memory, for [`Tensor::image_batch`](crate::Tensor::image_batch): it moves there once,
/// with the first program that uses it.
#[derive(Clone, Debug)]
pub struct Store {
    /// The bytes `[N, C, H, W]`, four to a u32 word, lowest first.
    pub pixels: Param,
    /// The labels, u32 [N].
    pub labels: Param,
    /// `[C, H, W]`.
    pub shape: [usize; 3],
}

impl Images {
    /// The images as persistent device memory.
    pub fn store(&self) -> Store {
        let words: Vec<u32> = self
            .pixels
            .chunks(4)
            .map(|four| four.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)))
            .collect();
        Store {
            pixels: Param::new_u32("images", Role::Buffer, [words.len()], &words),
            labels: Param::new_u32("labels", Role::Buffer, [self.len()], &self.labels),
            shape: [self.channels, self.height, self.width],
        }
    }
}
