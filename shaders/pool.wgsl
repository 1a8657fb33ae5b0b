// Pooling over windows of images, [N, C, H, W] -> [N, C, HO, WO]; the gradients gather, so that nothing is added
// concurrently.
// include: grid.wgsl
// include: math.wgsl

const COUNT = 1u; // elements written
const H = 1u;
const W = 1u;
const HO = 1u;
const WO = 1u;
const KH = 1u;
const KW = 1u;
const SH = 1u; // stride
const SW = 1u;
const DH = 1u; // dilation
const DW = 1u;
const PH = 0u; // padding before
const PW = 0u;
const QH = 0u; // padding after
const QW = 0u;
const INCLUDE_PAD = 1u; // averages: divide by the window's size within the padded image

@group(0) @binding(0) var<storage, read> x: array<f32>; // forward: images; backward: the gradient of the output
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> indices: array<u32>; // flat within the plane, [N, C, HO, WO]
@group(0) @binding(1) var<storage, read> chosen: array<u32>; // the same, read
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

fn keep(i: u32, at: u32) {
    indices[i] = at;
}

// Where nobody reads the indices.
fn keep_nothing(i: u32, at: u32) {
}

// Whether a later element takes the place of the best so far: the first maximum wins, and a NaN beats everything, as in
// PyTorch.
fn wins(value: f32, best: f32, at: u32) -> bool {
    return at == 0xffffffffu || value > best || is_nan(value);
}

@compute @workgroup_size(64)
fn max_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let ox = i % WO;
    let oy = (i / WO) % HO;
    let plane = i / (WO * HO) * (H * W);
    var best = -infinity(); // of a window without an element
    var at = 0xffffffffu;
    for (var ky = 0u; ky < KH; ky++) {
        let iy = oy * SH + ky * DH - PH; // wraps above H where it is outside
        for (var kx = 0u; kx < KW; kx++) {
            let ix = ox * SW + kx * DW - PW;
            if (iy < H && ix < W) {
                let value = x[plane + iy * W + ix];
                if (wins(value, best, at)) {
                    best = value;
                    at = iy * W + ix;
                }
            }
        }
    }
    y[i] = epilogue(best, i);
    keep(i, at);
}

// The windows that cover input row or column `i`: first and one past the last, before dilation is checked.
fn covering(i: u32, k: u32, s: u32, d: u32, p: u32, out: u32) -> vec2<u32> {
    let reach = (k - 1u) * d;
    let first = select(0u, (i + p - reach + s - 1u) / s, i + p >= reach);
    return vec2<u32>(first, min((i + p) / s + 1u, out));
}

@compute @workgroup_size(64)
fn max_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let ix = i % W;
    let iy = (i / W) % H;
    let plane = i / (W * H) * (HO * WO);
    let rows = covering(iy, KH, SH, DH, PH, HO);
    let columns = covering(ix, KW, SW, DW, PW, WO);
    var total = 0.0;
    for (var oy = rows.x; oy < rows.y; oy++) {
        for (var ox = columns.x; ox < columns.y; ox++) {
            let o = plane + oy * WO + ox;
            if (chosen[o] == iy * W + ix) {
                total += x[o];
            }
        }
    }
    dx[i] = epilogue(total, i);
}

// The same where windows neither overlap nor leave gaps: one invocation per window, which writes all of its pixels.
@compute @workgroup_size(64)
fn max_backward_apart(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Windows cut off by the far edge, which have no output, still have pixels.
    let columns = (W + KW - 1u) / KW;
    let rows = (H + KH - 1u) / KH;
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    let ox = id % columns;
    let oy = id / columns % rows;
    let plane = id / (columns * rows);
    var at = 0xffffffffu;
    var grad = 0.0;
    if (oy < HO && ox < WO) {
        let o = (plane * HO + oy) * WO + ox;
        at = chosen[o];
        grad = x[o];
    }
    for (var ky = 0u; ky < KH; ky++) {
        for (var kx = 0u; kx < KW; kx++) {
            let iy = oy * KH + ky;
            let ix = ox * KW + kx;
            if (iy < H && ix < W) {
                let p = iy * W + ix;
                let i = plane * (H * W) + p;
                dx[i] = epilogue(select(0.0, grad, p == at), i);
            }
        }
    }
}

// Several windows for each invocation, neighbours in a row, in images whose width is a multiple of what one load brings.

alias Columns = vec2<f32>; // or vec4
const COLUMNS = 2u;
const RUN = 1u; // windows of an invocation, a divisor of WO; RUN SW is a multiple of COLUMNS
const BEFORE = (COLUMNS - PW % COLUMNS) % COLUMNS; // their first column, less this, is one
const LOADS = (BEFORE + (RUN - 1u) * SW + KW + COLUMNS - 1u) / COLUMNS; // from each row
const ALL_ROWS = 0u; // 1: no window hangs over the upper or lower edge
const ALL_COLUMNS = 0u; // 1: none over the left or right edge

@group(0) @binding(0) var<storage, read> columns: array<Columns>; // x

var<private> best: array<f32, RUN>; // of each window; of gradients, what arrived at it
var<private> at: array<u32, RUN>;

@compute @workgroup_size(64)
fn max_forward_by_run(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    let i = id * RUN;
    let oy = (i / WO) % HO;
    let left = i % WO * SW - PW - BEFORE;
    let plane = i / (WO * HO) * (H * W);
    for (var n = 0u; n < RUN; n++) { // unroll
        best[n] = -infinity();
        at[n] = 0xffffffffu;
    }
    for (var ky = 0u; ky < KH; ky++) { // unroll
        let iy = oy * SH + ky * DH - PH;
        for (var load = 0u; load < LOADS; load++) { // unroll
            let column = left + COLUMNS * load;
            if ((ALL_ROWS == 1u || iy < H) && (ALL_COLUMNS == 1u || column < W)) {
                let p = iy * W + column;
                let v = columns[(plane + p) / COLUMNS];
                for (var n = 0u; n < RUN; n++) { // unroll
                    for (var c = 0u; c < COLUMNS; c++) { // unroll
                        if (reaches(n, COLUMNS * load + c) && wins(v[c], best[n], at[n])) {
                            best[n] = v[c];
                            at[n] = p + c;
                        }
                    }
                }
            }
        }
    }
    put(i);
    keep_run(i);
}

// Whether window n of a run has the column `column` after the first that the run loads: known to the compiler.
fn reaches(n: u32, column: u32) -> bool {
    return column >= BEFORE + n * SW && column < BEFORE + n * SW + KW;
}

fn put(i: u32) {
    for (var n = 0u; n < RUN; n++) { // unroll
        y[i + n] = epilogue(best[n], i + n);
    }
}

@group(0) @binding(1) var<storage, read_write> y2: array<vec2<f32>>;

fn put_two(i: u32) {
    y2[i / 2u] = vec2<f32>(epilogue(best[0], i), epilogue(best[1], i + 1u));
}

@group(0) @binding(1) var<storage, read_write> y4: array<vec4<f32>>;

fn put_four(i: u32) {
    y4[i / 4u] = vec4<f32>(
        epilogue(best[0], i), epilogue(best[1], i + 1u), epilogue(best[2], i + 2u), epilogue(best[3], i + 3u),
    );
}

fn keep_run(i: u32) {
    for (var n = 0u; n < RUN; n++) { // unroll
        indices[i + n] = at[n];
    }
}

@group(0) @binding(2) var<storage, read_write> indices2: array<vec2<u32>>;

fn keep_two(i: u32) {
    indices2[i / 2u] = vec2<u32>(at[0], at[1]);
}

@group(0) @binding(2) var<storage, read_write> indices4: array<vec4<u32>>;

fn keep_four(i: u32) {
    indices4[i / 4u] = vec4<u32>(at[0], at[1], at[2], at[3]);
}

fn keep_no_run(i: u32) {
}

@compute @workgroup_size(64)
fn average_forward_by_run(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    let i = id * RUN;
    let oy = (i / WO) % HO;
    let ox = i % WO;
    let left = ox * SW - PW - BEFORE;
    let plane = i / (WO * HO) * (H * W);
    for (var n = 0u; n < RUN; n++) { // unroll
        best[n] = 0.0;
    }
    for (var ky = 0u; ky < KH; ky++) { // unroll
        let iy = oy * SH + ky - PH;
        for (var load = 0u; load < LOADS; load++) { // unroll
            let column = left + COLUMNS * load;
            if ((ALL_ROWS == 1u || iy < H) && (ALL_COLUMNS == 1u || column < W)) {
                let v = columns[(plane + iy * W + column) / COLUMNS];
                for (var n = 0u; n < RUN; n++) { // unroll
                    for (var c = 0u; c < COLUMNS; c++) { // unroll
                        if (reaches(n, COLUMNS * load + c)) {
                            best[n] += v[c];
                        }
                    }
                }
            }
        }
    }
    for (var n = 0u; n < RUN; n++) { // unroll
        best[n] /= divisor(oy, ox + n);
    }
    put(i);
}

@group(0) @binding(2) var<storage, read_write> dx2: array<vec2<f32>>;

// The gradient of maxima where windows neither overlap nor leave gaps, and have two columns.
@compute @workgroup_size(64)
fn max_backward_by_run(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= COUNT) {
        return;
    }
    // Windows cut off by the lower edge, which have no output, still have pixels.
    let rows = (H + KH - 1u) / KH;
    let ox = id * RUN % WO;
    let oy = id * RUN / WO % rows;
    let plane = id * RUN / (WO * rows);
    for (var n = 0u; n < RUN; n++) { // unroll
        best[n] = 0.0;
        at[n] = 0xffffffffu;
    }
    if (ALL_ROWS == 1u || oy < HO) {
        recall((plane * HO + oy) * WO + ox);
    }
    for (var ky = 0u; ky < KH; ky++) { // unroll
        let iy = oy * KH + ky;
        if (ALL_ROWS == 1u || iy < H) {
            for (var n = 0u; n < RUN; n++) { // unroll
                let p = iy * W + 2u * (ox + n);
                let i = plane * (H * W) + p;
                dx2[i / 2u] = vec2<f32>(
                    epilogue(select(0.0, best[n], p == at[n]), i),
                    epilogue(select(0.0, best[n], p + 1u == at[n]), i + 1u),
                );
            }
        }
    }
}

// What arrived at the windows from the o-th on, and the places that they chose.
fn recall(o: u32) {
    for (var n = 0u; n < RUN; n++) { // unroll
        best[n] = x[o + n];
        at[n] = chosen[o + n];
    }
}

@group(0) @binding(0) var<storage, read> x2: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> chosen2: array<vec2<u32>>;

fn recall_two(o: u32) {
    let grads = x2[o / 2u];
    let places = chosen2[o / 2u];
    for (var n = 0u; n < 2u; n++) { // unroll
        best[n] = grads[n];
        at[n] = places[n];
    }
}

@group(0) @binding(0) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> chosen4: array<vec4<u32>>;

fn recall_four(o: u32) {
    let grads = x4[o / 4u];
    let places = chosen4[o / 4u];
    for (var n = 0u; n < 4u; n++) { // unroll
        best[n] = grads[n];
        at[n] = places[n];
    }
}

// Takes from x, [N, C, H, W], what `chosen` names: the gradient of `max_backward`.
@compute @workgroup_size(64)
fn take(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i < COUNT) {
        // A window may have no element.
        var v = 0.0;
        if (chosen[i] < H * W) {
            v = x[i / (WO * HO) * (H * W) + chosen[i]];
        }
        dx[i] = epilogue(v, i);
    }
}

// What the sum over a window is divided by.
fn divisor(oy: u32, ox: u32) -> f32 {
    if (INCLUDE_PAD == 1u) {
        let rows = min(oy * SH + KH, H + PH + QH) - oy * SH;
        let columns = min(ox * SW + KW, W + PW + QW) - ox * SW;
        return f32(rows * columns);
    }
    let rows = min(oy * SH + KH, H + PH) - max(oy * SH, PH);
    let columns = min(ox * SW + KW, W + PW) - max(ox * SW, PW);
    return f32(rows * columns);
}

@compute @workgroup_size(64)
fn average_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let ox = i % WO;
    let oy = (i / WO) % HO;
    let plane = i / (WO * HO) * (H * W);
    var total = 0.0;
    for (var ky = 0u; ky < KH; ky++) {
        let iy = oy * SH + ky - PH;
        for (var kx = 0u; kx < KW; kx++) {
            let ix = ox * SW + kx - PW;
            if (iy < H && ix < W) {
                total += x[plane + iy * W + ix];
            }
        }
    }
    y[i] = epilogue(total / divisor(oy, ox), i);
}

@compute @workgroup_size(64)
fn average_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let ix = i % W;
    let iy = (i / W) % H;
    let plane = i / (W * H) * (HO * WO);
    let rows = covering(iy, KH, SH, 1u, PH, HO);
    let columns = covering(ix, KW, SW, 1u, PW, WO);
    var total = 0.0;
    for (var oy = rows.x; oy < rows.y; oy++) {
        for (var ox = columns.x; ox < columns.y; ox++) {
            total += x[plane + oy * WO + ox] / divisor(oy, ox);
        }
    }
    y[i] = epilogue(total, i);
}
