// Softmax and log-softmax over lines.
// include: lines.wgsl

const LOG = 0u; // 1: log-softmax

const LOWEST = -3.4028234663852886e38;

fn scale_of(sum: f32) -> f32 {
    return select(1.0 / sum, log(sum), LOG == 1u);
}

// From x less the line's maximum and the scale of the sum of the exponentials of that.
fn finish(shifted: Lanes, scale: f32) -> Lanes {
    if (LOG == 1u) {
        return shifted - scale;
    }
    return exp(shifted) * scale;
}

// `lane` of `team` invocations, who store what they find if the line is `live`. Maximum and sum are found in one pass: the
// sum is scaled whenever the maximum grows (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).
fn softmax(line: u32, live: bool, lane: u32, team: u32) {
    let base = line * (LENGTH / LANES);
    var most = largest(x[base]);
    var sum4 = Lanes();
    for (var round = 0u; round < ROUNDS; round++) {
        var most4 = Lanes(most);
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                held[h] = x[base + k];
                most4 = max(most4, held[h]);
            }
        }
        // Of an invocation that has seen but -inf, all exponentials are to be 0.
        let before = max(most, LOWEST);
        most = largest(most4);
        let shift = max(most, LOWEST);
        sum4 *= exp(before - shift);
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                sum4 += exp(held[h] - shift);
            }
        }
    }
    let all = all_max(lane, most);
    // A line of but -inf gives NaN.
    let scale = scale_of(all_sum(lane, total(sum4) * exp(most - all)));
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k) && live) {
                y[base + k] = epilogues(finish(x[base + k] - all, scale), line * LENGTH + LANES * k);
            }
        }
    }
}

// The same with one round, after which all of the line is in registers.
fn softmax_in_registers(line: u32, live: bool, lane: u32, team: u32) {
    let base = line * (LENGTH / LANES);
    var most4 = x[base];
    for (var h = 0u; h < HELD; h++) { // unroll
        let k = h * team + lane;
        if (within(h, k)) {
            held[h] = x[base + k];
            most4 = max(most4, held[h]);
        }
    }
    let most = all_max(lane, largest(most4));
    var sum4 = Lanes();
    for (var h = 0u; h < HELD; h++) { // unroll
        if (within(h, h * team + lane)) {
            let shifted = held[h] - most;
            let e = exp(shifted);
            sum4 += e;
            held[h] = select(e, shifted, LOG == 1u);
        }
    }
    let scale = scale_of(all_sum(lane, total(sum4)));
    for (var h = 0u; h < HELD; h++) { // unroll
        let k = h * team + lane;
        if (within(h, k) && live) {
            let y4 = select(held[h] * scale, held[h] - scale, LOG == 1u);
            y[base + k] = epilogues(y4, line * LENGTH + LANES * k);
        }
    }
}

@compute @workgroup_size(TEAMS)
fn serial(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let line = group_index(group, groups) * TEAMS + lane;
    if (line < LINES) {
        softmax(line, true, 0u, 1u);
    }
}

@compute @workgroup_size(WIDTH)
fn grouped(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let line = group_index(group, groups);
    if (line < LINES) {
        softmax(line, true, lane, WIDTH);
    }
}

@compute @workgroup_size(WIDTH)
fn by_subgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group_index(group, groups) * TAKEN;
    if (first >= LINES) {
        return;
    }
    let line = first + lane / SUBGROUP;
    softmax(min(line, LINES - 1u), is_line(line), lane % SUBGROUP, SUBGROUP);
}

const INNER = 1u; // elements from one of a line to the next

@group(0) @binding(0) var<storage, read> apart: array<f32>; // [LINES / INNER, LENGTH, INNER]
@group(0) @binding(1) var<storage, read_write> y_apart: array<f32>; // the same

// One invocation for each line of elements that lie INNER apart.
@compute @workgroup_size(64)
fn strided(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let line = group_index(group, groups) * 64u + lane;
    if (line >= LINES) {
        return;
    }
    let base = (line / INNER) * LENGTH * INNER + line % INNER;
    var most = apart[base];
    for (var k = 1u; k < LENGTH; k++) {
        most = max(most, apart[base + k * INNER]);
    }
    var sum = 0.0;
    for (var k = 0u; k < LENGTH; k++) {
        sum += exp(apart[base + k * INNER] - most);
    }
    let scale = scale_of(sum);
    for (var k = 0u; k < LENGTH; k++) {
        let i = base + k * INNER;
        y_apart[i] = epilogue(finish(apart[i] - most, scale), i);
    }
}
