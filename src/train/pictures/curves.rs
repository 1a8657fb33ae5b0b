//! Loss and accuracy over the steps of a run.

use std::path::Path;

use super::axes::{BELOW, Panel, Scale};
use super::canvas::{Canvas, INK, MUTED, PALETTE, Rgb, Style};
use crate::{Error, Result};

/// A named series of `(step, value)` pairs, in the order of the steps.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// Steps and values; pairs that are not finite are left out.
    pub points: &'a [(f64, f64)],
}

const HEIGHT: f32 = 500.0;
const MARGIN: f32 = 26.0;
const TITLE: f32 = 58.0;
const LEGEND_SIZE: f32 = 17.0;
const LEGEND_ROW: f32 = 26.0;
/// A curve with fewer points is drawn as it is, with its points marked.
const SMOOTH_FROM: usize = 48;

/// Draws loss curves and accuracy curves side by side, 1200 pixels wide (700 where only one kind has points).
///
/// Accuracies are shares from 0 to 1 and appear in percent. Noisy curves are drawn faintly, with a smoothed line on top.
/// The loss axis is logarithmic where the losses span more than two decades. Curves of the same name share a colour.
pub fn curves(path: impl AsRef<Path>, title: &str, loss: &[Curve], accuracy: &[Curve]) -> Result<()> {
    let mut names = Vec::new();
    for curve in loss.iter().chain(accuracy) {
        if !names.contains(&curve.name) {
            names.push(curve.name);
        }
    }
    let panels: Vec<(Kind, Vec<Line>)> = [(Kind::Loss, loss), (Kind::Accuracy, accuracy)]
        .into_iter()
        .map(|(kind, curves)| (kind, lines(kind, curves, &names)))
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    if panels.is_empty() {
        return Err(Error::argument("curves", "no curve has a finite point; there is nothing to draw"));
    }
    let width = if panels.len() == 1 { 700.0 } else { 1200.0 };
    let mut canvas = Canvas::new(width, HEIGHT)?;
    let style = Style::new(24.0, INK).bold();
    let title = canvas.font.fit(title, style.size, width - 2.0 * MARGIN);
    canvas.text(MARGIN, 40.0, &title, style);
    let share = (width - MARGIN) / panels.len() as f32;
    for (i, (kind, lines)) in panels.iter().enumerate() {
        draw(&mut canvas, MARGIN + share * i as f32, share - MARGIN, *kind, lines);
    }
    canvas.save(path.as_ref())
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Loss,
    Accuracy,
}

impl Kind {
    fn format(self, value: f64) -> String {
        match self {
            Kind::Accuracy => format!("{value:.1}%"),
            Kind::Loss if value.abs() < 0.001 && value != 0.0 => format!("{value:.1e}"),
            Kind::Loss if value.abs() < 0.1 => format!("{value:.4}"),
            Kind::Loss => format!("{value:.3}"),
        }
    }
}

struct Line<'a> {
    name: &'a str,
    color: Rgb,
    points: Vec<(f64, f64)>,
    /// Of a curve long enough for it.
    smooth: Option<Vec<(f64, f64)>>,
}

fn lines<'a>(kind: Kind, curves: &[Curve<'a>], names: &[&str]) -> Vec<Line<'a>> {
    let scale = if kind == Kind::Accuracy { 100.0 } else { 1.0 };
    curves
        .iter()
        .map(|curve| {
            let place = names.iter().position(|&name| name == curve.name).unwrap_or_default();
            let finite = curve.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
            let points: Vec<(f64, f64)> = finite.map(|&(x, y)| (x, y * scale)).collect();
            let smooth = (points.len() >= SMOOTH_FROM).then(|| smoothed(&points));
            Line { name: curve.name, color: PALETTE[place % PALETTE.len()], points, smooth }
        })
        .filter(|line| !line.points.is_empty())
        .collect()
}

fn draw(canvas: &mut Canvas, left: f32, width: f32, kind: Kind, lines: &[Line]) {
    let (x_low, x_high) = range(lines.iter().flat_map(|line| line.points.iter().map(|p| p.0)));
    let (y_low, y_high) = range(lines.iter().flat_map(|line| line.points.iter().map(|p| p.1)));
    let log = kind == Kind::Loss && y_low > 0.0 && y_high / y_low > 100.0;
    let y = match kind {
        Kind::Loss if log => Scale::log(y_low, y_high).padded(0.04),
        Kind::Loss => Scale::linear(y_low, y_high, "").padded(0.05),
        Kind::Accuracy if y_low >= 0.0 && y_high <= 100.0 => {
            Scale::linear(y_low, y_high, "%").padded(0.05).within(0.0, 100.0)
        }
        Kind::Accuracy => Scale::linear(y_low, y_high, "%").padded(0.05),
    };
    let x = Scale::linear(x_low, x_high, "").padded(0.01);
    let legend = legend(canvas, width, kind, lines);
    let rows = legend.last().map_or(0, |entry| entry.row + 1);
    let top = TITLE + 24.0 + rows as f32 * LEGEND_ROW + 12.0;
    let height = (HEIGHT - top - BELOW - 10.0).max(60.0);
    let mut panel = Panel { left, top, width, height, x, y };
    let labels = panel.label_width(canvas);
    panel.left += labels;
    panel.width -= labels;

    let heading = match kind {
        Kind::Loss if log => "loss (log scale)",
        Kind::Loss => "loss",
        Kind::Accuracy => "accuracy",
    };
    canvas.text(left, TITLE + 20.0, heading, Style::new(19.0, INK).bold());
    for entry in &legend {
        let (x, y) = (left + entry.x, TITLE + 24.0 + entry.row as f32 * LEGEND_ROW + 20.0);
        canvas.polyline(&[(x + 2.0, y - 6.0), (x + 22.0, y - 6.0)], 4.0, entry.color, 255);
        canvas.text(x + 32.0, y, &entry.name, Style::new(LEGEND_SIZE, INK));
        let after = x + 32.0 + canvas.font.width(&entry.name, LEGEND_SIZE) + 8.0;
        canvas.text(after, y, &entry.value, Style::new(LEGEND_SIZE, MUTED));
    }
    panel.grid(canvas);
    panel.labels(canvas, "step");
    traces(canvas, &panel, lines);
}

/// Draws the noisy curves first, so that none of them dims a smoothed one.
fn traces(canvas: &mut Canvas, panel: &Panel, lines: &[Line]) {
    let columns = panel.width as usize;
    let place = |points: &[(f64, f64)]| points.iter().map(|&(x, y)| panel.place(x, y)).collect::<Vec<_>>();
    for line in lines.iter().filter(|line| line.smooth.is_some()) {
        canvas.polyline(&thinned(&place(&line.points), columns), 1.1, line.color, 80);
    }
    for line in lines {
        let points = thinned(&place(line.smooth.as_ref().unwrap_or(&line.points)), columns);
        canvas.polyline(&points, 2.6, line.color, 255);
        if line.smooth.is_none() {
            for (x, y) in points {
                canvas.disc(x, y, 3.6, line.color);
            }
        }
    }
}

struct Entry {
    x: f32,
    row: usize,
    name: String,
    value: String,
    color: Rgb,
}

/// The legend's entries with the last value of each curve, in as many rows as they need.
fn legend(canvas: &Canvas, width: f32, kind: Kind, lines: &[Line]) -> Vec<Entry> {
    let (mut x, mut row) = (0.0, 0);
    let mut entries = Vec::new();
    for line in lines {
        let last = line.smooth.as_ref().unwrap_or(&line.points).last();
        let value = kind.format(last.map_or(0.0, |point| point.1));
        let fixed = 32.0 + 8.0 + canvas.font.width(&value, LEGEND_SIZE);
        let name = canvas.font.fit(line.name, LEGEND_SIZE, width - fixed);
        let need = fixed + canvas.font.width(&name, LEGEND_SIZE);
        if x > 0.0 && x + need > width {
            (x, row) = (0.0, row + 1);
        }
        entries.push(Entry { x, row, name, value, color: line.color });
        x += need + 26.0;
    }
    entries
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// A moving average taken twice. Its window shrinks towards the start, where curves are steep; towards the end, where
/// they are noisy, it keeps its past half.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let radius = (points.len() / 60).max(2);
    let mut values: Vec<f64> = points.iter().map(|point| point.1).collect();
    for _ in 0..2 {
        let mut sums = vec![0.0];
        sums.extend(values.iter().scan(0.0, |sum, value| {
            *sum += value;
            Some(*sum)
        }));
        let count = values.len();
        for (i, value) in values.iter_mut().enumerate() {
            let reach = radius.min(i);
            let (from, to) = (i - reach, (i + reach + 1).min(count));
            *value = (sums[to] - sums[from]) / (to - from) as f64;
        }
    }
    points.iter().zip(values).map(|(&(x, _), y)| (x, y)).collect()
}

/// No more than about four points for each of `columns`: of a longer curve the lowest and highest of each stretch.
fn thinned(points: &[(f32, f32)], columns: usize) -> Vec<(f32, f32)> {
    let stretch = points.len() / (2 * columns.max(1));
    if stretch < 2 {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for chunk in points.chunks(stretch) {
        let index = |better: fn(f32, f32) -> bool| {
            (1..chunk.len()).fold(0, |best, i| if better(chunk[i].1, chunk[best].1) { i } else { best })
        };
        let (low, high) = (index(|a, b| a < b), index(|a, b| a > b));
        kept.extend([chunk[low.min(high)], chunk[low.max(high)]]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_lines_and_flattens_noise() {
        let line: Vec<(f64, f64)> = (0..600).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        for (a, b) in smoothed(&line).iter().zip(&line).take(570) {
            assert!((a.1 - b.1).abs() < 1e-6, "{a:?} {b:?}");
        }
        let noise: Vec<(f64, f64)> = (0..600).map(|i| (f64::from(i), f64::from(1 - i % 2 * 2))).collect();
        let smooth = smoothed(&noise);
        assert_eq!(smooth.len(), 600);
        assert!(smooth[300].1.abs() < 0.05 && smooth[599].1.abs() < 0.1);
    }

    #[test]
    fn thinning_keeps_the_spikes() {
        let mut points: Vec<(f32, f32)> = (0..100_000).map(|i| (i as f32, 0.0)).collect();
        points[54_321].1 = 7.0;
        let kept = thinned(&points, 500);
        assert!(kept.len() < 3_000);
        assert!(kept.iter().any(|point| point.1 == 7.0));
        assert!(kept.is_sorted_by(|a, b| a.0 <= b.0));
    }
}
