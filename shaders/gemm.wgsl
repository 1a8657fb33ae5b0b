// Matrix products in two shapes. Whoever includes this defines where the operands are:
//   fn a_at(batch: u32, m: u32, k: u32) -> f32
//   fn b_at(batch: u32, k: u32, n: u32) -> f32
//   fn put(batch: u32, split: u32, m: u32, n: u32, value: f32)
// All three are only called with indices inside the matrices.

// What the sums of a row, and of a column, start from: a bias, where there is one.
fn row_start(batch: u32, m: u32) -> f32 {
    return 0.0;
}

fn column_start(batch: u32, n: u32) -> f32 {
    return 0.0;
}

const BATCHES = 1u;
const M = 1u;
const N = 1u;
const K = 1u;
const SPLITS = 1u; // the sum over k is cut into this many parts, which `put` tells apart

const STEP = 1u; // parts begin at multiples of this, which is a divisor of K

// The half-open range of k that a split sums.
fn split_range(split: u32) -> vec2<u32> {
    let run = (K / STEP + SPLITS - 1u) / SPLITS * STEP;
    return vec2<u32>(min(split * run, K), min(split * run + run, K));
}

// --- `tile`: for GPUs. A workgroup computes TM x TN from tiles in workgroup memory, an invocation RM x RN in registers,
// which it reads in vec4s, four steps along k at a time. The next tiles are on their way while the present ones are
// multiplied.

const TM = 64u; // 64 x 64: every element loaded is used 64 times, and 256 invocations hold 4 x 4 results each
const TN = 64u;
const TK = 16u; // a multiple of 4; with their padding, tiles take 12 KiB of workgroup memory at the most; every device has 16
const RM = 4u; // multiples of 4
const RN = 4u;
const GROUP = TM / RM * (TN / RN);
const A_ALONG_K = 1u; // neighbours in memory lie along k: 1, along m: 0; so that loads coalesce
const B_ALONG_K = 0u;
const A_WHOLE = 0u; // they are loaded in vec4s: 1, one by one: 0
const B_WHOLE = 0u;
const LOADS_A = TM * TK / 4u / GROUP;
const LOADS_B = TN * TK / 4u / GROUP;

// What is loaded in vec4s along k stays so: a vec4 of the tile has four steps of one row, or column. Any other has four
// rows, or columns, of one step. One vec4 of padding for each line keeps what is read together in different banks.
const A_STEPS = A_ALONG_K * A_WHOLE;
const B_STEPS = B_ALONG_K * B_WHOLE;
const TILE_A = A_STEPS * (TK / 4u) + (1u - A_STEPS) * (TM / 4u) + 1u;
const TILE_B = B_STEPS * (TK / 4u) + (1u - B_STEPS) * (TN / 4u) + 1u;
var<workgroup> tile_a: array<vec4<f32>, (A_STEPS * TM + (1u - A_STEPS) * TK) * TILE_A>;
var<workgroup> tile_b: array<vec4<f32>, (B_STEPS * TN + (1u - B_STEPS) * TK) * TILE_B>;
var<private> next_a: array<vec4<f32>, LOADS_A>;
var<private> next_b: array<vec4<f32>, LOADS_B>;

// Where the vec4 e begins in a tile of `lines` rows, or columns: (line, vec4). An invocation fetches all of it: components
// of one vec4 that different invocations store may overwrite each other on some devices.
fn place(e: u32, lines: u32, along_k: u32, steps: u32) -> vec2<u32> {
    if (steps == 1u) {
        return vec2<u32>(e / (TK / 4u), e % (TK / 4u));
    }
    return select(vec2<u32>(e / (lines / 4u), e % (lines / 4u)), vec2<u32>(e % TK, e / TK), along_k == 1u);
}

// The row, or column, of the i-th of four in a vec4: neighbours where they are loaded at once, and else as far apart as
// they can be, so that invocations side by side load, and store, what lies side by side.
fn line(four: u32, i: u32, lines: u32, whole: u32) -> u32 {
    return select(four + i * (lines / 4u), four * 4u + i, whole == 1u);
}

// Rows m, m + TM / 4, ... of step k, where they are within the matrix.
fn a_four_of(batch: u32, m: u32, k: u32, end: u32) -> vec4<f32> {
    var four = vec4<f32>();
    for (var i = 0u; i < 4u; i++) { // unroll
        if (k < end && m + i * (TM / 4u) < M) {
            four[i] = a_at(batch, m + i * (TM / 4u), k);
        }
    }
    return four;
}

fn b_four_of(batch: u32, k: u32, n: u32, end: u32) -> vec4<f32> {
    var four = vec4<f32>();
    for (var i = 0u; i < 4u; i++) { // unroll
        if (k < end && n + i * (TN / 4u) < N) {
            four[i] = b_at(batch, k, n + i * (TN / 4u));
        }
    }
    return four;
}

fn fetch(batch: u32, m0: u32, n0: u32, k0: u32, end: u32, lane: u32) {
    for (var j = 0u; j < LOADS_A; j++) { // unroll
        let at = place(j * GROUP + lane, TM, A_ALONG_K, A_STEPS);
        if (A_STEPS == 1u) {
            next_a[j] = a_four_of(batch, m0 + at.x, k0 + at.y * 4u, end);
        } else {
            next_a[j] = a_four_of(batch, m0 + line(at.y, 0u, TM, A_WHOLE), k0 + at.x, end);
        }
    }
    for (var j = 0u; j < LOADS_B; j++) { // unroll
        let at = place(j * GROUP + lane, TN, B_ALONG_K, B_STEPS);
        if (B_STEPS == 1u) {
            next_b[j] = b_four_of(batch, k0 + at.y * 4u, n0 + at.x, end);
        } else {
            next_b[j] = b_four_of(batch, k0 + at.x, n0 + line(at.y, 0u, TN, B_WHOLE), end);
        }
    }
}

fn store_tiles(lane: u32) {
    for (var j = 0u; j < LOADS_A; j++) { // unroll
        let at = place(j * GROUP + lane, TM, A_ALONG_K, A_STEPS);
        tile_a[at.x * TILE_A + at.y] = next_a[j];
    }
    for (var j = 0u; j < LOADS_B; j++) { // unroll
        let at = place(j * GROUP + lane, TN, B_ALONG_K, B_STEPS);
        tile_b[at.x * TILE_B + at.y] = next_b[j];
    }
}

// The i-th row of an invocation, and its i-th column: invocations side by side own neighbouring vec4s, or lines of them.
fn own_row(own: u32, i: u32) -> u32 {
    return select(line(i / 4u * (TM / RM) + own, i % 4u, TM, A_WHOLE), i * (TM / RM) + own, A_STEPS == 1u);
}

fn own_column(own: u32, i: u32) -> u32 {
    return select(line(i / 4u * (TN / RN) + own, i % 4u, TN, B_WHOLE), i * (TN / RN) + own, B_STEPS == 1u);
}

// An invocation's rows 4 q to 4 q + 3, at steps k to k + 3 each.
fn own_a(own: u32, k: u32, q: u32) -> mat4x4<f32> {
    let first = select(k * TILE_A + q * (TM / RM) + own, own_row(own, 4u * q) * TILE_A + k / 4u, A_STEPS == 1u);
    let next = select(TILE_A, TM / RM * TILE_A, A_STEPS == 1u);
    let fours = mat4x4<f32>(tile_a[first], tile_a[first + next], tile_a[first + 2u * next], tile_a[first + 3u * next]);
    if (A_STEPS == 1u) {
        return fours;
    }
    return transpose(fours);
}

// Steps k to k + 3, of its columns 4 q to 4 q + 3 each.
fn own_b(own: u32, k: u32, q: u32) -> mat4x4<f32> {
    let first = select(k * TILE_B + q * (TN / RN) + own, own_column(own, 4u * q) * TILE_B + k / 4u, B_STEPS == 1u);
    let next = select(TILE_B, TN / RN * TILE_B, B_STEPS == 1u);
    let fours = mat4x4<f32>(tile_b[first], tile_b[first + next], tile_b[first + 2u * next], tile_b[first + 3u * next]);
    if (B_STEPS == 1u) {
        return transpose(fours);
    }
    return fours;
}

// An invocation's columns 4 q to 4 q + 3 of row m.
fn put_four(batch: u32, split: u32, m: u32, n0: u32, own: u32, q: u32, four: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) { // unroll
        let n = n0 + own_column(own, 4u * q + i);
        if (n < N) {
            put(batch, split, m, n, four[i]);
        }
    }
}

@compute @workgroup_size(GROUP)
fn tile(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let columns = (N + TN - 1u) / TN;
    let rows = (M + TM - 1u) / TM;
    let id = group_index(group, groups);
    if (id >= columns * rows * SPLITS * BATCHES) {
        return;
    }
    let n0 = id % columns * TN;
    let m0 = id / columns % rows * TM;
    let split = id / (columns * rows) % SPLITS;
    let batch = id / (columns * rows * SPLITS);
    let range = split_range(split);
    let own_n = lane % (TN / RN);
    let own_m = lane / (TN / RN);
    var sums: array<vec4<f32>, RM * RN / 4u>;
    if (split == 0u) {
        for (var r = 0u; r < RM; r++) { // unroll
            let row = row_start(batch, min(m0 + own_row(own_m, r), M - 1u));
            for (var c = 0u; c < RN; c++) { // unroll
                let column = column_start(batch, min(n0 + own_column(own_n, c), N - 1u));
                sums[r * (RN / 4u) + c / 4u][c % 4u] = row + column;
            }
        }
    }
    fetch(batch, m0, n0, range.x, range.y, lane);
    for (var k0 = range.x; k0 < range.y; k0 += TK) {
        store_tiles(lane);
        workgroupBarrier();
        fetch(batch, m0, n0, k0 + TK, range.y, lane);
        for (var k = 0u; k < TK; k += 4u) {
            var b: array<mat4x4<f32>, RN / 4u>;
            for (var q = 0u; q < RN / 4u; q++) { // unroll
                b[q] = own_b(own_n, k, q);
            }
            for (var p = 0u; p < RM / 4u; p++) { // unroll
                let a = own_a(own_m, k, p);
                for (var r = 0u; r < 4u; r++) { // unroll
                    for (var i = 0u; i < 4u; i++) { // unroll
                        for (var q = 0u; q < RN / 4u; q++) { // unroll
                            sums[(4u * p + r) * (RN / 4u) + q] += a[r][i] * b[q][i];
                        }
                    }
                }
            }
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < RM; r++) { // unroll
        let m = m0 + own_row(own_m, r);
        if (m < M) {
            for (var q = 0u; q < RN / 4u; q++) { // unroll
                put_four(batch, split, m, n0, own_n, q, sums[r * (RN / 4u) + q]);
            }
        }
    }
}

// --- `block`: for CPU-like adapters. A workgroup is one SIMD vector of 8 lanes with ROWS x COLUMNS results per lane
// in registers; a load costs far more than arithmetic there, so LANES lanes share the loads of A through a shuffle.

const ROWS = 12u;
const COLUMNS = 8u; // 96 accumulators: with more, spills win
const LANES = 8u;   // 1 where there are no subgroups: every lane loads all of A itself
const LOADS = (ROWS + LANES - 1u) / LANES;

fn from_lane(value: f32, lane: u32) -> f32 {
    return value;
}

@compute @workgroup_size(8)
fn block(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let columns = (N + 8u * COLUMNS - 1u) / (8u * COLUMNS);
    let rows = (M + ROWS - 1u) / ROWS;
    let id = group_index(group, groups);
    if (id >= columns * rows * SPLITS * BATCHES) {
        return;
    }
    let n0 = id % columns * 8u * COLUMNS + lane;
    let m0 = id / columns % rows * ROWS;
    let split = id / (columns * rows) % SPLITS;
    let batch = id / (columns * rows * SPLITS);
    let range = split_range(split);
    var sums: array<f32, ROWS * COLUMNS>;
    if (split == 0u) {
        for (var c = 0u; c < COLUMNS; c++) { // unroll
            let column = column_start(batch, min(n0 + c * 8u, N - 1u));
            for (var r = 0u; r < ROWS; r++) { // unroll
                sums[r * COLUMNS + c] = column;
            }
        }
        for (var r = 0u; r < ROWS; r++) { // unroll
            let row = row_start(batch, min(m0 + r, M - 1u));
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                sums[r * COLUMNS + c] += row;
            }
        }
    }
    for (var k = range.x; k < range.y; k++) {
        var a: array<f32, LOADS>;
        var b: array<f32, COLUMNS>;
        for (var j = 0u; j < LOADS; j++) { // unroll
            a[j] = a_at(batch, min(m0 + j * LANES + lane % LANES, M - 1u), k);
        }
        for (var c = 0u; c < COLUMNS; c++) { // unroll
            b[c] = b_at(batch, k, min(n0 + c * 8u, N - 1u));
        }
        for (var r = 0u; r < ROWS; r++) { // unroll
            let shared_a = from_lane(a[r / LANES], r % LANES);
            for (var c = 0u; c < COLUMNS; c++) { // unroll
                sums[r * COLUMNS + c] += shared_a * b[c];
            }
        }
    }
    // A loop at run time: a driver may take milliseconds to compile each store, and this has one row of them.
    for (var r = 0u; r < min(ROWS, M - m0); r++) {
        for (var c = 0u; c < COLUMNS; c++) { // unroll
            var sum = 0.0;
            for (var other = 0u; other < ROWS; other++) { // unroll
                sum = select(sum, sums[other * COLUMNS + c], r == other);
            }
            if (n0 + c * 8u < N) {
                put(batch, split, m0 + r, n0 + c * 8u, sum);
            }
        }
    }
}
