// Moving elements: concatenation, padding, and selection by index.
// include: grid.wgsl
// include: math.wgsl
// include: abreast.wgsl

alias Element = f32; // as many neighbours as move together

const COUNT = 1u; // invocations, one per Element written
const OUTER = 1u; // for selection, x is [OUTER, LENGTH, INNER]
const LENGTH = 1u;
const INNER = 1u;
const TAKEN = 1u; // indices along the selected axis
const WHOLE = 0u; // 1: an index for each element, [OUTER, TAKEN, INNER]; 0: one list for all, [TAKEN]

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> y: array<Element>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> taken: array<Element>;

// Where element i of x goes.
fn target_of(i: u32) -> u32 {
    return i;
}

// Which element of x is element i of y; 0xffffffff: none, it is filled.
fn source_of(i: u32) -> u32 {
    return i;
}

fn fill() -> Element {
    return Element();
}

// Writes x into a part of y.
@compute @workgroup_size(64)
fn scatter(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i < COUNT) {
        y[target_of(i)] = x[i];
    }
}

const SUBGROUP = 8u;
const TURNS = 1u;

// The same by subgroups whose lanes lie abreast, TURNS times SUBGROUP Elements each.
@compute @workgroup_size(64)
fn scatter_abreast(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    own_lane = lane;
    let first = stretch(group_index(group, groups) * (64u / SUBGROUP) + subgroup, TURNS * SUBGROUP, COUNT);
    for (var t = 0u; t < TURNS; t++) { // unroll
        y[abreast(target_of(first + t * SUBGROUP + own_lane))] = x[abreast(first + t * SUBGROUP + own_lane)];
    }
}

// Reads x into a larger y, whose other elements are filled.
@compute @workgroup_size(64)
fn spread(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let source = source_of(i);
    if (source == 0xffffffffu) {
        y[i] = fill();
    } else {
        y[i] = x[source];
    }
}

fn index_at(outer: u32, k: u32, inner: u32) -> u32 {
    if (WHOLE == 1u) {
        return index[(outer * TAKEN + k) * INNER + inner];
    }
    return index[k];
}

// taken[o, k, n] = x[o, index, n]; an index that is out of range gives `fill()`, a NaN for floats.
@compute @workgroup_size(64)
fn gather(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let inner = i % INNER;
    let k = (i / INNER) % TAKEN;
    let outer = i / (INNER * TAKEN);
    let at = index_at(outer, k, inner);
    if (at < LENGTH) {
        taken[i] = x[(outer * LENGTH + at) * INNER + inner];
    } else {
        taken[i] = fill();
    }
}

// The same by subgroups whose lanes lie abreast, TURNS times SUBGROUP Elements each, a divisor of INNER, for one list of
// indices.
@compute @workgroup_size(64)
fn gather_abreast(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    own_lane = lane;
    let first = stretch(group_index(group, groups) * (64u / SUBGROUP) + subgroup, TURNS * SUBGROUP, COUNT);
    let at = index[first / INNER % TAKEN];
    let row = first / (INNER * TAKEN) * LENGTH + subgroup_uniform(min(at, LENGTH - 1u), LENGTH);
    for (var t = 0u; t < TURNS; t++) { // unroll
        var element = x[abreast(row * INNER + first % INNER + t * SUBGROUP + own_lane)];
        if (at >= LENGTH) {
            element = fill();
        }
        taken[abreast(first + t * SUBGROUP + own_lane)] = element;
    }
}

// The gradient of `gather`: every element sums, in order, what was taken from it; x is the arriving gradient.
@compute @workgroup_size(64)
fn gather_grad(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let inner = i % INNER;
    let at = (i / INNER) % LENGTH;
    let outer = i / (INNER * LENGTH);
    var total = Element();
    for (var k = 0u; k < TAKEN; k++) {
        if (index_at(outer, k, inner) == at) {
            total += x[(outer * TAKEN + k) * INNER + inner];
        }
    }
    taken[i] = total;
}
