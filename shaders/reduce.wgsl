// Reductions over any axes, in a fixed order, so that the bits are the same on every run.
// include: grid.wgsl
// include: math.wgsl
// include: shares.wgsl
// include: team.wgsl

const LENGTH = 1u;   // elements reduced into each of OUTPUTS results; those of SPLITS parts are reduced by the next dispatch
const KIND = 0u;     // 0 sum, 1 maximum, 2 minimum, 3 product
const COUNT = 1u;    // invocations

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(0) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // [SPLITS, OUTPUTS]
@group(0) @binding(1) var<storage, read_write> indices: array<u32>; // [OUTPUTS]

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

const PIECE = 1u; // vec4s that are loaded at once
alias Piece = array<vec4<f32>, PIECE>;
@group(0) @binding(0) var<storage, read> pieces: array<Piece>; // x

// The piece that begins with the i-th element.
fn piece(i: u32) -> Piece {
    return Piece(x4[i / 4u]);
}

fn piece_of_two(i: u32) -> Piece {
    return pieces[i / 8u];
}

// Where the r-th element of result o lies.
fn place(o: u32, r: u32) -> u32 {
    return o * LENGTH + r;
}

fn combine(a: f32, b: f32) -> f32 {
    switch (KIND) {
        case 1u: { return max_(a, b); }
        case 2u: { return min_(a, b); }
        case 3u: { return a * b; }
        default: { return a + b; }
    }
}

fn combine4(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    switch (KIND) {
        case 0u: { return a + b; }
        case 3u: { return a * b; }
        default: { return vec4<f32>(combine(a.x, b.x), combine(a.y, b.y), combine(a.z, b.z), combine(a.w, b.w)); }
    }
}

fn identity() -> f32 {
    switch (KIND) {
        case 1u: { return -infinity(); }
        case 2u: { return infinity(); }
        case 3u: { return 1.0; }
        default: { return 0.0; }
    }
}

fn finish(share: Share, total: f32) {
    if (SPLITS == 1u) {
        y[share.result] = epilogue(total, share.result);
    } else {
        y[share.split * OUTPUTS + share.result] = total;
    }
}

@compute @workgroup_size(64)
fn reduce(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    let share = share_of(id);
    var total = identity();
    for (var r = share.first; r < share.last; r += share.step) {
        total = combine(total, x[place(share.result, r)]);
    }
    finish(share, total);
}

// The same where elements lie in whole pieces; LENGTH counts those.
@compute @workgroup_size(64)
fn reduce_vec4(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    let share = share_of(id);
    var total = vec4<f32>(identity());
    for (var r = share.first; r < share.last; r += share.step) {
        let loaded = piece(place(share.result, r * 4u * PIECE));
        var found = vec4<f32>(identity());
        for (var i = 0u; i < PIECE; i++) { // unroll
            found = combine4(found, loaded[i]);
        }
        total = combine4(total, found);
    }
    finish(share, combine(combine(total.x, total.y), combine(total.z, total.w)));
}

@group(0) @binding(1) var<storage, read_write> y4: array<vec4<f32>>; // [SPLITS, OUTPUTS]

const BLOCK = 1u; // pieces of results for each invocation
const SPAN = 1u;  // neighbours that share as many times BLOCK of them, and read as long a stretch of each line at once

// The same where results lie side by side in whole pieces; OUTPUTS counts those by BLOCK.
@compute @workgroup_size(64)
fn reduce_columns_vec4(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    let share = share_of(id);
    let first = share.result / SPAN * (SPAN * BLOCK) + share.result % SPAN;
    var totals: array<vec4<f32>, BLOCK * PIECE>;
    for (var n = 0u; n < BLOCK * PIECE; n++) { // unroll
        totals[n] = vec4<f32>(identity());
    }
    for (var r = share.first; r < share.last; r += share.step) {
        for (var n = 0u; n < BLOCK; n++) { // unroll
            let loaded = piece(place((first + n * SPAN) * 4u * PIECE, r));
            for (var i = 0u; i < PIECE; i++) { // unroll
                totals[n * PIECE + i] = combine4(totals[n * PIECE + i], loaded[i]);
            }
        }
    }
    for (var n = 0u; n < BLOCK; n++) { // unroll
        for (var i = 0u; i < PIECE; i++) { // unroll
            let result = (first + n * SPAN) * PIECE + i;
            let o = result * 4u;
            var t = totals[n * PIECE + i];
            if (SPLITS == 1u) {
                t = vec4<f32>(epilogue(t.x, o), epilogue(t.y, o + 1u), epilogue(t.z, o + 2u), epilogue(t.w, o + 3u));
            }
            y4[share.split * (OUTPUTS * BLOCK * PIECE) + result] = t;
        }
    }
}

const PARTS = 1u; // of each line, whose best elements are known

struct Best {
    value: f32,
    at: u32,
}

// The better of two elements of a line, the second of which comes later: the larger (KIND 1) or smaller (KIND 2) one,
// the first of equals, and a NaN before anything else.
fn better(best: Best, value: f32, at: u32) -> Best {
    let wins = (KIND == 1u && value > best.value) || (KIND == 2u && value < best.value) || is_nan(value);
    if (wins && !is_nan(best.value)) {
        return Best(value, at);
    }
    return best;
}

// The place of the best element of each result, or of each of SPLITS parts of its elements.
@compute @workgroup_size(64)
fn arg(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    let share = share_of(id);
    // The last parts may have no elements of their own.
    let first = min(share.first, LENGTH - 1u);
    var best = Best(x[place(share.result, first)], first);
    for (var r = first + 1u; r < share.last; r++) {
        best = better(best, x[place(share.result, r)], r);
    }
    indices[id] = best.at;
}

// The same where elements lie in whole vec4s; LENGTH counts those.
@compute @workgroup_size(64)
fn arg_vec4(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    let share = share_of(id);
    let first = min(share.first, LENGTH - 1u);
    var best = Best(x4[place(share.result, first * 4u) / 4u].x, first * 4u);
    for (var r = first; r < share.last; r++) {
        let v = x4[place(share.result, r * 4u) / 4u];
        for (var n = 0u; n < 4u; n++) { // unroll
            best = better(best, v[n], r * 4u + n);
        }
    }
    indices[id] = best.at;
}

@group(0) @binding(2) var<storage, read> candidates: array<u32>; // [PARTS, OUTPUTS]

@compute @workgroup_size(64)
fn arg_of_parts(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let o = group_index(group, groups) * 64u + lane;
    if (o >= OUTPUTS) {
        return;
    }
    var best = Best(x[place(o, candidates[o])], candidates[o]);
    for (var part = 1u; part < PARTS; part++) {
        let at = candidates[part * OUTPUTS + o];
        best = better(best, x[place(o, at)], at);
    }
    indices[o] = best.at;
}

// Running sums along one axis; the lines are the results, their elements the line's.
@compute @workgroup_size(64)
fn cumsum(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let o = group_index(group, groups) * 64u + lane;
    if (o >= OUTPUTS) {
        return;
    }
    var total = 0.0;
    for (var r = 0u; r < LENGTH; r++) {
        let i = place(o, r);
        total += x[i];
        y[i] = total;
    }
}

var<workgroup> sums: array<f32, WIDTH>;

// The same where neighbours lie along the lines, by a workgroup for each: four elements for an invocation, whose sums are
// added up over the workgroup in steps that double (Hillis and Steele, "Data parallel algorithms", 1986).
@compute @workgroup_size(WIDTH)
fn scan(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let o = group_index(group, groups);
    if (o >= OUTPUTS) {
        return;
    }
    var before = 0.0;
    for (var first = 0u; first < LENGTH; first += 4u * WIDTH) {
        var own: array<f32, 4>;
        var sum = 0.0;
        for (var i = 0u; i < 4u; i++) { // unroll
            let r = first + 4u * lane + i;
            if (r < LENGTH) {
                sum += x[place(o, r)];
            }
            own[i] = sum;
        }
        sums[lane] = sum;
        workgroupBarrier();
        for (var step = 1u; step < WIDTH; step *= 2u) {
            let other = select(0.0, sums[max(lane, step) - step], lane >= step);
            workgroupBarrier();
            sums[lane] += other;
            workgroupBarrier();
        }
        let below = before + select(0.0, sums[max(lane, 1u) - 1u], lane > 0u);
        for (var i = 0u; i < 4u; i++) { // unroll
            let r = first + 4u * lane + i;
            if (r < LENGTH) {
                y[place(o, r)] = below + own[i];
            }
        }
        before += sums[WIDTH - 1u];
        workgroupBarrier();
    }
}
