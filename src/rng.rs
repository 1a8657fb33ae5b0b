//! Random numbers on the host: small, seeded, and the same on every machine.

/// What SplitMix64 adds to its state at each draw: 2^64 divided by the golden ratio, made odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), with the finalizer
/// of Stafford's "Mix13".
///
/// It is a counter put through a mixing function, so a generator for any `(seed, stream)` costs nothing to make: image
/// `i` or epoch `e` gets its own, and depends on no other.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "data"), allow(dead_code))]
pub(crate) struct Rng {
    state: u64,
}

#[cfg_attr(not(feature = "data"), allow(dead_code))]
impl Rng {
    /// The generator of `stream` under `seed`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        // Mixed twice: streams that started at neighbouring counts would repeat each other's draws, shifted.
        Self { state: mix(mix(seed.wrapping_add(STEP)).wrapping_add(stream.wrapping_mul(STEP)).wrapping_add(STEP)) }
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// Uniform in `0..n`, without bias; 0 if `n` is 0. (Lemire, "Fast random integer generation in an interval", 2019.)
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        let mut product = (self.next() >> 32) * u64::from(n);
        if (product as u32) < n {
            let uneven = n.wrapping_neg() % n;
            while (product as u32) < uneven {
                product = (self.next() >> 32) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// Uniform in `[0, 1)`, in steps of 2^-24.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Bell-shaped: mean 0, variance 1, never beyond 3.47. The sum of four uniform numbers rather than an exact normal
    /// one, as it needs no logarithm, which differs in its last bits between systems.
    pub(crate) fn bell(&mut self) -> f32 {
        let bits = self.next();
        let sum: u32 = (0..4).map(|i| (bits >> (16 * i)) as u32 & 0xffff).sum();
        (sum as f32 / 65535.0 - 2.0) * 1.732_050_8
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // Datasets are counted in u32.
            let other = self.below(last as u32 + 1) as usize;
            items.swap(last, other);
        }
    }
}

pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_known_answers() {
        // From the reference implementation, started at 1234567.
        let mut rng = Rng { state: 1234567 };
        assert_eq!(rng.next(), 6457827717110365317);
        assert_eq!(rng.next(), 3203168211198807973);
        assert_eq!(rng.next(), 9817491932198370423);
    }

    #[test]
    fn numbers_are_spread_as_promised() {
        let mut rng = Rng::new(3, 5);
        let mut counts = [0u32; 7];
        let (mut sum, mut squares) = (0.0f64, 0.0f64);
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
            let b = f64::from(rng.bell());
            sum += b;
            squares += b * b;
            let u = rng.between(-2.0, 3.0);
            assert!((-2.0..3.0).contains(&u), "{u}");
        }
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
        assert!((sum / 70_000.0).abs() < 0.02, "{sum}");
        assert!((squares / 70_000.0 - 1.0).abs() < 0.02, "{squares}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn streams_and_seeds_differ() {
        let draw = |seed, stream| Rng::new(seed, stream).next();
        let mut all: Vec<u64> = (0..100).flat_map(|seed| (0..100).map(move |stream| draw(seed, stream))).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10_000);
    }
}
