//! Files of what was measured: one for each adapter and driver.

use crate::graph::Caps;
use crate::graph::choose::{Choices, Fnv};
use crate::io::atomic::{Staged, keep, resolve, sibling};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Counts up when the file's form changes.
const VERSION: u64 = 2;
/// Added to the name of a file that is left aside.
const ASIDE: &str = ".bak";
/// Time that another process may take to save its choices: a file of some kilobytes.
const PATIENCE: Duration = Duration::from_secs(5);

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

    /// What is kept there. A file that is damaged, or of another version or device, is warned of, and left aside by
    /// [`CacheFile::save`].
    pub fn load(&self) -> Option<Value> {
        self.read().unwrap_or_else(|error| {
            let aside =
                if is_foreign(&error) { format!("; the file is then left aside as *{ASIDE}") } else { String::new() };
            log::warn!("{error}; what it would hold is measured anew{aside}");
            None
        })
    }

    fn read(&self) -> Result<Option<Value>> {
        let Some(path) = &self.path else { return Ok(None) };
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| Error::io(path, e))?,
        };
        let wrong = |message: String| Error::format(path, message);
        let mut value: Value = serde_json::from_slice(&text).map_err(|e| wrong(format!("this is no JSON: {e}")))?;
        if value["version"] != VERSION {
            return Err(wrong(format!("this is no file of version {VERSION}")));
        }
        if value["device"] != self.device.as_str() {
            return Err(wrong(format!("this is for {}, not for {}", value["device"], self.device)));
        }
        Ok(Some(value[self.what].take()))
    }

    /// Puts there what `value` makes; no other process writes meanwhile. One that is about to is waited for.
    pub fn save(&self, value: impl Fn() -> Value) -> Result<()> {
        let Some(path) = &self.path else {
            return Err(Error::argument("SHADEGRAD_CACHE", "no folder for caches is known; name one"));
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        let write = |out: &mut dyn Write| {
            self.leave_aside().map_err(std::io::Error::other)?;
            writeln!(out, "{:#}", json!({ "version": VERSION, "device": self.device, self.what: value() }))
        };
        let start = Instant::now();
        loop {
            match Staged::write(path, write) {
                Err(Error::Io { source, .. })
                    if source.kind() == ErrorKind::WouldBlock && start.elapsed() < PATIENCE =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                written => return written?.commit(),
            }
        }
    }

    /// Keeps a file that cannot be used under another name, as it is about to be replaced.
    fn leave_aside(&self) -> Result<()> {
        match (&self.path, self.read()) {
            (Some(path), Err(error)) if is_foreign(&error) => {
                let path = resolve(path);
                keep(&path, &sibling(&path, ASIDE)?)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a file could be read, but was not what it should be.
fn is_foreign(error: &Error) -> bool {
    !matches!(error, Error::Io { .. })
}

/// The file of an adapter's and driver's choices.
pub(crate) struct ChoiceFile(CacheFile);

impl ChoiceFile {
    /// The file for this adapter and driver, opened so.
    pub fn of(info: &wgpu::AdapterInfo, caps: &Caps, checked: bool) -> ChoiceFile {
        ChoiceFile(CacheFile::of("choices", info, caps, checked))
    }

    /// The choices kept there; one that cannot be read is warned of.
    pub fn load(&self) -> Choices {
        let Some(value) = self.0.load() else { return Choices::default() };
        let (choices, unreadable) = Choices::from_value(&value);
        if let Some(complaint) = unreadable {
            log::warn!("{complaint}; it is measured anew");
        }
        choices
    }

    /// Keeps these choices beside those that other processes have made meanwhile.
    pub fn save(&self, choices: &Choices) -> Result<()> {
        self.0.save(|| {
            // What cannot be read was warned of when it was loaded.
            let kept = self.0.read().ok().flatten();
            let mut all = kept.map_or_else(Choices::default, |value| Choices::from_value(&value).0);
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
    fn nothing_is_lost_where_several_save_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let choice = example().0.pop_first().unwrap().1;
        let save = |thread: usize| {
            for turn in 0..10 {
                let choices = Choices([(format!("{thread} {turn}"), choice.clone())].into());
                file(folder.path(), "a device").save(&choices).unwrap();
                assert!(file(folder.path(), "a device").0.read().unwrap().is_some(), "a reader meets half a file");
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || save(thread)))));
        assert_eq!(file(folder.path(), "a device").load().0.len(), 40);
    }

    #[test]
    fn one_unreadable_choice_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path(), "a device");
        let (work, choice) = example().0.pop_first().unwrap();
        file.save(&Choices([(work, choice.clone()), ("other".into(), choice)].into())).unwrap();
        let path = file.0.path.clone().unwrap();
        let text = fs::read_to_string(&path).unwrap().replacen("fingerprint", "footprint", 1);
        fs::write(&path, text).unwrap();
        assert_eq!(file.load().0.keys().collect::<Vec<_>>(), ["other"]);
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
        assert!(message().contains("version 2"));
        let newer = whole.replace("\"version\": 2", "\"version\": 3");
        fs::write(&path, &newer).unwrap();
        assert_eq!(ours.load(), Choices::default());
        // The next choices take its place, and it is not lost.
        ours.save(&example()).unwrap();
        assert_eq!(ours.load(), example());
        let aside = folder.path().join("choices.json.bak");
        assert_eq!(fs::read_to_string(&aside).unwrap(), newer);
        // What is no text is damaged, too; a good file is not left aside.
        fs::write(&path, b"\xff\xfe").unwrap();
        (0..2).for_each(|_| ours.save(&example()).unwrap());
        assert_eq!((ours.load(), fs::read(&aside).unwrap()), (example(), b"\xff\xfe".to_vec()));
    }

    #[test]
    fn each_device_has_a_file_of_its_own() {
        let names = ["a GPU (vulkan, 1.0)", "a GPU (vulkan, 1.1)", "a GPU (gl, 1.0)"].map(file_name);
        assert!(names[0] != names[1] && names[1] != names[2] && names[0].starts_with("agpuvulkan10-"));
    }
}
