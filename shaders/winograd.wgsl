// Convolution with a 3x3 kernel at stride 1 by Winograd's minimal filtering: tiles of TILE x TILE results take
// (TILE + 2)^2 products for each pair of channels instead of 9 TILE^2. `weights` and `input` transform the operands,
// a batched product over the channels follows, one matrix for each element of the transformed tiles, and `output`
// transforms its result back. Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
// include: grid.wgsl
// include: conv2d.wgsl

const BATCH = 1u;
const TILE = 4u; // results of a tile along each axis: 4, or 2 with the matrices of that name
const SIDE = TILE + 2u; // input pixels of a tile along each axis
const TILES_X = (WO + TILE - 1u) / TILE;
const TILES_Y = (HO + TILE - 1u) / TILE;
const TILES = BATCH * TILES_Y * TILES_X;
const QUADS = (TILES + 3u) / 4u; // an invocation has four tiles, the last ones perhaps twice

// The points are 0, 3/4, -3/4, 3/2, -3/2 and infinity: no rounding in two of the matrices, and half the error that the
// usual points, 1 and 2, leave in the results (Barabasz and others, "Error Analysis and Improving the Accuracy of Winograd
// Convolution for Deep Neural Networks", 2020, on the choice of points).
fn input_matrix(i: u32, j: u32) -> f32 {
    const MATRIX = array<array<f32, 6>, 6>(
        array<f32, 6>(1.265625, 0.0, -2.8125, 0.0, 1.0, 0.0),
        array<f32, 6>(0.0, -1.6875, -2.25, 0.75, 1.0, 0.0),
        array<f32, 6>(0.0, 1.6875, -2.25, -0.75, 1.0, 0.0),
        array<f32, 6>(0.0, -0.84375, -0.5625, 1.5, 1.0, 0.0),
        array<f32, 6>(0.0, 0.84375, -0.5625, -1.5, 1.0, 0.0),
        array<f32, 6>(0.0, 1.265625, 0.0, -2.8125, 0.0, 1.0),
    );
    return MATRIX[i][j];
}

fn weight_matrix(i: u32, j: u32) -> f32 {
    const MATRIX = array<array<f32, 3>, 6>(
        array<f32, 3>(64.0 / 81.0, 0.0, 0.0),
        array<f32, 3>(-128.0 / 243.0, -32.0 / 81.0, -8.0 / 27.0),
        array<f32, 3>(-128.0 / 243.0, 32.0 / 81.0, -8.0 / 27.0),
        array<f32, 3>(32.0 / 243.0, 16.0 / 81.0, 8.0 / 27.0),
        array<f32, 3>(32.0 / 243.0, -16.0 / 81.0, 8.0 / 27.0),
        array<f32, 3>(0.0, 0.0, 1.0),
    );
    return MATRIX[i][j];
}

fn output_matrix(i: u32, j: u32) -> f32 {
    const MATRIX = array<array<f32, 6>, 4>(
        array<f32, 6>(1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
        array<f32, 6>(0.0, 0.75, -0.75, 1.5, -1.5, 0.0),
        array<f32, 6>(0.0, 0.5625, 0.5625, 2.25, 2.25, 0.0),
        array<f32, 6>(0.0, 0.421875, -0.421875, 3.375, -3.375, 1.0),
    );
    return MATRIX[i][j];
}

// The points are 0, 1, -1 and infinity.
fn input_matrix_2(i: u32, j: u32) -> f32 {
    const MATRIX = array<array<f32, 4>, 4>(
        array<f32, 4>(1.0, 0.0, -1.0, 0.0),
        array<f32, 4>(0.0, 1.0, 1.0, 0.0),
        array<f32, 4>(0.0, -1.0, 1.0, 0.0),
        array<f32, 4>(0.0, 1.0, 0.0, -1.0),
    );
    return MATRIX[i][j];
}

fn weight_matrix_2(i: u32, j: u32) -> f32 {
    const MATRIX = array<array<f32, 3>, 4>(
        array<f32, 3>(1.0, 0.0, 0.0),
        array<f32, 3>(0.5, 0.5, 0.5),
        array<f32, 3>(0.5, -0.5, 0.5),
        array<f32, 3>(0.0, 0.0, 1.0),
    );
    return MATRIX[i][j];
}

fn output_matrix_2(i: u32, j: u32) -> f32 {
    const MATRIX = array<array<f32, 4>, 2>(
        array<f32, 4>(1.0, 1.0, 1.0, 0.0),
        array<f32, 4>(0.0, 1.0, -1.0, -1.0),
    );
    return MATRIX[i][j];
}

// --- The weights: an invocation has four input channels of an output channel. CI is a multiple of 4.

const W_OUT = 1u; // elements between neighbouring output channels, input channels, rows and columns of the weights;
const W_IN = 1u;  // negative ones wrap around
const W_Y = 1u;
const W_X = 1u;
const W_START = 0u;

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read_write> u: array<vec4<f32>>; // [SIDE, SIDE, CO, CI]

@compute @workgroup_size(64)
fn weights(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= CO * CI / 4u) {
        return;
    }
    let first = W_START + id / (CI / 4u) * W_OUT + id % (CI / 4u) * 4u * W_IN;
    var taps: array<vec4<f32>, 9>;
    for (var t = 0u; t < 9u; t++) { // unroll
        let at = first + t / 3u * W_Y + t % 3u * W_X;
        taps[t] = vec4<f32>(w[at], w[at + W_IN], w[at + 2u * W_IN], w[at + 3u * W_IN]);
    }
    for (var i = 0u; i < SIDE; i++) {
        var row: array<vec4<f32>, 3>;
        for (var t = 0u; t < 9u; t++) { // unroll
            row[t % 3u] += weight_matrix(i, t / 3u) * taps[t];
        }
        for (var j = 0u; j < SIDE; j++) { // unroll
            let sum = weight_matrix(j, 0u) * row[0] + weight_matrix(j, 1u) * row[1] + weight_matrix(j, 2u) * row[2];
            u[(i * SIDE + j) * (CO * CI / 4u) + id] = sum;
        }
    }
}

// --- The input: an invocation has an input channel of four tiles.

@group(0) @binding(0) var<storage, read> x: array<f32>; // [BATCH, CI, H, W]
@group(0) @binding(1) var<storage, read_write> v: array<vec4<f32>>; // [SIDE, SIDE, CI, 4 QUADS]

struct Place {
    image: u32,
    y: u32, // of the tile's first result
    x: u32,
}

fn place(tile: u32) -> Place {
    return Place(tile / (TILES_Y * TILES_X), tile / TILES_X % TILES_Y * TILE, tile % TILES_X * TILE);
}

// The pixel (row, column) of a tile's input, zero outside the image.
fn pixel(tile: Place, ci: u32, row: u32, column: u32) -> f32 {
    let iy = tile.y + row - PH; // wraps above H where it is outside
    let ix = tile.x + column - PW;
    let value = x[((tile.image * CI + ci) * H + min(iy, H - 1u)) * W + min(ix, W - 1u)];
    return select(0.0, value, iy < H && ix < W);
}

@compute @workgroup_size(64)
fn input(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= CI * QUADS) {
        return;
    }
    let ci = id / QUADS;
    let q = id % QUADS * 4u;
    let a = place(q);
    let b = place(min(q + 1u, TILES - 1u));
    let c = place(min(q + 2u, TILES - 1u));
    let d = place(min(q + 3u, TILES - 1u));
    var sums: array<vec4<f32>, SIDE * SIDE>;
    for (var row = 0u; row < SIDE; row++) {
        var line: array<vec4<f32>, SIDE>;
        for (var j = 0u; j < SIDE; j++) { // unroll
            line[j] = vec4<f32>(pixel(a, ci, row, j), pixel(b, ci, row, j), pixel(c, ci, row, j), pixel(d, ci, row, j));
        }
        for (var j = 0u; j < SIDE; j++) { // unroll
            var sum = vec4<f32>();
            for (var k = 0u; k < SIDE; k++) { // unroll
                if (input_matrix(j, k) != 0.0) {
                    sum += input_matrix(j, k) * line[k];
                }
            }
            for (var i = 0u; i < SIDE; i++) { // unroll
                sums[i * SIDE + j] += input_matrix(i, row) * sum;
            }
        }
    }
    // A loop at run time: a driver may take milliseconds to compile each store.
    for (var i = 0u; i < SIDE; i++) {
        for (var j = 0u; j < SIDE; j++) { // unroll
            var sum = vec4<f32>();
            for (var other = 0u; other < SIDE; other++) { // unroll
                sum = select(sum, sums[other * SIDE + j], i == other);
            }
            v[(i * SIDE + j) * (CI * QUADS) + id] = sum;
        }
    }
}

// --- The output: an invocation has an output channel of four tiles.

@group(0) @binding(0) var<storage, read> products: array<vec4<f32>>; // [SIDE, SIDE, CO, 4 QUADS]
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // [BATCH, CO, HO, WO]
@group(0) @binding(1) var<storage, read_write> y4: array<vec4<f32>>;

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

// What the results of an output channel start from: a bias, where there is one.
fn row_start(batch: u32, m: u32) -> f32 {
    return 0.0;
}

// Stores a row of a tile's results; the first is element `i`, in column `ox`.
fn put_row(i: u32, ox: u32, row: array<f32, TILE>) {
    for (var p = 0u; p < TILE; p++) { // unroll
        if (ox + p < WO) {
            y[i + p] = epilogue(row[p], i + p);
        }
    }
}

// The same where WO and TILE are multiples of four.
fn put_row_by_four(i: u32, ox: u32, row: array<f32, TILE>) {
    y4[i / 4u] =
        vec4<f32>(epilogue(row[0], i), epilogue(row[1], i + 1u), epilogue(row[2], i + 2u), epilogue(row[3], i + 3u));
}

@compute @workgroup_size(64)
fn output(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= CO * QUADS) {
        return;
    }
    let co = id / QUADS;
    var sums: array<vec4<f32>, TILE * TILE>;
    for (var i = 0u; i < TILE * TILE; i++) { // unroll
        sums[i] = vec4<f32>(row_start(0u, co));
    }
    for (var row = 0u; row < SIDE; row++) {
        var line: array<vec4<f32>, SIDE>;
        for (var j = 0u; j < SIDE; j++) { // unroll
            line[j] = products[(row * SIDE + j) * (CO * QUADS) + id];
        }
        for (var j = 0u; j < TILE; j++) { // unroll
            var sum = vec4<f32>();
            for (var k = 0u; k < SIDE; k++) { // unroll
                if (output_matrix(j, k) != 0.0) {
                    sum += output_matrix(j, k) * line[k];
                }
            }
            for (var i = 0u; i < TILE; i++) { // unroll
                sums[i * TILE + j] += output_matrix(i, row) * sum;
            }
        }
    }
    // A loop at run time, for the same reason: row r of tile t.
    for (var s = 0u; s < 4u * TILE; s++) {
        let t = s / TILE;
        let r = s % TILE;
        let tile = place(id % QUADS * 4u + t);
        if (id % QUADS * 4u + t < TILES && tile.y + r < HO) {
            var row: array<f32, TILE>;
            for (var p = 0u; p < TILE; p++) { // unroll
                var sum = vec4<f32>();
                for (var other = 0u; other < TILE; other++) { // unroll
                    sum = select(sum, sums[other * TILE + p], r == other);
                }
                row[p] = select(select(sum.x, sum.y, t == 1u), select(sum.z, sum.w, t == 3u), t >= 2u);
            }
            put_row(((tile.image * CO + co) * HO + tile.y + r) * WO + tile.x, tile.x, row);
        }
    }
}
