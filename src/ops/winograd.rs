//! Convolutions with a 3x3 kernel at stride 1 by Winograd's minimal filtering (`shaders/winograd.wgsl`).

use super::conv2d::{Dims, Weights};
use super::gemm::{self, Extents};
use crate::graph::{Arg, Candidate, Caps, Kernel};
use crate::shader;

/// The candidate with tiles of `tile` x `tile` results, 2 or 4; `set` fixes the convolution's extents in a kernel.
///
/// In exact arithmetic it gives the convolution; in f32 a result has a rounding error of up to 1e-6 of the largest sum of
/// absolute values among its neighbours. A pixel that is no finite number, or above 1e37, makes all results of the tiles
/// that read it NaN.
pub(super) fn candidate(
    tile: usize,
    d: &Dims,
    weights: &Weights,
    set: impl Fn(Kernel) -> Kernel,
    bias: bool,
    caps: &Caps,
) -> Option<Candidate> {
    if d.groups != 1 || d.kernel != [3, 3] || !d.ci.is_multiple_of(4) || d.ci == 0 || d.image.contains(&0) {
        return None;
    }
    let quads = (d.batch * d.out[0].div_ceil(tile) * d.out[1].div_ceil(tile)).div_ceil(4);
    let elements = (tile + 2) * (tile + 2);
    let scratch = [d.co * d.ci, d.ci * quads * 4, d.co * quads * 4].map(|count| count * elements * 4);
    let most = caps.binding.min(caps.buffer) as usize;
    if scratch.iter().any(|bytes| bytes + caps.guard > most) {
        return None;
    }
    let part = |entry, count: usize| {
        let kernel = set(Kernel::new(shader!("winograd.wgsl"), entry)).set("BATCH", d.batch).set("TILE", tile);
        let kernel = if tile == 2 { with_small_tiles(kernel, entry) } else { kernel };
        kernel.grid(caps.fold(count.div_ceil(64)))
    };
    let transform = weights.set(part("weights", d.co * d.ci / 4)).bind([Arg::In(1), Arg::ScratchOut(0)]);
    let input = part("input", d.ci * quads).bind([Arg::In(0), Arg::ScratchOut(1)]);
    let extents = Extents { batches: elements, m: d.co, n: quads * 4, k: d.ci };
    let product = gemm::dense(extents, [Arg::ScratchIn(0), Arg::ScratchIn(1), Arg::ScratchOut(2)], caps)?;
    let mut output = part("output", d.co * quads).bind([Arg::ScratchIn(2), Arg::Out(0)]);
    if tile == 4 && d.out[1].is_multiple_of(4) {
        output = output.choose("put_row", "put_row_by_four");
    }
    if bias {
        let (name, text) = gemm::bias(true, output.args.len());
        output = output.replace(name, text).bind([Arg::In(2)]);
    }
    let name = if tile == 2 { "winograd_2x2" } else { "winograd_4x4" };
    Some(Candidate::new(name, vec![transform, input, product, output], scratch.to_vec()))
}

/// What the products, and the transforms of images, results and weights, cost on a CPU adapter beside the plain
/// convolution. A transformed number costs as much as 55 multiply-adds of a product, one of the weights as 40 (set by hand
/// after some 20 shapes on lavapipe; `cargo bench --bench defaults` shows what it is worth on others).
pub(super) fn cost(tile: usize, d: &Dims) -> f64 {
    let tiles = (d.batch * d.out[0].div_ceil(tile) * d.out[1].div_ceil(tile)) as f64;
    let (elements, pixels) = (((tile + 2) * (tile + 2)) as f64, (d.batch * d.out[0] * d.out[1]) as f64);
    let (pairs, channels) = ((d.ci * d.co) as f64, (d.ci + d.co) as f64);
    elements * (tiles * (pairs + 55.0 * channels) + 40.0 * pairs) / (9.7 * pixels * pairs)
}

fn with_small_tiles(kernel: Kernel, entry: &str) -> Kernel {
    match entry {
        "weights" => kernel.choose("weight_matrix", "weight_matrix_2"),
        "input" => kernel.choose("input_matrix", "input_matrix_2"),
        _ => kernel.choose("output_matrix", "output_matrix_2"),
    }
}
