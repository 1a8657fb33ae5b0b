//! Batch normalization: statistics by channel, what they normalize, and the gradient of both.

use super::normalize::check;
use super::{lines, reduce};
use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, Op, Pointwise, Tensor};
use crate::shader;

/// Loads that an invocation has under way at a time.
const BLOCK: usize = 8;

/// A reduction of x [N, channels, ...] to each channel: `parts` of `shaders/channels.wgsl` for parts of a channel, with x,
/// its result and then `others` bound, and `merge`, which puts them together.
fn by_channel(x: &Desc, [parts, merge]: [&'static str; 2], others: &[Arg], outputs: &[Arg], caps: &Caps) -> Candidate {
    let (images, channels) = (x.shape[0], x.shape[1]);
    let inner: usize = x.shape[2..].iter().product();
    let lanes = if inner.is_multiple_of(4) { 4 } else { 1 };
    let (run, length) = (inner / lanes, images * inner / lanes);
    let splits = reduce::splits([channels, length], inner > 1, caps);
    let set = |entry: &'static str| {
        let kernel = Kernel::new(shader!("channels.wgsl"), entry);
        let kernel = if lanes == 1 { lines::one_lane(kernel) } else { kernel };
        kernel
            .set("OUTPUTS", channels)
            .set("LENGTH", length)
            .set("SPLITS", splits)
            .set("INNER", inner > 1)
            .set("TEAM", splits.min(reduce::team(caps)))
    };
    let first = set(parts).set("RUN", run.max(1)).set("COUNT", channels * splits).set("HELD", BLOCK);
    let first = first.stream(Arg::In(0)).bind([Arg::ScratchOut(0)]).bind(others.iter().cloned());
    // A workgroup for each channel, unless an invocation is enough, as it is on a CPU.
    let team = if caps.cpu || splits <= 8 { 1 } else { splits.next_power_of_two().min(64) };
    let second = set(if team == 1 { "serial" } else { "grouped" }).choose("of_line", merge).set("LINES", channels);
    let second = match team {
        1 => lines::in_an_invocation(second, channels, caps),
        _ => second.set("WIDTH", team).grid(caps.fold(channels)),
    };
    let second = second.bind([Arg::ScratchIn(0)]).bind(outputs.iter().cloned());
    let kernels = vec![first.grid(caps.fold((channels * splits).div_ceil(64))), second];
    let turns = length.div_ceil(splits).max(splits.div_ceil(team)) + 20;
    Candidate::new("by_channel", kernels, vec![channels * splits * 8]).turns(turns)
}

/// Kernels that find the mean of each of `count` lines of `length` neighbours, and what the centred elements are multiplied
/// by, which go to `stats` [2, count].
pub(super) fn line_statistics(count: usize, length: usize, eps: f32, stats: Arg, caps: &Caps) -> Candidate {
    let mut statistics = by_channel(&Desc::f32([1, count, length]), ["moments", "merge_moments"], &[], &[stats], caps);
    statistics.kernels[1] = statistics.kernels[1].clone().set("EPS", eps).choose("keep", "keep_scale");
    statistics
}

/// Mean and biased variance, `[channels]` each, of x [N, channels, ...].
#[derive(Debug)]
struct Statistics;

impl Op for Statistics {
    fn name(&self) -> &'static str {
        "batch_statistics"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let x = &inputs[0];
        if x.shape.len() < 2 || x.elements() == 0 || x.dtype != DType::F32 {
            return Err(format!("[N, channels, ...] of f32 with elements was expected, not {x}"));
        }
        Ok(vec![Desc::f32([x.shape[1]]); 2])
    }

    /// The mean's gradient goes to all elements in equal shares, the variance's in those of `2 (x - mean)`.
    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let x = node.x(0);
        let share = x.shape()[1] as f32 / x.elements() as f32;
        let spread = |t: &Tensor, factor: f32| spread(&(t * factor), x);
        let by_mean = node.grads[0].as_ref().map(|dmean| spread(dmean, share));
        vec![match &node.grads[1] {
            None => by_mean.map(|dx| dx.expand(x.shape())),
            Some(dvariance) => {
                let mean = spread(&node.outputs[0], 1.0);
                Some(standardize(x, &mean, &spread(dvariance, 2.0 * share), by_mean.as_ref()))
            }
        }]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let entries = ["moments", "merge_moments"];
        vec![by_channel(&io.inputs[0], entries, &[], &[Arg::Out(0), Arg::Out(1)], caps)]
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        4 * inputs[0].elements() as u64
    }
}

/// `(x - mean) * scale`, perhaps `+ bias`, for x [N, channels, ...] and the others [channels, 1, ...].
#[derive(Debug)]
struct Standardize {
    biased: bool,
}

impl Op for Standardize {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![inputs[0].clone()])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, mean, scale, dy) = (node.x(0), node.x(1), node.x(2), node.dy());
        let sums = sums(x, mean, &dy);
        let [arrived, products] = rows(&sums, mean);
        let mut grads = vec![Some(&dy * scale), Some(-(scale * &arrived)), Some(products)];
        grads.extend(self.biased.then_some(Some(arrived)));
        grads
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise(if self.biased { "({0} - {1}) * {2} + {3}" } else { "({0} - {1}) * {2}" }.into()))
    }
}

/// Sums [2, channels] over each channel of x [N, channels, ...], from x, a mean for each channel, and what arrives: of what
/// arrives, and of it times `x - mean`.
#[derive(Debug)]
struct Sums;

impl Op for Sums {
    fn name(&self) -> &'static str {
        "batch_norm_sums"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::f32([2, inputs[0].shape[1]])])
    }

    /// Both are linear in what arrived, the second in x and its mean, too.
    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, mean, dy) = (node.x(0), node.x(1), node.x(2));
        let [by_sum, by_product] = rows(&node.dy(), mean);
        let [arrived, _] = rows(&node.outputs[0], mean);
        let back = standardize(x, mean, &by_product, Some(&by_sum));
        vec![Some(dy * &by_product), Some(-(arrived * by_product)), Some(back)]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        vec![by_channel(&io.inputs[0], ["sums", "merge_sums"], &[Arg::In(2), Arg::In(1)], &[Arg::Out(0)], caps)]
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        4 * inputs[0].elements() as u64
    }
}

/// [`Sums`] of x [N, channels, ...], `mean`, a number for each channel, and what arrives.
pub(super) fn sums(x: &Tensor, mean: &Tensor, dy: &Tensor) -> Tensor {
    x.graph().push1(Sums, &[x, mean, dy])
}

/// The rows of `sums`, each as `like` is.
fn rows(sums: &Tensor, like: &Tensor) -> [Tensor; 2] {
    [0, 1].map(|row| sums.narrow(0, row, 1).reshape(like.shape()))
}

/// `[channels]` as [channels, 1, ...], to go with x [N, channels, ...].
fn spread(t: &Tensor, x: &Tensor) -> Tensor {
    t.reshape([vec![x.shape()[1]], vec![1; x.rank() - 2]].concat())
}

fn standardize(x: &Tensor, mean: &Tensor, scale: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let inputs: Vec<&Tensor> = [x, mean, scale].into_iter().chain(bias).collect();
    x.graph().push1(Standardize { biased: bias.is_some() }, &inputs)
}

impl Tensor {
    /// Mean and biased variance of each channel of [N, channels, ...] over the batch, `[channels]` each.
    #[track_caller]
    pub fn batch_statistics(&self) -> (Tensor, Tensor) {
        match &self.graph().push(Statistics, &[self])[..] {
            [mean, variance] => (mean.clone(), variance.clone()),
            _ => (self.clone(), self.clone()),
        }
    }

    /// Batch normalization of [N, channels, ...] (Ioffe and Szegedy, 2015) with this mean and variance of each channel:
    /// `(x - mean) / sqrt(variance + eps) * weight + bias`, all `[channels]`. In training they are the batch's own,
    /// [`Tensor::batch_statistics`], through which the gradient flows too; later those kept from training.
    ///
    /// ```
    /// let g = shadegrad::Graph::new();
    /// let x = g.input([32, 16, 8, 8]);
    /// let (mean, variance) = x.batch_statistics();
    /// assert_eq!(x.batch_norm(&mean, &variance, None, None, 1e-5).shape(), [32, 16, 8, 8]);
    /// ```
    #[track_caller]
    pub fn batch_norm(
        &self,
        mean: &Tensor,
        variance: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        eps: f32,
    ) -> Tensor {
        let channels = self.shape().get(1).copied().unwrap_or(0);
        let factors =
            [("the mean", Some(mean)), ("the variance", Some(variance)), ("the weight", weight), ("the bias", bias)];
        let checked = match self.rank() {
            0 | 1 => Err(format!("it needs [N, C, ...], not {}", self.desc())),
            _ => check(self.desc(), channels, eps, &factors),
        };
        if let Err(message) = checked {
            return self.graph().poison("batch_norm", message);
        }
        let scale = (variance + eps).rsqrt();
        let scale = weight.map_or(scale.clone(), |weight| scale * weight.reshape(&variance.desc().shape));
        let bias = bias.map(|bias| spread(bias, self));
        standardize(self, &spread(mean, self), &spread(&scale, self), bias.as_ref())
    }
}
