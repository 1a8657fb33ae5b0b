// Scaled dot-product attention, softmax(SCALE q k' + mask) v, in one pass over the keys: what is summed so far shrinks
// when a larger score turns up (Milakov and Gimelshein, 2018; Dao et al., 2022), so that no score goes to memory.
// include: grid.wgsl
// include: math.wgsl

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

// --- `tiles`: for GPUs. A workgroup takes TILE_ROWS queries, an invocation one of them, with its sums in registers;
// the keys and values of a tile are shared through workgroup memory, where all invocations read the same at a time.

const TILE_ROWS = 64u;
const TILE_KEYS = 32u;

var<workgroup> tile_k: array<vec4<f32>, TILE_KEYS * Q4>;
var<workgroup> tile_v: array<vec4<f32>, TILE_KEYS * V4>;

@compute @workgroup_size(TILE_ROWS)
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
    let m = min(m0 + lane, QUERIES - 1u);
    var own: array<vec4<f32>, Q4>;
    for (var d = 0u; d < Q4; d++) { // unroll
        own[d] = q[(q_batch(batch) + m * Q_ROW) / 4u + d];
    }
    var sums: array<vec4<f32>, V4>;
    var most = NOTHING;
    var sum = 0.0;
    for (var n0 = 0u; n0 < keys_until(m0 + TILE_ROWS - 1u); n0 += TILE_KEYS) {
        for (var e = lane; e < TILE_KEYS * Q4; e += TILE_ROWS) {
            tile_k[e] = k[(k_batch(batch) + min(n0 + e / Q4, KEYS - 1u) * K_ROW) / 4u + e % Q4];
        }
        for (var e = lane; e < TILE_KEYS * V4; e += TILE_ROWS) {
            // Zeros behind the last: no share of an infinity is 0.
            let value = v[(v_batch(batch) + min(n0 + e / V4, KEYS - 1u) * V_ROW) / 4u + e % V4];
            tile_v[e] = select(vec4<f32>(), value, n0 + e / V4 < KEYS);
        }
        workgroupBarrier();
        for (var n = 0u; n < TILE_KEYS; n++) {
            var products = vec4<f32>();
            for (var d = 0u; d < Q4; d++) { // unroll
                products += own[d] * tile_k[n * Q4 + d];
            }
            let found = score(batch, m, n0 + n, (products.x + products.y) + (products.z + products.w));
            if (!(found <= most)) {
                let shrunk = exp(most - found);
                most = found;
                sum *= shrunk;
                for (var c = 0u; c < V4; c++) { // unroll
                    sums[c] *= shrunk;
                }
            }
            let own_share = share(found, most);
            sum += own_share;
            for (var c = 0u; c < V4; c++) { // unroll
                sums[c] += own_share * tile_v[n * V4 + c];
            }
        }
        workgroupBarrier();
    }
    if (m0 + lane >= QUERIES) {
        return;
    }
    let place = batch * QUERIES + m;
    for (var c = 0u; c < V4; c++) { // unroll
        y[place * V4 + c] = sums[c] * inverse(sum);
    }
    keep(place, most, sum);
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
