//! Tables of vectors.

use super::Module;
use super::init::normal;
use crate::graph::{Param, Tensor};

/// A vector for each of `rows` numbers (tokens): u32 [...] -> [..., width], as PyTorch's `Embedding`.
///
/// The gradient of a table of more than 256 rows, which is looked up once, knows the rows in use: an optimizer that changes
/// nothing where the gradient is zero (SGD without momentum or weight decay, Adagrad without weight decay) passes over
/// those alone, however large the table is.
///
/// ```
/// use shadegrad::{Graph, nn::{self, Module}};
/// let embedding = nn::Embedding::new(5000, 128).padding_idx(0);
/// let g = Graph::new();
/// assert_eq!(embedding.forward(&g.input_u32([32, 50])).shape(), [32, 50, 128]);
/// ```
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Param,
    padding: Option<usize>,
}

impl Embedding {
    /// First values are bell-shaped, mean 0 and variance 1.
    pub fn new(rows: usize, width: usize) -> Self {
        Embedding { weight: normal("weight", &[rows, width], None), padding: None }
    }

    /// A row that stands for no token: zeros at first, and without a gradient. It draws new values for all rows.
    pub fn padding_idx(self, row: usize) -> Self {
        let shape = self.weight.desc().shape.to_vec();
        Embedding { weight: normal("weight", &shape, Some(row)), padding: Some(row) }
    }
}

impl Module for Embedding {
    fn forward(&self, tokens: &Tensor) -> Tensor {
        tokens.embedding(&tokens.graph().param(&self.weight), self.padding)
    }

    fn parameters(&self) -> Vec<(String, Param)> {
        vec![("weight".into(), self.weight.clone())]
    }
}
