//! The handle on a node's output.

use super::{DType, Desc, Graph, Value};
use std::fmt;

/// A cheap handle on one output of one node: shape and type, no data.
///
/// Its methods are named as PyTorch's; each adds a node to the graph.
#[derive(Clone)]
pub struct Tensor {
    graph: Graph,
    value: Value,
    desc: Desc,
}

impl Tensor {
    pub(crate) fn new(graph: Graph, value: Value, desc: Desc) -> Self {
        Tensor { graph, value, desc }
    }

    /// The graph it belongs to.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Which node's which output it is.
    pub fn value(&self) -> Value {
        self.value
    }

    /// Shape and type.
    pub fn desc(&self) -> &Desc {
        &self.desc
    }

    /// The extents.
    pub fn shape(&self) -> &[usize] {
        &self.desc.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.desc.dtype
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.desc.shape.len()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.desc.elements()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}.{} {}", self.value.node, self.value.output, self.desc)
    }
}
