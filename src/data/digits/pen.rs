//! From a glyph's points to pixels: smooth curves, a hand's irregularity, ink.

use glam::{Affine2, Mat2, Vec2};

use super::SIDE;
use super::glyphs::Stroke;
use crate::rng::Rng;

/// Pieces that each stretch between two points of a stroke is drawn in.
const PIECES: usize = 6;
/// Pixels that stay free at the image's edge.
const MARGIN: f32 = 1.0;
/// Knots of the elastic field along each axis.
const KNOTS: usize = 6;

/// The pen at a place on the paper.
#[derive(Clone, Copy)]
pub(super) struct Dab {
    at: Vec2,
    /// Half the line's width, in pixels.
    radius: f32,
    /// 0 for none to 1 for black.
    ink: f32,
}

/// Writes a glyph with a hand of its own: returns the strokes in pixels, inside of the image.
pub(super) fn write(glyph: &[Stroke], rng: &mut Rng) -> Vec<Vec<Dab>> {
    let mut strokes: Vec<Vec<Dab>> = glyph.iter().map(|stroke| follow(stroke, rng)).collect();
    let field = Field::new(0.085, rng);
    let slant = hand(rng);
    let (mut low, mut high, mut widest) = (Vec2::MAX, Vec2::MIN, 1.0f32);
    for dab in strokes.iter_mut().flatten() {
        dab.at = slant.transform_point2(dab.at + field.at(dab.at));
        low = low.min(dab.at);
        high = high.max(dab.at);
        widest = widest.max(dab.radius);
    }

    // The pen: mostly thin to middling, now and then a marker.
    let radius = 1.1 + 0.3 * rng.bell() + if rng.below(8) == 0 { 0.5 } else { 0.0 };
    let radius = radius.max(0.55);
    // On the paper: about 15 to 23 pixels tall (or wide, where that is more), near the middle.
    let room = SIDE as f32 - 2.0 * (radius * widest + MARGIN);
    let extent = high - low;
    let size = (19.0 + 1.3 * rng.bell()).min(room) / extent.max_element().max(0.1);
    let shift = Vec2::new(rng.bell(), rng.bell()) * 1.2;
    let slack = ((Vec2::splat(room) - extent * size) * 0.5).max(Vec2::ZERO);
    let middle = Vec2::splat(SIDE as f32 * 0.5) + shift.clamp(-slack, slack);
    let place = Affine2::from_mat2_translation(Mat2::from_diagonal(Vec2::splat(size)), middle)
        * Affine2::from_translation((low + high) * -0.5);
    for dab in strokes.iter_mut().flatten() {
        dab.at = place.transform_point2(dab.at);
        dab.radius *= radius;
    }
    strokes
}

/// Leads the pen along a stroke, each point a little off: in units of the digit's height, the radius relative.
fn follow(stroke: Stroke, rng: &mut Rng) -> Vec<Dab> {
    let mut points: Vec<Vec2> = Vec::with_capacity(stroke.len());
    for (i, &(x, y)) in stroke.iter().enumerate() {
        let corner = i > 0 && stroke[i - 1] == (x, y);
        let wobble = Vec2::new(rng.bell(), rng.bell()) * 0.022;
        match points.last() {
            Some(&last) if corner => points.push(last),
            _ => points.push(Vec2::new(f32::from(x), f32::from(y)) * 0.01 + wobble),
        }
    }
    let width = [0.0; 4].map(|_: f32| 1.0 + 0.16 * rng.bell());
    let ink = [0.0; 4].map(|_: f32| 1.0 - 0.5 * rng.unit() * rng.unit());
    let stretches = points.len().saturating_sub(1);
    let total = (stretches * PIECES).max(1) as f32;
    let mut dabs = Vec::with_capacity(stretches * PIECES + 1);
    for i in 0..stretches {
        let (from, to) = (points[i], points[i + 1]);
        if from == to {
            continue;
        }
        // At an end or a corner, the curve leaves towards its next point.
        let before = if i > 0 && points[i - 1] != from { points[i - 1] } else { from };
        let after = points.get(i + 2).copied().unwrap_or(to);
        for piece in usize::from(!dabs.is_empty())..=PIECES {
            let t = piece as f32 / PIECES as f32;
            let s = (i * PIECES + piece) as f32 / total;
            dabs.push(Dab {
                at: catmull_rom(before, from, to, after, t),
                radius: bezier(width, s).max(0.5),
                ink: bezier(ink, s),
            });
        }
    }
    dabs
}

/// The curve between `b` and `c`, at `t` of the way, that comes from `a` and goes on to `d` (Catmull and Rom, 1974).
fn catmull_rom(a: Vec2, b: Vec2, c: Vec2, d: Vec2, t: f32) -> Vec2 {
    let (linear, square, cube) = (c - a, 2.0 * a - 5.0 * b + 4.0 * c - d, 3.0 * (b - c) + d - a);
    b + 0.5 * t * (linear + t * (square + t * cube))
}

/// The cubic Bezier curve of four values, at `t`.
fn bezier([a, b, c, d]: [f32; 4], t: f32) -> f32 {
    let s = 1.0 - t;
    s * s * (s * a + 3.0 * t * b) + t * t * (3.0 * s * c + t * d)
}

/// A hand's slant and proportions: how it turns, shears and stretches.
fn hand(rng: &mut Rng) -> Affine2 {
    // The rotation by an angle with this tangent of its half, without a sine, whose last bits differ between systems.
    let half = 0.075 * rng.bell();
    let (cos, sin) = ((1.0 - half * half) / (1.0 + half * half), 2.0 * half / (1.0 + half * half));
    let turn = Mat2::from_cols(Vec2::new(cos, sin), Vec2::new(-sin, cos));
    let shear = Mat2::from_cols(Vec2::X, Vec2::new(-0.05 + 0.16 * rng.bell(), 1.0));
    let stretch = Mat2::from_diagonal(Vec2::new((1.0 + 0.14 * rng.bell()).max(0.7), 1.0));
    Affine2::from_mat2(turn * shear * stretch)
}

/// An elastic deformation: random displacements on a coarse grid over the glyph, smooth in between.
struct Field([[Vec2; KNOTS]; KNOTS]);

impl Field {
    /// A field whose knots have displacements of this deviation, in digit heights.
    fn new(deviation: f32, rng: &mut Rng) -> Self {
        Self([[(); KNOTS]; KNOTS].map(|row| row.map(|()| Vec2::new(rng.bell(), rng.bell()) * deviation)))
    }

    /// The displacement at a place: a uniform cubic B-spline through the grid.
    fn at(&self, place: Vec2) -> Vec2 {
        // From x in -0.5..0.5 and y in 0..1, with room for the wobble, to the grid's inside.
        let inside = (KNOTS - 3) as f32;
        let place = (Vec2::new(place.x + 0.5, place.y) * inside).clamp(Vec2::ZERO, Vec2::splat(inside - 1e-3));
        let cell = place.floor();
        let (wx, wy) = (b_spline(place.x - cell.x), b_spline(place.y - cell.y));
        let (x, y) = (cell.x as usize, cell.y as usize);
        let mut sum = Vec2::ZERO;
        for (row, wy) in self.0[y..y + 4].iter().zip(wy) {
            for (&knot, wx) in row[x..x + 4].iter().zip(wx) {
                sum += knot * (wx * wy);
            }
        }
        sum
    }
}

/// The weights of the four knots around a place `t` of the way between the middle two.
fn b_spline(t: f32) -> [f32; 4] {
    let s = 1.0 - t;
    let inner = |u: f32| (4.0 - 6.0 * u * u + 3.0 * u * u * u) / 6.0;
    [s * s * s / 6.0, inner(t), inner(s), t * t * t / 6.0]
}

/// Inks the strokes onto a page, `[SIDE, SIDE]` of 0 to 1: each pixel takes the darkest line that covers it, by its
/// distance to the line, with an edge one pixel soft.
pub(super) fn ink(strokes: &[Vec<Dab>], page: &mut [f32; SIDE * SIDE]) {
    let last = SIDE as f32 - 1.0;
    for pair in strokes.iter().flat_map(|stroke| stroke.windows(2)) {
        let (from, to) = (pair[0], pair[1]);
        let along = to.at - from.at;
        let scale = 1.0 / along.length_squared().max(1e-9);
        let reach = Vec2::splat(from.radius.max(to.radius) + 1.0);
        // Pixel (x, y) has its middle at (x + 0.5, y + 0.5).
        let low = (from.at.min(to.at) - reach).floor().clamp(Vec2::ZERO, Vec2::splat(last));
        let high = (from.at.max(to.at) + reach).floor().clamp(Vec2::ZERO, Vec2::splat(last));
        for y in low.y as usize..=high.y as usize {
            for x in low.x as usize..=high.x as usize {
                let pixel = Vec2::new(x as f32 + 0.5, y as f32 + 0.5);
                let t = ((pixel - from.at).dot(along) * scale).clamp(0.0, 1.0);
                let distance = pixel.distance(from.at + along * t);
                let cover = (from.radius + (to.radius - from.radius) * t - distance + 0.5).clamp(0.0, 1.0);
                let value = cover * (from.ink + (to.ink - from.ink) * t);
                let darkest = &mut page[y * SIDE + x];
                *darkest = darkest.max(value);
            }
        }
    }
}

/// Softens a page: `weight` (at most 1/3) of each neighbour, along rows, then along columns.
pub(super) fn blur(page: &mut [f32; SIDE * SIDE], weight: f32) {
    for (step, stride) in [(1, SIDE), (SIDE, 1)] {
        for line in 0..SIDE {
            let mut before = 0.0;
            for i in 0..SIDE {
                let at = line * stride + i * step;
                let here = page[at];
                let after = if i + 1 < SIDE { page[at + step] } else { 0.0 };
                page[at] = here + weight * (before + after - 2.0 * here);
                before = here;
            }
        }
    }
}
