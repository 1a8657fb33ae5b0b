//! What a network makes of every point of a plane.

use std::path::Path;

use super::axes::{BELOW, Panel, Scale};
use super::canvas::{Canvas, INK, MISSING, PALETTE, Rgb, WHITE, mix};
use super::check_length;
use crate::{Error, Result};

const MARGIN: f32 = 24.0;
const LONG_SIDE: f32 = 780.0;

/// Draws a decision boundary over the plane `bounds`, `(x_min, x_max, y_min, y_max)`.
///
/// `field` holds the probability of class 1 on a grid of `size` `[height, width]` whose outermost samples lie on the
/// bounds, the row of the smallest y first. The line is where it passes 0.5. `points` are `(x, y, class)`; those out of
/// bounds are left out.
pub fn plane(
    path: impl AsRef<Path>,
    bounds: (f32, f32, f32, f32),
    field: &[f32],
    size: [usize; 2],
    points: &[(f32, f32, u32)],
) -> Result<()> {
    let (x_min, x_max, y_min, y_max) = bounds;
    let (x_span, y_span) = (x_max - x_min, y_max - y_min);
    if !(x_span > 0.0 && y_span > 0.0 && x_span.is_finite() && y_span.is_finite()) {
        return Err(Error::argument("plane", format!("{bounds:?} are not bounds (x_min, x_max, y_min, y_max)")));
    }
    check_length("plane", field.len(), &size)?;
    let aspect = (x_span / y_span).clamp(0.4, 2.5);
    let (width, height) = if aspect >= 1.0 { (LONG_SIDE, LONG_SIDE / aspect) } else { (LONG_SIDE * aspect, LONG_SIDE) };
    let (width, height) = (width.round(), height.round());
    let x = Scale::linear(f64::from(x_min), f64::from(x_max), "");
    let y = Scale::linear(f64::from(y_min), f64::from(y_max), "");
    let mut panel = Panel { left: MARGIN, top: MARGIN, width, height, x, y };
    let labels = panel.label_width(&Canvas::new(1.0, 1.0)?).ceil();
    panel.left += labels;
    let mut canvas = Canvas::new(labels + width + 2.0 * MARGIN, height + MARGIN + BELOW)?;

    let field = Field { values: field, h: size[0], w: size[1] };
    for row in 0..height as u32 {
        for column in 0..width as u32 {
            let (u, v) = ((column as f32 + 0.5) / width, 1.0 - (row as f32 + 0.5) / height);
            let color = field.color(u, v, [1.0 / width, 1.0 / height]);
            canvas.pixel(panel.left as u32 + column, panel.top as u32 + row, color);
        }
    }
    canvas.frame(panel.left, panel.top, width, height, 1.0, [200, 204, 210]);
    panel.labels(&mut canvas, "");
    for &(x, y, class) in points {
        if (x_min..=x_max).contains(&x) && (y_min..=y_max).contains(&y) {
            let (x, y) = panel.place(f64::from(x), f64::from(y));
            canvas.disc(x, y, 6.2, INK);
            canvas.disc(x, y, 4.8, mix(PALETTE[class as usize % PALETTE.len()], WHITE, 0.12));
        }
    }
    canvas.save(path.as_ref())
}

struct Field<'a> {
    values: &'a [f32],
    h: usize,
    w: usize,
}

impl Field<'_> {
    /// The value at `(u, v)`, each 0 to 1, between the four samples around it.
    fn at(&self, u: f32, v: f32) -> f32 {
        let (x, y) = (u.clamp(0.0, 1.0) * (self.w - 1) as f32, v.clamp(0.0, 1.0) * (self.h - 1) as f32);
        let (i, j) = (x as usize, y as usize);
        let (right, up) = ((i + 1).min(self.w - 1), (j + 1).min(self.h - 1));
        let row = |j: usize| {
            let (a, b) = (self.values[j * self.w + i], self.values[j * self.w + right]);
            a + (b - a) * (x - i as f32)
        };
        let (low, high) = (row(j), row(up));
        low + (high - low) * (y - j as f32)
    }

    /// The colour at `(u, v)`; `step` is the size of a pixel.
    fn color(&self, u: f32, v: f32, step: [f32; 2]) -> Rgb {
        let p = self.at(u, v);
        if !p.is_finite() {
            return MISSING;
        }
        let side = if p < 0.5 { PALETTE[0] } else { PALETTE[1] };
        let base = mix(WHITE, side, 0.06 + 0.5 * (2.0 * p - 1.0).abs().min(1.0));
        // How many pixels away the contour is, as if the field were flat from here.
        let across = self.at(u + step[0], v) - self.at(u - step[0], v);
        let along = self.at(u, v + step[1]) - self.at(u, v - step[1]);
        let slope = across.hypot(along) / 2.0;
        let distance = (p - 0.5).abs() / slope;
        if distance.is_finite() { mix(base, INK, 1.7 - distance) } else { base }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_interpolated() {
        let field = Field { values: &[0.0, 1.0, 0.0, 1.0], h: 2, w: 2 };
        assert_eq!(field.at(0.0, 0.3), 0.0);
        assert_eq!(field.at(0.5, 0.3), 0.5);
        assert_eq!(field.at(1.0, 1.0), 1.0);
        assert_eq!(field.color(0.5, 0.5, [0.01, 0.01]), INK);
        let flat = Field { values: &[0.5], h: 1, w: 1 };
        assert_ne!(flat.color(0.5, 0.5, [0.01, 0.01]), INK);
    }
}
