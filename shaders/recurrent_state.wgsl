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

// Element i of the `count` columns from the begin of a plane on; the last one where these may end within a vec4.
fn within(i: u32, count: u32) -> u32 {
    return select(min(i, count * ROWS - 1u), i, HIDDEN % 4u == 0u);
}

// Columns k to k + 3 of the `count` from the begin of a plane on, for all rows: element i ROWS + r. Behind the last one
// there is anything finite.
fn columns(team: u32, plane: u32, k: u32, count: u32, lane: u32) -> array<f32, ROWS * 4u> {
    var values: array<f32, ROWS * 4u>;
    for (var e = 0u; e < ROWS * 4u; e++) { // unroll
        values[e] = planes[plane * HIDDEN * ROWS + within(k * ROWS + e, count)];
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
        loads[j] = textureLoad(state, texel(first + within(k * ROWS + e, count))).x;
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
        values[e] = memory[first + within(k * ROWS + e, count)];
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

// In a dispatch to each step, the loop over a product's k is cut into SLICES, of an invocation each, so that the loads of
// weights do not wait for one another. Then each of them has one sequence.

const SLICES = 8u; // at least ROWS
const PASS = 4u;   // rows at a time, whose parts fit into workgroup memory; a divisor of ROWS
alias Sum = vec4<f32>; // of a unit's gates, or of four columns

var<workgroup> parts: array<Sum, SLICES * PASS * GROUP>;

// The half-open range of `count` steps that a slice sums, in fours.
fn slice_of(slice: u32, count: u32) -> vec2<u32> {
    let run = ((count + 3u) / 4u + SLICES - 1u) / SLICES * 4u;
    return vec2<u32>(min(slice * run, count), min(slice * run + run, count));
}

// The sum for row `slice`, from the parts that all slices have of all rows.
fn own_sum(sums: array<Sum, ROWS>, own: u32, slice: u32) -> Sum {
    var sum = Sum();
    for (var pass = 0u; pass < ROWS / PASS; pass++) { // unroll
        for (var r = 0u; r < PASS; r++) { // unroll
            parts[(slice * PASS + r) * GROUP + own] = sums[pass * PASS + r];
        }
        workgroupBarrier();
        if (slice / PASS == pass) {
            for (var other = 0u; other < SLICES; other++) {
                sum += parts[(other * PASS + slice % PASS) * GROUP + own];
            }
        }
        workgroupBarrier();
    }
    return sum;
}
