//! Reductions over any axes, and the softmax family.

use super::{Array, axis};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reduce {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    /// Divided by n - 1.
    Var,
    /// Divided by n.
    VarBiased,
    /// The root of `Var`.
    Std,
    /// The root of the sum of squares.
    Norm2,
}

impl Reduce {
    pub fn value(self, x: &[f64]) -> f64 {
        let n = x.len() as f64;
        match self {
            Reduce::Sum => x.iter().sum(),
            Reduce::Mean => x.iter().sum::<f64>() / n,
            Reduce::Max => extreme(x, |a, b| a > b),
            Reduce::Min => extreme(x, |a, b| a < b),
            Reduce::Prod => x.iter().product(),
            Reduce::Var => Reduce::VarBiased.value(x) * n / (n - 1.0),
            Reduce::VarBiased => {
                let mean = Reduce::Mean.value(x);
                x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n
            }
            Reduce::Std => Reduce::Var.value(x).sqrt(),
            Reduce::Norm2 => x.iter().map(|v| v * v).sum::<f64>().sqrt(),
        }
    }

    /// The derivative of the value with respect to `x[i]`. Equal extremes share the gradient evenly.
    fn slope(self, x: &[f64], i: usize) -> f64 {
        let n = x.len() as f64;
        match self {
            Reduce::Sum => 1.0,
            Reduce::Mean => 1.0 / n,
            Reduce::Max | Reduce::Min => {
                let best = self.value(x);
                let ties = x.iter().filter(|&&v| v == best).count();
                if x[i] == best { 1.0 / ties as f64 } else { 0.0 }
            }
            Reduce::Prod => x.iter().enumerate().filter(|&(j, _)| j != i).map(|(_, v)| v).product(),
            Reduce::Var => 2.0 * (x[i] - Reduce::Mean.value(x)) / (n - 1.0),
            Reduce::VarBiased => 2.0 * (x[i] - Reduce::Mean.value(x)) / n,
            Reduce::Std => Reduce::Var.slope(x, i) / (2.0 * self.value(x)),
            Reduce::Norm2 => match self.value(x) {
                0.0 => 0.0,
                norm => x[i] / norm,
            },
        }
    }
}

/// Over the axes `dims` (all, if none is named).
pub fn reduce(kind: Reduce, x: &Array, dims: &[i64], keepdim: bool) -> Array {
    let groups = Groups::new(x, dims);
    let data = groups.members.iter().map(|m| kind.value(&pick(x, m))).collect();
    Array::new(groups.shape(x, keepdim), data)
}

pub fn reduce_vjp(kind: Reduce, x: &Array, dims: &[i64], dy: &Array) -> Array {
    let mut dx = Array::zeros(x.shape.clone());
    for (group, members) in Groups::new(x, dims).members.iter().enumerate() {
        let values = pick(x, members);
        for (i, &flat) in members.iter().enumerate() {
            dx.data[flat] = dy.data[group] * kind.slope(&values, i);
        }
    }
    dx
}

/// The position of the first maximum along `dim`.
pub fn argmax(x: &Array, dim: i64, keepdim: bool) -> Array {
    arg(x, dim, keepdim, |a, b| a > b)
}

/// The position of the first minimum along `dim`.
pub fn argmin(x: &Array, dim: i64, keepdim: bool) -> Array {
    arg(x, dim, keepdim, |a, b| a < b)
}

/// Running sums along `dim`.
pub fn cumsum(x: &Array, dim: i64) -> Array {
    along(x, dim, |values| {
        let mut sum = 0.0;
        values.iter_mut().for_each(|v| {
            sum += *v;
            *v = sum;
        });
    })
}

pub fn softmax(x: &Array, dim: i64) -> Array {
    log_softmax(x, dim).map(f64::exp)
}

pub fn log_softmax(x: &Array, dim: i64) -> Array {
    along(x, dim, |values| {
        let total = log_sum_exp(values);
        values.iter_mut().for_each(|v| *v -= total);
    })
}

/// The gradient of [`softmax`] at `x`.
pub fn softmax_vjp(x: &Array, dim: i64, dy: &Array) -> Array {
    let y = softmax(x, dim);
    let products = y.zip(dy, |y, d| y * d);
    let sums = reduce(Reduce::Sum, &products, &[dim], true).broadcast_to(&x.shape);
    products.zip(&y.zip(&sums, |y, s| y * s), |p, q| p - q)
}

/// The gradient of [`log_softmax`] at `x`.
pub fn log_softmax_vjp(x: &Array, dim: i64, dy: &Array) -> Array {
    let sums = reduce(Reduce::Sum, dy, &[dim], true).broadcast_to(&x.shape);
    dy.zip(&softmax(x, dim).zip(&sums, |y, s| y * s), |d, q| d - q)
}

/// log of the sum of exponentials along `dim`; its gradient is the softmax.
pub fn logsumexp(x: &Array, dim: i64, keepdim: bool) -> Array {
    let groups = Groups::new(x, &[dim]);
    let data = groups.members.iter().map(|m| log_sum_exp(&pick(x, m))).collect();
    Array::new(groups.shape(x, keepdim), data)
}

fn log_sum_exp(x: &[f64]) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + x.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
}

fn arg(x: &Array, dim: i64, keepdim: bool, better: impl Fn(f64, f64) -> bool) -> Array {
    let groups = Groups::new(x, &[dim]);
    let best = |members: &Vec<usize>| {
        let values = pick(x, members);
        let best = (1..values.len()).fold(0, |best, i| if better(values[i], values[best]) { i } else { best });
        best as f64
    };
    let data = groups.members.iter().map(best).collect();
    Array::new(groups.shape(x, keepdim), data)
}

fn along(x: &Array, dim: i64, f: impl Fn(&mut [f64])) -> Array {
    let mut y = x.clone();
    for members in Groups::new(x, &[dim]).members {
        let mut values = pick(x, &members);
        f(&mut values);
        members.iter().zip(values).for_each(|(&flat, v)| y.data[flat] = v);
    }
    y
}

fn extreme(x: &[f64], better: impl Fn(f64, f64) -> bool) -> f64 {
    x.iter().copied().reduce(|a, b| if a.is_nan() || better(a, b) || a == b { a } else { b }).expect("a value")
}

fn pick(x: &Array, flat: &[usize]) -> Vec<f64> {
    flat.iter().map(|&i| x.data[i]).collect()
}

/// The flat positions that each output is made of, in row-major order.
struct Groups {
    reduced: Vec<bool>,
    members: Vec<Vec<usize>>,
}

impl Groups {
    fn new(x: &Array, dims: &[i64]) -> Self {
        let mut reduced = vec![dims.is_empty(); x.rank()];
        dims.iter().for_each(|&d| reduced[axis(d, x.rank())] = true);
        let mut groups = Groups { reduced, members: Vec::new() };
        let kept = Array::zeros(groups.shape(x, true));
        groups.members = vec![Vec::new(); kept.len()];
        for flat in 0..x.len() {
            let mut index = x.index_of(flat);
            index.iter_mut().zip(&groups.reduced).filter(|(_, r)| **r).for_each(|(i, _)| *i = 0);
            groups.members[kept.flat(&index)].push(flat);
        }
        groups
    }

    fn shape(&self, x: &Array, keepdim: bool) -> Vec<usize> {
        let axes = x.shape.iter().zip(&self.reduced);
        match keepdim {
            true => axes.map(|(&extent, &reduced)| if reduced { 1 } else { extent }).collect(),
            false => axes.filter(|(_, reduced)| !**reduced).map(|(&extent, _)| extent).collect(),
        }
    }
}
