//! Reads a folder of golden cases: `manifest.json` and the safetensors files that it names.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use shadegrad::{Error, Result};

use super::reference::Array;

/// The folder that `SHADEGRAD_GOLDEN` names, else the package's own.
pub fn folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases");
    std::env::var_os("SHADEGRAD_GOLDEN").map_or_else(own, PathBuf::from)
}

/// What to run, on what, and what must come out. Names are without their `out.`, `cot.`, `grad.`, `@common/`.
#[derive(Clone, Debug)]
pub struct Case {
    pub id: String,
    pub op: String,
    /// An object.
    pub attrs: Value,
    pub inputs: BTreeMap<String, Tensor>,
    pub outputs: BTreeMap<String, (Tensor, Tolerance)>,
    pub cotangents: BTreeMap<String, Tensor>,
    pub grads: BTreeMap<String, (Tensor, Tolerance)>,
    pub note: String,
}

/// Row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    I32(Vec<i32>),
    U8(Vec<u8>),
}

/// |got - want| <= atol + rtol * |want|; an exact one has zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub rtol: f64,
    pub atol: f64,
    pub exact: bool,
}

impl Tensor {
    pub fn to_array(&self) -> Array {
        let data = match &self.data {
            Data::F32(v) => v.iter().map(|&v| f64::from(v)).collect(),
            Data::I32(v) => v.iter().map(|&v| f64::from(v)).collect(),
            Data::U8(v) => v.iter().map(|&v| f64::from(v)).collect(),
        };
        Array::new(self.shape.clone(), data)
    }

    pub fn f32(&self) -> Option<&[f32]> {
        if let Data::F32(v) = &self.data { Some(v) } else { None }
    }

    pub fn i32(&self) -> Option<&[i32]> {
        if let Data::I32(v) = &self.data { Some(v) } else { None }
    }
}

/// All cases of [`folder`], in the manifest's order.
pub fn load() -> Result<Vec<Case>> {
    load_from(&folder())
}

/// All cases of a folder, in the manifest's order.
pub fn load_from(folder: &Path) -> Result<Vec<Case>> {
    let path = folder.join("manifest.json");
    let text = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let manifest: Value = serde_json::from_slice(&text).map_err(|e| Error::format(&path, e.to_string()))?;
    let cases = manifest["cases"].as_array().ok_or_else(|| Error::format(&path, "there is no list `cases`"))?;
    let mut files = BTreeMap::new();
    let read = |(i, case): (usize, &Value)| {
        let id = case["id"].as_str().ok_or_else(|| Error::format(&path, format!("case {i} has no id")))?;
        read_case(folder, &mut files, id, case).map_err(|message| Error::format(&path, format!("case {id}: {message}")))
    };
    cases.iter().enumerate().map(read).collect()
}

/// The bytes of the files read so far.
type Files = BTreeMap<String, Vec<u8>>;

fn read_case(folder: &Path, files: &mut Files, id: &str, case: &Value) -> Result<Case, String> {
    let text = |field: &str| case[field].as_str().ok_or_else(|| format!("`{field}` is not a string"));
    let file = text("file")?;
    let bytes = match files.entry(file.to_owned()) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(free) => free.insert(std::fs::read(folder.join(file)).map_err(|e| format!("{file}: {e}"))?),
    };
    // Only the header is parsed here; the tensors stay in `bytes`.
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| format!("{file}: {e}"))?;
    let tensor = |name: &str| {
        let key = name.strip_prefix('@').map_or_else(|| format!("{id}/{name}"), str::to_owned);
        read_tensor(&tensors, &key).map_err(|message| format!("{file}: {key}: {message}"))
    };
    let plain = |field: &str, prefix: &str| -> Result<BTreeMap<String, Tensor>, String> {
        let names = case[field].as_array().ok_or_else(|| format!("`{field}` is not a list"))?;
        names
            .iter()
            .map(|name| {
                let name = name.as_str().ok_or_else(|| format!("`{field}` holds something else than names"))?;
                Ok((short(name, prefix), tensor(name)?))
            })
            .collect()
    };
    let expected = |field: &str, prefix: &str| -> Result<BTreeMap<String, (Tensor, Tolerance)>, String> {
        let entries = case[field].as_object().ok_or_else(|| format!("`{field}` is not an object"))?;
        let read = |(name, bounds): (&String, &Value)| {
            let tolerance = read_tolerance(bounds).ok_or_else(|| format!("{name} has no tolerance"))?;
            Ok((short(name, prefix), (tensor(name)?, tolerance)))
        };
        entries.iter().map(read).collect()
    };
    let attrs = &case["attrs"];
    if !attrs.is_object() {
        return Err("`attrs` is not an object".to_owned());
    }
    Ok(Case {
        id: id.to_owned(),
        op: text("op")?.to_owned(),
        attrs: attrs.clone(),
        inputs: plain("inputs", "@common/")?,
        outputs: expected("outputs", "out.")?,
        cotangents: plain("cotangents", "cot.")?,
        grads: expected("grads", "grad.")?,
        note: case["note"].as_str().unwrap_or_default().to_owned(),
    })
}

fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or_else(|| name.trim_start_matches('@')).to_owned()
}

fn read_tolerance(bounds: &Value) -> Option<Tolerance> {
    if bounds["exact"].as_bool() == Some(true) {
        return Some(Tolerance { rtol: 0.0, atol: 0.0, exact: true });
    }
    Some(Tolerance { rtol: bounds["rtol"].as_f64()?, atol: bounds["atol"].as_f64()?, exact: false })
}

fn read_tensor(tensors: &SafeTensors, key: &str) -> Result<Tensor, String> {
    let view = tensors.tensor(key).map_err(|e| e.to_string())?;
    let words = || view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    let data = match view.dtype() {
        Dtype::F32 => Data::F32(words().map(f32::from_le_bytes).collect()),
        Dtype::I32 => Data::I32(words().map(i32::from_le_bytes).collect()),
        Dtype::U8 => Data::U8(view.data().to_vec()),
        other => return Err(format!("dtype {other:?} is not one of F32, I32, U8")),
    };
    Ok(Tensor { shape: view.shape().to_vec(), data })
}
