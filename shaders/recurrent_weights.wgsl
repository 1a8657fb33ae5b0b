// Recurrent weights and states as the loops over time want them.
// include: recurrent.wgsl

const COUNT = 1u; // elements written
const K_ROWS = 4u; // HIDDEN rounded up to a multiple of four
const COLUMNS = 4u;
const W_ROWS = 4u;

@group(0) @binding(0) var<storage, read> w: array<f32>; // [DIRECTIONS, GATES HIDDEN, HIDDEN], gate by gate
@group(0) @binding(1) var<storage, read_write> packed: array<Gates>; // [DIRECTIONS, K_ROWS, HIDDEN]
@group(0) @binding(1) var<storage, read_write> padded: array<f32>; // [DIRECTIONS, W_ROWS, COLUMNS]

fn weight(d: u32, gate: u32, u: u32, k: u32) -> f32 {
    let there = gate < GATES && k < HIDDEN;
    return select(0.0, w[select(0u, ((d * GATES + gate) * HIDDEN + u) * HIDDEN + k, there)], there);
}

fn weights(d: u32, u: u32, k: u32) -> Gates {
    return Gates(weight(d, 0u, u, k), weight(d, 1u, u, k), weight(d, 2u, u, k), weight(d, 3u, u, k));
}

fn one_weight(d: u32, u: u32, k: u32) -> Gates {
    return weight(d, 0u, u, k);
}

// All gates' weights from unit k to unit u side by side; rows of zeros fill K up.
@compute @workgroup_size(64)
fn pack(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i < COUNT) {
        packed[i] = weights(i / (HIDDEN * K_ROWS), i % HIDDEN, i / HIDDEN % K_ROWS);
    }
}

// The weights as they are, with columns of zeros up to a multiple of four.
@compute @workgroup_size(64)
fn pad(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i < COUNT) {
        let there = i % COLUMNS < HIDDEN;
        padded[i] = select(0.0, w[select(0u, i / COLUMNS * HIDDEN + i % COLUMNS, there)], there);
    }
}

@group(0) @binding(0) var<storage, read> y: array<f32>; // [STEPS BATCH, DIRECTIONS HIDDEN]
@group(0) @binding(1) var<storage, read_write> former: array<f32>; // [DIRECTIONS, STEPS BATCH, HIDDEN]

// The h before each step, from the results; a step outside its sequence has none, and its gradients are zero.
@compute @workgroup_size(64)
fn former_states(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let u = i % HIDDEN;
    let row = i / HIDDEN % (STEPS * BATCH);
    let d = i / (HIDDEN * STEPS * BATCH);
    let t = row / ROW_T % STEPS;
    let n = row / ROW_N % BATCH;
    // One step back in the direction's own order.
    let before = select(t - 1u, t + 1u, d == 1u);
    if (before < length_of(n)) {
        former[i] = y[(row_of(before, n) * DIRECTIONS + d) * HIDDEN + u];
    } else {
        former[i] = state_before(0u, d, n, u);
    }
}
