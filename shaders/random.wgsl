// Counter-based random numbers: the same (seed, step, salt, i) gives the same number on every device.

// PCG hash of one word: O'Neill's PCG output permutation over a linear congruential step,
// as in Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.
fn pcg(word: u32) -> u32 {
    let state = word * 747796405u + 2891336453u;
    let mixed = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (mixed >> 22u) ^ mixed;
}

fn random_bits(seed: u32, step: u32, salt: u32, i: u32) -> u32 {
    return pcg(pcg(pcg(pcg(i) ^ seed) + step) ^ (salt * 0x9e3779b9u));
}

// Uniform in [0, 1), 24 bits.
fn uniform01(seed: u32, step: u32, salt: u32, i: u32) -> f32 {
    return f32(random_bits(seed, step, salt, i) >> 8u) * 5.9604644775390625e-8;
}

// 1 / (1 - p) with probability 1 - p, else 0.
fn dropout_scale(seed: u32, step: u32, salt: u32, i: u32, p: f32) -> f32 {
    return select(0.0, 1.0 / (1.0 - p), uniform01(seed, step, salt, i) >= p);
}
