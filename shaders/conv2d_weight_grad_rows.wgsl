// The gradient of a convolution's weights for CPU-like adapters and, of few channels, for GPUs. A lane owns one row of
// the kernel for one input channel and CHANNELS output channels, in registers; the lanes of a workgroup own neighbouring
// rows, and share the loads of the output's gradient through a shuffle.
// include: grid.wgsl
// include: conv2d.wgsl
// include: conv2d_pixels.wgsl

const BATCH = 1u;
const SPLITS = 1u; // the rows of all images are cut into this many parts
const WIDTH = 8u; // lanes of a workgroup
const TOGETHER = 1u; // groups of the convolution whose rows are counted through; 1 where lanes share loads
const CHANNELS = 16u; // CHANNELS * KW accumulators
const LANES = 8u; // 1 where there are no subgroups: every lane loads all gradients itself
const LOADS = (CHANNELS * PIXELS + LANES - 1u) / LANES;
const QUAD_LOADS = (CHANNELS * PIXELS / 4u + LANES - 1u) / LANES;

@group(0) @binding(1) var<storage, read> dy: array<f32>; // [BATCH, GROUPS CO, HO, WO]
@group(0) @binding(1) var<storage, read> dy4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [SPLITS, GROUPS CO, CI, KH, KW]

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

fn from_lane(value: f32, lane: u32) -> f32 {
    return value;
}

// The gradients of PIXELS columns from `ox` on in CHANNELS channels; that of channel c, column p is element
// c PIXELS + p, counted through the lanes. `row` is where the row begins in the first channel; channels from `left` on
// are not there, nor are columns from WO on.
fn row_grads(row: u32, ox: u32, left: u32, lane: u32) -> array<f32, CHANNELS * PIXELS> {
    var loads: array<f32, LOADS>;
    for (var j = 0u; j < LOADS; j++) { // unroll
        let q = min(j * LANES + lane % LANES, CHANNELS * PIXELS - 1u);
        let there = ox + q % PIXELS < WO;
        loads[j] = select(0.0, dy[select(0u, row + min(q / PIXELS, left - 1u) * HO * WO + ox + q % PIXELS, there)], there);
    }
    var grads: array<f32, CHANNELS * PIXELS>;
    for (var e = 0u; e < CHANNELS * PIXELS; e++) { // unroll
        grads[e] = from_lane(loads[e / LANES], e % LANES);
    }
    return grads;
}

// The same where WO and PIXELS are multiples of four.
fn row_grads_by_four(row: u32, ox: u32, left: u32, lane: u32) -> array<f32, CHANNELS * PIXELS> {
    var loads: array<vec4<f32>, QUAD_LOADS>;
    for (var j = 0u; j < QUAD_LOADS; j++) { // unroll
        let q = min(j * LANES + lane % LANES, CHANNELS * PIXELS / 4u - 1u) * 4u;
        let there = ox + q % PIXELS < WO;
        let place = row + min(q / PIXELS, left - 1u) * HO * WO + ox + q % PIXELS;
        loads[j] = select(vec4<f32>(), dy4[select(0u, place / 4u, there)], there);
    }
    var grads: array<f32, CHANNELS * PIXELS>;
    for (var e = 0u; e < CHANNELS * PIXELS; e++) { // unroll
        grads[e] = from_lane(loads[e / 4u / LANES][e % 4u], e / 4u % LANES);
    }
    return grads;
}

@compute @workgroup_size(WIDTH)
fn weight_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let rows = TOGETHER * CI * KH;
    let row_groups = (rows + WIDTH - 1u) / WIDTH;
    let channel_blocks = (CO + CHANNELS - 1u) / CHANNELS;
    let id = group_index(group, groups);
    if (id >= row_groups * channel_blocks * (GROUPS / TOGETHER) * SPLITS) {
        return;
    }
    let own = id % row_groups * WIDTH + lane;
    let row = min(own, rows - 1u);
    let ky = row % KH;
    let ci = row / KH % CI;
    let co = id / row_groups % channel_blocks * CHANNELS;
    let blocks = row_groups * channel_blocks;
    let g = id / blocks % (GROUPS / TOGETHER) * TOGETHER + row / (CI * KH);
    let split = id / (blocks * (GROUPS / TOGETHER));

    var sums: array<f32, CHANNELS * KW>;
    let run = (BATCH * HO + SPLITS - 1u) / SPLITS;
    for (var at = split * run; at < min(split * run + run, BATCH * HO); at++) {
        let image = at / HO;
        let oy = at % HO;
        let iy = oy * SH + ky * DH - PH; // wraps above H where it is outside
        let start = (((image * GROUPS + g) * CI + ci) * H + iy) * W;
        let dy_start = (((image * GROUPS + g) * CO + co) * HO + oy) * WO;
        for (var ox = 0u; ox < WO; ox += PIXELS) {
            let grads = row_grads(dy_start, ox, CO - co, lane);
            let pixels = row_pixels(start, ox * SW - PW, iy < H);
            // All pixels of a sum in one go, so that it stays in a register meanwhile.
            for (var c = 0u; c < CHANNELS; c++) { // unroll
                for (var kx = 0u; kx < KW; kx++) { // unroll
                    for (var p = 0u; p < PIXELS; p++) { // unroll
                        sums[c * KW + kx] += grads[c * PIXELS + p] * pixels[p * SW + kx * DW];
                    }
                }
            }
        }
    }
    if (own >= rows) {
        return;
    }
    // A loop at run time: a driver may take milliseconds to compile each store, and this has one row of them.
    for (var c = 0u; c < min(CHANNELS, CO - co); c++) {
        for (var kx = 0u; kx < KW; kx++) { // unroll
            var sum = 0.0;
            for (var other = 0u; other < CHANNELS; other++) { // unroll
                sum = select(sum, sums[other * KW + kx], c == other);
            }
            let tap = select(ky * KW + kx, KH * KW - 1u - ky * KW - kx, FLIP == 1u);
            let i = ((g * CO + co + c) * CI + ci) * KH * KW + tap;
            if (SPLITS == 1u) {
                y[i] = epilogue(sum, i);
            } else {
                y[split * GROUPS * CO * CI * KH * KW + i] = sum;
            }
        }
    }
}
