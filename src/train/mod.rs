//! What a training run needs around its steps: losses that arrive later, checkpoints, pictures.

#[cfg(feature = "cli")]
mod console;
mod losses;
#[cfg(feature = "cli")]
pub mod pictures;
mod session;

#[cfg(feature = "cli")]
pub use console::{interrupt, positive, progress};
pub use losses::Losses;
pub use session::Session;
