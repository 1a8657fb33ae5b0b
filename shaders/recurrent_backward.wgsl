// Recurrent layers, backward: the loop over time that gives the gradients of all gates' sums. Those of the weights, the
// biases and the input are single products of its result.
// include: recurrent_state.wgsl

const OUT = 4u;     // planes of the result, [OUT HIDDEN] to a row
const BACK = 4u;    // the first of them, which go back through the recurrent weights
const ROTATE = 0u;  // the row of the weights that the first of them goes through
const W_ROWS = 4u;  // rows of the weights, and columns: HIDDEN rounded up to a multiple of four
const COLUMNS = 4u;
const KEEPS_C = 0u; // 1: an LSTM
const SKIPS = 0u;   // 1: gradients also go back past the recurrent product
const FINAL = 0u;   // 1: the gradient of the first state is wanted

@group(0) @binding(0) var<storage, read> w4: array<vec4<f32>>; // [DIRECTIONS, W_ROWS, COLUMNS]: gate by gate
@group(0) @binding(1) var<storage, read> dy: array<f32>; // [STEPS BATCH, DIRECTIONS HIDDEN]
@group(0) @binding(1) var<storage, read> dy4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>; // [DIRECTIONS, STEPS BATCH, OUT HIDDEN]
@group(0) @binding(2) var<storage, read_write> dx4: array<vec4<f32>>;

// Optional bindings, as in recurrent.wgsl.
const KEPT_GATES = 10u;
const KEPT_C = 11u;
const FORMER = 12u;
const FINAL_C_GRAD = 13u;
const INITIAL_GRAD = 14u;

@group(0) @binding(KEPT_GATES) var<storage, read> kept_gates: array<vec4<f32>>; // [DIRECTIONS, STEPS BATCH, HIDDEN]
@group(0) @binding(KEPT_GATES) var<storage, read> kept_y: array<f32>; // [STEPS BATCH, DIRECTIONS HIDDEN]
@group(0) @binding(KEPT_C) var<storage, read> kept_c: array<f32>; // [DIRECTIONS, STEPS BATCH, HIDDEN]
@group(0) @binding(FORMER) var<storage, read> former: array<f32>; // the h before each step, the same
@group(0) @binding(FINAL_C_GRAD) var<storage, read> final_c_grad: array<f32>; // [DIRECTIONS, BATCH, HIDDEN]
@group(0) @binding(INITIAL_GRAD) var<storage, read_write> initial_grad: array<f32>; // [1 or 2, DIRECTIONS, BATCH, HIDDEN]

fn gates_at(d: u32, row: u32, u: u32) -> vec4<f32> {
    return kept_gates[(d * STEPS * BATCH + row) * HIDDEN + u];
}

// A cell of one gate is known by its result.
fn result_at(d: u32, row: u32, u: u32) -> vec4<f32> {
    return vec4<f32>(kept_y[(row * DIRECTIONS + d) * HIDDEN + u], 0.0, 0.0, 0.0);
}

fn c_before(d: u32, row: u32, u: u32) -> f32 {
    return 0.0;
}

fn c_kept(d: u32, row: u32, u: u32) -> f32 {
    return kept_c[(d * STEPS * BATCH + row) * HIDDEN + u];
}

fn h_before(d: u32, row: u32, u: u32) -> f32 {
    return 0.0;
}

fn h_former(d: u32, row: u32, u: u32) -> f32 {
    return former[(d * STEPS * BATCH + row) * HIDDEN + u];
}

fn c_grad_behind(d: u32, n: u32, u: u32) -> f32 {
    return 0.0;
}

fn c_grad_given(d: u32, n: u32, u: u32) -> f32 {
    return final_c_grad[(d * BATCH + n) * HIDDEN + u];
}

// Four neighbours from column j on, one by one where rows are no whole vec4s.
fn grads_at(row: u32, d: u32, j: u32) -> vec4<f32> {
    let first = (row * DIRECTIONS + d) * HIDDEN;
    var four: vec4<f32>;
    for (var i = 0u; i < 4u; i++) { // unroll
        four[i] = dy[first + min(j + i, HIDDEN - 1u)];
    }
    return four;
}

fn grads_at_by_four(row: u32, d: u32, j: u32) -> vec4<f32> {
    return dy4[((row * DIRECTIONS + d) * HIDDEN + j) / 4u];
}

fn no_grads(row: u32, d: u32, j: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn store(d: u32, row: u32, plane: u32, j: u32, four: vec4<f32>) {
    let first = (d * STEPS * BATCH + row) * OUT * HIDDEN + plane * HIDDEN + j;
    for (var i = 0u; i < 4u; i++) { // unroll
        if (j + i < HIDDEN) {
            dx[first + i] = four[i];
        }
    }
}

fn store_by_four(d: u32, row: u32, plane: u32, j: u32, four: vec4<f32>) {
    dx4[((d * STEPS * BATCH + row) * OUT * HIDDEN + plane * HIDDEN + j) / 4u] = four;
}

const DOUBLE = 0u; // 1: planes for two steps, where an invocation owns columns one after the other

// What only its own invocation reads again, a step later: the gradients of h (past the recurrent product, plane 0) and
// of c (plane 1).
fn carry(plane: u32, p: Place) -> f32 {
    return initial_grad[((plane * DIRECTIONS + p.d) * BATCH + p.n) * HIDDEN + p.u];
}

fn no_carry(plane: u32, p: Place) -> f32 {
    return 0.0;
}

fn put_carry(plane: u32, p: Place, value: f32, last: bool) {
    put_initial(plane, p, value);
}

fn put_initial(plane: u32, p: Place, value: f32) {
    initial_grad[((plane * DIRECTIONS + p.d) * BATCH + p.n) * HIDDEN + p.u] = value;
}

// Where nobody wants it.
fn put_nothing(plane: u32, p: Place, value: f32) {
}

fn carry_place(plane: u32, p: Place) -> vec2<u32> {
    let first = DIRECTIONS * TEAMS * PLANES + plane * DIRECTIONS * TEAMS + p.team;
    return texel((first * HIDDEN + p.u) * ROWS + p.r);
}

fn carry_texel(plane: u32, p: Place) -> f32 {
    return textureLoad(state, carry_place(plane, p)).x;
}

fn put_carry_texel(plane: u32, p: Place, value: f32, last: bool) {
    textureStore(state, carry_place(plane, p), vec4<f32>(value, 0.0, 0.0, 0.0));
}

fn put_carry_texel_and_last(plane: u32, p: Place, value: f32, last: bool) {
    put_carry_texel(plane, p, value, last);
    if (last) {
        put_initial(plane, p, value);
    }
}

const EVERYTHING = vec2<u32>(0u, BACK * HIDDEN);

// What comes back to columns j to j + 3 of all rows: `count` elements from a plane on, through as many rows of the
// weights from `row` on, round and round; or the part of that in this range.
fn product(
    team: u32,
    plane: u32,
    d: u32,
    row: u32,
    count: u32,
    range: vec2<u32>,
    j: u32,
    lane: u32,
) -> array<Sum, ROWS> {
    var sums: array<Sum, ROWS>;
    for (var k = range.x; k < range.y; k += 4u) {
        let a = columns(team, plane, k, count, lane);
        var b: array<vec4<f32>, 4>;
        for (var i = 0u; i < 4u; i++) { // unroll
            // Behind the last element there may be anything finite.
            let source = (row + k + i) % W_ROWS;
            b[i] = select(vec4<f32>(), w4[((d * W_ROWS + source) * COLUMNS + j) / 4u], k + i < count);
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

fn chosen(sums: array<Sum, ROWS>, r: u32) -> vec4<f32> {
    var sum = vec4<f32>();
    for (var other = 0u; other < ROWS; other++) { // unroll
        sum = select(sum, sums[other], r == other);
    }
    return sum;
}

fn begin(team: u32, lane: u32) {
    let d = team / TEAMS;
    for (var e = lane; e < HIDDEN * ROWS; e += GROUP) {
        for (var plane = 0u; plane < PLANES; plane++) {
            put_plane(team, plane, e / ROWS, e % ROWS, 0.0);
        }
        let n = team % TEAMS * ROWS + e % ROWS;
        let p = Place(team, d, n, e % ROWS, e / ROWS);
        if (n < BATCH && SKIPS == 1u) {
            put_carry(0u, p, 0.0, false);
        }
        if (n < BATCH && KEEPS_C == 1u) {
            put_carry(1u, p, c_grad_behind(d, n, p.u), false);
        }
    }
    // What is carried in a buffer is read by other invocations at the first step.
    storageBarrier();
    sync();
}

// The gradient of h: what comes back from the next step, and from outside.
fn h_grad(p: Place, sum: f32, arriving: f32) -> f32 {
    if (SKIPS == 1u) {
        return sum + arriving + carry(0u, p);
    }
    return sum + arriving;
}

// Four units of one sequence at its s-th step from the end; what goes back is written into `plane` and the next ones.
fn retreat(p: Place, s: u32, sum: vec4<f32>, plane: u32) {
    let t = time_of(p.d, STEPS - 1u - s);
    let row = row_of(t, p.n);
    let running = t < length_of(p.n);
    let arriving = select(vec4<f32>(), grads_at(row, p.d, p.u), running);
    var out: array<vec4<f32>, 4>;
    for (var i = 0u; i < 4u; i++) { // unroll
        let own = Place(p.team, p.d, p.n, p.r, min(p.u + i, HIDDEN - 1u));
        let dh = h_grad(own, sum[i], arriving[i]);
        var dc = 0.0;
        if (KEEPS_C == 1u) {
            dc = carry(1u, own);
        }
        var back = slopes(gates_at(p.d, row, own.u), h_before(p.d, row, own.u), c_before(p.d, row, own.u), dh, dc);
        if (!running) {
            back = Slopes(vec4<f32>(), dh, dc);
        }
        for (var g = 0u; g < OUT; g++) { // unroll
            out[g][i] = back.gates[g];
        }
        if (p.u + i < HIDDEN) {
            for (var g = 0u; g < BACK; g++) { // unroll
                put_plane(p.team, plane + g, own.u, p.r, back.gates[g]);
            }
            if (SKIPS == 1u) {
                put_carry(0u, own, back.h, false);
            }
            if (KEEPS_C == 1u) {
                put_carry(1u, own, back.c, s == STEPS - 1u);
            }
        }
    }
    for (var g = 0u; g < OUT; g++) { // unroll
        store(p.d, row, g, p.u, out[g]);
    }
}

fn finish(p: Place, sum: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) { // unroll
        if (p.u + i < HIDDEN) {
            let own = Place(p.team, p.d, p.n, p.r, p.u + i);
            put_initial(0u, own, h_grad(own, sum[i], 0.0));
        }
    }
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
    for (var s = start; s < min(start + SEGMENT, STEPS + FINAL); s++) {
        for (var first = 0u; first < COLUMNS; first += GROUP * 4u) {
            let j = min(first + lane * 4u, COLUMNS - 4u);
            let sums = product(team, s % 2u * DOUBLE * BACK, d, ROTATE, BACK * HIDDEN, EVERYTHING, j, lane);
            if (DOUBLE == 0u) {
                sync();
            }
            if (first + lane * 4u < COLUMNS) {
                for (var r = 0u; r < min(ROWS, BATCH - n); r++) {
                    let p = Place(team, d, n + r, r, j);
                    if (s < STEPS) {
                        retreat(p, s, chosen(sums, r), (1u - s % 2u) * DOUBLE * BACK);
                    } else {
                        finish(p, chosen(sums, r));
                    }
                }
            }
        }
        sync();
    }
}

// A GRU whose reset gate comes before the product. Planes: the gradients of r's, z's and n's sums, and z's once more.
fn retreat_candidate(p: Place, s: u32, sum: vec4<f32>) {
    let t = time_of(p.d, STEPS - 1u - s);
    let row = row_of(t, p.n);
    let running = t < length_of(p.n);
    let arriving = select(vec4<f32>(), grads_at(row, p.d, p.u), running);
    for (var i = 0u; i < 4u; i++) { // unroll
        if (p.u + i < HIDDEN) {
            let own = Place(p.team, p.d, p.n, p.r, p.u + i);
            let gates = gates_at(p.d, row, own.u);
            let dh = h_grad(own, sum[i], arriving[i]);
            let open = select(0.0, 1.0, running);
            let z = gates.y;
            put_plane(p.team, 2u, own.u, p.r, open * dh * z * (1.0 - gates.z * gates.z));
            put_plane(p.team, 3u, own.u, p.r, open * dh * (gates.z - h_before(p.d, row, own.u)) * z * (1.0 - z));
            put_carry(0u, own, select(dh, dh * (1.0 - z), running), false);
        }
    }
}

fn retreat_reset(p: Place, s: u32, sum: vec4<f32>) {
    let row = row_of(time_of(p.d, STEPS - 1u - s), p.n);
    var out: array<vec4<f32>, 3>;
    for (var i = 0u; i < 4u; i++) { // unroll
        if (p.u + i < HIDDEN) {
            let own = Place(p.team, p.d, p.n, p.r, p.u + i);
            let r = gates_at(p.d, row, own.u).x;
            out[0][i] = sum[i] * h_before(p.d, row, own.u) * r * (1.0 - r);
            out[1][i] = at_plane(p.team, 3u, own.u, p.r);
            out[2][i] = at_plane(p.team, 2u, own.u, p.r);
            put_plane(p.team, 0u, own.u, p.r, out[0][i]);
            put_plane(p.team, 1u, own.u, p.r, out[1][i]);
            put_carry(0u, own, carry(0u, own) + sum[i] * r, false);
        }
    }
    for (var g = 0u; g < 3u; g++) { // unroll
        store(p.d, row, g, p.u, out[g]);
    }
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
    let start = first_step() * 2u;
    if (start == 0u) {
        begin(team, lane);
    }
    for (var step = start; step < min(start + 2u * SEGMENT, 2u * STEPS + FINAL); step++) {
        let second = step % 2u == 1u;
        for (var first = 0u; first < COLUMNS; first += GROUP * 4u) {
            let j = min(first + lane * 4u, COLUMNS - 4u);
            let source = select(0u, 2u, second);
            let count = select(2u, 1u, second) * HIDDEN;
            let sums = product(team, source, d, source * HIDDEN, count, vec2<u32>(0u, count), j, lane);
            if (first + lane * 4u < COLUMNS) {
                for (var r = 0u; r < min(ROWS, BATCH - n); r++) {
                    let p = Place(team, d, n + r, r, j);
                    if (step == 2u * STEPS) {
                        finish(p, chosen(sums, r));
                    } else if (second) {
                        retreat_reset(p, step / 2u, chosen(sums, r));
                    } else {
                        retreat_candidate(p, step / 2u, chosen(sums, r));
                    }
                }
            }
        }
        sync();
    }
}

// --- A dispatch to each step: workgroups own a team's columns, four to an invocation.

const BLOCKS = (COLUMNS + GROUP * 4u - 1u) / (GROUP * 4u);

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
    let j = (group_index(group, groups) % BLOCKS * GROUP + lane % GROUP) * 4u;
    let slice = lane / GROUP;
    let d = team / TEAMS;
    let s = step_number[0];
    let range = slice_of(slice, BACK * HIDDEN);
    let sums = product(team, s % 2u * BACK, d, ROTATE, BACK * HIDDEN, range, min(j, COLUMNS - 4u), lane);
    let sum = own_sum(sums, lane % GROUP, slice);
    let n = team % TEAMS * ROWS + slice;
    if (j < COLUMNS && slice < ROWS && n < BATCH) {
        let p = Place(team, d, n, slice, j);
        if (s < STEPS) {
            retreat(p, s, sum, (1u - s % 2u) * BACK);
        } else {
            finish(p, sum);
        }
    }
}

// Two to a step: the candidate first, then the gates.
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
    let j = (group_index(group, groups) % BLOCKS * GROUP + lane % GROUP) * 4u;
    let slice = lane / GROUP;
    let d = team / TEAMS;
    let s = step_number[0] / 2u;
    let second = step_number[0] % 2u == 1u;
    let source = select(0u, 2u, second);
    let count = select(2u, 1u, second) * HIDDEN;
    let range = slice_of(slice, count);
    let sums = product(team, source, d, source * HIDDEN, count, range, min(j, COLUMNS - 4u), lane);
    let sum = own_sum(sums, lane % GROUP, slice);
    let n = team % TEAMS * ROWS + slice;
    if (j < COLUMNS && slice < ROWS && n < BATCH) {
        let p = Place(team, d, n, slice, j);
        if (s == STEPS) {
            finish(p, sum);
        } else if (second) {
            retreat_reset(p, s, sum);
        } else {
            retreat_candidate(p, s, sum);
        }
    }
}
