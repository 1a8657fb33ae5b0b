//! What products, convolutions and their gradients share: shapes of the kernels in `shaders/gemm.wgsl`.

use super::reduce;
use crate::graph::{Arg, Candidate, Caps, DType, Kernel};
use crate::shader;

/// How far a window of `taps` reaches and how long the padded image is, along one axis.
pub(crate) fn reach(
    taps: usize,
    dilation: usize,
    extent: usize,
    padding: [usize; 2],
) -> Result<(usize, usize), String> {
    let reach = (taps - 1).checked_mul(dilation).and_then(|n| n.checked_add(1));
    let padded = extent.checked_add(padding[0]).and_then(|n| n.checked_add(padding[1]));
    // Signed index arithmetic must hold both.
    match (reach, padded) {
        (Some(reach), Some(padded)) if reach.max(padded) <= i32::MAX as usize => Ok((reach, padded)),
        _ => Err(format!("dilation {dilation} or padding {padding:?} is too large")),
    }
}

/// Extents of a (batched) product [M, K] x [K, N].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extents {
    pub batches: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

impl Extents {
    fn count(&self) -> usize {
        self.batches * self.m * self.n
    }

    fn set(&self, kernel: Kernel) -> Kernel {
        kernel.set("BATCHES", self.batches).set("M", self.m).set("N", self.n).set("K", self.k)
    }
}

/// Reads a value of another lane of the subgroup.
pub(crate) const SHUFFLE: &str =
    "fn from_lane(value: f32, lane: u32) -> f32 {\n    return subgroupShuffle(value, lane);\n}";

/// A bias (input 2) that the sums of rows or columns start from: the function that gives it, with its binding.
pub(crate) fn bias(rows: bool, binding: usize) -> (&'static str, String) {
    let (name, index) = if rows { ("row_start", "m") } else { ("column_start", "n") };
    // Groups of a convolution are the batches of its products, and have their own rows.
    let place = if rows { "batch * CO + m" } else { "n" };
    let text = format!(
        "@group(0) @binding({binding}) var<storage, read> bias: array<f32>;\n\
         fn {name}(batch: u32, {index}: u32) -> f32 {{\n    return bias[{place}];\n}}"
    );
    (name, text)
}

/// Lanes that can share loads through the register file: 8 on the CPU adapters that have subgroups.
pub(crate) fn lanes(caps: &Caps) -> usize {
    if caps.subgroup == Some(8) { 8 } else { 1 }
}

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Its neighbours lie along k.
    pub along_k: bool,
    /// It consists of whole vec4s of neighbours, which the shader's `a_four_at_once`, or `b_four_at_once`, loads.
    pub whole: bool,
}

/// A shape of the `tile` kernel.
struct Tile {
    name: &'static str,
    rows: usize,
    columns: usize,
    /// Steps along k whose operands are in workgroup memory at a time.
    steps: usize,
    /// Rows and columns of an invocation.
    own: [usize; 2],
}

const SMALL_TILE: Tile = Tile { name: "tile_64x64", rows: 64, columns: 64, steps: 16, own: [4, 4] };

/// Twice the arithmetic for each load from workgroup memory.
const LARGE_TILE: Tile = Tile { name: "tile_128x128", rows: 128, columns: 128, steps: 8, own: [8, 8] };

/// For few rows or few columns, of which a larger tile would leave the most idle; the narrowest first.
const NARROW_TILES: [Tile; 4] = [
    Tile { name: "tile_16x128", rows: 16, columns: 128, steps: 16, own: [4, 8] },
    Tile { name: "tile_128x16", rows: 128, columns: 16, steps: 16, own: [8, 4] },
    Tile { name: "tile_32x128", rows: 32, columns: 128, steps: 16, own: [4, 8] },
    Tile { name: "tile_128x32", rows: 128, columns: 32, steps: 16, own: [8, 4] },
];

impl Tile {
    /// Workgroups that cover a result.
    fn count(&self, e: Extents) -> usize {
        e.batches * e.m.div_ceil(self.rows) * e.n.div_ceil(self.columns)
    }

    /// `kernel`, which is `tile`, in this shape.
    fn set(&self, kernel: Kernel, [a, b]: [Layout; 2]) -> Kernel {
        let mut kernel = kernel.set("TM", self.rows).set("TN", self.columns).set("TK", self.steps);
        kernel = kernel.set("RM", self.own[0]).set("RN", self.own[1]);
        if a.whole {
            kernel = kernel.set("A_WHOLE", true).choose("a_four_of", "a_four_at_once");
        }
        if b.whole {
            kernel = kernel.set("B_WHOLE", true).choose("b_four_of", "b_four_at_once");
        }
        if b.whole && !b.along_k {
            kernel = kernel.choose("put_four", "put_four_at_once");
        }
        let in_fours = (a.whole && a.along_k) || (b.whole && b.along_k);
        if in_fours { kernel.set("STEP", 4usize) } else { kernel }
    }
}

/// The candidates for a product, given a kernel without entry-dependent settings; the preferred one first.
/// The operands are inputs 0 and 1; the output is `Arg::Out(0)`, and `behind` is bound behind it.
pub(crate) fn candidates(
    make: impl Fn(&'static str) -> Kernel,
    extents: Extents,
    layouts: [Layout; 2],
    behind: &[Arg],
    caps: &Caps,
) -> Vec<Candidate> {
    let with_extents = |entry| extents.set(make(entry)).bind([Arg::In(0), Arg::In(1)]);
    // A tile takes 1.1 turns for each step.
    let least = extents.k.div_ceil(caps.turns / 2);
    let tile = |shape: &Tile| {
        let tiles = shape.count(extents);
        // Enough workgroups for a large GPU, of at least 128 steps each.
        let splits = if tiles >= 128 { 1 } else { (256 / tiles.max(1)).min(extents.k / 128).max(1) };
        let kernel = shape.set(with_extents("tile"), layouts);
        split(shape.name, kernel, tiles, splits.max(least), extents.count(), behind, caps)
    };
    // Large tiles where there are several rows and columns of them; they come first where they fill a large GPU.
    let large = (extents.m > LARGE_TILE.rows && extents.n > LARGE_TILE.columns).then_some(&LARGE_TILE);
    let narrow = NARROW_TILES.iter().find(|shape| {
        (shape.rows < SMALL_TILE.rows && extents.m <= shape.rows)
            || (shape.columns < SMALL_TILE.columns && extents.n <= shape.columns)
    });
    let mut tiles: Vec<Candidate> = [Some(&SMALL_TILE), large, narrow].into_iter().flatten().map(tile).collect();
    if narrow.is_some() || LARGE_TILE.count(extents) >= 128 {
        tiles.reverse();
    }
    let (rows, columns) = block_shape(extents);
    let blocks = extents.batches * extents.m.div_ceil(rows) * extents.n.div_ceil(8 * columns);
    let lanes = lanes(caps);
    let mut block = with_extents("block").set("ROWS", rows).set("COLUMNS", columns).set("LANES", lanes);
    if lanes > 1 {
        block = block.replace("from_lane", SHUFFLE);
    }
    let splits = if blocks >= 16 { 1 } else { (32 / blocks.max(1)).min(extents.k / 64).max(1) }.max(least);
    let block = split("block", block, blocks, splits, extents.count(), behind, caps);
    if caps.cpu { [vec![block], tiles].concat() } else { [tiles, vec![block]].concat() }
}

/// Rows of a block of the `quads` kernel.
pub(crate) fn quad_rows(m: usize) -> usize {
    // Larger blocks are a little faster, but take longer to compile.
    match m {
        0..=1 => 1,
        2..=4 => 4,
        9..=12 => 12,
        512.. => 16,
        _ => 8,
    }
}

/// The `quads` kernel of `shaders/matmul.wgsl`.
pub(crate) fn quads(kernel: Kernel, extents: Extents, behind: &[Arg], caps: &Caps) -> Candidate {
    let e = extents;
    let rows = quad_rows(e.m);
    let groups = e.batches * e.m.div_ceil(rows) * e.n.div_ceil(32);
    // Parts of fewer than 2^18 products are not worth a second dispatch.
    let worth = (e.k / 64).min((e.count() * e.k) >> 18).max(1);
    let splits = if groups >= 16 { 1 } else { (32 / groups.max(1)).min(worth) };
    let splits = splits.max(e.k.div_ceil(caps.turns));
    let mut kernel = e
        .set(kernel)
        .set("QUAD_ROWS", rows)
        .set("STEP", 4usize)
        .set("LANES", lanes(caps))
        .bind([Arg::In(0), Arg::In(1)]);
    if lanes(caps) > 1 {
        kernel = kernel.replace("from_lane", SHUFFLE);
    }
    split("quads", kernel, groups, splits, e.count(), behind, caps)
}

/// `kernel` for cooperative matrices of this type and size, which it calls `Left`, `Right` and `Sum`.
pub(crate) fn of_matrices(kernel: Kernel, dtype: DType, size: u32) -> Kernel {
    let alias =
        |name: &str, role: &str, element: &str| format!("alias {name} = coop_mat{size}x{size}<{element}, {role}>;");
    let element = dtype.to_string();
    kernel
        .set("SIZE", size)
        .replace("Element", format!("alias Element = {element};"))
        .replace("Left", alias("Left", "A", &element))
        .replace("Right", alias("Right", "B", &element))
        .replace("Sum", alias("Sum", "C", "f32"))
}

/// The kernel of `shaders/matrices.wgsl`, where the device multiplies cooperative matrices of this type. The tuner takes
/// it if it is right and fast there; it is never the default.
pub(crate) fn matrices(
    make: impl Fn(Kernel) -> Kernel,
    e: Extents,
    dtype: DType,
    [a_along_k, b_along_k]: [bool; 2],
    behind: &[Arg],
    caps: &Caps,
) -> Option<Candidate> {
    let lanes = caps.subgroup? as usize;
    let &(_, size) = caps.matrices.iter().filter(|(of, _)| *of == dtype).max_by_key(|(_, size)| *size)?;
    let (side, depth) = (4 * size as usize, 2 * size as usize);
    let bytes = if dtype == DType::F16 { 2 } else { 4 };
    let line = |along: bool| if along { side * (depth + 8) } else { depth * (side + 8) };
    let memory = (line(a_along_k) + line(b_along_k)) * bytes + 16 * (size * size) as usize;
    let fits = memory <= caps.workgroup_memory as usize && 4 * lanes <= caps.invocations as usize;
    if !fits || !(side * depth).is_multiple_of(16 * lanes) {
        return None;
    }
    let name = if size == 16 { "matrices_16" } else { "matrices_8" };
    let kernel =
        e.set(make(Kernel::new(shader!("matrices.wgsl"), "matrices"))).set("SUBGROUP", lanes).set("STEP", 4usize);
    let mut kernel = of_matrices(kernel, dtype, size).bind([Arg::In(0), Arg::In(1)]);
    if !a_along_k {
        kernel = kernel.choose("left_at", "left_along_m");
    }
    if b_along_k {
        kernel = kernel.choose("right_at", "right_along_k");
    }
    let groups = e.batches * e.m.div_ceil(side) * e.n.div_ceil(side);
    let splits = if groups >= 128 { 1 } else { (256 / groups.max(1)).min(e.k / 256).max(1) };
    let splits = splits.max(e.k.div_ceil(depth).div_ceil(caps.turns / 8));
    Some(split(name, kernel, groups, splits, e.count(), behind, caps))
}

/// One dispatch for products of dense matrices within a candidate of another op; `args` are A, B and the result. K is a
/// multiple of 4, and so is N. `None` where the sums over k would have to be cut.
pub(crate) fn dense(e: Extents, args: [Arg; 3], caps: &Caps) -> Option<Kernel> {
    let make = |entry| {
        let kernel = Kernel::new(shader!("matmul.wgsl"), entry).set("A_M", e.k).set("A_K", 1usize).set("B_K", e.n);
        kernel.set("B_N", 1usize).set("A_ALONG_K", 1usize).set("B_ALONG_K", 0usize)
    };
    let operands = [Arg::In(0), Arg::In(1)];
    let mut candidate = if caps.cpu {
        quads(make("quads"), e, &[], caps)
    } else {
        let shape = if LARGE_TILE.count(e) >= 128 { LARGE_TILE } else { SMALL_TILE };
        let splits = e.k.div_ceil(caps.turns / 2);
        let layouts = [true, false].map(|along_k| Layout { along_k, whole: true });
        let kernel = shape.set(e.set(make("tile")), layouts).bind(operands);
        split(shape.name, kernel, shape.count(e), splits, e.count(), &[], caps)
    };
    let mut kernel = if candidate.kernels.len() == 1 { candidate.kernels.pop()? } else { return None };
    kernel.args = args.to_vec();
    Some(kernel)
}

/// The kernels of `shaders/matmul.wgsl` for a few rows, by how B lies; `pairs`: it consists of whole pairs of vec4s.
pub(crate) fn few(
    make: impl Fn(&'static str) -> Kernel,
    e: Extents,
    along_k: bool,
    pairs: bool,
    behind: &[Arg],
    caps: &Caps,
) -> Candidate {
    let entry = if along_k { "dots" } else { "columns" };
    let kernel = e.set(make(entry)).set("FEW", e.m);
    if along_k {
        let kernel = kernel.bind([Arg::In(0), Arg::In(1)]);
        let width = (e.k / 16).next_power_of_two().clamp(32, 128);
        let groups = e.batches * e.n;
        return split(entry, kernel.set("WIDTH", width), groups, 1, e.count(), behind, caps)
            .turns(e.k.div_ceil(4 * width) + 40);
    }
    let [block, span] = few_block(e, caps);
    let (kernel, pieces) = reduce::in_pieces(kernel, "b_piece", "b_piece_of_two", block, pairs && caps.wide);
    let kernel = kernel.set("BLOCK", pieces).set("SPAN", span).bind([Arg::In(0)]);
    let (kernel, owners) = if block > 1 { (kernel.stream(Arg::In(1)), span) } else { (kernel.bind([Arg::In(1)]), 64) };
    let kernel = kernel.set("OWNERS", owners);
    let groups = e.batches * e.n.div_ceil(4 * owners * block);
    // Enough workgroups for a large GPU, or for a CPU's threads, of at least 32 steps each.
    let wanted = match block {
        1 if caps.cpu => 2 * caps.threads,
        1 => 512,
        _ => caps.threads,
    };
    let splits = (wanted / groups.max(1)).clamp(1, e.k.div_ceil(32)).max(e.k.div_ceil(caps.turns));
    split(entry, kernel, groups, splits, e.count(), behind, caps)
}

/// BLOCK, in vec4s, and SPAN of `columns`: more than one where B is so large that the speed of memory counts alone, and a
/// CPU reads it in 64-bit words; less than the most where that lets each of its threads have some.
pub(crate) fn few_block(e: Extents, caps: &Caps) -> [usize; 2] {
    let large = e.k * e.n >= e.m << 20;
    let most = (e.batches * e.n / (32 * caps.threads.max(1))).max(8).min(32 / e.m);
    if caps.wide && large { reduce::block(e.n / 4, e.k * e.n, most, caps) } else { [1, 1] }
}

/// Whether a product is not worth the driver's time to compile a large block.
pub(crate) fn is_small(e: Extents) -> bool {
    e.batches * e.m * e.n * e.k <= 1 << 20
}

/// Rows and columns that a lane of the `block` kernel owns: those that leave the fewest idle; few in a small product.
fn block_shape(e: Extents) -> (usize, usize) {
    if is_small(e) {
        return (if e.m < 4 { 1 } else { 4 }, if e.n <= 8 { 1 } else { 2 });
    }
    let rows = [12, 8, 4, 1].into_iter().min_by_key(|rows| (e.m.div_ceil(*rows) * (rows + 8), 12 - rows));
    let columns =
        [8, 4, 2, 1].into_iter().min_by_key(|columns| (e.n.div_ceil(8 * columns) * (columns + 4), 8 - columns));
    (rows.unwrap_or(12), columns.unwrap_or(8))
}

/// A kernel whose sum over k is cut into `splits` parts, and the kernel that adds them where there are several.
pub(crate) fn split(
    name: &'static str,
    kernel: Kernel,
    groups: usize,
    splits: usize,
    count: usize,
    behind: &[Arg],
    caps: &Caps,
) -> Candidate {
    let kernel = kernel.set("SPLITS", splits).grid(caps.fold(groups * splits));
    if splits == 1 {
        return Candidate::single(name, kernel.bind([Arg::Out(0)]).bind(behind.iter().cloned()));
    }
    let sum = sum_splits([Arg::ScratchIn(0), Arg::Out(0)], count, splits, caps);
    let kernel = kernel.bind([Arg::ScratchOut(0)]).bind(behind.iter().cloned());
    Candidate::new(name, vec![kernel, sum], vec![count * splits * 4])
}

/// Sums parts [splits, count], in order, to [count].
pub(crate) fn sum_splits([parts, sums]: [Arg; 2], count: usize, splits: usize, caps: &Caps) -> Kernel {
    Kernel::new(shader!("splits.wgsl"), "sum_splits")
        .set("COUNT", count)
        .set("SPLITS", splits)
        .bind([parts, sums])
        .grid(caps.fold(count.div_ceil(64)))
}
