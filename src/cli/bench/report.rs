//! What a benchmark has found, as a table, JSON, CSV or Markdown.

use crate::cli::say;
use serde_json::{Value, json};
use shadegrad::DType;
use shadegrad::Result;
use shadegrad::gpu::Clock;
use shadegrad::tune::{Roof, Roofline};

/// How rows are printed.
#[derive(clap::Args, Clone, Copy)]
#[group(multiple = false)]
pub struct Format {
    /// Print a JSON object for each row, after one for the device
    #[arg(long)]
    pub json: bool,
    /// Print comma-separated values
    #[arg(long)]
    pub csv: bool,
    /// Print a Markdown table
    #[arg(long)]
    pub markdown: bool,
}

/// One measured case.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    /// Microseconds of a run: the median, and the least.
    pub median: f64,
    pub min: f64,
    /// From the first to the third quartile, as a part of the median.
    pub spread: f64,
    pub reps: usize,
    /// Operations and bytes of a run; 0 where they are not known.
    pub flops: f64,
    pub bytes: f64,
    /// The part of the lower roof that was reached, and that roof.
    pub roof: Option<(f64, Roof)>,
    /// The kernels that were chosen.
    pub kernels: String,
    /// Milliseconds from the start of compiling to the end of the first run.
    pub cold: f64,
    pub clock: Clock,
}

/// A spread that makes a median doubtful.
const WIDE: f64 = 0.2;

impl Row {
    /// Billions of operations, or of bytes, per second.
    pub fn rate(&self, work: f64) -> f64 {
        work / self.median / 1e3
    }

    /// Sets the part of the roof that was reached by work on factors of this type.
    pub fn under(mut self, roofline: &Roofline, factors: DType) -> Row {
        let (bound, roof) = roofline.bound(factors, self.flops, self.bytes);
        self.roof = (bound > 0.0).then_some((bound / self.median, roof));
        self
    }

    /// Whether its times differ so much that the median says little.
    pub fn is_wide(&self) -> bool {
        self.spread > WIDE
    }

    /// Whether more than the roof was reached, by more than measurements differ.
    pub fn is_above_roof(&self) -> bool {
        self.roof.is_some_and(|(part, _)| part > 1.05)
    }

    fn cells(&self) -> [String; 11] {
        let some = |value: f64, digits: usize| if value > 0.0 { format!("{value:.digits$}") } else { "-".into() };
        let (percent, roof) = match self.roof {
            Some((part, roof)) => (format!("{:.1}", 100.0 * part), roof.to_string()),
            None => ("-".into(), "-".into()),
        };
        [
            self.name.clone(),
            format!("{:.2}", self.median),
            format!("{:.2}", self.min),
            format!("{:.1}", 100.0 * self.spread),
            self.reps.to_string(),
            some(self.rate(self.flops), 2),
            some(self.rate(self.bytes), 2),
            percent,
            roof,
            format!("{:.1}", self.cold),
            self.kernels.clone(),
        ]
    }

    pub fn json(&self) -> Value {
        json!({
            "case": self.name, "median_us": self.median, "min_us": self.min, "spread": self.spread, "reps": self.reps,
            "flops": self.flops, "bytes": self.bytes, "gflops": self.rate(self.flops), "gbps": self.rate(self.bytes),
            "of_roof": self.roof.map(|roof| roof.0), "roof": self.roof.map(|roof| roof.1.to_string()),
            "cold_ms": self.cold, "kernels": self.kernels, "clock": self.clock.describe(),
        })
    }
}

const COLUMNS: [(&str, usize); 11] = [
    ("case", 30),
    ("median us", 12),
    ("min us", 12),
    ("spread %", 8),
    ("reps", 5),
    ("GFLOP/s", 9),
    ("GB/s", 8),
    ("% of roof", 9),
    ("roof", 8),
    ("cold ms", 9),
    ("kernels", 0),
];

impl Format {
    /// What stands before the rows.
    pub fn head(self, device: &str, clock: Clock, roofline: &Roofline) -> Result<()> {
        let names = COLUMNS.map(|(name, _)| name.to_string());
        if self.json {
            let line = json!({ "device": device, "clock": clock.describe(), "roofline": roofline.to_value() });
            return say(&line.to_string());
        }
        if self.csv {
            return say(&names.map(|name| name.replace(' ', "_")).join(","));
        }
        say(&format!("{device}, by {}\n{roofline}\n", clock.describe()))?;
        if self.markdown {
            let rule = COLUMNS.map(|(name, _)| if ["case", "roof", "kernels"].contains(&name) { "---" } else { "--:" });
            return say(&format!("| {} |\n|{}|", names.join(" | "), rule.join("|")));
        }
        say(&aligned(&names))
    }

    pub fn row(self, row: &Row) -> Result<()> {
        let cells = row.cells();
        say(&match self {
            Format { json: true, .. } => row.json().to_string(),
            Format { csv: true, .. } => cells.join(","),
            Format { markdown: true, .. } => format!("| {} |", cells.join(" | ")),
            _ => aligned(&cells),
        })
    }

    /// A case that could not be measured.
    pub fn failure(self, name: &str, error: &shadegrad::Error) -> Result<()> {
        match self.json {
            true => say(&json!({ "case": name, "error": error.to_string() }).to_string()),
            false => {
                eprintln!("{name}: failed: {error}");
                Ok(())
            }
        }
    }
}

/// Names to the left, numbers to the right.
fn aligned(cells: &[String; 11]) -> String {
    let pad = |(cell, (name, width)): (&String, &(&str, usize))| match *name {
        "case" | "roof" => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    };
    cells.iter().zip(&COLUMNS).map(pad).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn row(name: &str, median: f64) -> Row {
        Row {
            name: name.into(),
            median,
            min: 0.9 * median,
            spread: 0.05,
            reps: 10,
            flops: 4e6,
            bytes: 1e3,
            roof: None,
            kernels: "tile".into(),
            cold: 3.0,
            clock: Clock::Host,
        }
    }

    #[test]
    fn rates_and_the_part_of_the_roof_follow_from_the_median() {
        let roofline = Roofline { arithmetic: 40.0, read: 1.0, copy: 2.0, triad: 1.0, ..Roofline::default() };
        let row = row("a", 200.0).under(&roofline, DType::F32);
        assert_eq!((row.rate(row.flops), row.roof), (20.0, Some((0.5, Roof::Compute))));
        let cells = row.cells();
        assert_eq!(cells.len(), COLUMNS.len());
        assert_eq!(cells[5..9], ["20.00", "0.01", "50.0", "compute"]);
        assert!(aligned(&cells).starts_with("a        "));
        assert_eq!(row.json()["of_roof"], 0.5);
        assert!(!row.is_wide());
    }
}
