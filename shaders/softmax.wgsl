// Softmax and log-softmax over lines of LENGTH elements that lie INNER apart.
// include: grid.wgsl
// include: team.wgsl

const LINES = 1u;
const LENGTH = 1u;
const INNER = 1u;
const LOG = 0u; // 1: log-softmax

@group(0) @binding(0) var<storage, read> x: array<f32>; // [LINES / INNER, LENGTH, INNER]
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // the same

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

fn finish(value: f32, most: f32, total: f32) -> f32 {
    if (LOG == 1u) {
        return value - most - log(total);
    }
    return exp(value - most) / total;
}

// One invocation per line: best where the lines are many, or short, or side by side (INNER > 1).
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
    let base = (line / INNER) * LENGTH * INNER + line % INNER;
    var most = x[base];
    for (var k = 1u; k < LENGTH; k++) {
        most = max(most, x[base + k * INNER]);
    }
    var total = 0.0;
    for (var k = 0u; k < LENGTH; k++) {
        total += exp(x[base + k * INNER] - most);
    }
    for (var k = 0u; k < LENGTH; k++) {
        let i = base + k * INNER;
        y[i] = epilogue(finish(x[i], most, total), i);
    }
}

@group(0) @binding(0) var<storage, read> x4: array<vec4<f32>>; // [LINES, LENGTH / 4]
@group(0) @binding(1) var<storage, read_write> y4: array<vec4<f32>>; // the same

// `serial` for lines of neighbouring elements in whole vec4s.
@compute @workgroup_size(64)
fn serial_vec4(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let line = group_index(group, groups) * 64u + lane;
    if (line >= LINES) {
        return;
    }
    let base = line * (LENGTH / 4u);
    var most4 = x4[base];
    for (var k = 1u; k < LENGTH / 4u; k++) {
        most4 = max(most4, x4[base + k]);
    }
    let most = max(max(most4.x, most4.y), max(most4.z, most4.w));
    var total4 = vec4<f32>(0.0);
    for (var k = 0u; k < LENGTH / 4u; k++) {
        total4 += exp(x4[base + k] - most);
    }
    let total = (total4.x + total4.y) + (total4.z + total4.w);
    for (var k = 0u; k < LENGTH / 4u; k++) {
        let v = x4[base + k];
        let i = 4u * (base + k);
        y4[base + k] = vec4<f32>(
            epilogue(finish(v.x, most, total), i),
            epilogue(finish(v.y, most, total), i + 1u),
            epilogue(finish(v.z, most, total), i + 2u),
            epilogue(finish(v.w, most, total), i + 3u),
        );
    }
}

// One workgroup per line of neighbouring elements.
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
    let base = line * LENGTH;
    var most = x[base];
    for (var k = lane; k < LENGTH; k += WIDTH) {
        most = max(most, x[base + k]);
    }
    most = all_max(lane, most);
    var total = 0.0;
    for (var k = lane; k < LENGTH; k += WIDTH) {
        total += exp(x[base + k] - most);
    }
    total = all_sum(lane, total);
    for (var k = lane; k < LENGTH; k += WIDTH) {
        y[base + k] = epilogue(finish(x[base + k], most, total), base + k);
    }
}
