//! Optimizers by PyTorch's formulas, gradient clipping and learning-rate schedules.

use std::f64::consts::PI;

use super::Array;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    Sgd {
        momentum: f64,
        dampening: f64,
        nesterov: bool,
    },
    /// `decoupled` is AdamW: the decay shrinks the parameter and stays out of the gradient.
    Adam {
        betas: [f64; 2],
        eps: f64,
        amsgrad: bool,
        decoupled: bool,
    },
    RmsProp {
        alpha: f64,
        eps: f64,
        momentum: f64,
        centered: bool,
    },
    Adagrad {
        lr_decay: f64,
        eps: f64,
        initial_accumulator: f64,
    },
}

/// A rule with the state of each parameter.
#[derive(Clone, Debug)]
pub struct Optimizer {
    pub rule: Rule,
    pub weight_decay: f64,
    steps: i32,
    states: Vec<Vec<State>>,
}

/// What a rule remembers of one value.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Momentum, or the average of the gradient.
    first: f64,
    /// The average or the sum of squares.
    second: f64,
    /// The largest `second` so far, or the momentum of RMSprop.
    third: f64,
}

impl Optimizer {
    pub fn new(rule: Rule, weight_decay: f64) -> Self {
        Optimizer { rule, weight_decay, steps: 0, states: Vec::new() }
    }

    /// Updates every parameter in place with its gradient and the rate of this step.
    pub fn step(&mut self, params: &mut [Array], grads: &[Array], lr: f64) {
        assert_eq!(params.len(), grads.len());
        if self.states.is_empty() {
            let second =
                if let Rule::Adagrad { initial_accumulator, .. } = self.rule { initial_accumulator } else { 0.0 };
            let state = State { second, ..State::default() };
            self.states = params.iter().map(|p| vec![state; p.len()]).collect();
        }
        self.steps += 1;
        for ((param, grad), states) in params.iter_mut().zip(grads).zip(&mut self.states) {
            for ((p, &g), state) in param.data.iter_mut().zip(&grad.data).zip(states) {
                *p = self.rule.update(*p, g, state, self.steps, lr, self.weight_decay);
            }
        }
    }
}

impl Rule {
    /// The new value of a parameter `p` with gradient `g`; `t` counts steps from 1.
    fn update(self, p: f64, g: f64, s: &mut State, t: i32, lr: f64, weight_decay: f64) -> f64 {
        let decayed = g + weight_decay * p;
        match self {
            Rule::Sgd { momentum, dampening, nesterov } => {
                let g = decayed;
                s.first = if t == 1 { g } else { momentum * s.first + (1.0 - dampening) * g };
                p - lr
                    * match (momentum == 0.0, nesterov) {
                        (true, _) => g,
                        (false, true) => g + momentum * s.first,
                        (false, false) => s.first,
                    }
            }
            Rule::Adam { betas: [beta1, beta2], eps, amsgrad, decoupled } => {
                let (p, g) = if decoupled { (p * (1.0 - lr * weight_decay), g) } else { (p, decayed) };
                s.first = beta1 * s.first + (1.0 - beta1) * g;
                s.second = beta2 * s.second + (1.0 - beta2) * g * g;
                s.third = s.third.max(s.second);
                let square = if amsgrad { s.third } else { s.second };
                let mean = s.first / (1.0 - beta1.powi(t));
                let root = (square / (1.0 - beta2.powi(t))).sqrt();
                p - lr * mean / (root + eps)
            }
            Rule::RmsProp { alpha, eps, momentum, centered } => {
                let g = decayed;
                s.first = alpha * s.first + (1.0 - alpha) * g;
                s.second = alpha * s.second + (1.0 - alpha) * g * g;
                let variance = if centered { s.second - s.first * s.first } else { s.second };
                s.third = momentum * s.third + g / (variance.sqrt() + eps);
                p - lr * s.third
            }
            Rule::Adagrad { lr_decay, eps, .. } => {
                let g = decayed;
                s.second += g * g;
                p - lr / (1.0 + f64::from(t - 1) * lr_decay) * g / (s.second.sqrt() + eps)
            }
        }
    }
}

/// Scales all gradients by min(1, limit / (norm + 1e-6)) and returns the norm of them all before that.
pub fn clip_norm(grads: &mut [Array], limit: f64) -> f64 {
    let norm = grads.iter().flat_map(|g| &g.data).map(|v| v * v).sum::<f64>().sqrt();
    let scale = (limit / (norm + 1e-6)).min(1.0);
    grads.iter_mut().flat_map(|g| &mut g.data).for_each(|v| *v *= scale);
    norm
}

/// The learning rate as a function of the step, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    Constant,
    /// Times `gamma` every `size` steps.
    Step {
        size: usize,
        gamma: f64,
    },
    /// Half a cosine from the base rate to `min` over `period` steps.
    Cosine {
        period: usize,
        min: f64,
    },
    /// Linear up to the base rate in `warmup` steps, then half a cosine to 0 at step `total`.
    WarmupCosine {
        warmup: usize,
        total: usize,
    },
}

impl Schedule {
    pub fn rate(self, base: f64, step: usize) -> f64 {
        match self {
            Schedule::Constant => base,
            Schedule::Step { size, gamma } => base * gamma.powi((step / size) as i32),
            Schedule::Cosine { period, min } => min + (base - min) * half_cosine(step, period),
            Schedule::WarmupCosine { warmup, .. } if step < warmup => base * (step + 1) as f64 / warmup as f64,
            Schedule::WarmupCosine { warmup, total } => base * half_cosine(step - warmup, total - warmup),
        }
    }
}

/// From 1 at 0 to 0 at `period`.
fn half_cosine(step: usize, period: usize) -> f64 {
    0.5 * (1.0 + (PI * step as f64 / period as f64).cos())
}
