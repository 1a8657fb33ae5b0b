//! The promises of the loader: the batches of the resident path bit for bit, in an order that a step number resumes;
//! errors at their step; a thread that keeps ahead and ends when it is no longer wanted.
#![cfg(feature = "data")]

use shadegrad::data::{Images, Loader, Order, Source, digits, folder};
use shadegrad::io::{StateDict, state_dict};
use shadegrad::nn::{self, Module};
use shadegrad::ops::ImageBatch;
use shadegrad::optim::{Adam, Sgd};
use shadegrad::train::Session;
use shadegrad::{Error, Gpu, Graph, Result};
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
fn check(batch: &shadegrad::data::Batch, images: &Images, indices: &[u32]) {
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

/// A folder of `n` PNG files in two classes, each of its own noise.
fn photos(root: &Path, n: u32, side: u32) {
    for i in 0..n {
        let class = root.join(["cat", "dog"][i as usize % 2]);
        std::fs::create_dir_all(&class).unwrap();
        let pixel = |x, y| image::Rgb([0, 1, 2].map(|c: u32| (pcg(i * 7919 + (y * side + x) * 3 + c) >> 24) as u8));
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

/// Trains a small network for some steps, from memory on the device or through the loader; its weights, and the losses.
fn train(gpu: &Gpu, images: &Images, rule: &ImageBatch, batch: usize, resident: bool) -> Result<(StateDict, Vec<f32>)> {
    nn::manual_seed(3);
    let net = nn::sequential((nn::Flatten, ("fc", nn::Linear::new(images.image_len(), images.classes.len()))));
    let g = Graph::new();
    let mut losses = Vec::new();
    if resident {
        let store = images.store();
        let indices = g.input_u32([batch]);
        let x = g.param(&store.pixels).image_batch(&indices, rule);
        let loss = net.forward(&x).cross_entropy(&g.param(&store.labels).index_select(0, &indices));
        let program = gpu.compile(&g.minimize(&loss, Adam::new(0.01)))?;
        Session::new(&program, net.parameters(), 77)?;
        let mut order = Order::new(images.len(), batch, 4)?;
        for step in 0..12 {
            program.write_u32(&indices, order.batch(step))?.run()?;
            losses.extend(program.read(&loss)?);
        }
    } else {
        let loader = Loader::new(images.clone(), batch, 4)?;
        let (words, y) = (g.input_u32([loader.words()]), g.input_u32([batch]));
        let loss = net.forward(&loader.images(&words, rule)).cross_entropy(&y);
        let program = gpu.compile(&g.minimize(&loss, Adam::new(0.01)))?;
        Session::new(&program, net.parameters(), 77)?;
        for step in loader.steps(0, 12)? {
            let step = step?;
            program.write_u32(&words, &step.words)?.write_u32(&y, &step.labels)?.run()?;
            losses.extend(program.read(&loss)?);
        }
    }
    Ok((state_dict(gpu, &net.parameters())?, losses))
}

#[test]
fn training_through_the_loader_gives_the_bits_of_training_on_the_device() -> Result<()> {
    let gpu = Gpu::new()?;
    // Images of 35 bytes, of 1 byte, and of whole words.
    let sets = [(noise(23, [1, 7, 5]), 3), (noise(9, [1, 1, 1]), 5), (noise(30, [3, 6, 6]), 8)];
    for (images, batch) in sets.into_iter().chain([(digits::draw(40, 2)?, 16)]) {
        let (mean, std) = images.mean_std();
        let plain = ImageBatch::new(images.shape(), mean, std);
        for rule in [plain.clone(), plain.shift(2).mirror(true)] {
            let (weights, losses) = train(&gpu, &images, &rule, batch, true)?;
            let (streamed, streamed_losses) = train(&gpu, &images, &rule, batch, false)?;
            assert!(losses.len() == 12 && losses[0] != losses[11], "{losses:?}");
            assert_eq!(losses, streamed_losses, "{rule:?}");
            assert_eq!(weights, streamed, "{rule:?}");
        }
    }
    Ok(())
}

/// The hash of shaders/random.wgsl.
fn pcg(word: u32) -> u32 {
    let state = word.wrapping_mul(747796405).wrapping_add(2891336453);
    let mixed = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277803737);
    (mixed >> 22) ^ mixed
}

fn random_bits(seed: u32, step: u32, salt: u32, i: u32) -> u32 {
    pcg(pcg(pcg(pcg(i) ^ seed).wrapping_add(step)) ^ salt.wrapping_mul(0x9e3779b9))
}

/// An image as augmentation leaves it: mirrored if the lowest bit says so, then moved by `-shift..=shift` each way, with
/// 0 coming in over the border.
fn twin(image: &[u8], [c, h, w]: [usize; 3], shift: u32, mirror: bool, bits: u32) -> Vec<f32> {
    let by = |bits: u32| (bits % (2 * shift + 1)) as isize - shift as isize;
    let (dx, dy) = (by(bits >> 1 & 0x7fff), by(bits >> 16));
    let mut out = Vec::new();
    for (channel, y, x) in (0..c).flat_map(|c| (0..h).flat_map(move |y| (0..w).map(move |x| (c, y, x)))) {
        let x = if mirror && bits & 1 == 1 { w - 1 - x } else { x };
        let at = x.checked_add_signed(dx).zip(y.checked_add_signed(dy)).filter(|&(x, y)| x < w && y < h);
        out.push(at.map_or(0.0, |(x, y)| f32::from(image[(channel * h + y) * w + x])));
    }
    out
}

#[test]
fn augmentation_repeats_by_seed_and_is_what_its_rule_says() -> Result<()> {
    const SEED: u64 = 0x1_0000_0005;
    let gpu = Gpu::new()?;
    let images = noise(40, [3, 5, 7]);
    for (shift, mirror) in [(0, true), (2, false), (2, true), (9, true)] {
        let loader = Loader::new(images.clone(), 6, 1)?;
        let g = Graph::new();
        let words = g.input_u32([loader.words()]);
        // A scale of 1: the values are the bytes.
        let rule = ImageBatch::new(images.shape(), 0.0, 1.0 / 255.0).shift(shift).mirror(mirror);
        let x = loader.images(&words, &rule);
        // Training counts the steps.
        let loss = nn::Linear::new(7, 1).forward(&x).mean(&[], false);
        let program = gpu.compile(&g.minimize(&loss, Sgd::new(0.1)).output(&x))?;
        let mut runs = Vec::new();
        let (mut mirrored, mut moved) = (0, 0);
        for _ in 0..2 {
            // Sets the seed, and the count of steps to 0.
            Session::new(&program, Vec::new(), SEED)?;
            let mut order = Order::new(40, 6, 1)?;
            let mut run = Vec::new();
            for batch in loader.steps(0, 5)? {
                let batch = batch?;
                program.write_u32(&words, &batch.words)?.run()?;
                let got = program.read(&x)?;
                let seed = SEED as u32 ^ (SEED >> 32) as u32;
                let expected: Vec<f32> = (0u32..)
                    .zip(order.batch(batch.step))
                    .flat_map(|(place, &i)| {
                        let bits = random_bits(seed, batch.step as u32, 1, place);
                        mirrored += u32::from(bits & 1 == 1);
                        moved += u32::from((bits >> 16) % (2 * shift as u32 + 1) != shift as u32);
                        twin(images.image(i as usize), images.shape(), shift as u32, mirror, bits)
                    })
                    .collect();
                assert!(got == expected, "shift {shift}, mirror {mirror}, step {}", batch.step);
                run.push(got);
            }
            runs.push(run);
        }
        assert!(runs[0] == runs[1], "the same seed, other images");
        assert!((15..45).contains(&mirrored) && (shift == 0 || moved > 30), "{mirrored} and {moved} of 60");
    }
    Ok(())
}

#[test]
fn indices_labels_and_lengths_out_of_range_are_refused_when_written() -> Result<()> {
    let gpu = Gpu::new()?;
    let images = noise(10, [1, 4, 4]);
    let rule = ImageBatch::new([1, 4, 4], 0.0, 1.0);
    let store = images.store();
    let g = Graph::inference();
    let indices = g.input_u32([3]);
    let x = g.param(&store.pixels).image_batch(&indices, &rule);
    let program = gpu.compile(&g.function([&x]))?;
    program.write_u32(&indices, &[0, 9, 0])?;
    let message = program.write_u32(&indices, &[0, 9, 10]).err().unwrap().to_string();
    assert_eq!(message, "labels or indices: element 2 is 10, but must be below 10");

    let loader = Loader::new(images, 3, 1)?;
    let g = Graph::new();
    let (words, y) = (g.input_u32([loader.words()]), g.input_u32([3]));
    let net = nn::sequential((nn::Flatten, nn::Linear::new(16, 4)));
    let loss = net.forward(&loader.images(&words, &rule)).cross_entropy(&y);
    let program = gpu.compile(&g.minimize(&loss, Adam::new(0.01)))?;
    let message = program.write_u32(&y, &[3, 4, 0]).err().unwrap().to_string();
    assert_eq!(message, "labels or indices: element 1 is 4, but must be below 4");
    let message = program.write_u32(&words, &[0; 11]).err().unwrap().to_string();
    assert!(message.contains("11 values of u32 were written to the input u32"), "{message}");
    Ok(())
}

#[test]
fn writing_the_next_batch_does_not_wait_for_the_step_under_way() -> Result<()> {
    let gpu = Gpu::new()?;
    let side = 640;
    let loader = Loader::new(noise(2, [1, side, side]), 1, 1)?;
    let g = Graph::inference();
    let words = g.input_u32([loader.words()]);
    let x = loader.images(&words, &ImageBatch::new([1, side, side], 0.5, 20.0)).reshape([side, side]);
    let y = (0..8).fold(x.clone(), |y, _| y.matmul(&x)).sum(&[], false);
    let program = gpu.compile(&g.function([&y]))?;

    let batches: Vec<_> = loader.steps(0, 2)?.collect::<Result<_>>()?;
    let mut alone = Vec::new();
    for batch in &batches {
        program.write_u32(&words, &batch.words)?.run()?;
        alone.push(program.read(&y)?);
    }
    assert_ne!(alone[0], alone[1]);

    program.write_u32(&words, &batches[0].words)?;
    let begun = Instant::now();
    program.run()?;
    let ran = begun.elapsed();
    program.write_u32(&words, &batches[1].words)?;
    let wrote = begun.elapsed() - ran;
    gpu.wait()?;
    let whole = begun.elapsed();
    // A driver that computes within `submit` (OpenGL on the CPU) has nothing under way while the batch is written.
    println!("run returned after {ran:?}, the write took {wrote:?}, the step {whole:?}");
    assert!(wrote * 8 < whole, "the write took {wrote:?} of {whole:?}");
    // Nor is the step torn: it has read what was written before it, and the next one reads what came after.
    assert_eq!(program.read(&y)?, alone[0]);
    program.run()?;
    assert_eq!(program.read(&y)?, alone[1]);
    Ok(())
}
