//! Comparing with what was measured before.

use super::report::Row;
use serde_json::Value;
use shadegrad::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// A former run with `--json`.
#[derive(Debug)]
pub struct Baseline {
    /// Where it was.
    device: String,
    /// Microseconds of each case.
    medians: BTreeMap<String, f64>,
}

/// A number of percent that a case may take longer.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "a number of percent, 0 or more, is wanted".into())
}

impl Baseline {
    /// Reads the lines that `--json` printed.
    pub fn load(path: &Path) -> Result<Baseline> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let wrong =
            |message: String| Error::format(path, format!("{message}; a baseline is what --json printed in one run"));
        let (mut device, mut medians) = (None::<String>, BTreeMap::new());
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |message: String| wrong(format!("line {} {message}", n + 1));
            let value: Value = serde_json::from_str(line).map_err(|e| wrong(format!("is no JSON ({e})")))?;
            if let Some(this) = value["device"].as_str()
                && device.get_or_insert_with(|| this.into()) != this
            {
                return Err(wrong("is of another device than the ones before".into()));
            }
            // One that could not be measured then is as good as missing.
            let Some(name) = value["case"].as_str().filter(|_| value.get("error").is_none()) else { continue };
            let median = value["median_us"].as_f64().filter(|median| median.is_finite() && *median > 0.0);
            let median = median.ok_or_else(|| wrong(format!("has no time of {name} (median_us) above 0")))?;
            if medians.insert(name.to_string(), median).is_some() {
                return Err(wrong(format!("has {name} a second time")));
            }
        }
        match device {
            _ if medians.is_empty() => Err(wrong("there are no measured cases in it".into())),
            Some(device) => Ok(Baseline { device, medians }),
            None => Err(wrong("no line says on which device it was measured".into())),
        }
    }

    /// That it is of this device.
    pub fn check(&self, device: &str) -> Result<()> {
        if self.device == device {
            return Ok(());
        }
        let message =
            format!("that was measured on {}, this is {device}; times of different devices say nothing", self.device);
        Err(Error::argument("--compare", message))
    }

    /// How many times as long as then this takes, if it was measured then.
    pub fn ratio(&self, row: &Row) -> Option<f64> {
        self.medians.get(&row.name).map(|before| row.median / before)
    }
}

/// An error that names the cases that take more than `percent` longer than before; those that are new are told of.
pub fn judge(rows: &[Row], percent: f64) -> Result<()> {
    let (known, new): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.ratio.is_some());
    if known.is_empty() {
        return Err(Error::argument("--compare", "no case that was measured is in the baseline"));
    }
    if !new.is_empty() {
        let names: Vec<&str> = new.iter().map(|row| row.name.as_str()).collect();
        eprintln!("not in the baseline: {}", names.join(", "));
    }
    let worse = known.iter().filter_map(|row| Some((&row.name, 100.0 * (row.ratio? - 1.0))));
    let worse: Vec<String> =
        worse.filter(|worse| worse.1 > percent).map(|(name, by)| format!("{name} ({by:+.1} %)")).collect();
    if worse.is_empty() {
        return Ok(());
    }
    let message = format!("{} of {} cases take more than {percent} % longer: ", worse.len(), known.len());
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
        let compared = |name: &str, median: f64| {
            let row = row(name, median);
            Row { ratio: baseline.ratio(&row), ..row }
        };
        let rows = [compared("a", 105.0), compared("b", 130.0), compared("c", 1e6)];
        assert_eq!(rows[2].ratio, None);
        let error = judge(&rows, 10.0).unwrap_err().to_string();
        assert!(error.contains("1 of 2 cases") && error.contains("b (+30.0 %)") && !error.contains("a ("), "{error}");
        assert!(judge(&rows, 40.0).is_ok());
        assert!(judge(&rows[2..], 40.0).unwrap_err().to_string().contains("no case that was measured"));
    }

    #[test]
    fn a_file_that_is_no_baseline_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        let message = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Baseline::load(&path).unwrap_err().to_string()
        };
        assert!(Baseline::load(&folder.path().join("y.json")).unwrap_err().to_string().contains("y.json"));
        assert!(message("hello\n").contains("x.json: line 1 is no JSON"));
        let (x, y, case) = ("{\"device\": \"x\"}", "{\"device\": \"y\"}", "{\"case\": \"a\", \"median_us\": 1.5}");
        assert!(message(x).contains("no measured cases"));
        assert!(message(case).contains("no line says on which device"));
        assert!(message(&format!("{x}\n{case}\n{y}\n")).contains("line 3 is of another device"));
        assert!(message(&format!("{x}\n{case}\n\n{case}\n")).contains("line 4 has a a second time"));
        for wrong in ["0", "-3.5", "null", "\"1.5\""] {
            let message = message(&format!("{x}\n{}", case.replace("1.5", wrong)));
            assert!(message.contains("line 2 has no time of a"), "{message}");
        }
    }

    #[test]
    fn percentages_are_numbers_from_0() {
        assert_eq!((percent("0"), percent("2.5")), (Ok(0.0), Ok(2.5)));
        assert!(["nan", "inf", "-1", "ten"].iter().all(|text| percent(text).is_err()));
    }
}
