// The gradient of a convolution's weights as an implicit matrix product: for each group, gradients [CO, N HO WO] x
// patches [N HO WO, CI KH KW].
// include: grid.wgsl
// include: gemm.wgsl
// include: conv2d.wgsl

@group(0) @binding(0) var<storage, read> x: array<f32>; // [batch, GROUPS CI, H, W]
@group(0) @binding(1) var<storage, read> dy: array<f32>; // [batch, GROUPS CO, HO, WO]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [SPLITS, GROUPS CO, CI, KH, KW]

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

// Where tap (ky, kx), numbered row by row, lies within a kernel.
fn tap_place(tap: u32) -> u32 {
    return select(tap, KH * KW - 1u - tap, FLIP == 1u);
}

fn a_at(batch: u32, m: u32, k: u32) -> f32 {
    return dy[((k / (HO * WO) * GROUPS + batch) * CO + m) * HO * WO + k % (HO * WO)];
}

fn b_at(batch: u32, k: u32, n: u32) -> f32 {
    let tap = n % (KH * KW);
    let channel = n / (KH * KW);
    let pixel = k % (HO * WO);
    let image = k / (HO * WO);
    let iy = pixel / WO * SH + tap / KW * DH - PH; // wraps above H where it is outside
    let ix = pixel % WO * SW + tap % KW * DW - PW;
    if (iy < H && ix < W) {
        return x[(((image * GROUPS + batch) * CI + channel) * H + iy) * W + ix];
    }
    return 0.0;
}

fn result_place(batch: u32, m: u32, n: u32) -> u32 {
    return ((batch * CO + m) * CI + n / (KH * KW)) * KH * KW + tap_place(n % (KH * KW));
}

fn put(batch: u32, split: u32, m: u32, n: u32, value: f32) {
    let i = result_place(batch, m, n);
    if (SPLITS == 1u) {
        y[i] = epilogue(value, i);
    } else {
        y[split * BATCHES * M * N + i] = value;
    }
}
