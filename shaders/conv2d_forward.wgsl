// Convolution as an implicit matrix product: for each group, weights [CO, CI KH KW] x patches [CI KH KW, N HO WO].
// include: grid.wgsl
// include: gemm.wgsl
// include: conv2d.wgsl

@group(0) @binding(0) var<storage, read> x: array<f32>; // [batch, GROUPS CI, H, W]
@group(0) @binding(1) var<storage, read> w: array<f32>; // [GROUPS CO, CI, KH, KW]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [batch, GROUPS CO, HO, WO]

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

// Where tap (ky, kx), numbered row by row, lies within a kernel.
fn tap_place(tap: u32) -> u32 {
    return select(tap, KH * KW - 1u - tap, FLIP == 1u);
}

fn a_at(batch: u32, m: u32, k: u32) -> f32 {
    let channel = k / (KH * KW);
    return w[((batch * CO + m) * CI + channel) * KH * KW + tap_place(k % (KH * KW))];
}

@group(0) @binding(1) var<storage, read> w4: array<vec4<f32>>;

// Four neighbours along k, where kernels are not flipped and rows consist of whole vec4s.
fn a_four_at_once(batch: u32, m: u32, k: u32, end: u32) -> vec4<f32> {
    if (k < end && m < M) {
        return w4[((batch * CO + m) * K + k) / 4u];
    }
    return vec4<f32>();
}

fn b_at(batch: u32, k: u32, n: u32) -> f32 {
    let tap = k % (KH * KW);
    let channel = k / (KH * KW);
    let pixel = n % (HO * WO);
    let image = n / (HO * WO);
    let iy = pixel / WO * SH + tap / KW * DH - PH; // wraps above H where it is outside
    let ix = pixel % WO * SW + tap % KW * DW - PW;
    if (iy < H && ix < W) {
        return x[(((image * GROUPS + batch) * CI + channel) * H + iy) * W + ix];
    }
    return 0.0;
}

fn result_place(batch: u32, m: u32, n: u32) -> u32 {
    return ((n / (HO * WO) * GROUPS + batch) * CO + m) * HO * WO + n % (HO * WO);
}

fn put(batch: u32, split: u32, m: u32, n: u32, value: f32) {
    let i = result_place(batch, m, n);
    if (SPLITS == 1u) {
        y[i] = epilogue(value, i);
    } else {
        y[split * BATCHES * M * N + i] = value;
    }
}
