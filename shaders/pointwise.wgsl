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

// The same by subgroups whose lanes lie abreast, TURNS times SUBGROUP pairs each.
@compute @workgroup_size(256)
fn pairs_abreast(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    own_lane = lane;
    let first = stretch(group_index(group, groups) * (256u / SUBGROUP) + subgroup, TURNS * SUBGROUP, COUNT);
    var e = given(first);
    for (var t = 0u; t < TURNS; t++) { // unroll
        let results = pair(first + t * SUBGROUP + own_lane, e);
        if (t + 1u < TURNS) {
            e = given(first + (t + 1u) * SUBGROUP);
        }
        y_pairs[abreast(first + t * SUBGROUP + own_lane)] = results;
    }
}

// The same where an operand's neighbours lie along ROWS, not along COLUMNS, the output's last axis: an invocation reads
// and writes 4 x 4 elements in vec4s, a workgroup 32 x 32.
const ROWS = 4u;
const COLUMNS = 4u;
const STEP = 4u; // elements of the output from one row to the next
const FROM = 4u; // elements of the operand from one column to the next
const OTHERS = 1u;

alias Turned = f32;

// The first element of output o of OTHERS.
fn first(o: u32) -> u32 {
    return o;
}

// The operand's element that goes there.
fn origin(o: u32) -> u32 {
    return o;
}

// Elements p to p + 3 of the operand.
fn turned(p: u32) -> vec4<Turned> {
    return vec4<Turned>();
}

fn value4_of_turned(q: u32, e: vec4<Turned>) -> vec4<Element> {
    return vec4<Element>();
}

// What goes to elements 4q to 4q + 3 of four rows.
alias Block = array<vec4<Element>, 4>;

fn block(q: u32, a: vec4<Turned>, b: vec4<Turned>, c: vec4<Turned>, d: vec4<Turned>) -> Block {
    return Block(
        value4_of_turned(q, vec4<Turned>(a.x, b.x, c.x, d.x)),
        value4_of_turned(q + STEP / 4u, vec4<Turned>(a.y, b.y, c.y, d.y)),
        value4_of_turned(q + 2u * STEP / 4u, vec4<Turned>(a.z, b.z, c.z, d.z)),
        value4_of_turned(q + 3u * STEP / 4u, vec4<Turned>(a.w, b.w, c.w, d.w)),
    );
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
    let o = id / (columns * rows);
    let p = origin(o) + column * FROM + row;
    let q = (first(o) + row * STEP + column) / 4u;
    let results = block(q, turned(p), turned(p + FROM), turned(p + 2u * FROM), turned(p + 3u * FROM));
    for (var n = 0u; n < 4u; n++) { // unroll
        store(q + n * STEP / 4u, results[n]);
    }
}

// The same by subgroups whose lanes lie abreast: 4 x 4 elements for each lane, DOWN lanes below each other.
const DOWN = 4u;
const TILE_ROWS = 4u * DOWN;
const TILE_COLUMNS = 4u * (SUBGROUP / DOWN);

fn turned_abreast(p: u32) -> vec4<Turned> {
    return vec4<Turned>();
}

// Tiles at the end overlap with others, and subgroups in excess compute the last one again.
@compute @workgroup_size(64)
fn transpose_abreast(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    own_lane = lane;
    let columns = (COLUMNS + TILE_COLUMNS - 1u) / TILE_COLUMNS;
    let rows = (ROWS + TILE_ROWS - 1u) / TILE_ROWS;
    let tiles = columns * rows * OTHERS;
    let id = subgroup_uniform(min(group_index(group, groups) * (64u / SUBGROUP) + subgroup, tiles - 1u), tiles);
    let row = min(id / columns % rows * TILE_ROWS, ROWS - TILE_ROWS);
    let column = min(id % columns * TILE_COLUMNS, COLUMNS - TILE_COLUMNS);
    let o = id / (columns * rows);
    let p = origin(o) + column * FROM + row;
    let q = (first(o) + row * STEP + column) / 4u;
    let a = turned_abreast(p);
    let b = turned_abreast(p + FROM);
    let c = turned_abreast(p + 2u * FROM);
    let d = turned_abreast(p + 3u * FROM);
    let results = block(q + lane % DOWN * STEP + lane / DOWN, a, b, c, d);
    for (var n = 0u; n < 4u; n++) { // unroll
        y[abreast(q + (own_lane % DOWN * 4u + n) * (STEP / 4u) + own_lane / DOWN)] = results[n];
    }
}
