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

fn keep_da(place: u32, value: vec4<f32>) {
    da[place] = value;
}

fn keep_db(place: u32, value: vec4<f32>) {
    db[place] = value;
}

// What nobody asks for.
fn keep_nothing(place: u32, value: vec4<f32>) {}

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

// The sums over the invocations that share rows.
fn of_sharers(values: vec2<f32>) -> vec2<f32> {
    return values;
}

fn of_several_sharers(values: vec2<f32>) -> vec2<f32> {
    var sums = values;
    for (var step = 1u; step < SHARE; step *= 2u) {
        sums += subgroupShuffleXor(sums, step);
    }
    return sums;
}

@compute @workgroup_size(INVOCATIONS)
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
    let row = row0 + lane / SHARE * EACH;
    let sharer = lane % SHARE;
    var row_a: array<vec4<f32>, EACH * A_OWN>;
    var row_b: array<vec4<f32>, EACH * B_OWN>;
    var own_stats: array<vec3<f32>, EACH>;
    for (var r = 0u; r < EACH; r++) { // unroll
        for (var d = 0u; d < A_OWN; d++) { // unroll
            row_a[r * A_OWN + d] = own_a[row_place(0u, batch, row + r) + d * SHARE + sharer];
        }
        for (var e = 0u; e < B_OWN; e++) { // unroll
            row_b[r * B_OWN + e] = own_b[row_place(1u, batch, row + r) + e * SHARE + sharer];
        }
        if (OF_KEYS == 0u) {
            own_stats[r] = stats_of(batch, row + r);
        }
    }
    var a_sums: array<vec4<f32>, EACH * A_OWN>;
    var b_sums: array<vec4<f32>, EACH * B_OWN>;
    let end = columns_until(part, row0 + TILE_ROWS - 1u);
    for (var column0 = columns_from(part, row0, TILE); column0 < end; column0 += TILE) {
        fill_tile(batch, column0, lane);
        for (var c = 0u; c < TILE; c++) {
            var products: array<vec4<f32>, EACH>;
            for (var d = 0u; d < A_OWN; d++) { // unroll
                let column_a = a_of_tile(batch, column0, c, d * SHARE + sharer);
                for (var r = 0u; r < EACH; r++) { // unroll
                    products[r] += row_a[r * A_OWN + d] * column_a;
                }
            }
            var arriving: array<vec4<f32>, EACH>;
            for (var e = 0u; e < B_OWN; e++) { // unroll
                let column_b = b_of_tile(batch, column0, c, e * SHARE + sharer);
                for (var r = 0u; r < EACH; r++) { // unroll
                    arriving[r] += row_b[r * B_OWN + e] * column_b;
                }
            }
            var shares: array<f32, EACH>;
            var grads: array<f32, EACH>;
            for (var r = 0u; r < EACH; r++) { // unroll
                let both = (vec2<f32>(products[r].x, arriving[r].x) + vec2<f32>(products[r].y, arriving[r].y))
                    + (vec2<f32>(products[r].z, arriving[r].z) + vec2<f32>(products[r].w, arriving[r].w));
                let found = of_sharers(both);
                var stat = own_stats[r];
                if (OF_KEYS == 1u) {
                    stat = stats_of_tile(batch, column0, c);
                }
                shares[r] = share_of(batch, min(row + r, ROWS - 1u), column0 + c, found.x, stat);
                grads[r] = grad_of(shares[r], found.y, stat);
            }
            for (var d = 0u; d < A_OWN; d++) { // unroll
                let column_a = a_of_tile(batch, column0, c, d * SHARE + sharer);
                for (var r = 0u; r < EACH; r++) { // unroll
                    a_sums[r * A_OWN + d] += grads[r] * column_a;
                }
            }
            if (OF_KEYS == 1u) {
                for (var e = 0u; e < B_OWN; e++) { // unroll
                    let column_b = b_of_tile(batch, column0, c, e * SHARE + sharer);
                    for (var r = 0u; r < EACH; r++) { // unroll
                        b_sums[r * B_OWN + e] += shares[r] * column_b;
                    }
                }
            }
        }
    }
    for (var r = 0u; r < EACH; r++) { // unroll
        if (row + r < ROWS) {
            let place = (part * BATCHES + batch) * ROWS + row + r;
            for (var d = 0u; d < A_OWN; d++) { // unroll
                keep_da(place * A4 + d * SHARE + sharer, a_sums[r * A_OWN + d]);
            }
            if (OF_KEYS == 1u) {
                for (var e = 0u; e < B_OWN; e++) { // unroll
                    keep_db(place * B4 + e * SHARE + sharer, b_sums[r * B_OWN + e]);
                }
            }
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
                keep_da(place * A4 + lane + 8u * c, row_of_sums(r, c, &a_sums));
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
