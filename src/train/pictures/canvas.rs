//! A sheet of pixels and the few strokes that the pictures are made of.

use std::path::Path;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, PathBuilder, Pixmap, PremultipliedColorU8, Rect, Stroke, Transform,
};
use ttf_parser::{Face, OutlineBuilder};

use crate::{Error, Result};

/// Red, green and blue.
pub(super) type Rgb = [u8; 3];

pub(super) const WHITE: Rgb = [255, 255, 255];
pub(super) const INK: Rgb = [38, 43, 51];
pub(super) const MUTED: Rgb = [98, 106, 118];
pub(super) const GRID: Rgb = [229, 232, 236];
pub(super) const RED: Rgb = [204, 51, 51];
/// What stands for a value that is not a number.
pub(super) const MISSING: Rgb = [160, 164, 170];
/// Colours for curves and classes, told apart by hue and by lightness.
pub(super) const PALETTE: [Rgb; 7] =
    [[45, 104, 176], [222, 126, 40], [58, 146, 98], [136, 92, 178], [190, 64, 92], [40, 150, 170], [130, 110, 80]];

/// More pixels than any sensible picture has; past this the caller has mixed up a length.
const MOST_PIXELS: u64 = 1 << 26;

/// The mix of `a` and `b`, `t` of the way to `b`.
pub(super) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    let t = t.clamp(0.0, 1.0);
    std::array::from_fn(|i| (f32::from(a[i]) + (f32::from(b[i]) - f32::from(a[i])) * t).round() as u8)
}

/// Where the given `x` lies with respect to the text.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub size: f32,
    pub color: Rgb,
    pub align: Align,
    pub bold: bool,
    /// Reads upwards, turned a quarter to the left.
    pub upright: bool,
}

impl Style {
    pub fn new(size: f32, color: Rgb) -> Self {
        Self { size, color, align: Align::Left, bold: false, upright: false }
    }

    pub fn align(self, align: Align) -> Self {
        Self { align, ..self }
    }

    pub fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub fn upright(self) -> Self {
        Self { upright: true, ..self }
    }
}

/// The font that all text is set in.
pub(super) struct Font {
    face: Face<'static>,
}

impl Font {
    pub fn new() -> Result<Self> {
        let face = Face::parse(epaint_default_fonts::UBUNTU_LIGHT, 0)
            .map_err(|error| Error::argument("the built-in font", error.to_string()))?;
        Ok(Self { face })
    }

    fn scale(&self, size: f32) -> f32 {
        size / f32::from(self.face.units_per_em().max(1))
    }

    /// The width of `text` in pixels.
    pub fn width(&self, text: &str, size: f32) -> f32 {
        text.chars().map(|c| self.advance(c)).sum::<f32>() * self.scale(size)
    }

    fn advance(&self, c: char) -> f32 {
        let glyph = self.face.glyph_index(c).unwrap_or_default();
        f32::from(self.face.glyph_hor_advance(glyph).unwrap_or_default())
    }

    /// `text`, cut with an ellipsis where it is wider than `room`.
    pub fn fit(&self, text: &str, size: f32, room: f32) -> String {
        if self.width(text, size) <= room {
            return text.to_owned();
        }
        let mut kept = text.to_owned();
        while kept.pop().is_some() {
            let cut = format!("{}…", kept.trim_end());
            if self.width(&cut, size) <= room {
                return cut;
            }
        }
        String::new()
    }

    fn outline(&self, text: &str, size: f32) -> Option<tiny_skia::Path> {
        let mut pen = Pen { path: PathBuilder::new(), x: 0.0, scale: self.scale(size) };
        for c in text.chars() {
            if let Some(glyph) = self.face.glyph_index(c) {
                self.face.outline_glyph(glyph, &mut pen);
            }
            pen.x += self.advance(c) * pen.scale;
        }
        pen.path.finish()
    }
}

/// Turns a font's outlines (y upwards, font units) into a path (y downwards, pixels).
struct Pen {
    path: PathBuilder,
    x: f32,
    scale: f32,
}

impl Pen {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, -y * self.scale)
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

/// A white sheet to draw on; coordinates are pixels from the top left corner.
pub(super) struct Canvas {
    pixmap: Pixmap,
    pub font: Font,
}

impl Canvas {
    pub fn new(width: f32, height: f32) -> Result<Self> {
        let (w, h) = (width.ceil().max(1.0) as u32, height.ceil().max(1.0) as u32);
        let pixmap = if u64::from(w) * u64::from(h) <= MOST_PIXELS { Pixmap::new(w, h) } else { None };
        let mut pixmap = pixmap.ok_or_else(|| {
            Error::argument("picture", format!("{w} x {h} pixels are too many; draw fewer or smaller parts"))
        })?;
        pixmap.fill(Color::WHITE);
        Ok(Self { pixmap, font: Font::new()? })
    }

    pub fn rect(&mut self, x: f32, y: f32, w: f32, h: f32, color: Rgb) {
        if let Some(rect) = Rect::from_xywh(x, y, w, h) {
            self.pixmap.fill_rect(rect, &paint(color, 255), Transform::identity(), None);
        }
    }

    /// A frame of `width` pixels around the outside of a rectangle.
    pub fn frame(&mut self, x: f32, y: f32, w: f32, h: f32, width: f32, color: Rgb) {
        self.rect(x - width, y - width, w + 2.0 * width, width, color);
        self.rect(x - width, y + h, w + 2.0 * width, width, color);
        self.rect(x - width, y, width, h, color);
        self.rect(x + w, y, width, h, color);
    }

    pub fn polyline(&mut self, points: &[(f32, f32)], width: f32, color: Rgb, alpha: u8) {
        let mut path = PathBuilder::new();
        for (i, &(x, y)) in points.iter().enumerate() {
            if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
        }
        if let Some(path) = path.finish() {
            self.stroke(&path, width, color, alpha, Transform::identity());
        }
    }

    fn stroke(&mut self, path: &tiny_skia::Path, width: f32, color: Rgb, alpha: u8, transform: Transform) {
        let stroke = Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
        self.pixmap.stroke_path(path, &paint(color, alpha), &stroke, transform, None);
    }

    pub fn disc(&mut self, x: f32, y: f32, radius: f32, color: Rgb) {
        if let Some(path) = PathBuilder::from_circle(x, y, radius) {
            self.pixmap.fill_path(&path, &paint(color, 255), FillRule::Winding, Transform::identity(), None);
        }
    }

    /// Draws `text` with its baseline at `y`.
    pub fn text(&mut self, x: f32, y: f32, text: &str, style: Style) {
        let width = self.font.width(text, style.size);
        let shift = match style.align {
            Align::Left => 0.0,
            Align::Centre => -width / 2.0,
            Align::Right => -width,
        };
        let place = if style.upright {
            Transform::from_row(0.0, -1.0, 1.0, 0.0, x, y - shift)
        } else {
            Transform::from_translate(x + shift, y)
        };
        if let Some(path) = self.font.outline(text, style.size) {
            self.pixmap.fill_path(&path, &paint(style.color, 255), FillRule::Winding, place, None);
            // The font is a light one: a thin stroke makes it regular, a thicker one bold.
            let weight = if style.bold { 0.055 } else { 0.022 };
            self.stroke(&path, style.size * weight, style.color, 255, place);
        }
    }

    /// Sets one pixel; outside the sheet nothing happens.
    pub fn pixel(&mut self, x: u32, y: u32, [r, g, b]: Rgb) {
        let (width, height) = (self.pixmap.width(), self.pixmap.height());
        if x < width && y < height {
            let at = y as usize * width as usize + x as usize;
            if let (Some(pixel), Some(color)) =
                (self.pixmap.pixels_mut().get_mut(at), PremultipliedColorU8::from_rgba(r, g, b, 255))
            {
                *pixel = color;
            }
        }
    }

    /// Draws an image of `w` columns enlarged `scale` times, each pixel a square.
    pub fn image(&mut self, x: f32, y: f32, pixels: &[Rgb], w: usize, scale: u32) {
        let (left, top) = (x.round().max(0.0) as u32, y.round().max(0.0) as u32);
        for (i, &color) in pixels.iter().enumerate() {
            let (column, row) = ((i % w.max(1)) as u32, (i / w.max(1)) as u32);
            for dy in 0..scale {
                for dx in 0..scale {
                    self.pixel(left + column * scale + dx, top + row * scale + dy, color);
                }
            }
        }
    }

    /// Writes the sheet as a PNG file, making its folder where there is none.
    pub fn save(&self, path: &Path) -> Result<()> {
        let (w, h) = (self.pixmap.width(), self.pixmap.height());
        // Every pixel is opaque: the sheet starts white and nothing is erased.
        let rgb: Vec<u8> = self.pixmap.pixels().iter().flat_map(|p| [p.red(), p.green(), p.blue()]).collect();
        let mut png = Vec::new();
        PngEncoder::new(&mut png)
            .write_image(&rgb, w, h, ExtendedColorType::Rgb8)
            .map_err(|error| Error::format(path, error.to_string()))?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
        }
        std::fs::write(path, png).map_err(|source| Error::io(path, source))
    }
}

fn paint(color: Rgb, alpha: u8) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(color[0], color[1], color[2], alpha);
    paint
}
