//! The gradient of a convolution's input at a stride, as a convolution at stride 1 (`shaders/conv2d_phases.wgsl`).

use super::{Conv2d, Conv2dOptions, Dims, Kind, Weights};
use crate::graph::{Arg, Candidate, Caps, Kernel};
use crate::shader;

/// The phases of the input's rows, or of its columns.
struct Side {
    /// Taps of their kernels.
    taps: usize,
    /// Extent of their images.
    extent: usize,
    /// Whether each phase's image begins with its own first pixel, which makes them as short as can be.
    aligned: bool,
    /// Pixels of a phase in the padding before the first phase's image.
    start: usize,
}

impl Side {
    fn new(taps: usize, stride: usize, padding: usize, extent: usize) -> Self {
        let shortest = taps.div_ceil(stride);
        let start = |phase: usize| (padding + stride - 1 - phase) / stride;
        let reach = |phase: usize| taps.saturating_sub(phase).div_ceil(stride) + start(0) - start(phase);
        // Where they begin apart, their kernels do, too, and may have to be longer.
        if (0..stride).all(|phase| reach(phase) <= shortest) {
            return Side { taps: shortest, extent: extent.div_ceil(stride), aligned: true, start: start(0) };
        }
        let (start, end) = (padding / stride, (extent - 1 + padding) / stride);
        Side { taps: shortest, extent: end - start + 1, aligned: false, start }
    }
}

impl Conv2d {
    /// All phases by `rows`, which leaves them apart, so that they are put together behind it.
    pub(super) fn phases(&self, d: &Dims, caps: &Caps) -> Option<Candidate> {
        let Conv2dOptions { stride, dilation, before, groups, .. } = self.options;
        let phases = stride[0] * stride[1];
        if self.kind != Kind::InputGrad || phases == 1 || dilation != [1, 1] || d.kernel == [1, 1] {
            return None;
        }
        let sides = [0, 1].map(|side| Side::new(d.kernel[side], stride[side], before[side], d.image[side]));
        let (taps, out) = (sides.each_ref().map(|s| s.taps), sides.each_ref().map(|s| s.extent));
        let apart = Dims { ci: d.co, co: phases * d.ci, image: d.out, out, kernel: taps, ..*d };
        let channels = groups * apart.co;
        let sizes = [channels * d.co * taps[0] * taps[1], d.batch * channels * out[0] * out[1]];
        // Long strides are products with few zeros, and what is apart has to fit into a binding.
        if phases > 16 || sizes.iter().any(|&size| 4 * size as u64 > caps.binding.min(caps.buffer) / 2) {
            return None;
        }
        let weights = Weights { strides: [d.co * taps[0] * taps[1], taps[0] * taps[1], taps[1], 1], start: 0 };
        let padding = sides.each_ref().map(|s| (s.taps - 1) as isize - s.start as isize);
        let dense = Conv2d { options: Conv2dOptions::new().groups(groups), kind: Kind::Forward, result: None };
        let rows = dense.rows_of((apart, padding, weights), caps)?;
        let kernel = |entry, count: usize, invocations: usize| {
            self.set(Kernel::new(shader!("conv2d_phases.wgsl"), entry), d, self.before())
                .set("FLIP", self.options.flip)
                .set("COUNT", count)
                .set("TH", taps[0])
                .set("TW", taps[1])
                .set("QH", out[0])
                .set("QW", out[1])
                .set("ALIGNED_H", sides[0].aligned)
                .set("ALIGNED_W", sides[1].aligned)
                .grid(caps.fold(invocations.div_ceil(64)))
        };
        let count = d.batch * groups * d.ci * d.image[0] * d.image[1];
        let kernels = vec![
            kernel("phase_kernels", sizes[0], sizes[0]).bind([Arg::In(1), Arg::ScratchOut(0)]),
            rows.bind([Arg::In(0), Arg::ScratchIn(0), Arg::ScratchOut(1)]),
            kernel("interleave", count, count.div_ceil(4)).bind([Arg::ScratchIn(1), Arg::Out(0)]),
        ];
        Some(Candidate::new("phases", kernels, sizes.map(|size| 4 * size).to_vec()))
    }
}
