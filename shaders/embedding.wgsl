// The gradient of selecting rows of a table, in which the same row may be selected many times: sums in a fixed order of as
// many rows as were selected.
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

// --- For GPUs, where the loads of a chain would wait for one another: each row's first place and the number of its places
// are marked, and a workgroup for each first place looks for the others.

@group(0) @binding(1) var<storage, read_write> marks: array<atomic<u32>>; // [2, ROWS]: TAKEN less the first place; number of places

@compute @workgroup_size(64)
fn mark(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = group_index(group, groups) * 64u + lane;
    if (n < COUNT && index[n] < ROWS) {
        atomicMax(&marks[index[n]], TAKEN - n);
        atomicAdd(&marks[ROWS + index[n]], 1u);
    }
}

@group(0) @binding(1) var<storage, read> marked: array<u32>; // `marks`
@group(0) @binding(3) var<storage, read_write> totals: array<Element>; // [TAKEN, WIDTH]
@group(0) @binding(4) var<storage, read> arrived: array<Element>; // [TAKEN, WIDTH]

var<workgroup> hits: array<atomic<u32>, 8>; // a bit for each of 256 places

// What arrived at column `column` of the places, from `first` on, that `hits` has found, in their order.
fn sum_hits(first: u32, column: u32) -> Element {
    var total = Element();
    for (var w = 0u; w < 8u; w++) {
        var bits = atomicLoad(&hits[w]);
        while (bits != 0u) {
            // Four loads that do not wait for one another.
            var four: array<Element, 4>;
            for (var i = 0u; i < 4u; i++) { // unroll
                if (bits != 0u) {
                    four[i] = arrived[(first + w * 32u + countTrailingZeros(bits)) * WIDTH + column];
                    bits &= bits - 1u;
                }
            }
            total += (four[0] + four[1]) + (four[2] + four[3]);
        }
    }
    return total;
}

@compute @workgroup_size(64)
fn sum_marked(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks = (WIDTH + 63u) / 64u;
    let id = group_index(group, groups);
    let n = id / blocks;
    if (n >= TAKEN) {
        return;
    }
    let own = index[n];
    let column = id % blocks * 64u + lane;
    let first = own < ROWS && marked[min(own, ROWS - 1u)] == TAKEN - n;
    if (id % blocks == 0u && lane == 0u) {
        row[n] = select(ROWS, own, first);
    }
    var total = Element();
    if (first && marked[ROWS + min(own, ROWS - 1u)] == 1u) {
        total = arrived[n * WIDTH + min(column, WIDTH - 1u)];
    } else if (first) {
        for (var start = n; start < TAKEN; start += 256u) {
            if (lane < 8u) {
                atomicStore(&hits[lane], 0u);
            }
            workgroupBarrier();
            for (var i = 0u; i < 4u; i++) { // unroll
                let place = i * 64u + lane;
                if (start + place < TAKEN && index[min(start + place, TAKEN - 1u)] == own) {
                    atomicOr(&hits[place / 32u], 1u << (place % 32u));
                }
            }
            workgroupBarrier();
            total += sum_hits(start, min(column, WIDTH - 1u));
            workgroupBarrier();
        }
    }
    if (column < WIDTH) {
        totals[n * WIDTH + column] = total;
    }
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
