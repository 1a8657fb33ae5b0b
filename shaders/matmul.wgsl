// Batched matrix product of strided operands, [BATCHES, M, K] x [BATCHES, K, N] -> [BATCHES, M, N].
// include: grid.wgsl
// include: gemm.wgsl

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

fn put(batch: u32, split: u32, m: u32, n: u32, value: f32) {
    let i = (batch * M + m) * N + n;
    if (SPLITS == 1u) {
        y[i] = epilogue(value, i);
    } else {
        y[split * BATCHES * M * N + i] = value;
    }
}
