//! What is known of a tensor before any device is: its shape and element type.

use half::f16;
use half::slice::HalfFloatSliceExt;
use std::fmt;
use std::ops::Deref;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float: data, weights, gradients; comparisons give 0.0 and 1.0.
    F32,
    /// Unsigned integer: class labels, indices.
    U32,
    /// Signed integer.
    I32,
    /// IEEE 754's 16-bit float, two to a word of 32 bits, on every device: weights and activations at half the memory.
    /// Matrix products read it and sum in f32 ([`Tensor::matmul`](super::Tensor::matmul)); other ops take its
    /// [`cast`](super::Tensor::cast) to f32, which is free where it is read by a pointwise op. Its gradients are f32.
    F16,
}

impl DType {
    /// The WGSL scalar type of an element in a register.
    pub fn wgsl(self) -> &'static str {
        match self {
            DType::F32 | DType::F16 => "f32",
            DType::U32 => "u32",
            DType::I32 => "i32",
        }
    }

    /// Whether gradients flow through it.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16)
    }

    /// The words of 32 bits that hold these floats; f16 rounds them, to infinity beyond 65,519.
    pub(crate) fn words(self, values: &[f32]) -> Vec<u32> {
        if self != DType::F16 {
            return bytemuck::pod_collect_to_vec(values);
        }
        let mut halves = vec![f16::ZERO; values.len().next_multiple_of(2)];
        halves[..values.len()].convert_from_f32_slice(values);
        halves.chunks_exact(2).map(|pair| u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16).collect()
    }

    /// The first `elements` floats that these words hold.
    pub(crate) fn floats(self, words: &[u32], elements: usize) -> Vec<f32> {
        let half = |bits: u32| f16::from_bits(bits as u16).to_f32();
        let mut floats: Vec<f32> = match self {
            DType::F16 => words.iter().flat_map(|&word| [half(word), half(word >> 16)]).collect(),
            _ => words.iter().map(|&word| f32::from_bits(word)).collect(),
        };
        floats.truncate(elements);
        floats
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == DType::F16 { "f16" } else { self.wgsl() })
    }
}

/// The extents of a tensor, outermost first; a scalar has none.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// The number of elements: 1 for a scalar. Saturates for a shape that is too large for any device.
    pub fn elements(&self) -> usize {
        self.0.iter().fold(1, |product, &n| product.saturating_mul(n))
    }

    /// Whether 32 bits count the elements and every stride, as kernels do.
    pub(crate) fn is_countable(&self) -> bool {
        self.0.iter().fold(1, |product: usize, &n| product.saturating_mul(n.max(1))) <= u32::MAX as usize
    }

    /// Elements between neighbours along each axis, in row-major order.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.0.len()];
        for axis in (1..self.0.len()).rev() {
            strides[axis - 1] = strides[axis] * self.0[axis];
        }
        strides
    }

    /// NumPy's broadcasting: aligned at the last axis, an extent of 1 stretches.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.len().max(other.len());
        let extent = |shape: &Shape, axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
        (0..rank)
            .map(|axis| match (extent(self, axis), extent(other, axis)) {
                (a, b) if a == b => Some(a),
                (1, b) => Some(b),
                (a, 1) => Some(a),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Shape)
    }

    /// The place of axis `dim`, which may count from the end (-1 is the last).
    pub fn axis(&self, dim: isize) -> Result<usize, String> {
        let rank = self.len() as isize;
        let axis = if dim < 0 { dim + rank } else { dim };
        if (0..rank).contains(&axis) {
            Ok(axis as usize)
        } else {
            Err(format!("dim {dim} is out of range for the shape {self}"))
        }
    }

    /// [`Shape::axis`] for several; none twice; no dims means all axes. Sorted.
    pub fn axes(&self, dims: &[isize]) -> Result<Vec<usize>, String> {
        if dims.is_empty() {
            return Ok((0..self.len()).collect());
        }
        let mut axes = dims.iter().map(|&d| self.axis(d)).collect::<Result<Vec<_>, _>>()?;
        axes.sort_unstable();
        if axes.windows(2).any(|w| w[0] == w[1]) {
            return Err(format!("an axis is named twice in {dims:?}"));
        }
        Ok(axes)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(extents: [usize; N]) -> Self {
        Shape(extents.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(extents: Vec<usize>) -> Self {
        Shape(extents)
    }
}

impl From<&[usize]> for Shape {
    fn from(extents: &[usize]) -> Self {
        Shape(extents.to_vec())
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        shape.clone()
    }
}

/// Shape and element type of one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Desc {
    /// The extents.
    pub shape: Shape,
    /// The element type.
    pub dtype: DType,
}

impl Desc {
    /// A description from its parts.
    pub fn new(shape: impl Into<Shape>, dtype: DType) -> Self {
        Desc { shape: shape.into(), dtype }
    }

    /// An f32 tensor of this shape.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        Desc::new(shape, DType::F32)
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.elements()
    }

    /// What is wrong with a tensor that is too large for any device.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.shape.is_countable() {
            true => Ok(()),
            false => Err(format!("{self} has too many elements: more than 32 bits can count")),
        }
    }

    /// The number of words of 32 bits that hold the data.
    pub fn words(&self) -> usize {
        if self.dtype == DType::F16 { self.elements().div_ceil(2) } else { self.elements() }
    }

    /// The size of the data in bytes, in whole words.
    pub fn bytes(&self) -> usize {
        self.words().saturating_mul(4)
    }
}

impl fmt::Display for Desc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        let broadcast = |a: &[usize], b: &[usize]| Shape::from(a).broadcast(&Shape::from(b)).map(|s| s.to_vec());
        assert_eq!(broadcast(&[3, 1], &[4]), Some(vec![3, 4]));
        assert_eq!(broadcast(&[], &[2, 5]), Some(vec![2, 5]));
        assert_eq!(broadcast(&[2, 1, 7], &[5, 1]), Some(vec![2, 5, 7]));
        assert_eq!(broadcast(&[2], &[3]), None);
        assert_eq!(broadcast(&[0, 1], &[4]), Some(vec![0, 4]));
    }

    #[test]
    fn halves_are_packed_in_pairs() {
        let values = [1.0, -2.5, 65_504.0, 1e6, 0.1];
        let words = DType::F16.words(&values);
        assert_eq!(words[..2], [0xc100_3c00, 0x7c00_7bff]);
        let back = DType::F16.floats(&words, 5);
        assert_eq!(back[..4], [1.0, -2.5, 65_504.0, f32::INFINITY]);
        assert!((back[4] - 0.1).abs() < 3e-5 && back.len() == 5);
        let desc = Desc::new([5], DType::F16);
        assert_eq!((desc.words(), desc.bytes(), desc.to_string().as_str()), (3, 12, "f16[5]"));
    }

    #[test]
    fn axes_count_from_the_end_and_are_checked() {
        let shape = Shape::from([2, 3, 4]);
        assert_eq!(shape.axes(&[-1, 0]), Ok(vec![0, 2]));
        assert!(shape.axes(&[3]).is_err());
        assert!(shape.axes(&[1, -2]).is_err());
        assert_eq!(shape.strides(), [12, 4, 1]);
    }
}
