//! Max and average pooling over two-dimensional windows, and their exact gradients.

use super::gemm;
use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, MOST_UNIFORM, Op, Tensor};
use crate::shader;

/// Loads that are written out in kernels for runs of windows, at most.
const LOADS: usize = 40;

/// Elements of images from which subgroups take runs of windows abreast: it takes 0.1 to 0.3 s longer to compile, and a network
/// of smaller images is no faster for it.
const ABREAST_FROM: usize = 1 << 21;

/// Elements of images that a subgroup loads abreast: with more, its code is so long that it is slow.
const ABREAST: usize = 256;

/// Names of the candidates by the windows that an invocation takes.
const RUNS: [&str; 8] = ["", "single", "in_twos", "in_threes", "in_fours", "in_fives", "", "in_sevens"];

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

    /// How many neighbouring windows an invocation may take, the best for this class of devices first.
    fn runs(&self, x: &Desc, y: &Desc, caps: &Caps) -> Vec<usize> {
        let ([rows, columns], step) = (self.kernel, self.stride[1]);
        if self.dilation[1] != 1 || !x.shape[3].is_multiple_of(2) {
            return Vec::new();
        }
        let loads = |run: usize| rows * ((run - 1) * step + columns).div_ceil(2);
        let fits =
            |run: &usize| y.shape[3].is_multiple_of(*run) && (run * step).is_multiple_of(2) && loads(*run) <= LOADS;
        let mut runs: Vec<usize> = [4, 2, 7, 5, 3].into_iter().filter(fits).take(2).collect();
        // A GPU needs neighbours for its lanes rather than for each of them.
        runs.extend(Some(1).filter(fits));
        if !caps.cpu {
            runs.reverse();
        }
        runs
    }

    /// Whether a run of windows loads vec4s of its images' columns instead of vec2s. On a CPU one takes as long as one and a
    /// half of these.
    fn in_fours(&self, x: &Desc, run: usize) -> bool {
        let loads = |columns: usize| {
            let before = (columns - self.before[1] % columns) % columns;
            (before + (run - 1) * self.stride[1] + self.kernel[1]).div_ceil(columns)
        };
        x.shape[3].is_multiple_of(4) && (run * self.stride[1]).is_multiple_of(4) && 3 * loads(4) < 2 * loads(2)
    }

    /// Kernels whose invocations do `what` for runs of neighbouring windows, of `count` windows in all: names and kernels.
    /// Whether all rows, all columns of windows are inside, so that no test for an edge is needed.
    fn by_run(
        &self,
        what: &'static str,
        [x, y]: [&Desc; 2],
        count: usize,
        [all_rows, all_columns]: [bool; 2],
        caps: &Caps,
    ) -> Vec<(&'static str, Kernel)> {
        let kernel = |entry, run| {
            let kernel = self.kernel(entry, x, y, count / run, caps).set("RUN", run).choose("of_run", what);
            let kernel = kernel.set("ALL_ROWS", all_rows).set("ALL_COLUMNS", all_columns);
            let columns = if self.in_fours(x, run) { 4 } else { 2 };
            let kernel =
                kernel.set("COLUMNS", columns).replace("Columns", format!("alias Columns = vec{columns}<f32>;"));
            let kernel = kernel.set("LAST", (x.elements() / columns).saturating_sub(1));
            match run {
                4 => kernel.choose("put", "put_four").choose("keep_run", "keep_four").choose("recall", "recall_four"),
                2 => kernel.choose("put", "put_two").choose("keep_run", "keep_two").choose("recall", "recall_two"),
                _ => kernel,
            }
        };
        let runs = self.runs(x, y, caps);
        let abreast = runs.first().and_then(|&run| {
            let lanes = caps.subgroup.filter(|_| caps.abreast && x.elements() >= ABREAST_FROM)? as usize;
            let pixels = lanes * self.kernel[0] * ((run - 1) * self.stride[1] + self.kernel[1]);
            let (turns, count) = ((ABREAST / pixels).max(1), count / run);
            let kernel = kernel("by_run_abreast", run).set("SUBGROUP", lanes).set("TURNS", turns);
            let kernel = kernel.grid(caps.fold(count.div_ceil(64 * turns)));
            // Windows far apart may be fewer than a subgroup takes.
            let stretches = count / (lanes * turns);
            (1..MOST_UNIFORM as usize)
                .contains(&stretches)
                .then(|| ("abreast", kernel.choose("begin", "begin_abreast").choose("loaded", "loaded_abreast")))
        });
        abreast.into_iter().chain(runs.iter().map(|&run| (RUNS[run], kernel("by_run", run)))).collect()
    }

    /// Whether no window hangs over an edge, above and below, left and right.
    fn inside(&self, x: &Desc, y: &Desc) -> [bool; 2] {
        [0, 1].map(|side| {
            let reach = (self.kernel[side] - 1) * self.dilation[side] + 1;
            self.before[side] == 0 && (y.shape[2 + side] - 1) * self.stride[side] + reach <= x.shape[2 + side]
        })
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
        let (w, x, y) = (&self.0, &io.inputs[0], &io.outputs[0]);
        let candidate = |name, kernel: Kernel, keep, nothing| {
            let kernel = kernel.bind([Arg::Out(0)]);
            let kernel = match io.used[1] {
                true => kernel.bind([Arg::Out(1)]),
                false => kernel.choose(keep, nothing),
            };
            Candidate::single(name, kernel).turns(w.turns())
        };
        let by_run = w.by_run("maximum_of_run", [x, y], io.elements(), w.inside(x, y), caps);
        let by_run = by_run
            .into_iter()
            .map(|(name, kernel)| candidate(name, kernel.stream(Arg::In(0)), "keep_run", "keep_no_run"));
        let direct = w.bind(w.kernel("max_forward", x, y, io.elements(), caps), Arg::In(0));
        by_run.chain([candidate("direct", direct, "keep", "keep_nothing")]).collect()
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
        let rows = x.shape[0] * x.shape[1] * x.shape[2].div_ceil(w.kernel[0]);
        let all_rows = y.shape[2] * w.kernel[0] == x.shape[2];
        let by_run = w.by_run("maximum_grad_of_run", [x, y], rows * y.shape[3], [all_rows, true], caps).into_iter();
        // Where windows hang over the lower edge, stores stand in branches, in which lanes may not lie abreast.
        let by_run = by_run.filter(|(name, _)| w.kernel[1] == 2 && (all_rows || *name != "abreast"));
        let by_run = by_run.map(|(name, kernel)| candidate(name, kernel));
        let apart = kernel("max_backward_apart", rows * x.shape[3].div_ceil(w.kernel[1]));
        by_run.chain([candidate("windows", apart), gather]).collect()
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
        let w = &self.window;
        let candidate = |name, kernel: Kernel| Candidate::single(name, kernel.bind([Arg::Out(0)])).turns(w.turns());
        if self.back.is_some() {
            let kernel = w.kernel("average_backward", y, x, io.elements(), caps);
            return vec![candidate("direct", w.bind(kernel, Arg::In(0)))];
        }
        let by_run = w.by_run("average_of_run", [x, y], io.elements(), w.inside(x, y), caps);
        let by_run = by_run.into_iter().map(|(name, kernel)| candidate(name, kernel.stream(Arg::In(0))));
        let direct = w.bind(w.kernel("average_forward", x, y, io.elements(), caps), Arg::In(0));
        by_run.chain([candidate("direct", direct)]).collect()
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
