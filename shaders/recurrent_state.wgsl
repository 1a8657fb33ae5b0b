// What a team of a recurrent layer has in common: its sequences' states, from step to step.
// include: recurrent.wgsl

// A workgroup (a team) runs ROWS sequences from end to end, and its invocations own units or columns. What all of them
// read lies in planes [HIDDEN, ROWS] of workgroup memory.

const ROWS = 8u;
const GROUP = 64u;
const TEAMS = (BATCH + ROWS - 1u) / ROWS;
const PLANES = 2u;
const LANES = 8u; // of a subgroup that share loads, in the variant with a texture

// Optional bindings, as in recurrent.wgsl.
const STATE = 20u;
const STEP = 21u;

struct Place {
    team: u32,
    d: u32,
    n: u32, // in the batch
    r: u32, // in the team
    u: u32,
}

var<workgroup> planes: array<f32, PLANES * HIDDEN * ROWS>;

fn put_plane(team: u32, plane: u32, u: u32, r: u32, value: f32) {
    planes[(plane * HIDDEN + u) * ROWS + r] = value;
}

fn at_plane(team: u32, plane: u32, u: u32, r: u32) -> f32 {
    return planes[(plane * HIDDEN + u) * ROWS + r];
}

// Elements k to k + 3 of the `count` from the begin of a plane on, for all rows: element i ROWS + r. Behind the last one
// there is anything finite.
fn columns(team: u32, plane: u32, k: u32, count: u32, lane: u32) -> array<f32, ROWS * 4u> {
    var values: array<f32, ROWS * 4u>;
    for (var e = 0u; e < ROWS * 4u; e++) { // unroll
        values[e] = planes[plane * HIDDEN * ROWS + min(k * ROWS + e, count * ROWS - 1u)];
    }
    return values;
}

fn sync() {
    workgroupBarrier();
}

// The same in a texture, for CPU-like adapters, where texels are loaded faster than workgroup memory and a workgroup is
// one subgroup, whose lanes share loads: all teams' planes, then what each invocation keeps for itself.
@group(0) @binding(STATE) var state: texture_storage_2d<r32float, read_write>;

fn texel(i: u32) -> vec2<u32> {
    return vec2<u32>(i % 8192u, i / 8192u);
}

fn put_plane_texel(team: u32, plane: u32, u: u32, r: u32, value: f32) {
    textureStore(state, texel(((team * PLANES + plane) * HIDDEN + u) * ROWS + r), vec4<f32>(value, 0.0, 0.0, 0.0));
}

fn at_plane_texel(team: u32, plane: u32, u: u32, r: u32) -> f32 {
    return textureLoad(state, texel(((team * PLANES + plane) * HIDDEN + u) * ROWS + r)).x;
}

const LOADS = (ROWS * 4u + LANES - 1u) / LANES;

fn from_lane(value: f32, lane: u32) -> f32 {
    return value;
}

fn columns_of_texels(team: u32, plane: u32, k: u32, count: u32, lane: u32) -> array<f32, ROWS * 4u> {
    let first = (team * PLANES + plane) * HIDDEN * ROWS;
    var loads: array<f32, LOADS>;
    for (var j = 0u; j < LOADS; j++) { // unroll
        let e = min(j * LANES + lane % LANES, ROWS * 4u - 1u);
        loads[j] = textureLoad(state, texel(first + min(k * ROWS + e, count * ROWS - 1u))).x;
    }
    var values: array<f32, ROWS * 4u>;
    for (var e = 0u; e < ROWS * 4u; e++) { // unroll
        values[e] = from_lane(loads[e / LANES], e % LANES);
    }
    return values;
}

fn sync_texels() {
    workgroupBarrier();
    textureBarrier();
}

// The same in a buffer, for a dispatch to each step.
@group(0) @binding(STATE) var<storage, read_write> memory: array<f32>; // [teams, PLANES, HIDDEN, ROWS]

fn put_plane_memory(team: u32, plane: u32, u: u32, r: u32, value: f32) {
    memory[((team * PLANES + plane) * HIDDEN + u) * ROWS + r] = value;
}

fn at_plane_memory(team: u32, plane: u32, u: u32, r: u32) -> f32 {
    return memory[((team * PLANES + plane) * HIDDEN + u) * ROWS + r];
}

fn columns_of_memory(team: u32, plane: u32, k: u32, count: u32, lane: u32) -> array<f32, ROWS * 4u> {
    let first = (team * PLANES + plane) * HIDDEN * ROWS;
    var values: array<f32, ROWS * 4u>;
    for (var e = 0u; e < ROWS * 4u; e++) { // unroll
        values[e] = memory[first + min(k * ROWS + e, count * ROWS - 1u)];
    }
    return values;
}

fn no_sync() {
}

// Where a driver allows only so many turns of loops, a dispatch runs a part of the sequence.
const SEGMENT = STEPS + 1u;

@group(0) @binding(STEP) var<storage, read> step_number: array<u32>; // [1]

fn first_step() -> u32 {
    return 0u;
}

fn first_step_given() -> u32 {
    return step_number[0];
}
