// The Euclidean norm of packed tensors, in three stages of fixed order.
// include: grid.wgsl
// include: team.wgsl

const CHUNKS = 1u; // rows of the table
const PARTS = 64u; // partial sums of the second stage

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read> chunks: array<vec2<u32>>; // [CHUNKS]: first element, length
@group(0) @binding(2) var<storage, read_write> squares: array<f32>; // [CHUNKS, 64]
@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>; // [PARTS], then [1]

// Sums of squares of each chunk: a workgroup walks through it side by side.
@compute @workgroup_size(64)
fn chunk_squares(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups);
    if (id >= CHUNKS) {
        return;
    }
    let chunk = chunks[id];
    var total = 0.0;
    for (var e = lane; e < chunk.y; e += 64u) {
        let value = values[chunk.x + e];
        total += value * value;
    }
    squares[id * 64u + lane] = total;
}

@compute @workgroup_size(64)
fn gather_parts(@builtin(global_invocation_id) id: vec3<u32>) {
    var total = 0.0;
    for (var e = id.x; e < CHUNKS * 64u; e += PARTS) {
        total += partial[e];
    }
    result[id.x] = total;
}

@compute @workgroup_size(WIDTH)
fn root(@builtin(local_invocation_index) lane: u32) {
    var total = 0.0;
    for (var e = lane; e < PARTS; e += WIDTH) {
        total += partial[e];
    }
    total = all_sum(lane, total);
    if (lane == 0u) {
        result[0] = sqrt(total);
    }
}
