//! Ops that only move values. The gradient of each comes from [`movement_vjp`].

use super::{Array, axis};

/// How [`pad`] fills the border.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    Constant(f64),
    /// Mirrored at the edge, which is not repeated.
    Reflect,
    /// The edge's value.
    Replicate,
}

/// Axis `i` of the result is axis `dims[i]` of `x`.
pub fn permute(x: &Array, dims: &[i64]) -> Array {
    let dims: Vec<usize> = dims.iter().map(|&d| axis(d, x.rank())).collect();
    let shape: Vec<usize> = dims.iter().map(|&d| x.shape[d]).collect();
    Array::from_fn(shape, |index| {
        let mut source = vec![0; index.len()];
        index.iter().zip(&dims).for_each(|(&i, &d)| source[d] = i);
        x.at(&source)
    })
}

/// `x[start:end:step]` on every axis, `end` exclusive.
pub fn slice(x: &Array, start: &[usize], end: &[usize], step: &[usize]) -> Array {
    let shape: Vec<usize> = (0..x.rank()).map(|a| (end[a] - start[a]).div_ceil(step[a])).collect();
    Array::from_fn(shape, |index| {
        let source: Vec<usize> = index.iter().enumerate().map(|(a, &i)| start[a] + i * step[a]).collect();
        x.at(&source)
    })
}

pub fn concat(parts: &[&Array], dim: i64) -> Array {
    let dim = axis(dim, parts[0].rank());
    let mut shape = parts[0].shape.clone();
    shape[dim] = parts.iter().map(|p| p.shape[dim]).sum();
    Array::from_fn(shape, |index| {
        let mut index = index.to_vec();
        for part in parts {
            if index[dim] < part.shape[dim] {
                return part.at(&index);
            }
            index[dim] -= part.shape[dim];
        }
        unreachable!("an index within the sum of the parts")
    })
}

/// `amounts[axis]` is what to add before and after.
pub fn pad(x: &Array, amounts: &[[usize; 2]], fill: Fill) -> Array {
    let shape: Vec<usize> = x.shape.iter().zip(amounts).map(|(e, [before, after])| e + before + after).collect();
    Array::from_fn(shape, |index| {
        let mut source = vec![0; index.len()];
        for (a, &i) in index.iter().enumerate() {
            let (i, last) = (i as i64 - amounts[a][0] as i64, x.shape[a] as i64 - 1);
            source[a] = match fill {
                Fill::Constant(value) if i < 0 || i > last => return value,
                Fill::Constant(_) => i,
                Fill::Reflect if i < 0 => -i,
                Fill::Reflect if i > last => 2 * last - i,
                Fill::Reflect => i,
                Fill::Replicate => i.clamp(0, last),
            } as usize;
        }
        x.at(&source)
    })
}

/// PyTorch's order of padding amounts, last axis first, as `[before, after]` for each of `rank` axes.
pub fn pad_amounts(last_axis_first: &[usize], rank: usize) -> Vec<[usize; 2]> {
    let mut amounts = vec![[0; 2]; rank];
    let pairs = last_axis_first.chunks_exact(2);
    amounts.iter_mut().rev().zip(pairs).for_each(|(a, pair)| *a = [pair[0], pair[1]]);
    amounts
}

/// Whole slices of `x`: along `dim`, position i of the result is position `index[i]` of `x`.
pub fn index_select(x: &Array, dim: i64, index: &Array) -> Array {
    let dim = axis(dim, x.rank());
    let mut shape = x.shape.clone();
    shape[dim] = index.len();
    Array::from_fn(shape, |at| {
        let mut source = at.to_vec();
        source[dim] = index.data[at[dim]] as usize;
        x.at(&source)
    })
}

/// Single values: the result at `i` is `x` at `i` with its coordinate `dim` replaced by `index` at `i`.
pub fn gather(x: &Array, dim: i64, index: &Array) -> Array {
    let dim = axis(dim, x.rank());
    Array::from_fn(index.shape.clone(), |at| {
        let mut source = at.to_vec();
        source[dim] = index.at(at) as usize;
        x.at(&source)
    })
}

/// `[.., classes]`, 1 where the class is the label. A label outside 0..classes gives zeros.
pub fn one_hot(labels: &Array, classes: usize) -> Array {
    let mut shape = labels.shape.clone();
    shape.push(classes);
    Array::from_fn(shape, |at| {
        let (class, at) = at.split_last().expect("a class axis");
        f64::from(u8::from(labels.at(at) == *class as f64))
    })
}

/// Zero above the given diagonal of the last two axes.
pub fn tril(x: &Array, diagonal: i64) -> Array {
    Array::from_fn(x.shape.clone(), |at| {
        let (row, column) = (at[at.len() - 2] as i64, at[at.len() - 1] as i64);
        if column - row <= diagonal { x.at(at) } else { 0.0 }
    })
}

/// Reversed along each of `dims`.
pub fn flip(x: &Array, dims: &[i64]) -> Array {
    let dims: Vec<usize> = dims.iter().map(|&d| axis(d, x.rank())).collect();
    Array::from_fn(x.shape.clone(), |at| {
        let mut source = at.to_vec();
        dims.iter().for_each(|&d| source[d] = x.shape[d] - 1 - at[d]);
        x.at(&source)
    })
}

/// The gradient of an op that only moves, repeats or drops values, or puts zeros beside them.
///
/// The op is run on the numbers 1, 2, 3 ...: what comes out says where each output came from.
pub fn movement_vjp(op: impl Fn(&Array) -> Array, x_shape: &[usize], dy: &Array) -> Array {
    let mut dx = Array::zeros(x_shape);
    let labels = Array::new(x_shape, (1..=dx.len()).map(|i| i as f64).collect());
    let sources = op(&labels);
    assert_eq!(sources.shape, dy.shape);
    for (&source, &d) in sources.data.iter().zip(&dy.data) {
        if source != 0.0 {
            dx.data[source as usize - 1] += d;
        }
    }
    dx
}
