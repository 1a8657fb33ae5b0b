//! The roofline as a picture, with every case as a point; and bars of what changed since a baseline.

use super::report::Row;
use plotters::coord::Shift;
use plotters::prelude::*;
use shadegrad::tune::Roofline;
use shadegrad::{DType, Error, Result};
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
        let points: Vec<&Row> = rows.iter().filter(|row| row.flops > 0.0 && row.bytes > 0.0).collect();
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

/// The powers of ten that enclose these values.
fn decades(values: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
    let most = values.fold(0.0, f64::max).log10().ceil().max(least + 1.0);
    10f64.powf(least)..10f64.powf(most)
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
    let ridge = floats / roofline.memory();
    let xs = decades(points.iter().map(|p| p.0).chain([ridge / 10.0, ridge * 10.0, halves / roofline.memory()]));
    let ys = decades(points.iter().map(|p| p.1).chain([floats / 100.0, floats, halves]));
    let failed = |e: DrawingAreaErrorKind<_>| e.to_string();
    let mut chart = ChartBuilder::on(area)
        .caption(device, ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(xs.clone().log_scale(), ys.log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("operations per byte")
        .y_desc("GFLOP/s")
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    // That of products of f16 beneath, where it is a higher one.
    for (top, color) in [(halves, RGBColor(160, 160, 160)), (floats, BLACK)] {
        let roof = [xs.start, top / roofline.memory(), xs.end].map(|x| (x, top.min(x * roofline.memory())));
        chart.draw_series(LineSeries::new(roof, color.stroke_width(2))).map_err(failed)?;
    }
    for (n, point) in points.iter().enumerate() {
        let label = Text::new((n + 1).to_string(), (6, -6), ("sans-serif", 11).into_font().color(&color(n)));
        let mark = EmptyElement::at(*point) + Circle::new((0, 0), 3, color(n).filled()) + label;
        chart.draw_series([mark]).map_err(failed)?;
    }
    Ok(())
}

/// A bar for each case: how many times as long as before it takes.
fn compare(area: &Area<'_>, changes: &[(&str, f64)]) -> Result<(), String> {
    let failed = |e: DrawingAreaErrorKind<_>| e.to_string();
    let longest = changes.iter().map(|change| change.1).fold(1.0, f64::max);
    let (left, scale) = (260.0, f64::from(WIDTH - 400) / longest);
    let title = ("sans-serif", 14).into_font();
    area.draw(&Text::new("time against the baseline (line: as before)", (16, 8), title)).map_err(failed)?;
    for (n, &(name, ratio)) in changes.iter().enumerate() {
        let y = 34 + (BAR * n as u32) as i32;
        let end = (left + scale * ratio) as i32;
        let color = if ratio > 1.0 { RGBColor(200, 80, 60) } else { RGBColor(60, 140, 90) };
        area.draw(&Rectangle::new([(left as i32, y), (end, y + 14)], color.filled())).map_err(failed)?;
        let font = ("sans-serif", 12).into_font();
        area.draw(&Text::new(name, (16, y + 1), font.clone())).map_err(failed)?;
        area.draw(&Text::new(format!("{ratio:.2}"), (end + 6, y + 1), font)).map_err(failed)?;
    }
    let one = (left + scale) as i32;
    let bottom = 34 + (BAR * changes.len() as u32) as i32;
    area.draw(&PathElement::new([(one, 30), (one, bottom)], BLACK)).map_err(failed)
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
        assert!(["a device", "first", "second", "1.50", "operations per byte"].iter().all(|part| text.contains(part)));
        assert_eq!(text.matches("<circle").count(), 2);
        draw(&path, "a device", &roofline, &[]).unwrap();
        assert!(draw(&folder.path().join("no/such/folder.svg"), "", &roofline, &[]).is_err());
    }
}
