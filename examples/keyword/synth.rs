//! Words made of tones, glides and noise, each spoken a little differently every time.

use std::f32::consts::TAU;

/// Samples per second.
pub const RATE: usize = 8000;
/// Samples of a word, half a second.
pub const SAMPLES: usize = 4096;

/// A part of a word: how long it lasts, and its pitch in Hz from begin to end, or noise.
#[derive(Clone, Copy)]
enum Sound {
    Tone(f32),
    Glide(f32, f32),
    Noise,
    Silence,
}

use Sound::{Glide, Noise, Silence, Tone};

/// Several of them differ only in the order of their parts.
#[derive(Clone, Copy)]
pub struct Word {
    pub name: &'static str,
    sounds: &'static [Sound],
}

pub const WORDS: [Word; 8] = [
    Word { name: "sha", sounds: &[Noise, Tone(400.0)] },
    Word { name: "ash", sounds: &[Tone(400.0), Noise] },
    Word { name: "oo-ee", sounds: &[Glide(300.0, 900.0)] },
    Word { name: "ee-oo", sounds: &[Glide(900.0, 300.0)] },
    Word { name: "do-mi", sounds: &[Tone(500.0), Silence, Tone(800.0)] },
    Word { name: "mi-do", sounds: &[Tone(800.0), Silence, Tone(500.0)] },
    Word { name: "s-oo-s", sounds: &[Noise, Glide(400.0, 700.0), Noise] },
    Word { name: "oo-s-ee", sounds: &[Glide(400.0, 700.0), Noise, Glide(700.0, 400.0)] },
];

/// `count` words with background noise, and which they are.
pub fn batch(rng: &mut fastrand::Rng, count: usize) -> (Vec<f32>, Vec<u32>) {
    let (mut sound, mut words) = (Vec::with_capacity(count * SAMPLES), Vec::with_capacity(count));
    for _ in 0..count {
        let word = rng.usize(..WORDS.len());
        sound.extend(speak(rng, WORDS[word]));
        words.push(word as u32);
    }
    (sound, words)
}

/// A word somewhere in its half second, by a voice of its own: pitch, speed, loudness and overtones.
fn speak(rng: &mut fastrand::Rng, word: Word) -> Vec<f32> {
    let mut between = |low: f32, high: f32| low + (high - low) * rng.f32();
    let (pitch, loud, hiss) = (between(0.85, 1.2), between(0.3, 0.9), between(0.02, 0.15));
    let overtones = [1.0, between(0.1, 0.6), between(0.0, 0.4)];
    let length = between(0.5, 0.9) * SAMPLES as f32;
    let start = between(0.0, SAMPLES as f32 - length);
    let share = length / word.sounds.len() as f32;
    let mut phase = 0.0;
    (0..SAMPLES)
        .map(|sample| {
            let at = (sample as f32 - start) / share;
            let noise = 2.0 * rng.f32() - 1.0;
            let background = hiss * noise;
            if at < 0.0 || at >= word.sounds.len() as f32 {
                return background;
            }
            let (part, within) = (word.sounds[at as usize], at.fract());
            let hertz = match part {
                Tone(hertz) => hertz,
                Glide(from, to) => from + (to - from) * within,
                Noise => return background + 0.5 * loud * noise,
                Silence => return background,
            };
            phase = (phase + TAU * pitch * hertz / RATE as f32) % TAU;
            // Soft at both ends.
            let swell = (8.0 * within.min(1.0 - within)).min(1.0);
            let tone: f32 = overtones.iter().zip(1u8..).map(|(o, n)| o * (phase * f32::from(n)).sin()).sum();
            background + loud * swell * tone / overtones.iter().sum::<f32>()
        })
        .collect()
}
