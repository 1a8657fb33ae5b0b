// Convolution for CPU-like adapters and, of few channels, for GPUs. A lane owns CHANNELS output channels of PIXELS
// neighbours in a row, in registers; it loads a stretch of an input row once and uses it for every tap of the kernel's
// row, and the lanes share the loads of the weights through a shuffle. The gradient of the input at stride 1 is the same
// with the weights transposed.
// include: grid.wgsl
// include: conv2d.wgsl
// include: conv2d_pixels.wgsl

const BATCH = 1u;
const W_OUT = 1u; // elements between neighbouring output channels, input channels, rows and columns of the weights;
const W_IN = 1u;  // negative ones wrap around
const W_Y = 1u;
const W_X = 1u;
const W_START = 0u;
const WIDTH = 8u; // lanes of a workgroup
const CHANNELS = 8u; // CHANNELS * PIXELS accumulators: above about 112, spills win
const LANES = 8u; // 1 where there are no subgroups: every lane loads all weights itself
const LOADS = (CHANNELS * KW + LANES - 1u) / LANES;
const TILES_X = (WO + PIXELS - 1u) / PIXELS;

@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [BATCH, GROUPS CO, HO, WO]
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<f32>>;

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

// What the sums of an output channel start from: a bias, where there is one.
fn row_start(batch: u32, m: u32) -> f32 {
    return 0.0;
}

fn from_lane(value: f32, lane: u32) -> f32 {
    return value;
}

// Stores the sums of a row's columns from `ox` on; the first is element `i`.
fn put_row(i: u32, ox: u32, sums: array<f32, PIXELS>) {
    for (var p = 0u; p < PIXELS; p++) { // unroll
        if (ox + p < WO) {
            y[i + p] = epilogue(sums[p], i + p);
        }
    }
}

// The same where WO and PIXELS are multiples of four.
fn put_row_by_four(i: u32, ox: u32, sums: array<f32, PIXELS>) {
    for (var q = 0u; q < PIXELS / 4u; q++) { // unroll
        let at = i + q * 4u;
        if (ox + q * 4u < WO) {
            y4[at / 4u] = vec4<f32>(
                epilogue(sums[q * 4u], at),
                epilogue(sums[q * 4u + 1u], at + 1u),
                epilogue(sums[q * 4u + 2u], at + 2u),
                epilogue(sums[q * 4u + 3u], at + 3u),
            );
        }
    }
}

@compute @workgroup_size(WIDTH)
fn rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tiles = BATCH * HO * TILES_X;
    let tile_groups = (tiles + WIDTH - 1u) / WIDTH;
    let channel_blocks = (CO + CHANNELS - 1u) / CHANNELS;
    let id = group_index(group, groups);
    if (id >= tile_groups * channel_blocks * GROUPS) {
        return;
    }
    let own = id % tile_groups * WIDTH + lane;
    let tile = min(own, tiles - 1u);
    let co = id / tile_groups % channel_blocks * CHANNELS;
    let g = id / (tile_groups * channel_blocks);
    let image = tile / (HO * TILES_X);
    let oy = tile / TILES_X % HO;
    let ox = tile % TILES_X * PIXELS;

    var places: array<u32, LOADS>;
    for (var j = 0u; j < LOADS; j++) { // unroll
        let q = min(j * LANES + lane % LANES, CHANNELS * KW - 1u);
        places[j] = W_START + g * CO * CI * KH * KW + min(co + q / KW, CO - 1u) * W_OUT + q % KW * W_X;
    }
    var sums: array<f32, CHANNELS * PIXELS>;
    for (var c = 0u; c < CHANNELS; c++) { // unroll
        let start = row_start(g, min(co + c, CO - 1u));
        for (var p = 0u; p < PIXELS; p++) { // unroll
            sums[c * PIXELS + p] = start;
        }
    }
    for (var ci = 0u; ci < CI; ci++) {
        for (var ky = 0u; ky < KH; ky++) {
            let iy = oy * SH + ky * DH - PH; // wraps above H where it is outside
            let pixels = row_pixels((((image * GROUPS + g) * CI + ci) * H + iy) * W, ox * SW - PW, iy < H);
            var weights: array<f32, LOADS>;
            for (var j = 0u; j < LOADS; j++) { // unroll
                weights[j] = w[places[j] + ci * W_IN + ky * W_Y];
            }
            for (var c = 0u; c < CHANNELS; c++) { // unroll
                var row: array<f32, KW>;
                for (var kx = 0u; kx < KW; kx++) { // unroll
                    row[kx] = from_lane(weights[(c * KW + kx) / LANES], (c * KW + kx) % LANES);
                }
                // All taps of a sum in one go, so that it stays in a register meanwhile.
                for (var p = 0u; p < PIXELS; p++) { // unroll
                    for (var kx = 0u; kx < KW; kx++) { // unroll
                        sums[c * PIXELS + p] += row[kx] * pixels[p * SW + kx * DW];
                    }
                }
            }
        }
    }
    if (own >= tiles) {
        return;
    }
    // A loop at run time: a driver may take milliseconds to compile each store, and this has one row of them.
    for (var c = 0u; c < min(CHANNELS, CO - co); c++) {
        var row: array<f32, PIXELS>;
        for (var p = 0u; p < PIXELS; p++) { // unroll
            for (var other = 0u; other < CHANNELS; other++) { // unroll
                row[p] = select(row[p], sums[other * PIXELS + p], c == other);
            }
        }
        put_row((((image * GROUPS + g) * CO + co + c) * HO + oy) * WO + ox, ox, row);
    }
}
