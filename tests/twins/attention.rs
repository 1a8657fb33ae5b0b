//! Attention, fused and composed, with every kind of mask.

use serde_json::json;
use shadegrad::Graph;
use shadegrad::graph::plan::Step;
use shadegrad::ops::Attention;

use crate::support::reference::shape::permute;
use crate::support::reference::{Array, Named, Random, twin};
use crate::trial::*;

const BOUND: Bound = Bound::Values(3e-5, 1e-5);

#[test]
fn of_many_shapes() {
    let mut random = Random::new(60);
    // Batches, queries, keys, length of a query and of a value; the last two are composed.
    let shapes = [
        (&[2, 3][..], 5, 7, 8, 12),
        (&[2], 33, 70, 16, 16),
        (&[], 1, 1, 4, 4),
        (&[3], 67, 31, 64, 64),
        (&[1, 2], 9, 100, 128, 128),
        (&[2], 40, 64, 36, 100),
        (&[3], 2, 700, 64, 96),
        (&[], 700, 300, 8, 16),
        (&[2, 1], 1, 1300, 128, 20),
        (&[2], 9, 11, 7, 8),
        (&[2], 3, 5, 132, 4),
    ];
    for (n, (lead, queries, keys, d, e)) in shapes.into_iter().enumerate() {
        let mut tensor = |rows: usize, columns: usize| random.normal([lead, &[rows, columns]].concat());
        let mut inputs = named([("q", tensor(queries, d)), ("k", tensor(keys, d)), ("v", tensor(keys, e))]);
        let scale = 1.0 / (d as f64).sqrt();
        let causal = n % 2 == 1;
        for kernel in 0..ATTENTIONS {
            let attrs = json!({"causal": causal, "scale": scale, "mask": null});
            inputs.remove("mask");
            check(&gpu(kernel), "scaled_dot_product_attention", &attrs, &inputs, BOUND, &mut random);
            // Some queries see nothing at all.
            let allowed = Array::from_fn([queries, keys], |at| f64::from(at[0] % 5 != 3 && (at[0] + at[1]) % 3 != 0));
            inputs.insert("mask".into(), allowed);
            let attrs = json!({"causal": causal, "scale": scale, "mask": "bool"});
            check(&gpu(kernel), "scaled_dot_product_attention", &attrs, &inputs, BOUND, &mut random);
            // What is added to all scores of a query changes none of its results; to those of a key it does.
            let shape = if n % 4 < 2 { [queries, 1] } else { [1, keys] };
            let added = random.normal(shape).map(|v| if v > 1.5 { f64::NEG_INFINITY } else { v });
            inputs.insert("mask".into(), added);
            let attrs = json!({"causal": causal, "scale": scale, "mask": "float"});
            check(&gpu(kernel), "scaled_dot_product_attention", &attrs, &inputs, BOUND, &mut random);
        }
    }
}

/// Scores whose exponentials overflow, and a largest one that comes last.
#[test]
fn of_large_scores() {
    let mut random = Random::new(61);
    let q = Array::full([1, 9, 8], 30.0);
    let k = Array::from_fn([1, 90, 8], |at| at[1] as f64 / 8.0);
    let inputs = named([("q", q), ("k", k), ("v", random.normal([1, 90, 8]))]);
    let attrs = json!({"causal": false, "scale": 1.0, "mask": null});
    for kernel in 0..2 {
        check(&gpu(kernel), "scaled_dot_product_attention", &attrs, &inputs, BOUND, &mut random);
    }
    // Forward alone: a key's gradient is 30 times the difference of two sums, and the n-th kernels of products round these
    // in other ways.
    let want = twin("scaled_dot_product_attention", &attrs).expect("a twin").outputs(&inputs).into_values().next();
    for kernel in 2..ATTENTIONS {
        let g = Graph::inference();
        let [q, k, v] = ["q", "k", "v"].map(|name| (g.input(inputs[name].shape.clone()), inputs[name].clone()));
        let options = Attention::new().scale(1.0);
        let y = q.0.scaled_dot_product_attention(&k.0, &v.0, &options);
        let got = run(&gpu(kernel), &g, &[q, k, v], &[y]).expect("an answer");
        agree("large scores", &got[0], want.as_ref().expect("a result"), BOUND, None);
    }
}

/// All scores of a query are alike and so large that their logarithm's sum is lost beside them.
#[test]
fn of_scores_far_from_zero() {
    let mut random = Random::new(62);
    let (k, v) = (random.normal([1, 37, 8]), random.normal([1, 37, 8]));
    let mask = Array::from_fn([9, 1], |at| if at[0] % 2 == 0 { -1e9 } else { 1e9 });
    let inputs = named([("q", Array::zeros([1, 9, 8])), ("k", k), ("v", v), ("mask", mask)]);
    for kernel in 0..ATTENTIONS {
        let attrs = json!({"causal": false, "scale": 1.0, "mask": "float"});
        check(&gpu(kernel), "scaled_dot_product_attention", &attrs, &inputs, BOUND, &mut random);
    }
}

/// Heads beside each other, as a projection leaves them, with what arrives there: read where they lie.
#[test]
fn of_heads_beside_each_other() {
    let mut random = Random::new(64);
    let (batches, heads, queries, keys) = (2, 3, 19, 70);
    let rows = [("q", queries, 8), ("k", keys, 8), ("v", keys, 12)];
    let named: Named =
        rows.map(|(name, rows, length)| (name.to_owned(), random.normal([batches, rows, heads, length]))).into();
    let dy = random.normal([batches, queries, heads, 12]);
    let apart = |array: &Array| permute(array, &[0, 2, 1, 3]);
    let twin = twin("scaled_dot_product_attention", &json!({"causal": true, "scale": 0.5})).expect("a twin");
    let want = twin
        .grads(&named.iter().map(|(name, array)| (name.clone(), apart(array))).collect(), &apart(&dy))
        .expect("gradients");
    let g = Graph::new();
    let names = ["q", "k", "v"];
    let [q, k, v] = names.map(|name| g.input(named[name].shape.clone()));
    let [hq, hk, hv] = [&q, &k, &v].map(|x| x.permute(&[0, 2, 1, 3]));
    let y = hq.scaled_dot_product_attention(&hk, &hv, &Attention::new().causal(true).scale(0.5)).permute(&[0, 2, 1, 3]);
    let tdy = g.input(dy.shape.clone());
    let grads = g.grad_from(&[(y, tdy.clone())], [&q, &k, &v]);
    let inputs: Vec<_> = [q, k, v].into_iter().zip(names.map(|name| named[name].clone())).chain([(tdy, dy)]).collect();
    for kernel in 0..ATTENTIONS {
        let got = run(&gpu(kernel), &g, &inputs, &grads).expect("an answer");
        for (name, got) in names.iter().zip(&got) {
            agree(name, got, &apart(&want[*name]), BOUND, None);
        }
    }
}

/// A NaN in a key reaches all queries that see it, and the results of no others. (Others' gradients are sums over all keys,
/// in which it may be multiplied by 0.)
#[test]
fn of_a_key_with_nan() {
    let mut random = Random::new(65);
    let (rows, bad) = (40, 21);
    let mut arrays = [8, 8, 8].map(|length| random.normal([rows, length]));
    let twin = twin("scaled_dot_product_attention", &json!({"causal": true, "scale": 1.0})).expect("a twin");
    let of = |arrays: &[Array; 3]| ["q", "k", "v"].map(str::to_owned).into_iter().zip(arrays.clone()).collect();
    let want = twin.value(&of(&arrays));
    *arrays[1].at_mut(&[bad, 3]) = f64::NAN;
    let g = Graph::new();
    let [q, k, v] = [0, 1, 2].map(|_| g.input([rows, 8]));
    let y = q.scaled_dot_product_attention(&k, &v, &Attention::new().causal(true).scale(1.0));
    let grads = g.grad(&y, [&q, &k]);
    let outputs = [y, grads[0].clone(), grads[1].clone()];
    let inputs: Vec<_> = [q, k, v].into_iter().zip(arrays).collect();
    for kernel in 0..ATTENTIONS {
        let got = run(&gpu(kernel), &g, &inputs, &outputs).expect("an answer");
        assert!(got.iter().all(|values| values[bad * 8..].iter().all(|v| v.is_nan())), "kernel {kernel}: no NaN");
        let before = Array::new([bad, 8], want.data[..bad * 8].to_vec());
        agree("results before", &got[0][..bad * 8], &before, BOUND, None);
    }
}

/// Some drivers end loops after a number of turns, in silence: more keys are taken in parts.
#[test]
fn of_many_keys() {
    for (gpu, most) in [(gpu(0), 110_000), (small_gpu(), 54_000)] {
        for keys in [26_000, 48_700, 52_400, 52_500, 100_000].into_iter().filter(|keys| *keys < most) {
            let g = Graph::new();
            let [q, k, v] = [1, keys, keys].map(|rows| g.input([rows, 128]));
            let y = q.scaled_dot_product_attention(&k, &v, &Attention::new());
            let values = Array::from_fn([keys, 128], |at| at[0] as f64 / keys as f64);
            let ones = |rows: usize| Array::full([rows, 128], 1.0);
            let got = run(&gpu, &g, &[(q, ones(1)), (k, ones(keys)), (v, values)], &[y]).expect("an answer");
            assert!(got[0].iter().all(|y| (y - 0.5).abs() < 2e-4), "{keys} keys: {}", got[0][0]);
        }
    }
}

/// Many keys, or queries, are taken in parts: for other workgroups of a GPU, and where a driver ends loops after a number of
/// turns.
#[test]
fn in_parts() {
    let mut random = Random::new(63);
    // A GPU shares them out from 512 on; drivers that end loops do so after tens of thousands.
    let caps = gpu(0).caps().clone();
    let many = |rows: usize| if caps.cpu { rows } else { rows / 100 };
    // Queries, keys, their length, whether causal, and what has to take the others in parts.
    // An odd number of keys, so that no kernel of matrix products, which has parts of its own, is one of them.
    let mut cases = vec![
        (many(100_000), 5, 8, false, &["k", "v"][..]),
        (many(100_000), 5, 8, true, &["k", "v"]),
        (5, many(170_000) + 1, 8, false, &["y", "q"]),
        (many(60_000), 9, 64, false, &["v"]),
        (3, many(80_000) + 1, 64, false, &["y", "q"]),
    ];
    if !caps.cpu {
        // Some parts have no key that a query sees.
        cases.push((1000, 1001, 8, true, &["y", "q", "k", "v"]));
    }
    for (queries, keys, length, causal, parts) in cases {
        let g = Graph::new();
        // Sums over queries are of terms of one sign.
        let shape = |rows: usize| [1 + usize::from(length == 8), rows, length];
        let arrays = [random.uniform(shape(queries), 0.5, 1.5), random.normal(shape(keys)), random.normal(shape(keys))];
        let tensors = [queries, keys, keys].map(|rows| g.input(shape(rows)));
        let [q, k, v] = &tensors;
        let scale = 1.0 / length as f32;
        let y = q.scaled_dot_product_attention(k, v, &Attention::new().scale(scale).causal(causal));
        let grads = ["q", "k", "v"].into_iter().zip(g.grad(&y, [q, k, v]));
        let outputs: Vec<_> = [("y", y)].into_iter().chain(grads).filter(|(name, _)| parts.contains(name)).collect();
        let attrs = json!({"causal": causal, "scale": scale});
        let twin = twin("scaled_dot_product_attention", &attrs).expect("a twin");
        let x = ["q", "k", "v"].map(str::to_owned).into_iter().zip(arrays.clone()).collect();
        let mut want = twin.grads(&x, &Array::full(shape(queries), 1.0)).expect("gradients");
        want.insert("y".into(), twin.value(&x));
        let inputs: Vec<_> = tensors.into_iter().zip(arrays).collect();
        let (names, outputs): (Vec<_>, Vec<_>) = outputs.into_iter().unzip();
        for kernel in 0..ATTENTIONS {
            let program = gpu(kernel).compile(&g.function(&outputs)).expect("a program");
            let summed = |step: &&Step| ["merge", "sum_splits"].contains(&step.kernel.entry);
            let sums = program.plan().steps.iter().filter(summed).count();
            // A CPU whose driver ends no loops has no use for them.
            let wanted = if caps.cpu && caps.turns == usize::MAX { 0 } else { parts.len() };
            assert_eq!(sums, wanted, "{queries} queries, {keys} keys of {length} by kernel {kernel}");
            let got = run(&gpu(kernel), &g, &inputs, &outputs).expect("an answer");
            for (name, got) in names.iter().zip(&got) {
                agree(&format!("{name}, causal: {causal}"), got, &want[*name], BOUND, None);
            }
        }
    }
}

/// Keys behind the last query are seen by none where only earlier ones count, and have no gradient.
#[test]
fn of_keys_that_none_sees() {
    let mut random = Random::new(66);
    let attrs = json!({"causal": true, "scale": 1.0, "mask": null});
    for kernel in 0..ATTENTIONS {
        let inputs = named([
            ("q", random.normal([2, 5, 8])),
            ("k", random.normal([2, 700, 8])),
            ("v", random.normal([2, 700, 8])),
        ]);
        check(&gpu(kernel), "scaled_dot_product_attention", &attrs, &inputs, BOUND, &mut random);
    }
}
