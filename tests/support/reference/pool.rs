//! 2-d pooling over `[N, C, H, W]`.

use super::Array;

#[derive(Clone, Copy, Debug)]
pub struct MaxPool2d {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Rows above and below, columns left and right.
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
    pub ceil_mode: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct AvgPool2d {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub ceil_mode: bool,
    pub count_include_pad: bool,
    /// Divide by this instead of the size of the window.
    pub divisor: Option<usize>,
}

impl MaxPool2d {
    pub fn output_shape(&self, x: &[usize]) -> Vec<usize> {
        let reach = |a: usize| self.dilation[a] * (self.kernel[a] - 1) + 1;
        let extent = |a: usize| pooled(x[2 + a], reach(a), self.stride[a], self.padding[a], self.ceil_mode);
        vec![x[0], x[1], extent(0), extent(1)]
    }

    /// The maxima and their flat positions in the input plane. The first maximum of a window wins; a NaN beats all.
    pub fn forward(&self, x: &Array) -> (Array, Array) {
        let mut y = Array::full(self.output_shape(&x.shape), f64::NEG_INFINITY);
        let mut indices = Array::zeros(y.shape.clone());
        for o in 0..y.len() {
            let index = y.index_of(o);
            let mut first = true;
            for row in self.positions(&index, 0, x) {
                for column in self.positions(&index, 1, x) {
                    let value = x.at(&[index[0], index[1], row, column]);
                    if first || value > y.data[o] || (value.is_nan() && !y.data[o].is_nan()) {
                        y.data[o] = value;
                        indices.data[o] = (row * x.shape[3] + column) as f64;
                        first = false;
                    }
                }
            }
        }
        (y, indices)
    }

    pub fn grad(&self, x: &Array, dy: &Array) -> Array {
        let (_, indices) = self.forward(x);
        let mut dx = Array::zeros(x.shape.clone());
        let plane = x.shape[2] * x.shape[3];
        let outputs = dy.shape[2] * dy.shape[3];
        for o in 0..dy.len() {
            dx.data[o / outputs * plane + indices.data[o] as usize] += dy.data[o];
        }
        dx
    }

    /// The rows (axis 0) or columns (axis 1) of the window at `index` that lie inside the input.
    fn positions(&self, index: &[usize], axis: usize, x: &Array) -> Vec<usize> {
        let start = index[2 + axis] * self.stride[axis];
        let inside = |k: usize| (start + k * self.dilation[axis]).checked_sub(self.padding[axis]);
        (0..self.kernel[axis]).filter_map(inside).filter(|&i| i < x.shape[2 + axis]).collect()
    }
}

impl AvgPool2d {
    pub fn output_shape(&self, x: &[usize]) -> Vec<usize> {
        let extent = |a: usize| pooled(x[2 + a], self.kernel[a], self.stride[a], self.padding[a], self.ceil_mode);
        vec![x[0], x[1], extent(0), extent(1)]
    }

    pub fn forward(&self, x: &Array) -> Array {
        let mut y = Array::zeros(self.output_shape(&x.shape));
        self.each_term(&x.shape, |yi, xi, divisor| y.data[yi] += x.data[xi] / divisor);
        y
    }

    pub fn grad(&self, x_shape: &[usize], dy: &Array) -> Array {
        let mut dx = Array::zeros(x_shape);
        self.each_term(x_shape, |yi, xi, divisor| dx.data[xi] += dy.data[yi] / divisor);
        dx
    }

    /// Calls `f` with the flat positions of an output and of each input in its window, and the window's divisor.
    fn each_term(&self, x: &[usize], mut f: impl FnMut(usize, usize, f64)) {
        let shape = Array::zeros(self.output_shape(x));
        for o in 0..shape.len() {
            let index = shape.index_of(o);
            // Bounds in the padded plane. A window that hangs over the padding's far edge is cut off there.
            let bounds = |a: usize| {
                let start = index[2 + a] * self.stride[a];
                (start, (start + self.kernel[a]).min(x[2 + a] + 2 * self.padding[a]))
            };
            let inside = |a: usize| {
                let (start, end) = bounds(a);
                let real = self.padding[a]..self.padding[a] + x[2 + a];
                (start..end).filter(|i| real.contains(i)).map(|i| i - self.padding[a]).collect::<Vec<_>>()
            };
            let (rows, columns) = (inside(0), inside(1));
            let divisor = match self.divisor {
                Some(divisor) => divisor,
                None if self.count_include_pad => (0..2).map(|a| bounds(a).1 - bounds(a).0).product(),
                None => rows.len() * columns.len(),
            };
            for row in &rows {
                for column in &columns {
                    let plane = index[0] * x[1] + index[1];
                    f(o, (plane * x[2] + row) * x[3] + column, divisor as f64);
                }
            }
        }
    }
}

/// How many windows fit. With `ceil_mode` one more may hang over the end, if it starts in the input or the padding before.
fn pooled(extent: usize, reach: usize, stride: usize, padding: usize, ceil_mode: bool) -> usize {
    let room = extent + 2 * padding - reach;
    if !ceil_mode {
        return room / stride + 1;
    }
    let windows = room.div_ceil(stride) + 1;
    if (windows - 1) * stride >= extent + padding { windows - 1 } else { windows }
}
