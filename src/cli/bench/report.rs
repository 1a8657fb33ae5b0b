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
    /// The kernels that were chosen, joined by `+`.
    pub kernels: String,
    /// Milliseconds from the start of compiling to the end of the first run.
    pub cold: f64,
    pub clock: Clock,
    /// How many times as long as in the baseline a run takes, where that has this case.
    pub ratio: Option<f64>,
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

    /// What stands in the columns; the change since a baseline only if one is compared with.
    fn cells(&self, compared: bool) -> Vec<String> {
        let some = |value: f64, digits: usize| if value > 0.0 { format!("{value:.digits$}") } else { "-".into() };
        let (percent, roof) = match self.roof {
            Some((part, roof)) => (format!("{:.1}", 100.0 * part), roof.to_string()),
            None => ("-".into(), "-".into()),
        };
        let mut cells = vec![
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
        ];
        if compared {
            cells.insert(CHANGE.0, self.change().map_or("-".into(), |change| format!("{:+.1}", 100.0 * change)));
        }
        cells
    }

    /// How much longer than in the baseline a run takes, as a part of that.
    fn change(&self) -> Option<f64> {
        self.ratio.map(|ratio| ratio - 1.0)
    }

    pub fn json(&self) -> Value {
        json!({
            "case": self.name, "median_us": self.median, "min_us": self.min, "spread": self.spread, "reps": self.reps,
            "flops": self.flops, "bytes": self.bytes, "gflops": self.rate(self.flops), "gbps": self.rate(self.bytes),
            "of_roof": self.roof.map(|roof| roof.0), "roof": self.roof.map(|roof| roof.1.to_string()),
            "cold_ms": self.cold, "kernels": self.kernels, "clock": self.clock.describe(), "change": self.change(),
        })
    }
}

/// The columns and their widths; the first one is as wide as its longest name.
const COLUMNS: [(&str, usize); 11] = [
    ("case", 0),
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

/// Where the change since a baseline stands, and that column.
const CHANGE: (usize, (&str, usize)) = (4, ("change %", 8));
/// Kernels of a row that a table names; JSON and CSV name all.
const NAMED: usize = 4;

/// Prints rows.
pub struct Table {
    format: Format,
    compared: bool,
    columns: Vec<(&'static str, usize)>,
}

impl Format {
    /// For cases of these names, with or without a baseline that they are compared with.
    pub fn table<'a>(self, names: impl Iterator<Item = &'a str>, compared: bool) -> Table {
        let mut columns = COLUMNS.to_vec();
        columns[0].1 = names.map(|name| name.chars().count()).fold("case".len(), usize::max);
        if compared {
            columns.insert(CHANGE.0, CHANGE.1);
        }
        Table { format: self, compared, columns }
    }
}

impl Table {
    /// What stands before the rows.
    pub fn head(&self, device: &str, clock: Clock, roofline: &Roofline) -> Result<()> {
        let names: Vec<String> = self.columns.iter().map(|(name, _)| name.to_string()).collect();
        if self.format.json {
            let line = json!({ "device": device, "clock": clock.describe(), "roofline": roofline.to_value() });
            return say(&line.to_string());
        }
        if self.format.csv {
            return say(&names.join(",").replace(' ', "_"));
        }
        say(&format!("{device}, by {}\n{roofline}\n", clock.describe()))?;
        say(&self.line(&names))?;
        if self.format.markdown {
            let rule = |name: &String| if is_text(name) { "---" } else { "--:" };
            return say(&format!("|{}|", names.iter().map(rule).collect::<Vec<_>>().join("|")));
        }
        Ok(())
    }

    pub fn row(&self, row: &Row) -> Result<()> {
        say(&match self.format.json {
            true => row.json().to_string(),
            false => self.line(&row.cells(self.compared)),
        })
    }

    /// A case that could not be measured.
    pub fn failure(&self, name: &str, error: &shadegrad::Error) -> Result<()> {
        match self.format.json {
            true => say(&json!({ "case": name, "error": error.to_string() }).to_string()),
            false => {
                eprintln!("{name}: failed: {error}");
                Ok(())
            }
        }
    }

    fn line(&self, cells: &[String]) -> String {
        if self.format.csv {
            return cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",");
        }
        let few =
            |(cell, (name, _)): (&String, &(&str, usize))| if *name == "kernels" { few(cell) } else { cell.clone() };
        let cells = cells.iter().zip(&self.columns).map(few);
        if self.format.markdown {
            let escaped: Vec<String> = cells.map(|cell| cell.replace('|', "\\|")).collect();
            return format!("| {} |", escaped.join(" | "));
        }
        // Names to the left, numbers to the right.
        let pad = |(cell, (name, width)): (String, &(&str, usize))| match is_text(name) {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        };
        cells.zip(&self.columns).map(pad).collect::<Vec<_>>().join(" ")
    }
}

/// Whether a column has words, not numbers.
fn is_text(column: &str) -> bool {
    ["case", "roof", "kernels"].contains(&column)
}

/// A cell of comma-separated values, by RFC 4180.
fn quoted(cell: &str) -> String {
    match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.into(),
    }
}

/// The first kernels of a list, and how many more there are.
fn few(kernels: &str) -> String {
    match kernels.match_indices('+').nth(NAMED - 1) {
        Some((end, _)) => format!("{}+{} more", &kernels[..end], kernels[end..].matches('+').count()),
        None => kernels.into(),
    }
}

/// Says which rows are to be doubted, and why.
pub fn warn_of_doubtful(rows: &[Row]) {
    let names = |doubtful: fn(&Row) -> bool| {
        let names: Vec<&str> = rows.iter().filter(|row| doubtful(row)).map(|row| row.name.as_str()).collect();
        names.join(", ")
    };
    let (wide, above) = (names(Row::is_wide), names(Row::is_above_roof));
    if !wide.is_empty() {
        eprintln!("the times of {wide} are spread widely: their medians say little");
    }
    if !above.is_empty() {
        eprintln!(
            "{above} came above the roof: either a cache or a method with fewer operations explains it, or the roof was \
             measured in a slow moment, and `shadegrad bench device --fresh` measures it anew"
        );
    }
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
            ratio: None,
        }
    }

    fn table(format: Format, compared: bool) -> Table {
        format.table(["a", "a_name_of_more_than_thirty_letters"].into_iter(), compared)
    }

    const PLAIN: Format = Format { json: false, csv: false, markdown: false };

    #[test]
    fn rates_and_the_part_of_the_roof_follow_from_the_median() {
        let roofline = Roofline { arithmetic: 40.0, read: 1.0, copy: 2.0, triad: 1.0, ..Roofline::default() };
        let row = row("a", 200.0).under(&roofline, DType::F32);
        assert_eq!((row.rate(row.flops), row.roof), (20.0, Some((0.5, Roof::Compute))));
        let cells = row.cells(false);
        assert_eq!(cells.len(), COLUMNS.len());
        assert_eq!(cells[5..9], ["20.00", "0.01", "50.0", "compute"]);
        assert!(table(PLAIN, false).line(&cells).starts_with("a        "));
        assert_eq!(row.json()["of_roof"], 0.5);
        assert!(!row.is_wide());
    }

    #[test]
    fn columns_are_below_each_other_and_the_change_is_one() {
        let table = table(PLAIN, true);
        let rows = [("a", Some(1.5)), ("a_name_of_more_than_thirty_letters", None)];
        let lines = rows.map(|(name, ratio)| table.line(&Row { ratio, ..row(name, 12.0) }.cells(true)));
        let at = |line: &str, part: &str| line.find(part).map(|at| at + part.len());
        assert_eq!(at(&lines[0], " 12.00"), at(&lines[1], " 12.00"));
        assert_eq!(at(&lines[0], " +50.0"), at(&lines[1], "5.0        -"));
    }

    #[test]
    fn what_would_break_a_form_is_escaped_and_long_lists_are_cut_in_tables_alone() {
        let row = Row { kernels: "a+b+c+d+e+f".into(), ..row("x, \"y\"|z", 1.0) };
        let line = |format| table(format, false).line(&row.cells(false));
        let (csv, markdown) = (line(Format { csv: true, ..PLAIN }), line(Format { markdown: true, ..PLAIN }));
        assert!(csv.starts_with(r#""x, ""y""|z",1.00,"#) && csv.ends_with(",a+b+c+d+e+f"), "{csv}");
        assert!(
            markdown.starts_with(r#"| x, "y"\|z | 1.00 |"#) && markdown.ends_with("| a+b+c+d+2 more |"),
            "{markdown}"
        );
        assert_eq!((row.json()["kernels"].as_str(), few("a+b+c+d")), (Some("a+b+c+d+e+f"), "a+b+c+d".into()));
    }
}
