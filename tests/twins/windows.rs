//! Convolutions and poolings.

use serde_json::json;
use shadegrad::Graph;
use shadegrad::ops::{Conv2dOptions, Window};

use crate::support::reference::shape::{Fill, pad};
use crate::support::reference::{Array, Conv2d, MaxPool2d, Random};
use crate::trial::*;

/// Any stride, dilation, groups, padding that differs from side to side, kernels wider than the image, both directions.
#[test]
fn convolutions() {
    for kernel in 0..4 {
        let mut random = Random::new(20);
        for round in 0..22 {
            convolution(kernel, round, &mut random);
        }
    }
}

fn convolution(kernel: usize, round: usize, random: &mut Random) {
    let pick = |random: &mut Random, low: usize, high: usize| low + random.below(high - low + 1);
    let mut two = |low, high| [pick(random, low, high), pick(random, low, high)];
    let (taps, stride, dilation) = (two(1, if round.is_multiple_of(5) { 7 } else { 4 }), two(1, 3), two(1, 3));
    let (before, after) = (two(0, 3), two(0, 3));
    let room = two(0, if round.is_multiple_of(3) { 30 } else { 9 });
    let [ci, co] = match round % 4 {
        0 => [1, 1],
        1 => two(1, 3),
        _ => two(1, 9),
    };
    let (groups, batch) = (two(1, 3)[0], if round == 7 { 0 } else { two(1, 3)[0] });
    let extent = |a: usize| ((taps[a] - 1) * dilation[a] + 1).saturating_sub(before[a] + after[a]).max(1) + room[a];
    let flip = round % 2 == 1;
    let twin = Conv2d { stride, padding: [before[0], after[0], before[1], after[1]], dilation, groups, flip };
    let x = random.normal([batch, groups * ci, extent(0), extent(1)]);
    let w = random.normal([groups * co, ci, taps[0], taps[1]]);
    let y = twin.forward(&x, &w, None);
    let dy = random.normal(y.shape.clone());
    let size = |a: &Array| a.map(f64::abs);
    let wants = [
        (y, twin.forward(&size(&x), &size(&w), None)),
        (twin.grad_x(&dy, &w, &x.shape), twin.grad_x(&size(&dy), &size(&w), &x.shape)),
        (twin.grad_weight(&dy, &x, &w.shape), twin.grad_weight(&size(&dy), &size(&x), &w.shape)),
    ];
    let options =
        Conv2dOptions::new().stride(stride).padding_each(before, after).dilation(dilation).groups(groups).flipped(flip);
    let g = Graph::new();
    let [tx, tw, tdy] = [&x, &w, &dy].map(|a| g.input(a.shape.as_slice()));
    let ty = tx.conv2d(&tw, &options);
    let mut outputs = vec![ty.clone()];
    outputs.extend(g.grad_from(&[(ty, tdy.clone())], [&tx, &tw]));
    let what = format!("kernel {kernel}: {options:?} of {:?} with {:?}", x.shape, w.shape);
    let got = run(&gpu(kernel), &g, &[(tx, x), (tw, w), (tdy, dy)], &outputs).unwrap_or_else(|e| panic!("{what}: {e}"));
    for ((got, (want, sizes)), name) in got.iter().zip(&wants).zip(["y", "dx", "dw"]) {
        agree(&format!("{what}: {name}"), got, want, TERMS, Some(sizes));
    }
}

#[test]
fn poolings() {
    let mut random = Random::new(21);
    for round in 0..24 {
        let [kh, kw] = [1 + random.below(4), 1 + random.below(5)];
        let (stride, dilation) =
            ([1 + random.below(3), 1 + random.below(3)], [1 + random.below(2), 1 + random.below(2)]);
        let padding = [random.below(kh / 2 + 1), random.below(kw / 2 + 1)];
        let extent = |random: &mut Random, k: usize, d: usize| (k - 1) * d + 1 + random.below(9);
        let (h, w) = (extent(&mut random, kh, dilation[0]), extent(&mut random, kw, dilation[1]));
        let n = if round == 5 { 0 } else { 1 + random.below(3) };
        let shape = [n, 1 + random.below(4), h, w];
        let x = named([("x", random.normal(shape))]);
        let ceil = round % 2 == 0;
        let mut attrs = json!({"kernel_size": [kh, kw], "stride": stride, "padding": padding, "ceil_mode": ceil});
        attrs["dilation"] = json!(dilation);
        check(&gpu(0), "max_pool2d", &attrs, &x, Bound::Values(1e-6, 1e-6), &mut random);
        attrs["count_include_pad"] = json!(round % 3 == 0);
        attrs["dilation"] = json!([1, 1]);
        check(&gpu(0), "avg_pool2d", &attrs, &x, TERMS, &mut random);
    }
}

/// A window of even size reaches one further down and right than up and left.
#[test]
fn centred_maxima() {
    let mut random = Random::new(22);
    for kernel in [[1, 1], [2, 2], [3, 4], [4, 5], [6, 1]] {
        let shape = [2, 3, 6 + random.below(5), 5 + random.below(5)];
        let x = random.normal(shape);
        let border = |k: usize| [(k - 1) / 2, k / 2];
        let widths = [[0, 0], [0, 0], border(kernel[0]), border(kernel[1])];
        let padded = pad(&x, &widths, Fill::Constant(f64::NEG_INFINITY));
        let twin = MaxPool2d { kernel, stride: [1, 1], padding: [0, 0], dilation: [1, 1], ceil_mode: false };
        let want = twin.forward(&padded).0;
        let dy = random.normal(want.shape.clone());
        let wide = twin.grad(&padded, &dy);
        let dx = Array::from_fn(x.shape.clone(), |i| wide.at(&[i[0], i[1], i[2] + widths[2][0], i[3] + widths[3][0]]));
        let g = Graph::new();
        let (tx, tdy) = (g.input(x.shape.as_slice()), g.input(dy.shape.as_slice()));
        let y = tx.max_pool2d(&Window::new(kernel).centred());
        let grad = g.grad_from(&[(y.clone(), tdy.clone())], [&tx]).remove(0);
        assert_eq!(y.shape(), x.shape, "{kernel:?}");
        let got = run(&gpu(0), &g, &[(tx, x), (tdy, dy)], &[y, grad]).expect("a pooling");
        agree(&format!("{kernel:?}"), &got[0], &want, EXACT, None);
        agree(&format!("{kernel:?} gradient"), &got[1], &dx, Bound::Values(1e-6, 1e-6), None);
    }
}
