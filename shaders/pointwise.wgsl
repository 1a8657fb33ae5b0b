// Element by element: whatever chain of pointwise operations the fuser put into `value4`.
// include: math.wgsl
// include: random.wgsl
// include: grid.wgsl

// vec4s in the output; one per invocation, so that neighbours touch neighbouring memory.
const COUNT = 1u;

alias Element = f32;

@group(0) @binding(0) var<storage, read_write> y: array<vec4<Element>>;

// Elements 4q to 4q + 3 of the result.
fn value4(q: u32) -> vec4<Element> {
    return vec4<Element>();
}

@compute @workgroup_size(64)
fn pointwise(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let q = group_index(group, groups) * 64u + lane;
    if (q < COUNT) {
        y[q] = value4(q);
    }
}
