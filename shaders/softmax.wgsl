// Softmax and log-softmax over lines.
// include: lines.wgsl

const LOG = 0u; // 1: log-softmax

// From x less the line's maximum; `scale` is 1 / the sum of the exponentials of that or, of log-softmax, its logarithm.
fn finish(h: u32, shifted: Lanes, scale: f32) -> Lanes {
    if (LOG == 1u) {
        return shifted - scale;
    }
    return exp(shifted) * scale;
}

// The same where `exponential_in_registers` has left what is needed there.
fn finish_from_registers(h: u32, shifted: Lanes, scale: f32) -> Lanes {
    if (LOG == 1u) {
        return shifted - scale;
    }
    return held[h] * scale;
}

fn exponential(h: u32, shifted: Lanes) -> Lanes {
    return exp(shifted);
}

fn exponential_in_registers(h: u32, shifted: Lanes) -> Lanes {
    let e = exp(shifted);
    if (LOG == 0u) {
        held[h] = e;
    }
    return e;
}

fn scale_of(sum: f32) -> f32 {
    return select(1.0 / sum, log(sum), LOG == 1u);
}

// `lane` of `team` invocations, who store what they find if the line is `live`.
fn softmax(line: u32, live: bool, lane: u32, team: u32) {
    let base = line * (LENGTH / LANES);
    var most4 = x[base];
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            // So that nothing held is carried from one line to the next.
            hold(h, Lanes());
            if (within(h, k)) {
                let v = x[base + k];
                hold(h, v);
                most4 = max(most4, v);
            }
        }
    }
    let most = all_max(lane, largest(most4));
    var sum4 = Lanes();
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                sum4 += exponential(h, again(h, base + k) - most);
            }
        }
    }
    let scale = scale_of(all_sum(lane, total(sum4)));
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k) && live) {
                y[base + k] = epilogues(finish(h, again(h, base + k) - most, scale), line * LENGTH + LANES * k);
            }
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
        y_apart[i] = epilogue(finish(0u, apart[i] - most, scale), i);
    }
}
