// Cross-entropy of logits and labels, and its slope, over lines of LENGTH logits, one for each class.
// include: exponentials.wgsl
// include: math.wgsl

const SMOOTHING = 0.0; // the share of what is wanted that all classes have alike
const IGNORING = 0u;   // 1: labels equal to IGNORED count for nothing
const IGNORED = 0u;

@group(0) @binding(1) var<storage, read> labels: array<u32>; // [LINES]
@group(0) @binding(2) var<storage, read_write> losses: array<f32>; // [LINES]
@group(0) @binding(3) var<storage, read_write> norms: array<f32>; // [2, LINES]: the largest logit; log of the sum of exp
@group(0) @binding(4) var<storage, read_write> weights: array<f32>; // [LINES], those of the labels

const WEIGHTS = 5u; // bindings, where classes have weights
const TOTAL = 6u;
@group(0) @binding(WEIGHTS) var<storage, read> given_weights: array<f32>; // [LENGTH]
@group(0) @binding(TOTAL) var<storage, read> given_total: array<f32>;     // their sum

fn class_weight(c: u32) -> f32 {
    return 1.0;
}

fn class_weight_given(c: u32) -> f32 {
    return given_weights[c];
}

// Those of the k-th Lanes of classes.
fn class_weights(k: u32) -> vec4<f32> {
    let c = 4u * k;
    return vec4<f32>(class_weight(c), class_weight(c + 1u), class_weight(c + 2u), class_weight(c + 3u));
}

fn class_weights_one(k: u32) -> f32 {
    return class_weight(k);
}

// Of all classes.
fn total_weight() -> f32 {
    return f32(LENGTH);
}

fn total_weight_given() -> f32 {
    return given_total[0];
}

fn is_ignored(label: u32) -> bool {
    return IGNORING == 1u && label == IGNORED;
}

fn element(v: vec4<f32>, n: u32) -> f32 {
    return v[n];
}

fn element_one(v: f32, n: u32) -> f32 {
    return v;
}

// The sum of the classes' weights, and of them times what the logits are above the largest one.
var<private> seen: Lanes;
var<private> weighted: Lanes;

fn note_weighted(k: u32, shifted: Lanes) {
    let own = class_weights(k);
    seen += own;
    weighted += own * shifted;
}

fn note_weighted_shift(by: f32) {
    weighted += seen * by;
}

fn cross_entropy(line: u32, live: bool, lane: u32, team: u32) {
    let base = base_of(line);
    let found = exponentials(base, lane, team);
    let log_sum = log_(found.sum);
    var spread = 0.0;
    if (SMOOTHING > 0.0) {
        spread = SMOOTHING / f32(LENGTH) * (total_weight() * log_sum - all_sum(lane, total(weighted)));
    }
    if (lane > 0u || !live) {
        return;
    }
    let label = labels[line];
    var weight = 0.0;
    var loss = 0.0;
    if (label >= LENGTH && !is_ignored(label)) {
        weight = nan();
        loss = nan();
    } else if (!is_ignored(label)) {
        weight = class_weight(label);
        let at_label = element(x[base + label / LANES * STEP], label % LANES);
        loss = (1.0 - SMOOTHING) * weight * (log_sum - (at_label - found.most)) + spread;
    }
    losses[line] = loss;
    norms[line] = found.most;
    norms[LINES + line] = log_sum;
    weights[line] = weight;
}

@group(0) @binding(2) var<storage, read> saved: array<f32>; // `norms`
@group(0) @binding(3) var<storage, read> label_weights: array<f32>; // `weights`
@group(0) @binding(4) var<storage, read_write> dx: array<Lanes>; // like x

// What the logits of a line have in common: a logit's slope is `all` times its probability, less what is wanted of it.
struct Known {
    label: u32,
    most: f32,
    log_sum: f32,
    all: f32,
    own: f32,   // wanted of the label's
    alike: f32, // of each, by its class's weight
}

fn known_of(line: u32) -> Known {
    let label = labels[line];
    let own = (1.0 - SMOOTHING) * label_weights[line];
    let alike = select(SMOOTHING / f32(LENGTH), 0.0, is_ignored(label));
    return Known(label, saved[line], saved[LINES + line], own + alike * total_weight(), own, alike);
}

fn store_slope(known: Known, k: u32, at: u32) {
    var wanted = select(Lanes(), Lanes(known.own), places_of(Words(k)) == Words(known.label));
    if (SMOOTHING > 0.0) {
        wanted += known.alike * class_weights(k);
    }
    dx[at] = epilogues(known.all * exp(x[at] - known.most - known.log_sum) - wanted, LANES * at);
}

fn slope(line: u32, live: bool, lane: u32, team: u32) {
    let base = base_of(line);
    let known = known_of(line);
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k) && live) {
                store_slope(known, k, base + k * STEP);
            }
        }
    }
}

// The same with an invocation for each Lanes.
@compute @workgroup_size(64)
fn each(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = group_index(group, groups) * 64u + lane;
    let length = LENGTH / LANES;
    if (at < LINES * length) {
        store_slope(known_of(at / (STEP * length) * STEP + at % STEP), at / STEP % length, at);
    }
}
