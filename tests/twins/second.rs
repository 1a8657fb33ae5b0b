//! Gradients of gradients: the engine's against numeric derivatives, in f64, of the twins' gradients.

use serde_json::json;
use shadegrad::ops::{Attention, Conv2dOptions, CrossEntropy, Reduction, Window};
use shadegrad::{Graph, Tensor};

use crate::elementwise::unary;
use crate::support::engine;
use crate::support::reference::numeric::gradient;
use crate::support::reference::*;
use crate::trial::*;

/// Rounding in the first gradient carries over to the second.
const BOUND: Bound = Bound::Values(5e-5, 2e-5);

/// Checks the gradient with respect to `x` of `sum(r * first)`, where `first` is a gradient that depends on `x`.
fn check_second(what: &str, inputs: &[(Tensor, Array)], x: usize, first: &Tensor, twin: &dyn Fn(&Array) -> Array) {
    let mut random = Random::new(50);
    let g = first.graph();
    let r = random.normal(first.shape());
    let tr = g.input(first.shape());
    let second = g.grad_from(&[(first.clone(), tr.clone())], [&inputs[x].0]).remove(0);
    let want = gradient(&|v| twin(v).dot(&r), &inputs[x].1);
    let mut all = inputs.to_vec();
    all.push((tr, r));
    // An input that nothing depends on is no input of the program.
    let used: Vec<_> = all.into_iter().collect();
    let got = run(&gpu(0), g, &used, &[first.clone(), second]).unwrap_or_else(|e| panic!("{what}: {e}"));
    agree(what, &got[1], &want, BOUND, None);
}

#[test]
fn of_one_operand() {
    let mut random = Random::new(51);
    for (op, attrs, [low, high]) in unary() {
        let x = random.uniform([37], low, high);
        let dy = random.normal([37]);
        let twin = twin(op, &attrs).expect("a twin");
        let g = Graph::new();
        let (tx, tdy) = (g.input([37]), g.input([37]));
        let named_tensors = [("x".to_owned(), tx.clone())].into();
        let y = engine::pointwise(op, &attrs, &named_tensors).expect("an op of the engine");
        // Where the slope does not depend on x, there is no gradient of it; it depends on dy alone.
        let first = g.grad_from(&[(y, tdy.clone())], [&tx]).remove(0) + &tx * 0.0 + &tdy * 0.0;
        let slope =
            |v: &Array| twin.grads(&named([("x", v.clone())]), &dy).expect("a gradient").remove("x").expect("of x");
        check_second(&format!("{op} {attrs}"), &[(tx, x), (tdy, dy.clone())], 0, &first, &slope);
    }
}

#[test]
fn of_products() {
    let mut random = Random::new(52);
    let (a, b) = (random.normal([5, 7]), random.normal([7, 3]));
    let dy = random.normal([5, 3]);
    let g = Graph::new();
    let [ta, tb, tdy] = [&a, &b, &dy].map(|v| g.input(v.shape.as_slice()));
    let first = g.grad_from(&[(ta.matmul(&tb).tanh(), tdy.clone())], [&ta]).remove(0);
    let inputs = [(ta, a.clone()), (tb, b.clone()), (tdy, dy.clone())];
    let twin = |a: &Array, b: &Array| {
        let dy = Unary::Tanh.vjp(&matmul(a, b, false, false), &dy);
        matmul_vjp(a, b, false, false, &dy)[0].clone()
    };
    check_second("matmul, tanh: a", &inputs, 0, &first, &|a| twin(a, &b));
    check_second("matmul, tanh: b", &inputs, 1, &first, &|b| twin(&a, b));
}

#[test]
fn of_convolutions() {
    let mut random = Random::new(53);
    for (stride, dilation, groups, flip) in [([1, 1], [1, 1], 1, false), ([2, 1], [1, 2], 2, true)] {
        let (x, w) = (random.normal([2, 2 * groups, 7, 6]), random.normal([2 * groups, 2, 3, 2]));
        let conv = Conv2d { stride, padding: [1, 1, 0, 0], dilation, groups, flip };
        let dy = random.normal(conv.output_shape(&x.shape, &w.shape));
        let options =
            Conv2dOptions::new().stride(stride).padding([1, 0]).dilation(dilation).groups(groups).flipped(flip);
        let g = Graph::new();
        let [tx, tw, tdy] = [&x, &w, &dy].map(|v| g.input(v.shape.as_slice()));
        let y = tx.conv2d(&tw, &options).tanh();
        let grads = g.grad_from(&[(y, tdy.clone())], [&tx, &tw]);
        let inputs = [(tx, x.clone()), (tw, w.clone()), (tdy, dy.clone())];
        let through = |x: &Array, w: &Array| Unary::Tanh.vjp(&conv.forward(x, w, None), &dy);
        let dx = |x: &Array, w: &Array| conv.grad_x(&through(x, w), w, &x.shape);
        let dw = |x: &Array, w: &Array| conv.grad_weight(&through(x, w), x, &w.shape);
        check_second("dx/dx", &inputs, 0, &grads[0], &|x| dx(x, &w));
        check_second("dx/dw", &inputs, 1, &grads[0], &|w| dx(&x, w));
        check_second("dw/dx", &inputs, 0, &grads[1], &|x| dw(x, &w));
        check_second("dw/dw", &inputs, 1, &grads[1], &|w| dw(&x, w));
    }
}

/// A pooling's gradient is linear in what arrives; so is the gradient of that.
#[test]
fn of_poolings_and_softmax() {
    let mut random = Random::new(54);
    let x = random.normal([1, 2, 6, 5]);
    let pool = MaxPool2d { kernel: [3, 2], stride: [2, 1], padding: [1, 0], dilation: [1, 1], ceil_mode: false };
    let (y, _) = pool.forward(&x);
    let window = Window::new([3, 2]).stride([2, 1]).padding([1, 0]);
    let dy = random.normal(y.shape.clone());
    let g = Graph::new();
    let [tx, tdy] = [&x, &dy].map(|v| g.input(v.shape.as_slice()));
    let first = g.grad_from(&[(tx.max_pool2d(&window).square(), tdy.clone())], [&tx]).remove(0);
    let inputs = [(tx, x.clone()), (tdy, dy.clone())];
    let dx = |x: &Array, dy: &Array| pool.grad(x, &Unary::Square.vjp(&pool.forward(x).0, dy));
    check_second("max_pool2d: x", &inputs, 0, &first, &|x| dx(x, &dy));
    check_second("max_pool2d: dy", &inputs, 1, &first, &|dy| dx(&x, dy));

    for op in ["softmax", "log_softmax"] {
        let (x, dy) = (random.normal([3, 5]), random.normal([3, 5]));
        let g = Graph::new();
        let [tx, tdy] = [&x, &dy].map(|v| g.input(v.shape.as_slice()));
        let y = if op == "softmax" { tx.softmax(1) } else { tx.log_softmax(1) };
        let first = g.grad_from(&[(y, tdy.clone())], [&tx]).remove(0);
        let twin = twin(op, &json!({"dim": 1})).expect("a twin");
        let dx =
            |x: &Array| twin.grads(&named([("x", x.clone())]), &dy).expect("a gradient").remove("x").expect("of x");
        check_second(op, &[(tx, x), (tdy, dy.clone())], 0, &first, &dx);
    }
}

#[test]
fn of_norms() {
    let mut random = Random::new(56);
    let [x, weight, bias, dy] = [&[3, 4, 2][..], &[4], &[4], &[3, 4, 2]].map(|shape| random.normal(shape));
    for (op, groups) in [("layer_norm", 0), ("rms_norm", 0), ("group_norm", 2), ("batch_norm", 1)] {
        let shape: &[usize] = if groups == 0 { &[2, 2] } else { &[3, 4, 2] };
        let x = if groups == 0 { x.clone().reshape([6, 2, 2]) } else { x.clone() };
        let dy = dy.clone().reshape(x.shape.clone());
        let g = Graph::new();
        let [tx, tw, tb, tdy] = [&x, &weight, &bias, &dy].map(|v| g.input(v.shape.as_slice()));
        let y = match op {
            "layer_norm" => tx.layer_norm(shape, Some(&tw), Some(&tb), 0.1),
            "rms_norm" => tx.rms_norm(shape, Some(&tw), 0.1),
            "batch_norm" => {
                let (mean, variance) = tx.batch_statistics();
                tx.batch_norm(&mean, &variance, Some(&tw), Some(&tb), 0.1)
            }
            _ => tx.group_norm(groups, Some(&tw), Some(&tb), 0.1),
        };
        let attrs =
            json!({"normalized_shape": shape, "num_groups": groups, "eps": 0.1, "training": true, "momentum": 0.1});
        let twin = twin(op, &attrs).expect("a twin");
        let grads = g.grad_from(&[(y, tdy.clone())], [&tx, &tw]);
        let inputs = [(tx, x), (tw, weight.clone()), (tb, bias.clone()), (tdy, dy)];
        let names = ["x", "weight", "bias", "dy"];
        for (first, of) in grads.iter().zip(names) {
            // What is linear in the weight, or in what arrives, has no gradient of its own there.
            for (n, by) in
                names.iter().enumerate().filter(|(_, by)| **by != "bias" && (of, **by) != ("weight", "weight"))
            {
                let slope = |v: &Array| {
                    let mut arrays = named([]);
                    arrays
                        .extend(names.iter().zip(&inputs).map(|(name, (_, array))| (name.to_string(), array.clone())));
                    arrays.insert(by.to_string(), v.clone());
                    let dy = arrays.remove("dy").expect("what arrives");
                    if op == "rms_norm" {
                        arrays.remove("bias");
                    }
                    twin.grads(&arrays, &dy).expect("a gradient").remove(of).expect("of one input")
                };
                check_second(&format!("{op}: {of}, {by}"), &inputs, n, first, &slope);
            }
        }
    }
}

#[test]
fn of_attention() {
    let mut random = Random::new(57);
    for (d, causal) in [(4, true), (8, false), (3, false)] {
        let mut arrays =
            [(5, d), (6, d), (6, 4), (5, 6), (5, 4)].map(|(rows, columns)| random.normal([2, rows, columns]));
        // One pair is not seen.
        *arrays[3].at_mut(&[1, 2, 1]) = f64::NEG_INFINITY;
        let g = Graph::new();
        let [tq, tk, tv, tmask, tdy] = [0, 1, 2, 3, 4].map(|n| g.input(arrays[n].shape.as_slice()));
        let y = tq.scaled_dot_product_attention(&tk, &tv, &Attention::new().causal(causal).scale(0.5).mask(&tmask));
        let grads = g.grad_from(&[(y, tdy.clone())], [&tq, &tk, &tv, &tmask]);
        let lines: Vec<Tensor> = grads.iter().map(|grad| grad.reshape([grad.elements()])).collect();
        let all = lines[0].concat(&lines[1..].iter().collect::<Vec<_>>(), 0);
        let inputs: Vec<(Tensor, Array)> = [tq, tk, tv, tmask, tdy].into_iter().zip(arrays).collect();
        let attrs = json!({"causal": causal, "scale": 0.5, "mask": "float"});
        let twin = twin("scaled_dot_product_attention", &attrs).expect("a twin");
        let names = ["q", "k", "v", "mask", "dy"];
        let grads_where = |by: &str, changed: &Array| {
            let all = names.iter().zip(&inputs).map(|(name, (_, array))| (name.to_string(), array.clone()));
            let mut all: Named = all.collect();
            all.insert(by.to_string(), changed.clone());
            let dy = all.remove("dy").expect("what arrives");
            twin.grads(&all, &dy).expect("a gradient")
        };
        for (n, by) in names.iter().enumerate() {
            let slope = |changed: &Array| {
                let grads = grads_where(by, changed);
                let all: Vec<f64> = names[..4].iter().flat_map(|of| grads[*of].data.clone()).collect();
                Array::new([all.len()], all)
            };
            check_second(&format!("attention, {d}: all, {by}"), &inputs, n, &all, &slope);
        }
        // Each alone: nothing arrives at the others. The gradient of the values does not depend on them.
        for (first, of) in grads.iter().zip(names) {
            let others = if d == 4 { &names[..] } else { &["k"] };
            for by in others.iter().filter(|by| (of, **by) != ("v", "v")) {
                let n = names.iter().position(|name| name == by).expect("one of them");
                let slope = |changed: &Array| grads_where(by, changed).remove(of).expect("of one input");
                check_second(&format!("attention, {d}: {of}, {by}"), &inputs, n, first, &slope);
            }
        }
    }
}

#[test]
fn of_cross_entropy() {
    let mut random = Random::new(55);
    for (ignore, smoothing, weighted) in [(7, 0.0, false), (2, 0.2, false), (2, 0.3, true)] {
        let (x, weight) = (random.normal([4, 3, 2]), random.uniform([3], 0.5, 1.5));
        let (target, dy) = (random.integers([4, 2], 3), random.normal([4, 2]));
        let labels: Vec<u32> = target.data.iter().map(|&label| label as u32).collect();
        let g = Graph::new();
        let [tx, tdy, tw] = [&x, &dy, &weight].map(|v| g.input(v.shape.as_slice()));
        let mut options =
            CrossEntropy::new().reduction(Reduction::None).ignore_index(ignore).label_smoothing(smoothing);
        let mut inputs = vec![(tx.clone(), x), (tdy.clone(), dy.clone())];
        let mut fixed = named([("target", target)]);
        if weighted {
            options = options.weight(&tw);
            inputs.push((tw.clone(), weight.clone()));
            fixed.insert("weight".into(), weight);
        }
        let losses = tx.cross_entropy_with(&g.constant_u32([4, 2], &labels), &options);
        let first = g.grad_from(&[(losses, tdy)], [&tx]).remove(0);
        let attrs = json!({"reduction": "none", "ignore_index": ignore, "label_smoothing": smoothing});
        let twin = twin("cross_entropy", &attrs).expect("a twin");
        let slope = |v: &Array| {
            let mut inputs = fixed.clone();
            inputs.insert("x".into(), v.clone());
            twin.grads(&inputs, &dy).expect("a gradient").remove("x").expect("of x")
        };
        check_second("cross_entropy", &inputs, 0, &first, &slope);
    }
}
