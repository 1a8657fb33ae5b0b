//! Matrix products, with every kernel.

use half::f16;
use serde_json::json;
use shadegrad::{DType, Graph};

use crate::support::reference::{Array, Random, twin};
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

/// Operands of whole vec4s along either of their axes, both or one of them; results of a few rows or columns, of several
/// tiles, with sums cut into parts.
#[test]
fn operands_in_vec4s() {
    let mut random = Random::new(16);
    let extents = [
        [16, 136, 36],
        [12, 4, 300],
        [132, 16, 44],
        [32, 260, 20],
        [140, 28, 20],
        [132, 136, 68],
        [20, 33, 8],
        [33, 20, 8],
    ];
    for kernel in 0..KERNELS {
        for [m, cols, k] in extents {
            for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
                let a = if ta { [k, m] } else { [m, k] };
                let b = if tb { [cols, k] } else { [k, cols] };
                let inputs = named([("a", random.normal(a)), ("b", random.normal(b))]);
                let attrs = json!({"transpose_a": ta, "transpose_b": tb});
                check(&gpu(kernel), "matmul", &attrs, &inputs, TERMS, &mut random);
            }
        }
    }
}

/// Large enough for a CPU to read the matrix in long stretches.
#[test]
fn a_few_rows_and_a_large_matrix() {
    let mut random = Random::new(15);
    for [m, n, k] in [[1, 1024, 1030], [2, 2048, 1100], [3, 2304, 1400]] {
        let inputs = named([("a", random.normal([m, k])), ("b", random.normal([k, n]))]);
        let attrs = json!({"transpose_a": false, "transpose_b": false});
        check(&gpu(0), "matmul", &attrs, &inputs, TERMS, &mut random);
    }
    let (n, k) = (1024, 1032);
    let value = |i: usize| (i * 7 % 13) as f32 - 6.0;
    let [x, w, b] = [k, k * n, n].map(|count| (0..count).map(value).collect::<Vec<f32>>());
    let g = Graph::inference();
    let (gx, gw, gb) = (g.input([1, k]), g.input([k, n]), g.input([n]));
    let y = gx.linear(&gw.transpose(0, 1), Some(&gb)).relu();
    let program = gpu(0).compile(&g.function([&y])).unwrap();
    program.write(&gx, &x).unwrap().write(&gw, &w).unwrap().write(&gb, &b).unwrap().run().unwrap();
    // Sums of integers are exact.
    let want = (0..n).map(|j| (b[j] + (0..k).map(|i| x[i] * w[i * n + j]).sum::<f32>()).max(0.0));
    assert_eq!(program.read(&y).unwrap(), want.collect::<Vec<_>>());
}

/// Large enough for a CPU to copy operands into panels, of which the last one is not full; parts of larger tensors.
#[test]
fn operands_in_panels() {
    let value = |i: usize| (i * 7 % 13) as f32 - 6.0;
    let cases = [
        ([1004, 1004, 1000], true, false, 2),
        ([100, 2052, 500], false, false, 1),
        ([2052, 772, 500], true, true, 1),
        ([100, 2052, 500], false, true, 0),
    ];
    for ([m, n, k], ta, tb, packed) in cases {
        let (a, b) = (if ta { [k, m] } else { [m, k] }, if tb { [n, k] } else { [k, n] });
        let (whole_a, whole_b) = ([a[0] + 3, a[1] + 8], [b[0] + 3, b[1] + 8]);
        let [x, w, bias] = [whole_a[0] * whole_a[1], whole_b[0] * whole_b[1], n]
            .map(|count| (0..count).map(value).collect::<Vec<f32>>());
        let run = |kernel| {
            let g = Graph::inference();
            let (gx, gw, gb) = (g.input(whole_a), g.input(whole_b), g.input([n]));
            let [gx_part, gw_part] =
                [(&gx, a), (&gw, b)].map(|(t, [rows, columns])| t.narrow(0, 3, rows).narrow(1, 4, columns));
            let y = (gx_part.matmul_t(&gw_part, ta, tb) + &gb).relu();
            let program = gpu(kernel).compile(&g.function([&y])).unwrap();
            program.write(&gx, &x).unwrap().write(&gw, &w).unwrap().write(&gb, &bias).unwrap().run().unwrap();
            let packs = program.plan().steps.iter().filter(|step| step.kernel.entry == "pack").count();
            (program.read(&y).unwrap(), packs)
        };
        let ((found, packs), (plain, _)) = (run(0), run(2));
        assert_eq!(packs, if gpu(0).caps().cpu { packed } else { 0 }, "{m}x{k}x{n}");
        // Sums of integers are exact: all kernels find the same, and some elements are computed here, too.
        assert!(found == plain, "{m}x{k}x{n} differs between kernels");
        for i in (0..m * n).step_by(1009) {
            let at = |whole: [usize; 2], row: usize, column: usize| (row + 3) * whole[1] + column + 4;
            let product = |l: usize| {
                let left = if ta { at(whole_a, l, i / n) } else { at(whole_a, i / n, l) };
                x[left] * w[if tb { at(whole_b, i % n, l) } else { at(whole_b, l, i % n) }]
            };
            assert_eq!(found[i], (bias[i % n] + (0..k).map(product).sum::<f32>()).max(0.0), "{m}x{k}x{n} at {i}");
        }
    }
}

/// Products of f16 are exact in f32, so the twin of rounded operands is as near as ever.
#[test]
fn matmul_of_halves() {
    let mut random = Random::new(13);
    let extents = [
        [1, 1, 1],
        [1, 8, 300],
        [2, 7, 3],
        [64, 64, 64],
        [65, 63, 129],
        [3, 0, 4],
        [33, 17, 301],
        [1, 300, 520],
        [3, 300, 520],
        [200, 301, 37],
        [130, 132, 700],
        [160, 192, 256],
    ];
    for kernel in 0..KERNELS {
        for (n, [m, cols, k]) in extents.into_iter().enumerate() {
            let (ta, tb) = (n % 2 == 1, n / 2 % 2 == 1);
            let types = [[DType::F16, DType::F16], [DType::F32, DType::F16], [DType::F16, DType::F32]];
            let batch: &[usize] = if n % 4 == 3 { &[2] } else { &[] };
            let shapes = [if ta { [k, m] } else { [m, k] }, if tb { [cols, k] } else { [k, cols] }];
            let round = |v: f64| f64::from(f16::from_f64(v));
            let arrays = shapes.map(|shape| random.normal([batch, &shape].concat()).map(round));
            let dy = random.normal([batch, &[m, cols]].concat());

            let g = Graph::new();
            let [a, b, dy_] = [&arrays[0], &arrays[1], &dy].map(|array| g.input(array.shape.clone()));
            let [ha, hb] = [0, 1].map(|i| [&a, &b][i].cast(types[(n + kernel) % 3][i]));
            let y = ha.matmul_t(&hb, ta, tb);
            let mut outputs = vec![y.clone()];
            outputs.extend(g.grad_from(&[(y, dy_.clone())], [&a, &b]));
            let inputs = [(a, arrays[0].clone()), (b, arrays[1].clone()), (dy_, dy.clone())];
            let got = run(&gpu(kernel), &g, &inputs, &outputs).unwrap();

            let twin = twin("matmul", &json!({"transpose_a": ta, "transpose_b": tb})).unwrap();
            let [a, b] = arrays;
            let answers = |a: &Array, b: &Array, dy: &Array| {
                let inputs = named([("a", a.clone()), ("b", b.clone())]);
                let mut all = twin.outputs(&inputs);
                let name = all.keys().next().cloned().unwrap();
                let grads = twin.grads_from(&inputs, &[(name.clone(), dy.clone())].into()).unwrap();
                [all.remove(&name).unwrap(), grads["a"].clone(), grads["b"].clone()]
            };
            let wants = answers(&a, &b, &dy);
            let sizes = answers(&a.map(f64::abs), &b.map(f64::abs), &dy.map(f64::abs));
            for (i, (want, size)) in wants.iter().zip(&sizes).enumerate() {
                let what = format!("kernel {kernel}, {m} x {cols} x {k}, {ta} {tb}: output {i}");
                agree(&what, &got[i], want, TERMS, Some(size));
            }
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
