//! A tensor in host memory.

use std::fmt;

use crate::{Error, Result};

/// Bytes per element: every [`HostType`] has 32 bits, as WGSL's scalars do.
pub(super) const ELEMENT: usize = 4;

/// The element type of a [`HostTensor`]: the three that a WGSL storage buffer holds everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostType {
    /// 32-bit IEEE 754 floating point.
    F32,
    /// 32-bit unsigned integer.
    U32,
    /// 32-bit two's complement integer.
    I32,
}

impl fmt::Display for HostType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostType::F32 => "f32",
            HostType::U32 => "u32",
            HostType::I32 => "i32",
        })
    }
}

/// A tensor in host memory: dense, row-major, last dimension fastest.
///
/// The fields are open so that bytes can move to and from a device without a copy; whoever fills them in keeps
/// `bytes.len()` equal to four times the product of `shape`. Saving checks that and returns an error where it does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTensor {
    /// The element type.
    pub dtype: HostType,
    /// The size of each dimension, slowest first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements, little-endian, four bytes each.
    pub bytes: Vec<u8>,
}

impl HostTensor {
    /// A tensor of `f32` from `values` in row-major order.
    ///
    /// # Errors
    /// [`Error::Argument`] if `values` has not as many elements as `shape` asks for.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Result<Self> {
        Self::build(HostType::F32, shape, bytemuck::cast_slice(values))
    }

    /// A tensor of `u32` from `values` in row-major order.
    ///
    /// # Errors
    /// As for [`HostTensor::from_f32`].
    pub fn from_u32(shape: &[usize], values: &[u32]) -> Result<Self> {
        Self::build(HostType::U32, shape, bytemuck::cast_slice(values))
    }

    /// A tensor of `i32` from `values` in row-major order.
    ///
    /// # Errors
    /// As for [`HostTensor::from_f32`].
    pub fn from_i32(shape: &[usize], values: &[i32]) -> Result<Self> {
        Self::build(HostType::I32, shape, bytemuck::cast_slice(values))
    }

    /// A tensor of `dtype` and `shape` over `bytes` (little-endian, four bytes per element), taken as they are.
    ///
    /// # Errors
    /// [`Error::Argument`] if `bytes` is not four times the product of `shape` long.
    pub fn from_bytes(dtype: HostType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self> {
        let tensor = Self { dtype, shape, bytes };
        tensor.validate("tensor")?;
        Ok(tensor)
    }

    /// The number of elements: the product of the shape, 1 for a scalar. Saturates rather than overflows.
    pub fn elements(&self) -> usize {
        elements(&self.shape).unwrap_or(usize::MAX)
    }

    /// The elements, if they are `f32`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the tensor is of another type or its bytes are not whole elements.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.cast(HostType::F32)
    }

    /// The elements, if they are `u32`.
    ///
    /// # Errors
    /// As for [`HostTensor::to_f32`].
    pub fn to_u32(&self) -> Result<Vec<u32>> {
        self.cast(HostType::U32)
    }

    /// The elements, if they are `i32`.
    ///
    /// # Errors
    /// As for [`HostTensor::to_f32`].
    pub fn to_i32(&self) -> Result<Vec<i32>> {
        self.cast(HostType::I32)
    }

    /// An error about `name` if the bytes are not what dtype and shape ask for.
    pub(super) fn validate(&self, name: &str) -> Result<()> {
        if elements(&self.shape).and_then(|n| n.checked_mul(ELEMENT)) == Some(self.bytes.len()) {
            return Ok(());
        }
        let (dtype, shape, len) = (self.dtype, &self.shape, self.bytes.len());
        Err(Error::argument(name, format!("{len} bytes do not fill {dtype} {shape:?}, {ELEMENT} bytes per element")))
    }

    fn build(dtype: HostType, shape: &[usize], bytes: &[u8]) -> Result<Self> {
        Self::from_bytes(dtype, shape.to_vec(), bytes.to_vec())
    }

    fn cast<T: bytemuck::Pod>(&self, wanted: HostType) -> Result<Vec<T>> {
        if self.dtype != wanted {
            return Err(Error::argument("tensor", format!("its elements are {}, not {wanted}", self.dtype)));
        }
        if !self.bytes.len().is_multiple_of(ELEMENT) {
            return Err(Error::argument("tensor", format!("its {} bytes are not whole elements", self.bytes.len())));
        }
        // Copies, because a `Vec<u8>` promises no alignment.
        Ok(bytemuck::pod_collect_to_vec(&self.bytes))
    }
}

/// The product of `shape`, if it fits.
fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive() {
        let t = HostTensor::from_f32(&[2, 2], &[1.0, -0.0, f32::INFINITY, 1e-45]).unwrap();
        assert_eq!(t.elements(), 4);
        assert_eq!(t.to_f32().unwrap().map_bits(), [1.0f32, -0.0, f32::INFINITY, 1e-45].to_vec().map_bits());
        assert_eq!(HostTensor::from_u32(&[], &[u32::MAX]).unwrap().to_u32().unwrap(), [u32::MAX]);
        assert_eq!(HostTensor::from_i32(&[1, 2], &[i32::MIN, 7]).unwrap().to_i32().unwrap(), [i32::MIN, 7]);
        assert_eq!(HostTensor::from_f32(&[3, 0], &[]).unwrap().to_f32().unwrap(), Vec::<f32>::new());
    }

    #[test]
    fn misfits_are_errors() {
        assert!(HostTensor::from_f32(&[3], &[1.0]).is_err());
        assert!(HostTensor::from_f32(&[usize::MAX, 2], &[1.0]).is_err());
        let t = HostTensor::from_i32(&[1], &[1]).unwrap();
        assert!(t.to_f32().unwrap_err().to_string().contains("i32, not f32"));
        let ragged = HostTensor { dtype: HostType::F32, shape: vec![1], bytes: vec![0; 3] };
        assert!(ragged.to_f32().is_err() && ragged.validate("w").unwrap_err().to_string().starts_with("w: 3 bytes"));
    }

    trait Bits {
        fn map_bits(self) -> Vec<u32>;
    }

    impl Bits for Vec<f32> {
        fn map_bits(self) -> Vec<u32> {
            self.into_iter().map(f32::to_bits).collect()
        }
    }
}
