// Pooling over windows of images, [N, C, H, W] -> [N, C, HO, WO]; the gradients gather, so that nothing is added
// concurrently.
// include: grid.wgsl
// include: math.wgsl
// include: abreast.wgsl

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

// What an invocation does with the id-th run, of COUNT; where lanes lie abreast, with the run of its lane behind that. Ops
// put one of the functions below in its place.
fn of_run(id: u32) {
}

@compute @workgroup_size(64)
fn by_run(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id < COUNT) {
        of_run(id);
    }
}

const SUBGROUP = 8u;
const TURNS = 1u;

// The same by subgroups whose lanes lie abreast, TURNS times SUBGROUP runs each.
@compute @workgroup_size(64)
fn by_run_abreast(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    own_lane = lane;
    let first = stretch(group_index(group, groups) * (64u / SUBGROUP) + subgroup, TURNS * SUBGROUP, COUNT);
    for (var t = 0u; t < TURNS; t++) { // unroll
        of_run(first + t * SUBGROUP);
    }
}

const RUNS = WO / RUN; // of a row

// The row of its image that row `ky` of a run's windows lies in, and the column that its load-th load begins with: above H,
// above W where they are outside.
fn row_of(id: u32, ky: u32) -> u32 {
    return id / RUNS % HO * SH + ky * DH - PH;
}

fn column_of(id: u32, load: u32) -> u32 {
    return id % RUNS * (RUN * SW) - PW - BEFORE + COLUMNS * load;
}

fn is_inside(row: u32, column: u32) -> bool {
    return (ALL_ROWS == 1u || row < H) && (ALL_COLUMNS == 1u || column < W);
}

// Where that is among the Columns of all images.
fn place(id: u32, ky: u32, load: u32) -> u32 {
    let row = select(id / (RUNS * HO) * H + id / RUNS % HO * SH, id / RUNS * SH, H == HO * SH);
    return ((row + ky * DH - PH) * W + column_of(id, load)) / COLUMNS;
}

// Before all loads of a run.
fn begin(id: u32) {
}

fn loaded(id: u32, ky: u32, load: u32) -> Columns {
    return columns[place(id, ky, load)];
}

// Where lanes lie abreast, all loads come first, as they may not stand in branches. What is loaded in the place of what is
// outside of an image is not used.
var<private> all: array<Columns, KH * LOADS>;

const LAST = 1u; // Columns of all images, less 1

fn begin_abreast(id: u32) {
    for (var ky = 0u; ky < KH; ky++) { // unroll
        for (var load = 0u; load < LOADS; load++) { // unroll
            all[ky * LOADS + load] = columns[abreast(min(place(id + own_lane, ky, load), LAST))];
        }
    }
}

fn loaded_abreast(id: u32, ky: u32, load: u32) -> Columns {
    return all[ky * LOADS + load];
}

fn maximum_of_run(id: u32) {
    begin(id);
    for (var n = 0u; n < RUN; n++) { // unroll
        best[n] = -infinity();
        at[n] = 0xffffffffu;
    }
    for (var ky = 0u; ky < KH; ky++) { // unroll
        let row = row_of(id + own_lane, ky);
        for (var load = 0u; load < LOADS; load++) { // unroll
            let column = column_of(id + own_lane, load);
            if (is_inside(row, column)) {
                let v = loaded(id, ky, load);
                for (var n = 0u; n < RUN; n++) { // unroll
                    for (var c = 0u; c < COLUMNS; c++) { // unroll
                        if (reaches(n, COLUMNS * load + c) && wins(v[c], best[n], at[n])) {
                            best[n] = v[c];
                            at[n] = row * W + column + c;
                        }
                    }
                }
            }
        }
    }
    put(id);
    keep_run(id);
}

// Whether window n of a run has the column `column` after the first that the run loads: known to the compiler.
fn reaches(n: u32, column: u32) -> bool {
    return column >= BEFORE + n * SW && column < BEFORE + n * SW + KW;
}

fn put(id: u32) {
    for (var n = 0u; n < RUN; n++) { // unroll
        y[abreast((id + own_lane) * RUN + n)] = epilogue(best[n], (id + own_lane) * RUN + n);
    }
}

@group(0) @binding(1) var<storage, read_write> y2: array<vec2<f32>>;

fn put_two(id: u32) {
    let i = 2u * (id + own_lane);
    y2[abreast(id + own_lane)] = vec2<f32>(epilogue(best[0], i), epilogue(best[1], i + 1u));
}

@group(0) @binding(1) var<storage, read_write> y4: array<vec4<f32>>;

fn put_four(id: u32) {
    let i = 4u * (id + own_lane);
    y4[abreast(id + own_lane)] = vec4<f32>(
        epilogue(best[0], i), epilogue(best[1], i + 1u), epilogue(best[2], i + 2u), epilogue(best[3], i + 3u),
    );
}

fn keep_run(id: u32) {
    for (var n = 0u; n < RUN; n++) { // unroll
        indices[abreast((id + own_lane) * RUN + n)] = at[n];
    }
}

@group(0) @binding(2) var<storage, read_write> indices2: array<vec2<u32>>;

fn keep_two(id: u32) {
    indices2[abreast(id + own_lane)] = vec2<u32>(at[0], at[1]);
}

@group(0) @binding(2) var<storage, read_write> indices4: array<vec4<u32>>;

fn keep_four(id: u32) {
    indices4[abreast(id + own_lane)] = vec4<u32>(at[0], at[1], at[2], at[3]);
}

fn keep_no_run(id: u32) {
}

fn average_of_run(id: u32) {
    begin(id);
    for (var n = 0u; n < RUN; n++) { // unroll
        best[n] = 0.0;
    }
    for (var ky = 0u; ky < KH; ky++) { // unroll
        for (var load = 0u; load < LOADS; load++) { // unroll
            if (is_inside(row_of(id + own_lane, ky), column_of(id + own_lane, load))) {
                let v = loaded(id, ky, load);
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
    let i = (id + own_lane) * RUN;
    for (var n = 0u; n < RUN; n++) { // unroll
        best[n] /= divisor(i / WO % HO, i % WO + n);
    }
    put(id);
}

@group(0) @binding(2) var<storage, read_write> dx2: array<vec2<f32>>;

// Windows below each other: those cut off by the lower edge, which have no output, still have pixels.
const DOWN = (H + KH - 1u) / KH;

// The first pixel of row `ky` of a run's n-th window, where windows neither overlap nor leave gaps, and have two columns.
fn pixel(id: u32, ky: u32, n: u32) -> u32 {
    let row = id * RUN / WO % DOWN * KH + ky;
    return id * RUN / (WO * DOWN) * (H * W) + row * W + 2u * (id * RUN % WO + n);
}

// The gradient of maxima of such windows.
fn maximum_grad_of_run(id: u32) {
    for (var n = 0u; n < RUN; n++) { // unroll
        best[n] = 0.0;
        at[n] = 0xffffffffu;
    }
    let oy = (id + own_lane) * RUN / WO % DOWN;
    if (ALL_ROWS == 1u || oy < HO) {
        recall(id);
    }
    let plane = (id + own_lane) * RUN / (WO * DOWN) * (H * W);
    for (var ky = 0u; ky < KH; ky++) { // unroll
        if (ALL_ROWS == 1u || oy * KH + ky < H) {
            for (var n = 0u; n < RUN; n++) { // unroll
                let i = pixel(id + own_lane, ky, n);
                dx2[abreast(pixel(id + own_lane, ky, n) / 2u)] = vec2<f32>(
                    epilogue(select(0.0, best[n], i - plane == at[n]), i),
                    epilogue(select(0.0, best[n], i - plane + 1u == at[n]), i + 1u),
                );
            }
        }
    }
}

// The place of a run's results among all runs'.
fn result_of(id: u32) -> u32 {
    if (ALL_ROWS == 1u) {
        return id;
    }
    return (id * RUN / (WO * DOWN) * HO + id * RUN / WO % DOWN) * (WO / RUN) + id * RUN % WO / RUN;
}

// What arrived at the windows of a run, and the places that they chose.
fn recall(id: u32) {
    for (var n = 0u; n < RUN; n++) { // unroll
        best[n] = x[abreast(result_of(id + own_lane) * RUN + n)];
        at[n] = chosen[abreast(result_of(id + own_lane) * RUN + n)];
    }
}

@group(0) @binding(0) var<storage, read> x2: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> chosen2: array<vec2<u32>>;

fn recall_two(id: u32) {
    let grads = x2[abreast(result_of(id + own_lane))];
    let places = chosen2[abreast(result_of(id + own_lane))];
    for (var n = 0u; n < 2u; n++) { // unroll
        best[n] = grads[n];
        at[n] = places[n];
    }
}

@group(0) @binding(0) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> chosen4: array<vec4<u32>>;

fn recall_four(id: u32) {
    let grads = x4[abreast(result_of(id + own_lane))];
    let places = chosen4[abreast(result_of(id + own_lane))];
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
