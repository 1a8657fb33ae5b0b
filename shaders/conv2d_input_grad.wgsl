// The gradient of a convolution's input as an implicit matrix product: for each group, transposed weights
// [CI, CO KH KW] x gradients [CO KH KW, N H W].
// include: grid.wgsl
// include: gemm.wgsl
// include: conv2d.wgsl

@group(0) @binding(0) var<storage, read> dy: array<f32>; // [batch, GROUPS CO, HO, WO]
@group(0) @binding(1) var<storage, read> w: array<f32>; // [GROUPS CO, CI, KH, KW]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [batch, GROUPS CI, H, W]

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

// Where tap (ky, kx), numbered row by row, lies within a kernel.
fn tap_place(tap: u32) -> u32 {
    return select(tap, KH * KW - 1u - tap, FLIP == 1u);
}

fn a_at(batch: u32, m: u32, k: u32) -> f32 {
    let channel = k / (KH * KW);
    return w[((batch * CO + channel) * CI + m) * KH * KW + tap_place(k % (KH * KW))];
}

// The output that tap k of input pixel n was multiplied into, where there is one.
fn b_at(batch: u32, k: u32, n: u32) -> f32 {
    let tap = k % (KH * KW);
    let channel = k / (KH * KW);
    let pixel = n % (H * W);
    let image = n / (H * W);
    let ty = pixel / W + PH - tap / KW * DH; // wraps far above HO * SH where it is outside
    let tx = pixel % W + PW - tap % KW * DW;
    let oy = ty / SH;
    let ox = tx / SW;
    if (oy < HO && ox < WO && oy * SH == ty && ox * SW == tx) {
        return dy[(((image * GROUPS + batch) * CO + channel) * HO + oy) * WO + ox];
    }
    return 0.0;
}

fn result_place(batch: u32, m: u32, n: u32) -> u32 {
    return ((n / (H * W) * GROUPS + batch) * CI + m) * H * W + n % (H * W);
}

fn put(batch: u32, split: u32, m: u32, n: u32, value: f32) {
    let i = result_place(batch, m, n);
    if (SPLITS == 1u) {
        y[i] = epilogue(value, i);
    } else {
        y[split * BATCHES * M * N + i] = value;
    }
}
