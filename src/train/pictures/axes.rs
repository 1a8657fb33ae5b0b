//! Scales with round ticks, and the empty panel that a plot is drawn into.

use super::canvas::{Align, Canvas, GRID, INK, MUTED, Style};

/// Size of the numbers along an axis.
pub(super) const TICK_SIZE: f32 = 16.0;
/// Room below a panel for its numbers and its label.
pub(super) const BELOW: f32 = 54.0;

/// One axis: the range it shows and whether it is logarithmic.
pub(super) struct Scale {
    low: f64,
    high: f64,
    log: bool,
    unit: &'static str,
}

/// A line of the grid.
pub(super) struct Tick {
    /// Where, from 0 at the low end to 1 at the high end.
    pub at: f32,
    /// Empty for a line between the labelled ones.
    pub label: String,
}

impl Scale {
    /// An axis over exactly `low..=high`; `unit` follows each number.
    pub fn linear(low: f64, high: f64, unit: &'static str) -> Self {
        let (low, high) = if high > low {
            (low, high)
        } else {
            let room = (low.abs() * 0.1).max(0.5);
            (low - room, low + room)
        };
        Self { low, high, log: false, unit }
    }

    /// A logarithmic axis; both ends must be positive.
    pub fn log(low: f64, high: f64) -> Self {
        Self { low: low.log10(), high: high.log10(), log: true, unit: "" }
    }

    /// The same axis with `share` of its length added at both ends.
    pub fn padded(self, share: f64) -> Self {
        let room = (self.high - self.low) * share;
        Self { low: self.low - room, high: self.high + room, ..self }
    }

    /// The same axis, cut to what lies within `low..=high`; `self` must overlap it.
    pub fn within(self, low: f64, high: f64) -> Self {
        Self { low: self.low.max(low), high: self.high.min(high), ..self }
    }

    /// Where `value` lies, from 0 at the low end to 1 at the high end.
    pub fn at(&self, value: f64) -> f32 {
        let value = if self.log { value.log10() } else { value };
        ((value - self.low) / (self.high - self.low)) as f32
    }

    /// Grid lines, about `count` of them labelled.
    pub fn ticks(&self, count: usize) -> Vec<Tick> {
        if self.log { self.decades(count) } else { self.round_steps(count) }
    }

    fn round_steps(&self, count: usize) -> Vec<Tick> {
        let step = round_step((self.high - self.low) / count.max(1) as f64);
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        let first = (self.low / step - 1e-6).ceil() as i64;
        let last = (self.high / step + 1e-6).floor() as i64;
        let thousands = self.high.abs().max(self.low.abs()) >= 10_000.0;
        (first..=last)
            .map(|i| {
                let value = i as f64 * step;
                let label = if thousands { shortened(value) } else { signed(format!("{value:.decimals$}")) };
                Tick { at: self.at(value), label: format!("{label}{}", self.unit) }
            })
            .collect()
    }

    fn decades(&self, count: usize) -> Vec<Tick> {
        let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
        let labelled = (self.high.floor() - self.low.ceil()).max(0.0) as usize + 1;
        let every = labelled.div_ceil(count.max(1)) as i32;
        let mut ticks = Vec::new();
        for decade in first..=last {
            for digit in 1..10 {
                let value = f64::from(digit) * 10f64.powi(decade);
                let at = self.at(value);
                if (-1e-4..=1.0001).contains(&at) {
                    let labelled = digit == 1 && decade.rem_euclid(every) == 0;
                    let label = if labelled { power_of_ten(decade) } else { String::new() };
                    ticks.push(Tick { at, label });
                }
            }
        }
        ticks
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is no less than `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-300).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&step| step >= least * 0.999_999).unwrap_or(power)
}

fn power_of_ten(exponent: i32) -> String {
    match exponent {
        -4..0 => format!("{:.*}", exponent.unsigned_abs() as usize, 10f64.powi(exponent)),
        0..5 => format!("{}", 10i64.pow(exponent.unsigned_abs())),
        _ => signed(format!("1e{exponent}")),
    }
}

/// A large number in a few characters: `20k`, `1.5M`.
fn shortened(value: f64) -> String {
    let size = value.abs();
    let (divisor, suffix) = match size {
        _ if size >= 1e9 => (1e9, "G"),
        _ if size >= 1e6 => (1e6, "M"),
        _ if size >= 1e3 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let digits = format!("{:.3}", value / divisor);
    signed(format!("{}{suffix}", digits.trim_end_matches('0').trim_end_matches('.')))
}

/// A number with a true minus sign.
pub(super) fn signed(number: String) -> String {
    number.replace('-', "−")
}

/// A rectangle of the sheet with a scale along each side.
pub(super) struct Panel {
    pub left: f32,
    pub top: f32,
    pub width: f32,
    pub height: f32,
    pub x: Scale,
    pub y: Scale,
}

impl Panel {
    /// The pixel of a point.
    pub fn place(&self, x: f64, y: f64) -> (f32, f32) {
        (self.left + self.x.at(x) * self.width, self.top + (1.0 - self.y.at(y)) * self.height)
    }

    /// Labelled positions from the left, thinned out for narrow panels.
    fn columns(&self) -> Vec<Tick> {
        self.x.ticks((self.width / 90.0).max(2.0) as usize)
    }

    fn rows(&self) -> Vec<Tick> {
        self.y.ticks((self.height / 56.0).max(2.0) as usize)
    }

    /// The lines of the grid.
    pub fn grid(&self, canvas: &mut Canvas) {
        for tick in self.columns() {
            let x = (self.left + tick.at * self.width).round();
            canvas.rect(x, self.top, 1.0, self.height, GRID);
        }
        for tick in self.rows() {
            let y = (self.top + (1.0 - tick.at) * self.height).round();
            let color = if tick.label.is_empty() { [243, 244, 246] } else { GRID };
            canvas.rect(self.left, y, self.width, 1.0, color);
        }
    }

    /// The numbers along both axes, and the label below.
    pub fn labels(&self, canvas: &mut Canvas, below: &str) {
        let style = Style::new(TICK_SIZE, MUTED);
        let bottom = self.top + self.height;
        for tick in self.columns() {
            let x = self.left + tick.at * self.width;
            canvas.text(x, bottom + 24.0, &tick.label, style.align(Align::Centre));
        }
        for tick in self.rows() {
            let y = self.top + (1.0 - tick.at) * self.height;
            canvas.text(self.left - 10.0, y + TICK_SIZE * 0.35, &tick.label, style.align(Align::Right));
        }
        let middle = self.left + self.width / 2.0;
        canvas.text(middle, bottom + 46.0, below, Style::new(17.0, INK).align(Align::Centre));
    }

    /// The width that the numbers on the left need.
    pub fn label_width(&self, canvas: &Canvas) -> f32 {
        let widths = self.rows().into_iter().map(|tick| canvas.font.width(&tick.label, TICK_SIZE));
        widths.fold(0.0, f32::max) + 12.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale, count: usize) -> Vec<String> {
        scale.ticks(count).into_iter().map(|tick| tick.label).filter(|label| !label.is_empty()).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&Scale::linear(0.0, 1.0, ""), 5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Scale::linear(-1.0, 1.0, ""), 2), ["−1", "0", "1"]);
        assert_eq!(labels(&Scale::linear(0.0, 60_000.0, ""), 3), ["0", "20k", "40k", "60k"]);
        assert_eq!(labels(&Scale::linear(90.0, 100.0, "%"), 2), ["90%", "95%", "100%"]);
        assert_eq!(labels(&Scale::log(0.001, 10.0), 5), ["0.001", "0.01", "0.1", "1", "10"]);
    }

    #[test]
    fn a_range_of_one_value_still_has_an_axis() {
        let scale = Scale::linear(3.0, 3.0, "");
        assert_eq!(scale.at(3.0), 0.5);
        assert!(!scale.ticks(4).is_empty());
    }
}
