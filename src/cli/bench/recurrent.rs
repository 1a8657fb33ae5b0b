//! Recurrent layers, and the sequence classifier.

use super::cases::{Builder, Case, Job};
use shadegrad::nn::{self, Module};
use shadegrad::ops::{Cell, LayerWeights, Recurrence};

/// One layer with as many inputs as units, batch first.
#[derive(Clone, Copy)]
struct Layer {
    name: &'static str,
    cell: Cell,
    steps: usize,
    batch: usize,
    hidden: usize,
}

const LAYERS: [Layer; 4] = [
    Layer { name: "lstm_t50", cell: Cell::Lstm, steps: 50, batch: 32, hidden: 128 },
    Layer { name: "gru_t50", cell: Cell::Gru, steps: 50, batch: 32, hidden: 128 },
    Layer { name: "lstm_t100", cell: Cell::Lstm, steps: 100, batch: 64, hidden: 256 },
    Layer { name: "gru_t100", cell: Cell::Gru, steps: 100, batch: 64, hidden: 256 },
];

/// All layers, forward and with gradients.
pub fn layers() -> impl Iterator<Item = Case> {
    LAYERS.iter().flat_map(|layer| [layer.case(false), layer.case(true)])
}

impl Layer {
    fn case(self, backward: bool) -> Case {
        let Layer { cell, steps, batch, hidden, .. } = self;
        let build = move |b: &mut Builder| {
            let rows = cell.gates() * hidden;
            let scale = 2.0 / (hidden as f32).sqrt();
            let x = b.input([batch, steps, hidden], 1, 2.0);
            let weights = [b.input([rows, hidden], 2, scale), b.input([rows, hidden], 3, scale)];
            let biases = [b.input([rows], 4, scale), b.input([rows], 5, scale)];
            let layer = LayerWeights {
                input: weights[0].clone(),
                hidden: weights[1].clone(),
                input_bias: Some(biases[0].clone()),
                hidden_bias: Some(biases[1].clone()),
            };
            let (y, _) = x.recurrent(&[layer], &Recurrence::new(cell).batch_first(true));
            match backward {
                // The other harnesses check the first gradient alone.
                true => b.gradients(y, &[&x, &weights[0], &weights[1], &biases[0], &biases[1]]),
                false => b.forward(y),
            }
        };
        let (pass, passes) = if backward { ("fb", 3) } else { ("fwd", 1) };
        let flops = passes * 2 * steps * batch * cell.gates() * hidden * 2 * hidden;
        Case::new(format!("{}_{pass}", self.name), build).flops(flops).sequences(batch)
    }
}

/// A training step: embedding, two LSTM layers, linear on the last step.
pub fn train(b: &mut Builder, batch: usize) -> Job {
    let tokens = b.labels(batch * STEPS, 1, 5000).reshape([batch, STEPS]);
    let labels = b.labels(batch, 3, 10);
    let (embedding, fc) = (nn::Embedding::new(5000, WIDTH), nn::Linear::new(WIDTH, 10));
    let lstm = nn::Lstm::new(WIDTH, WIDTH).layers(2).batch_first();
    let y = lstm.forward(&embedding.forward(&tokens));
    let logits = fc.forward(&y.narrow(1, STEPS - 1, 1).squeeze(1));
    b.train(logits.cross_entropy(&labels))
}

const STEPS: usize = 50;
const WIDTH: usize = 128;

/// Floating-point operations for one sequence, forward and backward.
pub const TRAIN_FLOPS: usize = 3 * (2 * STEPS * 2 * 4 * WIDTH * 2 * WIDTH + 2 * WIDTH * 10);
