//! What a training run needs around its steps: losses that arrive later, checkpoints, pictures.

mod losses;
#[cfg(feature = "cli")]
pub mod pictures;
mod session;

pub use losses::Losses;
pub use session::Session;
