//! Batches prepared ahead of the training step, for datasets that do not fit on the device as a whole.
//!
//! A [`Loader`] reads from a [`Source`] on a thread of its own, at most [`DEPTH`] batches ahead, and hands them out as
//! bytes packed into words. They cross the bus as bytes, four times smaller than f32, and the device decodes, scales
//! and augments them. Writing a batch does not wait for the step that is under way, so disk, bus and device work at the
//! same time.
//!
//! ```no_run
//! use shadegrad::data::{Loader, folder};
//! use shadegrad::nn::{self, Module};
//! use shadegrad::ops::ImageBatch;
//! use shadegrad::{Gpu, Graph, optim};
//!
//! let loader = Loader::new(folder::Files::list("photos", [3, 64, 64])?, 32, 1)?;
//! let net = nn::sequential((nn::Flatten, nn::Linear::new(3 * 64 * 64, loader.source().classes().len())));
//!
//! let g = Graph::new();
//! let words = g.input_u32([loader.words()]);
//! let y = g.input_u32([32]);
//! let x = loader.images(&words, &ImageBatch::new([3, 64, 64], 0.45, 0.25).shift(4).mirror(true));
//! let loss = net.forward(&x).cross_entropy(&y);
//! let program = Gpu::new()?.compile(&g.minimize(&loss, optim::Adam::new(1e-3)))?;
//!
//! for batch in loader.steps(0, 10 * loader.steps_per_epoch())? {
//!     let batch = batch?;
//!     program.write_u32(&words, &batch.words)?.write_u32(&y, &batch.labels)?.run()?;
//! }
//! # Ok::<(), shadegrad::Error>(())
//! ```

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Images, Order, image_size};
use crate::graph::Tensor;
use crate::ops::ImageBatch;
use crate::{Error, Result};

/// Batches that wait, ready, for the training loop; one more is in the making.
pub const DEPTH: usize = 2;

/// Labelled images of one size that are read one by one, from several threads.
pub trait Source: Send + Sync {
    /// The number of images, N.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The images' `[C, H, W]`.
    fn shape(&self) -> [usize; 3];

    /// The classes' names; a label is a place in this list.
    fn classes(&self) -> &[String];

    /// Puts the bytes of image `index`, `[C, H, W]`, into `pixels`, which has exactly their number and holds anything
    /// before; gives the image's label.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `index` is not below [`len`](Self::len) or `pixels` is of another length; what is wrong
    /// with the image, naming its file if it has one.
    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32>;

    /// How many threads a batch is worth: 1 where reading is a mere copy, the default; a source that decodes wants
    /// all cores.
    fn threads(&self) -> usize {
        1
    }
}

impl Source for Images {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32> {
        let size = self.image_len();
        check_len(size, pixels)?;
        let bytes = index.checked_mul(size).and_then(|start| self.pixels.get(start..)?.get(..size));
        let (Some(bytes), Some(&label)) = (bytes, self.labels.get(index)) else {
            return Err(past_the_end(index, self.len()));
        };
        pixels.copy_from_slice(bytes);
        Ok(label)
    }
}

impl<S: Source + ?Sized> Source for Arc<S> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn shape(&self) -> [usize; 3] {
        (**self).shape()
    }

    fn classes(&self) -> &[String] {
        (**self).classes()
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32> {
        (**self).read(index, pixels)
    }

    fn threads(&self) -> usize {
        (**self).threads()
    }
}

/// An error unless `pixels` is as long as an image.
pub(super) fn check_len(size: usize, pixels: &[u8]) -> Result<()> {
    if pixels.len() == size {
        return Ok(());
    }
    Err(Error::argument("Source::read", format!("{} bytes are not the {size} of an image", pixels.len())))
}

pub(super) fn past_the_end(index: usize, len: usize) -> Error {
    Error::argument("Source::read", format!("index {index} is past the end; there are {len} images"))
}

/// All cores of the machine, for [`Source::threads`].
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Words and labels, of any length.
type Buffers = (Vec<u32>, Vec<u32>);

/// Buffers that wait to be used again.
type Pool = Arc<Mutex<Vec<Buffers>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One step's images and labels. When it is dropped, its memory goes back to the loader for a later batch.
#[derive(Debug)]
pub struct Batch {
    /// The bytes `[B, C, H, W]`, four to a word, lowest first; the last word is filled up with zeros.
    pub words: Vec<u32>,
    /// The labels, `[B]`.
    pub labels: Vec<u32>,
    /// The step that it is for, counted from 0.
    pub step: u64,
    home: Pool,
}

impl Drop for Batch {
    fn drop(&mut self) {
        lock(&self.home).push((std::mem::take(&mut self.words), std::mem::take(&mut self.labels)));
    }
}

/// Which images make up which step.
#[derive(Clone)]
enum Steps {
    Shuffled(Order),
    /// The number of images.
    InOrder(usize),
}

/// A source cut into batches that a thread prepares ahead.
pub struct Loader {
    source: Arc<dyn Source>,
    steps: Steps,
    batch: usize,
    /// Bytes per image.
    size: usize,
    pool: Pool,
}

impl Loader {
    /// Batches of `batch` images for training, in the order of [`Order`]: shuffled anew each epoch by `seed`, the last,
    /// partial batch of an epoch dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `batch` is 0 or above the number of images, if there are more images than `u32` can
    /// count, or if the source's shape is not one of images.
    pub fn new(source: impl Source + 'static, batch: usize, seed: u64) -> Result<Self> {
        let order = Order::new(source.len(), batch, seed)?;
        Self::with(source, batch, Steps::Shuffled(order))
    }

    /// Batches of `batch` images for evaluation: every image once, in order. The last batch is filled up with images
    /// from the start; step `s` holds `min(batch, N - s * batch)` new ones.
    ///
    /// # Errors
    ///
    /// As for [`Loader::new`].
    pub fn in_order(source: impl Source + 'static, batch: usize) -> Result<Self> {
        let len = source.len();
        Order::new(len, batch, 0)?;
        Self::with(source, batch, Steps::InOrder(len))
    }

    fn with(source: impl Source + 'static, batch: usize, steps: Steps) -> Result<Self> {
        let [c, h, w] = source.shape();
        let size = image_size([c, h, w]).filter(|&size| size > 0 && size.checked_mul(batch).is_some());
        let Some(size) = size else {
            let message = format!("{batch} images of {c} x {h} x {w} values (C x H x W) are not possible");
            return Err(Error::argument("batch", message));
        };
        Ok(Self { source: Arc::new(source), steps, batch, size, pool: Pool::default() })
    }

    /// Where the images come from.
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// Words of a batch, `B * C * H * W / 4`, rounded up: the length of the u32 input that takes [`Batch::words`].
    pub fn words(&self) -> usize {
        (self.batch * self.size).div_ceil(4)
    }

    /// Steps in which the whole source is seen, at least 1.
    pub fn steps_per_epoch(&self) -> u64 {
        match &self.steps {
            Steps::Shuffled(order) => order.steps_per_epoch(),
            Steps::InOrder(len) => len.div_ceil(self.batch) as u64,
        }
    }

    /// The batch f32 `[B, C, H, W]` from `words`, u32 [[`words`](Self::words)], by a rule for the source's shape. A
    /// mistake comes back from `compile`, as for any operation.
    #[track_caller]
    pub fn images(&self, words: &Tensor, rule: &ImageBatch) -> Tensor {
        // Below 2^32, as the number of images is.
        let all: Vec<u32> = (0..self.batch as u32).collect();
        words.image_batch(&words.graph().constant_u32([self.batch], &all), rule)
    }

    /// Starts to prepare the steps `from..to`, counted on through the epochs; a resumed run goes on with the `from` of
    /// its checkpoint and sees what the unbroken one would have seen.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if the system grants no thread.
    pub fn steps(&self, from: u64, to: u64) -> Result<Batches> {
        let (send, batches) = sync_channel(DEPTH);
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            source: self.source.clone(),
            steps: self.steps.clone(),
            batch: self.batch,
            size: self.size,
            pool: self.pool.clone(),
            stop: stop.clone(),
            chosen: Vec::with_capacity(self.batch),
        };
        let thread = thread::Builder::new()
            .name("data loader".into())
            .spawn(move || worker.work(from, to, &send))
            .map_err(|error| Error::argument("data loader", format!("no thread for it: {error}")))?;
        Ok(Batches { batches: Some(batches), thread: Some(thread), stop, next: from, to })
    }
}

/// The batches of some steps, in order, each as it becomes ready.
///
/// A step that can't be read is one `Err`; the steps after it follow all the same. Dropping this ends the thread, after
/// the images that are being read at that moment.
pub struct Batches {
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    next: u64,
    to: u64,
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.next >= self.to {
            return None;
        }
        let step = self.next;
        if let Ok(batch) = self.batches.as_ref()?.recv() {
            self.next += 1;
            return Some(batch);
        }
        self.next = self.to;
        Some(Err(Error::argument("data loader", format!("reading from the source panicked in step {step}"))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.to.saturating_sub(self.next)).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Without a receiver, a thread that waits to send goes on, and ends.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the source has been reported by `next`, or concerns a step that nobody asks for any more.
            let _ = thread.join();
        }
    }
}

/// The thread's side of [`Batches`].
struct Worker {
    source: Arc<dyn Source>,
    steps: Steps,
    batch: usize,
    size: usize,
    pool: Pool,
    stop: Arc<AtomicBool>,
    /// The indices of the step at hand.
    chosen: Vec<u32>,
}

impl Worker {
    fn work(mut self, from: u64, to: u64, send: &SyncSender<Result<Batch>>) {
        for step in from..to {
            let batch = self.prepare(step);
            if self.stop.load(Ordering::Relaxed) || send.send(batch).is_err() {
                return;
            }
        }
    }

    fn prepare(&mut self, step: u64) -> Result<Batch> {
        let (words, labels) = lock(&self.pool).pop().unwrap_or_default();
        let mut batch = Batch { words, labels, step, home: self.pool.clone() };
        let bytes = self.batch * self.size;
        batch.words.resize(bytes.div_ceil(4), 0);
        batch.labels.resize(self.batch, 0);
        if let Some(last) = batch.words.last_mut() {
            *last = 0;
        }
        self.chosen.clear();
        match &mut self.steps {
            Steps::Shuffled(order) => self.chosen.extend_from_slice(order.batch(step)),
            Steps::InOrder(len) => {
                let (len, first) = (*len as u64, step % len.div_ceil(self.batch) as u64 * self.batch as u64);
                self.chosen.extend((first..first + self.batch as u64).map(|i| (i % len) as u32));
            }
        }
        let pixels = &mut bytemuck::cast_slice_mut(&mut batch.words)[..bytes];
        self.fill(pixels, &mut batch.labels)?;
        // Lowest byte first, whatever the machine's own order is.
        batch.words.iter_mut().for_each(|word| *word = u32::from_le(*word));
        Ok(batch)
    }

    /// Reads the chosen images; of several errors, the first image's.
    fn fill(&self, pixels: &mut [u8], labels: &mut [u32]) -> Result<()> {
        let jobs = Mutex::new(self.chosen.iter().zip(pixels.chunks_exact_mut(self.size)).zip(labels).enumerate());
        let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let work = || {
            while !self.stop.load(Ordering::Relaxed) && lock(&failed).is_none() {
                let job = lock(&jobs).next();
                let Some((place, ((&index, pixels), label))) = job else { return };
                match self.read(index as usize, pixels) {
                    Ok(read) => *label = read,
                    // Jobs are handed out in order, so that every earlier one is done or under way.
                    Err(error) => {
                        let mut failed = lock(&failed);
                        if failed.as_ref().is_none_or(|(earlier, _)| place < *earlier) {
                            *failed = Some((place, error));
                        }
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.source.threads().min(self.batch) {
                // Where the system grants no more threads, those that are there do the work.
                if thread::Builder::new().name("data reader".into()).spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32> {
        let label = self.source.read(index, pixels)?;
        let classes = self.source.classes().len();
        if label as usize >= classes {
            let message = format!("label {label} of image {index} names no class; there are {classes} classes");
            return Err(Error::argument("images", message));
        }
        Ok(label)
    }
}
