// Sums the parts of a product whose sum over k was split, in order.
// include: grid.wgsl

const COUNT = 1u;
const SPLITS = 1u;

@group(0) @binding(0) var<storage, read> parts: array<f32>; // [SPLITS, COUNT]
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // [COUNT]

fn epilogue(v: f32, i: u32) -> f32 {
    return v;
}

@compute @workgroup_size(64)
fn sum_splits(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    var total = 0.0;
    for (var s = 0u; s < SPLITS; s++) {
        total += parts[s * COUNT + i];
    }
    y[i] = epilogue(total, i);
}
