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

alias Words = vec4<u32>; // u32 where Lanes are f32

fn loudest_of(v: vec4<u32>) -> u32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn loudest_of_one(v: u32) -> u32 {
    return v;
}

// What the invocations of a team have found, together, and the largest of the magnitudes, as integers: a NaN's is above
// infinity's.
fn of_team(lane: u32, found: Lanes, loudest: Words) -> f32 {
    if (KIND == 0u) {
        return all_sum(lane, total(found));
    }
    let lost = all_max(lane, select(0.0, 1.0, loudest_of(loudest) > 0x7f800000u));
    let most = all_max(lane, largest(found));
    return select(select(most, -most, KIND == 2u), nan(), lost > 0.0);
}

// `lane` of `team` invocations, of whom the first stores the result if the line is `live`.
fn reduce(line: u32, live: bool, lane: u32, team: u32) {
    let base = line * (LENGTH / LANES);
    var found = Lanes();
    if (KIND != 0u) {
        found = signed(x[base]);
    }
    var loudest = Words();
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                if (KIND == 0u) {
                    found += x[base + k];
                } else {
                    let v = signed(x[base + k]);
                    found = select(found, v, v > found);
                    loudest = max(loudest, bitcast<Words>(v) & Words(0x7fffffffu));
                }
            }
        }
    }
    let result = of_team(lane, found, loudest);
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
