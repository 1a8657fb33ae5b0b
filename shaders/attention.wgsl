// Scaled dot-product attention, softmax(SCALE q k' + mask) v, in one pass over the keys: what is summed so far shrinks
// when a larger score turns up (Milakov and Gimelshein, 2018; Dao et al., 2022), so that no score goes to memory.
// include: grid.wgsl
// include: attention_columns.wgsl
// include: team.wgsl

const Q_ROW = 4u; // elements from one query to the next

// Rows are queries; their columns are keys (a) with values (b).
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;

const Y = 3u;
const STATS = 4u;
@group(0) @binding(Y) var<storage, read_write> y: array<vec4<f32>>; // [BATCHES, QUERIES, B4]
// [2, BATCHES, QUERIES]: the largest scores, and the sums of exp(score - largest).
@group(0) @binding(STATS) var<storage, read_write> stats: array<f32>;

// Where a batch begins.
fn q_batch(batch: u32) -> u32 {
    return batch;
}

fn row_of(which: u32, i: u32) -> vec4<f32> {
    return q[i];
}

fn row_place(which: u32, batch: u32, row: u32) -> u32 {
    return (q_batch(batch) + min(row, QUERIES - 1u) * Q_ROW) / 4u;
}

fn fill_more(batch: u32, column0: u32, lane: u32) {}

// Of a query that sees nothing the result is 0, and so are its shares when they are computed again from the sum. Largest
// score and sum stay apart: a logarithm would be lost beside a large score.
fn keep(place: u32, most: f32, sum: f32) {
    stats[place] = most;
    stats[BATCHES * QUERIES + place] = select(sum, 1.0, sum == 0.0);
}

fn inverse(sum: f32) -> f32 {
    return select(1.0 / sum, 0.0, sum == 0.0);
}

// What one of several parts of the keys has found goes to memory as it is: sums [PARTS, BATCHES, QUERIES, B4], and largest
// scores and totals [2, PARTS, BATCHES, QUERIES]. `merge` puts it together.
fn keep_of_part(place: u32, most: f32, sum: f32) {
    if (PARTS == 1u) {
        keep(place, most, sum);
    } else {
        stats[place] = most;
        stats[PARTS * BATCHES * QUERIES + place] = sum;
    }
}

fn inverse_of_part(sum: f32) -> f32 {
    return select(1.0, inverse(sum), PARTS == 1u);
}

// Behind the last of a part's keys that some query up to `m` sees.
fn keys_until(part: u32, m: u32) -> u32 {
    let end = min((part + 1u) * RUN, COLUMNS);
    return select(end, min(end, m + 1u), CAUSAL == 1u);
}

// --- `tiles`: for GPUs.

// The sum over the invocations that share queries.
fn of_sharers(value: f32) -> f32 {
    return value;
}

fn of_several_sharers(value: f32) -> f32 {
    var sum = value;
    for (var step = 1u; step < SHARE; step *= 2u) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}

@compute @workgroup_size(INVOCATIONS)
fn tiles(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (QUERIES + TILE_ROWS - 1u) / TILE_ROWS;
    let id = group_index(group, groups);
    if (id >= PARTS * BATCHES * blocks) {
        return;
    }
    let part = id / (BATCHES * blocks);
    let batch = id / blocks % BATCHES;
    let m0 = id % blocks * TILE_ROWS;
    let row = m0 + lane / SHARE * EACH;
    let sharer = lane % SHARE;
    var own: array<vec4<f32>, EACH * A_OWN>;
    for (var r = 0u; r < EACH; r++) { // unroll
        let place = row_place(0u, batch, row + r);
        for (var d = 0u; d < A_OWN; d++) { // unroll
            own[r * A_OWN + d] = q[place + d * SHARE + sharer];
        }
    }
    var sums: array<vec4<f32>, EACH * B_OWN>;
    var most: array<f32, EACH>;
    var sum: array<f32, EACH>;
    for (var r = 0u; r < EACH; r++) { // unroll
        most[r] = NOTHING;
    }
    for (var n0 = part * RUN; n0 < keys_until(part, m0 + TILE_ROWS - 1u); n0 += TILE) {
        fill_tile(batch, n0, lane);
        for (var n = 0u; n < TILE; n++) {
            var products: array<vec4<f32>, EACH>;
            for (var d = 0u; d < A_OWN; d++) { // unroll
                let key = a_of_tile(batch, n0, n, d * SHARE + sharer);
                for (var r = 0u; r < EACH; r++) { // unroll
                    products[r] += own[r * A_OWN + d] * key;
                }
            }
            var shares: array<f32, EACH>;
            for (var r = 0u; r < EACH; r++) { // unroll
                let product = of_sharers((products[r].x + products[r].y) + (products[r].z + products[r].w));
                let found = score(batch, min(row + r, QUERIES - 1u), n0 + n, product);
                if (!(found <= most[r])) {
                    let shrunk = exp(most[r] - found);
                    most[r] = found;
                    sum[r] *= shrunk;
                    for (var c = 0u; c < B_OWN; c++) { // unroll
                        sums[r * B_OWN + c] *= shrunk;
                    }
                }
                shares[r] = share(found, most[r]);
                sum[r] += shares[r];
            }
            for (var c = 0u; c < B_OWN; c++) { // unroll
                let value = b_of_tile(batch, n0, n, c * SHARE + sharer);
                for (var r = 0u; r < EACH; r++) { // unroll
                    sums[r * B_OWN + c] += shares[r] * value;
                }
            }
        }
    }
    for (var r = 0u; r < EACH; r++) { // unroll
        if (row + r < QUERIES) {
            let place = (part * BATCHES + batch) * QUERIES + row + r;
            for (var c = 0u; c < B_OWN; c++) { // unroll
                y[place * B4 + c * SHARE + sharer] = sums[r * B_OWN + c] * inverse_of_part(sum[r]);
            }
            if (sharer == 0u) {
                keep_of_part(place, most[r], sum[r]);
            }
        }
    }
}

// --- `few`: for GPUs and a few queries. A workgroup takes one of them, WIDTH keys at a time: four invocations multiply a
// key; then each has the share of one key, and at last a vec4 of the sum over every GROUPS-th key.

const GROUPS = WIDTH / B4;

var<workgroup> fours: array<vec4<f32>, WIDTH>;
var<workgroup> shares: array<f32, WIDTH>;

// What every fourth vec4 from `quarter` on adds to the products of query m with keys n to n + 3.
fn quarter_of_products(batch: u32, m: u32, n: u32, quarter: u32) -> vec4<f32> {
    var products: array<vec4<f32>, 4>;
    for (var d = quarter; d < A4; d += 4u) {
        let own = q[(q_batch(batch) + m * Q_ROW) / 4u + d];
        for (var i = 0u; i < 4u; i++) { // unroll
            products[i] += own * a[column_place(0u, batch, n + i) + d];
        }
    }
    var sums = vec4<f32>();
    for (var i = 0u; i < 4u; i++) { // unroll
        sums[i] = (products[i].x + products[i].y) + (products[i].z + products[i].w);
    }
    return sums;
}

@compute @workgroup_size(WIDTH)
fn few(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups);
    if (id >= PARTS * BATCHES * QUERIES) {
        return;
    }
    let m = id % QUERIES;
    let batch = id / QUERIES % BATCHES;
    let part = id / (BATCHES * QUERIES);
    let end = keys_until(part, m);
    let team = lane / 4u * 4u;
    var result = vec4<f32>();
    var most = NOTHING;
    var own_sum = 0.0;
    for (var n0 = part * RUN; n0 < end; n0 += WIDTH) {
        fours[lane] = quarter_of_products(batch, m, n0 + team, lane % 4u);
        workgroupBarrier();
        let i = lane % 4u;
        let product = (fours[team][i] + fours[team + 1u][i]) + (fours[team + 2u][i] + fours[team + 3u][i]);
        let found = select(NOTHING, score(batch, m, n0 + lane, product), n0 + lane < end);
        let now_most = max(most, all_max(lane, found));
        let shrunk = exp(most - now_most);
        most = now_most;
        let own_share = share(found, most);
        own_sum = own_sum * shrunk + own_share;
        shares[lane] = own_share;
        workgroupBarrier();
        result *= shrunk;
        if (lane < GROUPS * B4) {
            for (var n = lane / B4; n < min(WIDTH, end - n0); n += GROUPS) {
                result += shares[n] * b[column_place(1u, batch, n0 + n) + lane % B4];
            }
        }
    }
    let sum = all_sum(lane, own_sum);
    fours[lane] = result;
    workgroupBarrier();
    if (lane < B4) {
        var total = vec4<f32>();
        for (var g = 0u; g < GROUPS; g++) {
            total += fours[g * B4 + lane];
        }
        y[id * B4 + lane] = total * inverse_of_part(sum);
    }
    if (lane == 0u) {
        keep_of_part(id, most, sum);
    }
}

// --- `merge`

@group(0) @binding(0) var<storage, read> part_sums: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> part_stats: array<f32>;

@compute @workgroup_size(64)
fn merge(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    let count = BATCHES * QUERIES;
    let place = i / B4;
    if (place >= count) {
        return;
    }
    var most = part_stats[place];
    for (var p = 1u; p < PARTS; p++) {
        most = max(most, part_stats[p * count + place]);
    }
    var sum = 0.0;
    var result = vec4<f32>();
    for (var p = 0u; p < PARTS; p++) {
        let shrunk = exp(part_stats[p * count + place] - most);
        sum += shrunk * part_stats[(PARTS + p) * count + place];
        result += shrunk * part_sums[p * count * B4 + i];
    }
    y[i] = result * inverse(sum);
    if (i % B4 == 0u) {
        keep(place, most, sum);
    }
}

// --- `lanes`: for CPU-like adapters with subgroups.

fn max_of_lanes(value: f32) -> f32 {
    let two = max(value, subgroupShuffleXor(value, 1u));
    let four = max(two, subgroupShuffleXor(two, 2u));
    return max(four, subgroupShuffleXor(four, 4u));
}

fn sum_of_lanes(value: f32) -> f32 {
    let two = value + subgroupShuffleXor(value, 1u);
    let four = two + subgroupShuffleXor(two, 2u);
    return four + subgroupShuffleXor(four, 4u);
}

@compute @workgroup_size(8)
fn lanes(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (QUERIES + LANE_ROWS - 1u) / LANE_ROWS;
    let id = group_index(group, groups);
    if (id >= PARTS * BATCHES * blocks) {
        return;
    }
    let part = id / (BATCHES * blocks);
    let batch = id / blocks % BATCHES;
    let m0 = id % blocks * LANE_ROWS;
    var most: array<f32, LANE_ROWS>;
    var sum: array<f32, LANE_ROWS>; // of the lane's own keys
    var sums: array<vec4<f32>, LANE_ROWS * OWN>;
    for (var r = 0u; r < LANE_ROWS; r++) { // unroll
        most[r] = NOTHING;
    }
    for (var n0 = part * RUN; n0 < keys_until(part, m0 + LANE_ROWS - 1u); n0 += 32u) {
        let n = n0 + 4u * lane;
        var scores: array<vec4<f32>, LANE_ROWS>;
        products_of(0u, A4, batch, m0, lane, n, &scores);
        for (var r = 0u; r < LANE_ROWS; r++) { // unroll
            var found = scores[r];
            for (var i = 0u; i < 4u; i++) { // unroll
                found[i] = score(batch, min(m0 + r, QUERIES - 1u), n + i, found[i]);
            }
            let largest = max(most[r], max_of_lanes(max(max(found.x, found.y), max(found.z, found.w))));
            let shrunk = exp(most[r] - largest);
            for (var i = 0u; i < 4u; i++) { // unroll
                found[i] = share(found[i], largest);
            }
            most[r] = largest;
            sum[r] = sum[r] * shrunk + ((found.x + found.y) + (found.z + found.w));
            scores[r] = found;
            for (var c = 0u; c < OWN; c++) { // unroll
                sums[r * OWN + c] *= shrunk;
            }
        }
        add_columns(1u, B4, batch, n0, lane, &scores, &sums);
    }
    for (var r = 0u; r < min(LANE_ROWS, QUERIES - m0); r++) {
        var own_sum = 0.0;
        var own_most = 0.0;
        for (var other = 0u; other < LANE_ROWS; other++) { // unroll
            own_sum = select(own_sum, sum[other], r == other);
            own_most = select(own_most, most[other], r == other);
        }
        own_sum = sum_of_lanes(own_sum);
        let place = (part * BATCHES + batch) * QUERIES + m0 + r;
        for (var c = 0u; c < OWN; c++) { // unroll
            if (lane + 8u * c < B4) {
                y[place * B4 + lane + 8u * c] = row_of_sums(r, c, &sums) * inverse_of_part(own_sum);
            }
        }
        if (lane == 0u) {
            keep_of_part(place, own_most, own_sum);
        }
    }
}
