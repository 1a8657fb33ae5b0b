//! Scaled dot-product attention, one query at a time.

use super::{Array, Attrs, Named};

#[derive(Clone, Copy, Debug)]
pub struct Attention {
    scale: f64,
    causal: bool,
    /// The mask holds 1 for what may be seen, and is not added.
    allowed: bool,
}

impl Attention {
    pub fn new(attrs: Attrs) -> Self {
        let allowed = attrs.0["mask"].as_str() == Some("bool");
        Attention { scale: attrs.f64("scale"), causal: attrs.bool("causal"), allowed }
    }

    /// The mask for all scores [..., queries, keys].
    fn mask(x: &Named) -> Option<Array> {
        let lead = &x["q"].shape[..x["q"].rank() - 1];
        x.get("mask").map(|mask| mask.broadcast_to(&[lead, &[matrix(&x["k"])[0]]].concat()))
    }

    /// The shares of the keys in query `m` of a batch; of a query that sees nothing they are zeros.
    fn shares(&self, x: &Named, mask: Option<&Array>, batch: usize, m: usize) -> Vec<f64> {
        let ([queries, d], [keys, _]) = (matrix(&x["q"]), matrix(&x["k"]));
        let (q, k) = (&x["q"].data[(batch * queries + m) * d..], &x["k"].data[batch * keys * d..]);
        let score = |n: usize| {
            let product: f64 = (0..d).map(|i| q[i] * k[n * d + i]).sum::<f64>() * self.scale;
            match mask.map(|mask| mask.data[(batch * queries + m) * keys + n]) {
                _ if self.causal && n > m => f64::NEG_INFINITY,
                Some(0.0) if self.allowed => f64::NEG_INFINITY,
                Some(mask) if !self.allowed => product + mask,
                _ => product,
            }
        };
        let scores: Vec<f64> = (0..keys).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if most == f64::NEG_INFINITY {
            return vec![0.0; keys];
        }
        let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
        scores.iter().map(|s| (s - most).exp() / total).collect()
    }

    pub fn forward(&self, x: &Named) -> Array {
        let ([queries, _], [keys, e]) = (matrix(&x["q"]), matrix(&x["v"]));
        let lead = &x["q"].shape[..x["q"].rank() - 1];
        let mut y = Array::zeros([lead, &[e]].concat());
        let mask = Self::mask(x);
        for row in 0..y.len() / e.max(1) {
            let (batch, m) = (row / queries, row % queries);
            for (n, share) in self.shares(x, mask.as_ref(), batch, m).into_iter().enumerate() {
                for c in 0..e {
                    y.data[row * e + c] += share * x["v"].data[(batch * keys + n) * e + c];
                }
            }
        }
        y
    }

    /// The gradients of queries, keys, values, and of a mask that is added.
    pub fn vjp(&self, x: &Named, dy: &Array) -> Named {
        let ([queries, d], [keys, e]) = (matrix(&x["q"]), matrix(&x["v"]));
        let lead = &x["q"].shape[..x["q"].rank() - 2];
        let mask = Self::mask(x);
        let mut dscores = Array::zeros([lead, &[queries, keys]].concat());
        let [mut dq, mut dk, mut dv] = ["q", "k", "v"].map(|name| Array::zeros(x[name].shape.clone()));
        for row in 0..dy.len() / e.max(1) {
            let (batch, m) = (row / queries, row % queries);
            let shares = self.shares(x, mask.as_ref(), batch, m);
            let value = |n: usize, c: usize| (batch * keys + n) * e + c;
            let arriving: Vec<f64> =
                (0..keys).map(|n| (0..e).map(|c| dy.data[row * e + c] * x["v"].data[value(n, c)]).sum()).collect();
            let mean: f64 = shares.iter().zip(&arriving).map(|(p, a)| p * a).sum();
            for n in 0..keys {
                dscores.data[row * keys + n] = shares[n] * (arriving[n] - mean);
                let dscore = dscores.data[row * keys + n] * self.scale;
                for i in 0..d {
                    dq.data[row * d + i] += dscore * x["k"].data[(batch * keys + n) * d + i];
                    dk.data[(batch * keys + n) * d + i] += dscore * x["q"].data[row * d + i];
                }
                for c in 0..e {
                    dv.data[value(n, c)] += shares[n] * dy.data[row * e + c];
                }
            }
        }
        let mut grads: Named = ["q", "k", "v"].map(str::to_owned).into_iter().zip([dq, dk, dv]).collect();
        if let Some(mask) = x.get("mask").filter(|_| !self.allowed) {
            grads.insert("mask".into(), dscores.sum_to(&mask.shape));
        }
        grads
    }
}

/// The last two extents.
fn matrix(x: &Array) -> [usize; 2] {
    [x.shape[x.rank() - 2], x.shape[x.rank() - 1]]
}
