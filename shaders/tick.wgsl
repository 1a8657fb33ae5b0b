// Counts a step: [seed, step] -> [seed, step + 1].

@group(0) @binding(0) var<storage, read_write> state: array<u32>; // [2]

@compute @workgroup_size(1)
fn tick() {
    state[1] = state[1] + 1u;
}
