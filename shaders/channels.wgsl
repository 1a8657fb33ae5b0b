// Sums over each channel of [images, OUTPUTS, RUN Lanes]: mean and variance, and for the gradient of what is normalized by
// them the sums of what arrives, alone and times the centred elements. Every invocation takes a part of a channel; then an
// invocation, or a workgroup, puts a channel's parts together: `merge_moments` and `merge_sums` are what a team does for a line.
// include: lines.wgsl
// include: shares.wgsl
// include: moments.wgsl

const RUN = 1u; // Lanes of a channel that are neighbours
const COUNT = 1u; // invocations

fn place(channel: u32, r: u32) -> u32 {
    return (r / RUN * OUTPUTS + channel) * RUN + r % RUN;
}

@group(0) @binding(1) var<storage, read_write> parts: array<vec2<f32>>; // [SPLITS, OUTPUTS]: means and squares, or both sums

// Lanes are taken in blocks, whose mean is of differences to the part's first element, so that it is not rounded to the
// digits of a large one.
@compute @workgroup_size(64)
fn moments(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    let share = share_of(id);
    let first = first_of(x[place(share.result, min(share.first, LENGTH - 1u))]);
    var own = Moments();
    for (var r = share.first; r < share.last; r += HELD * share.step) {
        var sum = Lanes();
        var count = 0.0;
        for (var h = 0u; h < HELD; h++) { // unroll
            let at = r + h * share.step;
            if (at < share.last) {
                held[h] = x[place(share.result, at)] - first;
                sum += held[h];
                count += f32(LANES);
            }
        }
        let mean = total(sum) / count;
        var squares = Lanes();
        for (var h = 0u; h < HELD; h++) { // unroll
            if (r + h * share.step < share.last) {
                let v = held[h] - mean;
                squares += v * v;
            }
        }
        own = together(own, Moments(count, mean, total(squares)));
    }
    parts[share.split * OUTPUTS + share.result] = vec2<f32>(first + own.mean, own.squares);
}

@group(0) @binding(0) var<storage, read> found: array<vec2<f32>>; // what is in `parts`
@group(0) @binding(1) var<storage, read_write> means: array<f32>; // [OUTPUTS]
@group(0) @binding(2) var<storage, read_write> variances: array<f32>; // [OUTPUTS]

// The Lanes of part `split`.
fn lanes_of(channel: u32, split: u32) -> u32 {
    let share = share_of(select(split * OUTPUTS + channel, channel * SPLITS + split, INNER == 1u));
    return (max(share.last, share.first) - share.first + share.step - 1u) / share.step;
}

fn keep(channel: u32, mean: f32, variance: f32) {
    means[channel] = mean;
    variances[channel] = variance;
}

@group(0) @binding(1) var<storage, read_write> stats: array<f32>; // [2, OUTPUTS]: mean; 1 / root of variance and EPS
const EPS = 1e-5;

fn keep_scale(channel: u32, mean: f32, variance: f32) {
    stats[channel] = mean;
    stats[OUTPUTS + channel] = 1.0 / sqrt(variance + EPS);
}

fn merge_moments(channel: u32, live: bool, lane: u32, team: u32) {
    let length = f32(LENGTH) * f32(LANES);
    let first = found[channel].x;
    var own = Moments();
    for (var split = lane; split < SPLITS; split += team) {
        let part = found[split * OUTPUTS + channel];
        own = together(own, Moments(f32(LANES * lanes_of(channel, split)), part.x - first, part.y));
    }
    let mean = all_sum(lane, own.count * own.mean) / length;
    let apart = own.mean - mean;
    let squares = all_sum(lane, own.squares + own.count * apart * apart);
    if (lane == 0u && live) {
        keep(channel, first + mean, squares / length);
    }
}

@group(0) @binding(2) var<storage, read> dy: array<Lanes>; // like x
@group(0) @binding(3) var<storage, read> mean: array<f32>; // [OUTPUTS]

@compute @workgroup_size(64)
fn sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    let share = share_of(id);
    let centre = mean[share.result];
    var arrived = Lanes();
    var products = Lanes();
    for (var r = share.first; r < share.last; r += share.step) {
        let at = place(share.result, r);
        let g = dy[at];
        arrived += g;
        products += g * (x[at] - centre);
    }
    parts[share.split * OUTPUTS + share.result] = vec2<f32>(total(arrived), total(products));
}

@group(0) @binding(1) var<storage, read_write> both: array<f32>; // [2, OUTPUTS]

fn merge_sums(channel: u32, live: bool, lane: u32, team: u32) {
    var own = vec2<f32>();
    for (var split = lane; split < SPLITS; split += team) {
        own += found[split * OUTPUTS + channel];
    }
    let arrived = all_sum(lane, own.x);
    let products = all_sum(lane, own.y);
    if (lane == 0u && live) {
        both[channel] = arrived;
        both[OUTPUTS + channel] = products;
    }
}
