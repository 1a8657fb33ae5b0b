// Images with zeros between their pixels: what the gradient of a convolution with a stride is a convolution of.
// include: grid.wgsl

const COUNT = 1u; // elements of y
const H = 1u;     // (HO - 1) SH + 1
const W = 1u;
const HO = 1u;
const WO = 1u;
const SH = 1u;
const SW = 1u;

@group(0) @binding(0) var<storage, read> x: array<f32>; // [N, C, HO, WO]
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>; // [N, C, H, W]

fn pixel(i: u32) -> f32 {
    let row = i / W % H;
    let column = i % W;
    // Not a load for every lane: most pixels are zeros.
    if (row % SH != 0u || column % SW != 0u || i >= COUNT) {
        return 0.0;
    }
    return x[(i / (W * H) * HO + row / SH) * WO + column / SW];
}

@compute @workgroup_size(64)
fn spread(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let q = group_index(group, groups) * 64u + lane;
    if (4u * q < COUNT) {
        y[q] = vec4<f32>(pixel(4u * q), pixel(4u * q + 1u), pixel(4u * q + 2u), pixel(4u * q + 3u));
    }
}
