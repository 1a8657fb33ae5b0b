//! Which classes a network takes for which.

use std::path::Path;

use super::canvas::{Align, Canvas, INK, MUTED, RED, Rgb, Style, WHITE, mix};
use crate::{Error, Result};

const MARGIN: f32 = 24.0;
const BLUE: Rgb = [52, 108, 176];
const NAME_SIZE: f32 = 17.0;
const LONGEST_NAME: f32 = 170.0;
/// Cells smaller than this hold no number.
const LEAST_NUMBERED: f32 = 26.0;

/// Draws a confusion matrix: `counts[truth][predicted]`, with a name for each class.
///
/// Right answers are blue, by their share of the row; mistakes are red, the most frequent one darkest. The last column
/// gives each class's recall: the share of it that was recognised.
pub fn confusion(path: impl AsRef<Path>, counts: &[impl AsRef<[u32]>], names: &[impl AsRef<str>]) -> Result<()> {
    let counts: Vec<&[u32]> = counts.iter().map(AsRef::as_ref).collect();
    let n = names.len();
    if n == 0 {
        return Err(Error::argument("confusion matrix", "there are no classes"));
    }
    if counts.len() != n || counts.iter().any(|row| row.len() != n) {
        let message = format!("{n} class names need {n} rows of {n} counts each");
        return Err(Error::argument("confusion matrix", message));
    }
    let cell = (720.0 / n as f32).floor().clamp(12.0, 72.0);
    let numbered = cell >= LEAST_NUMBERED;
    // A first sheet only to measure the names with; its successor has the room that they need.
    let mut canvas = Canvas::new(1.0, 1.0)?;
    let name_size = NAME_SIZE.min(cell * 0.9);
    let names: Vec<String> = names.iter().map(|name| canvas.font.fit(name.as_ref(), name_size, LONGEST_NAME)).collect();
    let longest = names.iter().map(|name| canvas.font.width(name, name_size)).fold(0.0, f32::max);
    let upright = longest > cell - 6.0;
    let above = if upright { longest + 14.0 } else { 30.0 };

    let left = (MARGIN + 34.0 + longest + 12.0).ceil();
    let top = (MARGIN + 40.0 + 30.0 + above).ceil();
    let side = cell * n as f32;
    let right = if numbered { 84.0 } else { 0.0 };
    let width = (left + side + right + MARGIN).max(520.0);
    canvas = Canvas::new(width, top + side + MARGIN)?;

    let total: u64 = counts.iter().flat_map(|row| row.iter()).map(|&c| u64::from(c)).sum();
    let correct: u64 = counts.iter().enumerate().map(|(i, row)| u64::from(row[i])).sum();
    let percent = 100.0 * correct as f64 / total.max(1) as f64;
    let title = format!("{} of {} right ({percent:.2}%)", grouped(correct), grouped(total));
    canvas.text(MARGIN, MARGIN + 22.0, &title, Style::new(24.0, INK).bold());
    let label = Style::new(17.0, MUTED).align(Align::Centre);
    canvas.text(left + side / 2.0, MARGIN + 62.0, "predicted", label);
    canvas.text(MARGIN + 16.0, top + side / 2.0, "truth", label.upright());

    let name = Style::new(name_size, INK);
    for (i, text) in names.iter().enumerate() {
        let middle = (i as f32 + 0.5) * cell;
        let drop = name_size * 0.35;
        canvas.text(left - 12.0, top + middle + drop, text, name.align(Align::Right));
        if upright {
            canvas.text(left + middle + drop, top - 10.0, text, name.upright());
        } else {
            canvas.text(left + middle, top - 10.0, text, name.align(Align::Centre));
        }
    }
    cells(&mut canvas, &counts, left, top, cell, numbered);
    if numbered {
        let style = Style::new(NAME_SIZE.min(cell * 0.6), MUTED).align(Align::Right);
        for (i, row) in counts.iter().enumerate() {
            let sum: u64 = row.iter().map(|&c| u64::from(c)).sum();
            let share = if sum > 0 { format!("{:.1}%", 100.0 * f64::from(row[i]) / sum as f64) } else { "–".into() };
            let y = top + (i as f32 + 0.5) * cell + style.size * 0.35;
            canvas.text(left + side + right - 8.0, y, &share, style);
        }
        let style = Style::new(NAME_SIZE, MUTED).align(Align::Right);
        canvas.text(left + side + right - 8.0, top - 10.0, "recall", style);
    }
    canvas.save(path.as_ref())
}

fn cells(canvas: &mut Canvas, counts: &[&[u32]], left: f32, top: f32, cell: f32, numbered: bool) {
    let errors = counts.iter().enumerate().flat_map(|(i, row)| row.iter().enumerate().map(move |(j, &c)| (i, j, c)));
    let worst = errors.filter(|(i, j, _)| i != j).map(|(_, _, c)| c).max().unwrap_or_default();
    let largest = counts.iter().flat_map(|row| row.iter()).max().copied().unwrap_or_default();
    // All numbers have the size at which the widest fits its cell.
    let unit = canvas.font.width(&largest.to_string(), 1.0);
    let size = (cell * 0.36).min((cell - 8.0) / unit.max(0.1)).min(19.0);
    let gap = if cell > 20.0 { 2.0 } else { 1.0 };
    for (i, row) in counts.iter().enumerate() {
        let sum: f32 = row.iter().map(|&c| c as f32).sum();
        for (j, &count) in row.iter().enumerate() {
            let strength = match (i == j, count) {
                (_, 0) => 0.0,
                (true, _) => 0.15 + 0.85 * (count as f32 / sum).powi(2),
                // A square root, so that single mistakes show beside frequent ones.
                (false, _) => 0.12 + 0.68 * (count as f32 / worst.max(1) as f32).sqrt(),
            };
            let empty = mix(WHITE, MUTED, 0.06);
            let color = if count == 0 { empty } else { mix(WHITE, if i == j { BLUE } else { RED }, strength) };
            let (x, y) = (left + j as f32 * cell, top + i as f32 * cell);
            canvas.rect(x + gap / 2.0, y + gap / 2.0, cell - gap, cell - gap, color);
            if numbered && count > 0 {
                let style = Style::new(size, if strength > 0.7 { WHITE } else { INK }).align(Align::Centre);
                canvas.text(x + cell / 2.0, y + cell / 2.0 + size * 0.35, &count.to_string(), style);
            }
        }
    }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_grouped() {
        assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1000, 1_234_567].map(super::grouped).as_slice());
    }
}
