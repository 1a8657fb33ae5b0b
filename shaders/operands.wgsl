// The operands and the result of a batched matrix product, [BATCHES, M, K] x [BATCHES, K, N] -> [BATCHES, M, N], where
// operands are strided, and f32 or f16. Whoever includes this includes `gemm.wgsl` before it.
// include: half.wgsl

const A_M = 1u; // elements between neighbours along m and along k
const A_K = 1u;
const B_K = 1u;
const B_N = 1u;

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [SPLITS, BATCHES, M, N]

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

// Where a batch's matrices begin.
fn a_batch(batch: u32) -> u32 {
    return batch * M * K;
}

fn b_batch(batch: u32) -> u32 {
    return batch * K * N;
}

fn a_at(batch: u32, m: u32, k: u32) -> f32 {
    return a[a_batch(batch) + m * A_M + k * A_K];
}

fn b_at(batch: u32, k: u32, n: u32) -> f32 {
    return b[b_batch(batch) + k * B_K + n * B_N];
}

@group(0) @binding(0) var<storage, read> a4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b4: array<vec4<f32>>;

fn a_four(q: u32) -> vec4<f32> {
    return a4[q];
}

fn b_four(q: u32) -> vec4<f32> {
    return b4[q];
}

// The same where operands are f16.
@group(0) @binding(0) var<storage, read> a_words: array<u32>;
@group(0) @binding(1) var<storage, read> b_words: array<u32>;
@group(0) @binding(0) var<storage, read> a_pairs: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> b_pairs: array<vec2<u32>>;

fn a_half_at(batch: u32, m: u32, k: u32) -> f32 {
    let i = a_batch(batch) + m * A_M + k * A_K;
    return half_of(a_words[i / 2u], i);
}

fn b_half_at(batch: u32, k: u32, n: u32) -> f32 {
    let i = b_batch(batch) + k * B_K + n * B_N;
    return half_of(b_words[i / 2u], i);
}

fn a_four_halves(q: u32) -> vec4<f32> {
    return four_of(a_pairs[q]);
}

fn b_four_halves(q: u32) -> vec4<f32> {
    return four_of(b_pairs[q]);
}

fn put(batch: u32, split: u32, m: u32, n: u32, value: f32) {
    let i = (batch * M + m) * N + n;
    if (SPLITS == 1u) {
        y[i] = epilogue(value, i);
    } else {
        y[split * BATCHES * M * N + i] = value;
    }
}
