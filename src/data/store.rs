//! Datasets on the device.

use super::Images;
use crate::graph::{Param, Role};

/// A dataset as persistent device memory, for [`Tensor::image_batch`](crate::Tensor::image_batch): it moves there once,
/// with the first program that uses it.
#[derive(Clone, Debug)]
pub struct Store {
    /// The bytes `[N, C, H, W]`, four to a u32 word, lowest first.
    pub pixels: Param,
    /// The labels, u32 `[N]`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Memory;

    fn words(param: &Param) -> Vec<u32> {
        match &*param.memory() {
            Memory::Host(words) => words.clone(),
            Memory::Device(_) => panic!("no device was opened"),
        }
    }

    #[test]
    fn four_bytes_make_a_word_lowest_first() {
        let names = vec!["a".into(), "b".into()];
        let images = Images::new([3, 1, 1], names, vec![1, 2, 3, 0x84, 5, 255], vec![1, 0]).unwrap();
        let store = images.store();
        assert_eq!(words(&store.pixels), [0x8403_0201, 0x0000_ff05]);
        assert_eq!(words(&store.labels), [1, 0]);
        assert_eq!((store.shape, store.pixels.desc().elements(), store.labels.desc().elements()), ([3, 1, 1], 2, 2));
    }

    #[test]
    fn every_byte_is_where_the_kernel_looks_for_it() {
        for len in 1..9usize {
            let pixels: Vec<u8> = (0..len).map(|i| (i * 41 + 200) as u8).collect();
            let images = Images::new([1, 1, len], vec!["a".into()], pixels.clone(), vec![0]).unwrap();
            let words = words(&images.store().pixels);
            let bytes: Vec<u8> = (0..4 * words.len()).map(|at| (words[at / 4] >> (at % 4 * 8)) as u8).collect();
            assert_eq!(bytes[..len], pixels);
            assert!(words.len() == len.div_ceil(4) && bytes[len..].iter().all(|&byte| byte == 0), "{bytes:?}");
        }
    }
}
