//! Normalization: sets of elements brought to mean 0 and variance 1, then scaled and shifted by channel.

use super::{Array, Attrs, Named};

/// Which elements are normalized together.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sets {
    /// As many neighbouring elements; each has a channel of its own.
    Last(usize),
    /// The channels (axis 1) of an image in as many groups.
    Groups(usize),
    /// Each channel of an image.
    Instances,
    /// Each channel of the batch.
    Batch,
}

#[derive(Clone, Copy, Debug)]
pub struct Normalize {
    sets: Sets,
    /// Whether the mean is subtracted.
    centred: bool,
    eps: f64,
}

impl Normalize {
    /// `None` for any other op.
    pub fn new(op: &str, attrs: Attrs) -> Option<Self> {
        let sets = match op {
            "layer_norm" | "rms_norm" => Sets::Last(attrs.usizes("normalized_shape").iter().product()),
            "group_norm" => Sets::Groups(attrs.usize("num_groups")),
            "instance_norm" => Sets::Instances,
            "batch_norm" => Sets::Batch,
            _ => return None,
        };
        Some(Normalize { sets, centred: op != "rms_norm", eps: attrs.f64("eps") })
    }

    /// The set and the channel of the element at `flat`.
    fn place(&self, x: &Array, flat: usize) -> (usize, usize) {
        if let Sets::Last(length) = self.sets {
            return (flat / length, flat % length);
        }
        let (image, channel) = (x.index_of(flat)[0], x.index_of(flat)[1]);
        let groups = match self.sets {
            Sets::Groups(groups) => groups,
            Sets::Batch => return (channel, channel),
            _ => x.shape[1],
        };
        (image * groups + channel / (x.shape[1] / groups), channel)
    }

    /// What one set is made of, all sets.
    fn members(&self, x: &Array) -> Vec<Vec<usize>> {
        let mut members = Vec::new();
        for flat in 0..x.len() {
            let (set, _) = self.place(x, flat);
            members.resize(members.len().max(set + 1), Vec::new());
            members[set].push(flat);
        }
        members
    }

    /// Mean and mean square of what is left.
    fn moments(&self, x: &Array, set: &[usize]) -> (f64, f64) {
        let mean_of = |f: &dyn Fn(f64) -> f64| set.iter().map(|&i| f(x.data[i])).sum::<f64>() / set.len() as f64;
        let mean = if self.centred { mean_of(&|v| v) } else { 0.0 };
        (mean, mean_of(&|v| (v - mean).powi(2)))
    }

    pub fn forward(&self, inputs: &Named) -> Array {
        let x = &inputs["x"];
        let mut y = x.clone();
        for set in self.members(x) {
            let (mean, square) = self.moments(x, &set);
            for i in set {
                let (_, channel) = self.place(x, i);
                let n = (x.data[i] - mean) / (square + self.eps).sqrt();
                y.data[i] = n * factor(inputs, "weight", channel, 1.0) + factor(inputs, "bias", channel, 0.0);
            }
        }
        y
    }

    /// The gradients of x, the weight and the bias.
    pub fn vjp(&self, inputs: &Named, dy: &Array) -> [Array; 3] {
        let x = &inputs["x"];
        let like = |name: &str| inputs.get(name).map_or(Array::zeros([0]), |t| Array::zeros(t.shape.clone()));
        let [mut dx, mut dweight, mut dbias] = ["x", "weight", "bias"].map(like);
        for set in self.members(x) {
            let (mean, square) = self.moments(x, &set);
            let scale = 1.0 / (square + self.eps).sqrt();
            let n = |i: usize| (x.data[i] - mean) * scale;
            let g = |i: usize| dy.data[i] * factor(inputs, "weight", self.place(x, i).1, 1.0);
            let count = set.len() as f64;
            let shift = if self.centred { set.iter().map(|&i| g(i)).sum::<f64>() / count } else { 0.0 };
            let share = set.iter().map(|&i| g(i) * n(i)).sum::<f64>() / count;
            for &i in &set {
                let (_, channel) = self.place(x, i);
                dx.data[i] = scale * (g(i) - shift - n(i) * share);
                if let Some(d) = dweight.data.get_mut(channel) {
                    *d += dy.data[i] * n(i);
                }
                if let Some(d) = dbias.data.get_mut(channel) {
                    *d += dy.data[i];
                }
            }
        }
        [dx, dweight, dbias]
    }

    /// The running mean and variance after a batch: the variance is the unbiased one.
    pub fn running(&self, inputs: &Named, momentum: f64) -> [Array; 2] {
        let [mut mean, mut var] = ["running_mean", "running_var"].map(|name| inputs[name].clone());
        for (channel, set) in self.members(&inputs["x"]).iter().enumerate() {
            let (m, square) = self.moments(&inputs["x"], set);
            let count = set.len() as f64;
            mean.data[channel] += momentum * (m - mean.data[channel]);
            var.data[channel] += momentum * (square * count / (count - 1.0) - var.data[channel]);
        }
        [mean, var]
    }
}

/// Of a channel, where `inputs` have it.
fn factor(inputs: &Named, name: &str, channel: usize, otherwise: f64) -> f64 {
    inputs.get(name).map_or(otherwise, |factors| factors.data[channel])
}

/// Batch normalization with the running mean and variance, as after training.
pub fn batch_norm_eval(inputs: &Named, eps: f64) -> Array {
    let x = &inputs["x"];
    Array::from_fn(x.shape.clone(), |index| {
        let (v, c) = (x.at(index), index[1]);
        let n = (v - inputs["running_mean"].data[c]) / (inputs["running_var"].data[c] + eps).sqrt();
        n * factor(inputs, "weight", c, 1.0) + factor(inputs, "bias", c, 0.0)
    })
}

/// Its gradients of x, the weight and the bias.
pub fn batch_norm_eval_vjp(inputs: &Named, eps: f64, dy: &Array) -> [Array; 3] {
    let x = &inputs["x"];
    let (mut dx, channels) = (x.clone(), x.shape[1]);
    let (mut dweight, mut dbias) = (Array::zeros([channels]), Array::zeros([channels]));
    for i in 0..x.len() {
        let c = x.index_of(i)[1];
        let scale = 1.0 / (inputs["running_var"].data[c] + eps).sqrt();
        dx.data[i] = dy.data[i] * scale * factor(inputs, "weight", c, 1.0);
        dweight.data[c] += dy.data[i] * scale * (x.data[i] - inputs["running_mean"].data[c]);
        dbias.data[c] += dy.data[i];
    }
    [dx, dweight, dbias]
}
