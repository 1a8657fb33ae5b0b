//! Writes what a shader becomes in other languages.

use super::subject::Subject;
use shadegrad::{Error, Result};
use std::path::Path;

/// Writes the translations and says which; a language that has no words for the shader is told of.
pub fn write(path: &Path, subject: &Subject, folder: &Path) -> Result<()> {
    let entry = &subject.entry;
    let wgsl = subject.wgsl.with_overrides(entry, &subject.overrides)?;
    if folder.exists() && !folder.is_dir() {
        let message = format!("{} is a file; name a folder, which is made if need be", folder.display());
        return Err(Error::argument("--translate", message));
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let stem = path.file_stem().unwrap_or_default();
    let words = wgsl.spirv(entry).map(|words| words.iter().flat_map(|word| word.to_le_bytes()).collect());
    let bytes = |text: Result<String>| text.map(String::into_bytes);
    let results: [(&str, Result<Vec<u8>>); 5] = [
        ("spv", words),
        ("metal", bytes(wgsl.msl(entry))),
        ("hlsl", bytes(wgsl.hlsl(entry))),
        ("glsl", bytes(wgsl.glsl(entry, false))),
        ("es.glsl", bytes(wgsl.glsl(entry, true))),
    ];
    let mut written = Vec::new();
    for (extension, result) in results {
        let file = folder.join(format!("{}.{extension}", stem.display()));
        match result {
            Ok(bytes) => {
                std::fs::write(&file, bytes).map_err(|e| Error::io(&file, e))?;
                written.push(file.display().to_string());
            }
            Err(error) => eprintln!("{error}"),
        }
    }
    if written.is_empty() {
        return Err(Error::argument("--translate", "no language has words for this shader"));
    }
    eprintln!("written: {}", written.join(", "));
    Ok(())
}
