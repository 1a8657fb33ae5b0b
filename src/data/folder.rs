//! A folder of image files, one folder per class.

use std::fs::{DirEntry, File};
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};

use super::{Images, image_size};
use crate::{Error, Result};

/// The endings, in any case, by which image files are known.
const ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Reads `folder/<class>/<file>`, PNG and JPEG files, as images of `shape`, `[C, H, W]`; C is 1 for gray or 3 for RGB.
///
/// Classes are the folders in `folder`, in the order of their names, byte by byte (so `10` comes before `9`); images come
/// class by class, in the order of their files' names. Other files, and names that start with a dot, are passed over.
/// A file's content decides whether it is PNG or JPEG; orientation tags are obeyed, transparency is dropped, and an image
/// of another size is stretched to `[H, W]` with a triangle filter, which averages when it shrinks.
///
/// # Errors
///
/// [`Error::Argument`] if `shape` is not possible. [`Error::Io`] if a file or folder can't be read. [`Error::Format`],
/// naming the file or folder, if an image is broken or cut short, if there are no classes, or if one has no images.
pub fn load(folder: impl AsRef<Path>, shape: [usize; 3]) -> Result<Images> {
    let folder = folder.as_ref();
    let [channels, height, width] = shape;
    let (Ok(h @ 1..), Ok(w @ 1..), Some(size), 1 | 3) =
        (u32::try_from(height), u32::try_from(width), image_size(shape), channels)
    else {
        return Err(Error::argument(
            "shape",
            format!("{channels} x {height} x {width} is not one of images; C must be 1 or 3, H and W at least 1"),
        ));
    };
    let class_folders = sorted(folder, |path| path.is_dir())?;
    if class_folders.is_empty() {
        return Err(Error::format(folder, "no classes in it; make a folder there for each class, with its images"));
    }
    let (mut classes, mut pixels, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for (label, (name, class_folder)) in (0u32..).zip(class_folders) {
        let files = sorted(&class_folder, is_image)?;
        if files.is_empty() {
            return Err(Error::format(
                class_folder,
                "no images in it (.png, .jpg, .jpeg); add some or remove the folder",
            ));
        }
        for (_, file) in &files {
            let mut picture = decode(file)?;
            if (picture.width(), picture.height()) != (w, h) {
                picture = picture.resize_exact(w, h, FilterType::Triangle);
            }
            if channels == 1 {
                pixels.extend_from_slice(picture.into_luma8().as_raw());
            } else {
                let rgb = picture.into_rgb8();
                pixels.reserve(size);
                for channel in 0..3 {
                    pixels.extend(rgb.pixels().map(|pixel| pixel.0[channel]));
                }
            }
            labels.push(label);
        }
        classes.push(name);
    }
    Images::new(shape, classes, pixels, labels)
}

/// What `wanted` picks from a folder, with names, sorted by name.
fn sorted(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<(String, PathBuf)>> {
    let failed = |e| Error::io(folder, e);
    let entries: Vec<DirEntry> = folder.read_dir().and_then(Iterator::collect).map_err(failed)?;
    let mut found = Vec::new();
    for path in entries.iter().map(DirEntry::path).filter(|path| wanted(path)) {
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if name.starts_with('.') => {}
            Some(name) => found.push((name.to_owned(), path)),
            None => return Err(Error::format(path, "its name is not valid Unicode; rename it")),
        }
    }
    found.sort();
    Ok(found)
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)) && !path.is_dir()
}

/// Decodes an image file, turned upright.
fn decode(path: &Path) -> Result<DynamicImage> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let decoded = || -> Result<DynamicImage, ImageError> {
        let mut decoder = ImageReader::new(BufReader::new(file)).with_guessed_format()?.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut picture = DynamicImage::from_decoder(decoder)?;
        picture.apply_orientation(orientation);
        Ok(picture)
    };
    decoded().map_err(|e| match e {
        ImageError::IoError(e) if e.kind() != ErrorKind::UnexpectedEof => Error::io(path, e),
        e => Error::format(path, format!("not a readable image ({e}); replace or remove the file")),
    })
}
