// Cross-entropy of logits and labels, and its slope, over lines of CLASSES logits that lie INNER apart.
// include: grid.wgsl
// include: math.wgsl
// include: team.wgsl

const LINES = 1u;
const CLASSES = 1u;
const INNER = 1u;
const SMOOTHING = 0.0; // the share of what is wanted that all classes have alike
const IGNORING = 0u;   // 1: labels equal to IGNORED count for nothing
const IGNORED = 0u;

@group(0) @binding(0) var<storage, read> x: array<f32>; // [LINES / INNER, CLASSES, INNER]
@group(0) @binding(1) var<storage, read> labels: array<u32>; // [LINES / INNER, INNER]
@group(0) @binding(2) var<storage, read_write> losses: array<f32>; // [LINES / INNER, INNER]
@group(0) @binding(3) var<storage, read_write> norms: array<f32>; // [2, LINES]: the largest logit; log of the sum of exp
@group(0) @binding(4) var<storage, read_write> weights: array<f32>; // [LINES], those of the labels

fn class_weight(c: u32) -> f32 {
    return 1.0;
}

// Of all classes.
fn total_weight() -> f32 {
    return f32(CLASSES);
}

fn is_ignored(label: u32) -> bool {
    return IGNORING == 1u && label == IGNORED;
}

// What one invocation, or a whole team, has found in a line.
struct Line {
    most: f32,
    sum: f32,      // of exp(x - most)
    weighted: f32, // of the classes' weights times (x - most)
}

fn finish(line: u32, found: Line, at_label: f32) {
    let label = labels[line];
    let log_sum = log(found.sum);
    var weight = 0.0;
    var loss = 0.0;
    if (label >= CLASSES && !is_ignored(label)) {
        weight = nan();
        loss = nan();
    } else if (!is_ignored(label)) {
        weight = class_weight(label);
        loss = (1.0 - SMOOTHING) * weight * (log_sum - (at_label - found.most));
        if (SMOOTHING > 0.0) {
            loss += SMOOTHING / f32(CLASSES) * (total_weight() * log_sum - found.weighted);
        }
    }
    losses[line] = loss;
    norms[line] = found.most;
    norms[LINES + line] = log_sum;
    weights[line] = weight;
}

// One invocation per line.
@compute @workgroup_size(64)
fn serial(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let line = group_index(group, groups) * 64u + lane;
    if (line >= LINES) {
        return;
    }
    let base = line / INNER * CLASSES * INNER + line % INNER;
    var found = Line(x[base], 0.0, 0.0);
    for (var k = 1u; k < CLASSES; k++) {
        found.most = max(found.most, x[base + k * INNER]);
    }
    for (var k = 0u; k < CLASSES; k++) {
        let shifted = x[base + k * INNER] - found.most;
        found.sum += exp(shifted);
        if (SMOOTHING > 0.0) {
            found.weighted += class_weight(k) * shifted;
        }
    }
    finish(line, found, x[base + min(labels[line], CLASSES - 1u) * INNER]);
}

// One workgroup per line of neighbouring logits.
@compute @workgroup_size(WIDTH)
fn grouped(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let line = group_index(group, groups);
    if (line >= LINES) {
        return;
    }
    let base = line * CLASSES;
    var found = Line(x[base], 0.0, 0.0);
    for (var k = lane; k < CLASSES; k += WIDTH) {
        found.most = max(found.most, x[base + k]);
    }
    found.most = all_max(lane, found.most);
    for (var k = lane; k < CLASSES; k += WIDTH) {
        let shifted = x[base + k] - found.most;
        found.sum += exp(shifted);
        if (SMOOTHING > 0.0) {
            found.weighted += class_weight(k) * shifted;
        }
    }
    found.sum = all_sum(lane, found.sum);
    if (SMOOTHING > 0.0) {
        found.weighted = all_sum(lane, found.weighted);
    }
    if (lane == 0u) {
        finish(line, found, x[base + min(labels[line], CLASSES - 1u)]);
    }
}

@group(0) @binding(2) var<storage, read> saved: array<f32>; // `norms`
@group(0) @binding(3) var<storage, read> label_weights: array<f32>; // `weights`
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // like x

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

// The derivative of each line's loss with respect to each of its logits; one invocation per logit.
@compute @workgroup_size(64)
fn slope(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= LINES * CLASSES) {
        return;
    }
    let c = i / INNER % CLASSES;
    let line = i / (INNER * CLASSES) * INNER + i % INNER;
    let label = labels[line];
    let own = (1.0 - SMOOTHING) * label_weights[line];
    var all = own;
    var wanted = select(0.0, own, c == label);
    if (SMOOTHING > 0.0 && !is_ignored(label)) {
        all += SMOOTHING / f32(CLASSES) * total_weight();
        wanted += SMOOTHING / f32(CLASSES) * class_weight(c);
    }
    y[i] = epilogue(all * exp(x[i] - saved[line] - saved[LINES + line]) - wanted, i);
}
