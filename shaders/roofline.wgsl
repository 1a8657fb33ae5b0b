// What a device can do at the most: arithmetic, memory, workgroup memory. Not part of any network.
// include: grid.wgsl

const COUNT = 1u;    // elements of each buffer
const TURNS = 1u;    // of the loops
const CHAINS = 1u;   // sums that an invocation keeps in registers; enough to hide an operation's latency, few enough to fit
const GROUP = 64u;
alias Element = f32; // of the memory kernels: f32 or vec4<f32>

@group(0) @binding(0) var<storage, read> x: array<Element>; // [COUNT]
@group(0) @binding(1) var<storage, read> z: array<Element>; // [COUNT]
@group(0) @binding(2) var<storage, read_write> y: array<Element>; // [COUNT]
@group(0) @binding(3) var<storage, read_write> results: array<f32>; // one per invocation

// 2 CHAINS TURNS operations per invocation; the factors are not known to the compiler.
@compute @workgroup_size(GROUP)
fn arithmetic(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * GROUP + lane;
    let a = results[i];
    let b = 1.0 - a;
    var sums: array<f32, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) { // unroll
        sums[c] = f32(c) * b;
    }
    for (var t = 0u; t < TURNS; t++) {
        for (var c = 0u; c < CHAINS; c++) { // unroll
            sums[c] = fma(sums[c], a, b);
        }
    }
    var sum = 0.0;
    for (var c = 0u; c < CHAINS; c++) { // unroll
        sum += sums[c];
    }
    results[i] = sum;
}

@compute @workgroup_size(GROUP)
fn copy_memory(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * GROUP + lane;
    if (i < COUNT) {
        y[i] = x[i];
    }
}

@compute @workgroup_size(GROUP)
fn triad_memory(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * GROUP + lane;
    if (i < COUNT) {
        y[i] = x[i] + 3.0 * z[i];
    }
}

// Each invocation reads TURNS elements, COUNT / TURNS apart, and stores one.
@compute @workgroup_size(GROUP)
fn read_memory(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * GROUP + lane;
    if (i < COUNT / TURNS) {
        var sum = x[i];
        for (var t = 1u; t < TURNS; t++) {
            sum += x[i + t * (COUNT / TURNS)];
        }
        y[i] = sum;
    }
}

var<workgroup> shared_elements: array<vec4<f32>, GROUP>;

// Each invocation reads TURNS vec4s of workgroup memory.
@compute @workgroup_size(GROUP)
fn read_workgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * GROUP + lane;
    shared_elements[lane] = vec4<f32>(results[i]);
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var t = 0u; t < TURNS; t++) {
        sum += shared_elements[(lane + t) % GROUP];
    }
    results[i] = sum.x + sum.y + sum.z + sum.w;
}
