//! The promises of the datasets: what their files may look like, what is said of broken ones, and what repeats.
#![cfg(feature = "data")]

use std::io::Write;
use std::path::Path;

use shadegrad::data::{Images, Order, digits, folder, idx};
use shadegrad::{Error, Result};

const NAMES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// An IDX file of bytes.
fn idx_file(dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dimensions.len() as u8];
    file.extend(dimensions.iter().flat_map(|d| d.to_be_bytes()));
    file.extend(elements);
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Three training and two test images of 2 x 3, in the order of `NAMES`.
fn files() -> [Vec<u8>; 4] {
    [
        idx_file(&[3, 2, 3], &(0..18).collect::<Vec<u8>>()),
        idx_file(&[3], &[9, 0, 4]),
        idx_file(&[2, 2, 3], &(100..112).collect::<Vec<u8>>()),
        idx_file(&[2], &[1, 1]),
    ]
}

fn read_idx(files: &[(&str, Vec<u8>)]) -> Result<(Images, Images)> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    idx::mnist(folder.path())
}

/// The error's message when file number `at` of the four is `bytes`; it must be about that file.
fn broken(at: usize, bytes: Vec<u8>) -> String {
    let mut files = files();
    files[at] = bytes;
    let named: Vec<_> = NAMES.into_iter().zip(files).collect();
    match read_idx(&named).unwrap_err() {
        Error::Format { path, message } => {
            assert_eq!(path.file_name().unwrap(), NAMES[at], "{message}");
            message
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn says(message: impl AsRef<str>, part: &str) {
    let message = message.as_ref();
    assert!(message.contains(part), "{message:?} does not say {part:?}");
}

#[test]
fn idx_files_of_every_name() {
    let check = |(train, test): (Images, Images)| {
        assert_eq!((train.len(), train.channels, train.height, train.width), (3, 1, 2, 3));
        assert_eq!(train.image(1), [6, 7, 8, 9, 10, 11]);
        assert_eq!(train.labels, [9, 0, 4]);
        assert_eq!((test.len(), test.image(1)[5], test.labels[1]), (2, 111, 1));
        assert_eq!(test.classes[7], "7");
    };
    for dotted in [false, true] {
        // By content: gzip without .gz, and .gz without gzip, too.
        for (ending, compress) in [("", false), (".gz", true), ("", true), (".gz", false)] {
            let named: Vec<(String, Vec<u8>)> = NAMES
                .iter()
                .map(|name| if dotted { name.replace("-idx", ".idx") } else { name.to_string() } + ending)
                .zip(files().map(|file| if compress { gzip(&file) } else { file }))
                .collect();
            let named: Vec<_> = named.iter().map(|(name, file)| (name.as_str(), file.clone())).collect();
            check(read_idx(&named).unwrap());
        }
    }
}

#[test]
fn idx_files_that_are_missing() {
    let error = idx::mnist("no/such/folder").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    says(error.to_string(), "no/such/folder: no such folder; create it and put MNIST's four files there");

    let [a, b, c, _] = files();
    let error = read_idx(&[(NAMES[0], a), (NAMES[1], b), (NAMES[2], c)]).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with(NAMES[3])), "{error:?}");
    says(error.to_string(), "put MNIST's t10k labels file there");
}

#[test]
fn idx_files_that_are_broken() {
    let [images, labels, ..] = files();
    says(
        broken(0, labels.clone()),
        "starts with [00, 00, 08, 01], but an IDX file of bytes in 3 dimensions starts with",
    );
    says(broken(1, images.clone()), "in 1 dimension starts with [00, 00, 08, 01]");
    says(broken(2, b"<!DOCTYPE html>".to_vec()), "starts with [3c, 21, 44, 4f]");
    says(broken(0, images[..10].to_vec()), "its header should be 16 bytes, found 10");
    says(broken(0, Vec::new()), "its header should be 16 bytes, found 0");
    says(broken(0, images[..33].to_vec()), "promises 3 x 2 x 3 = 18 bytes, found 17");
    says(broken(0, [&images[..], &[0]].concat()), "more bytes in it than the 3 x 2 x 3 = 18");
    says(broken(1, [&labels[..], b"\n"].concat()), "more bytes in it than the 3 = 3");
    says(broken(1, idx_file(&[2], &[1, 2])), "2 labels, but ");
    says(broken(1, idx_file(&[3], &[9, 10, 11])), "label 10 of image 1; labels are 0 to 9");
    says(broken(2, idx_file(&[0, 2, 3], &[])), "0 x 2 x 3 bytes: there is nothing in it");
    says(broken(2, idx_file(&[2, 0, 3], &[])), "there is nothing in it");
}

#[test]
fn idx_headers_that_promise_too_much() {
    says(broken(0, idx_file(&[u32::MAX, u32::MAX, u32::MAX], &[0; 18])), "more than any file holds");
    says(broken(0, idx_file(&[u32::MAX, 0x7fff_ffff, 1], &[0; 18])), "found 18");
    says(broken(0, gzip(&idx_file(&[u32::MAX, 28, 28], &[0; 18]))), "found 18");
}

#[test]
fn idx_files_with_damaged_gzip() {
    let whole = gzip(&files()[0]);
    says(broken(0, whole[..whole.len() - 12].to_vec()), "damaged or cut-short gzip data");
    // The elements are whole, the checksum after them is not.
    let mut bad_sum = whole.clone();
    let at = bad_sum.len() - 8;
    bad_sum[at] ^= 1;
    says(broken(0, bad_sum), "damaged or cut-short gzip data");
    says(broken(0, whole[..2].to_vec()), "damaged or cut-short gzip data");
    says(broken(0, [&whole[..], b"junk"].concat()), "damaged or cut-short gzip data");
}

#[test]
fn idx_sizes_of_training_and_test_images_must_agree() {
    let mut files = files();
    files[2] = idx_file(&[2, 3, 2], &[0; 12]);
    let named: Vec<_> = NAMES.into_iter().zip(files).collect();
    says(read_idx(&named).unwrap_err().to_string(), "the training images are 2 x 3, the test images 3 x 2");
}

#[test]
fn digits_repeat_and_differ() {
    let a = digits::draw(500, 1).unwrap();
    assert_eq!((a.len(), a.channels, a.height, a.width), (500, 1, 28, 28));
    assert_eq!(a, digits::draw(500, 1).unwrap());
    assert_eq!(a.counts(), [50; 10]);

    // A shorter drawing is the start of a longer one.
    let mut longer = digits::draw(733, 1).unwrap();
    longer.split_off(500).unwrap();
    assert_eq!(a, longer);

    let b = digits::draw(500, 2).unwrap();
    assert_ne!(a.labels, b.labels);
    let same = (0..500).filter(|&i| (0..500).any(|j| a.image(i) == b.image(j) || (i != j && a.image(i) == a.image(j))));
    assert_eq!(same.count(), 0);

    says(digits::draw(0, 1).unwrap_err().to_string(), "there are none");
    says(digits::draw(usize::MAX, 1).unwrap_err().to_string(), "more than a dataset holds");
}

#[test]
fn digits_are_light_strokes_inside_of_a_dark_frame() {
    let drawn = digits::draw(2_000, 5).unwrap();
    let (mean, std) = drawn.mean_std();
    assert!((0.08..0.16).contains(&mean) && (0.18..0.32).contains(&std), "mean {mean}, deviation {std}");
    for i in 0..drawn.len() {
        let image = drawn.image(i);
        let rim =
            (0..28).flat_map(|k| [image[k], image[27 * 28 + k], image[28 * k], image[28 * k + 27]]).max().unwrap();
        let brightest = *image.iter().max().unwrap();
        assert!(brightest > 100, "image {i}: nothing brighter than {brightest}");
        assert!(rim < 100 && rim < brightest, "image {i}: {rim} at the rim, {brightest} inside");
    }
}

#[test]
fn images_must_fit_together() {
    let names = || vec!["cat".to_string(), "dog".to_string()];
    let new = |shape, bytes, labels: &[u32]| Images::new(shape, names(), vec![7; bytes], labels.to_vec());
    let message = |shape, bytes, labels| new(shape, bytes, labels).unwrap_err().to_string();
    assert!(new([3, 2, 2], 24, &[0, 1]).is_ok());
    says(message([1, 2, 2], 12, &[0, 1, 5]), "label 5 of image 2 names no class; there are 2");
    says(message([1, 2, 2], 9, &[0, 1]), "2 labels of 1 x 2 x 2 images (C x H x W) need 4 bytes each, but there are 9");
    says(message([1, 2, 2], 0, &[]), "there are none");
    says(message([1, 0, 2], 0, &[0]), "1 x 0 x 2 values (C x H x W) is not possible");
    says(message([usize::MAX, 2, 2], 0, &[0]), "is not possible");
}

#[test]
fn images_are_split_measured_and_gathered() {
    let names: Vec<String> = ["a", "b"].map(String::from).into();
    let mut images = Images::new([1, 1, 2], names, vec![0, 255, 51, 102, 0, 0], vec![1, 0, 1]).unwrap();
    assert_eq!(images.counts(), [1, 2]);

    let (mean, std) = images.mean_std();
    // 0, 1, 0.2, 0.4, 0, 0
    assert!((mean - 1.6 / 6.0).abs() < 1e-6, "{mean}");
    assert!((std - (1.2f32 / 6.0 - mean * mean).sqrt()).abs() < 1e-6, "{std}");

    let (mut x, mut y) = (vec![5.0], vec![5]);
    images.gather(&[2, 0, 1], 0.2, 0.5, &mut x, &mut y).unwrap();
    let expected = [-0.4, -0.4, -0.4, 1.6, 0.0, 0.4];
    assert!(x.len() == 6 && x.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{x:?}");
    assert_eq!(y, [1, 1, 0]);
    let before = x.clone();
    let mut failing = |indices: &[u32], mean, std| images.gather(indices, mean, std, &mut x, &mut y).unwrap_err();
    says(failing(&[0, 3], 0.0, 1.0).to_string(), "index 3 is past the end; there are 3 images");
    says(failing(&[0], 0.0, 0.0).to_string(), "the deviation must be above 0");
    says(failing(&[0], f32::NAN, 1.0).to_string(), "mean NaN");
    assert_eq!(x, before);

    assert!(images.split_off(0).is_err() && images.split_off(3).is_err());
    let rest = images.split_off(1).unwrap();
    assert_eq!((images.len(), rest.len()), (1, 2));
    assert_eq!((rest.image(0), rest.labels.as_slice()), ([51, 102].as_slice(), [0, 1].as_slice()));
}

#[test]
fn an_epoch_visits_every_image_once() {
    let drawn = digits::draw(60, 1).unwrap();
    let mut order = Order::new(drawn.len(), 20, 3).unwrap();
    for epoch in 0..3 {
        let mut seen: Vec<u32> = (0..3).flat_map(|s| order.batch(epoch * 3 + s).to_vec()).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..60));
    }
}

/// A PNG of one colour, `width` x `height`.
fn save(path: &Path, width: u32, height: u32, colour: [u8; 3]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(width, height, image::Rgb(colour)).save(path).unwrap();
}

#[test]
fn folders_are_classes() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    save(&at("dog/b.png"), 4, 4, [10, 20, 30]);
    save(&at("dog/a.PNG"), 8, 6, [40, 50, 60]);
    save(&at("cat/photo.jpeg"), 4, 4, [200, 200, 200]);
    std::fs::write(at("cat/notes.txt"), "not an image").unwrap();
    std::fs::write(at("readme.md"), "not a class").unwrap();
    std::fs::create_dir(at(".hidden")).unwrap();

    let rgb = folder::load(root.path(), [3, 4, 4]).unwrap();
    assert_eq!(rgb.classes, ["cat", "dog"]);
    assert_eq!(rgb.labels, [0, 1, 1]);
    assert!(rgb.image(0).iter().all(|&v| v.abs_diff(200) <= 2), "{:?}", rgb.image(0));
    // a.PNG before b.png, channel by channel.
    assert_eq!(rgb.image(1), [[40; 16], [50; 16], [60; 16]].concat());
    assert_eq!(rgb.image(2), [[10; 16], [20; 16], [30; 16]].concat());

    let gray = folder::load(root.path(), [1, 2, 5]).unwrap();
    assert_eq!((gray.len(), gray.image_len()), (3, 10));
    assert!(gray.image(1).iter().all(|v| (40..=60).contains(v)), "{:?}", gray.image(1));

    for shape in [[2, 4, 4], [1, 0, 4], [1, 4, 0], [3, usize::MAX, 2]] {
        assert!(matches!(folder::load(root.path(), shape), Err(Error::Argument { .. })), "{shape:?}");
    }
}

#[test]
fn folders_that_are_broken() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let error = || folder::load(root.path(), [1, 4, 4]).unwrap_err();
    let format = |file: &str| match error() {
        Error::Format { path, message } => {
            assert_eq!(path, at(file), "{message}");
            message
        }
        other => panic!("{other:?}"),
    };
    says(format(""), "no classes in it");

    save(&at("a/1.png"), 40, 40, [1, 2, 3]);
    std::fs::create_dir(at("b")).unwrap();
    says(format("b"), "no images in it");

    std::fs::write(at("b/1.png"), "not an image").unwrap();
    says(format("b/1.png"), "not a readable image");

    let noise: Vec<u8> = (0..48 * 48 * 3u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
    for name in ["b/1.png", "b/1.jpg"] {
        image::RgbImage::from_raw(48, 48, noise.clone()).unwrap().save(at(name)).unwrap();
        let whole = std::fs::read(at(name)).unwrap();
        for kept in [0, 4, 30, whole.len() / 2] {
            std::fs::write(at(name), &whole[..kept]).unwrap();
            says(format(name), "not a readable image");
        }
        std::fs::remove_file(at(name)).unwrap();
    }

    let missing = at("nowhere");
    let error = folder::load(&missing, [1, 4, 4]).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == missing), "{error:?}");
}
