//! Derivatives by central differences, in f64.

use super::{Array, Random};

/// The derivative of `f` at `x` with respect to `x[i]`, fourth order in a step relative to `x[i]`.
pub fn derivative(f: &dyn Fn(&Array) -> f64, x: &Array, i: usize) -> f64 {
    let step = step_at(x.data[i]);
    let at = |k: f64| nudged(f, x, i, k * step);
    (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * step)
}

/// The slopes to the left and to the right of `x[i]`: they differ at a kink.
pub fn one_sided(f: &dyn Fn(&Array) -> f64, x: &Array, i: usize) -> [f64; 2] {
    let step = step_at(x.data[i]);
    let at = |k: f64| nudged(f, x, i, k * step);
    let here = f(x);
    let side = |s: f64| s * (-3.0 * here + 4.0 * at(s) - at(2.0 * s)) / (2.0 * step);
    [side(-1.0), side(1.0)]
}

/// The whole gradient: four evaluations of `f` for each value of `x`.
pub fn gradient(f: &dyn Fn(&Array) -> f64, x: &Array) -> Array {
    let data = (0..x.len()).map(|i| derivative(f, x, i)).collect();
    Array { shape: x.shape.clone(), data }
}

/// The derivative of `f` at `x` along a random direction, and the direction. One look at all the values at once.
pub fn directional(f: &dyn Fn(&Array) -> f64, x: &Array, random: &mut Random) -> (f64, Array) {
    let direction = random.normal(x.shape.clone());
    let at = |k: f64| f(&x.zip(&direction, |v, d| v + k * d));
    let step = 1e-3;
    ((8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step), direction)
}

fn step_at(value: f64) -> f64 {
    2e-4 * value.abs().clamp(1e-2, 1e2)
}

fn nudged(f: &dyn Fn(&Array) -> f64, x: &Array, i: usize, by: f64) -> f64 {
    let mut x = x.clone();
    x.data[i] += by;
    f(&x)
}
