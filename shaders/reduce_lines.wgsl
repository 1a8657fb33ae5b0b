// Sums, maxima and minima of lines of neighbouring elements, in a fixed order.
// include: lines.wgsl
// include: math.wgsl

const KIND = 0u; // 0 sum, 1 maximum, 2 minimum

@group(0) @binding(1) var<storage, read_write> results: array<f32>; // [LINES]

// Minima are found as maxima of the negated elements.
fn signed(v: Lanes) -> Lanes {
    if (KIND == 2u) {
        return -v;
    }
    return v;
}

fn higher(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(max_(a.x, b.x), max_(a.y, b.y), max_(a.z, b.z), max_(a.w, b.w));
}

fn higher_one(a: f32, b: f32) -> f32 {
    return max_(a, b);
}

fn highest(v: vec4<f32>) -> f32 {
    return max_(max_(v.x, v.y), max_(v.z, v.w));
}

fn highest_one(v: f32) -> f32 {
    return v;
}

// What the invocations of a team have found, together. Where subgroups take maxima, NaNs may be lost: they are told apart.
fn of_team(lane: u32, found: Lanes) -> f32 {
    if (KIND == 0u) {
        return all_sum(lane, total(found));
    }
    let own = highest(found);
    let lost = all_max(lane, select(0.0, 1.0, is_nan(own)));
    let most = all_max(lane, select(own, -infinity(), is_nan(own)));
    return select(select(most, -most, KIND == 2u), nan(), lost > 0.0);
}

// `lane` of `team` invocations, of whom the first stores the result if the line is `live`.
fn reduce(line: u32, live: bool, lane: u32, team: u32) {
    let base = line * (LENGTH / LANES);
    var found = Lanes();
    if (KIND != 0u) {
        found = signed(x[base]);
    }
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                if (KIND == 0u) {
                    found += x[base + k];
                } else {
                    found = higher(found, signed(x[base + k]));
                }
            }
        }
    }
    let result = of_team(lane, found);
    if (lane == 0u && live) {
        results[line] = epilogue(result, line);
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
        reduce(line, true, lane, WIDTH);
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
    reduce(min(line, LINES - 1u), is_line(line), lane % SUBGROUP, SUBGROUP);
}
