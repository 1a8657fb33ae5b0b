// The gradient of a convolution's input at a stride. Pixels whose rows and columns (in the padded image) leave the same
// remainders by the stride are a phase: they need every SH-th row and SW-th column of the kernel, from the remainders on. So
// all of them are one convolution of the output's gradient at stride 1, whose output channels are the phases' channels.
// include: grid.wgsl
// include: conv2d.wgsl

const COUNT = 1u; // elements written
const TH = 1u; // rows and columns of a phase's kernel, which has zeros where there are none
const TW = 1u;
const QH = 1u; // of a phase's image
const QW = 1u;
const ALIGNED_H = 0u; // 1: a phase's image begins with its first pixel; 0: all phases' begin with pixel -(PH % SH)
const ALIGNED_W = 0u;

// How many rows (columns) of the padded image are before the first one of phase r, divided by the stride.
fn first_row(r: u32) -> u32 {
    return (PH + ALIGNED_H * (SH - 1u - r)) / SH;
}

fn first_column(r: u32) -> u32 {
    return (PW + ALIGNED_W * (SW - 1u - r)) / SW;
}

@group(0) @binding(0) var<storage, read> w: array<f32>; // [GROUPS CO, CI, KH, KW]
@group(0) @binding(1) var<storage, read_write> kernels: array<f32>; // [GROUPS, SH SW, CI, CO, TH, TW]

@compute @workgroup_size(64)
fn phase_kernels(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let co = i / (TH * TW) % CO;
    let ci = i / (TH * TW * CO) % CI;
    let phase = i / (TH * TW * CO * CI) % (SH * SW);
    let g = i / (TH * TW * CO * CI * SH * SW);
    // A gradient's kernel is turned round. Rows and columns before its first wrap around.
    let r = phase / SW;
    let c = phase % SW;
    var ky = r + (TH - 1u - i / TW % TH + first_row(r) - first_row(0u)) * SH;
    var kx = c + (TW - 1u - i % TW + first_column(c) - first_column(0u)) * SW;
    if (ky >= KH || kx >= KW) {
        kernels[i] = 0.0;
        return;
    }
    if (FLIP == 1u) {
        ky = KH - 1u - ky;
        kx = KW - 1u - kx;
    }
    kernels[i] = w[(((g * CO + co) * CI + ci) * KH + ky) * KW + kx];
}

@group(0) @binding(0) var<storage, read> phases: array<f32>; // [BATCH, GROUPS, SH SW, CI, QH, QW]
@group(0) @binding(1) var<storage, read_write> dx: array<vec4<f32>>; // [BATCH, GROUPS CI, H, W]

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

fn pixel(n: u32) -> f32 {
    let i = min(n, COUNT - 1u);
    let row = i / W % H + PH;
    let column = i % W + PW;
    let image = i / (W * H);
    let r = row % SH;
    let c = column % SW;
    let channel = (image / CI * (SH * SW) + r * SW + c) * CI + image % CI;
    return epilogue(phases[(channel * QH + row / SH - first_row(r)) * QW + column / SW - first_column(c)], i);
}

@compute @workgroup_size(64)
fn interleave(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let q = group_index(group, groups) * 64u + lane;
    if (4u * q < COUNT) {
        dx[q] = vec4<f32>(pixel(4u * q), pixel(4u * q + 1u), pixel(4u * q + 2u), pixel(4u * q + 3u));
    }
}
