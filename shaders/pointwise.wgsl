// Element by element: whatever chain of pointwise operations the fuser put into `value4`.
// include: math.wgsl
// include: random.wgsl
// include: grid.wgsl
// include: abreast.wgsl

// vec4s (or pairs of them) in the output; one per invocation, so that neighbours touch neighbouring memory.
const COUNT = 1u;

alias Element = f32;

@group(0) @binding(0) var<storage, read_write> y: array<vec4<Element>>;

fn store(q: u32, v: vec4<Element>) {
    y[q] = v;
}

@group(0) @binding(0) var<storage, read_write> y_halves: array<vec2<u32>>;

fn store_halves(q: u32, v: vec4<Element>) {
    y_halves[q] = pack_four(v);
}

// Elements 4q to 4q + 3 of the result.
fn value4(q: u32) -> vec4<Element> {
    return vec4<Element>();
}

@compute @workgroup_size(64)
fn pointwise(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let q = group_index(group, groups) * 64u + lane;
    if (q < COUNT) {
        store(q, value4(q));
    }
}

// Eight elements for each invocation and turn, where a driver loads and stores wide words at the price of narrow ones.
alias Pair = array<vec4<f32>, 2>;

// Operands that are read in pairs.
alias Given = array<Pair, 1>;

const TURNS = 1u;

@group(0) @binding(0) var<storage, read_write> y_pairs: array<Pair>;

// Elements 8o to 8o + 7 of them, or the last ones.
fn given(o: u32) -> Given {
    return Given();
}

// The same elements of the result.
fn pair(o: u32, e: Given) -> Pair {
    return Pair();
}

// What the next turn needs is loaded before this turn's results are stored: a core that runs ahead computes while it loads.
@compute @workgroup_size(256)
fn pairs(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var o = group_index(group, groups) * (256u * TURNS) + lane;
    var e = given(o);
    for (var t = 0u; t < TURNS; t++) { // unroll
        let results = pair(o, e);
        if (t + 1u < TURNS) {
            e = given(o + 256u);
        }
        if (COUNT % (256u * TURNS) == 0u || o < COUNT) {
            y_pairs[o] = results;
        }
        o += 256u;
    }
}

const SUBGROUP = 8u;

// The same by subgroups whose lanes lie abreast, TURNS times SUBGROUP pairs each. Where the last one would have fewer, or a
// workgroup has subgroups in excess, some are computed again.
@compute @workgroup_size(256)
fn pairs_abreast(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    own_lane = lane;
    let stretch = group_index(group, groups) * (256u / SUBGROUP) + subgroup;
    let last = COUNT - TURNS * SUBGROUP;
    let first = min(subgroup_uniform(stretch, last / (TURNS * SUBGROUP) + 2u) * (TURNS * SUBGROUP), last);
    var e = given(first);
    for (var t = 0u; t < TURNS; t++) { // unroll
        let results = pair(abreast(first + t * SUBGROUP), e);
        if (t + 1u < TURNS) {
            e = given(first + (t + 1u) * SUBGROUP);
        }
        y_pairs[abreast(first + t * SUBGROUP)] = results;
    }
}

// The same where an operand's neighbours lie along ROWS, not along COLUMNS, the output's last axis: an invocation reads
// and writes 4 x 4 elements in vec4s, a workgroup 32 x 32.
const ROWS = 4u;
const COLUMNS = 4u;
const STEP = 4u; // elements of the output from one row to the next
const OTHERS = 1u;

alias Turned = f32;

// The first element of output o of OTHERS.
fn first(o: u32) -> u32 {
    return o;
}

// What goes to element i of the output and the three rows behind it.
fn turned(i: u32) -> vec4<Turned> {
    return vec4<Turned>();
}

fn value4_of_turned(q: u32, e: vec4<Turned>) -> vec4<Element> {
    return vec4<Element>();
}

@compute @workgroup_size(64)
fn transpose(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let columns = (COLUMNS + 31u) / 32u;
    let rows = (ROWS + 31u) / 32u;
    let id = group_index(group, groups);
    let row = id / columns % rows * 32u + lane % 8u * 4u;
    let column = id % columns * 32u + lane / 8u * 4u;
    if (id >= columns * rows * OTHERS || row >= ROWS || column >= COLUMNS) {
        return;
    }
    let i = first(id / (columns * rows)) + row * STEP + column;
    let a = turned(i);
    let b = turned(i + 1u);
    let c = turned(i + 2u);
    let d = turned(i + 3u);
    store(i / 4u, value4_of_turned(i / 4u, vec4<Turned>(a.x, b.x, c.x, d.x)));
    store((i + STEP) / 4u, value4_of_turned((i + STEP) / 4u, vec4<Turned>(a.y, b.y, c.y, d.y)));
    store((i + 2u * STEP) / 4u, value4_of_turned((i + 2u * STEP) / 4u, vec4<Turned>(a.z, b.z, c.z, d.z)));
    store((i + 3u * STEP) / 4u, value4_of_turned((i + 3u * STEP) / 4u, vec4<Turned>(a.w, b.w, c.w, d.w)));
}
