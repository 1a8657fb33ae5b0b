// Scaled dot-product attention, softmax(SCALE q k' + mask) v, in one pass over the keys: what is summed so far shrinks
// when a larger score turns up (Milakov and Gimelshein, 2018; Dao et al., 2022), so that no score goes to memory.
// include: grid.wgsl
// include: math.wgsl
// include: team.wgsl

const BATCHES = 1u;
const QUERIES = 1u;
const KEYS = 1u;
const Q4 = 1u; // vec4s of a query, and of a key
const V4 = 1u; // vec4s of a value
const Q_ROW = 4u; // elements from one query to the next
const K_ROW = 4u;
const V_ROW = 4u;
const SCALE = 1.0;
const CAUSAL = 0u; // 1: query m sees keys 0 to m

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // [BATCHES, QUERIES, V4]
@group(0) @binding(4) var<storage, read_write> largest: array<f32>; // [BATCHES, QUERIES], of the scores
@group(0) @binding(5) var<storage, read_write> totals: array<f32>; // [BATCHES, QUERIES], of exp(score - largest)

const MASK = 6u;
@group(0) @binding(MASK) var<storage, read> masks: array<f32>;

// Where a batch begins.
fn q_batch(batch: u32) -> u32 {
    return batch;
}

fn k_batch(batch: u32) -> u32 {
    return batch;
}

fn v_batch(batch: u32) -> u32 {
    return batch;
}

// Where the mask has what goes to element i of the scores [BATCHES, QUERIES, KEYS].
fn mask_place(i: u32) -> u32 {
    return i;
}

fn mask(i: u32) -> f32 {
    return 0.0;
}

fn mask_given(i: u32) -> f32 {
    return masks[mask_place(i)];
}

// A score that counts for nothing; finite, since shaders may take infinities for anything.
const NOTHING = -1e30;

fn score(batch: u32, m: u32, n: u32, product: f32) -> f32 {
    if (n >= KEYS || (CAUSAL == 1u && n > m)) {
        return NOTHING;
    }
    return max_(SCALE * product + mask((batch * QUERIES + m) * KEYS + n), NOTHING);
}

fn share(score: f32, most: f32) -> f32 {
    return select(exp(score - most), 0.0, score <= NOTHING);
}

// Of a query that sees nothing the result is 0, and so are its shares when they are computed again from the sum. Largest
// score and sum stay apart: a logarithm would be lost beside a large score.
fn keep(place: u32, most: f32, sum: f32) {
    largest[place] = most;
    totals[place] = select(sum, 1.0, sum == 0.0);
}

fn inverse(sum: f32) -> f32 {
    return select(1.0 / sum, 0.0, sum == 0.0);
}

// The keys that some query up to `m` sees.
fn keys_until(m: u32) -> u32 {
    return select(KEYS, min(KEYS, m + 1u), CAUSAL == 1u);
}

// --- `tiles`: for GPUs. A workgroup takes TILE_ROWS queries, SHARE invocations one of them, with its sums in registers;
// the keys and values of a tile are shared through workgroup memory, where all invocations read the same at a time.

const TILE_ROWS = 64u;
const TILE_KEYS = 32u;
const SHARE = 1u; // neighbours of which each multiplies, and sums, every SHARE-th vec4

var<workgroup> tile_k: array<vec4<f32>, TILE_KEYS * Q4>;
var<workgroup> tile_v: array<vec4<f32>, TILE_KEYS * V4>;

// The sum over the invocations that share a query.
fn of_query(value: f32) -> f32 {
    return value;
}

fn of_query_of_two(value: f32) -> f32 {
    return value + subgroupShuffleXor(value, 1u);
}

@compute @workgroup_size(TILE_ROWS * SHARE)
fn tiles(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (QUERIES + TILE_ROWS - 1u) / TILE_ROWS;
    let id = group_index(group, groups);
    if (id >= blocks * BATCHES) {
        return;
    }
    let batch = id / blocks;
    let m0 = id % blocks * TILE_ROWS;
    let row = m0 + lane / SHARE;
    let m = min(row, QUERIES - 1u);
    let part = lane % SHARE;
    var own: array<vec4<f32>, Q4 / SHARE>;
    for (var d = 0u; d < Q4 / SHARE; d++) { // unroll
        own[d] = q[(q_batch(batch) + m * Q_ROW) / 4u + d * SHARE + part];
    }
    var sums: array<vec4<f32>, V4 / SHARE>;
    var most = NOTHING;
    var sum = 0.0;
    for (var n0 = 0u; n0 < keys_until(m0 + TILE_ROWS - 1u); n0 += TILE_KEYS) {
        for (var e = lane; e < TILE_KEYS * Q4; e += TILE_ROWS * SHARE) {
            tile_k[e] = k[(k_batch(batch) + min(n0 + e / Q4, KEYS - 1u) * K_ROW) / 4u + e % Q4];
        }
        for (var e = lane; e < TILE_KEYS * V4; e += TILE_ROWS * SHARE) {
            // Zeros behind the last: no share of an infinity is 0.
            let value = v[(v_batch(batch) + min(n0 + e / V4, KEYS - 1u) * V_ROW) / 4u + e % V4];
            tile_v[e] = select(vec4<f32>(), value, n0 + e / V4 < KEYS);
        }
        workgroupBarrier();
        for (var n = 0u; n < TILE_KEYS; n++) {
            var products = vec4<f32>();
            for (var d = 0u; d < Q4 / SHARE; d++) { // unroll
                products += own[d] * tile_k[n * Q4 + d * SHARE + part];
            }
            let product = of_query((products.x + products.y) + (products.z + products.w));
            let found = score(batch, m, n0 + n, product);
            if (!(found <= most)) {
                let shrunk = exp(most - found);
                most = found;
                sum *= shrunk;
                for (var c = 0u; c < V4 / SHARE; c++) { // unroll
                    sums[c] *= shrunk;
                }
            }
            let own_share = share(found, most);
            sum += own_share;
            for (var c = 0u; c < V4 / SHARE; c++) { // unroll
                sums[c] += own_share * tile_v[n * V4 + c * SHARE + part];
            }
        }
        workgroupBarrier();
    }
    if (row >= QUERIES) {
        return;
    }
    let place = batch * QUERIES + m;
    for (var c = 0u; c < V4 / SHARE; c++) { // unroll
        y[place * V4 + c * SHARE + part] = sums[c] * inverse(sum);
    }
    if (part == 0u) {
        keep(place, most, sum);
    }
}

// --- `few`: for GPUs and a few queries. A workgroup takes one of them and one of PARTS parts of its keys, WIDTH of these
// at a time: four invocations multiply a key; then each has the share of one key, and at last a vec4 of the sum over every
// GROUPS-th key. What several parts find goes to memory as it is, and `merge` puts it together.

const PARTS = 1u;
const GROUPS = WIDTH / V4;

var<workgroup> fours: array<vec4<f32>, WIDTH>;
var<workgroup> shares: array<f32, WIDTH>;

// What every fourth vec4 from `quarter` on adds to the products of query m with keys n to n + 3.
fn quarter_of_products(batch: u32, m: u32, n: u32, quarter: u32) -> vec4<f32> {
    var products: array<vec4<f32>, 4>;
    for (var d = quarter; d < Q4; d += 4u) {
        let own = q[(q_batch(batch) + m * Q_ROW) / 4u + d];
        for (var i = 0u; i < 4u; i++) { // unroll
            products[i] += own * k[(k_batch(batch) + min(n + i, KEYS - 1u) * K_ROW) / 4u + d];
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
    let run = (KEYS + PARTS - 1u) / PARTS;
    let first = id / (QUERIES * BATCHES) * run;
    let end = min(first + run, keys_until(m));
    let team = lane / 4u * 4u;
    var result = vec4<f32>();
    var most = NOTHING;
    var own_sum = 0.0;
    for (var n0 = first; n0 < end; n0 += WIDTH) {
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
        if (lane < GROUPS * V4) {
            for (var n = lane / V4; n < min(WIDTH, end - n0); n += GROUPS) {
                result += shares[n] * v[(v_batch(batch) + (n0 + n) * V_ROW) / 4u + lane % V4];
            }
        }
    }
    let sum = all_sum(lane, own_sum);
    fours[lane] = result;
    workgroupBarrier();
    if (lane < V4) {
        var total = vec4<f32>();
        for (var g = 0u; g < GROUPS; g++) {
            total += fours[g * V4 + lane];
        }
        y[id * V4 + lane] = total * select(1.0, inverse(sum), PARTS == 1u);
    }
    if (lane == 0u && PARTS == 1u) {
        keep(id, most, sum);
    } else if (lane == 0u) {
        largest[id] = most;
        totals[id] = sum;
    }
}

// What the parts have found, [PARTS, BATCHES, QUERIES] each.
@group(0) @binding(0) var<storage, read> part_sums: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> part_largest: array<f32>;
@group(0) @binding(2) var<storage, read> part_totals: array<f32>;

@compute @workgroup_size(64)
fn merge(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    let count = BATCHES * QUERIES;
    let place = i / V4;
    if (place >= count) {
        return;
    }
    var most = part_largest[place];
    for (var p = 1u; p < PARTS; p++) {
        most = max(most, part_largest[p * count + place]);
    }
    var sum = 0.0;
    var result = vec4<f32>();
    for (var p = 0u; p < PARTS; p++) {
        let shrunk = exp(part_largest[p * count + place] - most);
        sum += shrunk * part_totals[p * count + place];
        result += shrunk * part_sums[p * count * V4 + i];
    }
    y[i] = result * inverse(sum);
    if (i % V4 == 0u) {
        keep(place, most, sum);
    }
}

// --- `lanes`: for CPU-like adapters with subgroups. A workgroup is one SIMD vector of 8 lanes and takes LANE_ROWS
// queries. Of 32 keys at a time each lane has four for its own, later vec4s of the result; scores change lanes in registers.

const LANE_ROWS = 8u;
const OWN = (V4 + 7u) / 8u;

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
    if (id >= blocks * BATCHES) {
        return;
    }
    let batch = id / blocks;
    let m0 = id % blocks * LANE_ROWS;
    let own_q = (q_batch(batch) + min(m0 + lane % LANE_ROWS, QUERIES - 1u) * Q_ROW) / 4u;
    var most: array<f32, LANE_ROWS>;
    var sum: array<f32, LANE_ROWS>; // of the lane's own keys
    var sums: array<vec4<f32>, LANE_ROWS * OWN>;
    for (var r = 0u; r < LANE_ROWS; r++) { // unroll
        most[r] = NOTHING;
    }
    for (var n0 = 0u; n0 < keys_until(m0 + LANE_ROWS - 1u); n0 += 32u) {
        let n = n0 + 4u * lane;
        let k0 = (k_batch(batch) + min(n, KEYS - 1u) * K_ROW) / 4u;
        let k1 = (k_batch(batch) + min(n + 1u, KEYS - 1u) * K_ROW) / 4u;
        let k2 = (k_batch(batch) + min(n + 2u, KEYS - 1u) * K_ROW) / 4u;
        let k3 = (k_batch(batch) + min(n + 3u, KEYS - 1u) * K_ROW) / 4u;
        var scores: array<vec4<f32>, LANE_ROWS>;
        for (var d = 0u; d < Q4; d++) {
            let a = q[own_q + d];
            let b0 = k[k0 + d];
            let b1 = k[k1 + d];
            let b2 = k[k2 + d];
            let b3 = k[k3 + d];
            for (var r = 0u; r < LANE_ROWS; r++) { // unroll
                for (var i = 0u; i < 4u; i++) { // unroll
                    scores[r] += subgroupShuffle(a[i], r) * vec4<f32>(b0[i], b1[i], b2[i], b3[i]);
                }
            }
        }
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
        // Four keys in a turn: always those of lane 0, to which the scores move from lane to lane.
        for (var turn = 0u; turn < 8u; turn++) {
            for (var c = 0u; c < OWN; c++) { // unroll
                let column = v_batch(batch) / 4u + min(lane + 8u * c, V4 - 1u);
                var values: array<vec4<f32>, 4>;
                for (var i = 0u; i < 4u; i++) { // unroll
                    let value = v[column + min(n0 + 4u * turn + i, KEYS - 1u) * V_ROW / 4u];
                    values[i] = select(vec4<f32>(), value, n0 + 4u * turn + i < KEYS);
                }
                for (var r = 0u; r < LANE_ROWS; r++) { // unroll
                    for (var i = 0u; i < 4u; i++) { // unroll
                        sums[r * OWN + c] += subgroupShuffle(scores[r][i], 0u) * values[i];
                    }
                }
            }
            for (var r = 0u; r < LANE_ROWS; r++) { // unroll
                for (var i = 0u; i < 4u; i++) { // unroll
                    scores[r][i] = subgroupShuffle(scores[r][i], (lane + 1u) % 8u);
                }
            }
        }
    }
    // A loop at run time: a driver may take milliseconds to compile each store.
    for (var r = 0u; r < min(LANE_ROWS, QUERIES - m0); r++) {
        var own_sum = 0.0;
        var own_most = 0.0;
        for (var other = 0u; other < LANE_ROWS; other++) { // unroll
            own_sum = select(own_sum, sum[other], r == other);
            own_most = select(own_most, most[other], r == other);
        }
        own_sum = sum_of_lanes(own_sum);
        let place = batch * QUERIES + m0 + r;
        for (var c = 0u; c < OWN; c++) { // unroll
            var result = vec4<f32>();
            for (var other = 0u; other < LANE_ROWS; other++) { // unroll
                result = select(result, sums[other * OWN + c], r == other);
            }
            if (lane + 8u * c < V4) {
                y[place * V4 + lane + 8u * c] = result * inverse(own_sum);
            }
        }
        if (lane == 0u) {
            keep(place, own_most, own_sum);
        }
    }
}
