//! Shadegrad: neural networks as hand-written WGSL compute shaders.
#![deny(unsafe_code, missing_docs)]

#[cfg(feature = "data")]
pub mod data;
mod error;
pub mod gpu;
pub mod graph;
pub mod io;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod reflect;
mod rng;
pub mod train;
#[cfg(feature = "translate")]
pub mod translate;
pub mod tune;

pub use error::{Error, Result};
pub use gpu::{Gpu, Program};
pub use graph::{DType, Function, Graph, Param, Shape, Tensor};
pub use wgpu;

/// The README's code, kept compiling.
#[cfg(all(doctest, feature = "data"))]
#[doc = include_str!("../README.md")]
struct Readme;
