// What queries make of keys: scores, and the shares that keys have in results.
// include: math.wgsl

const BATCHES = 1u;
const QUERIES = 1u;
const KEYS = 1u;
const SCALE = 1.0;
const CAUSAL = 0u; // 1: query m sees keys 0 to m

const MASK = 8u;
@group(0) @binding(MASK) var<storage, read> masks: array<f32>;

// Where the mask has what goes to element i of the scores [BATCHES, QUERIES, KEYS].
fn mask_place(i: u32) -> u32 {
    return i;
}

fn mask(i: u32) -> f32 {
    return 0.0;
}

fn mask_given(i: u32) -> f32 {
    return masks[mask_place(i)];
}

// A score that counts for nothing; finite, since shaders may take infinities for anything.
const NOTHING = -1e30;

fn score(batch: u32, m: u32, n: u32, product: f32) -> f32 {
    if (n >= KEYS || (CAUSAL == 1u && n > m)) {
        return NOTHING;
    }
    return max_(SCALE * product + mask((batch * QUERIES + m) * KEYS + n), NOTHING);
}

fn share(score: f32, most: f32) -> f32 {
    return select(exp(score - most), 0.0, score <= NOTHING);
}
