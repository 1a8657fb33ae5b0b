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
    for kernel in 0..KERNELS {
        let mut random = Random::new(20);
        for round in 0..22 {
            convolution(kernel, round, &mut random);
        }
    }
}

/// Gradients at strides up to 4, of kernels with fewer and with more taps than that, with less padding than the stride and with
/// more, in images whose last pixels no window reaches.
#[test]
fn convolutions_at_strides() {
    let mut random = Random::new(48);
    let cases = [
        ([3, 3], [2, 2], [1, 1]),
        ([7, 7], [2, 2], [3, 3]),
        ([3, 3], [2, 2], [0, 0]),
        ([5, 2], [3, 1], [4, 1]),
        ([2, 3], [4, 4], [0, 2]),
        ([1, 5], [1, 2], [0, 3]),
        ([4, 4], [4, 3], [5, 3]),
    ];
    for (n, (taps, stride, before)) in cases.into_iter().enumerate() {
        for (groups, [ci, co]) in [(1, [3, 5]), (2, [2, 1])] {
            let padding = [before[0], before[0] / 2, before[1], before[1]];
            let twin = Conv2d { stride, padding, dilation: [1, 1], groups, flip: n % 2 == 1 };
            for [height, width] in [[9, 12], [8, 17]] {
                let x = random.normal([2, groups * ci, height, width]);
                let w = random.normal([groups * co, ci, taps[0], taps[1]]);
                agrees(0, &twin, [x, w], &mut random);
            }
        }
    }
}

/// Many channels of images whose rows are no whole vec4s: a CPU takes the weights' gradient from unfolded windows.
#[test]
fn weight_gradients_of_many_channels() {
    let mut random = Random::new(49);
    let cases = [
        ([2, 96, 7, 7], [96, 96, 3, 3], [1, 1], [1, 1]),
        ([3, 128, 6, 5], [66, 128, 2, 3], [2, 1], [1, 2]),
        ([1, 100, 9, 10], [83, 100, 3, 1], [1, 3], [2, 1]),
    ];
    for (n, (image, weight, stride, dilation)) in cases.into_iter().enumerate() {
        let twin = Conv2d { stride, padding: [1, 2, 0, 1], dilation, groups: 1, flip: n == 1 };
        let g = Graph::new();
        let [x, w] = [image, weight].map(|shape| g.input(shape));
        let options =
            Conv2dOptions::new().stride(stride).padding_each([1, 0], [2, 1]).dilation(dilation).flipped(n == 1);
        let y = x.conv2d(&w, &options);
        let program = gpu(0).compile(&g.function(&g.grad(&y.sum(&[], false), [&w]))).expect("a program");
        let unfolds = program.plan().steps.iter().any(|step| step.kernel.entry == "unfold");
        assert_eq!(unfolds, program.gpu().caps().cpu, "{program}");
        agrees(0, &twin, [random.normal(image), random.normal(weight)], &mut random);
    }
}

/// Kernels of 3x3 at stride 1, for which there are more ways: tiles that stick out, pixels left over, flipped weights.
#[test]
fn convolutions_by_minimal_filtering() {
    let shapes = [
        ([1, 4, 5, 3], 4, [0, 0], [0, 0]),
        ([2, 4, 9, 12], 8, [1, 1], [1, 1]),
        ([1, 12, 13, 7], 4, [2, 0], [1, 2]),
        ([3, 64, 16, 16], 64, [1, 1], [1, 1]),
        ([1, 128, 14, 14], 100, [1, 1], [1, 1]),
    ];
    for kernel in 0..KERNELS {
        let mut random = Random::new(22);
        for (n, (x, co, before, after)) in shapes.into_iter().enumerate() {
            let (x, w) = (random.normal(x), random.normal([co, x[1], 3, 3]));
            let twin = Conv2d { padding: [before[0], after[0], before[1], after[1]], flip: n % 2 == 1, ..PLAIN };
            let dy = random.normal(twin.output_shape(&x.shape, &w.shape));
            let bias = random.normal([co]);
            let options = Conv2dOptions::new().padding_each(before, after).flipped(n % 2 == 1);
            let g = Graph::new();
            let [tx, tw, tdy, tb] = [&x, &w, &dy, &bias].map(|a| g.input(a.shape.as_slice()));
            let plain = tx.conv2d_bias(&tw, &tb, &options);
            let mut outputs = vec![plain.relu()];
            outputs.extend(g.grad_from(&[(plain, tdy.clone())], [&tx]));
            let size = |a: &Array| a.map(f64::abs);
            let wants = [
                (twin.forward(&x, &w, Some(&bias)).map(|v| v.max(0.0)), twin.forward(&size(&x), &size(&w), None)),
                (twin.grad_x(&dy, &w, &x.shape), twin.grad_x(&size(&dy), &size(&w), &x.shape)),
            ];
            let inputs = [(tx, x), (tw, w), (tdy, dy), (tb, bias)];
            let got = run(&gpu(kernel), &g, &inputs, &outputs).unwrap();
            for ((got, (want, sizes)), name) in got.iter().zip(&wants).zip(["y", "dx"]) {
                // A transform mixes neighbours, so that a small result has the rounding errors of large ones beside it.
                let most = sizes.data.iter().copied().fold(0.0, f64::max);
                let sizes = sizes.map(|_| most);
                agree(&format!("kernel {kernel}, shape {n}: {name}"), got, want, Bound::Terms(1e-6), Some(&sizes));
            }
        }
    }
}

/// Nothing but padding: the results are the bias.
#[test]
fn convolutions_of_images_without_pixels() {
    for kernel in 0..KERNELS {
        let g = Graph::new();
        let (x, w, bias) = (g.input([1, 96, 0, 5]), g.input([96, 96, 3, 3]), g.input([96]));
        let y = x.conv2d_bias(&w, &bias, &Conv2dOptions::new().padding([3, 3]));
        let values = Array::from_fn([96], |at| at[0] as f64);
        let want: Vec<f32> = (0..96 * 36).map(|i| (i / 36) as f32).collect();
        let inputs = [(x, Array::zeros([1, 96, 0, 5])), (w, Array::full([96, 96, 3, 3], 1.0)), (bias, values)];
        assert_eq!(run(&gpu(kernel), &g, &inputs, &[y]).unwrap()[0], want, "kernel {kernel}");
    }
}

const PLAIN: Conv2d = Conv2d { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1, flip: false };

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
    agrees(kernel, &twin, [x, w], random);
}

/// Results and both gradients of a convolution.
fn agrees(kernel: usize, twin: &Conv2d, [x, w]: [Array; 2], random: &mut Random) {
    let &Conv2d { stride, padding: [top, bottom, left, right], dilation, groups, flip } = twin;
    let y = twin.forward(&x, &w, None);
    let dy = random.normal(y.shape.clone());
    let size = |a: &Array| a.map(f64::abs);
    let wants = [
        (y, twin.forward(&size(&x), &size(&w), None)),
        (twin.grad_x(&dy, &w, &x.shape), twin.grad_x(&size(&dy), &size(&w), &x.shape)),
        (twin.grad_weight(&dy, &x, &w.shape), twin.grad_weight(&size(&dy), &size(&x), &w.shape)),
    ];
    let options = Conv2dOptions::new().stride(stride).padding_each([top, left], [bottom, right]);
    let options = options.dilation(dilation).groups(groups).flipped(flip);
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
        attrs["count_include_pad"] = json!(round % 3 == 0);
        for kernel in 0..POOLINGS {
            attrs["dilation"] = json!(dilation);
            check(&gpu(kernel), "max_pool2d", &attrs, &x, Bound::Values(1e-6, 1e-6), &mut random);
            attrs["dilation"] = json!([1, 1]);
            check(&gpu(kernel), "avg_pool2d", &attrs, &x, TERMS, &mut random);
        }
    }
}

/// Overlapping windows in images of an even width, in runs of every length.
#[test]
fn poolings_in_runs() {
    let mut random = Random::new(25);
    for width in [8, 10, 12, 14, 16, 22] {
        for ([kh, kw], stride, padding) in [([3, 3], 2, 1), ([3, 3], 1, 1), ([2, 5], 2, 0), ([3, 4], 3, 2)] {
            let x = named([("x", random.normal([2, 2, 5, width]))]);
            let mut attrs = json!({"kernel_size": [kh, kw], "stride": [2, stride], "padding": [1, padding]});
            attrs["ceil_mode"] = json!(width == 10);
            attrs["dilation"] = json!([1, 1]);
            attrs["count_include_pad"] = json!(width == 8);
            for kernel in 0..POOLINGS {
                check(&gpu(kernel), "max_pool2d", &attrs, &x, Bound::Values(1e-6, 1e-6), &mut random);
                check(&gpu(kernel), "avg_pool2d", &attrs, &x, TERMS, &mut random);
            }
        }
    }
}

/// Of windows side by side, with every kernel; in images of odd and even extents, the last ones may hang over the edge.
#[test]
fn poolings_side_by_side() {
    let mut random = Random::new(22);
    let cases = [
        ([2, 2], [8, 8]),
        ([2, 2], [7, 14]),
        ([2, 2], [9, 2]),
        ([3, 2], [10, 6]),
        ([1, 2], [5, 4]),
        ([2, 2], [6, 7]),
        ([9, 2], [19, 4]),
        ([2, 2], [4, 10]),
        ([2, 2], [4, 14]),
    ];
    for kernel in 0..POOLINGS {
        for (window, [height, width]) in cases {
            let x = named([("x", random.normal([2, 3, height, width]))]);
            for ceil in [false, true] {
                let mut attrs = json!({"kernel_size": window, "stride": window, "padding": [0, 0], "ceil_mode": ceil});
                attrs["dilation"] = json!([1, 1]);
                check(&gpu(kernel), "max_pool2d", &attrs, &x, Bound::Values(1e-6, 1e-6), &mut random);
                attrs["count_include_pad"] = json!(ceil);
                check(&gpu(kernel), "avg_pool2d", &attrs, &x, TERMS, &mut random);
            }
        }
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
        let inputs = [(tx, x), (tdy, dy)];
        for candidate in 0..POOLINGS {
            let got = run(&gpu(candidate), &g, &inputs, &[y.clone(), grad.clone()]).expect("a pooling");
            agree(&format!("{kernel:?}"), &got[0], &want, EXACT, None);
            agree(&format!("{kernel:?} gradient"), &got[1], &dx, Bound::Values(1e-6, 1e-6), None);
        }
    }
}

/// So many pixels that subgroups take the windows abreast, where an adapter can do that: what they answer is what an
/// invocation for each window does, to the bit, NaNs and places included.
#[test]
fn poolings_of_many_windows() {
    let window = |kernel, stride, padding| Window::new(kernel).stride(stride).padding(padding);
    let cases = [
        (Window::new([2, 2]), [33, 4, 126, 132]),
        (Window::new([2, 2]).ceil_mode(true), [13, 10, 125, 132]),
        (Window::new([3, 2]), [12, 17, 90, 116]),
        (window([3, 3], [2, 2], [1, 1]), [12, 13, 116, 120]),
        (window([3, 3], [2, 2], [0, 0]), [20, 11, 87, 112]),
        (window([3, 3], [1, 1], [1, 1]).dilation([2, 1]), [8, 19, 113, 124]),
        (window([2, 5], [3, 2], [1, 2]).count_include_pad(false), [44, 7, 64, 110]),
        (window([2, 2], [400, 400], [0, 0]), [1, 1, 2048, 1026]),
    ];
    let mut random = Random::new(46);
    for (window, shape) in cases {
        let g = Graph::new();
        let x = g.input(shape);
        let mut data = random.normal(shape).to_f32();
        data.iter_mut().step_by(997).for_each(|v| *v = f32::NAN);
        let (y, places) = x.max_pool2d_with_indices(&window);
        let dy = g.input(y.shape());
        let average = x.avg_pool2d(&window.clone().dilation([1, 1])) * 3.0;
        let dx = g.grad_from(&[(y.clone(), dy.clone())], [&x]).remove(0);
        let windows = y.elements();
        let (arrived, outputs) = (random.normal(y.shape()).to_f32(), [y * 2.0, average, dx]);
        let answer = |kernel| {
            let program = gpu(kernel).compile(&g.function(outputs.iter().chain([&places]))).expect("a program");
            program.write(&x, &data).and_then(|p| p.write(&dy, &arrived)).and_then(|p| p.run()).expect("a run");
            let floats = outputs.each_ref().map(|y| program.read(y).expect("results"));
            let abreast = program.plan().steps.iter().filter(|step| step.kernel.entry == "by_run_abreast").count();
            (
                floats.map(|y| y.into_iter().map(f32::to_bits).collect()),
                program.read_u32(&places).expect("places"),
                abreast,
            )
        };
        let (got, got_places, abreast): ([Vec<u32>; 3], _, _) = answer(0);
        let (want, want_places, _) = answer(8);
        // The last ones are fewer than a subgroup takes.
        assert_eq!(abreast >= 2, windows > 64 && gpu(0).caps().abreast, "{window:?} of {shape:?}");
        assert!(got_places == want_places, "places, {window:?} of {shape:?}");
        for (name, (got, want)) in ["maxima", "averages", "gradients"].iter().zip(got.iter().zip(&want)) {
            let other = got.iter().zip(want).position(|(a, b)| a != b);
            assert_eq!(other, None, "{name}, {window:?} of {shape:?}");
        }
    }
}
