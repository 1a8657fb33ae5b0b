// Recurrent layers, forward: the loop over time that follows the one product of all inputs with their weights.
// include: recurrent_state.wgsl

const K_ROWS = 4u; // HIDDEN rounded up to a multiple of four; the weights' surplus rows are zero

@group(0) @binding(0) var<storage, read> w: array<Gates>; // [DIRECTIONS, K_ROWS, HIDDEN], see `pack`
@group(0) @binding(1) var<storage, read> xp: array<f32>; // [DIRECTIONS, STEPS BATCH, GATES HIDDEN]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [STEPS BATCH, DIRECTIONS HIDDEN]

// Optional bindings, as above.
const CARRY = 11u;
const KEPT_GATES = 12u;
const KEPT_C = 13u;
const CANDIDATE_BIAS = 14u;

fn x_gates(d: u32, row: u32, u: u32) -> Gates {
    let at = (d * STEPS * BATCH + row) * GATES * HIDDEN + u;
    return Gates(xp[at], xp[at + HIDDEN], xp[at + 2u * HIDDEN], xp[at + 3u * HIDDEN]);
}

fn x_three_gates(d: u32, row: u32, u: u32) -> Gates {
    let at = (d * STEPS * BATCH + row) * GATES * HIDDEN + u;
    return Gates(xp[at], xp[at + HIDDEN], xp[at + 2u * HIDDEN], 0.0);
}

fn x_one_gate(d: u32, row: u32, u: u32) -> Gates {
    return xp[(d * STEPS * BATCH + row) * HIDDEN + u];
}

// What the recurrent sums start from.
fn sum_before(d: u32, u: u32) -> Gates {
    return Gates();
}

@group(0) @binding(CANDIDATE_BIAS) var<storage, read> candidate_bias: array<f32>; // [DIRECTIONS, HIDDEN]

fn sum_with_bias(d: u32, u: u32) -> Gates {
    return Gates(0.0, 0.0, candidate_bias[d * HIDDEN + u], 0.0);
}

// What the way back needs, where there is one.
fn keep(d: u32, row: u32, u: u32, gates: Gates, c: f32) {
}

@group(0) @binding(KEPT_GATES) var<storage, read_write> kept_gates: array<Gates>; // [DIRECTIONS, STEPS BATCH, HIDDEN]

fn keep_gates(d: u32, row: u32, u: u32, gates: Gates, c: f32) {
    kept_gates[(d * STEPS * BATCH + row) * HIDDEN + u] = gates;
}

@group(0) @binding(KEPT_C) var<storage, read_write> kept_c: array<f32>; // the same, the c before the step

fn keep_gates_and_c(d: u32, row: u32, u: u32, gates: Gates, c: f32) {
    keep_gates(d, row, u, gates, c);
    kept_c[(d * STEPS * BATCH + row) * HIDDEN + u] = c;
}

// An LSTM's c, which only its own invocation reads.
fn carry(p: Place) -> f32 {
    return 0.0;
}

fn put_carry(p: Place, value: f32, last: bool) {
}

@group(0) @binding(CARRY) var<storage, read_write> final_c: array<f32>; // [DIRECTIONS, BATCH, HIDDEN]

fn carry_in_place(p: Place) -> f32 {
    return final_c[(p.d * BATCH + p.n) * HIDDEN + p.u];
}

fn put_carry_in_place(p: Place, value: f32, last: bool) {
    final_c[(p.d * BATCH + p.n) * HIDDEN + p.u] = value;
}

fn carry_place(p: Place) -> vec2<u32> {
    return texel((DIRECTIONS * TEAMS * PLANES + p.team) * HIDDEN * ROWS + p.u * ROWS + p.r);
}

fn carry_texel(p: Place) -> f32 {
    return textureLoad(state, carry_place(p)).x;
}

fn put_carry_texel(p: Place, value: f32, last: bool) {
    textureStore(state, carry_place(p), vec4<f32>(value, 0.0, 0.0, 0.0));
}

fn put_carry_texel_and_last(p: Place, value: f32, last: bool) {
    put_carry_texel(p, value, last);
    if (last) {
        put_carry_in_place(p, value, last);
    }
}

// The recurrent sums of unit u for all rows, from a plane, or the part of them in this range.
fn product(team: u32, plane: u32, d: u32, u: u32, range: vec2<u32>, lane: u32) -> array<Sum, ROWS> {
    var sums: array<Sum, ROWS>;
    var before = Gates();
    if (range.x == 0u) {
        before = sum_before(d, u);
    }
    for (var r = 0u; r < ROWS; r++) { // unroll
        sums[r] = before;
    }
    for (var k = range.x; k < range.y; k += 4u) {
        let a = columns(team, plane, k, HIDDEN, lane);
        var b: array<Gates, 4>;
        for (var i = 0u; i < 4u; i++) { // unroll
            b[i] = w[(d * K_ROWS + k + i) * HIDDEN + u];
        }
        for (var r = 0u; r < ROWS; r++) { // unroll
            // All four steps of a sum in one go, so that it stays in a register meanwhile.
            for (var i = 0u; i < 4u; i++) { // unroll
                sums[r] += a[i * ROWS + r] * b[i];
            }
        }
    }
    return sums;
}

fn chosen(sums: array<Sum, ROWS>, r: u32) -> Gates {
    var sum = Gates();
    for (var other = 0u; other < ROWS; other++) { // unroll
        sum = select(sum, sums[other], r == other);
    }
    return sum;
}

fn begin(team: u32, lane: u32) {
    let d = team / TEAMS;
    for (var e = lane; e < HIDDEN * ROWS; e += GROUP) {
        let r = e % ROWS;
        let n = team % TEAMS * ROWS + r;
        put_plane(team, 0u, e / ROWS, r, state_before(0u, d, min(n, BATCH - 1u), e / ROWS));
        // What nobody owns is read, too, and must be finite.
        for (var plane = 1u; plane < PLANES; plane++) {
            put_plane(team, plane, e / ROWS, r, 0.0);
        }
        if (n < BATCH) {
            put_carry(Place(team, d, n, r, e / ROWS), state_before(1u, d, n, e / ROWS), false);
        }
    }
    // What is carried in a buffer is read by other invocations at the first step.
    storageBarrier();
    sync();
}

// One unit of one sequence at its s-th step.
fn advance(p: Place, s: u32, sum: Gates) {
    let t = time_of(p.d, s);
    let row = row_of(t, p.n);
    let h = at_plane(p.team, s % 2u, p.u, p.r);
    let c = carry(p);
    var next = cell(x_gates(p.d, row, p.u), sum, h, c);
    keep(p.d, row, p.u, next.gates, c);
    let running = t < length_of(p.n);
    if (!running) {
        next.h = h;
        next.c = c;
    }
    y[(row * DIRECTIONS + p.d) * HIDDEN + p.u] = select(0.0, next.h, running);
    put_plane(p.team, 1u - s % 2u, p.u, p.r, next.h);
    put_carry(p, next.c, s == STEPS - 1u);
}

@compute @workgroup_size(GROUP)
fn sequence(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let team = group_index(group, groups);
    if (team >= DIRECTIONS * TEAMS) {
        return;
    }
    let d = team / TEAMS;
    let n = team % TEAMS * ROWS;
    let start = first_step();
    if (start == 0u) {
        begin(team, lane);
    }
    for (var s = start; s < min(start + SEGMENT, STEPS); s++) {
        for (var first = 0u; first < HIDDEN; first += GROUP) {
            let u = min(first + lane, HIDDEN - 1u);
            let sums = product(team, s % 2u, d, u, vec2<u32>(0u, HIDDEN), lane);
            if (first + lane < HIDDEN) {
                for (var r = 0u; r < min(ROWS, BATCH - n); r++) {
                    advance(Place(team, d, n + r, r, u), s, chosen(sums, r));
                }
            }
        }
        sync();
    }
}

// A GRU whose reset gate comes before the product: h~ = tanh(x_n + U_n (r h)), h' = (1 - z) h + z h~ (Cho et al., 2014).
// Planes: h, r h, r, z.
fn open_gates(p: Place, s: u32, sum: Gates) {
    let x = x_gates(p.d, row_of(time_of(p.d, s), p.n), p.u);
    let r = sigmoid(x.x + sum.x);
    put_plane(p.team, 1u, p.u, p.r, r * at_plane(p.team, 0u, p.u, p.r));
    put_plane(p.team, 2u, p.u, p.r, r);
    put_plane(p.team, 3u, p.u, p.r, sigmoid(x.y + sum.y));
}

fn advance_before(p: Place, s: u32, sum: Gates) {
    let t = time_of(p.d, s);
    let row = row_of(t, p.n);
    let h = at_plane(p.team, 0u, p.u, p.r);
    let z = at_plane(p.team, 3u, p.u, p.r);
    let candidate = tanh_(x_gates(p.d, row, p.u).z + sum.z);
    keep(p.d, row, p.u, Gates(at_plane(p.team, 2u, p.u, p.r), z, candidate, 0.0), 0.0);
    let running = t < length_of(p.n);
    let next = select(h, (1.0 - z) * h + z * candidate, running);
    y[(row * DIRECTIONS + p.d) * HIDDEN + p.u] = select(0.0, next, running);
    put_plane(p.team, 0u, p.u, p.r, next);
}

@compute @workgroup_size(GROUP)
fn sequence_before(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let team = group_index(group, groups);
    if (team >= DIRECTIONS * TEAMS) {
        return;
    }
    let d = team / TEAMS;
    let n = team % TEAMS * ROWS;
    let start = first_step();
    if (start == 0u) {
        begin(team, lane);
    }
    for (var s = start; s < min(start + SEGMENT, STEPS); s++) {
        for (var phase = 0u; phase < 2u; phase++) {
            for (var first = 0u; first < HIDDEN; first += GROUP) {
                let u = min(first + lane, HIDDEN - 1u);
                let sums = product(team, phase, d, u, vec2<u32>(0u, HIDDEN), lane);
                if (first + lane < HIDDEN) {
                    for (var r = 0u; r < min(ROWS, BATCH - n); r++) {
                        let p = Place(team, d, n + r, r, u);
                        if (phase == 0u) {
                            open_gates(p, s, chosen(sums, r));
                        } else {
                            advance_before(p, s, chosen(sums, r));
                        }
                    }
                }
            }
            sync();
        }
    }
}

// --- A dispatch to each step: workgroups own a team's units, GROUP at a time.

const BLOCKS = (HIDDEN + GROUP - 1u) / GROUP;

@compute @workgroup_size(GROUP)
fn begin_states(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let team = group_index(group, groups);
    if (team < DIRECTIONS * TEAMS) {
        begin(team, lane);
    }
}

@compute @workgroup_size(GROUP * SLICES)
fn step(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let team = group_index(group, groups) / BLOCKS;
    if (team >= DIRECTIONS * TEAMS) {
        return;
    }
    let u = group_index(group, groups) % BLOCKS * GROUP + lane % GROUP;
    let slice = lane / GROUP;
    let s = step_number[0];
    let sums = product(team, s % 2u, team / TEAMS, min(u, HIDDEN - 1u), slice_of(slice, HIDDEN), lane);
    let sum = own_sum(sums, lane % GROUP, slice);
    let n = team % TEAMS * ROWS + slice;
    if (u < HIDDEN && slice < ROWS && n < BATCH) {
        advance(Place(team, team / TEAMS, n, slice, u), s, sum);
    }
}

// Two to a step: the gates r and z first, then the candidate.
@compute @workgroup_size(GROUP * SLICES)
fn step_before(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let team = group_index(group, groups) / BLOCKS;
    if (team >= DIRECTIONS * TEAMS) {
        return;
    }
    let u = group_index(group, groups) % BLOCKS * GROUP + lane % GROUP;
    let slice = lane / GROUP;
    let s = step_number[0] / 2u;
    let phase = step_number[0] % 2u;
    let sums = product(team, phase, team / TEAMS, min(u, HIDDEN - 1u), slice_of(slice, HIDDEN), lane);
    let sum = own_sum(sums, lane % GROUP, slice);
    let n = team % TEAMS * ROWS + slice;
    if (u < HIDDEN && slice < ROWS && n < BATCH) {
        let p = Place(team, team / TEAMS, n, slice, u);
        if (phase == 0u) {
            open_gates(p, s, sum);
        } else {
            advance_before(p, s, sum);
        }
    }
}
