//! Shadegrad: neural networks as hand-written WGSL compute shaders.
#![deny(unsafe_code, missing_docs)]

#[cfg(feature = "data")]
pub mod data;
mod error;
pub mod io;
pub mod optim;

pub use error::{Error, Result};
pub use wgpu;
