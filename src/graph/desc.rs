//! What is known of a tensor before any device is: its shape and element type.

use std::fmt;
use std::ops::Deref;

/// Element type of a tensor; all are four bytes wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float: data, weights, gradients; comparisons give 0.0 and 1.0.
    F32,
    /// Unsigned integer: class labels, indices.
    U32,
    /// Signed integer.
    I32,
}

impl DType {
    /// The WGSL scalar type.
    pub fn wgsl(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::U32 => "u32",
            DType::I32 => "i32",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wgsl())
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

    /// The size of the data in bytes.
    pub fn bytes(&self) -> usize {
        self.elements().saturating_mul(4)
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
    fn axes_count_from_the_end_and_are_checked() {
        let shape = Shape::from([2, 3, 4]);
        assert_eq!(shape.axes(&[-1, 0]), Ok(vec![0, 2]));
        assert!(shape.axes(&[3]).is_err());
        assert!(shape.axes(&[1, -2]).is_err());
        assert_eq!(shape.strides(), [12, 4, 1]);
    }
}
