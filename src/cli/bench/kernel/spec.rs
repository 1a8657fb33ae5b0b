//! What has to be said of a kernel to run it: in `//!` lines of its file, or on the command line.

use super::content::{self, Content};
use shadegrad::{Error, Result};
use std::path::Path;

/// What is known of a kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    pub entry: Option<String>,
    pub grid: Option<[u32; 3]>,
    pub buffers: Vec<(String, Content)>,
    pub consts: Vec<(String, String)>,
    pub flops: Option<f64>,
    pub bytes: Option<f64>,
}

/// What a setting may begin with.
const KEYS: [&str; 6] = ["entry", "grid", "buffer", "const", "flops", "bytes"];
const FORMS: &str = "the settings are `entry: NAME`, `grid: X [Y [Z]]`, `buffer NAME: TYPE[COUNT] FILL`, \
    `const NAME = VALUE`, `flops: N` and `bytes: N`";

impl Spec {
    /// The `//!` lines of a shader; those that are prose ([`is_setting`]) say nothing.
    pub fn of_head(path: &Path, text: &str) -> Result<Spec> {
        let mut spec = Spec::default();
        for (n, line) in text.lines().enumerate() {
            let Some(line) = line.trim().strip_prefix("//!").map(str::trim) else { continue };
            if is_setting(line) {
                spec.set(line).map_err(|message| Error::format(path, format!("line {}: {message}", n + 1)))?;
            }
        }
        Ok(spec)
    }

    /// Takes a line: one of `FORMS`. What was said before is replaced.
    pub fn set(&mut self, line: &str) -> Result<(), String> {
        let key = line.split(|c: char| c == ':' || c.is_whitespace()).next().unwrap_or_default();
        let rest = &line[key.len()..];
        match key {
            "buffer" => {
                let (name, content) = rest.split_once(':').ok_or_else(|| format!("{line:?} has no colon; {FORMS}"))?;
                let content = Content::parse(content).map_err(|message| format!("{line:?} is no buffer: {message}"))?;
                put(&mut self.buffers, name.trim(), content);
            }
            "const" => {
                let (name, value) = rest.split_once('=').ok_or_else(|| format!("{line:?} has no =; {FORMS}"))?;
                put(&mut self.consts, name.trim(), value.trim().trim_end_matches(';').trim().to_string());
            }
            key if KEYS.contains(&key) => {
                let value = rest.trim_start().strip_prefix(':').map(str::trim);
                let value = value.ok_or_else(|| format!("{line:?} has no colon; {FORMS}"))?;
                let number = || {
                    let number = content::product(value).filter(|number| number.is_finite() && *number > 0.0);
                    number.ok_or_else(|| format!("{value:?} is no number above 0, or product of numbers"))
                };
                match key {
                    "flops" => self.flops = Some(number()?),
                    "bytes" => self.bytes = Some(number()?),
                    "grid" => self.grid = Some(grid(value)?),
                    _ => self.entry = Some(value.into()),
                }
            }
            other => return Err(format!("{other:?} is none of {}, and prose begins in upper case", KEYS.join(", "))),
        }
        Ok(())
    }

    /// The same, but what `other` says goes before.
    pub fn overridden(mut self, other: Spec) -> Spec {
        for (name, content) in other.buffers {
            put(&mut self.buffers, &name, content);
        }
        for (name, value) in other.consts {
            put(&mut self.consts, &name, value);
        }
        Spec {
            entry: other.entry.or(self.entry),
            grid: other.grid.or(self.grid),
            flops: other.flops.or(self.flops),
            bytes: other.bytes.or(self.bytes),
            ..self
        }
    }
}

/// Whether a line of the head is a setting, well written or not: it begins with a key, or with a word in lower case
/// followed, at once or after one more word, by a colon or an equals sign. All else is prose.
fn is_setting(line: &str) -> bool {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count();
    let first: String = line.chars().take(word(line)).collect();
    let rest = line[first.len()..].trim_start();
    let second: String = rest.chars().take(word(rest)).collect();
    let marked = |rest: &str| rest.starts_with([':', '=']) && !rest.starts_with("://");
    let formed = marked(rest) || (!second.is_empty() && marked(rest[second.len()..].trim_start()));
    KEYS.contains(&first.as_str()) || (formed && first.starts_with(char::is_lowercase))
}

pub fn put<T>(list: &mut Vec<(String, T)>, name: &str, value: T) {
    match list.iter_mut().find(|(known, _)| known == name) {
        Some((_, place)) => *place = value,
        None => list.push((name.into(), value)),
    }
}

fn grid(text: &str) -> Result<[u32; 3], String> {
    let separate = |c: char| c.is_whitespace() || c == ',' || c == 'x';
    let axes = text.split(separate).filter(|axis| !axis.is_empty());
    let axes: Option<Vec<u32>> = axes.map(|axis| content::whole(axis)?.try_into().ok().filter(|n| *n > 0)).collect();
    match axes.as_deref() {
        Some([x]) => Ok([*x, 1, 1]),
        Some([x, y]) => Ok([*x, *y, 1]),
        Some([x, y, z]) => Ok([*x, *y, *z]),
        _ => Err(format!("{text:?} is no grid: write one to three whole decimal numbers from 1, as in \"64 2\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadegrad::DType;

    const HEAD: &str = "\u{feff}// A license.\n\n//! Adds two vectors: a comment, not a setting. See https://example.com/add\n\
        //! https://example.com\n//! entry: add\nenable f16;\n//! grid: 64 2\n\
        //! buffer x: f32[1024*16] random\n//! const N = 8u;\n//! flops: 2*1_000\nfn f() {}\n";

    #[test]
    fn the_head_says_what_is_needed_and_the_command_line_more() {
        let spec = Spec::of_head(Path::new("a.wgsl"), HEAD).unwrap();
        assert_eq!((spec.entry.as_deref(), spec.grid, spec.flops), (Some("add"), Some([64, 2, 1]), Some(2000.0)));
        assert_eq!(spec.consts, [("N".to_string(), "8u".to_string())]);
        assert_eq!((spec.buffers[0].0.as_str(), spec.buffers[0].1.size), ("x", Some((DType::F32, 1 << 14))));
        let mut more = Spec::default();
        more.set("buffer x: u32[3] count").unwrap();
        more.set("grid: 7").unwrap();
        let both = spec.overridden(more);
        assert_eq!((both.grid, both.entry.as_deref()), (Some([7, 1, 1]), Some("add")));
        assert_eq!(both.buffers[0].1.size, Some((DType::U32, 3)));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let refused = |line: &str, part: &str| {
            let message =
                Spec::of_head(Path::new("a.wgsl"), &format!("//! Prose.\n//! {line}\n")).unwrap_err().to_string();
            assert!(message.contains("a.wgsl: line 2: ") && message.contains(part), "{line}: {message}");
        };
        refused("buffer x: f64[3]", "\"buffer x: f64[3]\" is no buffer");
        refused("flops: many", "\"many\" is no number");
        for number in ["inf", "nan", "-1", "0", "1e300*1e300"] {
            refused(&format!("bytes: {number}"), "is no number above 0");
        }
        for grid in ["1 2 3 4", "0", "4 0", "0x10", "1.5", ""] {
            refused(&format!("grid: {grid}"), "is no grid");
        }
        refused("gird: 1", "\"gird\" is none of entry, grid, buffer, const, flops, bytes");
        refused("bufer y: f32[64]", "\"bufer\" is none of");
        refused("cosnt N = 3", "\"cosnt\" is none of");
        refused("grid 64", "\"grid 64\" has no colon");
        refused("buffer y f32[64]", "has no colon");
        refused("const N 3", "has no =");
    }
}
