// What a device can do at the most: arithmetic, memory, workgroup memory. Not part of any network.
enable f16;
// include: grid.wgsl

const COUNT = 1u;    // elements of each buffer
const TURNS = 1u;    // of the loops
const CHAINS = 1u;   // sums that an invocation keeps in registers; enough to hide an operation's latency, few enough to fit
const STEPS = 1u;    // of each sum in a turn, so that the loop itself costs little
const GROUP = 64u;
alias Number = f32;  // of the arithmetic: f32, or f16 in pairs
alias Element = f32; // of the memory kernels: f32 or vec4<f32>

@group(0) @binding(0) var<storage, read> x: array<Element>; // [COUNT]
@group(0) @binding(1) var<storage, read> z: array<Element>; // [COUNT]
@group(0) @binding(2) var<storage, read_write> y: array<Element>; // [COUNT]
@group(0) @binding(3) var<storage, read_write> results: array<f32>; // one per invocation

fn number(x: f32) -> Number {
    return x;
}

fn sum_of(x: Number) -> f32 {
    return x;
}

fn pair(x: f32) -> vec2<f16> {
    return vec2<f16>(f16(x));
}

fn sum_of_pair(x: vec2<f16>) -> f32 {
    return f32(x.x + x.y);
}

// 2 CHAINS STEPS TURNS operations per number and invocation; the factors are not known to the compiler.
@compute @workgroup_size(GROUP)
fn arithmetic(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * GROUP + lane;
    let a = number(results[i]);
    let b = number(1.0 - results[i]);
    var sums: array<Number, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) { // unroll
        sums[c] = number(f32(c)) * b;
    }
    for (var t = 0u; t < TURNS; t++) {
        for (var s = 0u; s < STEPS; s++) { // unroll
            for (var c = 0u; c < CHAINS; c++) { // unroll
                sums[c] = fma(sums[c], a, b);
            }
        }
    }
    var sum = number(0.0);
    for (var c = 0u; c < CHAINS; c++) { // unroll
        sum += sums[c];
    }
    results[i] = sum_of(sum);
}

fn moved(e: Element) -> Element {
    return e;
}

// 64-bit words whose halves are kept apart, as those of other kernels are (`src/graph/wide.rs`).
fn moved_in_halves(e: Element) -> Element {
    let zero = vec4<u32>(u32(arrayLength(&y) == 0u));
    let high = Element(vec4<u32>(e >> vec4<u32>(32u)) ^ zero);
    return Element(vec4<u32>(e) ^ zero) | (high << vec4<u32>(32u));
}

@compute @workgroup_size(GROUP)
fn copy_memory(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * GROUP + lane;
    if (i < COUNT) {
        y[i] = moved(x[i]);
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
