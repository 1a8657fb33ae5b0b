//! Attention, fused and composed, with every kind of mask.

use serde_json::json;
use shadegrad::Graph;
use shadegrad::ops::Attention;

use crate::support::reference::{Array, Random, twin};
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
            let added = random.normal([queries, 1]).map(|v| if v > 1.5 { f64::NEG_INFINITY } else { v });
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

/// Some drivers end loops after a number of turns, in silence: what would take more is refused.
#[test]
fn of_many_keys() {
    let mut answers = 0;
    for (gpu, most) in [(gpu(0), 50_000), (small_gpu(), 33_000)] {
        for keys in [26_000, 27_000, 30_000, 48_600, 48_800, 49_900].into_iter().filter(|keys| *keys < most) {
            let g = Graph::new();
            let [q, k, v] = [1, keys, keys].map(|rows| g.input([rows, 128]));
            let y = q.scaled_dot_product_attention(&k, &v, &Attention::new());
            let values = Array::from_fn([keys, 128], |at| at[0] as f64 / keys as f64);
            let ones = |rows: usize| Array::full([rows, 128], 1.0);
            match run(&gpu, &g, &[(q, ones(1)), (k, ones(keys)), (v, values)], &[y]) {
                Ok(got) => {
                    answers += 1;
                    assert!(got[0].iter().all(|y| (y - 0.5).abs() < 2e-4), "{keys} keys: {}", got[0][0]);
                }
                Err(error) => assert!(error.to_string().contains("turns"), "{error}"),
            }
        }
    }
    // The least number, at least, with every limit.
    assert!(answers >= 2, "only {answers}");
}

/// Where a driver ends loops after a number of turns, gradients take their many queries, or keys, in parts.
#[test]
fn in_parts() {
    let mut random = Random::new(63);
    let mut answers = 0;
    // Queries, keys, whether causal, and what has to take the others in parts.
    for (queries, keys, causal, parts) in
        [(100_000, 5, false, &["k", "v"][..]), (100_000, 5, true, &["k", "v"]), (5, 100_000, false, &["q"])]
    {
        let g = Graph::new();
        // Sums over queries are of terms of one sign.
        let arrays = [random.uniform([queries, 8], 0.5, 1.5), random.normal([keys, 8]), random.normal([keys, 8])];
        let tensors = [queries, keys, keys].map(|rows| g.input([rows, 8]));
        let [q, k, v] = &tensors;
        let y = q.scaled_dot_product_attention(k, v, &Attention::new().scale(1.0).causal(causal));
        let names = ["q", "k", "v"];
        let wrt = names.iter().zip(&tensors).filter(|(name, _)| parts.contains(name)).map(|(_, tensor)| tensor);
        let grads = g.grad(&y, wrt);
        let attrs = json!({"causal": causal, "scale": 1.0});
        let twin = twin("scaled_dot_product_attention", &attrs).expect("a twin");
        let x = names.into_iter().map(str::to_owned).zip(arrays.clone()).collect();
        let want = twin.grads(&x, &Array::full([queries, 8], 1.0)).expect("gradients");
        let inputs: Vec<_> = tensors.iter().cloned().zip(arrays).collect();
        for kernel in 0..ATTENTIONS {
            let got = match run(&gpu(kernel), &g, &inputs, &grads) {
                Ok(got) => got,
                // The results themselves are not computed in parts, and not every kernel reaches so many keys.
                Err(error) if keys > queries && error.to_string().contains("turns") => continue,
                Err(error) => panic!("{queries} queries, {keys} keys: {error}"),
            };
            for (name, got) in parts.iter().zip(&got) {
                answers += 1;
                agree(&format!("{name}, causal: {causal}"), got, &want[*name], BOUND, None);
            }
        }
    }
    // Those of keys and values, causal or not, by every kernel, and those of queries where subgroups allow.
    let of_queries = if gpu(0).caps().subgroup == Some(8) { ATTENTIONS } else { 0 };
    assert!(answers >= 4 * ATTENTIONS + of_queries, "only {answers}");
}
