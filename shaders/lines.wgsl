// Lines of LENGTH neighbouring elements, each the work of a team: one invocation, a subgroup, or a workgroup.
// include: grid.wgsl
// include: team.wgsl

alias Lanes = vec4<f32>; // f32, with the functions for one, where lines are not whole vec4s
const LANES = 4u;

const LINES = 1u;
const TEAMS = 64u; // lines of a workgroup, where a team is one invocation
const LENGTH = 4u;
const ROUNDS = 1u; // in each of them an invocation takes HELD Lanes of its line
const HELD = 1u;

@group(0) @binding(0) var<storage, read> x: array<Lanes>; // [LINES, LENGTH]
@group(0) @binding(1) var<storage, read_write> y: array<Lanes>; // the same

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

fn epilogues(v: vec4<f32>, i: u32) -> vec4<f32> {
    return vec4<f32>(epilogue(v.x, i), epilogue(v.y, i + 1u), epilogue(v.z, i + 2u), epilogue(v.w, i + 3u));
}

fn epilogues_one(v: f32, i: u32) -> f32 {
    return epilogue(v, i);
}

fn first_of(v: vec4<f32>) -> f32 {
    return v.x;
}

fn first_of_one(v: f32) -> f32 {
    return v;
}

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

fn total_one(v: f32) -> f32 {
    return v;
}

fn largest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn largest_one(v: f32) -> f32 {
    return v;
}

// In the place of the workgroup's sum and maximum, where the team is one invocation.
fn sum_alone(lane: u32, value: f32) -> f32 {
    return value;
}

fn max_alone(lane: u32, value: f32) -> f32 {
    return value;
}

const PIECE = 1u; // Lanes that are loaded at once

// Whether an invocation's h-th piece of a round, the k-th of the line, is there.
fn within(h: u32, k: u32) -> bool {
    return k < LENGTH / (LANES * PIECE);
}

// Of teams of one, whose ROUNDS are the line.
fn within_alone(h: u32, k: u32) -> bool {
    return true;
}

// Of subgroups with one round, of which the compiler knows those that all invocations have.
fn within_by_subgroup(h: u32, k: u32) -> bool {
    return (h + 1u) * SUBGROUP <= LENGTH / LANES || k < LENGTH / LANES;
}

const TURNS = 1u; // lines that a subgroup takes, one after the other
const TAKEN = TURNS * (WIDTH / SUBGROUP); // lines of a workgroup

// Where a workgroup takes TAKEN of them, its last lines may be past the end: they are computed as the last one, and not
// stored.
fn is_line(line: u32) -> bool {
    return LINES % TAKEN == 0u || line < LINES;
}

// What an invocation has read of its line in a round: to be read again or, where one round is enough, from here.
var<private> held: array<Lanes, HELD>;

fn again(h: u32, at: u32) -> Lanes {
    return x[at];
}

fn again_from_registers(h: u32, at: u32) -> Lanes {
    return held[h];
}
