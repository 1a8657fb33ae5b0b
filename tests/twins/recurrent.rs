//! Recurrent layers and embeddings.

use serde_json::json;

use crate::support::reference::{Array, Named, Random};
use crate::trial::*;

const OPS: [&str; 5] = ["lstm", "gru", "gru_reset_before", "rnn_tanh", "rnn_relu"];

/// Kernels that there are for a loop.
const KERNELS: usize = 3;

/// How the sums of products in 1,000 dependent steps may differ.
const BOUND: Bound = Bound::Values(2e-4, 2e-4);

/// Extents and options of a stack of layers.
#[derive(Clone, Copy, Debug, Default)]
struct Net {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
    layers: usize,
    both: bool,
    batch_first: bool,
    lengths: bool,
    initial: bool,
    biases: bool,
}

impl Net {
    fn plain(steps: usize, batch: usize, inputs: usize, hidden: usize) -> Net {
        Net { steps, batch, inputs, hidden, layers: 1, biases: true, ..Net::default() }
    }

    fn check(self, op: &str, kernel: usize, random: &mut Random) {
        let gates = match op {
            "lstm" => 4,
            "gru" => 3,
            _ => 1,
        };
        let directions = 1 + usize::from(self.both);
        let [first, second] = if self.batch_first { [self.batch, self.steps] } else { [self.steps, self.batch] };
        let mut inputs = named([("x", random.normal([first, second, self.inputs]))]);
        let scale = 1.0 / (self.hidden as f64).sqrt();
        let mut draw = |name: String, shape: Vec<usize>| {
            let values = random.normal(shape).map(|v| f64::from((v * scale) as f32));
            inputs.insert(name, values);
        };
        for n in 0..self.layers * directions {
            let suffix = format!("l{}{}", n / directions, if n % directions == 1 { "_reverse" } else { "" });
            let width = if n < directions { self.inputs } else { directions * self.hidden };
            if op == "gru_reset_before" {
                for gate in ["r", "z", "h"] {
                    draw(format!("w_{gate}_{suffix}"), vec![self.hidden, self.hidden + width]);
                    draw(format!("b_{gate}_{suffix}"), vec![self.hidden]);
                }
                continue;
            }
            let rows = gates * self.hidden;
            draw(format!("weight_ih_{suffix}"), vec![rows, width]);
            draw(format!("weight_hh_{suffix}"), vec![rows, self.hidden]);
            if self.biases {
                draw(format!("bias_ih_{suffix}"), vec![rows]);
                draw(format!("bias_hh_{suffix}"), vec![rows]);
            }
        }
        let states = [self.layers * directions, self.batch, self.hidden];
        if self.initial {
            inputs.insert("h0".into(), random.normal(states));
            if op == "lstm" {
                inputs.insert("c0".into(), random.normal(states));
            }
        }
        let mut attrs = json!({"num_layers": self.layers, "bidirectional": self.both, "batch_first": self.batch_first});
        if self.lengths {
            let lengths: Vec<usize> = (0..self.batch).map(|_| 1 + random.below(self.steps)).collect();
            attrs["lengths"] = json!(lengths);
        }
        check(&gpu(kernel), op, &attrs, &inputs, BOUND, random);
    }
}

#[test]
fn recurrent_layers_of_any_extents() {
    let mut random = Random::new(70);
    let extents =
        [[1, 1, 1, 1], [2, 3, 5, 7], [5, 1, 3, 33], [3, 9, 4, 8], [7, 2, 1, 1], [4, 17, 6, 12], [2, 33, 3, 67]];
    for kernel in 0..KERNELS {
        for (n, [steps, batch, inputs, hidden]) in extents.into_iter().enumerate() {
            // The kernels take turns, and so do the options.
            for (k, op) in OPS.into_iter().enumerate().filter(|(k, _)| (n + k + kernel) % 2 == 0) {
                let on = |bit: usize| (n + k + kernel) >> bit & 1 == 1;
                let net = Net {
                    initial: on(0),
                    lengths: on(1),
                    batch_first: on(2),
                    both: (n + k) % 3 == 0,
                    ..Net::plain(steps, batch, inputs, hidden)
                };
                Net { layers: 1 + (n + kernel) % 2, biases: n % 3 != 1, ..net }.check(op, kernel, &mut random);
            }
        }
    }
}

#[test]
fn large_recurrent_layers() {
    let mut random = Random::new(71);
    for (op, [steps, batch, inputs, hidden]) in [
        ("gru", [64, 32, 64, 256]),
        ("lstm", [2, 5, 8, 1024]),
        ("gru_reset_before", [3, 257, 2, 129]),
        ("rnn_tanh", [1000, 2, 3, 5]),
        ("lstm", [1000, 1, 1, 20]),
    ] {
        for kernel in 0..KERNELS {
            Net::plain(steps, batch, inputs, hidden).check(op, kernel, &mut random);
        }
    }
}

#[test]
fn embeddings() {
    let mut random = Random::new(72);
    for (rows, width, shape) in [
        (1, 1, vec![3]),
        (7, 3, vec![2, 5]),
        (300, 4, vec![40, 7]),
        (1000, 5, vec![1]),
        (100_000, 8, vec![3, 33]),
        (257, 128, vec![2, 3, 4]),
        (500, 520, vec![30]),
        (400, 3, vec![600]),
        (300, 2, vec![0]),
    ] {
        for padding in [None, Some(rows / 2)] {
            // Few different ones, so that they repeat.
            let count = shape.iter().product();
            let pick = |random: &mut Random| (random.below(rows.min(11)) * (rows / rows.min(11))) as f64;
            let index: Vec<f64> = (0..count).map(|_| pick(&mut random)).collect();
            let inputs: Named =
                named([("weight", random.normal([rows, width])), ("indices", Array::new(shape.clone(), index))]);
            let attrs = json!({"padding_idx": padding});
            for kernel in 0..2 {
                check(&gpu(kernel), "embedding", &attrs, &inputs, Bound::Values(2e-6, 2e-6), &mut random);
            }
        }
    }
}
