//! Files: safetensors and checkpoints.
//!
//! A [`HostTensor`] is plain bytes with a shape, a [`StateDict`] is a set of them by name,
//! and a [`Checkpoint`] is what a training run needs to go on; [`state_dict`] and [`load_state_dict`] move them between
//! host and device. Files are replaced atomically, so that a process that
//! dies while it saves leaves a complete file behind.

// Tensors travel between files, host memory and the device as raw bytes; safetensors fixes them as little-endian.
#[cfg(target_endian = "big")]
compile_error!("tensor bytes are little-endian in files and in memory; big-endian hosts are not supported");

pub(crate) mod atomic;
mod checkpoint;
mod model;
mod safetensors;
mod state;
mod tensor;

pub use checkpoint::{Checkpoint, DataOrder};
pub(crate) use model::{check_state_dict, distinct};
pub use model::{load_state_dict, state_dict};
pub use state::StateDict;
pub use tensor::{HostTensor, HostType};
