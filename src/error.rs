//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Every message names the thing at fault and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A bad shape, dtype or attribute while a graph was built; the first one is kept and returned by `compile`.
    #[error("{op}: {message} (at {site})")]
    Graph {
        /// The operation, by its method name.
        op: String,
        /// What is wrong, with the shapes involved.
        message: String,
        /// `file:line` of the call.
        site: String,
    },
    /// No adapter, or none that matches what was asked for.
    #[error("{0}")]
    NoAdapter(String),
    /// The device refused something; the message is the driver's or the validation's.
    #[error("the device refused {what}: {message}")]
    Device {
        /// What was being done.
        what: String,
        /// The driver's words.
        message: String,
    },
    /// The device's memory is exhausted.
    #[error("out of device memory while {what}; use a smaller batch, or close other programs that use the GPU")]
    OutOfMemory {
        /// What was being done.
        what: String,
    },
    /// The device is gone (driver reset, unplugged, destroyed); its buffers are lost, files are not.
    #[error("the device was lost ({0}); open a new `Gpu` and resume from the last checkpoint, which is intact")]
    DeviceLost(String),
    /// Something needs more than the device's limits allow.
    #[error("{what} needs {need}, but this device allows {limit} ({remedy})")]
    Limit {
        /// The tensor, kernel or binding.
        what: String,
        /// What it needs.
        need: String,
        /// The device's limit.
        limit: String,
        /// What the caller can do.
        remedy: String,
    },
    /// A shader that does not parse, validate or specialise.
    #[error("shader {shader}: {message}")]
    Shader {
        /// The shader's file name.
        shader: String,
        /// The compiler's message, with line numbers.
        message: String,
    },
    /// An argument or a value handed to the library is wrong.
    #[error("{what}: {message}")]
    Argument {
        /// The argument or the thing it is for.
        what: String,
        /// What is wrong with it, and the remedy.
        message: String,
    },
    /// Reading or writing a file failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file that is not what it should be: truncated, of another format, inconsistent.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong in it, and the remedy.
        message: String,
    },
    /// A state dict that does not fit the network: tensors missing, extra or of another shape.
    #[error("the state does not fit the network: {0}")]
    State(String),
    /// A sanitizer finding: a kernel wrote outside its buffer, left elements unwritten or made a NaN.
    #[error(
        "sanitizer: kernel {kernel} (candidate {candidate}) of {node}: element {element} of binding {binding} {fault}"
    )]
    Sanitizer {
        /// The shader's file and the entry point.
        kernel: String,
        /// The candidate that the kernel belongs to.
        candidate: &'static str,
        /// The nodes that it computes, as the plan lists them.
        node: String,
        /// The binding's number and what is bound there.
        binding: String,
        /// Which element, counted from the start of what is bound there.
        element: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// A value that must be finite is not.
    #[error("{what} is {value} at step {step}; {remedy}")]
    NotFinite {
        /// What was looked at: the loss, a norm.
        what: String,
        /// NaN or an infinity.
        value: f32,
        /// The training step, counted from 1.
        step: u64,
        /// What was kept and what to try.
        remedy: String,
    },
}

impl Error {
    /// An [`Error::Io`] about `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_owned(), source }
    }

    /// An [`Error::Format`] about `path`.
    pub fn format(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::Format { path: path.as_ref().to_owned(), message: message.into() }
    }

    /// An [`Error::Argument`] about `what`.
    pub fn argument(what: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Argument { what: what.into(), message: message.into() }
    }
}
