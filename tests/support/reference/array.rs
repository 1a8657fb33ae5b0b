//! A dense row-major array of f64, and NumPy's broadcasting.

/// Row-major; a scalar has shape `[]` and one value.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Array {
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "shape {shape:?} and data differ");
        Array { shape, data }
    }

    pub fn from_f32(shape: impl Into<Vec<usize>>, data: &[f32]) -> Self {
        Array::new(shape, data.iter().map(|&v| f64::from(v)).collect())
    }

    /// An array whose value at each index is `f(index)`.
    pub fn from_fn(shape: impl Into<Vec<usize>>, mut f: impl FnMut(&[usize]) -> f64) -> Self {
        let mut out = Array::zeros(shape);
        for i in 0..out.len() {
            out.data[i] = f(&out.index_of(i));
        }
        out
    }

    pub fn full(shape: impl Into<Vec<usize>>, value: f64) -> Self {
        let shape = shape.into();
        let len = shape.iter().product();
        Array { shape, data: vec![value; len] }
    }

    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        Array::full(shape, 0.0)
    }

    pub fn scalar(value: f64) -> Self {
        Array::new([], vec![value])
    }

    /// Rounded to f32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.data.iter().map(|&v| v as f32).collect()
    }

    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    pub fn reshape(mut self, shape: impl Into<Vec<usize>>) -> Self {
        self.shape = shape.into();
        assert_eq!(self.shape.iter().product::<usize>(), self.len(), "reshape to {:?}", self.shape);
        self
    }

    pub fn map(&self, f: impl FnMut(f64) -> f64) -> Self {
        Array { shape: self.shape.clone(), data: self.data.iter().copied().map(f).collect() }
    }

    /// Element by element; the shapes must be equal.
    pub fn zip(&self, other: &Array, mut f: impl FnMut(f64, f64) -> f64) -> Self {
        assert_eq!(self.shape, other.shape);
        let data = self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect();
        Array { shape: self.shape.clone(), data }
    }

    pub fn sum(&self) -> f64 {
        self.data.iter().sum()
    }

    /// Sum of products with an array of the same length.
    pub fn dot(&self, other: &Array) -> f64 {
        assert_eq!(self.len(), other.len());
        self.data.iter().zip(&other.data).map(|(a, b)| a * b).sum()
    }

    /// The multi-index of a flat position.
    pub fn index_of(&self, mut flat: usize) -> Vec<usize> {
        let mut index = vec![0; self.rank()];
        for (i, &extent) in index.iter_mut().zip(&self.shape).rev() {
            *i = flat % extent;
            flat /= extent;
        }
        index
    }

    /// The flat position of a multi-index.
    pub fn flat(&self, index: &[usize]) -> usize {
        assert_eq!(index.len(), self.rank());
        index.iter().zip(&self.shape).fold(0, |flat, (&i, &extent)| {
            assert!(i < extent, "index {index:?} outside shape {:?}", self.shape);
            flat * extent + i
        })
    }

    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[self.flat(index)]
    }

    pub fn at_mut(&mut self, index: &[usize]) -> &mut f64 {
        let flat = self.flat(index);
        &mut self.data[flat]
    }

    /// The value that broadcasting to a shape of higher or equal rank puts at `index` of that shape.
    pub fn at_broadcast(&self, index: &[usize]) -> f64 {
        self.data[self.flat_broadcast(index)]
    }

    fn flat_broadcast(&self, index: &[usize]) -> usize {
        let tail = &index[index.len() - self.rank()..];
        tail.iter().zip(&self.shape).fold(0, |flat, (&i, &extent)| flat * extent + if extent == 1 { 0 } else { i })
    }

    pub fn broadcast_to(&self, shape: &[usize]) -> Self {
        assert_eq!(broadcast_shape(&self.shape, shape).as_deref(), Some(shape), "{:?} to {shape:?}", self.shape);
        Array::from_fn(shape, |index| self.at_broadcast(index))
    }

    /// The adjoint of [`Array::broadcast_to`]: sums over the axes that broadcasting from `shape` repeated.
    pub fn sum_to(&self, shape: &[usize]) -> Self {
        let mut out = Array::zeros(shape);
        for i in 0..self.len() {
            let target = out.flat_broadcast(&self.index_of(i));
            out.data[target] += self.data[i];
        }
        out
    }
}

/// NumPy's rule: align at the right, an extent of 1 stretches. `None` if the shapes don't fit.
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let extent = |s: &[usize], i: usize| if i + s.len() >= rank { s[i + s.len() - rank] } else { 1 };
    (0..rank)
        .map(|i| match (extent(a, i), extent(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// A possibly negative axis, counted from the front.
pub fn axis(dim: i64, rank: usize) -> usize {
    let axis = if dim < 0 { dim + rank as i64 } else { dim };
    assert!((0..rank as i64).contains(&axis), "axis {dim} of rank {rank}");
    axis as usize
}
