//! Cross-entropy of logits and labels as one pass over the logits, and its gradient as another.

use super::Reduction;
use super::lines::{self, Lines};
use crate::graph::{Arg, Backward, Candidate, Caps, DType, Desc, Io, Kernel, Op, Tensor};
use crate::shader;

/// Options of [`Tensor::cross_entropy_with`].
#[derive(Clone, Debug, Default)]
pub struct CrossEntropy {
    reduction: Reduction,
    label_smoothing: f32,
    ignore_index: Option<u32>,
    weight: Option<Tensor>,
}

impl CrossEntropy {
    /// The mean over all labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Mean, sum, or one loss per label.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// Mixes the label with the uniform distribution: `1 - s` of the one, `s` of the other (Szegedy et al., 2015).
    pub fn label_smoothing(mut self, smoothing: f32) -> Self {
        self.label_smoothing = smoothing;
        self
    }

    /// Labels with this value count for nothing. PyTorch's default of -100 is `u32::MAX - 99`.
    pub fn ignore_index(mut self, index: u32) -> Self {
        self.ignore_index = Some(index);
        self
    }

    /// A weight for each class, f32 `[classes]`; no gradient flows into it.
    pub fn weight(mut self, weight: &Tensor) -> Self {
        self.weight = Some(weight.clone());
        self
    }
}

/// What the losses and their slope have in common.
#[derive(Clone, Debug)]
struct Rule {
    smoothing: f32,
    ignored: Option<u32>,
    /// The last two inputs are the classes' weights and their sum.
    weighted: bool,
}

impl Rule {
    /// The lines of logits [N, classes, ...].
    fn lines(x: &Desc) -> Lines {
        let (classes, step) = (x.shape[1], x.shape[2..].iter().product::<usize>());
        Lines {
            count: x.elements() / classes.max(1),
            length: classes,
            step,
            tensors: 1,
            taken: 1,
            block: lines::BLOCK,
            alone: lines::ALONE,
            abreast: false,
        }
    }

    /// `kernel` with the rule, and with the classes' weights bound if there are any.
    fn fit(&self, kernel: Kernel, lines: &Lines, inputs: usize) -> Kernel {
        let kernel = if lines.vectors() { kernel } else { lines::one_lane(kernel) };
        let kernel = kernel
            .set("SMOOTHING", self.smoothing)
            .set("IGNORING", self.ignored.is_some())
            .set("IGNORED", self.ignored.unwrap_or(0));
        let kernel = match lines.vectors() {
            true => kernel,
            false => kernel.choose("class_weights", "class_weights_one").choose("element", "element_one"),
        };
        if !self.weighted {
            return kernel;
        }
        let kernel = kernel.choose("class_weight", "class_weight_given").choose("total_weight", "total_weight_given");
        kernel.bind_as("WEIGHTS", Arg::In(inputs - 2)).bind_as("TOTAL", Arg::In(inputs - 1))
    }
}

/// Losses [N, ...], norms [2, N, ...] and the labels' weights [N, ...] of logits [N, classes, ...] and labels [N, ...].
#[derive(Debug)]
struct Losses(Rule);

impl Op for Losses {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let lines = Desc::f32(&inputs[1].shape);
        let norms = [&[2], &inputs[1].shape[..]].concat();
        Ok(vec![lines.clone(), Desc::f32(norms), lines])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let mut inputs = vec![node.x(0), node.x(1), &node.outputs[1], &node.outputs[2]];
        inputs.extend(&node.inputs[2..]);
        let slope = node.x(0).graph().push1(Slope(self.0.clone()), &inputs);
        vec![Some(slope * node.dy().unsqueeze(1))]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let lines = Rule::lines(&io.inputs[0]);
        let kernels = lines::kernels(shader!("cross_entropy.wgsl"), "cross_entropy").map(|kernel| {
            let kernel = kernel.stream(Arg::In(0)).bind([Arg::In(1), Arg::Out(0), Arg::Out(1), Arg::Out(2)]);
            let kernel = match self.0.smoothing > 0.0 {
                true => kernel.choose("note", "note_weighted").choose("note_shift", "note_weighted_shift"),
                false => kernel,
            };
            self.0.fit(kernel, &lines, io.inputs.len())
        });
        // Nothing is read again but the logit at the label.
        lines::candidates(kernels, &lines, |kernel| kernel, caps)
    }

    fn flops(&self, inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        3 * inputs[0].elements() as u64
    }
}

/// The derivative of each loss with respect to its logits; reads (logits, labels, norms, weights of labels).
#[derive(Debug)]
struct Slope(Rule);

impl Op for Slope {
    fn name(&self) -> &'static str {
        "cross_entropy_slope"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![inputs[0].clone()])
    }

    /// The slope is `a p - t` with probabilities p and constant a and t, so its gradient is `a p (u - sum(u p))`.
    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, u) = (node.x(0), node.dy());
        let (g, p) = (x.graph(), x.softmax(1));
        let mut a = node.x(3) * (1.0 - self.0.smoothing);
        if self.0.smoothing > 0.0 {
            let total = if self.0.weighted { node.x(5).clone() } else { g.full([], x.shape()[1] as f32) };
            let mut shares = total * (self.0.smoothing / x.shape()[1] as f32);
            if let Some(index) = self.0.ignored {
                shares = shares * (1.0 - node.x(1).eq(&g.full_u32([], index)));
            }
            a = a + shares;
        }
        let centred = &u - (&u * &p).sum(&[1], true);
        vec![Some(a.unsqueeze(1) * p * centred)]
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let lines = Rule::lines(&io.inputs[0]);
        let args = [Arg::In(1), Arg::In(2), Arg::In(3), Arg::Out(0)];
        let fit = |kernel: Kernel| self.0.fit(kernel.stream(Arg::In(0)).bind(args.clone()), &lines, io.inputs.len());
        let shader = shader!("cross_entropy.wgsl");
        let of_lines = lines::candidates(lines::kernels(shader, "slope").map(&fit), &lines, |kernel| kernel, caps);
        let threads = io.elements() / if lines.vectors() { 4 } else { 1 };
        let each = fit(Kernel::new(shader, "each")).set("LINES", lines.count).set("LENGTH", lines.length);
        let each = Candidate::single("each", each.set("STEP", lines.step).grid(caps.fold(threads.div_ceil(64))));
        // There are no sums over a line, so of its teams the preferred one is as good as all.
        let mut all: Vec<Candidate> = of_lines.into_iter().take(1).collect();
        all.insert(if caps.cpu { all.len() } else { 0 }, each);
        all
    }

    fn epilogue(&self) -> bool {
        true
    }
}

impl Tensor {
    /// Mean cross-entropy of logits [N, classes, ...] and u32 labels [N, ...].
    #[track_caller]
    pub fn cross_entropy(&self, labels: &Tensor) -> Tensor {
        self.cross_entropy_with(labels, &CrossEntropy::new())
    }

    /// Cross-entropy of logits [N, classes, ...] and u32 labels [N, ...], `-log softmax(logits)[label]`.
    ///
    /// A label that is not below the number of classes is refused when it is written; one that was computed on the
    /// device makes its loss NaN.
    #[track_caller]
    pub fn cross_entropy_with(&self, labels: &Tensor, options: &CrossEntropy) -> Tensor {
        let graph = self.graph();
        if let Err(message) = check(self.desc(), labels.desc(), options) {
            return graph.poison("cross_entropy", message);
        }
        let except: Vec<u32> = options.ignore_index.into_iter().collect();
        graph.bound(labels, 0..self.shape()[1] as u32, &except);
        let rule = Rule {
            smoothing: options.label_smoothing,
            ignored: options.ignore_index,
            weighted: options.weight.is_some(),
        };
        let total = options.weight.as_ref().map(|weight| weight.sum(&[], false));
        let inputs: Vec<&Tensor> = [self, labels].into_iter().chain(&options.weight).chain(&total).collect();
        let mut outputs = graph.push(Losses(rule), &inputs).into_iter();
        let (Some(losses), _, weights) = (outputs.next(), outputs.next(), outputs.next()) else {
            return graph.poison("cross_entropy", "it has no output");
        };
        let uneven = options.weight.is_some() || options.ignore_index.is_some();
        match (options.reduction, weights) {
            (Reduction::None, _) => losses,
            (Reduction::Mean, Some(weights)) if uneven => losses.sum(&[], false) / weights.sum(&[], false),
            (Reduction::Mean, _) => losses.mean(&[], false),
            (Reduction::Sum, _) => losses.sum(&[], false),
        }
    }
}

fn check(logits: &Desc, labels: &Desc, options: &CrossEntropy) -> Result<(), String> {
    let mut expected = logits.shape.to_vec();
    let classes = if expected.len() < 2 { 0 } else { expected.remove(1) };
    if classes == 0 || labels.shape[..] != expected || labels.dtype != DType::U32 || logits.dtype != DType::F32 {
        return Err(format!("f32 logits [N, classes, ...] {logits} need u32 labels {expected:?}, not {labels}"));
    }
    match options.weight.as_ref().filter(|w| w.shape() != [classes] || w.dtype() != DType::F32) {
        Some(weight) => Err(format!("{classes} classes need as many f32 weights, not {}", weight.desc())),
        None if !(0.0..=1.0).contains(&options.label_smoothing) => {
            Err(format!("label smoothing is {}, but must be from 0 to 1", options.label_smoothing))
        }
        None => Ok(()),
    }
}
