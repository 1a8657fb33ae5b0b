//! Layer, RMS, group and instance normalization.

use super::{batch_norm, gemm, lines, reduce};
use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, Op, Shape, Tensor};
use crate::shader;

/// What is normalized: lines of `length` neighbouring elements. They hold the channels of one of `groups` groups, a
/// channel being `inner` neighbouring elements.
#[derive(Clone, Debug)]
struct Lines {
    length: usize,
    groups: usize,
    inner: usize,
    /// Whether the mean is subtracted.
    centred: bool,
    eps: f32,
}

impl Lines {
    fn channels(&self) -> usize {
        self.groups * (self.length / self.inner)
    }

    fn count(&self, elements: usize) -> usize {
        elements / self.length.max(1)
    }

    /// As [outer, groups, channels of a group, inner].
    fn split(&self, x: &Tensor) -> Tensor {
        x.reshape([self.count(x.elements()) / self.groups, self.groups, self.length / self.inner, self.inner])
    }

    /// One of the two rows of the statistics, to go with [`Lines::split`].
    fn stat(&self, stats: &Tensor, row: usize) -> Tensor {
        stats.narrow(0, row, 1).reshape([stats.shape()[1] / self.groups, self.groups, 1, 1])
    }

    /// The normalized elements.
    fn normalized(&self, x: &Tensor, stats: &Tensor) -> Tensor {
        (self.split(x) - self.stat(stats, 0)) * self.stat(stats, 1)
    }

    /// Factors by channel, to go with [`Lines::split`].
    fn spread(&self, weight: &Tensor) -> Tensor {
        weight.reshape([1, self.groups, self.length / self.inner, 1])
    }

    /// The gradients of weight and bias.
    fn channel_sums(&self, x: &Tensor, stats: &Tensor, dy: &Tensor) -> [Tensor; 2] {
        if self.groups == 1 && self.inner == 1 {
            let sums = x.graph().push1(ChannelSums(self.clone()), &[x, stats, dy]);
            return [0, 1].map(|row| sums.narrow(0, row, 1));
        }
        // The sums over each line's part of a channel, then over lines.
        let count = self.count(x.elements());
        let parts = [count / self.groups, self.groups, self.length / self.inner, 1];
        let by_part = |t: &Tensor| t.reshape([1, x.elements() / self.inner, self.inner]);
        let means = self.stat(stats, 0).expand(parts).reshape([x.elements() / self.inner, 1]);
        let sums = batch_norm::sums(&by_part(x), &means, &by_part(dy));
        let [arrived, products] = [0, 1].map(|row| sums.narrow(0, row, 1).reshape(parts));
        [products * self.stat(stats, 1), arrived].map(|t| t.sum(&[0, 3], false))
    }

    /// The gradients of x and of the statistics, from `dn`, what arrives at the normalized elements `n`, and what arrives
    /// at each line's scale besides, times the scale and not summed up.
    fn before_normalized(
        &self,
        dn: &Tensor,
        n: &Tensor,
        scale: &Tensor,
        stats: &Tensor,
        scaled: Option<Tensor>,
    ) -> (Tensor, Tensor) {
        let sums = |t: Tensor| t.sum(&[2, 3], true).reshape([1, stats.shape()[1]]);
        let product = dn * n;
        let dscale = sums(scaled.map_or(product.clone(), |scaled| scaled + &product) / scale);
        let dx = dn * scale;
        let dmean = if self.centred { -sums(dx.clone()) } else { dscale.zeros_like() };
        (dx, dmean.concat(&[&dscale], 0))
    }

    /// Whether neighbours in a line are of neighbouring channels, whole vec4s of them.
    fn by_four(&self) -> bool {
        self.inner == 1 && self.length.is_multiple_of(4)
    }

    fn weighted(&self, kernel: Kernel, weight: Arg) -> Kernel {
        let kernel = self.factors(kernel, "weights_at", ["weights_at_by_four", "weights_at_alike"]);
        kernel.choose("weight", "weight_given").bind_as("WEIGHT", weight)
    }

    fn biased(&self, kernel: Kernel, bias: Arg) -> Kernel {
        let kernel = self.factors(kernel, "biases_at", ["biases_at_by_four", "biases_at_alike"]);
        kernel.choose("bias", "bias_given").bind_as("BIAS", bias)
    }

    /// `kernel` with the function for factors of four neighbours, of a channel each or of one channel.
    fn factors(&self, kernel: Kernel, name: &'static str, [each, alike]: [&'static str; 2]) -> Kernel {
        match self.by_four() {
            true => kernel.choose(name, each),
            false if self.inner.is_multiple_of(4) => kernel.choose(name, alike),
            false => kernel,
        }
    }

    /// `by_subgroup` for subgroups that keep the weights and biases for all of their lines.
    fn keep(&self, by_subgroup: Kernel, biased: bool) -> Kernel {
        let kernel = by_subgroup.choose("weights_at", "weights_at_from_registers");
        if biased {
            kernel.choose("biases_at", "biases_at_from_registers").choose("prepare", "hold_weights_and_biases")
        } else {
            kernel.choose("prepare", "hold_weights")
        }
    }

    /// `tensors` like x are read, which is the first binding, and dy the third.
    fn candidates(
        &self,
        mut kernels: [Kernel; 3],
        tensors: usize,
        [weighted, biased]: [bool; 2],
        io: &Io<'_>,
        caps: &Caps,
    ) -> Vec<Candidate> {
        let lines = self.count(io.inputs[0].elements());
        let mut taken = 1;
        // Measured: several lines after one another take a quarter less time, of RMS norms without weights a tenth more.
        if caps.cpu && (self.centred || weighted) {
            taken = (lines / (32 * caps.threads.max(1))).clamp(1, 8);
            kernels[2] = kernels[2].clone().choose("of_lines", "of_lines_in_turns").set("TURNS", taken);
            // Loads from a cache cost as much as others.
            if weighted && self.groups == 1 && self.by_four() {
                kernels[2] = self.keep(kernels[2].clone(), biased);
            }
        }
        let kernels = kernels.map(|kernel| self.set(kernel).set("CENTRED", self.centred).set("EPS", self.eps));
        let hold = |kernel| {
            let mut kernel = lines::hold(kernel);
            if tensors == 1 {
                return kernel.choose("moments", "moments_in_registers");
            }
            kernel.streamed.push(2);
            kernel.choose("grads_again", "grads_from_registers")
        };
        let block = if tensors == 1 { 8 } else { 1 };
        // Measured: of single elements, subgroups are never faster.
        let alone = if self.length.is_multiple_of(4) { [usize::MAX, 5] } else { [usize::MAX; 2] };
        let (length, step, abreast) = (self.length, 1, false);
        let lines = lines::Lines { count: lines, length, step, tensors, taken, block, alone, abreast };
        lines::candidates(kernels, &lines, hold, caps)
    }

    /// `kernel` for these channels.
    fn set(&self, kernel: Kernel) -> Kernel {
        self.lanes(kernel.set("GROUPS", self.groups).set("INNER", self.inner))
    }

    /// `kernel` for lines of whole vec4s or of others.
    fn lanes(&self, kernel: Kernel) -> Kernel {
        match self.length.is_multiple_of(4) {
            true => kernel,
            false => {
                lines::one_lane(kernel).choose("weights_at", "weights_at_one").choose("biases_at", "biases_at_one")
            }
        }
    }
}

/// Normalized x and the statistics [2, lines]: means, and what the centred elements are multiplied by. The inputs are
/// x, perhaps a weight and perhaps a bias for each channel.
#[derive(Debug)]
struct Normalize {
    name: &'static str,
    lines: Lines,
    weighted: bool,
    biased: bool,
}

impl Op for Normalize {
    fn name(&self) -> &'static str {
        self.name
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![inputs[0].clone(), Desc::f32([2, self.lines.count(inputs[0].elements())])])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, stats, lines) = (node.x(0), &node.outputs[1], &self.lines);
        let (dy, dstats) = (&node.grads[0], &node.grads[1]);
        let slope = |dy: &Tensor| {
            let inputs = [x, stats, dy].into_iter().chain(self.weighted.then(|| node.x(1))).collect::<Vec<_>>();
            x.graph().push1(Slope { lines: lines.clone(), weighted: self.weighted }, &inputs)
        };
        // What arrives at the statistics, in a gradient of a gradient.
        let through_stats = |dstats: &Tensor| {
            let scale = lines.stat(stats, 1);
            let share = lines.stat(dstats, 1) * &scale * &scale * (-1.0 / lines.length as f32);
            let mean = lines.stat(dstats, 0) * (f32::from(lines.centred) / lines.length as f32);
            (lines.normalized(x, stats) * share + mean).reshape(&x.desc().shape)
        };
        let dx = match (dy.as_ref().map(slope), dstats.as_ref().map(through_stats)) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        let sums = dy.as_ref().map(|dy| lines.channel_sums(x, stats, dy));
        let of = |row: usize, factors: &Tensor| Some(sums.as_ref()?[row].reshape(&factors.desc().shape));
        let mut grads = vec![dx];
        grads.extend(self.weighted.then(|| of(0, node.x(1))));
        grads.extend(self.biased.then(|| of(1, &node.inputs[node.inputs.len() - 1])));
        grads
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let bind = |kernel: Kernel| {
            let kernel = kernel.bind([Arg::In(0), Arg::Out(0), Arg::Out(1)]);
            let kernel = if self.weighted { self.lines.weighted(kernel, Arg::In(1)) } else { kernel };
            if self.biased { self.lines.biased(kernel, Arg::In(io.inputs.len() - 1)) } else { kernel }
        };
        let kernels = lines::kernels(shader!("normalize.wgsl"), "normalize").map(bind);
        let mut all = self.lines.candidates(kernels, 1, [self.weighted, self.biased], io, caps);
        let (count, length) = (self.lines.count(io.elements()), self.lines.length);
        if !self.lines.centred || !in_parts([count, length], caps) {
            return all;
        }
        let mut in_parts = batch_norm::line_statistics(count, length, self.lines.eps, Arg::Out(1), caps);
        in_parts.name = "in_parts";
        let apply = bind(Kernel::new(shader!("normalize.wgsl"), "apply"));
        let apply = self.lines.set(apply).set("LINES", count).set("LENGTH", length);
        let lanes = if length.is_multiple_of(4) { 4 } else { 1 };
        in_parts.kernels.push(apply.grid(caps.fold((count * length / lanes).div_ceil(64))));
        all.insert(rank(count), in_parts);
        all
    }

    fn epilogue(&self) -> bool {
        true
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        8 * inputs[0].elements() as u64
    }
}

/// Whether a GPU's workgroups take parts of these lines: of few long ones, a workgroup for each is less than a large GPU can
/// take.
fn in_parts([count, length]: [usize; 2], caps: &Caps) -> bool {
    !caps.cpu && (1..=256).contains(&count) && length >= 1 << 14
}

/// Where among the others a candidate goes that takes parts of `count` lines: with more lines, reading them once may be worth
/// more.
fn rank(count: usize) -> usize {
    usize::from(count > 64)
}

/// The gradient of [`Normalize`] for x, from x, the statistics, what arrives at the output, and perhaps the weight.
#[derive(Debug)]
struct Slope {
    lines: Lines,
    weighted: bool,
}

impl Slope {
    fn weighted(&self, kernel: Kernel) -> Kernel {
        if self.weighted { self.lines.weighted(kernel, Arg::In(3)) } else { kernel }
    }

    /// Several workgroups of a GPU for each of `count` lines.
    fn in_parts(&self, count: usize, caps: &Caps) -> Candidate {
        let (length, centred) = (self.lines.length, self.lines.centred);
        let width = caps.invocations.min(256) as usize;
        // Of at least four turns, each of a vec4 for each invocation.
        let splits = (1024 / count).clamp(1, length.div_ceil(16 * width));
        let kernel = |entry, sums| {
            let kernel = self.lines.set(Kernel::new(shader!("normalize.wgsl"), entry));
            let kernel = kernel.set("LINES", count).set("LENGTH", length).set("CENTRED", centred).set("SPLITS", splits);
            let kernel = kernel.set("WIDTH", width).grid(caps.fold(count * splits)).bind([0, 1, 2].map(Arg::In));
            let kernel = if caps.subgroups { kernel.choose("all_sum", "all_sum_by_subgroups") } else { kernel };
            self.weighted(kernel.bind_as("SUMS", sums))
        };
        let apply = kernel("slope_apply", Arg::ScratchIn(0)).bind_as("DX", Arg::Out(0));
        Candidate::new("in_parts", vec![kernel("slope_sums", Arg::ScratchOut(0)), apply], vec![count * splits * 8])
    }
}

impl Op for Slope {
    fn name(&self) -> &'static str {
        "normalize_slope"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![inputs[0].clone()])
    }

    /// With n the normalized elements, s their scale, g what arrived at them and u what arrives here, the node is the
    /// symmetric map `s (g - mean(g) - n mean(g n))` of g; so its gradient for g is the same map of u.
    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, stats, dy, u, lines) = (node.x(0), node.x(1), node.x(2), node.dy(), &self.lines);
        let map = |v: &Tensor| {
            let slope = Slope { lines: lines.clone(), weighted: false };
            lines.split(&x.graph().push1(slope, &[x, stats, v]))
        };
        let like = |t: &Tensor, other: &Tensor| t.reshape(&other.desc().shape);
        let mean = |t: Tensor| t.mean(&[2, 3], true);
        let weight = self.weighted.then(|| lines.spread(node.x(3)));
        let (n, scale, split_dy, split_u) =
            (lines.normalized(x, stats), lines.stat(stats, 1), lines.split(dy), lines.split(&u));
        let g = weight.as_ref().map_or(split_dy.clone(), |weight| &split_dy * weight);
        let back = map(&u);
        // What arrives at n, at s and at the mean.
        let dn = -(&g * mean(&split_u * &n) + &split_u * mean(&g * &n)) * &scale;
        let (dx, dstats) = lines.before_normalized(&dn, &n, &scale, stats, Some(&back * &g));
        let mut grads = vec![Some(like(&dx, x)), Some(dstats)];
        grads.push(Some(like(&weight.map_or(back.clone(), |weight| &back * weight), dy)));
        if self.weighted {
            grads.push(Some(like(&(back * split_dy).sum(&[0, 3], false), node.x(3))));
        }
        grads
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let kernels = lines::kernels(shader!("normalize.wgsl"), "slope")
            .map(|kernel| self.weighted(kernel.bind([0, 1, 2].map(Arg::In)).bind([Arg::Out(0)])));
        let mut all = self.lines.candidates(kernels, 2, [self.weighted, false], io, caps);
        let count = self.lines.count(io.inputs[0].elements());
        if in_parts([count, self.lines.length], caps) {
            all.insert(rank(count), self.in_parts(count, caps));
        }
        all
    }

    fn epilogue(&self) -> bool {
        true
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        10 * inputs[0].elements() as u64
    }
}

/// The gradients [2, length] of weight and bias, from x, the statistics and what arrives at the output; the first is that
/// of the weight.
#[derive(Debug)]
struct ChannelSums(Lines);

impl Op for ChannelSums {
    fn name(&self) -> &'static str {
        "channel_sums"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::f32([2, self.0.length])])
    }

    /// Both are linear in what arrived, the first in the normalized elements too.
    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, stats, dy, u, lines) = (node.x(0), node.x(1), node.x(2), node.dy(), &self.0);
        let [by_weight, by_bias] = [0, 1].map(|row| lines.spread(&u.narrow(0, row, 1)));
        let (n, scale) = (lines.normalized(x, stats), lines.stat(stats, 1));
        let dn = lines.split(dy) * &by_weight;
        let ddy = &n * by_weight + by_bias;
        let (dx, dstats) = lines.before_normalized(&dn, &n, &scale, stats, None);
        vec![Some(dx.reshape(&x.desc().shape)), Some(dstats), Some(ddy.reshape(&dy.desc().shape))]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let (length, lines) = (self.0.length, self.0.count(io.inputs[0].elements()));
        let columns = if length.is_multiple_of(4) { length / 4 } else { length };
        let [block, span] = reduce::block(columns, lines * length, 24, caps);
        // Enough invocations for a large GPU, of at least 16 lines each.
        let splits = (16_384 / columns).clamp(1, lines.div_ceil(16).max(1)).max(lines.div_ceil(caps.turns / 2));
        let kernel = self.0.lanes(Kernel::new(shader!("normalize.wgsl"), "channel_sums"));
        let kernel = kernel.set("LINES", lines).set("LENGTH", length).set("BLOCK", block).set("SPAN", span);
        let kernel = kernel.stream(Arg::In(0)).bind([Arg::In(1)]).stream(Arg::In(2));
        vec![gemm::split("columns", kernel, (columns / block).div_ceil(64), splits, 2 * length, &[], caps)]
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        5 * inputs[0].elements() as u64
    }
}

/// Refuses weights and biases that are not f32 with one element for each of `channels`.
pub(super) fn check(x: &Desc, channels: usize, eps: f32, factors: &[(&str, Option<&Tensor>)]) -> Result<(), String> {
    if !(0.0..f32::INFINITY).contains(&eps) {
        return Err(format!("eps is {eps}, but must be 0 or a little more"));
    }
    if x.dtype != DType::F32 {
        return Err(format!("it needs an f32 tensor, not {x}; use cast"));
    }
    let given = factors.iter().filter_map(|(name, tensor)| Some((name, tensor.as_ref()?.desc())));
    for (name, desc) in given {
        if desc.dtype != DType::F32 || desc.elements() != channels {
            return Err(format!("{name} is {desc}, but {x} needs {channels} f32 elements"));
        }
    }
    Ok(())
}

impl Tensor {
    #[track_caller]
    fn normalize(
        &self,
        name: &'static str,
        lines: Result<Lines, String>,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Tensor {
        let checked = lines.and_then(|lines| {
            check(self.desc(), lines.channels(), lines.eps, &[("the weight", weight), ("the bias", bias)])
                .map(|()| lines)
        });
        match checked {
            Ok(lines) => {
                let op = Normalize { name, lines, weighted: weight.is_some(), biased: bias.is_some() };
                let inputs: Vec<&Tensor> = [self].into_iter().chain(weight).chain(bias).collect();
                self.graph().push1(op, &inputs)
            }
            Err(message) => self.graph().poison(name, message),
        }
    }

    /// Lines over the last axes, which must be `shape`.
    fn last_axes(&self, shape: &[usize], centred: bool, eps: f32) -> Result<Lines, String> {
        let length = Shape::from(shape).elements();
        if !self.shape().ends_with(shape) || shape.is_empty() || length == 0 {
            return Err(format!("the last axes of {} are not {shape:?}, or they have no elements", self.desc()));
        }
        Ok(Lines { length, groups: 1, inner: 1, centred, eps })
    }

    /// Layer normalization over the last axes, which must be `shape` (Ba et al., 2016):
    /// `(x - mean) / sqrt(variance + eps) * weight + bias` with the biased variance; weight and bias have that shape.
    ///
    /// ```
    /// let g = shadegrad::Graph::new();
    /// let (x, weight) = (g.input([32, 10, 64]), g.input([64]));
    /// assert_eq!(x.layer_norm(&[64], Some(&weight), None, 1e-5).shape(), [32, 10, 64]);
    /// ```
    #[track_caller]
    pub fn layer_norm(&self, shape: &[usize], weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f32) -> Tensor {
        self.normalize("layer_norm", self.last_axes(shape, true, eps), weight, bias)
    }

    /// Root-mean-square normalization over the last axes, which must be `shape` (Zhang and Sennrich, 2019):
    /// `x / sqrt(mean(x^2) + eps) * weight`.
    #[track_caller]
    pub fn rms_norm(&self, shape: &[usize], weight: Option<&Tensor>, eps: f32) -> Tensor {
        self.normalize("rms_norm", self.last_axes(shape, false, eps), weight, None)
    }

    /// Group normalization of [N, channels, ...] (Wu and He, 2018): each image's channels in `groups` groups, of which
    /// each has mean 0 and variance 1 before weight and bias, `[channels]`, are applied.
    #[track_caller]
    pub fn group_norm(&self, groups: usize, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f32) -> Tensor {
        self.by_groups("group_norm", groups, weight, bias, eps)
    }

    /// Instance normalization of [N, channels, ...] (Ulyanov et al., 2016): each channel of each image by itself; weight
    /// and bias `[channels]`.
    #[track_caller]
    pub fn instance_norm(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f32) -> Tensor {
        let channels = self.shape().get(1).copied().unwrap_or(0);
        self.by_groups("instance_norm", channels, weight, bias, eps)
    }

    #[track_caller]
    fn by_groups(
        &self,
        name: &'static str,
        groups: usize,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f32,
    ) -> Tensor {
        let lines = match self.shape() {
            &[_, channels, ref rest @ ..] if groups > 0 && channels > 0 && channels.is_multiple_of(groups) => {
                let inner: usize = rest.iter().product();
                let length = channels / groups * inner;
                let empty = format!("{} has channels without elements", self.desc());
                (length > 0).then_some(Lines { length, groups, inner, centred: true, eps }).ok_or(empty)
            }
            _ => Err(format!("[N, channels, ...] with channels in {groups} groups was expected, not {}", self.desc())),
        };
        self.normalize(name, lines, weight, bias)
    }
}
