//! What a training run shows and hears on a terminal.

use crate::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that is set when Ctrl-C is pressed, so that a loop can finish its step and save.
///
/// # Errors
/// A second call in one process.
pub fn interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let set = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    set.map_err(|error| Error::argument("Ctrl-C", error.to_string()))?;
    Ok(stop)
}

/// A progress bar over this many steps, from step `first` on: a message, and the time left.
pub fn progress(steps: u64, first: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30.cyan/blue} {pos}/{len} steps  {msg}  {eta} left");
    let bar = ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_position(first);
    bar.reset_eta();
    bar
}

/// Parses a command line's number of at least 1, for `#[arg(value_parser = positive())]`.
pub fn positive() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..)
}
