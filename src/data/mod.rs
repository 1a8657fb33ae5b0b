//! Datasets on the host: labelled images as bytes, where they come from, and the order in which training sees them.
//!
//! [`idx`] reads MNIST's files, [`digits`] draws handwriting-like digits without any file, [`folder`] reads a folder of
//! image files by class. Each gives an [`Images`]. [`order`] says which images make up which batch, from the step
//! number alone. [`Images::store`] keeps a whole set on the device; for one that does not fit there, [`loader`] prepares
//! batches ahead, from memory or from files decoded on demand.
//!
//! ```
//! use shadegrad::data::{Order, digits};
//!
//! let mut train = digits::draw(1_000, 7)?;
//! let test = train.split_off(900)?;
//! let (mean, std) = train.mean_std();
//! let mut order = Order::new(train.len(), 64, 1)?;
//! let (mut x, mut y) = (Vec::new(), Vec::new());
//! for step in 0..2 * order.steps_per_epoch() {
//!     train.gather(order.batch(step), mean, std, &mut x, &mut y)?;
//!     // upload x, [64, 1, 28, 28], and y, [64]
//! }
//! # assert_eq!((test.len(), x.len(), y.len()), (100, 64 * 784, 64));
//! # Ok::<(), shadegrad::Error>(())
//! ```

pub mod digits;
pub mod folder;
pub mod idx;
pub mod loader;
pub mod order;
mod store;

pub use loader::{Batch, Loader, Source};
pub use order::Order;
pub use store::Store;

use crate::{Error, Result};

/// Labelled images of one size, as bytes in host memory.
///
/// The fields are public for reading in bulk; [`Images::new`] is what guarantees that they fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Rows of pixels in an image.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Values per pixel: 1 for gray, 3 for RGB.
    pub channels: usize,
    /// The classes' names; a label is a place in this list.
    pub classes: Vec<String>,
    /// The values, 0 to 255, as `[N, C, H, W]`.
    pub pixels: Vec<u8>,
    /// Each image's class, `[N]`.
    pub labels: Vec<u32>,
}

impl Images {
    /// Puts `pixels`, `[N, C, H, W]`, and `labels`, `[N]`, together; `shape` is `[C, H, W]`.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if a side of `shape` is 0, if there are no images or more than `u32` can count, if the
    /// number of bytes is not `N * C * H * W`, or if a label names no class (the message names the first such label and
    /// its image).
    pub fn new(shape: [usize; 3], classes: Vec<String>, pixels: Vec<u8>, labels: Vec<u32>) -> Result<Self> {
        let wrong = |message: String| Err(Error::argument("images", message));
        let [channels, height, width] = shape;
        let Some(size) = image_size(shape).filter(|&size| size > 0) else {
            return wrong(format!("an image of {channels} x {height} x {width} values (C x H x W) is not possible"));
        };
        if labels.is_empty() {
            return wrong("there are none; a dataset needs at least one image".into());
        }
        if u32::try_from(labels.len()).is_err() {
            return wrong(format!("{} of them are more than a dataset holds ({})", labels.len(), u32::MAX));
        }
        if labels.len().checked_mul(size) != Some(pixels.len()) {
            return wrong(format!(
                "{} labels of {channels} x {height} x {width} images (C x H x W) need {size} bytes each, \
                 but there are {} bytes of pixels",
                labels.len(),
                pixels.len()
            ));
        }
        if let Some((i, label)) = labels.iter().enumerate().find(|&(_, &label)| label as usize >= classes.len()) {
            return wrong(format!("label {label} of image {i} names no class; there are {} classes", classes.len()));
        }
        Ok(Self { height, width, channels, classes, pixels, labels })
    }

    /// The number of images, N.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images; never so for what [`Images::new`] has made.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes per image: `C * H * W`.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The values of image `i`, `[C, H, W]`.
    ///
    /// # Panics
    ///
    /// If `i` is not below [`len`](Self::len), like indexing a slice.
    pub fn image(&self, i: usize) -> &[u8] {
        let size = self.image_len();
        &self.pixels[i * size..][..size]
    }

    /// How many images each class has, in the order of [`classes`](Self::classes).
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for &label in &self.labels {
            if let Some(count) = counts.get_mut(label as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// Splits in two, as `Vec::split_off` does: keeps images `0..at` and returns images `at..`.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if either part would be empty; `self` is then as it was.
    pub fn split_off(&mut self, at: usize) -> Result<Images> {
        if at == 0 || at >= self.len() {
            return Err(Error::argument(
                "Images::split_off",
                format!(
                    "splitting {} images at {at} leaves one part empty; split at 1 or above, below the end",
                    self.len()
                ),
            ));
        }
        Ok(Images {
            height: self.height,
            width: self.width,
            channels: self.channels,
            classes: self.classes.clone(),
            pixels: self.pixels.split_off(at * self.image_len()),
            labels: self.labels.split_off(at),
        })
    }

    /// Mean and standard deviation of `value / 255` over all images and channels; the deviation is 0 if all values are
    /// the same. They are what [`gather`](Self::gather) wants: take them from the training set, and use them for the
    /// test set, too.
    pub fn mean_std(&self) -> (f32, f32) {
        // Counted per value, so the sums are exact and fast whatever the number of images.
        let mut counts = [0u64; 256];
        for &value in &self.pixels {
            counts[value as usize] += 1;
        }
        let n = self.pixels.len().max(1) as f64;
        let moment = |f: &dyn Fn(f64) -> f64| -> f64 {
            counts.iter().enumerate().map(|(value, &count)| count as f64 * f(value as f64 / 255.0)).sum::<f64>() / n
        };
        let mean = moment(&|v| v);
        let variance = moment(&|v| (v - mean) * (v - mean));
        (mean as f32, variance.sqrt() as f32)
    }

    /// Collects the images at `indices` as a network takes them: `x` becomes `(value / 255 - mean) / std` as
    /// `[indices.len(), C, H, W]`, `y` their labels. What was in `x` and `y` is replaced; their memory is reused, so a
    /// training loop that keeps them allocates nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if an index is not below [`len`](Self::len), if `mean` is not finite, or if `std` is not
    /// finite and above 0 (use 1 for images that are all the same); `x` and `y` are then as they were.
    pub fn gather(&self, indices: &[u32], mean: f32, std: f32, x: &mut Vec<f32>, y: &mut Vec<u32>) -> Result<()> {
        let wrong = |message: String| Err(Error::argument("Images::gather", message));
        if !(mean.is_finite() && std.is_finite() && std > 0.0) {
            return wrong(format!("cannot scale by mean {mean}, deviation {std}; the deviation must be above 0"));
        }
        if let Some(i) = indices.iter().find(|&&i| i as usize >= self.len()) {
            return wrong(format!("index {i} is past the end; there are {} images", self.len()));
        }
        let scaled: [f32; 256] = std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
        x.clear();
        y.clear();
        x.reserve(indices.len() * self.image_len());
        for &i in indices {
            x.extend(self.image(i as usize).iter().map(|&value| scaled[value as usize]));
            y.push(self.labels[i as usize]);
        }
        Ok(())
    }
}

/// `C * H * W`, if that is a number.
fn image_size([channels, height, width]: [usize; 3]) -> Option<usize> {
    channels.checked_mul(height)?.checked_mul(width)
}

/// The ten digits' names, as MNIST and [`digits`] number them.
fn digit_names() -> Vec<String> {
    (0..10).map(|digit: u32| digit.to_string()).collect()
}
