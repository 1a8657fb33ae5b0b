//! Log-mel features from waveforms, as nodes of the graph: windowed frames, the discrete Fourier transform as a product
//! with cosines and sines, power, bands on the mel scale, logarithm.

use super::synth::{RATE, SAMPLES};
use shadegrad::Tensor;
use std::f32::consts::TAU;

/// Samples of a frame, and from one frame to the next.
const FRAME: usize = 256;
const HOP: usize = 128;
const BINS: usize = FRAME / 2 + 1;

pub const FRAMES: usize = (SAMPLES - FRAME) / HOP + 1;
pub const BANDS: usize = 32;

/// The matrices.
pub struct Features {
    /// [FRAME, 2 BINS]: cosines and sines under a Hann window.
    transform: Vec<f32>,
    /// [BINS, BANDS]: triangles side by side on the mel scale.
    bands: Vec<f32>,
}

/// O'Shaughnessy's formula ("Speech Communication", 1987).
fn mel(hertz: f32) -> f32 {
    2595.0 * (1.0 + hertz / 700.0).log10()
}

impl Features {
    pub fn new() -> Features {
        let window = |n: usize| 0.5 - 0.5 * (TAU * n as f32 / FRAME as f32).cos();
        let wave = |n: usize, bin: usize| {
            let (sine, cosine) = (TAU * (n * (bin % BINS) % FRAME) as f32 / FRAME as f32).sin_cos();
            window(n) * if bin < BINS { cosine } else { sine }
        };
        let transform = (0..FRAME).flat_map(|n| (0..2 * BINS).map(move |bin| wave(n, bin))).collect();
        // Band b rises from edge b to edge b + 1 and falls to edge b + 2.
        let step = mel(RATE as f32 / 2.0) / (BANDS + 1) as f32;
        let weight = |bin: usize, band: usize| {
            let at = mel((bin * RATE) as f32 / FRAME as f32) / step;
            (1.0 - (at - (band + 1) as f32).abs()).max(0.0)
        };
        let bands = (0..BINS).flat_map(|bin| (0..BANDS).map(move |band| weight(bin, band))).collect();
        Features { transform, bands }
    }

    /// Sounds [N, SAMPLES] -> [N, FRAMES, BANDS].
    pub fn of(&self, sound: &Tensor) -> Tensor {
        let g = sound.graph();
        let batch = sound.shape()[0];
        // A frame is two hops: the hops side by side with their successors.
        let hops = sound.reshape([batch, SAMPLES / HOP, HOP]);
        let frames = hops.narrow(1, 0, FRAMES).concat(&[&hops.narrow(1, 1, FRAMES)], 2);
        let waves = frames.matmul(&g.constant([FRAME, 2 * BINS], &self.transform)).square();
        let power = waves.narrow(2, 0, BINS) + waves.narrow(2, BINS, BINS);
        let energy = power.matmul(&g.constant([BINS, BANDS], &self.bands));
        // About the middle of what occurs becomes 0.
        (energy + 1e-3).log() * 0.25 - 0.5
    }
}
