//! 2-d convolution and its three gradients, all from one enumeration of the products that make it up.

use super::Array;

/// `x [N, C, H, W]`, `weight [O, C / groups, KH, KW]`, `y [N, O, HO, WO]`.
#[derive(Clone, Copy, Debug)]
pub struct Conv2d {
    pub stride: [usize; 2],
    /// Top, bottom, left, right.
    pub padding: [usize; 4],
    pub dilation: [usize; 2],
    pub groups: usize,
    /// Mathematical convolution: the kernel is turned by 180 degrees. Otherwise cross-correlation, as in PyTorch.
    pub flip: bool,
}

impl Default for Conv2d {
    fn default() -> Self {
        Conv2d { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1, flip: false }
    }
}

impl Conv2d {
    pub fn output_shape(&self, x: &[usize], weight: &[usize]) -> Vec<usize> {
        let extent = |axis: usize| {
            let padded = x[2 + axis] + self.padding[2 * axis] + self.padding[2 * axis + 1];
            let reach = self.dilation[axis] * (weight[2 + axis] - 1) + 1;
            assert!(padded >= reach, "kernel larger than the padded input");
            (padded - reach) / self.stride[axis] + 1
        };
        vec![x[0], weight[0], extent(0), extent(1)]
    }

    pub fn forward(&self, x: &Array, weight: &Array, bias: Option<&Array>) -> Array {
        let mut y = Array::zeros(self.output_shape(&x.shape, &weight.shape));
        self.each_product(&x.shape, &weight.shape, |yi, xi, wi| y.data[yi] += x.data[xi] * weight.data[wi]);
        if let Some(bias) = bias {
            let plane = y.shape[2] * y.shape[3];
            let channels = y.shape[1];
            y.data.iter_mut().enumerate().for_each(|(i, v)| *v += bias.data[i / plane % channels]);
        }
        y
    }

    pub fn grad_x(&self, dy: &Array, weight: &Array, x_shape: &[usize]) -> Array {
        let mut dx = Array::zeros(x_shape);
        self.each_product(x_shape, &weight.shape, |yi, xi, wi| dx.data[xi] += dy.data[yi] * weight.data[wi]);
        dx
    }

    pub fn grad_weight(&self, dy: &Array, x: &Array, weight_shape: &[usize]) -> Array {
        let mut dw = Array::zeros(weight_shape);
        self.each_product(&x.shape, weight_shape, |yi, xi, wi| dw.data[wi] += dy.data[yi] * x.data[xi]);
        dw
    }

    pub fn grad_bias(&self, dy: &Array) -> Array {
        dy.sum_to(&[1, dy.shape[1], 1, 1]).reshape([dy.shape[1]])
    }

    /// Calls `f` with the flat positions in y, x and weight of every product x * weight that is part of a y.
    fn each_product(&self, x: &[usize], w: &[usize], mut f: impl FnMut(usize, usize, usize)) {
        let y = self.output_shape(x, w);
        let (x_height, x_width, kernel_height, kernel_width) = (x[2], x[3], w[2], w[3]);
        assert_eq!(x[1], w[1] * self.groups, "channels");
        assert_eq!(w[0] % self.groups, 0, "groups");
        let outputs_per_group = w[0] / self.groups;
        let mut yi = 0;
        for n in 0..y[0] {
            for o in 0..y[1] {
                let group = o / outputs_per_group;
                for oy in 0..y[2] {
                    for ox in 0..y[3] {
                        for c in 0..w[1] {
                            let channel = n * x[1] + group * w[1] + c;
                            for ky in 0..kernel_height {
                                let iy = (oy * self.stride[0] + ky * self.dilation[0]).wrapping_sub(self.padding[0]);
                                if iy >= x_height {
                                    continue;
                                }
                                for kx in 0..kernel_width {
                                    let ix =
                                        (ox * self.stride[1] + kx * self.dilation[1]).wrapping_sub(self.padding[2]);
                                    if ix >= x_width {
                                        continue;
                                    }
                                    let (wy, wx) = match self.flip {
                                        true => (kernel_height - 1 - ky, kernel_width - 1 - kx),
                                        false => (ky, kx),
                                    };
                                    let wi = ((o * w[1] + c) * kernel_height + wy) * kernel_width + wx;
                                    f(yi, (channel * x_height + iy) * x_width + ix, wi);
                                }
                            }
                        }
                        yi += 1;
                    }
                }
            }
        }
    }
}
