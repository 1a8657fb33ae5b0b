// Optimizers: one dispatch over every element of every parameter. Formulas as in the PyTorch documentation.
// include: grid.wgsl
// include: math.wgsl
// include: abreast.wgsl

alias Lanes = vec4<f32>; // what an invocation updates at a time: f32, with the functions for one, in `step_rows`
const LANES = 4u;

const KIND = 0u;     // 0 SGD, 1 Adam, 2 AdamW, 3 RMSprop, 4 Adagrad
const MOMENTUM = 0u; // a momentum buffer is kept (SGD, RMSprop)
const NESTEROV = 0u;
const CENTERED = 0u; // RMSprop: subtract the squared mean
const AMSGRAD = 0u;  // Adam: keep the largest second moment
const CLIP = 0u;     // 0 none, 1 by the norm of all gradients, 2 by value
const CHUNKS = 1u;   // rows of the table
const CHUNK = 1024u; // elements of a parameter that one workgroup updates
const TOTAL = 1u;    // elements between the moments of one kind and the next

// Places in `hyper`.
const LR = 0u;
const BETA1 = 1u; // also SGD's momentum and RMSprop's alpha
const BETA2 = 2u; // also SGD's dampening and RMSprop's momentum
const EPS = 3u;
const DECAY = 4u;
const LIMIT = 5u; // of the norm or the value
const LR_DECAY = 6u;
const REST1 = 7u; // 1 - BETA1, rounded once
const REST2 = 8u;

@group(0) @binding(0) var<storage, read> grads: array<Lanes>; // every gradient, packed
@group(0) @binding(1) var<storage, read> chunks: array<vec4<u32>>; // [CHUNKS]: first weight, gradient, moment; length
@group(0) @binding(2) var<storage, read_write> hyper: array<f32>;
@group(0) @binding(3) var<storage, read_write> counters: array<u32>; // [3]: step; 1 - BETA1^step, 1 - BETA2^step as f32
@group(0) @binding(4) var<storage, read_write> weights: array<Lanes>; // the slab that holds the parameters
@group(0) @binding(5) var<storage, read_write> moments: array<Lanes>; // up to three of TOTAL elements each

// The norm of all gradients, where it is wanted: binding 6 is only there with CLIP 1.
fn gradient_norm() -> f32 {
    return 0.0;
}

// Counts the step. 1 - beta^t is kept up by q' = beta q + (1 - beta), which loses no digits where beta^t is near 1.
@compute @workgroup_size(1)
fn advance() {
    counters[0] = counters[0] + 1u;
    let q1 = bitcast<f32>(counters[1]);
    let q2 = bitcast<f32>(counters[2]);
    counters[1] = bitcast<u32>(hyper[BETA1] * q1 + hyper[REST1]);
    counters[2] = bitcast<u32>(hyper[BETA2] * q2 + hyper[REST2]);
}

// What is the same for every element, read once per invocation.
struct Settings {
    lr: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    decay: f32,
    limit: f32,
    rest1: f32,
    rest2: f32,
    first: bool, // this is the first step
    scale: f32,  // of the gradients, to clip their norm
    rate: f32,   // Adam's and Adagrad's rate with the step's corrections
    root: f32,   // 1 / (1 - BETA2^step)
}

fn settings() -> Settings {
    var s = Settings(hyper[LR], hyper[BETA1], hyper[BETA2], hyper[EPS], hyper[DECAY], hyper[LIMIT], hyper[REST1],
        hyper[REST2], counters[0] <= 1u, 1.0, hyper[LR], 1.0);
    if (CLIP == 1u) {
        s.scale = min(1.0, s.limit / (gradient_norm() + 1e-6));
    }
    if (KIND == 1u || KIND == 2u) {
        s.rate /= bitcast<f32>(counters[1]);
        s.root = 1.0 / bitcast<f32>(counters[2]);
    } else if (KIND == 4u) {
        s.rate /= 1.0 + f32(counters[0] - 1u) * hyper[LR_DECAY];
    }
    return s;
}

fn clamped(v: vec4<f32>, limit: f32) -> vec4<f32> {
    return vec4<f32>(clamp_(v.x, -limit, limit), clamp_(v.y, -limit, limit), clamp_(v.z, -limit, limit),
        clamp_(v.w, -limit, limit));
}

fn clamped_one(v: f32, limit: f32) -> f32 {
    return clamp_(v, -limit, limit);
}

fn clipped(s: Settings, grad: Lanes) -> Lanes {
    switch (CLIP) {
        case 1u: { return grad * s.scale; }
        case 2u: { return clamped(grad, s.limit); }
        default: { return grad; }
    }
}

// `m` is where the moments of the update's first lane are; an invocation for itself has `own_lane` 0.
fn sgd(s: Settings, weight: Lanes, grad: Lanes, m: u32) -> Lanes {
    var g = grad + s.decay * weight;
    if (MOMENTUM == 1u) {
        let buffer = select(s.beta1 * moments[abreast(m + own_lane)] + s.rest2 * g, g, s.first);
        moments[abreast(m + own_lane)] = buffer;
        g = select(buffer, g + s.beta1 * buffer, NESTEROV == 1u);
    }
    return weight - s.lr * g;
}

fn adam(s: Settings, weight: Lanes, grad: Lanes, m: u32) -> Lanes {
    var w = weight;
    var g = grad;
    if (KIND == 2u) {
        w *= 1.0 - s.lr * s.decay;
    } else {
        g += s.decay * w;
    }
    let first = s.beta1 * moments[abreast(m + own_lane)] + s.rest1 * g;
    var second = s.beta2 * moments[abreast(TOTAL / LANES + m + own_lane)] + s.rest2 * g * g;
    moments[abreast(m + own_lane)] = first;
    moments[abreast(TOTAL / LANES + m + own_lane)] = second;
    if (AMSGRAD == 1u) {
        second = max(second, moments[abreast(2u * TOTAL / LANES + m + own_lane)]);
        moments[abreast(2u * TOTAL / LANES + m + own_lane)] = second;
    }
    return w - s.rate * first / (sqrt(second * s.root) + s.eps);
}

fn rmsprop(s: Settings, weight: Lanes, grad: Lanes, m: u32) -> Lanes {
    let g = grad + s.decay * weight;
    let square = s.beta1 * moments[abreast(m + own_lane)] + s.rest1 * g * g;
    moments[abreast(m + own_lane)] = square;
    var scale = square;
    if (CENTERED == 1u) {
        let mean = s.beta1 * moments[abreast(TOTAL / LANES + m + own_lane)] + s.rest1 * g;
        moments[abreast(TOTAL / LANES + m + own_lane)] = mean;
        scale = max(square - mean * mean, Lanes());
    }
    var step = g / (sqrt(scale) + s.eps);
    if (MOMENTUM == 1u) {
        step = s.beta2 * moments[abreast(2u * TOTAL / LANES + m + own_lane)] + step;
        moments[abreast(2u * TOTAL / LANES + m + own_lane)] = step;
    }
    return weight - s.lr * step;
}

fn adagrad(s: Settings, weight: Lanes, grad: Lanes, m: u32) -> Lanes {
    let g = grad + s.decay * weight;
    let sum = moments[abreast(m + own_lane)] + g * g;
    moments[abreast(m + own_lane)] = sum;
    return weight - s.rate * g / (sqrt(sum) + s.eps);
}

fn updated(s: Settings, weight: Lanes, grad: Lanes, m: u32) -> Lanes {
    switch (KIND) {
        case 0u: { return sgd(s, weight, grad, m); }
        case 3u: { return rmsprop(s, weight, grad, m); }
        case 4u: { return adagrad(s, weight, grad, m); }
        default: { return adam(s, weight, grad, m); }
    }
}

@compute @workgroup_size(64)
fn step(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups);
    if (id >= CHUNKS) {
        return;
    }
    let chunk = chunks[id];
    let s = settings();
    for (var e = LANES * lane; e < chunk.w; e += LANES * 64u) {
        let own = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.w - e);
        let w = (chunk.x + e) / LANES;
        let old = weights[w];
        // What lies behind the last element of the weights is left as it is.
        let grad = clipped(s, select(Lanes(), grads[(chunk.y + e) / LANES], own));
        weights[w] = select(old, updated(s, select(Lanes(), old, own), grad, (chunk.z + e) / LANES), own);
    }
}

const SUBGROUP = 8u;
const TURNS = CHUNK / (64u * LANES);
const PLACES = 1u; // more Lanes than there are before any chunk

// The same where every chunk has CHUNK elements, of which each subgroup takes a part, its lanes abreast, and the grid is
// CHUNKS workgroups.
@compute @workgroup_size(64)
fn step_abreast(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    own_lane = lane;
    let chunk = chunks[subgroup_uniform(group_index(group, groups), CHUNKS)];
    let s = settings();
    let part = subgroup_uniform(subgroup, 64u) * (TURNS * SUBGROUP);
    let w = subgroup_uniform(chunk.x / LANES, PLACES) + part;
    let g = subgroup_uniform(chunk.y / LANES, PLACES) + part;
    let m = subgroup_uniform(chunk.z / LANES, PLACES) + part;
    for (var t = 0u; t < TURNS; t++) { // unroll
        let n = t * SUBGROUP;
        let grad = clipped(s, grads[abreast(g + n + own_lane)]);
        weights[abreast(w + n + own_lane)] = updated(s, weights[abreast(w + n + own_lane)], grad, m + n);
    }
}

const TAKEN = 1u; // rows of a table that have a gradient
const WIDTH = 1u;
const ROWS = 1u;  // of the table

@group(0) @binding(1) var<storage, read> row: array<u32>; // [TAKEN], each row once; ROWS: none

// The same for a table, the parameter itself, of which only some rows have a gradient: `grads` is [TAKEN, WIDTH].
@compute @workgroup_size(64)
fn step_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= TAKEN * WIDTH) {
        return;
    }
    let number = row[i / WIDTH];
    if (number < ROWS) {
        let e = number * WIDTH + i % WIDTH;
        weights[e] = updated(settings(), weights[e], clipped(settings(), grads[i]), e);
    }
}
