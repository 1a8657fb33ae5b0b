// What the loops of recurrent layers over time have in common: where their operands lie.
// include: grid.wgsl
// include: cells.wgsl

const STEPS = 1u;
const BATCH = 1u;
const HIDDEN = 1u;
const DIRECTIONS = 1u; // the second one runs backwards
const GATES = 4u;      // of the projected input
const ROW_T = 1u;      // rows between neighbours in time, and in the batch
const ROW_N = 1u;

// Optional bindings; the kernel numbers those that it has.
const INITIAL = 8u;
const LENGTHS = 9u;

// The step of the sequence that a direction comes to as its s-th.
fn time_of(d: u32, s: u32) -> u32 {
    return select(s, STEPS - 1u - s, d == 1u);
}

fn row_of(t: u32, n: u32) -> u32 {
    return t * ROW_T + n * ROW_N;
}

// Steps of a sequence; behind its end the state stays as it is.
fn length_of(n: u32) -> u32 {
    return STEPS;
}

@group(0) @binding(LENGTHS) var<storage, read> lengths: array<u32>; // [BATCH]

fn length_given(n: u32) -> u32 {
    return min(lengths[n], STEPS);
}

// The state before the first step; the second plane is c.
fn state_before(plane: u32, d: u32, n: u32, u: u32) -> f32 {
    return 0.0;
}

@group(0) @binding(INITIAL) var<storage, read> initial: array<f32>; // [1 or 2, DIRECTIONS, BATCH, HIDDEN]

fn state_given(plane: u32, d: u32, n: u32, u: u32) -> f32 {
    return initial[((plane * DIRECTIONS + d) * BATCH + n) * HIDDEN + u];
}
