//! Pictures that a training run leaves behind, written as PNG files.
//!
//! Each function draws one kind of picture, makes the folders on the way to its file and returns
//! [`Error::Argument`] for lengths that do not fit. No display, system font or GPU is used:
//! the text is set in a font that comes with the crate.
//!
//! ```no_run
//! use shadegrad::train::pictures::{Curve, curves};
//!
//! let train = [(1.0, 2.30), (100.0, 0.41), (200.0, 0.12)];
//! let test = [(100.0, 0.905), (200.0, 0.968)];
//! curves(
//!     "out/curves.png",
//!     "Digits",
//!     &[Curve { name: "train", points: &train }],
//!     &[Curve { name: "test", points: &test }],
//! )?;
//! # Ok::<(), shadegrad::Error>(())
//! ```

mod axes;
mod canvas;
mod confusion;
mod curves;
mod plane;
mod tiles;

pub use confusion::confusion;
pub use curves::{Curve, curves};
pub use plane::plane;
pub use tiles::{Tile, contact_sheet, filters, heat_overlay};

use crate::{Error, Result};

/// An error unless `got` numbers are there, one for each of `shape`'s places.
fn check_length(what: &str, got: usize, shape: &[usize]) -> Result<()> {
    let need = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    match need {
        Some(0) => Err(Error::argument(what, format!("the shape {shape:?} has no elements"))),
        Some(need) if need == got => Ok(()),
        _ => Err(Error::argument(what, format!("{got} values do not fill the shape {shape:?}"))),
    }
}

#[cfg(test)]
mod tests;
