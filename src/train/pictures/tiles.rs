//! Small images, enlarged: filters, test images with captions, saliency maps.

use std::path::Path;

use super::axes::signed;
use super::canvas::{Align, Canvas, INK, MISSING, MUTED, RED, Rgb, Style, WHITE, mix};
use super::check_length;
use crate::{Error, Result};

const MARGIN: f32 = 24.0;

/// Draws the filters of a convolution, `weights` of `shape` `[out, in, height, width]`, enlarged.
///
/// Blue is negative, white zero and red positive; a bar below gives the scale. The kernels of one output channel stand
/// side by side.
pub fn filters(path: impl AsRef<Path>, weights: &[f32], shape: [usize; 4]) -> Result<()> {
    check_length("filters", weights.len(), &shape)?;
    let [out, channels, kh, kw] = shape;
    let columns = grid_columns(out, (channels * kw) as f32 / kh as f32);
    let rows = out.div_ceil(columns);
    let (inner, outer) = (2.0, 10.0);
    let gaps = outer * (columns - 1) as f32 + inner * (columns * (channels - 1)) as f32;
    let scale = ((900.0 - gaps) / (columns * channels * kw) as f32).floor().clamp(1.0, 24.0) as u32;
    let (tile_w, tile_h) = ((kw as u32 * scale) as f32, (kh as u32 * scale) as f32);
    let group = channels as f32 * (tile_w + inner) - inner;
    let grid_w = columns as f32 * (group + outer) - outer;
    let grid_h = rows as f32 * (tile_h + outer) - outer;
    let width = grid_w.max(280.0) + 2.0 * MARGIN;
    let mut canvas = Canvas::new(width, grid_h + 2.0 * MARGIN + 48.0)?;

    let most = weights.iter().filter(|w| w.is_finite()).fold(0.0f32, |most, w| most.max(w.abs()));
    let left = ((width - grid_w) / 2.0).floor();
    for (i, kernel) in weights.chunks_exact(kh * kw).enumerate() {
        let (filter, channel) = (i / channels, i % channels);
        let x = left + (filter % columns) as f32 * (group + outer) + channel as f32 * (tile_w + inner);
        let y = MARGIN + (filter / columns) as f32 * (tile_h + outer);
        let pixels: Vec<Rgb> = kernel.iter().map(|&w| diverging(if most > 0.0 { w / most } else { 0.0 })).collect();
        canvas.image(x, y, &pixels, kw, scale);
        canvas.frame(x, y, tile_w, tile_h, 1.0, [208, 212, 218]);
    }

    let bar = (width - 2.0 * MARGIN - 150.0).min(320.0).floor();
    let (bar_x, bar_y) = (((width - bar) / 2.0).floor(), MARGIN + grid_h + 26.0);
    for i in 0..bar as u32 {
        let color = diverging(2.0 * i as f32 / (bar - 1.0) - 1.0);
        canvas.rect(bar_x + i as f32, bar_y, 1.0, 14.0, color);
    }
    canvas.frame(bar_x, bar_y, bar, 14.0, 1.0, [208, 212, 218]);
    let style = Style::new(16.0, MUTED);
    canvas.text(bar_x - 10.0, bar_y + 13.0, &signed(format!("-{most:.2}")), style.align(Align::Right));
    canvas.text(bar_x + bar + 10.0, bar_y + 13.0, &format!("+{most:.2}"), style);
    canvas.save(path.as_ref())
}

/// One image of a contact sheet.
#[derive(Clone, Debug)]
pub struct Tile<'a> {
    /// Rows of grey values, or of red, green and blue in turn.
    pub pixels: &'a [u8],
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
    /// What the network said, and where it was wrong what the image shows.
    pub caption: String,
    /// Marks the image in red.
    pub wrong: bool,
}

/// Draws images enlarged, `columns` to a row, each with its caption; wrong ones have a red frame and a red caption.
pub fn contact_sheet(path: impl AsRef<Path>, tiles: &[Tile], columns: usize) -> Result<()> {
    if tiles.is_empty() || columns == 0 {
        return Err(Error::argument("contact sheet", "it needs at least one tile and one column"));
    }
    let images: Vec<Vec<Rgb>> = tiles
        .iter()
        .map(|tile| colors("contact sheet", tile.pixels, [tile.height, tile.width]))
        .collect::<Result<_>>()?;
    let columns = columns.min(tiles.len());
    let rows = tiles.len().div_ceil(columns);
    let tallest = tiles.iter().map(|tile| tile.height).max().unwrap_or(1);
    let widest = tiles.iter().map(|tile| tile.width).max().unwrap_or(1);
    let room = (1120.0 / columns as f32).min(120.0);
    let scale = (room / widest.max(tallest) as f32).floor().max(1.0) as u32;
    let (gap, caption, frame) = (18.0, 30.0, 4.0);
    let image_w = (widest as u32 * scale) as f32;
    let image_h = (tallest as u32 * scale) as f32;
    let cell = image_w.max(72.0);
    let width = columns as f32 * (cell + gap) - gap + 2.0 * MARGIN;
    let height = rows as f32 * (image_h + caption + gap) - gap + 2.0 * MARGIN;
    let mut canvas = Canvas::new(width, height)?;
    for (i, (tile, image)) in tiles.iter().zip(&images).enumerate() {
        let left = MARGIN + (i % columns) as f32 * (cell + gap);
        let top = MARGIN + (i / columns) as f32 * (image_h + caption + gap);
        let (w, h) = ((tile.width as u32 * scale) as f32, (tile.height as u32 * scale) as f32);
        let x = (left + (cell - w) / 2.0).floor();
        let y = top + image_h - h;
        canvas.image(x, y, image, tile.width, scale);
        let color = if tile.wrong { RED } else { INK };
        if tile.wrong {
            canvas.frame(x, y, w, h, frame, RED);
        }
        // Long captions shrink before they are cut.
        let fits = |size: &f32| canvas.font.width(&tile.caption, *size) <= cell + gap - 6.0;
        let size = [17.0, 15.0, 13.0].into_iter().find(fits).unwrap_or(13.0);
        let text = canvas.font.fit(&tile.caption, size, cell + gap - 6.0);
        let style = Style::new(size, color).align(Align::Centre);
        let style = if tile.wrong { style.bold() } else { style };
        canvas.text(left + cell / 2.0, top + image_h + 23.0, &text, style);
    }
    canvas.save(path.as_ref())
}

/// Draws an image of `size` `[height, width]`, its saliency map, and the map laid over the image.
///
/// The image is grey or red, green and blue in turn. The map counts by size, whatever its sign: none is dark, most is bright.
pub fn heat_overlay(path: impl AsRef<Path>, image: &[u8], heat: &[f32], size: [usize; 2]) -> Result<()> {
    let image = colors("heat overlay", image, size)?;
    check_length("heat overlay", heat.len(), &size)?;
    let [h, w] = size;
    let most = heat.iter().filter(|v| v.is_finite()).fold(0.0f32, |most, v| most.max(v.abs()));
    let share = |v: f32| if most > 0.0 { v.abs() / most } else { 0.0 };
    let map: Vec<Rgb> = heat.iter().map(|&v| if v.is_finite() { glow(share(v)) } else { MISSING }).collect();
    let both: Vec<Rgb> = image
        .iter()
        .zip(heat)
        .map(|(&pixel, &v)| {
            let v = if v.is_finite() { share(v) } else { 0.0 };
            let luma = 0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2]);
            let grey = [(luma * 0.6) as u8; 3];
            mix(grey, glow(0.4 + 0.5 * v), 0.95 * v.powf(0.6))
        })
        .collect();
    let scale = (320.0 / h.max(w) as f32).floor().max(1.0) as u32;
    let (tile_w, tile_h) = ((w as u32 * scale) as f32, (h as u32 * scale) as f32);
    let gap = 22.0;
    let cell = tile_w.max(90.0);
    let mut canvas = Canvas::new(3.0 * cell + 2.0 * gap + 2.0 * MARGIN, tile_h + 36.0 + 2.0 * MARGIN)?;
    for (i, (pixels, caption)) in [(&image, "input"), (&map, "saliency"), (&both, "overlay")].into_iter().enumerate() {
        let left = MARGIN + i as f32 * (cell + gap);
        canvas.image(left + (cell - tile_w) / 2.0, MARGIN, pixels, w, scale);
        let style = Style::new(19.0, INK).align(Align::Centre);
        canvas.text(left + cell / 2.0, MARGIN + tile_h + 30.0, caption, style);
    }
    canvas.save(path.as_ref())
}

/// Grey or colour bytes as colours.
fn colors(what: &str, pixels: &[u8], [h, w]: [usize; 2]) -> Result<Vec<Rgb>> {
    if h.checked_mul(w).and_then(|area| area.checked_mul(3)) == Some(pixels.len()) && !pixels.is_empty() {
        return Ok(pixels.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect());
    }
    check_length(what, pixels.len(), &[h, w])?;
    Ok(pixels.iter().map(|&v| [v, v, v]).collect())
}

/// How many columns show `count` tiles (`aspect` times as wide as high) about twice as wide as high, with few holes.
fn grid_columns(count: usize, aspect: f32) -> usize {
    let ideal = (2.0 * count as f32 / aspect).sqrt().clamp(1.0, count as f32);
    let cost = |columns: usize| {
        let holes = columns * count.div_ceil(columns) - count;
        holes as f32 / count as f32 + (columns as f32 / ideal).ln().abs()
    };
    let nearby = ((ideal / 2.0) as usize).max(1)..=((ideal * 2.0) as usize).clamp(1, count);
    nearby.min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(1)
}

/// Blue at -1, white at 0, red at 1.
fn diverging(value: f32) -> Rgb {
    const NEGATIVE: [Rgb; 2] = [[146, 178, 222], [30, 76, 152]];
    const POSITIVE: [Rgb; 2] = [[238, 158, 136], [172, 30, 44]];
    if !value.is_finite() {
        return MISSING;
    }
    let [middle, end] = if value < 0.0 { NEGATIVE } else { POSITIVE };
    let size = value.abs().min(1.0);
    if size < 0.5 { mix(WHITE, middle, 2.0 * size) } else { mix(middle, end, 2.0 * size - 1.0) }
}

/// Black at 0, through violet and orange, to a pale yellow at 1.
fn glow(value: f32) -> Rgb {
    const STOPS: [Rgb; 6] = [[4, 3, 16], [58, 18, 106], [138, 40, 124], [218, 72, 92], [250, 152, 88], [253, 244, 190]];
    let place = value.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let below = (place as usize).min(STOPS.len() - 2);
    mix(STOPS[below], STOPS[below + 1], place - below as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_maps_are_centred() {
        assert_eq!(diverging(0.0), WHITE);
        assert!(diverging(-1.0)[2] > diverging(-1.0)[0]);
        assert!(diverging(1.0)[0] > diverging(1.0)[2]);
        assert_eq!(diverging(f32::NAN), MISSING);
        assert!(glow(0.0).iter().all(|&c| c < 32) && glow(1.0)[0] > 240);
    }

    #[test]
    fn grids_have_few_holes() {
        assert_eq!(grid_columns(32, 1.0), 8);
        assert_eq!(grid_columns(1, 1.0), 1);
        assert_eq!(grid_columns(64, 300.0), 1);
        for count in 1..200 {
            let columns = grid_columns(count, 1.0);
            assert!(columns >= 1 && columns <= count);
        }
    }
}
