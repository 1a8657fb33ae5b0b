//! What the buffers of a kernel hold at first.

use half::f16;
use shadegrad::reflect::{Bound, Wgsl};
use shadegrad::{DType, Error, Result};
use std::path::PathBuf;

/// What a buffer holds at first.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// The type of its numbers and how many there are, if they were said.
    pub size: Option<(DType, usize)>,
    pub fill: Fill,
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

const TYPES: [DType; 4] = [DType::F32, DType::F16, DType::U32, DType::I32];

pub fn bytes_of(dtype: DType) -> usize {
    if dtype == DType::F16 { 2 } else { 4 }
}

/// A number, or several with `*` between.
pub fn product(text: &str) -> Option<f64> {
    text.split('*').map(|factor| factor.trim().replace('_', "").parse::<f64>().ok()).product()
}

pub fn whole(text: &str) -> Option<usize> {
    product(text).filter(|n| *n >= 0.0 && n.fract() == 0.0 && *n < 9e15).map(|n| n as usize)
}

/// The bits of a number in this type, if it holds it: rounded where it is a float's, exact where an integer's.
fn bits(dtype: DType, value: f64) -> Option<u32> {
    let rounded = |result: f64, bits: u32| (result.is_finite() || !value.is_finite()).then_some(bits);
    match dtype {
        DType::F32 => rounded((value as f32).into(), (value as f32).to_bits()),
        DType::F16 => rounded(f16::from_f64(value).into(), f16::from_f64(value).to_bits().into()),
        DType::U32 => (f64::from(value as u32) == value).then_some(value as u32),
        DType::I32 => (f64::from(value as i32) == value).then_some(value as i32 as u32),
    }
}

impl Content {
    /// `TYPE[COUNT] FILL`, or the second alone.
    pub fn parse(text: &str) -> Result<Content, String> {
        let (size, fill) = match text.split_once(']') {
            None => (None, text),
            Some((size, fill)) => {
                let wrong = || "write TYPE[COUNT], with f32, f16, u32 or i32 and a number or a product".to_string();
                let (name, count) = size.split_once('[').ok_or_else(wrong)?;
                let dtype = TYPES.into_iter().find(|dtype| dtype.to_string() == name.trim()).ok_or_else(wrong)?;
                (Some((dtype, whole(count).ok_or_else(wrong)?)), fill)
            }
        };
        let fill = match fill.trim() {
            "" | "random" => Fill::Random,
            "zero" => Fill::Zero,
            "count" => Fill::Count,
            other => match (other.strip_prefix("file:"), other.parse()) {
                (Some(path), _) => Fill::File(path.into()),
                (None, Ok(value)) => Fill::Value(value),
                (None, Err(_)) => {
                    return Err(format!("it is filled with random, zero, count, a number or file:PATH, not {other:?}"));
                }
            },
        };
        Ok(Content { size, fill })
    }

    /// The same with its size, said or taken from the shader, and that both agree; else what is wrong and the remedy.
    pub fn sized(&self, bound: &Bound) -> Result<Content, String> {
        let Bound { name, bytes, fixed, scalars, line, .. } = bound;
        let foreign = scalars.iter().find(|name| TYPES.iter().all(|dtype| dtype.to_string() != **name));
        if let Some(foreign) = foreign {
            return Err(format!("{name} holds {foreign} (line {line}); only f32, f16, u32 and i32 can be filled here"));
        }
        if scalars.len() > 1 && scalars.iter().any(|name| name == "f16") {
            return Err(format!(
                "{name} holds f16 beside other types (line {line}); make it an array of f16 or of u32"
            ));
        }
        let only = TYPES.into_iter().find(|dtype| scalars[..] == [dtype.to_string()]);
        let (dtype, count) = match (self.size, only, fixed) {
            (Some((said, _)), Some(only), _) if said != only => {
                return Err(format!("{name} holds {only} in the shader (line {line}), not {said}"));
            }
            (Some((DType::F16, _)), None, _) => return Err(format!("{name} holds no f16 in the shader (line {line})")),
            (Some(size), ..) => size,
            // Of several types: words, each filled as its own.
            (None, only, true) => {
                let dtype = only.unwrap_or(DType::U32);
                (dtype, bytes / bytes_of(dtype))
            }
            (None, only, false) => {
                let dtype = only.unwrap_or(DType::F32);
                let how = format!(
                    "say --buffer \"{name}: {dtype}[1024] random\" or `//! buffer {name}: {dtype}[1024] random`"
                );
                return Err(format!("the size of the buffer {name} is not known; {how}"));
            }
        };
        let size = count.saturating_mul(bytes_of(dtype));
        if size < *bytes {
            let enough = bytes.div_ceil(bytes_of(dtype));
            let how = format!("say {dtype}[{enough}]{}", if *fixed { "" } else { " or more" });
            return Err(format!(
                "the buffer {name} has {size} bytes, but the shader wants {bytes} (line {line}); {how}"
            ));
        }
        Ok(Content { size: Some((dtype, count)), fill: self.fill.clone() })
    }

    /// The type of the numbers and how many there are; none before they are [`Content::sized`].
    pub fn extent(&self) -> (DType, usize) {
        self.size.unwrap_or((DType::F32, 0))
    }

    /// Bytes, in whole words.
    pub fn bytes(&self) -> usize {
        let (dtype, count) = self.extent();
        count.saturating_mul(bytes_of(dtype)).next_multiple_of(4)
    }

    /// The words; random ones differ from name to name and from `set` to `set`.
    pub fn words(&self, wgsl: &Wgsl, bound: &Bound, set: usize) -> Result<Vec<u32>> {
        let ((dtype, count), name) = (self.extent(), &bound.name);
        let mixed = bound.scalars.len() > 1;
        let layout = wgsl.layout(bound);
        // In structs of several types, each member gets a number of its own.
        let dtype = |at: usize| if mixed { layout(at * bytes_of(dtype)).unwrap_or(dtype) } else { dtype };
        let held = |at: usize, value: f64| {
            let wrong = || Error::argument(name, format!("{value} is no {}; fill it with another number", dtype(at)));
            bits(dtype(at), value).ok_or_else(wrong)
        };
        let numbers: Vec<u32> = match &self.fill {
            Fill::Zero => vec![0; count],
            Fill::Value(value) => (0..count).map(|at| held(at, *value)).collect::<Result<_>>()?,
            Fill::Count => (0..count).map(|at| held(at, at as f64)).collect::<Result<_>>()?,
            Fill::Random => {
                let mix = |seed: u32, byte: u8| seed.wrapping_mul(31).wrapping_add(byte.into());
                let seed = name.bytes().fold(set as u32 + 1, mix);
                let whole = |v: f32| f64::from(v + 1.0) * f64::from(1 << 23);
                let number = |(at, v): (usize, f32)| match dtype(at).is_float() {
                    true => held(at, v.into()),
                    false => held(at, whole(v)),
                };
                super::super::cases::random(count, seed, 2.0)
                    .into_iter()
                    .enumerate()
                    .map(number)
                    .collect::<Result<_>>()?
            }
            Fill::File(path) => {
                let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
                let size = count * bytes_of(self.extent().0);
                if bytes.len() != size {
                    let message = format!("it has {} bytes, but the buffer {name} {size}", bytes.len());
                    return Err(Error::format(path, message));
                }
                let word = |four: &[u8]| four.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
                return Ok(bytes.chunks(4).map(word).collect());
            }
        };
        Ok(match self.extent().0 {
            DType::F16 => numbers.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 16).collect(),
            _ => numbers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shader(ty: &str) -> (Wgsl, Bound) {
        let text = format!(
            "enable f16;\nstruct S {{ n: u32, scale: f32, offset: i32 }}\n\
             @group(0) @binding(0) var<storage, read_write> x: {ty};\n\
             @compute @workgroup_size(1) fn main() {{ let y = &x; }}\n"
        );
        let wgsl = Wgsl::parse("a.wgsl", &text).unwrap();
        let bound = wgsl.bound("main").unwrap().remove(0);
        (wgsl, bound)
    }

    fn words(ty: &str, text: &str) -> Result<Vec<u32>, String> {
        let (wgsl, bound) = shader(ty);
        let content = Content::parse(text)?.sized(&bound)?;
        let words = content.words(&wgsl, &bound, 0).map_err(|error| error.to_string())?;
        assert_eq!(4 * words.len(), content.bytes());
        Ok(words)
    }

    #[test]
    fn buffers_are_filled_as_they_say() {
        assert_eq!(words("array<u32>", "u32[3] count").unwrap(), [0, 1, 2]);
        assert_eq!(words("array<vec2<f32>>", "f32[2] 1.5").unwrap(), [1.5f32.to_bits(); 2]);
        assert_eq!(words("array<atomic<i32>>", "i32[1] -2").unwrap(), [u32::MAX - 1]);
        assert_eq!(words("array<f16>", "f16[3] 1").unwrap(), [0x3c00_3c00, 0x3c00]);
        // Sizes and types as the shader has them.
        assert_eq!(words("array<u32, 3>", "7").unwrap(), [7; 3]);
        assert_eq!(words("S", "2").unwrap(), [2, 2f32.to_bits(), 2]);
        let (wgsl, bound) = shader("array<f32>");
        let random = Content::parse("f32[9] random").unwrap();
        assert!(random.words(&wgsl, &bound, 0).unwrap() != random.words(&wgsl, &bound, 1).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        std::fs::write(&path, [1, 0, 0, 0, 0, 1, 0, 0]).unwrap();
        assert_eq!(words("array<u32>", &format!("u32[2] file:{}", path.display())).unwrap(), [1, 256]);
        let short = words("array<u32>", &format!("u32[3] file:{}", path.display())).unwrap_err();
        assert!(short.contains("has 8 bytes, but the buffer x 12"), "{short}");
    }

    #[test]
    fn what_a_buffer_cannot_hold_is_refused() {
        let refused = |ty: &str, text: &str, part: &str| {
            let message = words(ty, text).unwrap_err();
            assert!(message.contains(part), "{ty}, {text}: {message}");
        };
        refused("array<u32>", "f32[3]", "x holds u32 in the shader (line 3), not f32");
        refused("array<vec4<f32>>", "u32[4]", "x holds f32 in the shader (line 3), not u32");
        refused("array<u64>", "u32[4]", "x holds u64 (line 3); only");
        refused("array<f32>", "random", "the size of the buffer x is not known; say --buffer \"x: f32[1024] random\"");
        refused("array<u32, 8>", "u32[7]", "has 28 bytes, but the shader wants 32 (line 3); say u32[8]");
        refused("array<u32>", "u32[3] -3", "-3 is no u32");
        refused("array<u32>", "u32[3] 1.5", "1.5 is no u32");
        refused("array<i32>", "i32[3] 2147483648", "2147483648 is no i32");
        refused("array<f32>", "f32[3] 1e300", "is no f32");
        refused("array<f16>", "f16[3] 70000", "70000 is no f16");
        refused("S", "1.5", "1.5 is no u32");
        refused("S", "f16[8]", "x holds no f16 in the shader");
        refused("array<f32>", "f32[3] much", "not \"much\"");
        refused("array<f32>", "f32 3] 1", "write TYPE[COUNT]");
    }
}
