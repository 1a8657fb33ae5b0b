// Lines of neighbouring elements brought to mean 0 (not for the RMS norm) and mean square 1, then scaled and shifted by
// channel, and the gradient of that.
// include: lines.wgsl
// include: moments.wgsl

const GROUPS = 1u;  // line l holds the channels of group l % GROUPS
const INNER = 1u;   // neighbouring elements of one channel
const CENTRED = 1u; // 0: the mean counts as 0
const EPS = 1e-5;   // added to the mean square

@group(0) @binding(2) var<storage, read_write> stats: array<f32>; // [2, LINES]: mean; 1 / root of mean square and EPS

const WEIGHT = 3u;
const BIAS = 4u;
@group(0) @binding(WEIGHT) var<storage, read> weights: array<f32>; // [channels]
@group(0) @binding(BIAS) var<storage, read> biases: array<f32>; // [channels]

fn channel(line: u32, k: u32) -> u32 {
    return line % GROUPS * (LENGTH / INNER) + k / INNER;
}

fn weight(line: u32, k: u32) -> f32 {
    return 1.0;
}

fn weight_given(line: u32, k: u32) -> f32 {
    return weights[channel(line, k)];
}

fn bias(line: u32, k: u32) -> f32 {
    return 0.0;
}

fn bias_given(line: u32, k: u32) -> f32 {
    return biases[channel(line, k)];
}

// Of Lanes from element k of the line on.
fn weights_at(h: u32, line: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(weight(line, k), weight(line, k + 1u), weight(line, k + 2u), weight(line, k + 3u));
}

// The same where all of them are of one channel.
fn weights_at_alike(h: u32, line: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(weight(line, k));
}

fn biases_at_alike(h: u32, line: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(bias(line, k));
}

fn weights_at_one(h: u32, line: u32, k: u32) -> f32 {
    return weight(line, k);
}

// For lines of whole vec4s in which each element is of a channel of its own.
@group(0) @binding(WEIGHT) var<storage, read> weights4: array<vec4<f32>>; // [channels / 4]
@group(0) @binding(BIAS) var<storage, read> biases4: array<vec4<f32>>; // [channels / 4]

fn weights_at_by_four(h: u32, line: u32, k: u32) -> vec4<f32> {
    return weights4[channel(line, k) / 4u];
}

fn biases_at_by_four(h: u32, line: u32, k: u32) -> vec4<f32> {
    return biases4[channel(line, k) / 4u];
}

fn biases_at(h: u32, line: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(bias(line, k), bias(line, k + 1u), bias(line, k + 2u), bias(line, k + 3u));
}

fn biases_at_one(h: u32, line: u32, k: u32) -> f32 {
    return bias(line, k);
}

// For teams that take several lines, one after the other, in all of which each place is of the same channel.
var<private> held_weights: array<Lanes, HELD>;
var<private> held_biases: array<Lanes, HELD>;

fn weights_at_from_registers(h: u32, line: u32, k: u32) -> Lanes {
    return held_weights[h];
}

fn biases_at_from_registers(h: u32, line: u32, k: u32) -> Lanes {
    return held_biases[h];
}

fn hold_weights(lane: u32) {
    for (var h = 0u; h < HELD; h++) { // unroll
        let k = min(h * SUBGROUP + lane, LENGTH / LANES - 1u);
        held_weights[h] = weights4[k];
    }
}

fn hold_weights_and_biases(lane: u32) {
    for (var h = 0u; h < HELD; h++) { // unroll
        let k = min(h * SUBGROUP + lane, LENGTH / LANES - 1u);
        held_weights[h] = weights4[k];
        held_biases[h] = biases4[k];
    }
}

// Those of a whole line, which `lane` of `team` invocations read once, in blocks of HELD Lanes. Parts' means are of
// differences to the line's first element, so that none of them is rounded to the digits of a large one.
fn moments(line: u32, lane: u32, team: u32) -> Moments {
    let base = line * (LENGTH / LANES);
    var first = 0.0;
    if (CENTRED == 1u) {
        first = first_of(x[base]);
    }
    // Of 32 blocks at a time, which rounds a mean less often than to go from one block to the next throughout.
    var own = Moments();
    var blocks = Moments();
    for (var round = 0u; round < ROUNDS; round++) {
        var sum = Lanes();
        var count = 0.0;
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                held[h] = x[base + k] - first;
                sum += held[h];
                count += f32(LANES);
            }
        }
        var mean = 0.0;
        if (CENTRED == 1u) {
            mean = total(sum) / max(count, 1.0);
        }
        var squares = Lanes();
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                let v = held[h] - mean;
                squares += v * v;
            }
        }
        blocks = together(blocks, Moments(count, mean, total(squares)));
        if (round % 32u == 31u || round + 1u == ROUNDS) {
            own = together(own, blocks);
            blocks = Moments();
        }
    }
    var mean = 0.0;
    if (CENTRED == 1u) {
        mean = all_sum(lane, own.count * own.mean) / f32(LENGTH);
    }
    let apart = own.mean - mean;
    return Moments(f32(LENGTH), first + mean, all_sum(lane, own.squares + own.count * apart * apart));
}

// The same with one block, which stays in registers; differences are to its mean at once.
fn moments_in_registers(line: u32, lane: u32, team: u32) -> Moments {
    let base = line * (LENGTH / LANES);
    let first = first_of(x[base]);
    var sum = Lanes();
    for (var h = 0u; h < HELD; h++) { // unroll
        let k = h * team + lane;
        // So that nothing held is carried from one line to the next.
        held[h] = Lanes();
        if (within(h, k)) {
            held[h] = x[base + k];
            sum += held[h] - first;
        }
    }
    var mean = 0.0;
    if (CENTRED == 1u) {
        mean = first + all_sum(lane, total(sum)) / f32(LENGTH);
    }
    var squares = Lanes();
    for (var h = 0u; h < HELD; h++) { // unroll
        if (within(h, h * team + lane)) {
            let v = held[h] - mean;
            squares += v * v;
        }
    }
    return Moments(f32(LENGTH), mean, all_sum(lane, total(squares)));
}

// `lane` of `team` invocations, who store what they find if the line is `live`.
fn normalize(line: u32, live: bool, lane: u32, team: u32) {
    let base = line * (LENGTH / LANES);
    let found = moments(line, lane, team);
    let mean = found.mean;
    let scale = 1.0 / sqrt(found.squares / f32(LENGTH) + EPS);
    if (lane == 0u && live) {
        stats[line] = mean;
        stats[LINES + line] = scale;
    }
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k) && live) {
                let v = (again(h, base + k) - mean) * scale;
                let at = LANES * k;
                y[base + k] = epilogues(v * weights_at(h, line, at) + biases_at(h, line, at), line * LENGTH + at);
            }
        }
    }
}

// An invocation for each Lanes, when `stats` is known.
@compute @workgroup_size(64)
fn apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    let line = i / (LENGTH / LANES);
    if (line < LINES) {
        let at = LANES * (i % (LENGTH / LANES));
        let v = (x[i] - stats[line]) * stats[LINES + line];
        y[i] = epilogues(v * weights_at(0u, line, at) + biases_at(0u, line, at), LANES * i);
    }
}

@group(0) @binding(1) var<storage, read> saved: array<f32>; // `stats`
@group(0) @binding(2) var<storage, read> dy: array<Lanes>; // like x
const DX = 3u;
@group(0) @binding(DX) var<storage, read_write> dx: array<Lanes>; // like x

var<private> held_grads: array<Lanes, HELD>;

fn grads_again(h: u32, line: u32, base: u32, k: u32) -> Lanes {
    return dy[base + k] * weights_at(h, line, LANES * k);
}

fn grads_from_registers(h: u32, line: u32, base: u32, k: u32) -> Lanes {
    return held_grads[h];
}

// With n the normalized elements and g what arrives at them: scale (g - mean(g) - n mean(g n)).
fn slope(line: u32, live: bool, lane: u32, team: u32) {
    let base = line * (LENGTH / LANES);
    let mean = saved[line];
    let scale = saved[LINES + line];
    var sum = Lanes();
    var product = Lanes();
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            // So that nothing held is carried from one line to the next.
            held[h] = Lanes();
            held_grads[h] = Lanes();
            if (within(h, k)) {
                held[h] = x[base + k];
                held_grads[h] = dy[base + k] * weights_at(h, line, LANES * k);
                sum += held_grads[h];
                product += held_grads[h] * ((held[h] - mean) * scale);
            }
        }
    }
    var shift = 0.0;
    if (CENTRED == 1u) {
        shift = all_sum(lane, total(sum)) / f32(LENGTH);
    }
    let share = all_sum(lane, total(product)) / f32(LENGTH);
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k) && live) {
                let n = (again(h, base + k) - mean) * scale;
                let v = scale * (grads_again(h, line, base, k) - shift - n * share);
                dx[base + k] = epilogues(v, line * LENGTH + LANES * k);
            }
        }
    }
}

// --- The same for few long lines on GPUs: SPLITS workgroups take a part of a line each. `slope_sums` sums them up, then
// `slope_apply` knows the line's sums.

const SPLITS = 1u;
const PART = (LENGTH / LANES + SPLITS - 1u) / SPLITS; // Lanes of a part

const SUMS = 4u;
@group(0) @binding(SUMS) var<storage, read_write> part_sums: array<vec2<f32>>; // [LINES, SPLITS]: of g; of g n
@group(0) @binding(SUMS) var<storage, read> all_part_sums: array<vec2<f32>>; // the same

@compute @workgroup_size(WIDTH)
fn slope_sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups);
    if (id >= LINES * SPLITS) {
        return;
    }
    let line = id / SPLITS;
    let base = line * (LENGTH / LANES);
    let mean = saved[line];
    let scale = saved[LINES + line];
    let first = id % SPLITS * PART;
    var sum = Lanes();
    var product = Lanes();
    for (var k = first + lane; k < min(first + PART, LENGTH / LANES); k += WIDTH) {
        let g = dy[base + k] * weights_at(0u, line, LANES * k);
        sum += g;
        product += g * ((x[base + k] - mean) * scale);
    }
    let found = vec2<f32>(all_sum(lane, total(sum)), all_sum(lane, total(product)));
    if (lane == 0u) {
        part_sums[id] = found;
    }
}

@compute @workgroup_size(WIDTH)
fn slope_apply(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups);
    if (id >= LINES * SPLITS) {
        return;
    }
    let line = id / SPLITS;
    let base = line * (LENGTH / LANES);
    let mean = saved[line];
    let scale = saved[LINES + line];
    var own = vec2<f32>();
    for (var split = lane; split < SPLITS; split += WIDTH) {
        own += all_part_sums[line * SPLITS + split];
    }
    var shift = 0.0;
    if (CENTRED == 1u) {
        shift = all_sum(lane, own.x) / f32(LENGTH);
    }
    let share = all_sum(lane, own.y) / f32(LENGTH);
    let first = id % SPLITS * PART;
    for (var k = first + lane; k < min(first + PART, LENGTH / LANES); k += WIDTH) {
        let at = LANES * k;
        let n = (x[base + k] - mean) * scale;
        let v = scale * (dy[base + k] * weights_at(0u, line, at) - shift - n * share);
        dx[base + k] = epilogues(v, line * LENGTH + at);
    }
}

// --- The gradients of weight and bias. SPLITS are parts of all lines here.

@group(0) @binding(3) var<storage, read_write> sums: array<Lanes>; // [SPLITS, 2, LENGTH]: for the weight, for the bias

const BLOCK = 1u; // columns of Lanes for each invocation
const SPAN = 1u;  // neighbours that share as many times BLOCK of them, and read as long a stretch of each line at once

// Where each element of a line is of a channel of its own: an invocation goes down BLOCK columns of Lanes.
@compute @workgroup_size(64)
fn channel_sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let columns = LENGTH / LANES;
    let owners = columns / BLOCK;
    let stretches = (owners + 63u) / 64u;
    let id = group_index(group, groups);
    let owner = id % stretches * 64u + lane;
    let split = id / stretches;
    if (owner >= owners || split >= SPLITS) {
        return;
    }
    let first = owner / SPAN * (SPAN * BLOCK) + owner % SPAN;
    let run = (LINES + SPLITS - 1u) / SPLITS;
    var by_weight: array<Lanes, BLOCK>;
    var by_bias: array<Lanes, BLOCK>;
    for (var line = split * run; line < min(split * run + run, LINES); line++) {
        let mean = saved[line];
        let scale = saved[LINES + line];
        for (var n = 0u; n < BLOCK; n++) { // unroll
            let at = line * columns + first + n * SPAN;
            let g = dy[at];
            by_weight[n] += g * ((x[at] - mean) * scale);
            by_bias[n] += g;
        }
    }
    for (var n = 0u; n < BLOCK; n++) { // unroll
        let column = first + n * SPAN;
        sums[split * 2u * columns + column] = by_weight[n];
        sums[(split * 2u + 1u) * columns + column] = by_bias[n];
    }
}
