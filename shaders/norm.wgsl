// The Euclidean norm of packed tensors, in three stages of fixed order.
// include: grid.wgsl

const CHUNKS = 1u; // rows of the table
const PARTS = 1u;  // partial sums of the second stage

@group(0) @binding(0) var<storage, read> values: array<f32>;
@group(0) @binding(1) var<storage, read> chunks: array<vec2<u32>>; // [CHUNKS]: first element, length
@group(0) @binding(2) var<storage, read_write> squares: array<f32>; // [CHUNKS]
@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>; // [PARTS], then [1]

// The sum of squares of each chunk.
@compute @workgroup_size(64)
fn chunk_squares(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let id = group_index(group, groups) * 64u + lane;
    if (id >= CHUNKS) {
        return;
    }
    let chunk = chunks[id];
    var total = 0.0;
    for (var e = 0u; e < chunk.y; e++) {
        let value = values[chunk.x + e];
        total += value * value;
    }
    squares[id] = total;
}

@compute @workgroup_size(64)
fn gather_parts(@builtin(local_invocation_index) lane: u32) {
    if (lane >= PARTS) {
        return;
    }
    var total = 0.0;
    for (var e = lane; e < CHUNKS; e += PARTS) {
        total += partial[e];
    }
    result[lane] = total;
}

@compute @workgroup_size(1)
fn root() {
    var total = 0.0;
    for (var e = 0u; e < PARTS; e++) {
        total += partial[e];
    }
    result[0] = sqrt(total);
}
