//! Comparing with what was measured before.

use super::report::Row;
use serde_json::Value;
use shadegrad::{Error, Result};
use std::path::Path;

/// A former run with `--json`.
pub struct Baseline {
    /// Where it was, if it says so.
    device: Option<String>,
    rows: Vec<(String, f64)>,
}

/// A case in both runs.
pub struct Change {
    pub name: String,
    /// Microseconds then and now.
    pub before: f64,
    pub now: f64,
}

impl Change {
    /// How many times as long as before it takes.
    pub fn ratio(&self) -> f64 {
        self.now / self.before
    }
}

impl Baseline {
    /// Reads the lines that `--json` printed.
    pub fn load(path: &Path) -> Result<Baseline> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let (mut device, mut rows) = (None, Vec::new());
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let value: Value = serde_json::from_str(line).map_err(|e| {
                Error::format(path, format!("line {} is no JSON ({e}); a baseline is what --json printed", n + 1))
            })?;
            device = device.or_else(|| value["device"].as_str().map(String::from));
            if let (Some(name), Some(median)) = (value["case"].as_str(), value["median_us"].as_f64()) {
                rows.push((name.to_string(), median));
            }
        }
        if rows.is_empty() {
            return Err(Error::format(path, "there are no measured cases in it; a baseline is what --json printed"));
        }
        Ok(Baseline { device, rows })
    }

    /// That it is of this device.
    pub fn check(&self, device: &str) -> Result<()> {
        match self.device.as_deref().filter(|other| *other != device) {
            Some(other) => Err(Error::argument(
                "--compare",
                format!("that was measured on {other}, this is {device}; times of different devices say nothing"),
            )),
            None => Ok(()),
        }
    }

    /// The cases in both.
    pub fn changes(&self, rows: &[Row]) -> Vec<Change> {
        let change = |row: &Row| {
            let (name, before) = self.rows.iter().find(|(name, _)| *name == row.name)?;
            Some(Change { name: name.clone(), before: *before, now: row.median })
        };
        rows.iter().filter_map(change).collect()
    }
}

/// An error that names the cases that take more than `percent` longer than before.
pub fn judge(changes: &[Change], percent: f64) -> Result<()> {
    let worse = changes.iter().filter(|change| change.ratio() > 1.0 + percent / 100.0);
    let worse: Vec<String> = worse.map(|c| format!("{} ({:+.1} %)", c.name, 100.0 * (c.ratio() - 1.0))).collect();
    if worse.is_empty() {
        return Ok(());
    }
    let message = format!("{} of {} cases take more than {percent} % longer: ", worse.len(), changes.len());
    Err(Error::argument("--compare", message + &worse.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::row;
    use super::*;

    #[test]
    fn a_case_that_became_slower_is_named_and_a_new_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("before.json");
        let before = [row("a", 100.0), row("b", 100.0)];
        let lines: Vec<String> = before.iter().map(|row| row.json().to_string()).collect();
        std::fs::write(&path, format!("{{\"device\": \"x\"}}\n{}\n", lines.join("\n"))).unwrap();
        let baseline = Baseline::load(&path).unwrap();
        let changes = baseline.changes(&[row("a", 105.0), row("b", 130.0), row("c", 1e6)]);
        assert_eq!(changes.len(), 2);
        let error = judge(&changes, 10.0).unwrap_err().to_string();
        assert!(error.contains("1 of 2 cases") && error.contains("b (+30.0 %)") && !error.contains("a ("), "{error}");
        assert!(judge(&changes, 40.0).is_ok());
    }

    #[test]
    fn a_file_that_is_no_baseline_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        let message = || Baseline::load(&path).err().unwrap().to_string();
        assert!(message().contains("x.json"));
        std::fs::write(&path, "hello\n").unwrap();
        assert!(message().contains("line 1 is no JSON"));
        std::fs::write(&path, "{\"device\": \"x\"}\n").unwrap();
        assert!(message().contains("no measured cases"));
    }
}
