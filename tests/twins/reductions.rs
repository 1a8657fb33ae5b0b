//! Reductions over every set of axes, softmax, losses.

use serde_json::json;
use shadegrad::{Graph, Tensor};

use crate::support::reference::Random;
use crate::trial::*;

#[test]
fn every_set_of_axes() {
    let mut random = Random::new(30);
    let ops = ["sum", "mean", "amax", "amin", "prod", "var", "var_biased", "std", "norm2"];
    let shapes: [&[usize]; 7] = [&[3, 5, 4], &[7, 1, 13], &[2, 3, 2, 5], &[131, 2], &[2, 3, 1, 2, 3], &[1], &[1031]];
    for (n, shape) in shapes.into_iter().enumerate() {
        for mask in 1..1usize << shape.len() {
            let dims: Vec<usize> = (0..shape.len()).filter(|a| mask >> a & 1 == 1).collect();
            let length: usize = dims.iter().map(|&a| shape[a]).product();
            // All ops where there are few sets, else they take turns.
            let turn = (mask + n) % 3;
            for (_, op) in ops.iter().enumerate().filter(|(i, _)| shape.len() < 2 || i % 3 == turn) {
                if length < 2 && matches!(*op, "var" | "std" | "var_biased") || *op == "prod" && length > 200 {
                    continue;
                }
                let x = random.normal(shape);
                let x = if *op == "prod" { x.map(|v| f64::from((1.0 + 0.25 * v) as f32)) } else { x };
                let bound = match *op {
                    "sum" | "mean" => TERMS,
                    _ => Bound::Values(2e-5, 2e-6),
                };
                let attrs = json!({"dim": dims, "keepdim": mask % 2 == 0});
                check(&gpu(0), op, &attrs, &named([("x", x)]), bound, &mut random);
            }
        }
    }
}

#[test]
fn of_nothing() {
    let mut random = Random::new(31);
    for (shape, dims) in [(vec![0], vec![0]), (vec![3, 0], vec![1]), (vec![3, 0], vec![0]), (vec![2, 0, 4], vec![0, 2])]
    {
        for op in ["sum", "prod"] {
            let x = named([("x", random.normal(shape.clone()))]);
            check(&gpu(0), op, &json!({"dim": dims, "keepdim": false}), &x, EXACT, &mut random);
        }
    }
    // No line has no elements, but there are no lines.
    for (op, length) in [("amax", 4), ("argmin", 4), ("amax", 64), ("argmin", 64)] {
        let x = named([("x", random.normal([0, length]))]);
        check(&gpu(0), op, &json!({"dim": [1], "keepdim": false}), &x, EXACT, &mut random);
    }
    for op in ["softmax", "log_softmax"] {
        let x = named([("x", random.normal([0, 4]))]);
        check(&gpu(0), op, &json!({"dim": 1}), &x, EXACT, &mut random);
    }
}

#[test]
fn along_one_axis() {
    let mut random = Random::new(32);
    for round in 0..12 {
        let rank = 1 + round % 4;
        let mut extents = shape(&mut random, rank);
        let dim = random.below(rank);
        if round % 4 == 3 {
            extents[dim] = 97;
        }
        let x = named([("x", random.normal(extents).map(|v| f64::from(3.0 * v as f32)))]);
        for op in ["argmax", "argmin", "cumsum"] {
            let attrs = json!({"dim": [dim], "keepdim": round % 2 == 0});
            check(&gpu(0), op, &attrs, &x, if op == "cumsum" { TERMS } else { EXACT }, &mut random);
        }
        for op in ["softmax", "log_softmax", "softmin", "logsumexp"] {
            for kernel in 0..LINES {
                check(&gpu(kernel), op, &json!({"dim": dim}), &x, Bound::Values(1e-5, 5e-6), &mut random);
            }
        }
    }
    // Lines that a workgroup of a GPU adds up in several turns.
    let x = named([("x", random.normal([3, 2050]))]);
    for kernel in 0..2 {
        check(&gpu(kernel), "cumsum", &json!({"dim": [1], "keepdim": true}), &x, TERMS, &mut random);
    }
}

/// Of neighbours, with every kernel.
#[test]
fn along_lines() {
    let mut random = Random::new(39);
    for shape in [[64, 128], [75, 100], [9, 1000], [70, 33], [3, 5000], [5000, 40]] {
        let x = named([("x", random.normal(shape).map(|v| f64::from(v as f32)))]);
        for (op, bound) in [("sum", TERMS), ("amax", EXACT), ("amin", EXACT)] {
            for kernel in 0..LINES {
                check(&gpu(kernel), op, &json!({"dim": [1], "keepdim": false}), &x, bound, &mut random);
            }
        }
        // Of equals, the first counts.
        let x = named([("x", random.normal(shape).map(f64::round))]);
        for (op, kernel) in ["argmax", "argmin"].into_iter().flat_map(|op| (0..LINES).map(move |n| (op, n))) {
            check(&gpu(kernel), op, &json!({"dim": [1], "keepdim": false}), &x, EXACT, &mut random);
        }
    }
    // Lines of infinities have none but these, and a long sum does not drift.
    const LONG: usize = 300_000;
    let mut values = vec![0.1; 2 * LONG];
    values[LONG..].fill(f32::INFINITY);
    for kernel in 0..LINES {
        let g = Graph::inference();
        let x = g.input([2, LONG]);
        let all = [x.sum(&[1], false), x.amin(&[1], false), (-&x).amax(&[1], false)];
        let got = found(kernel, &g, &x, &values, &all);
        assert!((got[0][0] / (0.1f32 * LONG as f32) - 1.0).abs() < 5e-6, "{kernel}: {got:?}");
        assert_eq!((got[1][1], got[2][1]), (f32::INFINITY, f32::NEG_INFINITY), "{kernel}");
    }
}

/// In blocks of all sizes, on a CPU.
#[test]
fn along_columns() {
    let mut random = Random::new(41);
    for shape in [[1030, 1024], [1400, 768], [300, 512], [700, 64], [400, 92]] {
        let x = named([("x", random.normal(shape).map(|v| f64::from(v as f32)))]);
        for (op, bound) in [("sum", TERMS), ("amax", EXACT)] {
            check(&gpu(0), op, &json!({"dim": [0], "keepdim": false}), &x, bound, &mut random);
        }
    }
}

/// What a NaN goes into is one, or its place.
#[test]
fn a_nan_in_a_line() {
    const LENGTH: usize = 3000;
    let mut values = vec![1.5; 3 * LENGTH];
    values[LENGTH + 1501] = f32::NAN;
    for kernel in 0..LINES {
        let g = Graph::inference();
        let x = g.input([3, LENGTH]);
        let all = [x.sum(&[1], false), x.amax(&[1], false), x.amin(&[1], false)];
        for (got, want) in found(kernel, &g, &x, &values, &all).iter().zip([1.5 * LENGTH as f32, 1.5, 1.5]) {
            assert!(got[0] == want && got[1].is_nan() && got[2] == want, "{kernel}: {got:?}");
        }
    }
    // The first of two counts, whatever its sign and whatever is larger; infinities are no NaNs.
    values[LENGTH + 2] = 9.0;
    values[LENGTH + 1501] = -f32::NAN;
    values[LENGTH + 1777] = f32::NAN;
    values[2 * LENGTH + 2999] = f32::INFINITY;
    for (length, kernel) in [LENGTH, LENGTH - 1].into_iter().flat_map(|length| (0..LINES).map(move |n| (length, n))) {
        let skipped = LENGTH - length;
        let lines: Vec<f32> = values.chunks(LENGTH).flat_map(|line| line[skipped..].to_vec()).collect();
        let g = Graph::inference();
        let x = g.input([3, length]);
        let places = [x.argmax(&[1], false), x.argmin(&[1], false)];
        let program = gpu(kernel).compile(&g.function(&places)).unwrap();
        program.write(&x, &lines).unwrap().run().unwrap();
        let skipped = skipped as u32;
        assert_eq!(program.read_u32(&places[0]).unwrap(), [0, 1501 - skipped, 2999 - skipped]);
        assert_eq!(program.read_u32(&places[1]).unwrap(), [0, 1501 - skipped, 0]);
    }
}

/// What the n-th kernels make of x.
fn found(kernel: usize, g: &Graph, x: &Tensor, values: &[f32], outputs: &[Tensor]) -> Vec<Vec<f32>> {
    let program = gpu(kernel).compile(&g.function(outputs)).unwrap();
    program.write(x, values).unwrap().run().unwrap();
    outputs.iter().map(|y| program.read(y).unwrap()).collect()
}

/// Lines that a subgroup's turns fill or not, and as many of them as its workgroup takes or not.
#[test]
fn softmax_of_many_lines() {
    let mut random = Random::new(38);
    for shape in [[64, 128], [75, 100], [9, 1000], [70, 7]] {
        let x = named([("x", random.normal(shape).map(|v| f64::from(3.0 * v as f32)))]);
        for op in ["softmax", "log_softmax"] {
            for kernel in 0..LINES {
                check(&gpu(kernel), op, &json!({"dim": 1}), &x, Bound::Values(1e-5, 5e-6), &mut random);
            }
        }
    }
}

/// So many elements that subgroups take the lines abreast, where an adapter can do that: their turns are whole, or not.
#[test]
fn softmax_of_many_elements() {
    let mut random = Random::new(39);
    for [lines, length] in [[8193, 256], [2100, 1000]] {
        let x = random.normal(vec![lines, length]).to_f32();
        let g = Graph::inference();
        let input = g.input([lines, length]);
        let results = [input.softmax(1) * 2.0, input.log_softmax(1)];
        let program = gpu(0).compile(&g.function(&results)).expect("a program");
        let abreast = program.plan().steps.iter().filter(|step| step.kernel.entry == "by_subgroup_abreast").count();
        assert_eq!(abreast == 2, program.gpu().caps().abreast, "{program}");
        program.write(&input, &x).and_then(|p| p.run()).expect("a run");
        let [shares, logs] = results.each_ref().map(|y| program.read(y).expect("results"));
        for line in 0..lines {
            let of =
                |values: &'_ [f32]| values[line * length..][..length].iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let log_sum = of(&x).iter().map(|v| v.exp()).sum::<f64>().ln();
            for (k, (v, (share, log))) in of(&x).iter().zip(of(&shares).iter().zip(of(&logs))).enumerate() {
                let want = v - log_sum;
                assert!((share - 2.0 * want.exp()).abs() < 4e-6 * want.exp() + 1e-9, "line {line}, {k}: {share}");
                assert!((log - want).abs() < 1e-5, "line {line}, {k}: {log} and not {want}");
            }
        }
    }
}

/// What a mask, a NaN and a growing maximum make of lines that stay in registers or not.
#[test]
fn softmax_of_masked_lines() {
    for (length, kernel) in
        [7, 60, 1000, 8999, 9600].into_iter().flat_map(|length| (0..LINES).map(move |n| (length, n)))
    {
        let rising = |i: usize| 40.0 * (i as f32 / length as f32);
        let mut values: Vec<f32> = (0..4 * length).map(|i| rising(i % length)).collect();
        let shown = length / 3..length / 2;
        values[..shown.start].fill(f32::NEG_INFINITY);
        values[shown.end..2 * length].fill(f32::NEG_INFINITY);
        values[2 * length + length / 2] = f32::NAN;
        let g = Graph::inference();
        let x = g.input([4, length]);
        let all = found(kernel, &g, &x, &values, &[x.softmax(1), x.log_softmax(1)]);
        for (line, shown) in [(0, shown), (3, 0..length)] {
            let want = |i: usize| f64::from(rising(i)) - f64::from(rising(shown.end - 1));
            let sum: f64 = shown.clone().map(|i| want(i).exp()).sum();
            for i in 0..length {
                let [share, log] = [&all[0], &all[1]].map(|y| f64::from(y[line * length + i]));
                if shown.contains(&i) {
                    let shifted = want(i) - sum.ln();
                    assert!(
                        (share - shifted.exp()).abs() < 2e-6 && (log - shifted).abs() < 2e-5,
                        "{length} {kernel} {i}"
                    );
                } else {
                    assert!(share.abs() < 1e-37 && log == f64::NEG_INFINITY, "{length} {kernel} {i}: {share} {log}");
                }
            }
        }
        assert!(all.iter().all(|y| y[length..3 * length].iter().all(|v| v.is_nan())), "{length} {kernel}");
    }
}

#[test]
fn losses() {
    let mut random = Random::new(33);
    for round in 0..12 {
        let reduction = ["mean", "sum", "none"][round % 3];
        let classes = 1 + random.below(12);
        let mut logits = shape(&mut random, 1 + round % 3);
        let labels = logits.clone();
        logits.insert(1, classes);
        let mut target = random.integers(labels, classes);
        if round % 4 == 1 && target.len() > 1 {
            target.data[0] = -100.0;
        }
        let mut inputs = named([("x", random.normal(logits)), ("target", target)]);
        if round % 2 == 1 {
            inputs.insert("weight".into(), random.uniform([classes], 0.5, 1.5));
        }
        let smoothing = [0.0, 0.1][round / 2 % 2];
        let attrs = json!({"reduction": reduction, "ignore_index": -100, "label_smoothing": smoothing});
        for kernel in 0..3 {
            check(&gpu(kernel), "cross_entropy", &attrs, &inputs, Bound::Values(2e-5, 5e-6), &mut random);
        }
        let extents = shape(&mut random, round % 4);
        let inputs =
            named([("x", random.normal(extents.clone())), ("target", random.normal(extents).map(|v| v + 0.5))]);
        let inputs = inputs.into_iter().map(|(n, a)| (n, a.map(|v| f64::from(v as f32)))).collect();
        check(&gpu(0), "mse_loss", &json!({"reduction": reduction}), &inputs, Bound::Values(2e-5, 1e-6), &mut random);
    }
}

/// So many elements that subgroups take the lines or parts of them abreast, where an adapter can do that.
#[test]
fn of_many_elements() {
    for [lines, length] in [[1, 1 << 22], [512, 8208], [20, 1 << 18], [4200, 1000]] {
        let g = Graph::inference();
        let x = g.input([lines, length]);
        let results = [x.sum(&[1], false) * 2.0, x.amax(&[1], false), x.amin(&[1], false)];
        let program = gpu(0).compile(&g.function(&results)).expect("a program");
        let abreast = program.plan().steps.iter().filter(|step| step.kernel.entry == "by_subgroup_abreast").count();
        assert_eq!(abreast >= 3, program.gpu().caps().abreast, "{program}");
        // Small whole numbers, whose sums are exact; the extrema are of one element each, the NaN is in the last line.
        let mut values: Vec<f32> = (0..lines * length).map(|i| ((i * 7 + i / 13) % 17) as f32 - 8.0).collect();
        for line in 0..lines {
            values[line * length + (line * 37 + 5) % length] = 9.0 + line as f32;
            values[line * length + (line * 37 + 6) % length] = -9.0 - line as f32;
        }
        let lost = lines * length - length / 2;
        if lines > 1 {
            values[lost] = f32::NAN;
        }
        program.write(&x, &values).and_then(|p| p.run()).expect("a run");
        let [sums, most, least] = results.each_ref().map(|y| program.read(y).expect("results"));
        for (line, values) in values.chunks_exact(length).enumerate() {
            if line * length <= lost && lost < (line + 1) * length && lines > 1 {
                assert!([sums[line], most[line], least[line]].iter().all(|v| v.is_nan()), "line {line} of {lines}");
                continue;
            }
            let sum: f64 = values.iter().map(|v| f64::from(*v)).sum();
            assert_eq!(f64::from(sums[line]), 2.0 * sum, "the sum of line {line} of {lines}");
            assert_eq!([most[line], least[line]], [9.0 + line as f32, -9.0 - line as f32], "line {line} of {lines}");
        }
    }
}
