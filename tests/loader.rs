//! The promises of the loader on the host: batches in an order that a step number resumes, errors at their step, a thread
//! that keeps ahead and ends when it is no longer wanted.
#![cfg(feature = "data")]

use shadegrad::data::{Batch, Images, Loader, Order, Source, folder};
use shadegrad::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Noise as images of `shape` in four classes.
fn noise(n: usize, shape: [usize; 3]) -> Images {
    let size: usize = shape.iter().product();
    let pixels = (0..n * size).map(|i| ((i as u32).wrapping_mul(2654435761) >> 24) as u8).collect();
    let classes = ["a", "b", "c", "d"].map(String::from).to_vec();
    Images::new(shape, classes, pixels, (0..n as u32).map(|i| i * 7 % 4).collect()).unwrap()
}

/// The bytes in `words`, lowest first.
fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// What the loader must hand out for a step.
fn check(batch: &Batch, images: &Images, indices: &[u32]) {
    let expected: Vec<u8> = indices.iter().flat_map(|&i| images.image(i as usize)).copied().collect();
    let got = bytes(&batch.words);
    assert_eq!(got[..expected.len()], expected, "step {}", batch.step);
    assert!(got.len() - expected.len() < 4 && got[expected.len()..].iter().all(|&byte| byte == 0));
    let labels: Vec<u32> = indices.iter().map(|&i| images.labels[i as usize]).collect();
    assert_eq!(batch.labels, labels, "step {}", batch.step);
}

#[test]
fn batches_follow_the_order_through_the_epochs_and_from_any_step() -> Result<()> {
    // 35 bytes an image, 105 a batch: neither fills words.
    let images = noise(23, [1, 7, 5]);
    let loader = Loader::new(images.clone(), 3, 5)?;
    let mut order = Order::new(23, 3, 5)?;
    assert_eq!((loader.words(), loader.steps_per_epoch()), (27, 7));
    for (from, to) in [(0, 30), (13, 17), (6, 8), (1 << 40, (1 << 40) + 2), (5, 5), (9, 2)] {
        let batches = loader.steps(from, to)?;
        assert_eq!(batches.size_hint().0 as u64, to.saturating_sub(from));
        let mut step = from;
        for batch in batches {
            let batch = batch?;
            assert_eq!(batch.step, step);
            check(&batch, &images, order.batch(step));
            step += 1;
        }
        assert_eq!(step, to.max(from));
    }
    Ok(())
}

#[test]
fn evaluation_sees_every_image_once_and_in_order() -> Result<()> {
    let images = noise(11, [3, 2, 3]);
    let loader = Loader::in_order(images.clone(), 4)?;
    assert_eq!(loader.steps_per_epoch(), 3);
    let expected = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 0], [0, 1, 2, 3]];
    for (batch, indices) in loader.steps(0, 4)?.zip(expected) {
        check(&batch?, &images, &indices);
    }
    Ok(())
}

#[test]
fn a_batch_goes_back_into_the_memory_of_an_earlier_one() -> Result<()> {
    let loader = Loader::new(noise(64, [1, 8, 8]), 4, 1)?;
    let mut seen = std::collections::HashSet::new();
    // Two runs of steps share their memory, too.
    for batch in loader.steps(0, 50)?.chain(loader.steps(50, 100)?) {
        seen.insert(batch?.words.as_ptr());
    }
    // Two runs at a time: one batch in the making and two ready for each, one in use.
    assert!((1..=7).contains(&seen.len()), "{} buffers for 100 steps", seen.len());
    Ok(())
}

#[test]
fn what_a_loop_does_to_its_batch_does_not_reach_later_ones() -> Result<()> {
    let images = noise(23, [1, 7, 5]);
    let loader = Loader::new(images.clone(), 3, 5)?;
    let mut order = Order::new(23, 3, 5)?;
    for batch in loader.steps(0, 20)? {
        let mut batch = batch?;
        check(&batch, &images, order.batch(batch.step));
        batch.words.fill(u32::MAX);
        batch.words.truncate(if batch.step % 2 == 0 { 27 } else { 4 });
        batch.labels.push(9);
    }
    Ok(())
}

#[test]
fn impossible_loaders_are_refused() {
    let message = |batch| Loader::new(noise(5, [1, 2, 2]), batch, 1).err().unwrap().to_string();
    assert!(message(0).contains("a batch needs at least one item"), "{}", message(0));
    assert!(message(6).contains("does not fit in 5 items"), "{}", message(6));
    assert!(Loader::in_order(noise(5, [1, 2, 2]), 0).is_err());
    let images = noise(5, [1, 2, 2]);
    let message = images.read(5, &mut [0; 4]).unwrap_err().to_string();
    assert!(message.contains("index 5 is past the end; there are 5 images"), "{message}");
    assert!(images.read(usize::MAX, &mut [0; 4]).is_err());
    let message = images.read(0, &mut [0; 3]).unwrap_err().to_string();
    assert!(message.contains("3 bytes are not the 4 of an image"), "{message}");
}

/// A source for watching the loader: it counts what is read, takes its time, and fails where told.
struct Watched {
    images: Images,
    reads: AtomicUsize,
    pause: Duration,
    panics_at: usize,
    strange_label_at: usize,
}

impl Watched {
    fn new(n: usize) -> Self {
        let (pause, never) = (Duration::ZERO, usize::MAX);
        Watched {
            images: noise(n, [1, 4, 4]),
            reads: AtomicUsize::new(0),
            pause,
            panics_at: never,
            strange_label_at: never,
        }
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

impl Source for Watched {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.images.shape()
    }

    fn classes(&self) -> &[String] {
        &self.images.classes
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.pause);
        assert_ne!(index, self.panics_at, "told to");
        if index == self.strange_label_at {
            return Ok(4);
        }
        self.images.read(index, pixels)
    }
}

#[test]
fn the_thread_stays_three_batches_ahead_and_no_more() -> Result<()> {
    let source = Arc::new(Watched::new(100));
    let loader = Loader::in_order(source.clone(), 5)?;
    let mut batches = loader.steps(0, 1000)?;
    for taken in 1..5 {
        let _batch = batches.next().unwrap()?;
        let begun = Instant::now();
        while source.reads() < (taken + 3) * 5 && begun.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(source.reads(), (taken + 3) * 5);
    }
    Ok(())
}

#[test]
fn a_loop_slower_than_the_source_never_waits_for_it() -> Result<()> {
    let mut source = Watched::new(100);
    source.pause = Duration::from_millis(1);
    // 4 ms or a little more for a batch, 20 ms for a step.
    let loader = Loader::new(source, 4, 1)?;
    let mut batches = loader.steps(0, 25)?;
    drop(batches.next());
    let mut waits = Vec::new();
    for _ in 1..25 {
        std::thread::sleep(Duration::from_millis(20));
        let begun = Instant::now();
        batches.next().unwrap()?;
        waits.push(begun.elapsed());
    }
    waits.sort();
    // The median, as other programs share the machine.
    assert!(waits[12] < Duration::from_millis(2), "{waits:?}");
    Ok(())
}

#[test]
fn the_thread_ends_with_its_batches_at_any_moment() -> Result<()> {
    for taken in [0, 1, 7] {
        for wait in [0, 30] {
            let mut source = Watched::new(1000);
            source.pause = Duration::from_millis(2);
            let source = Arc::new(source);
            let loader = Loader::new(source.clone(), 100, 1)?;
            let mut batches = loader.steps(0, u64::MAX)?;
            let kept = batches.by_ref().take(taken).last();
            std::thread::sleep(Duration::from_millis(wait));
            drop(loader);
            let begun = Instant::now();
            drop(batches);
            // A batch takes 200 ms, an image 2 ms: what was begun is not finished.
            let took = begun.elapsed();
            assert!(took < Duration::from_millis(100), "{took:?} after {taken} batches");
            assert_eq!(Arc::strong_count(&source), 1, "someone still holds the source");
            drop(kept);
        }
    }
    Ok(())
}

#[test]
fn a_source_that_panics_or_invents_labels_is_an_error_of_its_step() -> Result<()> {
    let mut source = Watched::new(12);
    (source.strange_label_at, source.panics_at) = (3, 9);
    let loader = Loader::in_order(source, 2)?;
    let steps: Vec<_> = loader.steps(0, 6)?.collect();
    let said: Vec<String> = steps.iter().map(|step| step.as_ref().err().map_or("".into(), Error::to_string)).collect();
    assert_eq!(steps.len(), 5, "{said:?}");
    assert!([0, 2, 3].iter().all(|&step| said[step].is_empty()), "{said:?}");
    assert_eq!(said[1], "images: label 4 of image 3 names no class; there are 4 classes");
    assert_eq!(said[4], "data loader: reading from the source panicked in step 4");
    Ok(())
}

/// A source of which every image is broken, the earlier ones noticed later, read on four threads.
struct Broken;

impl Source for Broken {
    fn len(&self) -> usize {
        4
    }

    fn shape(&self) -> [usize; 3] {
        [1, 1, 1]
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn read(&self, index: usize, _pixels: &mut [u8]) -> Result<u32> {
        std::thread::sleep(Duration::from_millis(20 * (4 - index as u64)));
        Err(Error::format(format!("{index}.png"), "broken"))
    }

    fn threads(&self) -> usize {
        4
    }
}

#[test]
fn of_several_errors_the_first_image_s_is_told_whichever_thread_meets_it() -> Result<()> {
    let steps: Vec<_> = Loader::in_order(Broken, 4)?.steps(0, 3)?.collect();
    let said: Vec<String> = steps.into_iter().filter_map(|step| step.err()).map(|error| error.to_string()).collect();
    assert_eq!(said, ["0.png: broken"; 3]);
    Ok(())
}

/// A folder of `n` PNG files in two classes, each of its own noise.
fn photos(root: &Path, n: u32, side: u32) {
    for i in 0..n {
        let class = root.join(["cat", "dog"][i as usize % 2]);
        std::fs::create_dir_all(&class).unwrap();
        let byte = |at: u32| (at.wrapping_mul(2654435761) >> 24) as u8;
        let pixel = |x, y| image::Rgb([0, 1, 2].map(|c| byte(i * 7919 + (y * side + x) * 3 + c)));
        image::RgbImage::from_fn(side, side, pixel).save(class.join(format!("{i:03}.png"))).unwrap();
    }
}

#[test]
fn files_decoded_on_demand_are_the_files_loaded_at_once() -> Result<()> {
    let root = tempfile::tempdir().unwrap();
    photos(root.path(), 22, 9);
    // As they are, and stretched.
    for shape in [[3, 9, 9], [1, 5, 7]] {
        let images = folder::load(root.path(), shape)?;
        let files = folder::Files::list(root.path(), shape)?;
        assert_eq!((files.len(), files.classes(), files.shape()), (22, &images.classes[..], shape));
        assert!(files.path(0).is_some_and(|path| path.ends_with("cat/000.png")));
        assert!(files.path(22).is_none() && files.read(22, &mut vec![0; images.image_len()]).is_err());
        let mut order = Order::new(22, 6, 8)?;
        for batch in Loader::new(files, 6, 8)?.steps(2, 9)? {
            let batch = batch?;
            check(&batch, &images, order.batch(batch.step));
        }
    }
    Ok(())
}

#[test]
fn a_broken_file_is_an_error_of_its_step_and_named() -> Result<()> {
    let root = tempfile::tempdir().unwrap();
    photos(root.path(), 24, 16);
    let files = folder::Files::list(root.path(), [3, 16, 16])?;
    // Two broken ones in the second batch: the first of them is reported.
    let mut order = Order::new(24, 4, 3)?;
    let chosen = order.batch(1).to_vec();
    let broken: Vec<_> = [1, 3].map(|place| files.path(chosen[place] as usize).unwrap().to_owned()).into();
    for path in &broken {
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, &whole[..whole.len() / 2]).unwrap();
    }
    let loader = Loader::new(files, 4, 3)?;
    for _ in 0..5 {
        for (step, batch) in loader.steps(0, 6)?.enumerate() {
            match batch {
                Ok(batch) => assert!(step != 1 && batch.step == step as u64),
                Err(Error::Format { path, message }) => {
                    assert_eq!((step, &path), (1, &broken[0]), "{message}");
                    assert!(message.contains("not a readable image"), "{message}");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    // The first error of an unwary loop is the loop's.
    let all: Result<Vec<_>> = loader.steps(0, 6)?.collect();
    assert!(all.is_err());
    Ok(())
}
