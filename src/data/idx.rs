//! MNIST's IDX files, plain or gzipped.
//!
//! An IDX file is a big-endian header - two zero bytes, the type of the elements (8: bytes), the number of dimensions,
//! then each dimension as 32 bits - and the elements, the last dimension running fastest. Fashion-MNIST, KMNIST and
//! others come in the same files.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::{Images, digit_names};
use crate::{Error, Result};

/// Reads MNIST from `folder`: the 60,000 training images, then the 10,000 test images, `[N, 1, 28, 28]`, of ten classes.
///
/// The folder holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
/// `t10k-labels-idx1-ubyte`; `.idx3` and `.idx1` in place of `-idx3` and `-idx1`, and a `.gz` at the end, are fine. Whether
/// a file is gzipped is seen from its first bytes, not from its name. Counts and image size come from the headers.
///
/// # Errors
///
/// [`Error::Io`] if the folder or a file is missing or can't be read. [`Error::Format`], naming the file, if its header is
/// not that of an IDX file of images or labels, if it is cut short or has bytes to spare, if its gzip data is damaged, if
/// it is empty, if images and labels differ in number, or if a label is above 9.
pub fn mnist(folder: impl AsRef<Path>) -> Result<(Images, Images)> {
    let folder = folder.as_ref();
    if !folder.is_dir() {
        let message = "no such folder; create it and put MNIST's four files there: \
                       train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, \
                       t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz";
        return Err(Error::io(folder, std::io::Error::new(ErrorKind::NotFound, message)));
    }
    let train = pair(folder, "train")?;
    let test = pair(folder, "t10k")?;
    if (train.height, train.width) != (test.height, test.width) {
        return Err(Error::format(
            folder,
            format!(
                "the training images are {} x {}, the test images {} x {}; the files are from different datasets",
                train.height, train.width, test.height, test.width
            ),
        ));
    }
    Ok((train, test))
}

/// The images and labels whose files' names start with `prefix`.
fn pair(folder: &Path, prefix: &str) -> Result<Images> {
    let (images_path, labels_path) = (find(folder, prefix, "images", 3)?, find(folder, prefix, "labels", 1)?);
    let ([count, height, width], pixels) = read::<3>(&images_path)?;
    let ([label_count], labels) = read::<1>(&labels_path)?;
    if count != label_count {
        return Err(Error::format(
            labels_path,
            format!("{label_count} labels, but {} has {count} images; the files are not a pair", images_path.display()),
        ));
    }
    if let Some((i, label)) = labels.iter().enumerate().find(|&(_, &label)| label > 9) {
        return Err(Error::format(labels_path, format!("label {label} of image {i}; labels are 0 to 9")));
    }
    Images::new([1, height, width], digit_names(), pixels, labels.into_iter().map(u32::from).collect())
}

/// The file in `folder` under one of its usual names, plain before gzipped.
fn find(folder: &Path, prefix: &str, what: &str, dimensions: usize) -> Result<PathBuf> {
    let name = |dot: char, end: &str| folder.join(format!("{prefix}-{what}{dot}idx{dimensions}-ubyte{end}"));
    let names = [name('-', ""), name('.', ""), name('-', ".gz"), name('.', ".gz")];
    match names.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(Error::io(
            &names[0],
            std::io::Error::new(
                ErrorKind::NotFound,
                format!("not there, nor with .idx{dimensions} or .gz; put MNIST's {prefix} {what} file there"),
            ),
        )),
    }
}

/// Reads an IDX file of bytes with `D` dimensions: the dimensions and the elements.
fn read<const D: usize>(path: &Path) -> Result<([usize; D], Vec<u8>)> {
    let mut file = BufReader::new(File::open(path).map_err(|e| Error::io(path, e))?);
    let start = file.fill_buf().map_err(|e| Error::io(path, e))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        parse(path, MultiGzDecoder::new(file), "damaged or cut-short gzip data")
    } else {
        parse(path, file, "")
    }
}

/// Reads the header and the elements. `compression` says what an error of `reader` means, if it is not the system's.
fn parse<const D: usize>(path: &Path, mut reader: impl Read, compression: &str) -> Result<([usize; D], Vec<u8>)> {
    let failed = |e: std::io::Error| match compression {
        "" => Error::io(path, e),
        _ => Error::format(path, format!("{compression} ({e}); fetch the file again")),
    };
    let wrong = |message: String| Err(Error::format(path, message));
    let size = 4 + 4 * D;
    let mut header = Vec::with_capacity(size);
    reader.by_ref().take(size as u64).read_to_end(&mut header).map_err(failed)?;
    let magic = [0, 0, 8, D as u8];
    if header.len() >= 4 && header[..4] != magic {
        return wrong(format!(
            "starts with {:02x?}, but an IDX file of bytes in {D} dimension{} starts with {magic:02x?}",
            &header[..4],
            if D == 1 { "" } else { "s" },
        ));
    }
    if header.len() < size {
        return wrong(format!("cut short: its header should be {size} bytes, found {}", header.len()));
    }
    let mut dimensions = [0usize; D];
    let mut expected = Some(1u64);
    for (dimension, bytes) in dimensions.iter_mut().zip(header[4..].chunks_exact(4)) {
        let value = bytes.iter().fold(0u32, |value, &byte| value << 8 | u32::from(byte));
        expected = expected.and_then(|n| n.checked_mul(u64::from(value)));
        *dimension = value as usize;
    }
    let described = dimensions.map(|d| d.to_string()).join(" x ");
    let Some(expected) = expected.filter(|&n| n < i64::MAX as u64) else {
        return wrong(format!("its header promises {described} bytes, which is more than any file holds"));
    };
    if expected == 0 {
        return wrong(format!("its header promises {described} bytes: there is nothing in it"));
    }
    // Memory grows with what is there, not with what the header promises; the byte too many is to see the end, which for
    // gzip also verifies the checksum.
    let mut bytes = Vec::new();
    reader.take(expected + 1).read_to_end(&mut bytes).map_err(failed)?;
    let found = bytes.len() as u64;
    if found < expected {
        return wrong(format!(
            "cut short: its header promises {described} = {expected} bytes, found {found}; fetch the file again"
        ));
    }
    if found > expected {
        return wrong(format!("there are more bytes in it than the {described} = {expected} that its header promises"));
    }
    Ok((dimensions, bytes))
}
