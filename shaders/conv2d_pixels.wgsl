// A stretch of an input row in registers, for convolutions on CPU-like adapters.

const PIXELS = 14u; // outputs that a lane computes in a row
const SPAN = (PIXELS - 1u) * SW + (KW - 1u) * DW + 1u; // input pixels that they need
const OFFSET = 0u; // where the stretch begins in its first vec4
const QUADS = (OFFSET + SPAN + 3u) / 4u;

@group(0) @binding(0) var<storage, read> x: array<f32>; // [BATCH, GROUPS CI, H, W]
@group(0) @binding(0) var<storage, read> x4: array<vec4<f32>>;

// The pixels of the row that begins at element `row`, from column `first` on, which wraps around left of the image;
// zeros outside, and everywhere if the row itself is.
fn row_pixels(row: u32, first: u32, inside: bool) -> array<f32, SPAN> {
    var pixels: array<f32, SPAN>;
    for (var s = 0u; s < SPAN; s++) { // unroll
        let there = inside && first + s < W;
        pixels[s] = select(0.0, x[select(0u, row + first + s, there)], there);
    }
    return pixels;
}

// The same where W and the outputs' first columns are multiples of four, and the stride is 1.
fn row_pixels_by_four(row: u32, first: u32, inside: bool) -> array<f32, SPAN> {
    var all: array<f32, QUADS * 4u>;
    for (var q = 0u; q < QUADS; q++) { // unroll
        let column = first - OFFSET + q * 4u;
        let there = inside && column < W;
        let four = select(vec4<f32>(), x4[select(0u, (row + column) / 4u, there)], there);
        for (var i = 0u; i < 4u; i++) { // unroll
            all[q * 4u + i] = four[i];
        }
    }
    var pixels: array<f32, SPAN>;
    for (var s = 0u; s < SPAN; s++) { // unroll
        pixels[s] = all[s + OFFSET];
    }
    return pixels;
}
