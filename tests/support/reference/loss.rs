//! Losses, with their gradients with respect to the prediction.

use super::unary::{sigmoid, softplus};
use super::{Array, log_softmax, log_softmax_vjp};

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Reduction {
    None,
    #[default]
    Mean,
    Sum,
}

impl Reduction {
    /// `total` is what a mean divides by.
    fn apply(self, losses: Array, total: f64) -> Array {
        match self {
            Reduction::None => losses,
            Reduction::Mean => Array::scalar(losses.sum() / total),
            Reduction::Sum => Array::scalar(losses.sum()),
        }
    }

    /// The gradient that arrives at each single loss.
    fn spread(self, dy: &Array, shape: &[usize], total: f64) -> Array {
        match self {
            Reduction::None => dy.clone().reshape(shape),
            Reduction::Mean => Array::full(shape, dy.data[0] / total),
            Reduction::Sum => Array::full(shape, dy.data[0]),
        }
    }
}

/// Cross-entropy of logits `[N, C, d..]` with class labels `[N, d..]`.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    pub reduction: Reduction,
    /// Labels of this value count for nothing.
    pub ignore_index: i64,
    pub label_smoothing: f64,
    /// A weight per class.
    pub weight: Option<Array>,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        CrossEntropy { reduction: Reduction::Mean, ignore_index: -100, label_smoothing: 0.0, weight: None }
    }
}

impl CrossEntropy {
    pub fn forward(&self, x: &Array, target: &Array) -> Array {
        let log_p = log_softmax(x, 1);
        let mut losses = Array::zeros(target.shape.clone());
        self.each_term(x, target, |at_loss, at_x, share| losses.data[at_loss] -= share * log_p.data[at_x]);
        self.reduction.apply(losses, self.total(target))
    }

    pub fn grad(&self, x: &Array, target: &Array, dy: &Array) -> Array {
        let arriving = self.reduction.spread(dy, &target.shape, self.total(target));
        let mut d_log_p = Array::zeros(x.shape.clone());
        self.each_term(x, target, |at_loss, at_x, share| d_log_p.data[at_x] -= share * arriving.data[at_loss]);
        log_softmax_vjp(x, 1, &d_log_p)
    }

    /// Calls `f` with the flat positions of a loss and of a logit, and the share of that log-probability in the loss.
    fn each_term(&self, x: &Array, target: &Array, mut f: impl FnMut(usize, usize, f64)) {
        let classes = x.shape[1];
        for at_x in 0..x.len() {
            let mut index = x.index_of(at_x);
            let class = index.remove(1);
            let at_loss = target.flat(&index);
            let label = target.data[at_loss] as i64;
            if label == self.ignore_index {
                continue;
            }
            let hit = if label == class as i64 { 1.0 - self.label_smoothing } else { 0.0 };
            f(at_loss, at_x, self.weight_of(class) * (hit + self.label_smoothing / classes as f64));
        }
    }

    /// What the mean divides by: the weights of the labels that count.
    fn total(&self, target: &Array) -> f64 {
        let labels = target.data.iter().map(|&label| label as i64);
        labels.filter(|&label| label != self.ignore_index).map(|label| self.weight_of(label as usize)).sum()
    }

    fn weight_of(&self, class: usize) -> f64 {
        self.weight.as_ref().map_or(1.0, |w| w.data[class])
    }
}

/// Cross-entropy with a distribution over the classes of axis 1 for a target; the mean is over all but that axis.
pub fn cross_entropy_distribution(x: &Array, target: &Array, label_smoothing: f64, reduction: Reduction) -> Array {
    let classes = x.shape[1] as f64;
    let smooth = target.map(|t| t * (1.0 - label_smoothing) + label_smoothing / classes);
    let terms = log_softmax(x, 1).zip(&smooth, |l, t| -l * t);
    let losses = super::reduce(super::Reduce::Sum, &terms, &[1], false);
    let total = losses.len() as f64;
    reduction.apply(losses, total)
}

/// Losses that compare a prediction with a target element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elementwise {
    Mse,
    L1,
    SmoothL1 { beta: f64 },
    Huber { delta: f64 },
}

impl Elementwise {
    pub fn value(self, x: f64, target: f64) -> f64 {
        let error = (x - target).abs();
        match self {
            Elementwise::Mse => error * error,
            Elementwise::L1 => error,
            Elementwise::SmoothL1 { beta } if error < beta => 0.5 * error * error / beta,
            Elementwise::SmoothL1 { beta } => error - 0.5 * beta,
            Elementwise::Huber { delta } if error <= delta => 0.5 * error * error,
            Elementwise::Huber { delta } => delta * (error - 0.5 * delta),
        }
    }

    pub fn slope(self, x: f64, target: f64) -> f64 {
        let error = x - target;
        let sign = if error == 0.0 { 0.0 } else { error.signum() };
        match self {
            Elementwise::Mse => 2.0 * error,
            Elementwise::L1 => sign,
            Elementwise::SmoothL1 { beta } if error.abs() < beta => error / beta,
            Elementwise::SmoothL1 { .. } => sign,
            Elementwise::Huber { delta } => error.clamp(-delta, delta),
        }
    }

    pub fn forward(self, x: &Array, target: &Array, reduction: Reduction) -> Array {
        reduction.apply(x.zip(target, |x, t| self.value(x, t)), x.len() as f64)
    }

    pub fn grad(self, x: &Array, target: &Array, reduction: Reduction, dy: &Array) -> Array {
        let slopes = x.zip(target, |x, t| self.slope(x, t));
        slopes.zip(&reduction.spread(dy, &x.shape, x.len() as f64), |s, d| s * d)
    }
}

/// Binary cross-entropy of logits; `pos_weight` (broadcast over the last axes) scales the positive term.
pub fn bce_with_logits(x: &Array, target: &Array, pos_weight: Option<&Array>, reduction: Reduction) -> Array {
    let scales = positive_scales(target, pos_weight);
    let losses = Array::from_fn(x.shape.clone(), |i| {
        (1.0 - target.at(i)) * softplus(x.at(i)) + scales.at(i) * target.at(i) * softplus(-x.at(i))
    });
    reduction.apply(losses, x.len() as f64)
}

/// The gradient of [`bce_with_logits`] with respect to `x`.
pub fn bce_with_logits_grad(
    x: &Array,
    target: &Array,
    pos_weight: Option<&Array>,
    reduction: Reduction,
    dy: &Array,
) -> Array {
    let scales = positive_scales(target, pos_weight);
    let arriving = reduction.spread(dy, &x.shape, x.len() as f64);
    Array::from_fn(x.shape.clone(), |i| {
        let negative = (1.0 - target.at(i)) * sigmoid(x.at(i));
        arriving.at(i) * (negative - scales.at(i) * target.at(i) * sigmoid(-x.at(i)))
    })
}

fn positive_scales(target: &Array, pos_weight: Option<&Array>) -> Array {
    match pos_weight {
        Some(weight) => weight.broadcast_to(&target.shape),
        None => Array::full(target.shape.clone(), 1.0),
    }
}
