//! Datasets on the device.

use super::{Images, Source};
use crate::graph::{Param, Role};
use crate::{Error, Gpu, Result};

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

impl Store {
    /// Room for `count` images of `[C, H, W]`, black and of class 0 until [`Store::fill`] brings them: programs can be
    /// compiled before the images are there.
    pub fn new(shape: [usize; 3], count: usize) -> Store {
        Store::from_words(shape, count, &[], &[])
    }

    fn from_words(shape: [usize; 3], count: usize, words: &[u32], labels: &[u32]) -> Store {
        let bytes = shape.iter().fold(count, |bytes, &side| bytes.saturating_mul(side));
        Store {
            pixels: Param::new_u32("images", Role::Buffer, [bytes.div_ceil(4)], words),
            labels: Param::new_u32("labels", Role::Buffer, [count], labels),
            shape,
        }
    }

    /// Puts these images in the place of those that are there.
    ///
    /// # Errors
    /// [`Error::Argument`] if their shape or number is not what the store was made for; what the device reports.
    pub fn fill(&self, gpu: &Gpu, images: &Images) -> Result<()> {
        let count = self.labels.desc().elements();
        if (images.shape(), images.len()) != (self.shape, count) {
            let ([c, h, w], [channels, height, width]) = (self.shape, images.shape());
            let message = format!(
                "the store holds {count} images of {c} x {h} x {w} (C x H x W), not {} of {channels} x {height} x {width}",
                images.len()
            );
            return Err(Error::argument("Store::fill", message));
        }
        gpu.write_param_words(&self.pixels, &images.words())?;
        gpu.write_param_words(&self.labels, &images.labels)
    }
}

impl Images {
    /// The images as persistent device memory.
    pub fn store(&self) -> Store {
        Store::from_words(self.shape(), self.len(), &self.words(), &self.labels)
    }

    /// The bytes, four to a word, lowest first.
    fn words(&self) -> Vec<u32> {
        let word = |four: &[u8]| four.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
        self.pixels.chunks(4).map(word).collect()
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
    fn other_images_than_the_store_was_made_for_are_refused() {
        let gpu = Gpu::new().unwrap();
        let images = |shape, pixels: &[u8]| Images::new(shape, vec!["a".into()], pixels.to_vec(), vec![0]).unwrap();
        let store = Store::new([1, 1, 2], 1);
        store.fill(&gpu, &images([1, 1, 2], &[7, 9])).unwrap();
        assert_eq!(words(&store.pixels), [0x0907]);
        let error = store.fill(&gpu, &images([1, 2, 1], &[7, 9])).unwrap_err().to_string();
        assert!(error.contains("holds 1 images of 1 x 1 x 2 (C x H x W), not 1 of 1 x 2 x 1"), "{error}");
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
