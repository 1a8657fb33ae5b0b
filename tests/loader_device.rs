//! The promises of the loader on the device: the bits of training on a resident set, augmentation by its rule, and a
//! device that is not waited for.
#![cfg(feature = "data")]

use shadegrad::data::{Images, Loader, Order, Source, digits};
use shadegrad::io::{StateDict, state_dict};
use shadegrad::nn::{self, Module};
use shadegrad::ops::ImageBatch;
use shadegrad::optim::{Adam, Sgd};
use shadegrad::train::Session;
use shadegrad::{Gpu, Graph, Result};
use std::time::Instant;

/// Noise as images of `shape` in four classes.
fn noise(n: usize, shape: [usize; 3]) -> Images {
    let size: usize = shape.iter().product();
    let pixels = (0..n * size).map(|i| ((i as u32).wrapping_mul(2654435761) >> 24) as u8).collect();
    let classes = ["a", "b", "c", "d"].map(String::from).to_vec();
    Images::new(shape, classes, pixels, (0..n as u32).map(|i| i * 7 % 4).collect()).unwrap()
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
