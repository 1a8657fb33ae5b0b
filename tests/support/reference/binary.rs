//! Functions of two values, with broadcasting.

use super::{Array, broadcast_shape};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Maximum,
    Minimum,
}

impl Binary {
    pub fn value(self, a: f64, b: f64) -> f64 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Pow => a.powf(b),
            Binary::Maximum | Binary::Minimum if a.is_nan() || b.is_nan() => f64::NAN,
            Binary::Maximum => a.max(b),
            Binary::Minimum => a.min(b),
        }
    }

    /// The two partial derivatives. A tie of `Maximum` or `Minimum` is shared by halves.
    pub fn slopes(self, a: f64, b: f64) -> [f64; 2] {
        match self {
            Binary::Add => [1.0, 1.0],
            Binary::Sub => [1.0, -1.0],
            Binary::Mul => [b, a],
            Binary::Div => [1.0 / b, -a / (b * b)],
            Binary::Pow => [
                if b == 0.0 { 0.0 } else { b * a.powf(b - 1.0) },
                if a == 0.0 && b >= 0.0 { 0.0 } else { a.powf(b) * a.ln() },
            ],
            Binary::Maximum | Binary::Minimum if a == b => [0.5, 0.5],
            Binary::Maximum if a > b => [1.0, 0.0],
            Binary::Minimum if a < b => [1.0, 0.0],
            Binary::Maximum | Binary::Minimum => [0.0, 1.0],
        }
    }

    pub fn apply(self, a: &Array, b: &Array) -> Array {
        let shape = broadcast_shape(&a.shape, &b.shape).expect("shapes that broadcast");
        a.broadcast_to(&shape).zip(&b.broadcast_to(&shape), |a, b| self.value(a, b))
    }

    pub fn vjp(self, a: &Array, b: &Array, dy: &Array) -> [Array; 2] {
        let slopes = a.broadcast_to(&dy.shape).zip(&b.broadcast_to(&dy.shape), |a, b| self.slopes(a, b)[0]);
        let da = slopes.zip(dy, |s, d| s * d).sum_to(&a.shape);
        let slopes = a.broadcast_to(&dy.shape).zip(&b.broadcast_to(&dy.shape), |a, b| self.slopes(a, b)[1]);
        let db = slopes.zip(dy, |s, d| s * d).sum_to(&b.shape);
        [da, db]
    }
}

/// `a` where `cond` is not zero, else `b`.
pub fn select(cond: &Array, a: &Array, b: &Array) -> Array {
    let shape = broadcast_shape(&a.shape, &b.shape).and_then(|s| broadcast_shape(&s, &cond.shape));
    let shape = shape.expect("shapes that broadcast");
    Array::from_fn(shape, |i| if cond.at_broadcast(i) != 0.0 { a.at_broadcast(i) } else { b.at_broadcast(i) })
}

/// Gradients of [`select`] with respect to `a` and `b`.
pub fn select_vjp(cond: &Array, a: &Array, b: &Array, dy: &Array) -> [Array; 2] {
    let cond = cond.broadcast_to(&dy.shape);
    let da = cond.zip(dy, |c, d| if c != 0.0 { d } else { 0.0 });
    let db = cond.zip(dy, |c, d| if c != 0.0 { 0.0 } else { d });
    [da.sum_to(&a.shape), db.sum_to(&b.shape)]
}
