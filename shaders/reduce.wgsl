// Reductions over any axes, in a fixed order, so that the bits are the same on every run.
// include: grid.wgsl

const OUTPUTS = 1u;  // elements of the result
const LENGTH = 1u;   // elements reduced into each
const SPLITS = 1u;   // invocations that share one result; their partial results are reduced by the next dispatch
const INNER = 0u;    // 1: neighbouring invocations share a result (the innermost axis is reduced), 0: they own neighbours
const KIND = 0u;     // 0 sum, 1 maximum, 2 minimum, 3 product
const COUNT = 1u;    // invocations

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // [SPLITS, OUTPUTS]
@group(0) @binding(1) var<storage, read_write> indices: array<u32>; // [OUTPUTS]

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

// Where the r-th element of result o lies.
fn place(o: u32, r: u32) -> u32 {
    return o * LENGTH + r;
}

fn combine(a: f32, b: f32) -> f32 {
    switch (KIND) {
        case 1u: { return max(a, b); }
        case 2u: { return min(a, b); }
        case 3u: { return a * b; }
        default: { return a + b; }
    }
}

fn identity() -> f32 {
    switch (KIND) {
        case 1u: { return -3.4028234663852886e38; }
        case 2u: { return 3.4028234663852886e38; }
        case 3u: { return 1.0; }
        default: { return 0.0; }
    }
}

// Each invocation reduces every SPLITS-th element (INNER) or a run of neighbours of one result.
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
    let o = select(id % OUTPUTS, id / SPLITS, INNER == 1u);
    let s = select(id / OUTPUTS, id % SPLITS, INNER == 1u);
    let run = (LENGTH + SPLITS - 1u) / SPLITS;
    let first = select(s * run, s, INNER == 1u);
    let last = select(min(first + run, LENGTH), LENGTH, INNER == 1u);
    let step = select(1u, SPLITS, INNER == 1u);
    var total = identity();
    for (var r = first; r < last; r += step) {
        total = combine(total, x[place(o, r)]);
    }
    if (SPLITS == 1u) {
        total = epilogue(total, o);
    }
    y[s * OUTPUTS + o] = total;
}

// The place of the first maximum (KIND 1) or minimum (KIND 2) of each result's elements.
@compute @workgroup_size(64)
fn arg(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let o = group_index(group, groups) * 64u + lane;
    if (o >= OUTPUTS) {
        return;
    }
    var best = x[place(o, 0u)];
    var at = 0u;
    for (var r = 1u; r < LENGTH; r++) {
        let value = x[place(o, r)];
        if ((KIND == 1u && value > best) || (KIND == 2u && value < best)) {
            best = value;
            at = r;
        }
    }
    indices[o] = at;
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
