//! Ops that only move values: every bit must arrive.

use serde_json::json;
use shadegrad::Graph;
use shadegrad::graph::DType;
use shadegrad::ops::PadMode;

use crate::support::reference::shape::permute;
use crate::support::reference::{Array, Random};
use crate::trial::*;

#[test]
fn permutations_and_slices() {
    let mut random = Random::new(40);
    for round in 0..14 {
        let rank = 1 + round % 5;
        let mut extents = shape(&mut random, rank);
        if round == 9 {
            extents[1] = 0;
        }
        let x = named([("x", random.normal(extents.clone()))]);
        let mut dims: Vec<usize> = (0..rank).collect();
        (1..rank).for_each(|a| dims.swap(a, random.below(a + 1)));
        check(&gpu(0), "permute", &json!({"dims": dims}), &x, EXACT, &mut random);
        let start: Vec<usize> = extents.iter().map(|&n| random.below(n + 1)).collect();
        let end: Vec<usize> = extents.iter().zip(&start).map(|(n, s)| s + random.below(n - s + 1)).collect();
        let step: Vec<usize> = (0..rank).map(|_| 1 + random.below(3)).collect();
        check(&gpu(0), "slice", &json!({"start": start, "end": end, "step": step}), &x, EXACT, &mut random);
    }
}

#[test]
fn borders() {
    let mut random = Random::new(41);
    for round in 0..14 {
        let mut extents = shape(&mut random, 2 + round % 3);
        let rank = extents.len();
        extents.iter_mut().for_each(|n| *n = (*n).max(3));
        let mut widths: Vec<usize> = (0..4).map(|_| random.below(3)).collect();
        if round == 0 {
            extents[rank - 1] = 0;
            widths = vec![1, 2, 0, 1];
        }
        let mode = if round == 0 { "constant" } else { ["constant", "reflect", "replicate"][round % 3] };
        let attrs = json!({"pad_left_right_top_bottom": widths, "mode": mode, "value": -1.5});
        let x = named([("x", random.normal(extents))]);
        // A border's gradients add up.
        check(&gpu(0), "pad", &attrs, &x, Bound::Values(1e-6, 1e-6), &mut random);
    }
}

#[test]
fn selections() {
    let mut random = Random::new(42);
    for round in 0..14 {
        let rank = 1 + round % 4;
        let extents = shape(&mut random, rank);
        let dim = random.below(rank);
        let x = random.normal(extents.clone());
        let taken = if round == 3 { 0 } else { 1 + random.below(2 * extents[dim]) };
        let index = random.integers([taken], extents[dim]);
        let inputs = named([("x", x.clone()), ("index", index)]);
        check(&gpu(0), "index_select", &json!({"dim": dim}), &inputs, Bound::Values(1e-6, 2e-6), &mut random);
        let mut smaller: Vec<usize> = extents.iter().map(|&n| 1 + random.below(n)).collect();
        smaller[dim] = taken;
        let inputs = named([("x", x.clone()), ("index", random.integers(smaller, extents[dim]))]);
        check(&gpu(0), "gather", &json!({"dim": dim}), &inputs, Bound::Values(1e-6, 2e-6), &mut random);
        if rank > 1 {
            let diagonal = random.below(7) as i64 - 3;
            check(&gpu(0), "tril", &json!({"diagonal": diagonal}), &named([("x", x)]), EXACT, &mut random);
        }
    }
}

#[test]
fn concatenations() {
    let mut random = Random::new(43);
    for round in 0..10 {
        let rank = 1 + round % 4;
        let extents = shape(&mut random, rank);
        let dim = random.below(rank);
        let parts = (0..1 + random.below(9)).map(|i| {
            let mut own = extents.clone();
            own[dim] = random.below(5);
            (format!("x{i}"), random.normal(own))
        });
        let parts = parts.collect();
        check(&gpu(0), "concat", &json!({"dim": dim}), &parts, EXACT, &mut random);
    }
}

/// What stays together is moved in vec4s or pairs of them: extents that allow both, one, and neither.
#[test]
fn neighbours_that_move_together() {
    let mut random = Random::new(46);
    for unit in [8, 4, 2] {
        for dim in 0..3 {
            let mut part = |along: usize| {
                let mut extents = vec![3, 2, 3 * unit];
                extents[dim] = along;
                random.normal(extents)
            };
            let parts = named([("x0", part(unit)), ("x1", part(3 * unit)), ("x2", part(0)), ("x3", part(unit))]);
            check(&gpu(0), "concat", &json!({"dim": dim}), &parts, EXACT, &mut random);
            let x = random.normal([3, 5, unit]);
            let taken = random.integers([7], x.shape[dim]);
            let inputs = named([("x", x), ("index", taken)]);
            check(&gpu(0), "index_select", &json!({"dim": dim}), &inputs, Bound::Values(1e-6, 2e-6), &mut random);
        }
        for widths in [[unit, 2 * unit, 0, 1], [0, 0, 2, 0], [0, unit, 0, 0], [1, unit, 0, 0], [1, 0, 0, 1]] {
            let attrs = json!({"pad_left_right_top_bottom": widths, "mode": "constant", "value": 2.5});
            let x = named([("x", random.normal([2, 3, 5, 2 * unit]))]);
            check(&gpu(0), "pad", &attrs, &x, EXACT, &mut random);
        }
    }
    let g = Graph::new();
    let numbers: Vec<u32> = (0..48).map(|n| n + (1 << 31)).collect();
    let x = g.constant_u32([6, 8], &numbers);
    let all = x.concat(&[&x.pad(&[(1, 0), (0, 8)], PadMode::Constant(7.0)).narrow(1, 0, 8)], 0);
    let program = gpu(0).compile(&g.function([&all])).expect("a program");
    program.run().expect("a run");
    let want: Vec<u32> = numbers.iter().chain(&[7; 8]).chain(&numbers).copied().collect();
    assert_eq!(program.read_u32(&all).expect("numbers"), want);
}

/// Rows and columns of whole vec4s change places, with axes before, between and behind them, less than a block and
/// more; in 36 x 68 blocks are cut off.
#[test]
fn transpositions() {
    let mut random = Random::new(44);
    let all: [(&[usize], &[usize]); 8] = [
        (&[4, 4], &[1, 0]),
        (&[36, 68], &[1, 0]),
        (&[3, 8, 12], &[0, 2, 1]),
        (&[2, 8, 5, 64], &[0, 2, 3, 1]),
        (&[2, 5, 7, 8], &[0, 3, 1, 2]),
        (&[4, 3, 8, 4], &[3, 2, 1, 0]),
        (&[8, 6], &[1, 0]),
        (&[6, 8], &[1, 0]),
    ];
    for (extents, dims) in all {
        let x = random.normal(extents);
        let inputs = named([("x", x.clone())]);
        check(&gpu(0), "permute", &json!({"dims": dims}), &inputs, EXACT, &mut random);
        // With arithmetic, and what lies as the output does, on either side.
        let signed: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        let turned = permute(&x, &signed);
        let (other, row) = (random.normal(turned.shape.clone()), random.normal([turned.shape[turned.rank() - 1]]));
        let g = Graph::new();
        let [tx, tother, trow] = [&x, &other, &row].map(|v| g.input(v.shape.as_slice()));
        let axes: Vec<isize> = dims.iter().map(|&d| d as isize).collect();
        let y = &tother - tx.permute(&axes) * &trow;
        let want = Array::from_fn(turned.shape.clone(), |at| other.at(at) - turned.at(at) * row.at_broadcast(at));
        let inputs = [(tx, x), (tother, other), (trow, row)];
        let got = run(&gpu(0), &g, &inputs, &[y]).expect("a run").remove(0);
        agree(&format!("{extents:?} as {dims:?}"), &got, &want, VALUES, None);
    }
    let g = Graph::new();
    let numbers: Vec<u32> = (0..64).map(|n| n + (1 << 31)).collect();
    let y = g.constant_u32([8, 8], &numbers).permute(&[1, 0]).reshape([64]);
    let program = gpu(0).compile(&g.function([&y])).expect("a program");
    program.run().expect("a run");
    let want: Vec<u32> = (0..64).map(|n| numbers[n % 8 * 8 + n / 8]).collect();
    assert_eq!(program.read_u32(&y).expect("numbers"), want);
}

/// Enough elements for subgroups whose lanes lie abreast, where there are such: tiles at the ends overlap, axes lie before
/// and between rows and columns, or the last one stays, and other operands lie as the output does.
#[test]
fn permutations_of_many_elements() {
    let mut random = Random::new(45);
    let all: [(&[usize], &[isize], &str); 4] = [
        (&[3, 420, 436], &[0, 2, 1], "transpose_abreast"),
        (&[5, 36, 84, 40], &[0, 3, 1, 2], "transpose_abreast"),
        (&[28, 40_004], &[1, 0], "transpose_abreast"),
        (&[3, 70, 33, 88], &[0, 2, 1, 3], "pairs_abreast"),
    ];
    for (extents, dims, entry) in all {
        let g = Graph::new();
        let x = random.normal(extents);
        let signed: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        let turned = permute(&x, &signed);
        let (tx, tother) = (g.input(extents), g.input(turned.shape.as_slice()));
        let other: Vec<f32> = (0..x.data.len()).map(|i| (i % 1009) as f32).collect();
        let values: Vec<f32> = x.data.iter().map(|&v| v as f32).collect();
        for with in [0.0, 1.0] {
            let y = if with == 0.0 { tx.permute(dims) } else { tx.permute(dims) * 2.0 - &tother };
            let program = gpu(0).compile(&g.function([&y])).expect("a program");
            let abreast = program.plan().steps.iter().any(|step| step.kernel.entry == entry);
            assert_eq!(abreast, program.gpu().caps().abreast, "{program}");
            program.write(&tx, &values).expect("elements");
            if with == 1.0 {
                program.write(&tother, &other).expect("elements");
            }
            program.run().expect("a run");
            for (i, (got, &want)) in program.read(&y).expect("results").iter().zip(&turned.data).enumerate() {
                let want = want as f32 * (1.0 + with) - other[i] * with;
                assert_eq!(*got, want, "element {i} of {extents:?} as {dims:?}");
            }
        }
    }
}

/// A part of a tensor, its leading axis turned round: as many elements, read where an adapter's lanes lie abreast.
#[test]
fn slices_of_many_elements() {
    let mut random = Random::new(46);
    let x = random.normal([7, 130, 800]).to_f32();
    let g = Graph::new();
    let input = g.input([7, 130, 800]);
    let y = input.narrow(1, 17, 111).narrow(2, 8, 720).flip(0) * 2.0;
    let program = gpu(0).compile(&g.function([&y])).expect("a program");
    let step = &program.plan().steps[0];
    assert_eq!(step.kernel.entry == "pairs_abreast", program.gpu().caps().abreast, "{program}");
    program.write(&input, &x).and_then(|p| p.run()).expect("a run");
    for (i, got) in program.read(&y).expect("results").into_iter().enumerate() {
        let [batch, row, column] = [6 - i / (111 * 720), 17 + i / 720 % 111, 8 + i % 720];
        assert_eq!(got, 2.0 * x[(batch * 130 + row) * 800 + column], "element {i}");
    }
}

/// So many elements that an adapter whose lanes lie abreast moves them so: tensors one after the other, rows of a table (of
/// which some are not there) in turns of every length.
#[test]
fn concatenations_and_selections_of_many_elements() {
    let mut random = Random::new(47);
    for [outer, rows, width] in [[3, 2760, 64], [2, 2100, 128], [5, 401, 768]] {
        let g = Graph::new();
        let (a, b) = (g.input([outer, rows, width]), g.input([outer, rows + 30, width]));
        let index = g.input([rows]);
        let (both, taken) = (a.concat(&[&b], 1), a.index_select(1, &index.cast(DType::U32)));
        let program = gpu(0).compile(&g.function([&both, &taken])).expect("a program");
        let abreast = program.plan().steps.iter().filter(|step| step.kernel.entry.ends_with("_abreast")).count();
        assert_eq!(abreast, if program.gpu().caps().abreast { 3 } else { 0 }, "{program}");
        let [first, second] = [rows, rows + 30].map(|rows| random.normal([outer, rows, width]).to_f32());
        let chosen: Vec<f32> = (0..rows).map(|_| random.below(rows + 2) as f32).collect();
        program.write(&a, &first).and_then(|p| p.write(&b, &second)).expect("elements");
        program.write(&index, &chosen).and_then(|p| p.run()).expect("a run");
        let (both, taken) = (program.read(&both).expect("elements"), program.read(&taken).expect("rows"));
        for o in 0..outer {
            let part = &both[o * (2 * rows + 30) * width..][..(2 * rows + 30) * width];
            assert!(part[..rows * width] == first[o * rows * width..][..rows * width], "the first, {o}");
            assert!(
                part[rows * width..] == second[o * (rows + 30) * width..][..(rows + 30) * width],
                "the second, {o}"
            );
            for (k, &row) in chosen.iter().enumerate() {
                let got = &taken[(o * rows + k) * width..][..width];
                match first[o * rows * width..][..rows * width].get(row as usize * width..) {
                    Some(want) if (row as usize) < rows => assert!(*got == want[..width], "row {row} of {o}"),
                    _ => assert!(got.iter().all(|v| v.is_nan()), "row {row} of {o}, which is not there"),
                }
            }
        }
    }
}
