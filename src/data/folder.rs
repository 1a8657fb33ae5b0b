//! A folder of image files, one folder per class.

use std::fs::DirEntry;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};

use super::loader::{check_len, cores, past_the_end};
use super::{Images, Source, image_size};
use crate::{Error, Result};

/// The endings, in any case, by which image files are known.
const ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Reads `folder/<class>/<file>`, PNG and JPEG files, as images of `shape`, `[C, H, W]`, at once; see [`Files`] for
/// what is taken and how.
///
/// # Errors
///
/// Those of [`Files::list`] and of reading each image.
pub fn load(folder: impl AsRef<Path>, shape: [usize; 3]) -> Result<Images> {
    let files = Files::list(folder, shape)?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::with_capacity(files.files.len()));
    for index in 0..files.files.len() {
        let start = pixels.len();
        pixels.resize(start + files.size, 0);
        labels.push(files.read(index, &mut pixels[start..])?);
    }
    Images::new(shape, files.classes, pixels, labels)
}

/// A folder's images, listed at once and decoded when a [`Loader`](super::Loader) asks for them, on all cores.
///
/// Classes are the folders in the folder, in the order of their names, byte by byte (so `10` comes before `9`); images
/// come class by class, in the order of their files' names. Other files, and names that start with a dot, are passed
/// over. A file's content decides whether it is PNG or JPEG; orientation tags are obeyed, transparency is dropped, and
/// an image of another size is stretched to `[H, W]` with a triangle filter, which averages when it shrinks.
#[derive(Clone, Debug)]
pub struct Files {
    shape: [usize; 3],
    /// Bytes per image.
    size: usize,
    classes: Vec<String>,
    /// Each image's file and label.
    files: Vec<(PathBuf, u32)>,
}

impl Files {
    /// Lists `folder/<class>/<file>`, to be read as images of `shape`, `[C, H, W]`; C is 1 for gray or 3 for RGB.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `shape` is not possible. [`Error::Io`] if a folder can't be read. [`Error::Format`], naming
    /// the folder, if there are no classes, or if one has no images. A broken image comes to light when it is read: an
    /// [`Error::Io`] or [`Error::Format`] that names its file.
    pub fn list(folder: impl AsRef<Path>, shape: [usize; 3]) -> Result<Self> {
        let folder = folder.as_ref();
        let [channels, height, width] = shape;
        let (Ok(1..), Ok(1..), Some(size), 1 | 3) =
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
        let (mut classes, mut files) = (Vec::new(), Vec::new());
        for (label, (name, class_folder)) in (0u32..).zip(class_folders) {
            let found = sorted(&class_folder, is_image)?;
            if found.is_empty() {
                return Err(Error::format(
                    class_folder,
                    "no images in it (.png, .jpg, .jpeg); add some or remove the folder",
                ));
            }
            files.extend(found.into_iter().map(|(_, file)| (file, label)));
            classes.push(name);
        }
        Ok(Self { shape, size, classes, files })
    }

    /// The file of image `index`, if there are that many.
    pub fn path(&self, index: usize) -> Option<&Path> {
        self.files.get(index).map(|(path, _)| path.as_path())
    }
}

impl Source for Files {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<u32> {
        check_len(self.size, pixels)?;
        let Some((file, label)) = self.files.get(index) else {
            return Err(past_the_end(index, self.files.len()));
        };
        let mut picture = decode(file)?;
        // Both fit, as `list` has seen.
        let [channels, h, w] = self.shape.map(|side| side as u32);
        if (picture.width(), picture.height()) != (w, h) {
            picture = picture.resize_exact(w, h, FilterType::Triangle);
        }
        if channels == 1 {
            pixels.copy_from_slice(picture.into_luma8().as_raw());
        } else {
            let rgb = picture.into_rgb8();
            for (channel, plane) in pixels.chunks_exact_mut(self.size / 3).enumerate() {
                plane.iter_mut().zip(rgb.pixels()).for_each(|(value, pixel)| *value = pixel.0[channel]);
            }
        }
        Ok(*label)
    }

    fn threads(&self) -> usize {
        cores()
    }
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
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let decoded = || -> Result<DynamicImage, ImageError> {
        let mut decoder = ImageReader::new(Cursor::new(&bytes)).with_guessed_format()?.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut picture = DynamicImage::from_decoder(decoder)?;
        picture.apply_orientation(orientation);
        Ok(picture)
    };
    let broken = |why: String| Error::format(path, format!("not a readable image ({why}); replace or remove the file"));
    let picture = decoded().map_err(|e| broken(e.to_string()))?;
    if bytes.starts_with(&JPEG) && !jpeg_is_whole(&bytes) {
        return Err(broken("a JPEG that is cut short, as it has no end marker".into()));
    }
    Ok(picture)
}

/// What a JPEG starts with.
const JPEG: [u8; 2] = [0xff, 0xd8];

/// Whether a JPEG reaches its end marker; decoders make up gray for what is missing. Segments are skipped by their
/// length, so that the end of a thumbnail inside of one does not count.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = JPEG.len();
    while let Some(&[marker, kind]) = bytes.get(at..at + 2) {
        at += match (marker, kind) {
            (0xff, 0xd9) => return true,
            // Coded pixels, a fill byte, or a marker that stands alone.
            (..0xff, _) | (0xff, 0xff) => 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => 2,
            // A segment: its length counts itself.
            (0xff, _) => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_jpeg_is_its_own() {
        // A segment that holds a thumbnail's end, the start of a scan, coded pixels with an escaped 0xff and a restart.
        let whole = b"\xff\xd8\xff\xe1\0\x04\xff\xd9\xff\xda\0\x02\x12\xff\0\x34\xff\xd0\x56\xff\xff\xd9and more";
        assert!(jpeg_is_whole(whole));
        let cut = whole.len() - 1 - b"and more".len();
        assert!((0..=cut).all(|kept| !jpeg_is_whole(&whole[..kept])));
        assert!(!jpeg_is_whole(b"\xff\xd8\xff\xe1\xff\xff"));
    }
}
