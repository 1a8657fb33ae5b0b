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

// The half-open range of k that a split sums.
fn split_range(split: u32) -> vec2<u32> {
    let run = (K + SPLITS - 1u) / SPLITS;
    return vec2<u32>(min(split * run, K), min(split * run + run, K));
}

// --- `tile`: for GPUs. A workgroup computes TM x TN from tiles in workgroup memory, an invocation RM x RN in registers,
// which it reads and multiplies in vec4s. The next tiles are on their way while the present ones are multiplied.

const TM = 64u; // 64 x 64: every element loaded is used 64 times, and 256 invocations hold 4 x 4 results each
const TN = 64u;
const TK = 16u; // with their padding, 2 x 64 x 16 floats are 8.5 KiB of workgroup memory; every device has 16
const RM = 4u; // multiples of 4
const RN = 4u;
const GROUP = TM / RM * (TN / RN);
const A_ALONG_K = 1u; // neighbours in memory lie along k: 1, along m: 0; so that loads coalesce
const B_ALONG_K = 0u;
const LOADS_A = TM * TK / 4u / GROUP;
const LOADS_B = TN * TK / 4u / GROUP;

// One vec4 of padding for each step of k keeps elements that are stored together in different banks.
const TILE_A = TM / 4u + 1u;
const TILE_B = TN / 4u + 1u;
var<workgroup> tile_a: array<vec4<f32>, TK * TILE_A>;
var<workgroup> tile_b: array<vec4<f32>, TK * TILE_B>;
var<private> next_a: array<vec4<f32>, LOADS_A>;
var<private> next_b: array<vec4<f32>, LOADS_B>;

// Where the vec4 e of a tile begins, as (k, row) or (k, column). An invocation fetches all of it: components of one vec4
// that different invocations store may overwrite each other on some devices.
fn place_a(e: u32) -> vec2<u32> {
    return select(vec2<u32>(e / (TM / 4u), e % (TM / 4u) * 4u), vec2<u32>(e % TK, e / TK * 4u), A_ALONG_K == 1u);
}

fn place_b(e: u32) -> vec2<u32> {
    return select(vec2<u32>(e / (TN / 4u), e % (TN / 4u) * 4u), vec2<u32>(e % TK, e / TK * 4u), B_ALONG_K == 1u);
}

fn fetch(batch: u32, m0: u32, n0: u32, k0: u32, end: u32, lane: u32) {
    for (var j = 0u; j < LOADS_A; j++) { // unroll
        let at = place_a(j * GROUP + lane) + vec2<u32>(k0, m0);
        next_a[j] = vec4<f32>();
        for (var c = 0u; c < 4u; c++) { // unroll
            if (at.x < end && at.y + c < M) {
                next_a[j][c] = a_at(batch, at.y + c, at.x);
            }
        }
    }
    for (var j = 0u; j < LOADS_B; j++) { // unroll
        let at = place_b(j * GROUP + lane) + vec2<u32>(k0, n0);
        next_b[j] = vec4<f32>();
        for (var c = 0u; c < 4u; c++) { // unroll
            if (at.x < end && at.y + c < N) {
                next_b[j][c] = b_at(batch, at.x, at.y + c);
            }
        }
    }
}

fn store_tiles(lane: u32) {
    for (var j = 0u; j < LOADS_A; j++) { // unroll
        let at = place_a(j * GROUP + lane);
        tile_a[at.x * TILE_A + at.y / 4u] = next_a[j];
    }
    for (var j = 0u; j < LOADS_B; j++) { // unroll
        let at = place_b(j * GROUP + lane);
        tile_b[at.x * TILE_B + at.y / 4u] = next_b[j];
    }
}

// The rows of an invocation are vec4s that lie TM / (RM / 4) apart, its columns likewise, so that neighbours read
// neighbouring vec4s.
fn own_row(own: u32, r: u32) -> u32 {
    return r / 4u * (TM / (RM / 4u)) + own * 4u + r % 4u;
}

fn own_column(own: u32, c: u32) -> u32 {
    return c / 4u * (TN / (RN / 4u)) + own * 4u + c % 4u;
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
        for (var k = 0u; k < TK; k++) {
            var a: array<vec4<f32>, RM / 4u>;
            var b: array<vec4<f32>, RN / 4u>;
            for (var r = 0u; r < RM / 4u; r++) { // unroll
                a[r] = tile_a[k * TILE_A + own_row(own_m, 4u * r) / 4u];
            }
            for (var c = 0u; c < RN / 4u; c++) { // unroll
                b[c] = tile_b[k * TILE_B + own_column(own_n, 4u * c) / 4u];
            }
            for (var r = 0u; r < RM; r++) { // unroll
                for (var c = 0u; c < RN / 4u; c++) { // unroll
                    sums[r * (RN / 4u) + c] += a[r / 4u][r % 4u] * b[c];
                }
            }
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < RM; r++) { // unroll
        for (var c = 0u; c < RN; c++) { // unroll
            let m = m0 + own_row(own_m, r);
            let n = n0 + own_column(own_n, c);
            if (m < M && n < N) {
                put(batch, split, m, n, sums[r * (RN / 4u) + c / 4u][c % 4u]);
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
