//! Layers with the names, parameters and initialisations that PyTorch users know.
//!
//! ```
//! use shadegrad::{Graph, nn::{self, Module}};
//!
//! let net = nn::sequential((
//!     ("conv", nn::Conv2d::new(1, 8, 5).padding(2)), nn::Relu, nn::MaxPool2d::new(2),
//!     nn::Flatten, nn::Linear::new(8 * 14 * 14, 10),
//! ));
//! let g = Graph::inference();
//! let logits = net.forward(&g.input([1, 1, 28, 28]));
//! assert_eq!(logits.shape(), [1, 10]);
//! let names: Vec<String> = net.parameters().into_iter().map(|(name, _)| name).collect();
//! assert_eq!(names, ["conv.weight", "conv.bias", "4.weight", "4.bias"]);
//! ```

mod embedding;
mod init;
mod layers;
mod norms;
mod recurrent;
mod sequential;

pub use embedding::Embedding;
pub use init::manual_seed;
pub use layers::{AvgPool2d, Conv2d, Dropout, Flatten, Gelu, LeakyRelu, Linear, MaxPool2d, Relu, Sigmoid, Silu, Tanh};
pub use norms::{BatchNorm, GroupNorm, LayerNorm, RmsNorm};
pub use recurrent::{Carried, Gru, Lstm, Recurrent, Rnn, kind};
pub use sequential::{Layer, Layers, Sequential, sequential};

use crate::graph::{Param, Tensor};

/// A part of a network: parameters, and what they do to a tensor.
pub trait Module {
    /// Adds the module's nodes to the graph of `x`.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor;

    /// Its parameters by name, as in a PyTorch state dict.
    fn parameters(&self) -> Vec<(String, Param)> {
        Vec::new()
    }
}

/// Puts `prefix.` in front of a child's parameter names; for the `parameters` of modules made of others.
pub fn prefixed(prefix: &str, child: &dyn Module) -> Vec<(String, Param)> {
    let name = |(name, param): (String, Param)| {
        let name = format!("{prefix}.{name}");
        param.rename(name.clone());
        (name, param)
    };
    child.parameters().into_iter().map(name).collect()
}
