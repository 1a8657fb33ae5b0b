//! Tables of vectors, looked up by number.

use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, Op, Tensor};
use crate::shader;

/// Up to this many rows, their gradient is a product with the one-hot matrix of the indices.
const FEW: usize = 256;

/// Elements in a row of what a kernel works on: whole vec4s where rows consist of them.
pub(super) fn in_vectors(kernel: Kernel, width: usize) -> (Kernel, usize) {
    if width > 0 && width.is_multiple_of(4) {
        (kernel.replace("Element", "alias Element = vec4<f32>;"), width / 4)
    } else {
        (kernel, width)
    }
}

fn kernel(entry: &'static str, width: usize, taken: usize, rows: usize) -> (Kernel, usize) {
    let (kernel, width) = in_vectors(Kernel::new(shader!("embedding.wgsl"), entry), width);
    (kernel.set("TAKEN", taken).set("ROWS", rows).set("WIDTH", width), width)
}

fn over(kernel: Kernel, count: usize, caps: &Caps) -> Kernel {
    kernel.set("COUNT", count).grid(caps.fold(count.div_ceil(64)))
}

/// The gradient of `table.index_select(0, index)`, [rows, width], from `dy` [taken, width]. In a product with few rows a
/// gradient that is not finite spreads to all of them.
pub(super) fn table_grad(dy: &Tensor, index: &Tensor, rows: usize) -> Tensor {
    if rows <= FEW {
        return index.one_hot(rows).matmul_t(dy, true, false);
    }
    let g = dy.graph();
    let sums = g.push(RowSums(rows), &[dy, index]);
    match &sums[..] {
        [sums, row] => g.push1(FromRows(rows), &[sums, row, dy, index]),
        _ => dy.clone(),
    }
}

/// From the gradients [taken, width] that arrive at rows of a table and the rows' numbers: the sums for each row,
/// [taken, width], at the first place where it was taken, and its number there, u32 `[taken]`. Other places have zeros
/// and the number of no row.
#[derive(Debug)]
struct RowSums(usize);

impl Op for RowSums {
    fn name(&self) -> &'static str {
        "embedding_sums"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![inputs[0].clone(), Desc::new([inputs[1].elements()], DType::U32)])
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let [taken, width] = [io.inputs[0].shape[0], io.inputs[0].shape[1]];
        let (chains, _) = kernel("chains", 1, taken, self.0);
        let (sums, width) = kernel("sum_chains", width, taken, self.0);
        let chains = over(chains.bind([Arg::In(1), Arg::ScratchOut(0), Arg::Out(1)]), taken, caps);
        let sums = sums.bind([Arg::In(0), Arg::ScratchIn(0), Arg::Out(1), Arg::Out(0)]);
        let candidate = Candidate::new("chains", vec![chains, over(sums, taken * width, caps)], vec![taken * 4]);
        // All of them may be one chain.
        let chains = candidate.turns(taken + 2);
        if caps.cpu { vec![chains] } else { vec![self.marked([taken, io.inputs[0].shape[1]], caps), chains] }
    }
}

impl RowSums {
    fn marked(&self, [taken, width]: [usize; 2], caps: &Caps) -> Candidate {
        let make = |entry| kernel(entry, width, taken, self.0);
        let clear = over(kernel("clear", 1, taken, self.0).0.bind([Arg::ScratchOut(0)]), 2 * self.0, caps);
        let mark = over(make("mark").0.bind([Arg::In(1), Arg::ScratchOut(0)]), taken, caps);
        let (sum, vectors) = make("sum_marked");
        let sum = sum.bind([Arg::In(1), Arg::ScratchIn(0), Arg::Out(1), Arg::Out(0), Arg::In(0)]);
        let kernels = vec![clear, mark, sum.grid(caps.fold(taken * vectors.div_ceil(64)))];
        Candidate::new("marked", kernels, vec![2 * self.0 * 4]).turns(taken.div_ceil(256) * 10 + taken + 2)
    }
}

/// A table's gradient, zero but in the rows that [`RowSums`] named. It also reads what that was made from, to which its
/// own gradient goes.
#[derive(Debug)]
struct FromRows(usize);

impl Op for FromRows {
    fn name(&self) -> &'static str {
        "embedding_grad"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::f32([self.0, inputs[0].shape[1]])])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None, None, Some(node.dy().index_select(0, node.x(3))), None]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let [taken, width] = [io.inputs[0].shape[0], io.inputs[0].shape[1]];
        let (clear, _) = kernel("clear", width, taken, self.0);
        let (spread, width) = kernel("spread_rows", width, taken, self.0);
        let clear = over(clear.bind([Arg::Out(0)]), self.0 * width, caps);
        let spread = over(spread.bind([Arg::In(0), Arg::In(1), Arg::Out(0)]), taken * width, caps);
        vec![Candidate::new("rows", vec![clear, spread], Vec::new())]
    }

    fn sparse(&self) -> bool {
        true
    }
}

fn check(tokens: &Tensor, table: &Tensor, padding: Option<usize>) -> Result<(), String> {
    if table.rank() != 2 || table.dtype() != DType::F32 {
        return Err(format!("the table is {}, not f32[rows, width]", table.desc()));
    }
    if tokens.dtype() != DType::U32 {
        return Err(format!("the indices are {}, not u32", tokens.desc()));
    }
    match (padding, table.shape()[0]) {
        (Some(padding), rows) if padding >= rows => {
            Err(format!("the padding row {padding} is not one of the {rows} rows"))
        }
        _ => Ok(()),
    }
}

impl Tensor {
    /// The rows of `table` [rows, width] that these u32 numbers name, as PyTorch's `embedding`: [..., width].
    ///
    /// The row `padding`, if there is one, gets no gradient in a training graph. Rows are summed in a fixed order where a
    /// number repeats. Written numbers are checked; one that a kernel computes gives NaN where there is no such row.
    #[track_caller]
    pub fn embedding(&self, table: &Tensor, padding: Option<usize>) -> Tensor {
        if let Err(message) = check(self, table, padding) {
            return self.graph().poison("embedding", message);
        }
        let width = table.shape()[1];
        let mut y = table.index_select(0, &self.reshape([self.elements()]));
        if let Some(padding) = padding.filter(|_| self.graph().is_training()) {
            let padded = self.eq(&self.graph().full_u32([], padding as u32));
            y = padded.reshape([self.elements(), 1]).where_(&y.detach(), &y);
        }
        y.reshape([self.shape(), &[width]].concat())
    }
}
