//! Losses, composed of other ops.

use crate::graph::{DType, Tensor};

/// How the losses of single elements become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Their mean; in a weighted cross-entropy, weighted.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Not at all.
    None,
}

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

    /// A weight for each class, f32 `[classes]`.
    pub fn weight(mut self, weight: &Tensor) -> Self {
        self.weight = Some(weight.clone());
        self
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
    /// A label that is not below the number of classes is refused when it is written.
    #[track_caller]
    pub fn cross_entropy_with(&self, labels: &Tensor, options: &CrossEntropy) -> Tensor {
        let graph = self.graph();
        let mut expected = self.shape().to_vec();
        if self.rank() < 2
            || {
                expected.remove(1);
                labels.shape() != expected
            }
            || labels.dtype() != DType::U32
        {
            let message = format!("logits {} need u32 labels {expected:?}, not {}", self.desc(), labels.desc());
            return graph.poison("cross_entropy", message);
        }
        let classes = self.shape()[1];
        if let Some(w) = options.weight.as_ref().filter(|w| w.shape() != [classes] || w.dtype() != DType::F32) {
            return graph
                .poison("cross_entropy", format!("{classes} classes need as many f32 weights, not {}", w.desc()));
        }
        let except: Vec<u32> = options.ignore_index.into_iter().collect();
        // An ignored label may be any number, so it is replaced by class 0 before anything is looked up.
        let kept = options.ignore_index.map(|index| 1.0 - labels.eq(&graph.full_u32([], index)));
        let safe = match &kept {
            Some(kept) => kept.where_(labels, &graph.full_u32([], 0)),
            None => labels.clone(),
        };
        let log_p = self.log_softmax(1);
        // Log-likelihoods; the sign changes once they are one number.
        let mut picked = log_p.gather(1, &safe.unsqueeze(1)).squeeze(1);
        let mut weights = kept;
        let by_class = options.weight.as_ref().map(|w| {
            let mut shape = vec![1; self.rank()];
            shape[1] = classes;
            w.reshape(shape)
        });
        if let Some(by_class) = &by_class {
            let own = by_class.expand(self.shape()).gather(1, &safe.unsqueeze(1)).squeeze(1);
            weights = Some(match weights {
                Some(kept) => kept * own,
                None => own,
            });
        }
        graph.bound(labels, classes as u32, &except);
        let smoothing = options.label_smoothing;
        if let Some(weights) = &weights {
            picked = picked * weights;
        }
        let mut losses = if smoothing == 0.0 { picked } else { picked * (1.0 - smoothing) };
        if smoothing != 0.0 {
            // The uniform part: every class with its own weight.
            let weighted = match &by_class {
                Some(by_class) => &log_p * by_class,
                None => log_p.clone(),
            };
            let mut uniform = weighted.sum(&[1], false) * (smoothing / classes as f32);
            if let Some(index) = options.ignore_index {
                uniform = uniform * (1.0 - labels.eq(&graph.full_u32([], index)));
            }
            losses = losses + uniform;
        }
        match (options.reduction, weights) {
            (Reduction::None, _) => -losses,
            (Reduction::Sum, _) => -losses.sum(&[], false),
            (Reduction::Mean, None) => -losses.mean(&[], false),
            (Reduction::Mean, Some(weights)) => -(losses.sum(&[], false) / weights.sum(&[], false)),
        }
    }

    /// Squared differences to `target`, reduced.
    #[track_caller]
    pub fn mse_loss(&self, target: &Tensor, reduction: Reduction) -> Tensor {
        let losses = (self - target).square();
        match reduction {
            Reduction::Mean => losses.mean(&[], false),
            Reduction::Sum => losses.sum(&[], false),
            Reduction::None => losses,
        }
    }
}
