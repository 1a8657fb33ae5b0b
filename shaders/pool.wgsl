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
    var best = -3.4028234663852886e38;
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
        let iy = oy * KH + ky;
        if (iy < H) {
            put_row(plane * H * W, iy * W, ox, at, grad);
        }
    }
}

// The pixels of window ox in the row that begins at `row` of a plane.
fn put_row(plane: u32, row: u32, ox: u32, at: u32, grad: f32) {
    for (var kx = 0u; kx < KW; kx++) {
        let p = row + ox * KW + kx;
        if (ox * KW + kx < W) {
            dx[plane + p] = epilogue(select(0.0, grad, p == at), plane + p);
        }
    }
}

// Where windows lie side by side and have two columns, and images an even width, a row of a window is a vec2.
@group(0) @binding(0) var<storage, read> x2: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> dx2: array<vec2<f32>>;

fn put_row_by_two(plane: u32, row: u32, ox: u32, at: u32, grad: f32) {
    let p = row + 2u * ox;
    let i = plane + p;
    dx2[i / 2u] = vec2<f32>(
        epilogue(select(0.0, grad, p == at), i),
        epilogue(select(0.0, grad, p + 1u == at), i + 1u),
    );
}

@compute @workgroup_size(64)
fn max_forward_by_two(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let plane = i / (WO * HO) * (H * W);
    let first = (i / WO) % HO * KH * W + i % WO * 2u;
    var best = -3.4028234663852886e38;
    var at = 0xffffffffu;
    for (var ky = 0u; ky < KH; ky++) { // unroll
        let p = first + ky * W;
        // With `ceil_mode`, the last windows hang over the edge.
        if (p < H * W) {
            let row = x2[(plane + p) / 2u];
            if (wins(row.x, best, at)) {
                best = row.x;
                at = p;
            }
            if (wins(row.y, best, at)) {
                best = row.y;
                at = p + 1u;
            }
        }
    }
    y[i] = epilogue(best, i);
    keep(i, at);
}

@compute @workgroup_size(64)
fn average_forward_by_two(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let plane = i / (WO * HO) * (H * W);
    let oy = (i / WO) % HO;
    let ox = i % WO;
    let first = oy * KH * W + ox * 2u;
    var total = vec2<f32>();
    for (var ky = 0u; ky < KH; ky++) { // unroll
        let p = first + ky * W;
        if (p < H * W) {
            total += x2[(plane + p) / 2u];
        }
    }
    y[i] = epilogue((total.x + total.y) / divisor(oy, ox), i);
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
        dx[i] = epilogue(x[i / (WO * HO) * (H * W) + chosen[i]], i);
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
