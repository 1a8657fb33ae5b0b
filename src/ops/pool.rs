//! Max and average pooling over two-dimensional windows, and their exact gradients.

use super::gemm;
use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, Op, Tensor};
use crate::shader;

/// Rows of a window that are written out in kernels for windows of two columns, at most.
const MOST_ROWS: usize = 8;

/// The windows of a pooling: extents, stride, padding and dilation, each `[height, width]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    kernel: [usize; 2],
    stride: [usize; 2],
    before: [usize; 2],
    after: [usize; 2],
    dilation: [usize; 2],
    ceil: bool,
    include_pad: bool,
}

impl Window {
    /// Windows of this size side by side.
    pub fn new(kernel: [usize; 2]) -> Self {
        Window {
            kernel,
            stride: kernel,
            before: [0; 2],
            after: [0; 2],
            dilation: [1; 2],
            ceil: false,
            include_pad: true,
        }
    }

    /// Elements from one window to the next.
    pub fn stride(mut self, stride: [usize; 2]) -> Self {
        self.stride = stride;
        self
    }

    /// Padding on both sides: never a maximum, and 0 in an average.
    pub fn padding(mut self, padding: [usize; 2]) -> Self {
        (self.before, self.after) = (padding, padding);
        self
    }

    /// Stride 1 with every window centred on its output's place, so that the size stays: `(k - 1) / 2` elements of
    /// padding before and `k / 2` after; a window of even size reaches one further down and right.
    pub fn centred(mut self) -> Self {
        self.stride = [1; 2];
        self.before = self.kernel.map(|k| (k - 1) / 2);
        self.after = self.kernel.map(|k| k / 2);
        self
    }

    /// Elements between the taps of a window (maxima only).
    pub fn dilation(mut self, dilation: [usize; 2]) -> Self {
        self.dilation = dilation;
        self
    }

    /// Round the number of windows up instead of down; the last may then hang over the edge.
    pub fn ceil_mode(mut self, ceil: bool) -> Self {
        self.ceil = ceil;
        self
    }

    /// Whether an average counts the padding (PyTorch's `count_include_pad`, true by default).
    pub fn count_include_pad(mut self, include: bool) -> Self {
        self.include_pad = include;
        self
    }

    fn output(&self, x: &Desc) -> Result<Desc, String> {
        if x.dtype != DType::F32 || x.shape.len() != 4 {
            return Err(format!("it needs f32 images [N, C, H, W], not {x}"));
        }
        let mut shape = x.shape.to_vec();
        for side in 0..2 {
            let (k, s, d) = (self.kernel[side], self.stride[side], self.dilation[side]);
            let (before, after) = (self.before[side], self.after[side]);
            if k == 0 || s == 0 || d == 0 {
                return Err("kernel size, stride and dilation must be at least 1".into());
            }
            let (reach, extent) = gemm::reach(k, d, x.shape[2 + side], [before, after])?;
            if before.max(after) * 2 > reach {
                return Err(format!("padding {before} is more than half of the window {reach}"));
            }
            if extent < reach {
                return Err(format!("the window {reach} is larger than the padded extent {extent} of {x}"));
            }
            let mut out = (extent - reach) / s + 1;
            if self.ceil {
                out = (extent - reach).div_ceil(s) + 1;
                // The last window must start inside the image or its padding before it.
                if (out - 1) * s >= x.shape[2 + side] + before {
                    out -= 1;
                }
            }
            shape[2 + side] = out;
        }
        Ok(Desc::f32(shape))
    }

    /// Turns that the loops over a window, or over all windows around a pixel, take at most.
    fn turns(&self) -> usize {
        self.kernel[0] * (self.kernel[1] + 2) + 1
    }

    fn kernel(&self, entry: &'static str, x: &Desc, y: &Desc, count: usize, caps: &Caps) -> Kernel {
        Kernel::new(shader!("pool.wgsl"), entry)
            .set("COUNT", count)
            .set("H", x.shape[2])
            .set("W", x.shape[3])
            .set("HO", y.shape[2])
            .set("WO", y.shape[3])
            .set("KH", self.kernel[0])
            .set("KW", self.kernel[1])
            .set("SH", self.stride[0])
            .set("SW", self.stride[1])
            .set("DH", self.dilation[0])
            .set("DW", self.dilation[1])
            .set("PH", self.before[0])
            .set("PW", self.before[1])
            .set("QH", self.after[0])
            .set("QW", self.after[1])
            .set("INCLUDE_PAD", self.include_pad)
            .grid(caps.fold(count.div_ceil(64)))
    }

    /// Whether windows neither overlap nor leave gaps.
    fn is_apart(&self) -> bool {
        self.stride == self.kernel && self.before == [0, 0] && self.dilation == [1, 1]
    }

    /// Whether a row of a window is one aligned vec2 of an image.
    fn is_pairs(&self, image: &Desc) -> bool {
        self.is_apart() && self.kernel[1] == 2 && self.kernel[0] <= MOST_ROWS && image.shape[3].is_multiple_of(2)
    }

    /// `kernel` with this binding, an image or the results of windows.
    fn bind(&self, kernel: Kernel, arg: Arg) -> Kernel {
        if self.is_apart() { kernel.stream(arg) } else { kernel.bind([arg]) }
    }

    fn flops(&self, y: &Desc) -> u64 {
        (y.elements() * self.kernel[0] * self.kernel[1]) as u64
    }
}

/// The maximum of each window, and its place within the plane (u32).
#[derive(Debug)]
struct MaxPool(Window);

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let y = self.0.output(&inputs[0])?;
        Ok(vec![y.clone(), Desc::new(&y.shape, DType::U32)])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let op = MaxPoolGrad(self.0.clone(), node.x(0).desc().clone());
        vec![Some(node.x(0).graph().push1(op, &[&node.dy(), &node.outputs[1]]))]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let candidate = |name, entry| {
            let kernel = self.0.kernel(entry, &io.inputs[0], &io.outputs[0], io.elements(), caps);
            let kernel = self.0.bind(kernel, Arg::In(0)).bind([Arg::Out(0)]);
            let kernel = match io.used[1] {
                true => kernel.bind([Arg::Out(1)]),
                false => kernel.choose("keep", "keep_nothing"),
            };
            Candidate::single(name, kernel).turns(self.0.turns())
        };
        let pairs = self.0.is_pairs(&io.inputs[0]).then(|| candidate("by_two", "max_forward_by_two"));
        pairs.into_iter().chain([candidate("direct", "max_forward")]).collect()
    }

    fn epilogue(&self) -> bool {
        true
    }

    fn flops(&self, _inputs: &[Desc], outputs: &[Desc]) -> u64 {
        self.0.flops(&outputs[0])
    }
}

/// Brings each gradient to the place its maximum came from; reads (dy, indices).
#[derive(Debug)]
struct MaxPoolGrad(Window, Desc);

impl Op for MaxPoolGrad {
    fn name(&self) -> &'static str {
        "max_pool2d_grad"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![self.1.clone()])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let op = Take(self.0.clone(), node.x(0).desc().clone());
        vec![Some(node.x(0).graph().push1(op, &[&node.dy(), node.x(1)])), None]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let (x, y) = (&io.outputs[0], &io.inputs[0]);
        let kernel = |entry, count| self.0.kernel(entry, x, y, count, caps);
        let candidate = |name, kernel| {
            let kernel = self.0.bind(self.0.bind(kernel, Arg::In(0)), Arg::In(1));
            Candidate::single(name, kernel.bind([Arg::Out(0)])).turns(self.0.turns())
        };
        let gather = candidate("gather", kernel("max_backward", io.elements()));
        let w = &self.0;
        if !w.is_apart() {
            return vec![gather];
        }
        let windows = x.shape[0] * x.shape[1] * x.shape[2].div_ceil(w.kernel[0]) * x.shape[3].div_ceil(w.kernel[1]);
        let apart = kernel("max_backward_apart", windows);
        let pairs = w.is_pairs(x).then(|| candidate("by_two", apart.clone().choose("put_row", "put_row_by_two")));
        pairs.into_iter().chain([candidate("windows", apart), gather]).collect()
    }

    fn epilogue(&self) -> bool {
        true
    }
}

/// The elements of an image that pooling chose; reads (image, indices). The gradient of [`MaxPoolGrad`].
#[derive(Debug)]
struct Take(Window, Desc);

impl Op for Take {
    fn name(&self) -> &'static str {
        "max_pool2d_take"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![self.1.clone()])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let op = MaxPoolGrad(self.0.clone(), node.x(0).desc().clone());
        vec![Some(node.x(0).graph().push1(op, &[&node.dy(), node.x(1)])), None]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let kernel = self.0.kernel("take", &io.inputs[0], &io.outputs[0], io.elements(), caps);
        vec![Candidate::single("direct", kernel.bind([Arg::In(0), Arg::In(1), Arg::Out(0)])).turns(self.0.turns())]
    }
}

/// The mean of each window, or (`back`: the image's description) the gradient of that, which is its adjoint.
#[derive(Debug)]
struct AvgPool {
    window: Window,
    back: Option<Desc>,
}

impl Op for AvgPool {
    fn name(&self) -> &'static str {
        if self.back.is_some() { "avg_pool2d_grad" } else { "avg_pool2d" }
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        if self.window.dilation != [1, 1] {
            return Err("an average has no dilation".into());
        }
        match &self.back {
            Some(image) => Ok(vec![image.clone()]),
            None => Ok(vec![self.window.output(&inputs[0])?]),
        }
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let back = match self.back {
            Some(_) => None,
            None => Some(node.x(0).desc().clone()),
        };
        let op = AvgPool { window: self.window.clone(), back };
        vec![Some(node.x(0).graph().push1(op, &[&node.dy()]))]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let (x, y) = (&io.inputs[0], &io.outputs[0]);
        let candidate = |name, entry| {
            let [image, windows] = if self.back.is_some() { [y, x] } else { [x, y] };
            let kernel = self.window.kernel(entry, image, windows, io.elements(), caps);
            let kernel = self.window.bind(kernel, Arg::In(0)).bind([Arg::Out(0)]);
            Candidate::single(name, kernel).turns(self.window.turns())
        };
        if self.back.is_some() {
            return vec![candidate("direct", "average_backward")];
        }
        let pairs = self.window.is_pairs(x).then(|| candidate("by_two", "average_forward_by_two"));
        pairs.into_iter().chain([candidate("direct", "average_forward")]).collect()
    }

    fn epilogue(&self) -> bool {
        true
    }

    fn flops(&self, inputs: &[Desc], outputs: &[Desc]) -> u64 {
        self.window.flops(if self.back.is_some() { &inputs[0] } else { &outputs[0] })
    }
}

impl Tensor {
    /// The maximum of each window, [N, C, H, W] -> [N, C, Ho, Wo].
    #[track_caller]
    pub fn max_pool2d(&self, window: &Window) -> Tensor {
        self.max_pool2d_with_indices(window).0
    }

    /// [`Tensor::max_pool2d`] and, as u32, each maximum's place within its plane, `y * W + x`.
    #[track_caller]
    pub fn max_pool2d_with_indices(&self, window: &Window) -> (Tensor, Tensor) {
        let mut outputs = self.graph().push(MaxPool(window.clone()), &[self]).into_iter();
        match (outputs.next(), outputs.next()) {
            (Some(y), Some(indices)) => (y, indices),
            (Some(poison), None) => (poison.clone(), poison),
            _ => (self.clone(), self.clone()),
        }
    }

    /// The mean of each window, [N, C, H, W] -> [N, C, Ho, Wo].
    #[track_caller]
    pub fn avg_pool2d(&self, window: &Window) -> Tensor {
        self.graph().push1(AvgPool { window: window.clone(), back: None }, &[self])
    }
}
