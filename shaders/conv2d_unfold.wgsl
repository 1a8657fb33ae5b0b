// The operands of a convolution's gradient of weights as dense matrices, whose product adds up over all pixels of all images.
// include: grid.wgsl
// include: conv2d.wgsl

const BATCH = 1u;
const PIXELS = 4u; // BATCH HO WO, and zeros up to a multiple of four
const COUNT = 1u; // vec4s written
const TAPS = 4u; // CI KH KW, a multiple of four

@group(0) @binding(0) var<storage, read> x: array<f32>; // [BATCH, CI, H, W]
@group(0) @binding(1) var<storage, read_write> windows: array<vec4<f32>>; // [PIXELS, TAPS]

// What weight `tap` is multiplied with for output pixel `p`.
fn under(p: u32, tap: u32) -> f32 {
    var ky = tap / KW % KH;
    var kx = tap % KW;
    if (FLIP == 1u) {
        ky = KH - 1u - ky;
        kx = KW - 1u - kx;
    }
    let image = p / (HO * WO);
    let iy = p / WO % HO * SH + ky * DH - PH; // wraps above H where it is outside
    let ix = p % WO * SW + kx * DW - PW;
    let there = image < BATCH && iy < H && ix < W;
    return select(0.0, x[select(0u, ((image * CI + tap / (KH * KW)) * H + iy) * W + ix, there)], there);
}

@compute @workgroup_size(64)
fn unfold(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let q = group_index(group, groups) * 64u + lane;
    if (q < COUNT) {
        let p = 4u * q / TAPS;
        let tap = 4u * q % TAPS;
        windows[q] = vec4<f32>(under(p, tap), under(p, tap + 1u), under(p, tap + 2u), under(p, tap + 3u));
    }
}

@group(0) @binding(0) var<storage, read> dy: array<f32>; // [BATCH, CO, HO, WO]
@group(0) @binding(1) var<storage, read_write> rows: array<vec4<f32>>; // [CO, PIXELS]

fn arriving(co: u32, p: u32) -> f32 {
    let image = p / (HO * WO);
    let there = image < BATCH;
    return select(0.0, dy[select(0u, (image * CO + co) * (HO * WO) + p % (HO * WO), there)], there);
}

@compute @workgroup_size(64)
fn by_channel(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let q = group_index(group, groups) * 64u + lane;
    if (q < COUNT) {
        let co = 4u * q / PIXELS;
        let p = 4u * q % PIXELS;
        rows[q] = vec4<f32>(arriving(co, p), arriving(co, p + 1u), arriving(co, p + 2u), arriving(co, p + 3u));
    }
}
