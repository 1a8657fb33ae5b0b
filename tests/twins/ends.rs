//! Values at the ends of their range, where formulas divide zero by zero or subtract infinities.

use shadegrad::ops::{CrossEntropy, ImageBatch, Window};
use shadegrad::{Graph, Tensor};

use crate::trial::*;

/// What these tensors are, of one input.
fn of(kernel: usize, x: &[f32], shape: &[usize], build: impl Fn(&Tensor) -> Vec<Tensor>) -> Vec<Vec<f32>> {
    let g = Graph::new();
    let input = g.input(shape);
    let outputs = build(&input);
    let program = gpu(kernel).compile(&g.function(&outputs)).expect("a program");
    program.write(&input, x).expect("an input").run().expect("a run");
    outputs.iter().map(|y| program.read(y).expect("a result")).collect()
}

/// The gradient of a sum with respect to x.
fn slope(x: &Tensor, y: &Tensor) -> Tensor {
    x.graph().grad(&y.sum(&[], false), [x]).remove(0)
}

#[test]
fn norms_of_nothing_but_zeros() {
    let x = [0.0, 0.0, 0.0, 3.0, 4.0, 0.0];
    let got = of(0, &x, &[2, 3], |x| {
        let (norm, std) = (x.norm(&[1], false), (x * 0.0).std(&[1], 1.0, false));
        let second = slope(x, &slope(x, &norm));
        vec![slope(x, &norm), slope(x, &std), norm, std, second]
    });
    assert_eq!(got[0], [0.0, 0.0, 0.0, 0.6, 0.8, 0.0]);
    assert_eq!(got[1], [0.0; 6]);
    assert_eq!((&got[2][..], &got[3][..]), (&[0.0, 5.0][..], &[0.0; 2][..]));
    assert!(got[4].iter().all(|v| v.is_finite()), "{:?}", got[4]);
}

#[test]
fn sums_of_exponentials_of_infinities() {
    const INF: f32 = f32::INFINITY;
    let x = [-INF, -INF, -INF, -INF, INF, 2.0, -INF, 0.0, 0.0, f32::NAN, 1.0, 2.0];
    let got = of(0, &x, &[4, 3], |x| vec![x.logsumexp(1, false)]).remove(0);
    assert_eq!(got[..2], [-INF, INF]);
    assert!((got[2] - std::f32::consts::LN_2).abs() < 1e-6 && got[3].is_nan(), "{got:?}");
}

#[test]
fn powers_of_zero() {
    let exponents = [-1.0, -0.5, 0.0, 0.5, 1.0, 2.0];
    let got = of(0, &[0.0; 6], &[6], |x| {
        let y = x.pow(&x.graph().constant([6], &exponents));
        let zeroth = x.pow_scalar(0.0);
        vec![slope(x, &y), slope(x, &zeroth), y, zeroth, x.pow_scalar(-1.0)]
    });
    const INF: f32 = f32::INFINITY;
    assert_eq!(got[0], [-INF, -INF, 0.0, INF, 1.0, 0.0]);
    assert_eq!(got[1], [0.0; 6]);
    assert_eq!(got[2], [INF, INF, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!((&got[3][..], &got[4][..]), (&[1.0; 6][..], &[INF; 6][..]));
}

/// Constants that a compiler could compute, and refuse what it finds.
#[test]
fn constants() {
    const INF: f32 = f32::INFINITY;
    let got = of(0, &[1.0, -2.0], &[2], |x| {
        let full = |value: f32| x.graph().full([2], value);
        let mut doubled = full(1.0);
        for _ in 0..30 {
            doubled = &doubled + &doubled;
        }
        let negative = x * -full(-3.0);
        let infinite = [full(0.0).log(), full(1.0) / full(0.0), full(INF), -full(INF), x.clamp(0.0, INF)];
        let not_a_number = x * full(f32::NAN);
        [vec![negative, x * doubled, not_a_number], infinite.to_vec()].concat()
    });
    assert_eq!((&got[0][..], &got[1][..]), (&[3.0, -6.0][..], &[2f32.powi(30), -2f32.powi(31)][..]));
    assert!(got[2].iter().all(|v| v.is_nan()), "{:?}", got[2]);
    assert_eq!(got[3..], [[-INF; 2], [INF; 2], [INF; 2], [-INF; 2], [1.0, 0.0]]);
}

/// Label smoothing sums what all logits are above the largest one, here beside one that is far from the others.
#[test]
fn smoothed_losses_of_a_far_logit() {
    for classes in [1000, 1001, 4096] {
        let mut logits: Vec<f32> = (0..classes).map(|c| (c % 7) as f32 * 0.5).collect();
        logits[0] = -1e9;
        let (mut weights, label) = (vec![1.0; classes], 5);
        weights[0] = 0.0;
        let total: f64 = logits.iter().map(|&x| f64::from(x - 3.0).exp()).sum::<f64>().ln() + 3.0;
        let others: f64 = logits.iter().skip(1).map(|&x| total - f64::from(x)).sum();
        let want = 0.9 * (total - f64::from(logits[label])) + 0.1 * others / classes as f64;
        for kernel in 0..LINES {
            let got = of(kernel, &logits, &[1, classes], |x| {
                let g = x.graph();
                let options = CrossEntropy::new().label_smoothing(0.1).weight(&g.constant([classes], &weights));
                let options = options.reduction(shadegrad::ops::Reduction::Sum);
                vec![x.cross_entropy_with(&g.constant_u32([1], &[label as u32]), &options)]
            });
            let got = f64::from(got[0][0]);
            assert!((got - want).abs() < 2e-5 * want, "{classes} classes, kernel {kernel}: {got}, not {want}");
        }
    }
}

/// Places that only the device knows.
#[test]
fn places_that_are_not_there() {
    let got = of(0, &[0.0, 5.0, 1.0, 0.0], &[2, 2], |x| {
        let g = x.graph();
        let index = (x.argmax(&[1], false).cast(shadegrad::DType::F32) * 1000.0).cast(shadegrad::DType::U32);
        let rule = ImageBatch::new([1, 2, 2], 0.0, 1.0);
        vec![g.constant_u32([2], &[0xffff_ffff, 0]).image_batch(&index, &rule)]
    })
    .remove(0);
    assert!(got[..4].iter().all(|v| v.is_nan()), "{got:?}");
    assert_eq!(got[4..], [1.0; 4]);
}

/// Windows whose taps all lie beside the image.
#[test]
fn windows_of_padding_alone() {
    for kernel in 0..POOLINGS {
        let window = Window::new([2, 2]).dilation([3, 3]).padding([2, 2]);
        let got = of(kernel, &[7.0], &[1, 1, 1, 1], |x| {
            let y = x.max_pool2d(&window);
            let grads = slope(x, &y);
            vec![y, grads]
        });
        assert_eq!((&got[0][..], &got[1][..]), (&[f32::NEG_INFINITY][..], &[0.0][..]));
    }
}

/// Far from 0, where the device's own functions may be anything.
#[test]
fn sines_of_many_turns() {
    for (most, bound) in [(10_000.0, 1.5e-7), (100_000.0, 2e-6)] {
        let x: Vec<f32> = (0..40_000).map(|i| most * ((i as f32 * 0.618_034).fract() * 2.0 - 1.0)).collect();
        let got = of(0, &x, &[x.len()], |x| vec![x.sin(), x.cos()]);
        for (i, &x) in x.iter().enumerate() {
            let (sin, cos) = f64::from(x).sin_cos();
            for (got, want) in [(got[0][i], sin), (got[1][i], cos)] {
                assert!((f64::from(got) - want).abs() < bound, "of {x}: {got}, not {want}");
            }
        }
    }
    let ends = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e30, -1e30];
    let got = of(0, &ends, &[ends.len()], |x| vec![x.sin()]).remove(0);
    assert!(got[..2] == [0.0, 0.0] && got[2..5].iter().all(|v| v.is_nan()), "{got:?}");
}

/// What is left of a logarithm near 1 is all of it.
#[test]
fn logarithms_near_one() {
    let x: Vec<f32> = (-1000..1000).map(|i| 1.0 + i as f32 * 5e-5).collect();
    let got = of(0, &x, &[x.len()], |x| vec![x.log()]).remove(0);
    for (&x, got) in x.iter().zip(got) {
        let want = f64::from(x).ln();
        assert!((f64::from(got) - want).abs() <= 5e-7 * want.abs(), "of {x}: {got}, not {want}");
    }
}
