//! Recurrent layers.

use shadegrad::ops::{Cell, LayerWeights, Recurrence, States};

use super::Named;
use crate::support::reference::Attrs;

/// The outputs of one of these ops; `None` for any other.
pub fn build(op: &str, attrs: Attrs, x: &Named) -> Option<Named> {
    let cell = match op {
        "lstm" => Cell::Lstm,
        "gru" => Cell::Gru,
        "gru_reset_before" => Cell::GruResetBefore,
        "rnn_tanh" => Cell::RnnTanh,
        "rnn_relu" => Cell::RnnRelu,
        _ => return None,
    };
    let mut options = Recurrence::new(cell)
        .bidirectional(attrs.bool_or("bidirectional", false))
        .batch_first(attrs.bool_or("batch_first", false));
    if let Some(lengths) = attrs.ints_if("lengths") {
        let lengths: Vec<u32> = lengths.into_iter().map(|n| n as u32).collect();
        options = options.lengths(&x["x"].graph().constant_u32([lengths.len()], &lengths));
    }
    if let Some(h) = x.get("h0") {
        options = options.initial(&States { h: h.clone(), c: x.get("c0").cloned() });
    }
    let (y, states) = x["x"].recurrent(&weights(cell, attrs, x), &options);
    let mut outputs = Named::from([("y".to_owned(), y), ("hn".to_owned(), states.h)]);
    outputs.extend(states.c.map(|c| ("cn".to_owned(), c)));
    Some(outputs)
}

fn weights(cell: Cell, attrs: Attrs, x: &Named) -> Vec<LayerWeights> {
    let both = attrs.bool_or("bidirectional", false);
    let suffixes: Vec<String> = (0..attrs.usize("num_layers"))
        .flat_map(|layer| [Some(format!("l{layer}")), both.then(|| format!("l{layer}_reverse"))])
        .flatten()
        .collect();
    let get = |name: &str, suffix: &str| x.get(&format!("{name}_{suffix}")).cloned();
    let one = |suffix: &String| match cell {
        // A matrix for each gate, [hidden, hidden + inputs], the state's columns first.
        Cell::GruResetBefore => {
            let gates = ["r", "z", "h"].map(|gate| x[&format!("w_{gate}_{suffix}")].clone());
            let biases = ["r", "z", "h"].map(|gate| x[&format!("b_{gate}_{suffix}")].clone());
            let [hidden, all] = [gates[0].shape()[0], gates[0].shape()[1]];
            let rows = |start, count| {
                let parts = gates.each_ref().map(|gate| gate.narrow(1, start, count));
                parts[0].concat(&[&parts[1], &parts[2]], 0)
            };
            LayerWeights {
                input: rows(hidden, all - hidden),
                hidden: rows(0, hidden),
                input_bias: Some(biases[0].concat(&[&biases[1], &biases[2]], 0)),
                hidden_bias: None,
            }
        }
        _ => LayerWeights {
            input: x[&format!("weight_ih_{suffix}")].clone(),
            hidden: x[&format!("weight_hh_{suffix}")].clone(),
            input_bias: get("bias_ih", suffix),
            hidden_bias: get("bias_hh", suffix),
        },
    };
    suffixes.iter().map(one).collect()
}
