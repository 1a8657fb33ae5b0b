// Matrix products by cooperative matrices: units of a GPU that multiply small matrices, one subgroup at a time. They take
// f16 or f32 and sum in f32. A workgroup is 2 x 2 subgroups with 2 x 2 such matrices each. The next tiles of the operands
// are on their way while the present ones are multiplied. K and N (and M, where A lies along it) are multiples of 4.
enable wgpu_cooperative_matrix;
enable f16;
// include: gemm.wgsl
// include: operands.wgsl

const SIZE = 16u; // rows and columns of a matrix: 8 or 16
alias Element = f16;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;

const SUBGROUP = 32u;
const THREADS = 4u * SUBGROUP;
const SIDE = 4u * SIZE;  // rows and columns of a workgroup
const DEPTH = 2u * SIZE; // steps along k whose operands are in workgroup memory: two for each barrier

// Where neighbours in memory lie along k, a tile's rows (columns) are DEPTH long, else they are SIDE long. The padding
// keeps rows aligned to 16 bytes and in different banks.
const PAD = 8u;
const PITCH_A = A_ALONG_K * DEPTH + (1u - A_ALONG_K) * SIDE + PAD;
const PITCH_B = B_ALONG_K * DEPTH + (1u - B_ALONG_K) * SIDE + PAD;
const LINES_A = A_ALONG_K * SIDE + (1u - A_ALONG_K) * DEPTH;
const LINES_B = B_ALONG_K * SIDE + (1u - B_ALONG_K) * DEPTH;
var<workgroup> left: array<Element, LINES_A * PITCH_A>;
var<workgroup> right: array<Element, LINES_B * PITCH_B>;
var<workgroup> sums: array<f32, 4u * SIZE * SIZE>; // one matrix of each subgroup

const QUADS = SIDE * DEPTH / 4u / THREADS; // vec4s of a tile that an invocation fetches
var<private> next_left: array<vec4<f32>, QUADS>;
var<private> next_right: array<vec4<f32>, QUADS>;

// The line of vec4 q of a tile, and its place there, where lines have `length` elements.
fn place(q: u32, length: u32) -> vec2<u32> {
    return vec2<u32>(q / (length / 4u), q % (length / 4u) * 4u);
}

fn fetch_matrices(batch: u32, m0: u32, n0: u32, k0: u32, end: u32, lane: u32) {
    for (var j = 0u; j < QUADS; j++) { // unroll
        let at = place(j * THREADS + lane, PITCH_A - PAD);
        let m = m0 + select(at.y, at.x, A_ALONG_K == 1u);
        let k = k0 + select(at.x, at.y, A_ALONG_K == 1u);
        next_left[j] = vec4<f32>();
        if (m < M && k < end) {
            next_left[j] = a_four((a_batch(batch) + m * A_M + k * A_K) / 4u);
        }
    }
    for (var j = 0u; j < QUADS; j++) { // unroll
        let at = place(j * THREADS + lane, PITCH_B - PAD);
        let n = n0 + select(at.y, at.x, B_ALONG_K == 1u);
        let k = k0 + select(at.x, at.y, B_ALONG_K == 1u);
        next_right[j] = vec4<f32>();
        if (n < N && k < end) {
            next_right[j] = b_four((b_batch(batch) + k * B_K + n * B_N) / 4u);
        }
    }
}

fn store_matrices(lane: u32) {
    for (var j = 0u; j < QUADS; j++) { // unroll
        let at = place(j * THREADS + lane, PITCH_A - PAD);
        for (var c = 0u; c < 4u; c++) { // unroll
            left[at.x * PITCH_A + at.y + c] = Element(next_left[j][c]);
        }
    }
    for (var j = 0u; j < QUADS; j++) { // unroll
        let at = place(j * THREADS + lane, PITCH_B - PAD);
        for (var c = 0u; c < 4u; c++) { // unroll
            right[at.x * PITCH_B + at.y + c] = Element(next_right[j][c]);
        }
    }
}

// The matrix of A at row m and step k of the tile, and that of B at step k and column n.
fn left_at(m: u32, k: u32) -> Left {
    return coopLoadT<Left>(&left[m * PITCH_A + k], PITCH_A);
}

fn left_along_m(m: u32, k: u32) -> Left {
    return coopLoad<Left>(&left[k * PITCH_A + m], PITCH_A);
}

fn right_at(k: u32, n: u32) -> Right {
    return coopLoadT<Right>(&right[k * PITCH_B + n], PITCH_B);
}

fn right_along_k(k: u32, n: u32) -> Right {
    return coopLoad<Right>(&right[n * PITCH_B + k], PITCH_B);
}

// Puts what is in `sums` where it belongs: matrix (r, c) of each subgroup.
fn put_matrices(batch: u32, split: u32, m0: u32, n0: u32, r: u32, c: u32, lane: u32) {
    workgroupBarrier();
    for (var i = lane; i < 4u * SIZE * SIZE; i += THREADS) {
        let subgroup = i / (SIZE * SIZE);
        let m = m0 + (subgroup / 2u * 2u + r) * SIZE + i / SIZE % SIZE;
        let n = n0 + (subgroup % 2u * 2u + c) * SIZE + i % SIZE;
        if (m < M && n < N) {
            var start = 0.0;
            if (split == 0u) {
                start = row_start(batch, m) + column_start(batch, n);
            }
            put(batch, split, m, n, start + sums[i]);
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn matrices(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let columns = (N + SIDE - 1u) / SIDE;
    let rows = (M + SIDE - 1u) / SIDE;
    // `group_index` in place: naga takes what a function returns for different in each invocation.
    let id = (group.z * groups.y + group.y) * groups.x + group.x;
    if (id >= columns * rows * SPLITS * BATCHES) {
        return;
    }
    let n0 = id % columns * SIDE;
    let m0 = id / columns % rows * SIDE;
    let split = id / (columns * rows) % SPLITS;
    let batch = id / (columns * rows * SPLITS);
    let range = split_range(split);
    let own_m = subgroup / 2u * 2u * SIZE;
    let own_n = subgroup % 2u * 2u * SIZE;
    var sum_00 = Sum();
    var sum_01 = Sum();
    var sum_10 = Sum();
    var sum_11 = Sum();
    fetch_matrices(batch, m0, n0, range.x, range.y, lane);
    for (var k0 = range.x; k0 < range.y; k0 += DEPTH) {
        store_matrices(lane);
        workgroupBarrier();
        fetch_matrices(batch, m0, n0, k0 + DEPTH, range.y, lane);
        for (var k = 0u; k < DEPTH; k += SIZE) {
            let a_0 = left_at(own_m, k);
            let a_1 = left_at(own_m + SIZE, k);
            let b_0 = right_at(k, own_n);
            let b_1 = right_at(k, own_n + SIZE);
            sum_00 = coopMultiplyAdd(a_0, b_0, sum_00);
            sum_01 = coopMultiplyAdd(a_0, b_1, sum_01);
            sum_10 = coopMultiplyAdd(a_1, b_0, sum_10);
            sum_11 = coopMultiplyAdd(a_1, b_1, sum_11);
        }
        workgroupBarrier();
    }
    let own = subgroup * SIZE * SIZE;
    coopStoreT(sum_00, &sums[own], SIZE);
    put_matrices(batch, split, m0, n0, 0u, 0u, lane);
    coopStoreT(sum_01, &sums[own], SIZE);
    put_matrices(batch, split, m0, n0, 0u, 1u, lane);
    coopStoreT(sum_10, &sums[own], SIZE);
    put_matrices(batch, split, m0, n0, 1u, 0u, lane);
    coopStoreT(sum_11, &sums[own], SIZE);
    put_matrices(batch, split, m0, n0, 1u, 1u, lane);
}
