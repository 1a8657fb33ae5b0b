//! What has to be said of a kernel to run it: in `//!` lines at the top of its file, or on the command line.

use shadegrad::{Error, Result};
use std::path::{Path, PathBuf};

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

/// What a buffer holds at first.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    pub kind: Kind,
    pub count: usize,
    pub fill: Fill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F32,
    U32,
    I32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Fill {
    /// Uniform in [-1, 1); integers below 2^24.
    Random,
    Zero,
    /// The same number everywhere.
    Value(f64),
    /// 0, 1, 2...
    Count,
    /// The bytes of a file.
    File(PathBuf),
}

/// What a line of the head may begin with.
const KEYS: [&str; 6] = ["entry", "grid", "buffer", "const", "flops", "bytes"];

impl Spec {
    /// The `//!` lines at the top of a shader. Lines that begin with none of the keys are prose.
    pub fn of_head(path: &Path, text: &str) -> Result<Spec> {
        let mut spec = Spec::default();
        for (n, line) in text.lines().enumerate() {
            let Some(line) = line.trim().strip_prefix("//!") else { break };
            if KEYS.iter().any(|key| line.trim_start().starts_with(key)) && line.contains([':', '=']) {
                let wrong = |message| Error::format(path, format!("line {}: {message}", n + 1));
                spec.set(line.trim()).map_err(wrong)?;
            }
        }
        Ok(spec)
    }

    /// Takes a line: `entry: NAME`, `grid: X [Y [Z]]`, `buffer NAME: TYPE[COUNT] FILL`, `const NAME = VALUE`,
    /// `flops: N`, `bytes: N`. What was said before is replaced.
    pub fn set(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("buffer ") {
            let (name, content) = rest.split_once(':').ok_or_else(|| format!("{line:?} has no colon; {BUFFER}"))?;
            let content = Content::parse(content).ok_or_else(|| format!("{line:?} is no buffer; {BUFFER}"))?;
            put(&mut self.buffers, name.trim(), content);
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("const ") {
            let (name, value) = rest.split_once('=').ok_or_else(|| format!("{line:?} is no const NAME = VALUE"))?;
            put(&mut self.consts, name.trim(), value.trim().trim_end_matches(';').to_string());
            return Ok(());
        }
        let (key, value) = line.split_once(':').ok_or_else(|| format!("{line:?} has no colon"))?;
        let number = || product(value).ok_or_else(|| format!("{:?} is no number, or product of numbers", value.trim()));
        match key.trim() {
            "entry" => self.entry = Some(value.trim().into()),
            "flops" => self.flops = Some(number()?),
            "bytes" => self.bytes = Some(number()?),
            "grid" => self.grid = Some(grid(value).ok_or_else(|| format!("{:?} is no grid X [Y [Z]]", value.trim()))?),
            other => return Err(format!("{other:?} is none of {}", KEYS.join(", "))),
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

const BUFFER: &str =
    "write NAME: TYPE[COUNT] FILL, with f32, u32 or i32 and random, zero, count, a number or file:PATH";

fn put<T>(list: &mut Vec<(String, T)>, name: &str, value: T) {
    match list.iter_mut().find(|(known, _)| known == name) {
        Some((_, place)) => *place = value,
        None => list.push((name.into(), value)),
    }
}

/// A number, or several with `*` between.
fn product(text: &str) -> Option<f64> {
    text.split('*').map(|factor| factor.trim().replace('_', "").parse::<f64>().ok()).product()
}

fn whole(text: &str) -> Option<usize> {
    product(text).filter(|n| *n >= 0.0 && n.fract() == 0.0 && *n < 9e15).map(|n| n as usize)
}

fn grid(text: &str) -> Option<[u32; 3]> {
    let separate = |c: char| c.is_whitespace() || c == ',' || c == 'x';
    let axes: Option<Vec<u32>> =
        text.split(separate).filter(|axis| !axis.is_empty()).map(|axis| whole(axis)?.try_into().ok()).collect();
    match axes?[..] {
        [x] => Some([x, 1, 1]),
        [x, y] => Some([x, y, 1]),
        [x, y, z] => Some([x, y, z]),
        _ => None,
    }
}

impl Content {
    fn parse(text: &str) -> Option<Content> {
        let (kind, rest) = text.trim().split_once('[')?;
        let (count, fill) = rest.split_once(']')?;
        let kind = match kind.trim() {
            "f32" => Kind::F32,
            "u32" => Kind::U32,
            "i32" => Kind::I32,
            _ => return None,
        };
        let fill = match fill.trim() {
            "" | "random" => Fill::Random,
            "zero" => Fill::Zero,
            "count" => Fill::Count,
            other => match other.strip_prefix("file:") {
                Some(path) => Fill::File(path.into()),
                None => Fill::Value(other.parse().ok()?),
            },
        };
        Some(Content { kind, count: whole(count)?, fill })
    }

    /// The words; random ones differ from name to name and from `set` to `set`.
    pub fn words(&self, name: &str, set: usize) -> Result<Vec<u32>> {
        let word = |value: f64| match self.kind {
            Kind::F32 => (value as f32).to_bits(),
            Kind::U32 => value as u32,
            Kind::I32 => value as i32 as u32,
        };
        match &self.fill {
            Fill::Zero => Ok(vec![0; self.count]),
            Fill::Value(value) => Ok(vec![word(*value); self.count]),
            Fill::Count => Ok((0..self.count).map(|i| word(i as f64)).collect()),
            Fill::Random => {
                let mix = |seed: u32, byte: u8| seed.wrapping_mul(31).wrapping_add(byte.into());
                let seed = name.bytes().fold(set as u32 + 1, mix);
                let numbers = super::super::cases::random(self.count, seed, 2.0);
                let whole = |v: f32| f64::from(v + 1.0) * f64::from(1 << 23);
                Ok(numbers
                    .into_iter()
                    .map(|v| if self.kind == Kind::F32 { v.to_bits() } else { word(whole(v)) })
                    .collect())
            }
            Fill::File(path) => {
                let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
                if bytes.len() != 4 * self.count {
                    let message = format!("it has {} bytes, but the buffer {name} {}", bytes.len(), 4 * self.count);
                    return Err(Error::format(path, message));
                }
                Ok(bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "//! Adds two vectors: a comment, not a setting.\n//! entry: add\n//! grid: 64 2\n\
        //! buffer x: f32[1024*16] random\n//! const N = 8u;\n//! flops: 2*1_000\nfn f() {}\n//! entry: late\n";

    #[test]
    fn the_head_says_what_is_needed_and_the_command_line_more() {
        let spec = Spec::of_head(Path::new("a.wgsl"), HEAD).unwrap();
        assert_eq!((spec.entry.as_deref(), spec.grid, spec.flops), (Some("add"), Some([64, 2, 1]), Some(2000.0)));
        assert_eq!(spec.consts, [("N".to_string(), "8u".to_string())]);
        let x = Content { kind: Kind::F32, count: 1 << 14, fill: Fill::Random };
        assert_eq!(spec.buffers, [("x".to_string(), x)]);
        let mut more = Spec::default();
        more.set("buffer x: u32[3] count").unwrap();
        more.set("grid: 7").unwrap();
        let both = spec.overridden(more);
        assert_eq!((both.grid, both.buffers[0].1.count, both.entry.as_deref()), (Some([7, 1, 1]), 3, Some("add")));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let message = |text: &str| Spec::of_head(Path::new("a.wgsl"), text).unwrap_err().to_string();
        assert!(
            message("//! prose\n//! buffer x: f64[3]\n").contains("a.wgsl: line 2: \"buffer x: f64[3]\" is no buffer")
        );
        assert!(message("//! grid: 1 2 3 4\n").contains("\"1 2 3 4\" is no grid"));
        assert!(message("//! flops: many\n").contains("\"many\" is no number"));
    }

    #[test]
    fn buffers_are_filled_as_they_say() {
        let words = |text: &str| Content::parse(text).unwrap().words("x", 0).unwrap();
        assert_eq!(words("u32[3] count"), [0, 1, 2]);
        assert_eq!(words("f32[2] 1.5"), [1.5f32.to_bits(); 2]);
        assert_eq!(words("i32[1] -2"), [u32::MAX - 1]);
        assert_eq!(words("f32[0]").len(), 0);
        let random = Content::parse("f32[9] random").unwrap();
        assert!(random.words("x", 0).unwrap() != random.words("x", 1).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        std::fs::write(&path, [1, 0, 0, 0, 0, 1, 0, 0]).unwrap();
        assert_eq!(words(&format!("u32[2] file:{}", path.display())), [1, 256]);
        let short = Content::parse(&format!("u32[3] file:{}", path.display())).unwrap();
        assert!(short.words("x", 0).unwrap_err().to_string().contains("has 8 bytes, but the buffer x 12"));
    }
}
