//! Test data from a seed: the same on every machine, and exact in f32.

use super::Array;

/// A counter-based generator: value n of a seed is a hash of (seed, n).
pub struct Random {
    seed: u64,
    count: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Random { seed, count: 0 }
    }

    pub fn bits(&mut self) -> u64 {
        self.count += 1;
        let mut z = mix(self.seed).wrapping_add(self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = mix(z);
        mix(z)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// In [low, high), rounded to f32.
    pub fn uniform(&mut self, shape: impl Into<Vec<usize>>, low: f64, high: f64) -> Array {
        Array::zeros(shape).map(|_| f64::from((low + (high - low) * self.unit()) as f32))
    }

    /// Mean 0 and deviation 1, rounded to f32.
    pub fn normal(&mut self, shape: impl Into<Vec<usize>>) -> Array {
        Array::zeros(shape).map(|_| {
            let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
            f64::from((radius * (std::f64::consts::TAU * self.unit()).cos()) as f32)
        })
    }

    /// Integers in 0..n.
    pub fn integers(&mut self, shape: impl Into<Vec<usize>>, n: usize) -> Array {
        Array::zeros(shape).map(|_| self.below(n) as f64)
    }
}

/// Two multiply-xorshift rounds: every input bit reaches every output bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z ^ (z >> 32)
}
