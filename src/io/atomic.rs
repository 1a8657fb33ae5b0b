//! Replacing a file so that at every moment a complete one is in its place.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A complete new version of a file, on disk beside it, not yet in its place. Dropped uncommitted, it is removed.
pub(crate) struct Staged {
    temporary: PathBuf,
    target: PathBuf,
    // Holds the lock that keeps a second saver of the same target out until the rename is done.
    file: File,
    committed: bool,
}

impl Staged {
    /// Writes a new version of `target` to `<name>.partial` beside it and waits until it is on disk.
    ///
    /// The temporary name depends only on the target's, so saves that are killed leave at most that one file behind, and
    /// the next one overwrites it. A target that is a symbolic link stays one: the file it points to is replaced.
    pub fn write(target: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Self> {
        let target = resolve(target);
        let temporary = sibling(&target, ".partial")?;
        if let Some(folder) = target.parent().filter(|p| !p.as_os_str().is_empty() && !p.exists()) {
            let message = format!("the folder {} does not exist; create it first", folder.display());
            return Err(Error::io(&target, io::Error::new(io::ErrorKind::NotFound, message)));
        }
        let file = open_locked(&temporary).map_err(|e| Error::io(&temporary, e))?;
        let staged = Staged { temporary, target, file, committed: false };
        staged.fill(fill).map_err(|e| Error::io(&staged.temporary, e))?;
        Ok(staged)
    }

    fn fill(&self, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        self.file.set_len(0)?;
        let mut out = BufWriter::with_capacity(1 << 20, &self.file);
        fill(&mut out)?;
        out.flush()?;
        self.file.sync_all()
    }

    /// The file that [`Staged::commit`] replaces.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Puts the new version in place of the target, and waits until that is on disk, too.
    pub fn commit(mut self) -> Result<()> {
        fs::rename(&self.temporary, &self.target).map_err(|e| Error::io(&self.target, e))?;
        self.committed = true;
        sync_folder(&self.target).map_err(|e| Error::io(&self.target, e))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            // A stray temporary file is harmless (the next save overwrites it), so a failure here is not worth a word.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Keeps the present version of `target`, if there is one, as `kept`.
///
/// With hard links, `target` is there throughout; on file systems without them it is renamed, and until the next rename
/// onto `target` only `kept` is there, complete.
pub(crate) fn keep(target: &Path, kept: &Path) -> Result<()> {
    let link = sibling(kept, ".partial")?;
    remove_if_there(&link).map_err(|e| Error::io(&link, e))?;
    match fs::hard_link(target, &link) {
        Ok(()) => {
            fs::rename(&link, kept).map_err(|e| Error::io(kept, e))?;
            // Renaming one name of a file onto another of its names does nothing, by POSIX, and leaves both: this is so
            // when the last save was killed between keeping and committing.
            remove_if_there(&link).map_err(|e| Error::io(&link, e))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => fs::rename(target, kept).map_err(|e| Error::io(target, e)),
    }
}

/// `path`, or the file it points to if it is a symbolic link to one.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    if path.is_symlink() { fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()) } else { path.to_owned() }
}

/// `path` with `suffix` added to its file name.
pub(crate) fn sibling(path: &Path, suffix: &str) -> Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::argument(path.display().to_string(), "this path names no file; add a file name"))?;
    let mut name: std::ffi::OsString = OsStr::to_os_string(name);
    name.push(suffix);
    Ok(path.with_file_name(name))
}

/// Opens `path` for writing, not yet truncated, and locks it against other savers.
fn open_locked(path: &Path) -> io::Result<File> {
    for _ in 0..16 {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            // Between opening and locking, another saver may have renamed this very file into place: writing to it then
            // would tear the finished file, so it must still be the one under the temporary name.
            Ok(()) if is_at(&file, path) => return Ok(file),
            Ok(()) => continue,
            Err(TryLockError::WouldBlock) => break,
            // No locks on this file system or platform: one saver at a time is then the caller's to see to.
            Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "another save to the same place is under way"))
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Waits until the folder of `path` - the names in it - is on disk.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Folders cannot be opened for syncing here.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, text: &str) -> Result<()> {
        Staged::write(path, |out| out.write_all(text.as_bytes()))?.commit()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_and_cleans_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        put(&path, "a longer first version").unwrap();
        fs::write(folder.path().join("a.partial"), "left by a save that was killed").unwrap();
        put(&path, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        let failed = Staged::write(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), names(folder.path())),
            ("second", vec!["a".to_owned()])
        );
    }

    #[test]
    fn a_second_saver_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let first = Staged::write(&path, |out| out.write_all(b"first")).unwrap();
        assert!(put(&path, "second").unwrap_err().to_string().contains("another save"));
        first.commit().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    }

    #[test]
    fn keeps_the_old_version() {
        let folder = tempfile::tempdir().unwrap();
        let (path, kept) = (folder.path().join("a"), folder.path().join("a.previous"));
        keep(&path, &kept).unwrap();
        assert_eq!(names(folder.path()), Vec::<String>::new());
        put(&path, "1").unwrap();
        keep(&path, &kept).unwrap();
        keep(&path, &kept).unwrap(); // as after a save killed between keeping and committing
        assert_eq!(names(folder.path()), ["a", "a.previous"]);
        put(&path, "2").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap(), fs::read_to_string(&kept).unwrap()), ("2".into(), "1".into()));
    }

    #[test]
    fn bad_places_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = put(&folder.path().join("no/a"), "").unwrap_err().to_string();
        assert!(message.contains("no does not exist"), "{message}");
        assert!(matches!(put(Path::new("/"), ""), Err(Error::Argument { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        put(&real, "old").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        put(&link, "new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
    }
}
