// What attention's rows meet, its columns: by two operands a and b, of which vec4s are read. Whoever includes this defines
// `row_of` and `row_place`, the rows' own operands and where they are, and `fill_more`, what else a tile holds.
// include: attention_scores.wgsl

const COLUMNS = 1u;
const PARTS = 1u; // of the columns, each for other workgroups
const RUN = 1u; // columns of a part: whole tiles, or turns, so that none reaches into the next part
const A4 = 1u; // vec4s of a in a column
const B4 = 1u;
const A_ROW = 4u; // elements from one column to the next
const B_ROW = 4u;

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;

// Where a batch begins.
fn a_batch(batch: u32) -> u32 {
    return batch;
}

fn b_batch(batch: u32) -> u32 {
    return batch;
}

// An operand by its number, 0 or 1, which is known when this is compiled and has been inlined.
fn column_of(which: u32, i: u32) -> vec4<f32> {
    if (which == 0u) {
        return a[i];
    }
    return b[i];
}

fn column_place(which: u32, batch: u32, column: u32) -> u32 {
    let last = min(column, COLUMNS - 1u);
    return select(b_batch(batch) + last * B_ROW, a_batch(batch) + last * A_ROW, which == 0u) / 4u;
}

// --- Tiles: a workgroup takes TILE_ROWS rows, SHARE invocations EACH of them; the columns of a tile are shared through
// workgroup memory, where all invocations read the same one at a time, once for each of their rows.

const TILE_ROWS = 64u;
const TILE = 32u;
const EACH = 1u; // rows of an invocation
const SHARE = 1u; // neighbours of which each multiplies, and sums, every SHARE-th vec4
const INVOCATIONS = TILE_ROWS / EACH * SHARE;
const A_OWN = A4 / SHARE; // vec4s of a for each sharer
const B_OWN = B4 / SHARE;

var<workgroup> tile_a: array<vec4<f32>, TILE * A4>;
var<workgroup> tile_b: array<vec4<f32>, TILE * B4>;

fn fill_tile(batch: u32, column0: u32, lane: u32) {
    workgroupBarrier();
    // Zeros behind the last: no share of an infinity is 0.
    for (var e = lane; e < TILE * A4; e += INVOCATIONS) {
        let value = a[column_place(0u, batch, column0 + e / A4) + e % A4];
        tile_a[e] = select(vec4<f32>(), value, column0 + e / A4 < COLUMNS);
    }
    for (var e = lane; e < TILE * B4; e += INVOCATIONS) {
        let value = b[column_place(1u, batch, column0 + e / B4) + e % B4];
        tile_b[e] = select(vec4<f32>(), value, column0 + e / B4 < COLUMNS);
    }
    fill_more(batch, column0, lane);
    workgroupBarrier();
}

// Vec4 i of column c.
fn a_of_tile(batch: u32, column0: u32, c: u32, i: u32) -> vec4<f32> {
    return tile_a[c * A4 + i];
}

fn b_of_tile(batch: u32, column0: u32, c: u32, i: u32) -> vec4<f32> {
    return tile_b[c * B4 + i];
}

// The same without workgroup memory, for devices on which a load from there costs as much as others do.
fn fill_nothing(batch: u32, column0: u32, lane: u32) {}

fn a_of_column(batch: u32, column0: u32, c: u32, i: u32) -> vec4<f32> {
    let value = a[column_place(0u, batch, column0 + c) + i];
    return select(vec4<f32>(), value, column0 + c < COLUMNS);
}

fn b_of_column(batch: u32, column0: u32, c: u32, i: u32) -> vec4<f32> {
    let value = b[column_place(1u, batch, column0 + c) + i];
    return select(vec4<f32>(), value, column0 + c < COLUMNS);
}

// --- Lanes: a workgroup is one SIMD vector of 8 lanes and takes LANE_ROWS rows. Of 32 columns at a time each lane has four
// for its own, later vec4s of the sums; what is found changes lanes in registers.

const LANE_ROWS = 8u;
const EIGHTS = (LANE_ROWS + 7u) / 8u;
const OWN = 1u; // vec4s of the longest sum for each lane

// The products of the rows from row0 on with a lane's four columns. Each lane loads every eighth row.
fn products_of(
    which: u32,
    vectors: u32,
    batch: u32,
    row0: u32,
    lane: u32,
    column: u32,
    products: ptr<function, array<vec4<f32>, LANE_ROWS>>,
) {
    let at0 = column_place(which, batch, column);
    let at1 = column_place(which, batch, column + 1u);
    let at2 = column_place(which, batch, column + 2u);
    let at3 = column_place(which, batch, column + 3u);
    var rows: array<u32, EIGHTS>;
    for (var e = 0u; e < EIGHTS; e++) { // unroll
        rows[e] = row_place(which, batch, row0 + 8u * e + lane % min(LANE_ROWS, 8u));
    }
    for (var d = 0u; d < vectors; d++) {
        var x: array<vec4<f32>, EIGHTS>;
        for (var e = 0u; e < EIGHTS; e++) { // unroll
            x[e] = row_of(which, rows[e] + d);
        }
        let y0 = column_of(which, at0 + d);
        let y1 = column_of(which, at1 + d);
        let y2 = column_of(which, at2 + d);
        let y3 = column_of(which, at3 + d);
        for (var r = 0u; r < LANE_ROWS; r++) { // unroll
            for (var i = 0u; i < 4u; i++) { // unroll
                (*products)[r] += subgroupShuffle(x[r / 8u][i], r % 8u) * vec4<f32>(y0[i], y1[i], y2[i], y3[i]);
            }
        }
    }
}

// Adds 32 columns to the rows' sums, each times its factor for the row. Four in a turn: always those of lane 0, to which
// the factors move from lane to lane.
fn add_columns(
    which: u32,
    vectors: u32,
    batch: u32,
    column0: u32,
    lane: u32,
    factors: ptr<function, array<vec4<f32>, LANE_ROWS>>,
    sums: ptr<function, array<vec4<f32>, LANE_ROWS * OWN>>,
) {
    for (var turn = 0u; turn < 8u; turn++) {
        for (var c = 0u; c < OWN; c++) { // unroll
            var values: array<vec4<f32>, 4>;
            for (var i = 0u; i < 4u; i++) { // unroll
                let column = column0 + 4u * turn + i;
                let value = column_of(which, column_place(which, batch, column) + min(lane + 8u * c, vectors - 1u));
                values[i] = select(vec4<f32>(), value, column < COLUMNS);
            }
            for (var r = 0u; r < LANE_ROWS; r++) { // unroll
                for (var i = 0u; i < 4u; i++) { // unroll
                    (*sums)[r * OWN + c] += subgroupShuffle((*factors)[r][i], 0u) * values[i];
                }
            }
        }
        for (var r = 0u; r < LANE_ROWS; r++) { // unroll
            for (var i = 0u; i < 4u; i++) { // unroll
                (*factors)[r][i] = subgroupShuffle((*factors)[r][i], (lane + 1u) % 8u);
            }
        }
    }
}

// Row r of the sums, by a selection: a loop that stores them must not be written out, as a driver may take milliseconds to
// compile each store.
fn row_of_sums(r: u32, c: u32, sums: ptr<function, array<vec4<f32>, LANE_ROWS * OWN>>) -> vec4<f32> {
    var result = vec4<f32>();
    for (var other = 0u; other < LANE_ROWS; other++) { // unroll
        result = select(result, (*sums)[other * OWN + c], r == other);
    }
    return result;
}
