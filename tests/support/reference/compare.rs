//! Elementwise comparison within `atol + rtol * |want|`.

use std::fmt;

/// The element that misses by most, with the error as a multiple of what is allowed.
#[derive(Clone, Debug)]
pub struct Worst {
    pub index: usize,
    pub got: f64,
    pub want: f64,
    pub ratio: f64,
    /// How many elements miss, of how many.
    pub misses: usize,
    pub len: usize,
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Worst { index, got, want, ratio, misses, len } = self;
        if got.is_nan() && want.is_nan() && ratio.is_infinite() {
            return write!(f, "lengths differ: {index} values, {len} expected");
        }
        write!(
            f,
            "{misses} of {len} miss; worst at {index}: got {got:e}, want {want:e}, {ratio:.3} times the tolerance"
        )
    }
}

/// NaN equals NaN, an infinity equals itself. Lengths that differ are a miss, too.
pub fn compare(got: &[f32], want: &[f64], rtol: f64, atol: f64) -> Result<(), Worst> {
    if got.len() != want.len() {
        let (got, len) = (got.len(), want.len());
        return Err(Worst { index: got, got: f64::NAN, want: f64::NAN, ratio: f64::INFINITY, misses: len.max(1), len });
    }
    let mut worst: Option<Worst> = None;
    let mut misses = 0;
    for (index, (&got, &want)) in got.iter().zip(want).enumerate() {
        let got = f64::from(got);
        let ratio = excess(got, want, rtol, atol);
        if ratio > 1.0 {
            misses += 1;
            if worst.as_ref().is_none_or(|w| ratio > w.ratio) {
                worst = Some(Worst { index, got, want, ratio, misses: 0, len: 0 });
            }
        }
    }
    match worst {
        None => Ok(()),
        Some(worst) => Err(Worst { misses, len: want.len(), ..worst }),
    }
}

/// Error relative to the tolerance; infinite where no tolerance helps.
fn excess(got: f64, want: f64, rtol: f64, atol: f64) -> f64 {
    if got == want || (got.is_nan() && want.is_nan()) {
        0.0
    } else if got.is_finite() && want.is_finite() {
        (got - want).abs() / (atol + rtol * want.abs())
    } else {
        f64::INFINITY
    }
}
