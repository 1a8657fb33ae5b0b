// The gradient of selecting rows of a table, in which the same row may be selected many times: sums in a fixed order,
// without atomics, of as many rows as were selected.
// include: grid.wgsl

alias Element = f32;

const COUNT = 1u;  // invocations of the kernel
const TAKEN = 1u;  // rows that were selected
const WIDTH = 1u;  // elements in a row
const ROWS = 1u;   // rows of the table

@group(0) @binding(0) var<storage, read> index: array<u32>; // [TAKEN]
@group(0) @binding(1) var<storage, read_write> next: array<u32>; // [TAKEN]
@group(0) @binding(2) var<storage, read_write> row: array<u32>; // [TAKEN]

// The place behind `n` at which the same row is selected next; TAKEN: none.
fn place_after(n: u32, row: u32) -> u32 {
    var m = n + 1u;
    while (m < TAKEN) {
        // Four at a time, the last one again where there are fewer.
        var found = TAKEN;
        for (var i = 0u; i < 4u; i++) { // unroll
            let place = min(m + 3u - i, TAKEN - 1u);
            found = select(found, place, index[place] == row);
        }
        if (found < TAKEN) {
            return found;
        }
        m += 4u;
    }
    return TAKEN;
}

fn is_first(n: u32, row: u32) -> bool {
    var m = n;
    while (m > 0u) {
        var found = false;
        for (var i = 0u; i < 4u; i++) { // unroll
            found = found || (m > i && index[max(m, i + 1u) - 1u - i] == row);
        }
        if (found) {
            return false;
        }
        m -= min(m, 4u);
    }
    return true;
}

// Chains of the places at which the same row is selected; `row` names it at the first of them, elsewhere it is ROWS.
@compute @workgroup_size(64)
fn chains(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = group_index(group, groups) * 64u + lane;
    if (n >= COUNT) {
        return;
    }
    let own = index[n];
    if (own >= ROWS) {
        row[n] = ROWS;
        return;
    }
    next[n] = place_after(n, own);
    row[n] = select(ROWS, own, is_first(n, own));
}

@group(0) @binding(0) var<storage, read> dy: array<Element>; // [TAKEN, WIDTH]
@group(0) @binding(1) var<storage, read> chain: array<u32>; // [TAKEN]
@group(0) @binding(2) var<storage, read_write> row_of: array<u32>; // [TAKEN], as `chains` left it
@group(0) @binding(3) var<storage, read_write> sums: array<Element>; // [TAKEN, WIDTH]

// What arrives at each row that was selected, summed along its chain, at the chain's first place; elsewhere 0.
@compute @workgroup_size(64)
fn sum_chains(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let n = i / WIDTH;
    var total = Element();
    if (row_of[n] < ROWS) {
        for (var m = n; m < TAKEN; m = chain[m]) {
            total += dy[m * WIDTH + i % WIDTH];
        }
    }
    sums[i] = total;
}

@group(0) @binding(0) var<storage, read_write> table: array<Element>; // [ROWS, WIDTH]

@compute @workgroup_size(64)
fn clear(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i < COUNT) {
        table[i] = Element();
    }
}

@group(0) @binding(0) var<storage, read> values: array<Element>; // [TAKEN, WIDTH]
@group(0) @binding(1) var<storage, read> place: array<u32>; // [TAKEN], each row once; ROWS: nowhere
@group(0) @binding(2) var<storage, read_write> whole: array<Element>; // [ROWS, WIDTH]

@compute @workgroup_size(64)
fn spread_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i < COUNT && place[i / WIDTH] < ROWS) {
        whole[place[i / WIDTH] * WIDTH + i % WIDTH] = values[i];
    }
}
