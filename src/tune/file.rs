//! Files of what was measured: one for each adapter and driver.

use crate::graph::Caps;
use crate::graph::choose::{Choices, Fnv};
use crate::io::atomic::Staged;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

/// Counts up when the file's form changes.
const VERSION: u64 = 1;

/// A file for what was measured on one adapter and driver.
pub(crate) struct CacheFile {
    /// Nothing where there is no folder for caches.
    path: Option<PathBuf>,
    device: String,
    what: &'static str,
}

impl CacheFile {
    /// The file of `what` for this adapter and driver, opened with these abilities and with or without run-time checks.
    pub fn of(what: &'static str, info: &wgpu::AdapterInfo, caps: &Caps, checked: bool) -> CacheFile {
        let mut setup = Fnv::default();
        setup.add(&format!("{caps:?} {checked}"));
        let wgpu::AdapterInfo { name, backend, driver, driver_info, .. } = info;
        let device = format!("{name} ({backend}, {driver} {driver_info}; setup {:016x})", setup.0);
        let path = folder().map(|folder| folder.join(format!("{what}-{}", file_name(&device))));
        CacheFile { path, device, what }
    }

    /// What is kept there. A file that is damaged, or of another device, is left aside with a warning.
    pub fn load(&self) -> Option<Value> {
        self.read().unwrap_or_else(|error| {
            log::warn!("{error}; it is measured anew");
            None
        })
    }

    fn read(&self) -> Result<Option<Value>> {
        let Some(path) = &self.path else { return Ok(None) };
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| Error::io(path, e))?,
        };
        let wrong = |message: String| Error::format(path, message);
        let mut value: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("this is no JSON: {e}")))?;
        if value["version"] != VERSION {
            return Err(wrong(format!("this is no file of version {VERSION}")));
        }
        if value["device"] != self.device.as_str() {
            return Err(wrong(format!("this is for {}, not for {}", value["device"], self.device)));
        }
        Ok(Some(value[self.what].take()))
    }

    /// Puts there what `value` makes; no other process writes meanwhile.
    pub fn save(&self, value: impl FnOnce() -> Value) -> Result<()> {
        let Some(path) = &self.path else {
            return Err(Error::argument("SHADEGRAD_CACHE", "no folder for caches is known; name one"));
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        let write = |out: &mut dyn Write| {
            writeln!(out, "{:#}", json!({ "version": VERSION, "device": self.device, self.what: value() }))
        };
        Staged::write(path, write)?.commit()
    }
}

/// The file of an adapter's and driver's choices.
pub(crate) struct ChoiceFile(CacheFile);

impl ChoiceFile {
    /// The file for this adapter and driver, opened so.
    pub fn of(info: &wgpu::AdapterInfo, caps: &Caps, checked: bool) -> ChoiceFile {
        ChoiceFile(CacheFile::of("choices", info, caps, checked))
    }

    /// The choices kept there; those that cannot be read are left aside with a warning.
    pub fn load(&self) -> Choices {
        let read = |value: Value| Choices::from_value(&value);
        self.0.load().map_or(Ok(Choices::default()), read).unwrap_or_else(|error| {
            log::warn!("{error}; kernels are chosen anew");
            Choices::default()
        })
    }

    /// Keeps these choices beside those that other processes have made meanwhile.
    pub fn save(&self, choices: &Choices) -> Result<()> {
        self.0.save(|| {
            let mut all = self.load();
            all.0.extend(choices.0.clone());
            all.to_value()
        })
    }
}

fn file_name(device: &str) -> String {
    let mut hash = Fnv::default();
    hash.add(device);
    let letters: String = device.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    format!("{}-{:016x}.json", letters.to_lowercase(), hash.0)
}

/// The folder for what can be made again: `SHADEGRAD_CACHE`, else the one that the system has for this.
fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let system = || match std::env::consts::OS {
        "windows" => set("LOCALAPPDATA"),
        "macos" => home().map(|home| home.join("Library/Caches")),
        _ => set("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache"))),
    };
    set("SHADEGRAD_CACHE").or_else(|| system().map(|folder| folder.join("shadegrad")))
}

#[cfg(test)]
mod tests {
    use super::super::json::tests::example;
    use super::*;
    use std::path::Path;

    fn file(folder: &Path, device: &str) -> ChoiceFile {
        ChoiceFile(CacheFile { path: Some(folder.join("choices.json")), device: device.into(), what: "choices" })
    }

    #[test]
    fn what_was_saved_is_loaded_and_other_processes_choices_stay() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder.path().join("a/b"), "a device");
        assert_eq!(file.load(), Choices::default());
        file.save(&example()).unwrap();
        assert_eq!(file.load(), example());
        let (work, choice) = example().0.pop_first().unwrap();
        file.save(&Choices([("other".to_string(), choice)].into())).unwrap();
        assert_eq!(file.load().0.keys().cloned().collect::<Vec<_>>(), [work, "other".into()]);
    }

    #[test]
    fn damaged_and_foreign_files_are_left_aside() {
        let folder = tempfile::tempdir().unwrap();
        let ours = file(folder.path(), "ours");
        file(folder.path(), "theirs").save(&example()).unwrap();
        let (path, message) = (ours.0.path.clone().unwrap(), || ours.0.read().unwrap_err().to_string());
        assert!(message().contains("for \"theirs\", not for ours"));
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(message().contains("no JSON"));
        fs::write(&path, "{}").unwrap();
        assert!(message().contains("version 1"));
        assert_eq!(ours.load(), Choices::default());
        // And the next choices take their place.
        ours.save(&example()).unwrap();
        assert_eq!(ours.load(), example());
    }

    #[test]
    fn each_device_has_a_file_of_its_own() {
        let names = ["a GPU (vulkan, 1.0)", "a GPU (vulkan, 1.1)", "a GPU (gl, 1.0)"].map(file_name);
        assert!(names[0] != names[1] && names[1] != names[2] && names[0].starts_with("agpuvulkan10-"));
    }
}
