//! Normalization, on lines that fit into a workgroup's registers and on longer ones, of whole vec4s and not.

use serde_json::json;

use crate::support::reference::{Array, Random};
use crate::trial::*;

const BOUND: Bound = Bound::Values(5e-5, 3e-5);

/// Not centred, so that subtracting the mean matters; exact in f32.
fn away_from_zero(random: &mut Random, shape: &[usize]) -> Array {
    random.normal(shape).map(|v| f64::from((3.0 * v + 4.0) as f32))
}

#[test]
fn over_the_last_axes() {
    let mut random = Random::new(34);
    for shape in [&[3][..], &[2], &[64], &[257], &[4100], &[8201], &[5, 12]] {
        let outer = [random.below(5) + 1, 2];
        let mut inputs = named([("x", away_from_zero(&mut random, &[&outer[..], shape].concat()))]);
        let (weight, bias) = (random.uniform(shape, 0.5, 1.5), random.uniform(shape, -1.0, 1.0));
        let attrs = json!({"normalized_shape": shape, "eps": 1e-3});
        for kernel in 0..LINES {
            inputs.retain(|name, _| name == "x");
            check(&gpu(kernel), "layer_norm", &attrs, &inputs, BOUND, &mut random);
            inputs.insert("weight".into(), weight.clone());
            check(&gpu(kernel), "rms_norm", &attrs, &inputs, BOUND, &mut random);
            inputs.insert("bias".into(), bias.clone());
            check(&gpu(kernel), "layer_norm", &attrs, &inputs, BOUND, &mut random);
            inputs.remove("weight");
            check(&gpu(kernel), "layer_norm", &attrs, &inputs, BOUND, &mut random);
        }
    }
}

/// As many lines as CPU adapters take one by one, or several for each subgroup, some of which are past the end.
#[test]
fn of_many_lines() {
    let mut random = Random::new(35);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    const LONG: usize = 1400;
    for (lines, length) in [(700, 12), (256 * threads + 3, 128), (64 * threads + 9, 100), (130, 33), (LONG, 768)] {
        let mut inputs = named([("x", away_from_zero(&mut random, &[lines, length]))]);
        inputs.insert("weight".into(), random.normal([length]));
        let attrs = json!({"normalized_shape": [length], "eps": 1e-3});
        // Of the long one, it is the sums for weights and biases that differ.
        for kernel in 0..if lines == LONG { 1 } else { LINES } {
            inputs.remove("bias");
            check(&gpu(kernel), "rms_norm", &attrs, &inputs, BOUND, &mut random);
            inputs.insert("bias".into(), random.normal([length]));
            check(&gpu(kernel), "layer_norm", &attrs, &inputs, BOUND, &mut random);
        }
    }
}

#[test]
fn over_channels() {
    let mut random = Random::new(36);
    for (groups, shape) in [
        (1, &[2, 3, 5][..]),
        (3, &[3, 6, 4, 4]),
        (2, &[1, 4, 7, 3]),
        (5, &[2, 5, 1, 8]),
        (2, &[4, 8]),
        (2, &[1, 4, 45, 60]),
        (1, &[3, 5, 24, 24]),
        (1, &[2, 3, 19, 23]),
        (2, &[700, 6]),
        (1, &[1, 20, 32, 32]),
        (1, &[1, 19, 29, 31]),
    ] {
        let mut inputs = named([("x", away_from_zero(&mut random, shape))]);
        for affine in [false, true] {
            if affine {
                inputs.insert("weight".into(), random.uniform([shape[1]], 0.5, 1.5));
                inputs.insert("bias".into(), random.normal([shape[1]]));
            }
            for kernel in 0..LINES {
                let attrs = json!({"num_groups": groups, "eps": 1e-3});
                check(&gpu(kernel), "group_norm", &attrs, &inputs, BOUND, &mut random);
                check(&gpu(kernel), "instance_norm", &attrs, &inputs, BOUND, &mut random);
            }
        }
        inputs.insert("running_mean".into(), random.normal([shape[1]]));
        inputs.insert("running_var".into(), random.uniform([shape[1]], 0.5, 1.5));
        for training in [false, true] {
            let attrs = json!({"training": training, "momentum": 0.2, "eps": 1e-3});
            check(&gpu(0), "batch_norm", &attrs, &inputs, BOUND, &mut random);
        }
    }
}

/// Rows without anything in them, and one element, which is its own mean.
#[test]
fn of_nothing() {
    let mut random = Random::new(37);
    for shape in [[0, 4], [3, 1]] {
        let mut inputs = named([("x", random.normal(shape))]);
        let attrs = json!({"normalized_shape": [shape[1]], "eps": 1e-3});
        check(&gpu(0), "layer_norm", &attrs, &inputs, EXACT, &mut random);
        for name in ["weight", "bias"] {
            inputs.insert(name.into(), Array::full([shape[1]], 0.5));
        }
        check(&gpu(0), "layer_norm", &attrs, &inputs, Bound::Values(0.0, 1e-6), &mut random);
    }
}

/// The spread is far below the mean, where the mean of squares less the squared mean has no digits left.
#[test]
fn with_a_large_mean() {
    let mut random = Random::new(38);
    for length in [64, 65, 4100] {
        let x = random.normal([300, length]).map(|v| f64::from((4096.0 + v) as f32));
        for kernel in 0..LINES {
            let attrs = json!({"normalized_shape": [length], "eps": 1e-5});
            let inputs = named([("x", x.clone())]);
            check(&gpu(kernel), "layer_norm", &attrs, &inputs, Bound::Values(2e-3, 2e-3), &mut random);
        }
        // One element, the first, is far from the others: of its digits the mean has the first ones, and it is normalized
        // to the root of the length.
        let mut x = random.normal([9, length]).map(|v| f64::from(v as f32));
        x.data.chunks_mut(length).for_each(|line| line[0] = 1e5);
        for kernel in 0..LINES {
            let attrs = json!({"normalized_shape": [length], "eps": 1e-5});
            let inputs = named([("x", x.clone())]);
            check(&gpu(kernel), "layer_norm", &attrs, &inputs, Bound::Values(1e-4, 1e-4), &mut random);
        }
    }
    // Parts of a channel are put together.
    for shape in [&[2, 3, 40, 50][..], &[2, 3, 39, 41], &[900, 5]] {
        let x = random.normal(shape).map(|v| f64::from((4096.0 + v) as f32));
        let [mean, variance] = [0.0, 1.0].map(|v| Array::full([shape[1]], v));
        let inputs = named([("x", x), ("running_mean", mean), ("running_var", variance)]);
        let attrs = json!({"training": true, "momentum": 0.1, "eps": 1e-5});
        check(&gpu(0), "batch_norm", &attrs, &inputs, Bound::Values(2e-3, 2e-3), &mut random);
    }
}
