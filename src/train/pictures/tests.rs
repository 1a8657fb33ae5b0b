//! Every picture is drawn to a file and read back.

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::*;

/// A fixed stream of numbers from 0 to 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// A folder of its own, or the one that `SHADEGRAD_PICTURES` names, for looking at the pictures.
struct Folder {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Folder {
    fn new() -> Self {
        match std::env::var_os("SHADEGRAD_PICTURES") {
            Some(path) => Self { path: path.into(), _temporary: None },
            None => {
                let temporary = tempfile::tempdir().unwrap();
                Self { path: temporary.path().to_owned(), _temporary: Some(temporary) }
            }
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join("new").join(name)
    }
}

fn read(path: &Path) -> RgbImage {
    image::open(path).unwrap().to_rgb8()
}

fn count(picture: &RgbImage, is: impl Fn([u8; 3]) -> bool) -> usize {
    picture.pixels().filter(|pixel| is(pixel.0)).count()
}

fn red([r, g, b]: [u8; 3]) -> bool {
    r > 180 && g < 90 && b < 90
}

fn is_argument(result: crate::Result<()>) -> bool {
    matches!(result, Err(Error::Argument { .. }))
}

/// A light ring on black, something like a drawn zero.
fn ring(side: usize) -> Vec<u8> {
    let middle = (side as f32 - 1.0) / 2.0;
    let value = |i: usize| {
        let (x, y) = ((i % side) as f32 - middle, (i / side) as f32 - middle);
        let distance = ((x * 1.35).hypot(y) - side as f32 * 0.32).abs();
        (255.0 * (2.2 - distance).clamp(0.0, 1.0)) as u8
    };
    (0..side * side).map(value).collect()
}

#[test]
fn curves_of_loss_and_accuracy() {
    let folder = Folder::new();
    let mut noise = Noise(1);
    let mut falling = |floor: f64, spread: f64| -> Vec<(f64, f64)> {
        let value = |step: u32, noise: f64| 2.3 * (-f64::from(step) / 400.0).exp() + floor * (1.0 + spread * noise);
        (0..4690).map(|step| (f64::from(step), value(step, f64::from(noise.next()) - 0.5))).collect()
    };
    let (train, other) = (falling(0.02, 1.9), falling(0.05, 1.6));
    let rising = |top: f64| -> Vec<(f64, f64)> {
        (1..=10).map(|epoch| (f64::from(epoch) * 469.0, top - 0.12 * (-f64::from(epoch) / 2.0).exp())).collect()
    };
    let (test, second) = (rising(0.9921), rising(0.985));
    let loss = [Curve { name: "train, Adam", points: &train }, Curve { name: "train, SGD", points: &other }];
    let accuracy = [Curve { name: "test, Adam", points: &test }, Curve { name: "test, SGD", points: &second }];
    let path = folder.file("curves.png");
    curves(&path, "Handwritten digits: a convolutional network", &loss, &accuracy).unwrap();
    let picture = read(&path);
    assert_eq!(picture.dimensions(), (1200, 500));
    assert!(count(&picture, |p| p == canvas::PALETTE[1]) > 300, "the second smoothed line");
    assert!(count(&picture, |p| p == canvas::PALETTE[3]) > 300, "the fourth curve's colour");

    let path = folder.file("curves-loss.png");
    let short = [(0.0, 1.0), (1.0, f64::NAN), (2.0, 0.5), (3.0, 0.6)];
    let long = "a name that is far too long for a legend, and then goes on, and on, until it is cut off somewhere";
    let many: Vec<Curve> = ["one", long, "three", "four", "five", "six", "seven", "eight", "nine"]
        .map(|name| Curve { name, points: &short })
        .into();
    curves(&path, &format!("{long} {long}"), &many, &[]).unwrap();
    assert_eq!(read(&path).dimensions(), (700, 500));
}

#[test]
fn curves_without_points_are_refused() {
    let folder = Folder::new();
    let path = folder.file("none.png");
    assert!(is_argument(curves(&path, "", &[], &[])));
    let bad = [(1.0, f64::NAN), (f64::INFINITY, 1.0)];
    assert!(is_argument(curves(&path, "", &[Curve { name: "loss", points: &bad }], &[])));
    assert!(!path.exists());
    curves(folder.file("one-point.png"), "", &[Curve { name: "loss", points: &[(1.0, 0.0)] }], &[]).unwrap();
}

#[test]
fn filters_are_enlarged_around_zero() {
    let folder = Folder::new();
    let mut noise = Noise(2);
    let mut weights: Vec<f32> = (0..32 * 25)
        .map(|i| {
            let (x, y) = ((i % 5) as f32 - 2.0, (i / 5 % 5) as f32 - 2.0);
            let angle = (i / 25) as f32 * 0.4;
            0.3 * (x * angle.cos() + y * angle.sin()).sin() + 0.15 * (noise.next() - 0.5)
        })
        .collect();
    let path = folder.file("filters.png");
    filters(&path, &weights, [32, 1, 5, 5]).unwrap();
    let picture = read(&path);
    assert!((600..1200).contains(&picture.width()), "{:?}", picture.dimensions());
    assert!(count(&picture, |[r, _, b]| r > 150 && b < 100) > 1000, "positive weights");
    assert!(count(&picture, |[r, _, b]| b > 140 && r < 90) > 1000, "negative weights");

    weights[3] = f32::NAN;
    filters(folder.file("filters-colour.png"), &weights[..16 * 3 * 9], [16, 3, 3, 3]).unwrap();
    filters(folder.file("filters-zero.png"), &[0.0; 4], [1, 1, 2, 2]).unwrap();
    assert!(is_argument(filters(&path, &weights, [32, 1, 5, 4])));
    assert!(is_argument(filters(&path, &[], [0, 1, 5, 5])));
    assert!(is_argument(filters(&path, &weights, [usize::MAX, 2, 5, 5])));
}

#[test]
fn wrong_tiles_are_red() {
    let folder = Folder::new();
    let pixels = ring(28);
    let tile = |i: usize, wrong: bool| Tile {
        pixels: &pixels,
        height: 28,
        width: 28,
        caption: if wrong { format!("{} (is {})", i % 10, (i + 5) % 10) } else { (i % 10).to_string() },
        wrong,
    };
    let right: Vec<Tile> = (0..23).map(|i| tile(i, false)).collect();
    let path = folder.file("sheet-right.png");
    contact_sheet(&path, &right, 8).unwrap();
    assert_eq!(count(&read(&path), red), 0);

    let mixed: Vec<Tile> = (0..23).map(|i| tile(i, i % 9 == 4)).collect();
    let path = folder.file("sheet.png");
    contact_sheet(&path, &mixed, 8).unwrap();
    let picture = read(&path);
    assert_eq!(picture.width(), 8 * (4 * 28 + 18) - 18 + 48);
    assert!(count(&picture, red) > 3 * 4 * 4 * 112, "three frames of four sides");

    let colour: Vec<u8> = (0..16 * 16 * 3).map(|i| (i % 256) as u8).collect();
    let caption = "ankle boot, not a sneaker".to_owned();
    let tiles = [Tile { pixels: &colour, height: 16, width: 16, caption, wrong: true }, tile(1, false)];
    contact_sheet(folder.file("sheet-colour.png"), &tiles, 10).unwrap();
}

#[test]
fn tiles_of_bad_length_are_refused() {
    let folder = Folder::new();
    let path = folder.file("bad.png");
    let tile = Tile { pixels: &[0; 5], height: 2, width: 3, caption: String::new(), wrong: false };
    assert!(is_argument(contact_sheet(&path, std::slice::from_ref(&tile), 4)));
    assert!(is_argument(contact_sheet(&path, &[], 4)));
    let tile = Tile { pixels: &[0; 6], ..tile };
    assert!(is_argument(contact_sheet(&path, std::slice::from_ref(&tile), 0)));
    let empty = Tile { pixels: &[], height: 0, ..tile };
    assert!(is_argument(contact_sheet(&path, &[empty], 1)));
    assert!(!path.exists());
}

#[test]
fn confusion_matrices_show_their_counts() {
    let folder = Folder::new();
    let mut noise = Noise(3);
    let mut matrix = |n: usize, most: f32| -> Vec<Vec<u32>> {
        let cell = |i, j, v: f32| if i == j { 980 + (200.0 * v) as u32 } else { (most * v.powi(9)) as u32 };
        (0..n).map(|i| (0..n).map(|j| cell(i, j, noise.next())).collect()).collect()
    };
    let digits: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let path = folder.file("confusion.png");
    confusion(&path, &matrix(10, 14.0), &digits).unwrap();
    let picture = read(&path);
    assert!((800..1000).contains(&picture.width()), "{:?}", picture.dimensions());

    let clothes =
        ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"];
    confusion(folder.file("confusion-names.png"), &matrix(10, 90.0), &clothes).unwrap();
    let hundred: Vec<String> = (0..100).map(|i| format!("class {i}")).collect();
    confusion(folder.file("confusion-100.png"), &matrix(100, 90.0), &hundred).unwrap();
    confusion(folder.file("confusion-empty.png"), &[[0, 0], [0, 0]], &["no", "yes"]).unwrap();

    assert!(is_argument(confusion(&path, &[[1, 2], [3, 4]], &["one", "two", "three"])));
    assert!(is_argument(confusion(&path, &[vec![1, 2], vec![3]], &["one", "two"])));
    assert!(is_argument(confusion(&path, &[[0u32; 0]; 0], &[""; 0])));
}

#[test]
fn saliency_is_laid_over_the_input() {
    let folder = Folder::new();
    let image = ring(28);
    let heat: Vec<f32> = (0..28 * 28)
        .map(|i| {
            let (x, y) = ((i % 28) as f32 - 20.0, (i / 28) as f32 - 9.0);
            f32::from(image[i]) / 255.0 * (-(x * x + y * y) / 60.0).exp() + 0.04 * ((i * 7 % 11) as f32 / 11.0)
        })
        .collect();
    let path = folder.file("saliency.png");
    heat_overlay(&path, &image, &heat, [28, 28]).unwrap();
    let picture = read(&path);
    assert_eq!(picture.width(), 3 * 28 * 11 + 2 * 22 + 48);
    assert!(count(&picture, |[r, g, b]| r > 220 && (100..200).contains(&g) && b < 140) > 100, "the hot spot");
    assert!(is_argument(heat_overlay(&path, &image, &heat[1..], [28, 28])));
    assert!(is_argument(heat_overlay(&path, &image[1..], &heat, [28, 28])));
    assert!(is_argument(heat_overlay(&path, &[], &[], [0, 28])));
    heat_overlay(folder.file("saliency-nan.png"), &[9; 12], &[f32::NAN; 4], [2, 2]).unwrap();
}

#[test]
fn the_plane_has_two_sides_and_a_line() {
    let folder = Folder::new();
    let mut noise = Noise(4);
    let (h, w) = (60, 90);
    let truth = |x: f32, y: f32| 1.0 / (1.0 + (-6.0 * (y - 0.6 * (2.2 * x).sin())).exp());
    let field: Vec<f32> = (0..h * w)
        .map(|i| truth((i % w) as f32 / (w - 1) as f32 * 4.0 - 2.0, (i / w) as f32 / (h - 1) as f32 * 3.0 - 1.5))
        .collect();
    let points: Vec<(f32, f32, u32)> = (0..220)
        .map(|_| {
            let (x, y) = (noise.next() * 3.9 - 1.95, noise.next() * 2.9 - 1.45);
            (x, y, u32::from(truth(x, y) + 0.3 * (noise.next() - 0.5) > 0.5))
        })
        .collect();
    let bounds = (-2.0, 2.0, -1.5, 1.5);
    let path = folder.file("plane.png");
    plane(&path, bounds, &field, [h, w], &points).unwrap();
    let picture = read(&path);
    assert!(picture.width() > 780 && picture.height() > 585, "{:?}", picture.dimensions());
    let inside = |x: f32, y: f32| picture.get_pixel((picture.width() as f32 * x) as u32, (585.0 * y) as u32 + 24).0;
    assert!(inside(0.1, 0.02)[0] > inside(0.1, 0.02)[2], "class 1 above");
    assert!(inside(0.1, 0.98)[2] > inside(0.1, 0.98)[0], "class 0 below");

    assert!(is_argument(plane(&path, bounds, &field, [h, w + 1], &[])));
    assert!(is_argument(plane(&path, bounds, &[], [0, 0], &[])));
    assert!(is_argument(plane(&path, (1.0, 1.0, 0.0, 1.0), &field, [h, w], &[])));
    assert!(is_argument(plane(&path, (0.0, f32::NAN, 0.0, 1.0), &field, [h, w], &[])));
    plane(folder.file("plane-nan.png"), bounds, &[f32::NAN, 0.2, 0.5, 0.9], [2, 2], &[(9.0, 9.0, 40)]).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_is_an_io_error() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path.join("new")).unwrap();
    let file = folder.file("file");
    std::fs::write(&file, "").unwrap();
    let result = filters(file.join("filters.png"), &[1.0], [1, 1, 1, 1]);
    assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
}
