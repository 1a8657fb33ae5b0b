//! What measurements on the device have shown, kept from one process to the next: which kernels are the fastest, and
//! what the device can do at the most ([`Roofline`]).
//!
//! Ops offer several kernels for the same work ([`crate::graph::choose`]). Which is the fastest depends on device, driver
//! and shapes; [`Gpu::tune`](crate::Gpu::tune) measures it, at first use where
//! [`Options::tune`](crate::gpu::Options::tune) is on or ahead of time with `shadegrad tune`, and what it chose is kept
//! in a file for each adapter and driver, in the folder `shadegrad` of the user's cache, or where `SHADEGRAD_CACHE` says.
//! Where tuning is off - in browsers, in tests, by default - the shipped defaults of the class of devices serve.
//!
//! An app that keeps its own files takes [`Gpu::choices`](crate::Gpu::choices) and gives them to
//! [`Options::choices`](crate::gpu::Options::choices) the next time:
//!
//! ```
//! use shadegrad::gpu::Options;
//! use shadegrad::graph::choose::Choices;
//! use shadegrad::{Gpu, Graph};
//!
//! let gpu = Gpu::new()?;
//! let g = Graph::inference();
//! let y = g.input([100, 60]).matmul(&g.input([60, 40]));
//! println!("{}", gpu.tune(&g.function([&y]))?); // what was tried, and what won
//! let text = gpu.choices().to_json();
//!
//! let choices = Choices::from_json(&text)?;
//! let gpu = Gpu::open(&Options { choices: Some(choices), ..Options::default() })?;
//! # Ok::<(), shadegrad::Error>(())
//! ```

mod file;
mod json;
mod load;
mod roofline;

pub(crate) use file::ChoiceFile;
pub use load::busy;
pub use roofline::{Roof, Roofline};
