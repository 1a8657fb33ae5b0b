//! Where labels stand beside the points of a picture, so that none lies on another.

use std::ops::Range;

/// Pixels, to the right and down.
pub type Place = (i32, i32);

/// A rectangle of pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Area {
    pub x: Range<i32>,
    pub y: Range<i32>,
}

impl Area {
    fn around((x, y): Place, (width, height): (i32, i32)) -> Area {
        let (left, top) = (x - width / 2, y - height / 2);
        Area { x: left..left + width, y: top..top + height }
    }

    fn meets(&self, other: &Area) -> bool {
        let meet = |a: &Range<i32>, b: &Range<i32>| a.start < b.end && b.start < a.end;
        meet(&self.x, &other.x) && meet(&self.y, &other.y)
    }

    fn holds(&self, other: &Area) -> bool {
        let holds = |a: &Range<i32>, b: &Range<i32>| a.start <= b.start && b.end <= a.end;
        holds(&self.x, &other.x) && holds(&self.y, &other.y)
    }

    /// Its pixel that is nearest to this place.
    pub fn nearest(&self, (x, y): Place) -> Place {
        (x.clamp(self.x.start, self.x.end), y.clamp(self.y.start, self.y.end))
    }
}

/// Of the mark of a point.
const MARK: (i32, i32) = (8, 8);
/// Gaps between a point and its label that are tried, and directions.
const GAPS: Range<i32> = 5..120;
const DIRECTIONS: usize = 16;

/// The area of each point's label of this size: the nearest one `within` that no point and no other label has or, where all
/// are taken, one right beside the point.
pub fn place(points: &[Place], sizes: &[(i32, i32)], within: &Area) -> Vec<Area> {
    let mut taken: Vec<Area> = points.iter().map(|point| Area::around(*point, MARK)).collect();
    for (point, size) in points.iter().zip(sizes) {
        let beside = |gap: i32, direction: usize| {
            // From the upper right on.
            let angle = (direction as f64 / DIRECTIONS as f64 - 0.125) * std::f64::consts::TAU;
            let x = angle.cos() * f64::from(gap + size.0 / 2);
            let y = angle.sin() * f64::from(gap + size.1 / 2);
            Area::around((point.0 + x as i32, point.1 + y as i32), *size)
        };
        let tried = GAPS.step_by(4).flat_map(|gap| (0..DIRECTIONS).map(move |direction| (gap, direction)));
        let mut free = tried.map(|(gap, direction)| beside(gap, direction));
        let free = free.find(|area| within.holds(area) && !taken.iter().any(|other| other.meets(area)));
        taken.push(free.unwrap_or_else(|| beside(GAPS.start, 0)));
    }
    taken.split_off(points.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_a_cluster_do_not_lie_on_another_nor_on_points() {
        let points: Vec<Place> = (0..40).map(|n| (100 + 3 * (n % 8), 100 + 2 * (n / 8))).collect();
        let within = Area { x: 0..400, y: 0..300 };
        let labels = place(&points, &[(14, 11); 40], &within);
        for (n, label) in labels.iter().enumerate() {
            assert!(within.holds(label));
            assert!(labels[..n].iter().all(|other| !other.meets(label)), "{n}");
            assert!(points.iter().all(|point| !Area::around(*point, MARK).meets(label)), "{n}");
        }
        // One by itself has its label right beside it.
        let (x, y) = place(&[(50, 50)], &[(7, 11)], &within)[0].nearest((50, 50));
        assert!((45..=55).contains(&x) && (45..=55).contains(&y), "{x}, {y}");
    }
}
