// The gradients of scaled dot-product attention without the matrix of scores in memory. A share P is computed again, and
// from what arrives at it its score's gradient, dS = P (dY V' - inner) (Dao et al., 2022, algorithm 4).
//
// One kernel serves both sides. Rows are what is differentiated, columns what they meet: queries with what arrives at
// their results meet keys with values, dQ = SCALE dS K; keys with values meet queries with what arrives at their results,
// dK = SCALE dS' Q and dV = P' dY.
// include: grid.wgsl
// include: attention_columns.wgsl

const OF_KEYS = 0u; // 1: rows are keys, columns queries
const ROWS = 1u;
const OWN_A_ROW = 4u; // elements from one row to the next
const OWN_B_ROW = 4u;

@group(0) @binding(2) var<storage, read> own_a: array<vec4<f32>>; // queries, or keys
@group(0) @binding(3) var<storage, read> own_b: array<vec4<f32>>; // what arrives, or values
const STATS = 4u;
// [3, BATCHES, QUERIES]: the largest scores, the sums of exp(score - largest), those of results times what arrives.
@group(0) @binding(STATS) var<storage, read> stats: array<f32>;
const DA = 5u;
const DB = 6u;
@group(0) @binding(DA) var<storage, read_write> da: array<vec4<f32>>; // [PARTS, BATCHES, ROWS, A4]
@group(0) @binding(DB) var<storage, read_write> db: array<vec4<f32>>; // [PARTS, BATCHES, ROWS, B4], of keys

// Where a batch begins.
fn own_a_batch(batch: u32) -> u32 {
    return batch;
}

fn own_b_batch(batch: u32) -> u32 {
    return batch;
}

// A query's largest score, what its shares are multiplied by, and the sum of its result times what arrives there.
fn stats_of(batch: u32, m: u32) -> vec3<f32> {
    let place = batch * QUERIES + min(m, QUERIES - 1u);
    return vec3<f32>(stats[place], 1.0 / stats[BATCHES * QUERIES + place], stats[2u * BATCHES * QUERIES + place]);
}

// The share of a key in a query's result, from their product. Of what is not seen it is 0 whatever the query's sum.
fn share_of(batch: u32, row: u32, column: u32, product: f32, stat: vec3<f32>) -> f32 {
    let m = select(row, column, OF_KEYS == 1u);
    let n = select(column, row, OF_KEYS == 1u);
    if (column >= COLUMNS) {
        return 0.0;
    }
    let found = share(score(batch, m, n, product), stat.x);
    return select(found * stat.y, 0.0, found == 0.0);
}

// The gradient of a product, from what arrives at its share. What has no share has none, whatever arrives.
fn grad_of(own_share: f32, arriving: f32, stat: vec3<f32>) -> f32 {
    return select(SCALE * own_share * (arriving - stat.z), 0.0, own_share == 0.0);
}

// The columns of a part that may count for rows `first` to `last`, from a whole step on.
fn columns_from(part: u32, first: u32, step: u32) -> u32 {
    return select(part * RUN, max(part * RUN, first / step * step), CAUSAL == 1u && OF_KEYS == 1u);
}

fn columns_until(part: u32, last: u32) -> u32 {
    let end = min((part + 1u) * RUN, COLUMNS);
    return select(end, min(end, last + 1u), CAUSAL == 1u && OF_KEYS == 0u);
}

// Queries have no second sums.
fn keep_db(place: u32, value: vec4<f32>) {}

fn keep_db_of_keys(place: u32, value: vec4<f32>) {
    db[place] = value;
}

// --- `tiles`: for GPUs.

var<workgroup> tile_stats: array<vec3<f32>, TILE>;

fn fill_more(batch: u32, column0: u32, lane: u32) {
    if (OF_KEYS == 1u && lane < TILE) {
        tile_stats[lane] = stats_of(batch, column0 + lane);
    }
}

fn stats_of_tile(batch: u32, column0: u32, c: u32) -> vec3<f32> {
    return tile_stats[c];
}

fn stats_of_column(batch: u32, column0: u32, c: u32) -> vec3<f32> {
    return stats_of(batch, column0 + c);
}

// The sums over the invocations that share a row.
fn of_row(values: vec2<f32>) -> vec2<f32> {
    return values;
}

fn of_row_of_several(values: vec2<f32>) -> vec2<f32> {
    var sums = values;
    for (var step = 1u; step < SHARE; step *= 2u) {
        sums += subgroupShuffleXor(sums, step);
    }
    return sums;
}

@compute @workgroup_size(TILE_ROWS * SHARE)
fn tiles(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (ROWS + TILE_ROWS - 1u) / TILE_ROWS;
    let id = group_index(group, groups);
    if (id >= PARTS * BATCHES * blocks) {
        return;
    }
    let part = id / (BATCHES * blocks);
    let batch = id / blocks % BATCHES;
    let row0 = id % blocks * TILE_ROWS;
    let row = min(row0 + lane / SHARE, ROWS - 1u);
    let sharer = lane % SHARE;
    var row_a: array<vec4<f32>, A4 / SHARE>;
    for (var d = 0u; d < A4 / SHARE; d++) { // unroll
        row_a[d] = own_a[(own_a_batch(batch) + row * OWN_A_ROW) / 4u + d * SHARE + sharer];
    }
    var row_b: array<vec4<f32>, B4 / SHARE>;
    for (var e = 0u; e < B4 / SHARE; e++) { // unroll
        row_b[e] = own_b[(own_b_batch(batch) + row * OWN_B_ROW) / 4u + e * SHARE + sharer];
    }
    var stat = stats_of(batch, row);
    var a_sums: array<vec4<f32>, A4 / SHARE>;
    var b_sums: array<vec4<f32>, B4 / SHARE>;
    let end = columns_until(part, row0 + TILE_ROWS - 1u);
    for (var column0 = columns_from(part, row0, TILE); column0 < end; column0 += TILE) {
        fill_tile(batch, column0, lane);
        for (var c = 0u; c < TILE; c++) {
            var products = vec4<f32>();
            for (var d = 0u; d < A4 / SHARE; d++) { // unroll
                products += row_a[d] * a_of_tile(batch, column0, c, d * SHARE + sharer);
            }
            var arriving = vec4<f32>();
            for (var e = 0u; e < B4 / SHARE; e++) { // unroll
                arriving += row_b[e] * b_of_tile(batch, column0, c, e * SHARE + sharer);
            }
            let both = (vec2<f32>(products.x, arriving.x) + vec2<f32>(products.y, arriving.y))
                + (vec2<f32>(products.z, arriving.z) + vec2<f32>(products.w, arriving.w));
            let found = of_row(both);
            if (OF_KEYS == 1u) {
                stat = stats_of_tile(batch, column0, c);
            }
            let own_share = share_of(batch, row, column0 + c, found.x, stat);
            let grad = grad_of(own_share, found.y, stat);
            for (var d = 0u; d < A4 / SHARE; d++) { // unroll
                a_sums[d] += grad * a_of_tile(batch, column0, c, d * SHARE + sharer);
            }
            if (OF_KEYS == 1u) {
                for (var e = 0u; e < B4 / SHARE; e++) { // unroll
                    b_sums[e] += own_share * b_of_tile(batch, column0, c, e * SHARE + sharer);
                }
            }
        }
    }
    if (row0 + lane / SHARE >= ROWS) {
        return;
    }
    let place = (part * BATCHES + batch) * ROWS + row;
    for (var d = 0u; d < A4 / SHARE; d++) { // unroll
        da[place * A4 + d * SHARE + sharer] = a_sums[d];
    }
    if (OF_KEYS == 1u) {
        for (var e = 0u; e < B4 / SHARE; e++) { // unroll
            keep_db(place * B4 + e * SHARE + sharer, b_sums[e]);
        }
    }
}

// --- `lanes`: for CPU-like adapters with subgroups.

fn row_of(which: u32, i: u32) -> vec4<f32> {
    if (which == 0u) {
        return own_a[i];
    }
    return own_b[i];
}

fn row_place(which: u32, batch: u32, row: u32) -> u32 {
    let last = min(row, ROWS - 1u);
    return select(own_b_batch(batch) + last * OWN_B_ROW, own_a_batch(batch) + last * OWN_A_ROW, which == 0u) / 4u;
}

@compute @workgroup_size(8)
fn lanes(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (ROWS + LANE_ROWS - 1u) / LANE_ROWS;
    let id = group_index(group, groups);
    if (id >= PARTS * BATCHES * blocks) {
        return;
    }
    let part = id / (BATCHES * blocks);
    let batch = id / blocks % BATCHES;
    let row0 = id % blocks * LANE_ROWS;
    var own_stats: array<vec3<f32>, EIGHTS>;
    for (var e = 0u; e < EIGHTS; e++) { // unroll
        own_stats[e] = stats_of(batch, row0 + 8u * e + lane);
    }
    var a_sums: array<vec4<f32>, LANE_ROWS * OWN>;
    var b_sums: array<vec4<f32>, LANE_ROWS * OWN>;
    let end = columns_until(part, row0 + LANE_ROWS - 1u);
    for (var column0 = columns_from(part, row0, 32u); column0 < end; column0 += 32u) {
        let column = column0 + 4u * lane;
        var shares: array<vec4<f32>, LANE_ROWS>;
        products_of(0u, A4, batch, row0, lane, column, &shares);
        var grads: array<vec4<f32>, LANE_ROWS>;
        products_of(1u, B4, batch, row0, lane, column, &grads);
        for (var i = 0u; i < 4u; i++) { // unroll
            var stat = vec3<f32>();
            if (OF_KEYS == 1u) {
                stat = stats_of(batch, column + i);
            }
            for (var r = 0u; r < LANE_ROWS; r++) { // unroll
                if (OF_KEYS == 0u) {
                    stat = subgroupShuffle(own_stats[r / 8u], r % 8u);
                }
                shares[r][i] = share_of(batch, min(row0 + r, ROWS - 1u), column + i, shares[r][i], stat);
                grads[r][i] = grad_of(shares[r][i], grads[r][i], stat);
            }
        }
        add_columns(0u, A4, batch, column0, lane, &grads, &a_sums);
        if (OF_KEYS == 1u) {
            add_columns(1u, B4, batch, column0, lane, &shares, &b_sums);
        }
    }
    for (var r = 0u; r < min(LANE_ROWS, ROWS - row0); r++) {
        let place = (part * BATCHES + batch) * ROWS + row0 + r;
        for (var c = 0u; c < OWN; c++) { // unroll
            if (lane + 8u * c < A4) {
                da[place * A4 + lane + 8u * c] = row_of_sums(r, c, &a_sums);
            }
            if (OF_KEYS == 1u && lane + 8u * c < B4) {
                keep_db(place * B4 + lane + 8u * c, row_of_sums(r, c, &b_sums));
            }
        }
    }
}

// --- `in_place`: where products of whole matrices leave [BATCHES, QUERIES, KEYS], puts the shares in the place of queries
// times keys, and the products' gradients in that of what arrives times values.

@group(0) @binding(0) var<storage, read_write> products: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> arriving: array<vec4<f32>>;

@compute @workgroup_size(64)
fn in_place(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= BATCHES * QUERIES * KEYS / 4u) {
        return;
    }
    let row = i / (KEYS / 4u);
    let n = i % (KEYS / 4u) * 4u;
    let stat = stats_of(row / QUERIES, row % QUERIES);
    var shares = products[i];
    var grads = arriving[i];
    for (var e = 0u; e < 4u; e++) { // unroll
        shares[e] = share_of(row / QUERIES, row % QUERIES, n + e, shares[e], stat);
        grads[e] = grad_of(shares[e], grads[e], stat);
    }
    products[i] = shares;
    arriving[i] = grads;
}
