//! Reading and writing safetensors files (<https://huggingface.co/docs/safetensors>): eight bytes with the header's
//! length, the header in JSON, the tensors' bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ::safetensors::{Dtype, SafeTensors};
use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::atomic::Staged;
use super::{HostTensor, HostType, StateDict};
use crate::{Error, Result};

/// The bytes before the header: its length.
const PREFIX: usize = 8;
/// The longest header that readers accept.
const MAX_HEADER: usize = 100_000_000;
/// The header's name for the map of strings, not to be used by a tensor.
const METADATA: &str = "__metadata__";

impl StateDict {
    /// Reads a safetensors file.
    ///
    /// `F32`, `I32` and `U32` are taken as they are. `F16`, `BF16` and `F64` become `f32` (`F64` rounded to the nearest);
    /// `I8`, `I16` and `I64` become `i32`; `BOOL`, `U8`, `U16` and `U64` become `u32`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read. [`Error::Format`] if it is truncated, damaged or of another format (for
    /// PyTorch's own, with the lines that convert it), has a type not listed above, or a value beyond its new type's range.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        // Looks at the head first, so that a huge file of another kind is not read to the end.
        let mut bytes = Vec::new();
        (&file).take(64).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
        header_length(&bytes).map_err(|message| Error::format(path, message))?;
        (&file).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
        Self::parse(&bytes, path)
    }

    /// Reads the bytes of a safetensors file, for instance ones built into the program by `include_bytes!`; `name` stands
    /// for the file in errors.
    ///
    /// # Errors
    /// [`Error::Format`] as for [`StateDict::load`].
    pub fn parse(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self> {
        parse(bytes).map_err(|message| Error::format(name, message))
    }

    /// Writes a safetensors file, atomically: it is written under another name in the same folder (`<name>.partial`),
    /// brought to disk and renamed. A process killed at any moment leaves either the old file or the new one, and at most
    /// one stray temporary, which the next save overwrites. The same tensors and metadata give the same bytes.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written or another save to it is under way; [`Error::Argument`] if a tensor's
    /// bytes do not fit its shape, or it has a name that the format reserves. The old file is then still there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let tensors = self.tensors.iter().map(|(name, t)| (name.clone(), t)).collect();
        stage(path.as_ref(), &tensors, &self.metadata)?.commit()
    }
}

/// Writes a safetensors file beside `path`, ready to replace it.
pub(super) fn stage(
    path: &Path,
    tensors: &BTreeMap<String, &HostTensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<Staged> {
    let header = header(tensors, metadata)?;
    Staged::write(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        tensors.values().try_for_each(|t| out.write_all(&t.bytes))
    })
}

/// Whether the file at `path` is a whole safetensors file, by its length and header alone.
pub(super) fn looks_whole(path: &Path) -> bool {
    let look = || -> io::Result<bool> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut head = Vec::new();
        (&file).take(PREFIX as u64 + 1).read_to_end(&mut head)?;
        let Ok(header) = header_length(&head) else { return Ok(false) };
        (&file).take(header as u64 - 1).read_to_end(&mut head)?;
        Ok(check_extent(head.get(PREFIX..).unwrap_or_default(), header, length).is_ok())
    };
    look().unwrap_or(false)
}

/// The JSON header, padded so that the data begin at a multiple of eight.
fn header(tensors: &BTreeMap<String, &HostTensor>, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA.into(), json!(metadata));
    }
    let mut start = 0;
    for (name, tensor) in tensors {
        if name.is_empty() || name == METADATA {
            return Err(Error::argument(format!("tensor `{name}`"), "this name cannot be saved; choose another"));
        }
        tensor.validate(name)?;
        let dtype = match tensor.dtype {
            HostType::F32 => "F32",
            HostType::U32 => "U32",
            HostType::I32 => "I32",
        };
        let end = start + tensor.bytes.len();
        entries.insert(name.clone(), json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] }));
        start = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(PREFIX), b' ');
    if header.len() > MAX_HEADER {
        let message = format!("names and metadata take {} bytes, the format allows {MAX_HEADER}", header.len());
        return Err(Error::argument("safetensors header", message));
    }
    Ok(header)
}

fn parse(bytes: &[u8]) -> Result<StateDict, String> {
    let length = header_length(bytes)?;
    let header = bytes.get(PREFIX..PREFIX + length).ok_or_else(|| truncated(PREFIX + length, bytes.len()))?;
    check_extent(header, length, bytes.len() as u64)?;
    let (_, info) = SafeTensors::read_metadata(bytes).map_err(|e| format!("damaged: {e}"))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("damaged: {e}"))?;
    let mut state = StateDict::new();
    state.metadata = info.metadata().clone().unwrap_or_default().into_iter().collect();
    for (name, view) in file.iter() {
        let (dtype, bytes) = convert(view.dtype(), view.data()).map_err(|what| format!("tensor `{name}`: {what}"))?;
        let tensor = HostTensor { dtype, shape: view.shape().to_vec(), bytes };
        tensor.validate(name).map_err(|e| format!("damaged: {e}"))?;
        state.tensors.insert(name.to_owned(), tensor);
    }
    Ok(state)
}

/// The length of the header, from the file's first bytes; what the file is instead, where it is something else.
fn header_length(head: &[u8]) -> Result<usize, String> {
    if let Some((length, [first, ..])) = head.split_first_chunk::<PREFIX>() {
        let length = u64::from_le_bytes(*length);
        if *first == b'{' && (2..=MAX_HEADER as u64).contains(&length) {
            return Ok(length as usize);
        }
    }
    const KNOWN: [(&[u8], &str); 10] = [
        (b"PK\x03\x04", TORCH),
        (b"\x80\x02", TORCH),
        (b"\x80\x03", TORCH),
        (b"\x80\x04", TORCH),
        (b"\x93NUMPY", "this is a NumPy array, not safetensors; save it with `safetensors.numpy.save_file`"),
        (b"\x89HDF", "this is an HDF5 file, not safetensors; load it in Keras and save its weights with safetensors"),
        (b"GGUF", "this is a GGUF file, not safetensors; look for the model's safetensors files"),
        (b"version https://git-lfs", "this is only Git LFS's pointer to the file; fetch it with `git lfs pull`"),
        (b"<!", WEB_PAGE),
        (b"<htm", WEB_PAGE),
    ];
    let known = KNOWN.iter().find(|(magic, _)| head.len() > PREFIX && head.starts_with(magic));
    Err(match (known, head.len()) {
        (Some((_, message)), _) => (*message).to_owned(),
        (None, 0) => "the file is empty".to_owned(),
        (None, n) if n <= PREFIX => format!("truncated: {n} bytes, too few for a safetensors file"),
        _ => "not a safetensors file: it does not begin with the header's length and a header in JSON".to_owned(),
    })
}

const WEB_PAGE: &str = "this looks like a web page, not safetensors; download the file itself";
const TORCH: &str = "this is a zip archive or a pickle, as `torch.save` writes them, not safetensors; convert it in Python:\n  \
    import torch; from safetensors.torch import save_file\n  \
    save_file({k: v.clone().contiguous() for k, v in torch.load(\"in.pt\", \"cpu\", weights_only=True).items()}, \
    \"out.safetensors\")";

/// Whether the tensors that `header` lists fill a file of `length` bytes exactly.
///
/// This comes before the parser proper because it can tell how much is missing, and so that no offset there is beyond the
/// file's end.
fn check_extent(header: &[u8], header_length: usize, length: u64) -> Result<(), String> {
    let data = PREFIX as u64 + header_length as u64;
    if (header.len() as u64) < header_length as u64 {
        return Err(truncated(data, length));
    }
    let entries: Map<String, Value> =
        serde_json::from_slice(header).map_err(|e| format!("damaged: the header is not valid JSON ({e})"))?;
    let ends = entries.iter().filter(|(name, _)| *name != METADATA).map(|(name, info)| {
        info["data_offsets"][1].as_u64().ok_or_else(|| format!("damaged: no valid data offsets for tensor `{name}`"))
    });
    let end = ends.collect::<Result<Vec<u64>, String>>()?.into_iter().max().unwrap_or(0);
    match end.checked_add(data) {
        Some(end) if end == length => Ok(()),
        Some(end) if end < length => Err(format!("damaged: {} bytes more than its tensors fill", length - end)),
        _ => Err(truncated(end.saturating_add(data), length)),
    }
}

fn truncated(need: impl std::fmt::Display, have: impl std::fmt::Display) -> String {
    format!("truncated: its header asks for {need} bytes, but there are {have}; copy or download the file again")
}

/// The bytes of a tensor of `dtype` as one of our types.
fn convert(dtype: Dtype, data: &[u8]) -> Result<(HostType, Vec<u8>), String> {
    let beyond = |value: &dyn std::fmt::Display, kind: HostType| format!("the value {value} does not fit {kind}");
    let float = |value: f32| Ok(value.to_le_bytes());
    Ok(match dtype {
        Dtype::F32 => (HostType::F32, data.to_vec()),
        Dtype::I32 => (HostType::I32, data.to_vec()),
        Dtype::U32 => (HostType::U32, data.to_vec()),
        Dtype::F16 => (HostType::F32, each(data, |b| float(f16::from_le_bytes(b).to_f32()))?),
        Dtype::BF16 => (HostType::F32, each(data, |b| float(bf16::from_le_bytes(b).to_f32()))?),
        Dtype::F64 => {
            let narrow = |bytes| {
                let wide = f64::from_le_bytes(bytes);
                let value = wide as f32;
                if wide.is_finite() && value.is_infinite() { Err(beyond(&wide, HostType::F32)) } else { float(value) }
            };
            (HostType::F32, each(data, narrow)?)
        }
        Dtype::I8 => (HostType::I32, each(data, |b| Ok(i32::from(i8::from_le_bytes(b)).to_le_bytes()))?),
        Dtype::I16 => (HostType::I32, each(data, |b| Ok(i32::from(i16::from_le_bytes(b)).to_le_bytes()))?),
        Dtype::I64 => {
            let narrow = |bytes| {
                let wide = i64::from_le_bytes(bytes);
                i32::try_from(wide).map(i32::to_le_bytes).map_err(|_| beyond(&wide, HostType::I32))
            };
            (HostType::I32, each(data, narrow)?)
        }
        Dtype::BOOL => (HostType::U32, each(data, |[b]| Ok(u32::from(b != 0).to_le_bytes()))?),
        Dtype::U8 => (HostType::U32, each(data, |[b]| Ok(u32::from(b).to_le_bytes()))?),
        Dtype::U16 => (HostType::U32, each(data, |b| Ok(u32::from(u16::from_le_bytes(b)).to_le_bytes()))?),
        Dtype::U64 => {
            let narrow = |bytes| {
                let wide = u64::from_le_bytes(bytes);
                u32::try_from(wide).map(u32::to_le_bytes).map_err(|_| beyond(&wide, HostType::U32))
            };
            (HostType::U32, each(data, narrow)?)
        }
        other => return Err(format!("its type {other} is not supported; save it as F32, F16 or BF16")),
    })
}

/// Converts `data` in pieces of `N` bytes.
fn each<const N: usize>(data: &[u8], element: impl Fn([u8; N]) -> Result<[u8; 4], String>) -> Result<Vec<u8>, String> {
    let (pieces, _) = data.as_chunks::<N>();
    let mut out = Vec::with_capacity(pieces.len() * 4);
    for &piece in pieces {
        out.extend_from_slice(&element(piece)?);
    }
    Ok(out)
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
