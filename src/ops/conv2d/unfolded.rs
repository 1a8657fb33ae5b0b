//! The gradient of a convolution's weights as a product of dense matrices (`shaders/conv2d_unfold.wgsl`).

use super::{Conv2d, Dims, Kind};
use crate::graph::{Arg, Candidate, Caps, Kernel};
use crate::ops::gemm::{self, Extents};
use crate::shader;

impl Conv2d {
    /// The arriving gradient, a row for each channel, times the windows, a row for each pixel: for CPU-like adapters, where
    /// loads and stores of dense rows pay for both of them being copied.
    pub(super) fn unfolded(&self, d: &Dims, caps: &Caps) -> Option<Candidate> {
        let taps = d.ci * d.kernel[0] * d.kernel[1];
        if self.kind != Kind::WeightGrad || !caps.cpu || d.groups != 1 || !taps.is_multiple_of(4) {
            return None;
        }
        let pixels = (d.batch * d.out[0] * d.out[1]).next_multiple_of(4);
        let sizes = [d.co * pixels, pixels * taps];
        if pixels == 0 || sizes.iter().any(|&size| 4 * size as u64 > caps.binding.min(caps.buffer) / 2) {
            return None;
        }
        let extents = Extents { batches: 1, m: d.co, n: taps, k: pixels };
        let product = gemm::dense(extents, [Arg::ScratchIn(0), Arg::ScratchIn(1), Arg::Out(0)], caps)?;
        let kernel = |entry, size: usize| {
            self.set(Kernel::new(shader!("conv2d_unfold.wgsl"), entry), d, self.before())
                .set("FLIP", self.options.flip)
                .set("BATCH", d.batch)
                .set("PIXELS", pixels)
                .set("TAPS", taps)
                .set("COUNT", size / 4)
                .grid(caps.fold((size / 4).div_ceil(64)))
        };
        let kernels = vec![
            kernel("by_channel", sizes[0]).bind([Arg::In(1), Arg::ScratchOut(0)]),
            kernel("unfold", sizes[1]).bind([Arg::In(0), Arg::ScratchOut(1)]),
            product,
        ];
        Some(Candidate::new("unfolded", kernels, sizes.map(|size| 4 * size).to_vec()))
    }
}
