//! Two-dimensional convolution and its two gradients, each of which is bilinear and so has the others for gradients.

mod phases;
mod unfolded;

use super::gemm::{self, Extents, Layout};
use super::winograd;
use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, Op, Shader, Tensor};
use crate::shader;

/// Stride, padding, dilation (each `[height, width]`) and groups of a convolution.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dOptions {
    stride: [usize; 2],
    before: [usize; 2],
    after: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
    flip: bool,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions { stride: [1; 2], before: [0; 2], after: [0; 2], dilation: [1; 2], groups: 1, flip: false }
    }
}

impl Conv2dOptions {
    /// Stride 1, no padding, no dilation, one group, cross-correlation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Input pixels from one output to the next.
    pub fn stride(mut self, stride: [usize; 2]) -> Self {
        self.stride = stride;
        self
    }

    /// Zeros on both sides.
    pub fn padding(mut self, padding: [usize; 2]) -> Self {
        (self.before, self.after) = (padding, padding);
        self
    }

    /// Zeros before (top, left) and after (bottom, right), where they differ.
    pub fn padding_each(mut self, before: [usize; 2], after: [usize; 2]) -> Self {
        (self.before, self.after) = (before, after);
        self
    }

    /// Input pixels from one tap to the next.
    pub fn dilation(mut self, dilation: [usize; 2]) -> Self {
        self.dilation = dilation;
        self
    }

    /// Groups of channels that do not see each other; as many as channels makes the convolution depthwise.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Convolution in the mathematical sense, `y[p] = sum over t of x[p - t] w[t]`: the kernel is flipped in both
    /// axes. Without it the operation is the cross-correlation that deep learning calls convolution.
    pub fn flipped(mut self, flip: bool) -> Self {
        self.flip = flip;
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Forward,
    InputGrad,
    WeightGrad,
}

/// y from (x, w) or (x, w, bias), dx from (dy, w), or dw from (x, dy).
#[derive(Debug)]
struct Conv2d {
    kind: Kind,
    options: Conv2dOptions,
    /// For the gradients: what they are the gradient of.
    result: Option<Desc>,
}

/// Every extent of one convolution.
#[derive(Clone, Copy)]
pub(super) struct Dims {
    pub(super) batch: usize,
    pub(super) groups: usize,
    /// Input channels of a group.
    pub(super) ci: usize,
    /// Output channels of a group.
    pub(super) co: usize,
    pub(super) image: [usize; 2],
    pub(super) out: [usize; 2],
    pub(super) kernel: [usize; 2],
}

/// Where the weights of a convolution lie that may be one of another's gradients.
pub(super) struct Weights {
    /// Elements between neighbouring output channels, input channels, rows and columns; negative ones wrap around.
    strides: [usize; 4],
    start: usize,
}

impl Weights {
    pub(super) fn set(&self, kernel: Kernel) -> Kernel {
        let names = ["W_OUT", "W_IN", "W_Y", "W_X"];
        let kernel =
            names.into_iter().zip(self.strides).fold(kernel, |kernel, (name, stride)| kernel.set(name, stride));
        kernel.set("W_START", self.start)
    }
}

impl Conv2d {
    fn forward(options: &Conv2dOptions, x: &Desc, w: &Desc) -> Result<Desc, String> {
        let groups = options.groups;
        if x.shape.len() != 4 || w.shape.len() != 4 || x.dtype != DType::F32 || w.dtype != DType::F32 {
            return Err(format!(
                "it needs f32 images [N, C, H, W] and weights [out, in / groups, kh, kw], not {x} and {w}"
            ));
        }
        if groups == 0
            || !x.shape[1].is_multiple_of(groups)
            || !w.shape[0].is_multiple_of(groups)
            || x.shape[1] / groups != w.shape[1]
        {
            return Err(format!("the channels of {x} and the weights {w} do not fit for {groups} groups"));
        }
        let mut shape = vec![x.shape[0], w.shape[0]];
        for side in 0..2 {
            let (k, s, d) = (w.shape[2 + side], options.stride[side], options.dilation[side]);
            if k == 0 || s == 0 || d == 0 {
                return Err("kernel size, stride and dilation must be at least 1".into());
            }
            let padding = [options.before[side], options.after[side]];
            let (reach, extent) = gemm::reach(k, d, x.shape[2 + side], padding)?;
            if extent < reach {
                return Err(format!("the kernel reaches {reach}, but the padded image is only {extent} ({x}, {w})"));
            }
            shape.push((extent - reach) / s + 1);
        }
        Ok(Desc::f32(shape))
    }

    #[track_caller]
    fn of(self, inputs: [&Tensor; 2]) -> Tensor {
        let graph = inputs[0].graph();
        match self.outputs(&inputs.map(|t| t.desc().clone())) {
            // A sum of no products needs no kernel.
            Ok(outputs) if inputs.iter().any(|t| t.elements() == 0) => graph.full(&outputs[0].shape, 0.0),
            _ => graph.push1(self, &inputs),
        }
    }

    fn dims(&self, io: &Io<'_>) -> Dims {
        let (x, w, y) = match self.kind {
            Kind::Forward => (&io.inputs[0], &io.inputs[1], &io.outputs[0]),
            Kind::InputGrad => (&io.outputs[0], &io.inputs[1], &io.inputs[0]),
            Kind::WeightGrad => (&io.inputs[0], &io.outputs[0], &io.inputs[1]),
        };
        Dims {
            batch: x.shape[0],
            groups: self.options.groups,
            ci: w.shape[1],
            co: w.shape[0] / self.options.groups,
            image: [x.shape[2], x.shape[3]],
            out: [y.shape[2], y.shape[3]],
            kernel: [w.shape[2], w.shape[3]],
        }
    }

    /// The extents as constants of a shader; `padding` may be negative and then wraps around.
    fn set(&self, kernel: Kernel, d: &Dims, padding: [isize; 2]) -> Kernel {
        kernel
            .set("GROUPS", d.groups)
            .set("CI", d.ci)
            .set("CO", d.co)
            .set("H", d.image[0])
            .set("W", d.image[1])
            .set("HO", d.out[0])
            .set("WO", d.out[1])
            .set("KH", d.kernel[0])
            .set("KW", d.kernel[1])
            .set("SH", self.options.stride[0])
            .set("SW", self.options.stride[1])
            .set("DH", self.options.dilation[0])
            .set("DW", self.options.dilation[1])
            .set("PH", padding[0] as i32 as u32)
            .set("PW", padding[1] as i32 as u32)
    }

    fn before(&self) -> [isize; 2] {
        self.options.before.map(|p| p as isize)
    }

    /// As an implicit matrix product.
    fn gemm(&self, d: &Dims, bias: bool, caps: &Caps) -> Vec<Candidate> {
        let taps = d.kernel[0] * d.kernel[1];
        let (pixels, outs) = (d.batch * d.image[0] * d.image[1], d.batch * d.out[0] * d.out[1]);
        let (shader, m, n, k, along): (Shader, _, _, _, _) = match self.kind {
            Kind::Forward => (shader!("conv2d_forward.wgsl"), d.co, outs, d.ci * taps, [true, false]),
            Kind::InputGrad => (shader!("conv2d_input_grad.wgsl"), d.ci, pixels, d.co * taps, [true, false]),
            Kind::WeightGrad => (shader!("conv2d_weight_grad.wgsl"), d.co, d.ci * taps, outs, [true, true]),
        };
        let make = |entry| {
            let kernel = self
                .set(Kernel::new(shader, entry), d, self.before())
                .set("FLIP", self.options.flip)
                .set("A_ALONG_K", along[0])
                .set("B_ALONG_K", along[1]);
            if bias { with_bias(kernel) } else { kernel }
        };
        let behind: &[Arg] = if bias { &[Arg::In(2)] } else { &[] };
        // Of the operands, the weights alone lie as they are needed.
        let whole = self.kind == Kind::Forward && !self.options.flip && k.is_multiple_of(4);
        let layouts = [(along[0], whole), (along[1], false)].map(|(along_k, whole)| Layout { along_k, whole });
        gemm::candidates(make, Extents { batches: d.groups, m, n, k }, layouts, behind, caps)
    }

    /// What is computed, forward or (at stride 1) for the input's gradient, as a forward convolution: its extents, padding
    /// before and weights.
    fn forwards(&self, d: &Dims) -> Option<(Dims, [isize; 2], Weights)> {
        let [kh, kw] = d.kernel;
        let (mut out, mut into, mut flip) = (d.ci * kh * kw, kh * kw, self.options.flip);
        let (mut d, mut padding) = (*d, self.before());
        if self.kind == Kind::InputGrad {
            if self.options.stride != [1, 1] {
                return None;
            }
            (out, into, flip) = (into, out, !flip);
            for (side, p) in padding.iter_mut().enumerate() {
                *p = (self.options.dilation[side] * (d.kernel[side] - 1)) as isize - *p;
            }
            d = Dims { ci: d.co, co: d.ci, image: d.out, out: d.image, ..d };
        }
        let turn = |stride: usize| if flip { stride.wrapping_neg() } else { stride };
        let weights = Weights { strides: [out, into, turn(kw), turn(1)], start: if flip { kh * kw - 1 } else { 0 } };
        Some((d, padding, weights))
    }

    /// By minimal filtering, with tiles of `tile` x `tile` results.
    fn winograd(&self, tile: usize, d: &Dims, bias: bool, caps: &Caps) -> Option<Candidate> {
        if self.kind == Kind::WeightGrad || self.options.stride != [1, 1] || self.options.dilation != [1, 1] {
            return None;
        }
        let (d, padding, weights) = self.forwards(d)?;
        winograd::candidate(tile, &d, &weights, |kernel| self.set(kernel, &d, padding), bias, caps)
    }

    /// Whether there are so few output channels, or of a gradient input channels, that most of a tile would be idle.
    fn is_few(&self, d: &Dims) -> bool {
        8 >= if self.kind == Kind::InputGrad { d.ci } else { d.co }
    }

    /// The register-blocked kernel for CPU-like adapters and few channels, forward or (at stride 1) for the input's
    /// gradient.
    fn rows(&self, d: &Dims, bias: bool, caps: &Caps) -> Option<Candidate> {
        let kernel = self.rows_of(self.forwards(d)?, caps)?.bind([Arg::In(0), Arg::In(1), Arg::Out(0)]);
        Some(Candidate::single("rows", if bias { with_bias(kernel).bind([Arg::In(2)]) } else { kernel }))
    }

    /// The same without bindings: images, weights and results.
    fn rows_of(&self, (d, padding, weights): (Dims, [isize; 2], Weights), caps: &Caps) -> Option<Kernel> {
        let [width, lanes] = workgroup(caps);
        let (channels, pixels) =
            if caps.cpu { self.block(&d, padding[1], lanes)? } else { (d.co.next_power_of_two().min(4), 4) };
        if self.span(&d, pixels) > 64 {
            return None;
        }
        let tiles = (d.batch * d.out[0] * d.out[1].div_ceil(pixels)).div_ceil(width);
        let mut kernel = weights
            .set(self.set(Kernel::new(shader!("conv2d_rows.wgsl"), "rows"), &d, padding))
            .set("BATCH", d.batch)
            .set("CHANNELS", channels)
            .set("PIXELS", pixels)
            .set("WIDTH", width)
            .set("LANES", lanes)
            .grid(caps.fold(tiles * d.co.div_ceil(channels) * d.groups));
        if let Some(offset) = self.quads(d.image[1], pixels, padding[1]) {
            kernel = kernel.choose("row_pixels", "row_pixels_by_four").set("OFFSET", offset);
        }
        if d.out[1].is_multiple_of(4) && pixels.is_multiple_of(4) {
            kernel = kernel.choose("put_row", "put_row_by_four");
        }
        if lanes > 1 {
            kernel = kernel.replace("from_lane", gemm::SHUFFLE);
        }
        Some(kernel)
    }

    /// For the input's gradient at a larger stride: the output's gradient with zeros between its pixels, then `rows` at
    /// stride 1. The zeros are multiplied, too, but a row of pixels is shared by all taps.
    fn spread_rows(&self, d: &Dims, caps: &Caps) -> Option<Candidate> {
        let stride = self.options.stride;
        if self.kind != Kind::InputGrad || stride == [1, 1] || d.out.contains(&0) {
            return None;
        }
        let [h, w] = [0, 1].map(|side| (d.out[side] - 1) * stride[side] + 1);
        let count = d.batch * d.groups * d.co * h * w;
        // Long strides would multiply little but zeros, and the spread gradient has to fit into a binding.
        let most = caps.binding.min(caps.buffer) / 2;
        if stride[0] * stride[1] > 4 || 4 * count as u64 > most {
            return None;
        }
        let spread = Kernel::new(shader!("conv2d_spread.wgsl"), "spread")
            .set("COUNT", count)
            .set("H", h)
            .set("W", w)
            .set("HO", d.out[0])
            .set("WO", d.out[1])
            .set("SH", stride[0])
            .set("SW", stride[1])
            .bind([Arg::In(0), Arg::ScratchOut(0)])
            .grid(caps.fold(count.div_ceil(4 * 64)));
        let dense = Conv2d { options: self.options.clone().stride([1, 1]), kind: self.kind, result: None };
        let rows = dense.rows_of(dense.forwards(&Dims { out: [h, w], ..*d })?, caps)?;
        let rows = rows.bind([Arg::ScratchIn(0), Arg::In(1), Arg::Out(0)]);
        Some(Candidate::new("spread_rows", vec![spread, rows], vec![count.next_multiple_of(4) * 4]))
    }

    /// Channels and pixels per lane: the block with the least work for each useful product, within the registers.
    fn block(&self, d: &Dims, padding: isize, lanes: usize) -> Option<(usize, usize)> {
        let (kw, co, width) = (d.kernel[1], d.co, d.out[1]);
        let mut best: Option<(f64, (usize, usize))> = None;
        for channels in [1, 2, 4, 8, 12, 16].into_iter().filter(|c| *c <= most_channels(d)) {
            for pixels in [1, 2, 4, 7, 8, 12, 14, 16, 28] {
                let span = self.span(d, pixels);
                let products = channels * pixels * kw;
                if channels * pixels > 112 || products > 1200 || span > 64 {
                    continue;
                }
                // In units of a multiply-add: a load costs sixteen, of four neighbours as much as of one, a sum that goes
                // through the loop two, the loop itself forty; and a large body is slow to compile.
                let loads = self.quads(d.image[1], pixels, padding).map_or(span, |offset| (offset + span).div_ceil(4));
                let loads = loads + (channels * kw).div_ceil(lanes);
                let turn = (products + channels * kw + 2 * channels * pixels + 16 * loads + 40) as f64;
                // At last each result is picked out of its lane's, and stored, in pairs where rows are vec4s.
                let stored = if width.is_multiple_of(4) && pixels.is_multiple_of(4) { 10 } else { 20 };
                let work = turn + (channels * pixels * (channels + stored)) as f64 / (d.ci * d.kernel[0]) as f64;
                let done = (co.div_ceil(channels) * channels * width.div_ceil(pixels) * pixels) as f64;
                let waste = done / (co * width) as f64;
                let cost = work * waste / products as f64 * (1.0 + products as f64 / 1e4);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, (channels, pixels)));
                }
            }
        }
        best.map(|(_, block)| block)
    }

    /// Input pixels of a row that as many neighbouring results need.
    fn span(&self, d: &Dims, pixels: usize) -> usize {
        (pixels - 1) * self.options.stride[1] + (d.kernel[1] - 1) * self.options.dilation[1] + 1
    }

    /// Where a row of pixels begins in its first vec4, if rows are loaded in whole vec4s.
    fn quads(&self, width: usize, pixels: usize, padding: isize) -> Option<usize> {
        let whole = width.is_multiple_of(4) && pixels.is_multiple_of(4) && self.options.stride[1] == 1;
        whole.then(|| (-padding).rem_euclid(4) as usize)
    }

    /// The register-blocked kernel for CPU-like adapters and few channels, for the weights' gradient.
    fn weight_rows(&self, d: &Dims, caps: &Caps) -> Option<Candidate> {
        let [kh, kw] = d.kernel;
        let [width, lanes] = workgroup(caps);
        // With more the code outgrows a CPU's cache of decoded instructions.
        let pixels = 4.min(d.out[1].max(1));
        let most = if caps.cpu { 96 } else { 32 };
        let fits = |c: &usize| c * kw <= most && *c <= 2 * most_channels(d) && *c < 2 * d.co;
        let channels = [16, 8, 4, 2, 1].into_iter().find(|c| *c == 1 || fits(c))?;
        if channels * kw > most || pixels * self.options.stride[1] + kw * self.options.dilation[1] > 64 {
            return None;
        }
        // Lanes that share loads are of one group.
        let together = if caps.cpu { 1 } else { d.groups };
        let groups = (together * d.ci * kh).div_ceil(width) * d.co.div_ceil(channels) * (d.groups / together);
        let wanted = if caps.cpu { 16 } else { 1024 };
        let splits = (wanted / groups.max(1)).clamp(1, (d.batch * d.out[0]).max(1));
        // Turns for each row of pixels, and rows that an invocation may go through.
        let most = caps.turns.saturating_sub(channels + 1) / (d.out[1].div_ceil(pixels) + 2);
        let splits = splits.max((d.batch * d.out[0]).div_ceil(most.max(1)));
        let mut kernel = self
            .set(Kernel::new(shader!("conv2d_weight_grad_rows.wgsl"), "weight_rows"), d, self.before())
            .set("FLIP", self.options.flip)
            .set("BATCH", d.batch)
            .set("CHANNELS", channels)
            .set("PIXELS", pixels)
            .set("WIDTH", width)
            .set("TOGETHER", together)
            .set("LANES", lanes)
            .bind([Arg::In(0), Arg::In(1)]);
        if let Some(offset) = self.quads(d.image[1], pixels, self.before()[1]) {
            kernel = kernel.choose("row_pixels", "row_pixels_by_four").set("OFFSET", offset);
        }
        if d.out[1].is_multiple_of(4) && pixels.is_multiple_of(4) {
            kernel = kernel.choose("row_grads", "row_grads_by_four");
        }
        if lanes > 1 {
            kernel = kernel.replace("from_lane", gemm::SHUFFLE);
        }
        let count = d.groups * d.co * d.ci * kh * kw;
        Some(gemm::split("rows", kernel, groups, splits, count, &[], caps))
    }
}

/// Lanes of a workgroup of the register-blocked kernels, and those of them that share loads.
fn workgroup(caps: &Caps) -> [usize; 2] {
    if caps.cpu { [8, gemm::lanes(caps)] } else { [64, 1] }
}

fn with_bias(kernel: Kernel) -> Kernel {
    let (name, text) = gemm::bias(true, 3);
    kernel.replace(name, text)
}

/// Output channels that a lane may own. With one input channel the inner loop is so short that more of them save nothing,
/// but the driver has to compile them.
fn most_channels(d: &Dims) -> usize {
    if d.ci == 1 { 4 } else { 16 }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Forward => "conv2d",
            Kind::InputGrad => "conv2d_input_grad",
            Kind::WeightGrad => "conv2d_weight_grad",
        }
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        match &self.result {
            Some(desc) => Ok(vec![desc.clone()]),
            None => {
                let y = Self::forward(&self.options, &inputs[0], &inputs[1])?;
                match inputs.get(2).filter(|bias| **bias != Desc::f32([y.shape[1]])) {
                    Some(bias) => Err(format!("the bias is {bias}, not f32[{}]", y.shape[1])),
                    None => Ok(vec![y]),
                }
            }
        }
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (a, b, g) = (node.x(0), node.x(1), node.dy());
        let make = |kind, inputs: [&Tensor; 2], like: Option<&Tensor>| {
            let result = like.map(|t| t.desc().clone());
            Some(Conv2d { kind, options: self.options.clone(), result }.of(inputs))
        };
        match self.kind {
            // a = x, b = w
            Kind::Forward => {
                let mut grads = vec![make(Kind::InputGrad, [&g, b], Some(a)), make(Kind::WeightGrad, [a, &g], Some(b))];
                grads.extend(node.inputs.get(2).map(|_| Some(g.sum(&[0, 2, 3], false))));
                grads
            }
            // a = dy, b = w; g has x's shape
            Kind::InputGrad => vec![make(Kind::Forward, [&g, b], None), make(Kind::WeightGrad, [&g, a], Some(b))],
            // a = x, b = dy; g has w's shape
            Kind::WeightGrad => vec![make(Kind::InputGrad, [b, &g], Some(a)), make(Kind::Forward, [a, &g], None)],
        }
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let d = self.dims(io);
        let bias = io.inputs.len() > 2;
        let products = self.gemm(&d, bias, caps);
        if self.kind == Kind::InputGrad && self.options.stride != [1, 1] {
            let spread = self.phases(&d, caps).or_else(|| self.spread_rows(&d, caps));
            let spread = spread.filter(|_| caps.cpu || self.is_few(&d));
            // Of a 1x1 kernel, the product is at most one fourth of zeros.
            return if d.kernel == [1, 1] {
                products.into_iter().chain(spread).collect()
            } else {
                spread.into_iter().chain(products).collect()
            };
        }
        let rows = match self.kind {
            Kind::WeightGrad => self.weight_rows(&d, caps),
            _ => self.rows(&d, bias, caps),
        };
        let rows = rows.filter(|_| caps.cpu || self.is_few(&d));
        // A 1x1 kernel has no use for a pixel's neighbours; without loads of vec4s, products of many channels are faster.
        let singles = self.quads(d.image[1], 4, self.before()[1]).is_none() && d.ci * d.co >= 1 << 13;
        if self.kind == Kind::WeightGrad && singles {
            return match d.kernel {
                [1, 1] => products.into_iter().chain(rows).collect(),
                // In longer rows, fewer of the pixels that are loaded are left over.
                _ if d.out[1] > 20 => rows.into_iter().chain(self.unfolded(&d, caps)).chain(products).collect(),
                _ => self.unfolded(&d, caps).into_iter().chain(rows).chain(products).collect(),
            };
        }
        let tiles = if d.out.iter().any(|side| *side < 12) { [2, 4] } else { [4, 2] };
        let transforms_pay = winograd::cost(tiles[0], &d) < 0.95;
        let tiles = tiles.into_iter().filter_map(|tile| self.winograd(tile, &d, bias, caps));
        if !caps.cpu {
            rows.into_iter().chain(products).chain(tiles).collect()
        } else if transforms_pay {
            tiles.chain(rows).chain(products).collect()
        } else {
            rows.into_iter().chain(tiles).chain(products).collect()
        }
    }

    fn epilogue(&self) -> bool {
        true
    }

    fn flops(&self, inputs: &[Desc], outputs: &[Desc]) -> u64 {
        // Two for each weight and output pixel, whichever of the three is computed.
        let (w, y) = match self.kind {
            Kind::Forward => (&inputs[1], &outputs[0]),
            Kind::InputGrad => (&inputs[1], &inputs[0]),
            Kind::WeightGrad => (&outputs[0], &inputs[1]),
        };
        2 * (y.elements() * w.shape[1] * w.shape[2] * w.shape[3]) as u64
    }
}

impl Tensor {
    /// Convolution: images [N, C, H, W] with weights [out, C / groups, kh, kw] -> [N, out, Ho, Wo], where
    /// `Ho = (H + padding - dilation (kh - 1) - 1) / stride + 1`.
    ///
    /// Some devices compute 3x3 kernels at stride 1 by minimal filtering (Lavin and Gray, 2015), in tiles of up to 4 x 4
    /// results: an infinity or NaN then reaches all results of its tile, not only those whose window has it.
    #[track_caller]
    pub fn conv2d(&self, weight: &Tensor, options: &Conv2dOptions) -> Tensor {
        if let Some(y) = self.mix_channels(weight, options) {
            return y;
        }
        let op = Conv2d { kind: Kind::Forward, options: options.clone(), result: None };
        op.of([self, weight])
    }

    /// [`Tensor::conv2d`] plus a bias `[out]` for each output channel.
    #[track_caller]
    pub fn conv2d_bias(&self, weight: &Tensor, bias: &Tensor, options: &Conv2dOptions) -> Tensor {
        if let Some(y) = self.mix_channels(weight, options).filter(|y| bias.desc() == &Desc::f32([y.shape()[1]])) {
            return y + bias.reshape([bias.elements(), 1, 1]);
        }
        let op = Conv2d { kind: Kind::Forward, options: options.clone(), result: None };
        self.graph().push1(op, &[self, weight, bias])
    }

    /// A convolution whose kernel is 1x1, as the product [O, C] x [C, H W] of each image, which needs no index arithmetic;
    /// gradients are products, too. `None` where the convolution is another one, or images are so small that products
    /// over all of them together are better.
    #[track_caller]
    fn mix_channels(&self, weight: &Tensor, options: &Conv2dOptions) -> Option<Tensor> {
        let Conv2dOptions { stride, groups, flip, .. } = *options;
        let plain = Conv2dOptions { stride, groups, flip, ..Conv2dOptions::default() };
        let y = Conv2d::forward(options, self.desc(), weight.desc()).ok()?;
        let (&[n, c, ..], &[_, outputs, h, w]) = (self.shape(), &y.shape[..]) else { return None };
        let pixels = h * w;
        // The weights' gradient has a part for each image, which must not outgrow the images themselves.
        let parts = outputs / groups * (c / groups) <= 4 * pixels * (outputs + c) / groups;
        if options != &plain
            || weight.shape()[2..] != [1, 1]
            || pixels < 64
            || pixels % 4 != 0
            || !parts
            || n * c * outputs == 0
        {
            return None;
        }
        let x = match stride {
            [1, 1] => self.clone(),
            [sh, sw] => {
                let every = |axis: usize, step: usize| (0, self.shape()[axis] as isize, step as isize);
                self.slice(&[every(0, 1), every(1, 1), every(2, sh), every(3, sw)])
            }
        };
        let (x, weight) = match groups {
            1 => (x.reshape([n, c, pixels]), weight.reshape([outputs, c])),
            _ => (x.reshape([n, groups, c / groups, pixels]), weight.reshape([groups, outputs / groups, c / groups])),
        };
        Some(weight.matmul(&x).reshape([n, outputs, h, w]))
    }
}
