// Batched matrix product of strided operands, f32 or f16, [BATCHES, M, K] x [BATCHES, K, N] -> [BATCHES, M, N].
// include: grid.wgsl
// include: gemm.wgsl
// include: operands.wgsl
// include: team.wgsl

// --- What `tile` reads and writes in vec4s.

fn a_four_at_once(batch: u32, m: u32, k: u32, end: u32) -> vec4<f32> {
    if (k < end && m < M) {
        return a_four((a_batch(batch) + m * A_M + k * A_K) / 4u);
    }
    return vec4<f32>();
}

fn b_four_at_once(batch: u32, k: u32, n: u32, end: u32) -> vec4<f32> {
    if (k < end && n < N) {
        return b_four((b_batch(batch) + k * B_K + n * B_N) / 4u);
    }
    return vec4<f32>();
}

fn put_four_at_once(batch: u32, split: u32, m: u32, n0: u32, own: u32, q: u32, four: vec4<f32>) {
    let n = n0 + own_column(own, 4u * q);
    if (n < N) {
        put4(batch, split, m, n, four);
    }
}

// --- `quads`: for CPU-like adapters, where four neighbours in memory are loaded and stored as fast as one. A workgroup
// is one SIMD vector; a lane has QUAD_ROWS x 4 results in registers and takes four steps along k at a time, so that
// every operand is read in vec4s whichever way it lies. K and N (and M, if A is transposed) are multiples of 4.

const QUAD_ROWS = 12u; // 48 accumulators; the loop's code still fits into a CPU's cache of decoded instructions
const QUAD_LOADS = (QUAD_ROWS + LANES - 1u) / LANES;

@group(0) @binding(2) var<storage, read_write> y4: array<vec4<f32>>;

// The tile of A at (m, k) consists of as many quads as rows: row q, steps k to k + 3;
fn a_quad(batch: u32, m: u32, k: u32, q: u32) -> vec4<f32> {
    return a_four((a_batch(batch) + min(m + q, M - 1u) * A_M + k) / 4u);
}

// or, where A is transposed, step k + q % 4, rows 4 (q / 4) to 4 (q / 4) + 3.
fn a_quad_along_m(batch: u32, m: u32, k: u32, q: u32) -> vec4<f32> {
    return a_four((a_batch(batch) + (k + q % 4u) * A_K + min(m + q / 4u * 4u, M - 4u)) / 4u);
}

// Columns n to n + 3 of step k + i of B, for i from 0 to 3.
fn b_quads(batch: u32, k: u32, n: u32) -> array<vec4<f32>, 4> {
    let first = (b_batch(batch) + k * B_K + n) / 4u;
    let step = B_K / 4u;
    return array<vec4<f32>, 4>(b_four(first), b_four(first + step), b_four(first + 2u * step), b_four(first + 3u * step));
}

fn b_quads_along_k(batch: u32, k: u32, n: u32) -> array<vec4<f32>, 4> {
    let first = (b_batch(batch) + n * B_N + k) / 4u;
    let p = b_four(first);
    let q = b_four(first + B_N / 4u);
    let r = b_four(first + B_N / 2u);
    let s = b_four(first + B_N / 4u * 3u);
    return array<vec4<f32>, 4>(
        vec4<f32>(p.x, q.x, r.x, s.x),
        vec4<f32>(p.y, q.y, r.y, s.y),
        vec4<f32>(p.z, q.z, r.z, s.z),
        vec4<f32>(p.w, q.w, r.w, s.w),
    );
}

// The same from panels of QUAD_ROWS rows of A, or of 32 columns of B, as `pack` lays them out.
fn a_quad_of_panel(batch: u32, m: u32, k: u32, q: u32) -> vec4<f32> {
    return a_four((m * K + (k + q % 4u) * QUAD_ROWS + min(q / 4u * 4u, M - 4u - m)) / 4u);
}

fn b_quads_of_panel(batch: u32, k: u32, n: u32) -> array<vec4<f32>, 4> {
    let first = (n / 32u * 32u * K + k * 32u + n % 32u) / 4u;
    return array<vec4<f32>, 4>(b_four(first), b_four(first + 8u), b_four(first + 16u), b_four(first + 24u));
}

// What the sums of columns n to n + 3 start from.
fn column_starts(batch: u32, n: u32) -> vec4<f32> {
    return vec4<f32>(
        column_start(batch, n),
        column_start(batch, n + 1u),
        column_start(batch, n + 2u),
        column_start(batch, n + 3u),
    );
}

fn put4(batch: u32, split: u32, m: u32, n: u32, v: vec4<f32>) {
    let i = (batch * M + m) * N + n;
    if (SPLITS == 1u) {
        y4[i / 4u] = vec4<f32>(epilogue(v.x, i), epilogue(v.y, i + 1u), epilogue(v.z, i + 2u), epilogue(v.w, i + 3u));
    } else {
        y4[(split * BATCHES * M * N + i) / 4u] = v;
    }
}

@compute @workgroup_size(8)
fn quads(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let columns = (N + 31u) / 32u;
    let rows = (M + QUAD_ROWS - 1u) / QUAD_ROWS;
    let id = group_index(group, groups);
    if (id >= columns * rows * SPLITS * BATCHES) {
        return;
    }
    let own = id % columns * 32u + lane * 4u;
    let n = min(own, N - 4u);
    let m0 = id / columns % rows * QUAD_ROWS;
    let split = id / (columns * rows) % SPLITS;
    let batch = id / (columns * rows * SPLITS);
    var start = vec4<f32>();
    if (split == 0u) {
        start = column_starts(batch, n);
    }
    var sums: array<vec4<f32>, QUAD_ROWS>;
    for (var r = 0u; r < QUAD_ROWS; r++) { // unroll
        sums[r] = start;
    }
    let range = split_range(split);
    for (var k = range.x; k < range.y; k += 4u) {
        var a: array<vec4<f32>, QUAD_LOADS>;
        for (var j = 0u; j < QUAD_LOADS; j++) { // unroll
            a[j] = a_quad(batch, m0, k, min(j * LANES + lane % LANES, QUAD_ROWS - 1u));
        }
        let b = b_quads(batch, k, n);
        for (var r = 0u; r < QUAD_ROWS; r++) { // unroll
            // All four steps of a sum in one go, so that it stays in a register meanwhile.
            for (var i = 0u; i < 4u; i++) { // unroll
                // Which quad has row r at step k + i, and where.
                const quad = select(r / 4u * 4u + i, r, A_ALONG_K == 1u);
                const at = select(r % 4u, i, A_ALONG_K == 1u);
                sums[r] += from_lane(a[quad / LANES][at], quad % LANES) * b[i];
            }
        }
    }
    if (own >= N) {
        return;
    }
    // A loop at run time: a driver may take milliseconds to compile each store.
    for (var r = 0u; r < min(QUAD_ROWS, M - m0); r++) {
        var sum = vec4<f32>();
        for (var other = 0u; other < QUAD_ROWS; other++) { // unroll
            sum = select(sum, sums[other], r == other);
        }
        put4(batch, split, m0 + r, n, sum);
    }
}

// --- `pack`: a matrix [K, LINE] whose rows lie A_K apart, as panels [K, PANEL] one behind the other, in which `quads` goes
// from one step along k to the next in small strides. Where rows are long, a CPU's caches serve it better so.

const LINE = 4u;   // a multiple of 4
const PANEL = 32u; // a multiple of 4; columns of the last panel that are behind LINE are neither written nor read
const STEPS = 32u; // along k for each panel in turn

@group(0) @binding(1) var<storage, read_write> panels: array<vec4<f32>>;

@compute @workgroup_size(64)
fn pack(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    let across = PANEL / 4u;
    let of_steps = across * STEPS;
    let of_all = (LINE + PANEL - 1u) / PANEL * of_steps;
    let panel = i % of_all / of_steps;
    let k = i / of_all * STEPS + i % of_steps / across;
    let column = panel * PANEL + i % across * 4u;
    if (k < K && column < LINE) {
        panels[(panel * K + k) * across + i % across] = a_four((a_batch(0u) + k * A_K + column) / 4u);
    }
}

// --- `dots` and `columns`: for a few rows of A, where only the memory's speed counts and B is read once. K and N are
// multiples of 4.

const FEW = 1u; // rows, all of them

// Where B lies along k: a workgroup for each column.
@compute @workgroup_size(WIDTH)
fn dots(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups);
    if (id >= N * BATCHES) {
        return;
    }
    let batch = id / N;
    let n = id % N;
    var sums: array<vec4<f32>, FEW>;
    for (var k = 4u * lane; k < K; k += 4u * WIDTH) {
        let b = b_four((b_batch(batch) + n * B_N + k) / 4u);
        for (var r = 0u; r < FEW; r++) { // unroll
            sums[r] += a_four((a_batch(batch) + r * A_M + k) / 4u) * b;
        }
    }
    for (var r = 0u; r < FEW; r++) { // unroll
        let sum = all_sum(lane, (sums[r].x + sums[r].y) + (sums[r].z + sums[r].w));
        if (lane == 0u) {
            put(batch, 0u, r, n, sum + column_start(batch, n));
        }
    }
}

const PIECE = 1u; // vec4s that are loaded at once
alias Piece = array<vec4<f32>, PIECE>;
@group(0) @binding(1) var<storage, read> b_pieces: array<Piece>; // b

// The piece that begins with the i-th element.
fn b_piece(i: u32) -> Piece {
    return Piece(b_four(i / 4u));
}

fn b_piece_of_two(i: u32) -> Piece {
    return b_pieces[i / 8u];
}

const BLOCK = 1u; // pieces of columns for each invocation
const SPAN = 1u;  // neighbours that share as many times BLOCK of them, and read as long a stretch of each row at once
const OWNERS = 64u; // invocations of a workgroup

// Where it lies along n: an invocation for BLOCK pieces of columns.
@compute @workgroup_size(OWNERS)
fn columns(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let width = 4u * PIECE;
    let stretches = (N + width * OWNERS * BLOCK - 1u) / (width * OWNERS * BLOCK);
    let id = group_index(group, groups);
    let first = width * (id % stretches * (OWNERS * BLOCK) + lane / SPAN * (SPAN * BLOCK) + lane % SPAN);
    let split = id / stretches % SPLITS;
    let batch = id / (stretches * SPLITS);
    if (batch >= BATCHES || first >= N) {
        return;
    }
    var sums: array<vec4<f32>, FEW * BLOCK * PIECE>;
    if (split == 0u) {
        for (var c = 0u; c < BLOCK * PIECE; c++) { // unroll
            let n = column(first, c);
            let start = column_starts(batch, n);
            for (var r = 0u; r < FEW; r++) { // unroll
                sums[r * BLOCK * PIECE + c] = start;
            }
        }
    }
    let range = split_range(split);
    for (var k = range.x; k < range.y; k++) {
        let row = b_batch(batch) + k * B_K;
        for (var c = 0u; c < BLOCK; c++) { // unroll
            let b = b_piece(row + column(first, c * PIECE));
            for (var r = 0u; r < FEW; r++) { // unroll
                for (var i = 0u; i < PIECE; i++) { // unroll
                    sums[(r * BLOCK + c) * PIECE + i] += a_at(batch, r, k) * b[i];
                }
            }
        }
    }
    for (var r = 0u; r < FEW; r++) { // unroll
        for (var c = 0u; c < BLOCK * PIECE; c++) { // unroll
            put4(batch, split, r, column(first, c), sums[r * BLOCK * PIECE + c]);
        }
    }
}

// Where the c-th vec4 of an invocation begins, whose first piece begins at `first`.
fn column(first: u32, c: u32) -> u32 {
    return first + 4u * (c / PIECE * SPAN * PIECE + c % PIECE);
}
