//! Matrix products, with every kernel.

use serde_json::json;

use crate::support::reference::Random;
use crate::trial::*;

#[test]
fn matmul_of_any_extents() {
    let mut random = Random::new(10);
    let fixed = [
        [1, 1, 1],
        [2, 3, 1],
        [1, 7, 1],
        [1, 1, 300],
        [1, 200, 3],
        [200, 1, 5],
        [63, 65, 64],
        [64, 64, 64],
        [65, 63, 129],
        [0, 3, 4],
        [3, 0, 4],
        [3, 4, 0],
        [33, 17, 301],
        [131, 5, 2],
        [8, 256, 16],
        [200, 301, 37],
        [1, 300, 520],
        [3, 300, 520],
        [4, 8, 12],
        [1, 4, 2000],
        [129, 132, 64],
        [130, 129, 700],
    ];
    for kernel in 0..KERNELS {
        for (n, [m, cols, k]) in fixed.into_iter().enumerate() {
            let (ta, tb) = (n % 2 == 1, n / 2 % 2 == 1);
            let a = if ta { [k, m] } else { [m, k] };
            let b = if tb { [cols, k] } else { [k, cols] };
            let inputs = named([("a", random.normal(a)), ("b", random.normal(b))]);
            check(&gpu(kernel), "matmul", &json!({"transpose_a": ta, "transpose_b": tb}), &inputs, TERMS, &mut random);
        }
    }
}

#[test]
fn matmul_of_batches() {
    let mut random = Random::new(11);
    let batches: [[&[usize]; 2]; 7] = [
        [&[3], &[]],
        [&[], &[3]],
        [&[2, 3], &[2, 3]],
        [&[2, 1], &[1, 3]],
        [&[5], &[1]],
        [&[1, 2, 1], &[4, 1, 2]],
        [&[0], &[1]],
    ];
    for kernel in 0..KERNELS {
        for (n, [of_a, of_b]) in batches.into_iter().enumerate() {
            let (ta, tb) = (n % 2 == kernel, (n / 2) % 2 == 0);
            let (m, k, cols) = (1 + random.below(20), 1 + random.below(40), 1 + random.below(20));
            let a = [of_a, &(if ta { [k, m] } else { [m, k] })].concat();
            let b = [of_b, &(if tb { [cols, k] } else { [k, cols] })].concat();
            let inputs = named([("a", random.normal(a)), ("b", random.normal(b))]);
            check(&gpu(kernel), "matmul", &json!({"transpose_a": ta, "transpose_b": tb}), &inputs, TERMS, &mut random);
        }
    }
}

#[test]
fn linear_layers() {
    let mut random = Random::new(12);
    for kernel in 0..KERNELS {
        for round in 0..6 {
            let (inputs, outputs) = (1 + random.below(70), 1 + random.below(70));
            let mut x = shape(&mut random, round % 4);
            x.push(inputs);
            let mut tensors = named([("x", random.normal(x)), ("weight", random.normal([outputs, inputs]))]);
            if round % 2 == 0 {
                tensors.insert("bias".into(), random.normal([outputs]));
            }
            check(&gpu(kernel), "linear", &no_attrs(), &tensors, TERMS, &mut random);
        }
    }
}
