//! The roofline as a picture, with every case as a point; and bars of what changed since a baseline.

use super::labels;
use super::report::Row;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use shadegrad::tune::Roofline;
use shadegrad::{DType, Error, Result};
use std::ops::Range;
use std::path::Path;

const WIDTH: u32 = 960;
const HEIGHT: u32 = 640;
/// Of one bar.
const BAR: u32 = 22;
/// Of a line of the legend, which has so many columns.
const LINE: u32 = 16;
const COLUMNS: u32 = 3;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the picture.
pub fn draw(path: &Path, device: &str, roofline: &Roofline, rows: &[Row]) -> Result<()> {
    let changes: Vec<(&str, f64)> = rows.iter().filter_map(|row| Some((row.name.as_str(), row.ratio?))).collect();
    let bars = if changes.is_empty() { 0 } else { 60 + BAR * changes.len() as u32 };
    let mut text = String::new();
    {
        let points: Vec<&Row> =
            rows.iter().filter(|row| row.flops > 0.0 && row.bytes > 0.0 && row.median > 0.0).collect();
        let legend_height = 16 + LINE * (points.len() as u32).div_ceil(COLUMNS);
        let height = HEIGHT + legend_height + bars;
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        let (above, rest) = root.split_vertically(HEIGHT);
        let (middle, below) = rest.split_vertically(legend_height);
        let drawn = root
            .fill(&WHITE)
            .map_err(|e| e.to_string())
            .and_then(|()| roofs(&above, device, roofline, &points))
            .and_then(|()| legend(&middle, &points))
            .and_then(|()| if bars > 0 { compare(&below, &changes) } else { Ok(()) })
            .and_then(|()| root.present().map_err(|e| e.to_string()));
        drawn.map_err(|message| Error::argument("--svg", message))?;
    }
    std::fs::write(path, text).map_err(|e| Error::io(path, e))
}

/// From the power of ten below these values to a little beyond them.
fn span(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
    // The first power's mark would be lost to rounding otherwise.
    (1.0 - 1e-9) * 10f64.powf(least)..1.6 * values.fold(0.0, f64::max)
}

/// Three digits, as far as they are needed.
fn figure(value: f64) -> String {
    let digits = (2.0 - value.abs().max(1e-9).log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// The n-th point's colour: neighbours far apart, all of them dark enough on white.
fn color(n: usize) -> HSLColor {
    HSLColor((n as f64 * 0.381_966).fract(), 0.7, 0.38)
}

/// The points' numbers and names.
fn legend(area: &Area<'_>, rows: &[&Row]) -> Result<(), String> {
    let lines = (rows.len() as u32).div_ceil(COLUMNS).max(1);
    for (n, row) in rows.iter().enumerate() {
        let (column, line) = (n as u32 / lines, n as u32 % lines);
        let place = (24 + (column * (WIDTH - 32) / COLUMNS) as i32, (4 + line * LINE) as i32);
        let font = ("sans-serif", 12).into_font().color(&color(n));
        let text = format!("{}  {}", n + 1, row.name);
        area.draw(&Text::new(text, place, font)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// GFLOP/s over operations per byte, both logarithmic.
fn roofs(area: &Area<'_>, device: &str, roofline: &Roofline, rows: &[&Row]) -> Result<(), String> {
    let points: Vec<(f64, f64)> = rows.iter().map(|row| (row.flops / row.bytes, row.rate(row.flops))).collect();
    let [halves, floats] = [DType::F16, DType::F32].map(|factors| roofline.products(factors));
    let memory = roofline.memory();
    let ridge = floats / memory;
    let xs = span(points.iter().map(|p| p.0).chain([ridge / 10.0, ridge * 10.0, halves / memory]));
    let ys = span(points.iter().map(|p| p.1).chain([floats / 100.0, floats, halves]));
    let failed = |e: DrawingAreaErrorKind<_>| e.to_string();
    let mut chart = ChartBuilder::on(area)
        .caption(device, ("sans-serif", 18))
        .margin(16)
        .margin_right(32)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(xs.clone().log_scale(), ys.log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("operations per byte")
        .y_desc("GFLOP/s")
        .x_label_formatter(&|x| figure(*x))
        .y_label_formatter(&|y| figure(*y))
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    let plot = chart.plotting_area();
    let caption = |text: String, at: (f64, f64), color: &RGBColor| {
        let font = ("sans-serif", 12).into_font().color(color).pos(Pos::new(HPos::Right, VPos::Bottom));
        plot.draw(&(EmptyElement::at(at) + Text::new(text, (-6, -4), font)))
    };
    // That of products of f16 beneath, where it is a higher one.
    let roofs = [("f16: ", halves, RGBColor(140, 140, 140)), ("", floats, BLACK)];
    for (what, top, color) in &roofs[if halves > floats { 0 } else { 1 }..] {
        let roof = [xs.start, top / memory, xs.end].map(|x| (x, top.min(x * memory)));
        plot.draw(&PathElement::new(roof, color.stroke_width(2))).map_err(failed)?;
        caption(format!("{what}{} GFLOP/s", figure(*top)), roof[2], color).map_err(failed)?;
    }
    let middle = (xs.start * ridge).sqrt();
    caption(format!("{} GB/s", figure(memory)), (middle, middle * memory), &BLACK).map_err(failed)?;
    let pixels: Vec<(i32, i32)> = points.iter().map(|point| plot.map_coordinate(point)).collect();
    let (x, y) = plot.get_pixel_range();
    let sizes: Vec<(i32, i32)> = (1..=points.len()).map(|n| (7 * n.to_string().len() as i32, 11)).collect();
    let labels = labels::place(&pixels, &sizes, &labels::Area { x, y });
    for (n, (label, pixel)) in labels.iter().zip(&pixels).enumerate() {
        let from_point = |(x, y): (i32, i32)| (x - pixel.0, y - pixel.1);
        let font = ("sans-serif", 11).into_font().color(&color(n));
        let text = Text::new((n + 1).to_string(), from_point((label.x.start, label.y.start)), font);
        let line = PathElement::new([(0, 0), from_point(label.nearest(*pixel))], color(n).mix(0.5));
        let mark = EmptyElement::at(points[n]) + Circle::new((0, 0), 3, color(n).filled()) + line + text;
        plot.draw(&mark).map_err(failed)?;
    }
    Ok(())
}

/// A bar for each case: how many times as long as before it takes, logarithmic.
fn compare(area: &Area<'_>, changes: &[(&str, f64)]) -> Result<(), String> {
    const MIDDLE: i32 = 600;
    const HALF: f64 = 250.0;
    /// A bar at full length stands for this ratio at the least, and at the most, so that one case does not hide the others.
    const FULL: [f64; 2] = [1.2, 4.0];
    let failed = |e: DrawingAreaErrorKind<_>| e.to_string();
    let longest = changes.iter().map(|(_, ratio)| ratio.ln().abs()).fold(0.0, f64::max);
    let full = longest.clamp(FULL[0].ln(), FULL[1].ln());
    let title = "time against the baseline: left of the line faster, right of it slower";
    area.draw(&Text::new(title, (16, 8), ("sans-serif", 14).into_font())).map_err(failed)?;
    for (n, &(name, ratio)) in changes.iter().enumerate() {
        let y = 34 + (BAR * n as u32) as i32;
        let part = ratio.ln() / full;
        let (end, side) = (MIDDLE + (HALF * part.clamp(-1.0, 1.0)) as i32, if ratio > 1.0 { 1 } else { -1 });
        let color = if ratio > 1.0 { RGBColor(200, 80, 60) } else { RGBColor(60, 140, 90) };
        let corners = [(MIDDLE.min(end), y), (MIDDLE.max(end), y + 14)];
        area.draw(&Rectangle::new(corners, color.filled())).map_err(failed)?;
        let beyond = part.abs() > 1.0 + 1e-9;
        if beyond {
            let arrow = vec![(end, y - 3), (end + 9 * side, y + 7), (end, y + 17)];
            area.draw(&Polygon::new(arrow, color.filled())).map_err(failed)?;
        }
        let font = ("sans-serif", 12).into_font();
        area.draw(&Text::new(name, (16, y + 1), font.clone())).map_err(failed)?;
        let outside = Pos::new(if side > 0 { HPos::Left } else { HPos::Right }, VPos::Top);
        let place = (end + side * if beyond { 13 } else { 6 }, y + 1);
        let style = font.color(&BLACK).pos(outside);
        let text = if (0.1..100.0).contains(&ratio) { format!("{ratio:.2}") } else { figure(ratio) };
        area.draw(&Text::new(text, place, style)).map_err(failed)?;
    }
    let bottom = 34 + (BAR * changes.len() as u32) as i32;
    area.draw(&PathElement::new([(MIDDLE, 30), (MIDDLE, bottom)], BLACK)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::row;
    use super::*;

    #[test]
    fn every_case_is_in_the_picture() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roof.svg");
        let roofline = Roofline { arithmetic: 100.0, read: 10.0, copy: 20.0, triad: 15.0, ..Roofline::default() };
        let slower = Row { ratio: Some(1.5), ..row("first", 100.0) };
        draw(&path, "a device", &roofline, &[slower, row("second", 1.0)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            ["a device", "first", "second", "1.50", "operations per byte", "100 GFLOP/s", "20 GB/s"]
                .iter()
                .all(|part| text.contains(part))
        );
        assert_eq!(text.matches("<circle").count(), 2);
        draw(&path, "a device", &roofline, &[]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let marked = |mark: &str| text.lines().any(|line| line == mark);
        assert!(
            marked("0.1") && marked("1") && marked("10") && !text.contains("10.0"),
            "the axes' powers of ten: {text}"
        );
        assert!(draw(&folder.path().join("no/such/folder.svg"), "", &roofline, &[]).is_err());
    }
}
