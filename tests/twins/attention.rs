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
    for kernel in 0..ATTENTIONS {
        check(&gpu(kernel), "scaled_dot_product_attention", &attrs, &inputs, BOUND, &mut random);
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

/// Where a driver ends loops after a number of turns, the gradients of few keys take their queries in parts.
#[test]
fn of_many_queries() {
    let mut random = Random::new(63);
    let queries = 100_000;
    let g = Graph::new();
    let [q, k, v] = [queries, 5, 5].map(|rows| g.input([rows, 8]));
    let y = q.scaled_dot_product_attention(&k, &v, &Attention::new().scale(1.0));
    let grads = g.grad(&y, [&k, &v]);
    // Of terms of one sign.
    let arrays = [random.uniform([queries, 8], 0.5, 1.5), random.normal([5, 8]), random.normal([5, 8])];
    let inputs: Vec<_> = [q, k, v].into_iter().zip(arrays.clone()).collect();
    let [q, k, v] = arrays;
    let attrs = json!({"causal": false, "scale": 1.0});
    let twin = twin("scaled_dot_product_attention", &attrs).expect("a twin");
    let want = twin.grads(&named([("q", q), ("k", k), ("v", v)]), &Array::full([queries, 8], 1.0)).expect("gradients");
    for kernel in 0..ATTENTIONS {
        let got = run(&gpu(kernel), &g, &inputs, &grads).expect("gradients");
        agree("keys", &got[0], &want["k"], BOUND, None);
        agree("values", &got[1], &want["v"], BOUND, None);
    }
}
