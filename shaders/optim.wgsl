// Optimizers: one dispatch over every element of every parameter. Formulas as in the PyTorch documentation.
// include: grid.wgsl

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

@group(0) @binding(0) var<storage, read> grads: array<f32>; // every gradient, packed
@group(0) @binding(1) var<storage, read> chunks: array<vec4<u32>>; // [CHUNKS]: first weight, gradient, moment; length
@group(0) @binding(2) var<storage, read_write> hyper: array<f32>;
@group(0) @binding(3) var<storage, read_write> counters: array<u32>; // [3]: step; 1 - BETA1^step, 1 - BETA2^step as f32
@group(0) @binding(4) var<storage, read_write> weights: array<f32>; // the slab that holds the parameters
@group(0) @binding(5) var<storage, read_write> moments: array<f32>; // up to three of TOTAL elements each

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

fn clipped(grad: f32) -> f32 {
    switch (CLIP) {
        case 1u: { return grad * min(1.0, hyper[LIMIT] / (gradient_norm() + 1e-6)); }
        case 2u: { return clamp(grad, -hyper[LIMIT], hyper[LIMIT]); }
        default: { return grad; }
    }
}

fn sgd(weight: f32, grad: f32, m: u32) -> f32 {
    var g = grad + hyper[DECAY] * weight;
    if (MOMENTUM == 1u) {
        var buffer = g;
        if (counters[0] > 1u) {
            buffer = hyper[BETA1] * moments[m] + hyper[REST2] * g;
        }
        moments[m] = buffer;
        g = select(buffer, g + hyper[BETA1] * buffer, NESTEROV == 1u);
    }
    return weight - hyper[LR] * g;
}

fn adam(weight: f32, grad: f32, m: u32) -> f32 {
    var w = weight;
    var g = grad;
    if (KIND == 2u) {
        w *= 1.0 - hyper[LR] * hyper[DECAY];
    } else {
        g += hyper[DECAY] * w;
    }
    let first = hyper[BETA1] * moments[m] + hyper[REST1] * g;
    var second = hyper[BETA2] * moments[TOTAL + m] + hyper[REST2] * g * g;
    moments[m] = first;
    moments[TOTAL + m] = second;
    if (AMSGRAD == 1u) {
        second = max(second, moments[2u * TOTAL + m]);
        moments[2u * TOTAL + m] = second;
    }
    let q1 = bitcast<f32>(counters[1]);
    let q2 = bitcast<f32>(counters[2]);
    return w - hyper[LR] / q1 * first / (sqrt(second / q2) + hyper[EPS]);
}

fn rmsprop(weight: f32, grad: f32, m: u32) -> f32 {
    let g = grad + hyper[DECAY] * weight;
    let square = hyper[BETA1] * moments[m] + hyper[REST1] * g * g;
    moments[m] = square;
    var scale = square;
    if (CENTERED == 1u) {
        let mean = hyper[BETA1] * moments[TOTAL + m] + hyper[REST1] * g;
        moments[TOTAL + m] = mean;
        scale = max(square - mean * mean, 0.0);
    }
    var step = g / (sqrt(scale) + hyper[EPS]);
    if (MOMENTUM == 1u) {
        step = hyper[BETA2] * moments[2u * TOTAL + m] + step;
        moments[2u * TOTAL + m] = step;
    }
    return weight - hyper[LR] * step;
}

fn adagrad(weight: f32, grad: f32, m: u32) -> f32 {
    let g = grad + hyper[DECAY] * weight;
    let sum = moments[m] + g * g;
    moments[m] = sum;
    let rate = hyper[LR] / (1.0 + f32(counters[0] - 1u) * hyper[LR_DECAY]);
    return weight - rate * g / (sqrt(sum) + hyper[EPS]);
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
    for (var e = lane; e < chunk.w; e += 64u) {
        let weight = weights[chunk.x + e];
        let grad = clipped(grads[chunk.y + e]);
        let m = chunk.z + e;
        var next = weight;
        switch (KIND) {
            case 0u: { next = sgd(weight, grad, m); }
            case 3u: { next = rmsprop(weight, grad, m); }
            case 4u: { next = adagrad(weight, grad, m); }
            default: { next = adam(weight, grad, m); }
        }
        weights[chunk.x + e] = next;
    }
}
