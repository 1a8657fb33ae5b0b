// The gradient of a convolution's weights for CPU-like adapters. A lane owns one row of the kernel for one input channel
// and CHANNELS output channels, in registers; the lanes of a workgroup own neighbouring rows, and share the loads of the
// output's gradient through a shuffle.
// include: grid.wgsl
// include: conv2d.wgsl

const BATCH = 1u;
const SPLITS = 1u; // the rows of all images are cut into this many parts
const CHANNELS = 16u; // CHANNELS * KW accumulators
const PIXELS = 7u;
const LANES = 8u; // 1 where there are no subgroups: every lane loads all gradients itself
const LOADS = (CHANNELS * PIXELS + LANES - 1u) / LANES;
const SPAN = (PIXELS - 1u) * SW + (KW - 1u) * DW + 1u;

@group(0) @binding(0) var<storage, read> x: array<f32>; // [BATCH, GROUPS CI, H, W]
@group(0) @binding(1) var<storage, read> dy: array<f32>; // [BATCH, GROUPS CO, HO, WO]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [SPLITS, GROUPS CO, CI, KH, KW]

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

fn from_lane(value: f32, lane: u32) -> f32 {
    return value;
}

@compute @workgroup_size(8)
fn weight_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row_groups = (CI * KH + 7u) / 8u;
    let channel_blocks = (CO + CHANNELS - 1u) / CHANNELS;
    let id = group_index(group, groups);
    if (id >= row_groups * channel_blocks * GROUPS * SPLITS) {
        return;
    }
    let own = id % row_groups * 8u + lane;
    let ky = own % KH;
    let ci = min(own / KH, CI - 1u);
    let co = id / row_groups % channel_blocks * CHANNELS;
    let g = id / (row_groups * channel_blocks) % GROUPS;
    let split = id / (row_groups * channel_blocks * GROUPS);

    var places: array<u32, LOADS>;
    var columns: array<u32, LOADS>;
    for (var j = 0u; j < LOADS; j++) { // unroll
        let q = min(j * LANES + lane % LANES, CHANNELS * PIXELS - 1u);
        places[j] = min(co + q / PIXELS, CO - 1u) * HO * WO + q % PIXELS;
        columns[j] = q % PIXELS;
    }
    var sums: array<f32, CHANNELS * KW>;
    let run = (BATCH * HO + SPLITS - 1u) / SPLITS;
    for (var row = split * run; row < min(split * run + run, BATCH * HO); row++) {
        let image = row / HO;
        let oy = row % HO;
        let iy = oy * SH + ky * DH - PH; // wraps above H where it is outside
        let start = (((image * GROUPS + g) * CI + ci) * H + iy) * W;
        for (var ox = 0u; ox < WO; ox += PIXELS) {
            var grads: array<f32, LOADS>;
            for (var j = 0u; j < LOADS; j++) { // unroll
                let place = places[j] + ((image * GROUPS + g) * CO * HO + oy) * WO + ox;
                let inside = ox + columns[j] < WO;
                grads[j] = select(0.0, dy[select(0u, place, inside)], inside);
            }
            var pixels: array<f32, SPAN>;
            for (var s = 0u; s < SPAN; s++) { // unroll
                let ix = ox * SW + s - PW;
                let inside = iy < H && ix < W;
                pixels[s] = select(0.0, x[select(0u, start + ix, inside)], inside);
            }
            for (var c = 0u; c < CHANNELS; c++) { // unroll
                for (var p = 0u; p < PIXELS; p++) { // unroll
                    let grad = from_lane(grads[(c * PIXELS + p) / LANES], (c * PIXELS + p) % LANES);
                    for (var kx = 0u; kx < KW; kx++) { // unroll
                        sums[c * KW + kx] += grad * pixels[p * SW + kx * DW];
                    }
                }
            }
        }
    }
    if (own >= CI * KH) {
        return;
    }
    for (var c = 0u; c < CHANNELS; c++) { // unroll
        for (var kx = 0u; kx < KW; kx++) { // unroll
            if (co + c < CO) {
                let tap = select(ky * KW + kx, KH * KW - 1u - ky * KW - kx, FLIP == 1u);
                let i = ((g * CO + co + c) * CI + ci) * KH * KW + tap;
                let sum = sums[c * KW + kx];
                if (SPLITS == 1u) {
                    y[i] = epilogue(sum, i);
                } else {
                    y[split * GROUPS * CO * CI * KH * KW + i] = sum;
                }
            }
        }
    }
}
