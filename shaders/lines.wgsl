// Lines of LENGTH neighbouring elements, each the work of a team: one invocation, a subgroup, or a workgroup.
// include: grid.wgsl
// include: team.wgsl
// include: abreast.wgsl

alias Lanes = vec4<f32>; // f32, with the functions for one, where lines are not whole vec4s
const LANES = 4u;

const STEP = 1u; // elements from one of a line to the next; more only where Lanes are f32 and a team is one invocation
const LINES = 1u;
const TEAMS = 64u; // lines of a workgroup, where a team is one invocation
const LENGTH = 4u;
const ROUNDS = 1u; // in each of them an invocation takes HELD Lanes of its line
const HELD = 1u;

@group(0) @binding(0) var<storage, read> x: array<Lanes>; // [LINES / STEP, LENGTH, STEP]
@group(0) @binding(1) var<storage, read_write> y: array<Lanes>; // the same

// The first Lanes of a line.
fn base_of(line: u32) -> u32 {
    return line / STEP * (LENGTH / LANES) * STEP + line % STEP;
}

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

fn epilogues(v: vec4<f32>, i: u32) -> vec4<f32> {
    return vec4<f32>(epilogue(v.x, i), epilogue(v.y, i + 1u), epilogue(v.z, i + 2u), epilogue(v.w, i + 3u));
}

fn epilogues_one(v: f32, i: u32) -> f32 {
    return epilogue(v, i);
}

alias Words = vec4<u32>; // u32 where Lanes are f32

// The places of the k-th Lanes of a line.
fn places_of(k: vec4<u32>) -> vec4<u32> {
    return 4u * k + vec4<u32>(0u, 1u, 2u, 3u);
}

fn places_of_one(k: u32) -> u32 {
    return k;
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

const SUBGROUP = 32u; // invocations of a subgroup, neighbours, where it is a team; WIDTH is a multiple of it
const TURNS = 1u; // lines that a subgroup takes, one after the other
const TAKEN = TURNS * (WIDTH / SUBGROUP); // lines of a workgroup

// Where a workgroup takes TAKEN of them, its last lines may be past the end: they are computed as the last one, and not
// stored.
fn is_line(line: u32) -> bool {
    return LINES % TAKEN == 0u || line < LINES;
}

// Whether a team is a subgroup whose lanes lie abreast.
const ABREAST = 0u;

// Whether all lanes of such a team have the h-th piece of their line.
fn is_abreast(h: u32) -> bool {
    return ABREAST == 1u && (h + 1u) * SUBGROUP <= LENGTH / (LANES * PIECE);
}

// The h-th Lanes that an invocation takes of the line from `base` on, the k-th of the line.
fn load(h: u32, base: u32, k: u32) -> Lanes {
    var v: Lanes;
    if (is_abreast(h)) {
        v = x[abreast(base + h * SUBGROUP + own_lane)];
    } else {
        v = x[base + k * STEP];
    }
    return v;
}

fn store(h: u32, base: u32, k: u32, v: Lanes) {
    if (is_abreast(h)) {
        y[abreast(base + h * SUBGROUP + own_lane)] = v;
    } else {
        y[base + k * STEP] = v;
    }
}

// What an invocation has read of its line in a round: to be read again or, where one round is enough, from here.
var<private> held: array<Lanes, HELD>;

fn again(h: u32, at: u32) -> Lanes {
    return x[at];
}

fn again_from_registers(h: u32, at: u32) -> Lanes {
    return held[h];
}

// What `lane` of a team of `team` invocations does for a line; it stores what it finds if the line is `live`. Shaders put
// one of their functions in its place.
fn of_line(line: u32, live: bool, lane: u32, team: u32) {
}

// What a subgroup does, whose first line is this.
fn of_lines(first: u32, lane: u32) {
    of_line(min(first, LINES - 1u), is_line(first), lane, SUBGROUP);
}

// What it does before the first of several lines.
fn prepare(lane: u32) {
}

fn of_lines_in_turns(first: u32, lane: u32) {
    prepare(lane);
    for (var turn = 0u; turn < TURNS; turn++) {
        let line = first + turn * (WIDTH / SUBGROUP);
        of_line(min(line, LINES - 1u), is_line(line), lane, SUBGROUP);
    }
}

@compute @workgroup_size(TEAMS)
fn serial(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let line = group_index(group, groups) * TEAMS + lane;
    if (line < LINES) {
        of_line(line, true, 0u, 1u);
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
        of_line(line, true, lane, WIDTH);
    }
}

// What subgroups in excess do is one of the lines once more.
@compute @workgroup_size(WIDTH)
fn by_subgroup_abreast(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    own_lane = lane;
    let line = subgroup_uniform(group_index(group, groups) * (WIDTH / SUBGROUP) + subgroup, LINES);
    of_line(min(line, LINES - 1u), true, lane, SUBGROUP);
}

@compute @workgroup_size(WIDTH)
fn by_subgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group_index(group, groups) * TAKEN;
    if (first < LINES) {
        of_lines(first + lane / SUBGROUP, lane % SUBGROUP);
    }
}
