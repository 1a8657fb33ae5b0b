//! Sets `const`s and `override`s of a shader, as --const says.

use half::f16;
use shadegrad::reflect::Wgsl;
use shadegrad::{Error, Result};
use std::ops::Range;

/// Whether there is a `const` or an `override` of this name.
pub fn exists(constant: &str, wgsl: &Wgsl, text: &str) -> bool {
    wgsl.override_key(constant).is_some() || initializer(text, constant).is_some()
}

/// The text with its `const`s set, and the values of its `override`s by their keys.
pub fn set(
    file: &str,
    mut text: String,
    wgsl: &Wgsl,
    consts: &[(String, String)],
) -> Result<(String, Vec<(String, f64)>)> {
    let mut overrides = Vec::new();
    for (constant, value) in consts {
        let wrong = |message: String| Error::argument(file, message);
        if let (Some(key), Some(ty)) = (wgsl.override_key(constant), wgsl.override_type(constant)) {
            let value = Literal::of(value, &ty).map_err(|why| wrong(format!("{constant} = {value:?}: {why}")))?;
            overrides.push((key, value.number()));
            continue;
        }
        let place = initializer(&text, constant);
        let place = place.ok_or_else(|| wrong(format!("there is no const or override {constant:?} in it")))?;
        // What is no number or bool makes no override.
        let probe = Wgsl::parse(file, &format!("{text}\noverride shadegrad_probe = {constant};\n"));
        let ty = probe.ok().and_then(|probe| probe.override_type("shadegrad_probe"));
        let ty =
            ty.ok_or_else(|| wrong(format!("the const {constant} is no number and no bool, so it cannot be set")))?;
        let literal = Literal::of(value, &ty).map_err(|why| wrong(format!("{constant} = {value:?}: {why}")))?;
        let literal = if wgsl.has_typed_const(constant) { format!("{ty}({literal})") } else { literal.to_string() };
        text.replace_range(place, &format!(" {literal}"));
    }
    Ok((text, overrides))
}

/// A value that stands for itself.
#[derive(Debug, PartialEq)]
enum Literal {
    Bool(bool),
    Whole(i64),
    Float(f64),
}

impl Literal {
    /// Of a WGSL type, or why it is none.
    fn of(text: &str, ty: &str) -> Result<Literal, String> {
        if ty == "bool" {
            return text.parse().map(Literal::Bool).map_err(|_| "its type is bool: true or false".into());
        }
        let suffix = text.chars().last().filter(|c| "uifh".contains(*c) && !text.starts_with("0x"));
        let fits = suffix.is_none_or(|suffix| ty.starts_with(if suffix == 'h' { 'f' } else { suffix }));
        let digits = text.trim_end_matches(['u', 'i', 'f', 'h']);
        if ty.starts_with('f') {
            let largest = if ty == "f16" { f16::MAX.into() } else { f64::from(f32::MAX) };
            let value = digits.parse().ok().filter(|value: &f64| value.abs() <= largest && fits);
            return value
                .map(Literal::Float)
                .ok_or_else(|| format!("its type is {ty}: a number of at most {largest:e}"));
        }
        let (least, most) = if ty == "u32" { (0, u32::MAX.into()) } else { (i32::MIN.into(), i32::MAX.into()) };
        let value = match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex.trim_end_matches(['u', 'i']), 16),
            None => digits.parse(),
        };
        let value = value.ok().filter(|value| (least..=most).contains(value) && fits);
        value.map(Literal::Whole).ok_or_else(|| format!("its type is {ty}: a whole number from {least} to {most}"))
    }

    fn number(&self) -> f64 {
        match *self {
            Literal::Bool(value) => value.into(),
            Literal::Whole(value) => value as f64,
            Literal::Float(value) => value,
        }
    }
}

impl std::fmt::Display for Literal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Literal::Bool(value) => write!(f, "{value}"),
            Literal::Whole(value) => write!(f, "{value}"),
            // With a point or an exponent, so that it stays a float.
            Literal::Float(value) => write!(f, "{value:?}"),
        }
    }
}

/// Where the value of the module's `const` of this name stands: between the equals sign and the semicolon.
fn initializer(text: &str, constant: &str) -> Option<Range<usize>> {
    let bare = without_comments(text);
    let (mut start, mut depth) = (0, 0);
    for (at, byte) in bare.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(byte, b';' | b'}') {
            let declaration = &bare[start..at];
            if let Some(value) = value_in(declaration, constant) {
                return Some(start + value..at);
            }
            start = at + 1;
        }
    }
    None
}

/// Where the value begins in `const CONSTANT = value` or `const CONSTANT: TYPE = value`.
fn value_in(declaration: &str, constant: &str) -> Option<usize> {
    let rest = declaration.trim_start().strip_prefix("const")?;
    let rest = rest.strip_prefix(char::is_whitespace)?.trim_start().strip_prefix(constant)?.trim_start();
    rest.starts_with([':', '=']).then(|| declaration.find('=').map(|at| at + 1))?
}

/// The text with spaces in place of comments.
fn without_comments(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    let (mut rest, mut depth) = (text, 0_usize);
    while let Some(c) = rest.chars().next() {
        let length = match (depth, rest) {
            (0, rest) if rest.starts_with("//") => rest.find(['\n', '\r']).unwrap_or(rest.len()),
            (_, rest) if rest.starts_with("/*") => {
                depth += 1;
                2
            }
            (1.., rest) if rest.starts_with("*/") => {
                depth -= 1;
                2
            }
            (1.., _) => c.len_utf8(),
            (0, _) => {
                bare.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        bare.extend(std::iter::repeat_n(' ', length));
        rest = &rest[length..];
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "//! const N = 8u\n\
        /*\nconst A = 1.0; /* const A = 2.0; */ const A = 3.0;\n*/\n\
        fn f() -> f32 { const A = 4.0; return A; }\n  \
        const /* a = b; é */ A = 5.0; const N: u32 = 4u; // elements\n\
        const V\n  = 7; const T: vec2<f32> = vec2(1.0); const YES: bool = false;\n\
        @id(3) override M = 2.0; override ON: bool; const AA = A;\n";

    fn with(consts: &[(&str, &str)]) -> Result<(String, Vec<(String, f64)>)> {
        let consts: Vec<_> = consts.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        set("a.wgsl", TEXT.into(), &Wgsl::parse("a.wgsl", TEXT).unwrap(), &consts)
    }

    #[test]
    fn consts_and_overrides_are_set_wherever_they_stand() {
        let changes = [("A", "2"), ("N", "0x10u"), ("V", "-3"), ("YES", "true"), ("M", "3f"), ("ON", "true")];
        let (text, overrides) = with(&changes).unwrap();
        let expected = TEXT
            .replace("A = 5.0", "A = 2.0")
            .replace("N: u32 = 4u", "N: u32 = u32(16)")
            .replace("= 7;", "= -3;")
            .replace("= false", "= bool(true)");
        assert_eq!(text, expected);
        assert_eq!(overrides, [("3".to_string(), 3.0), ("ON".into(), 1.0)]);
        Wgsl::parse("a.wgsl", &text).unwrap();
    }

    #[test]
    fn only_a_literal_of_the_constant_s_type_is_taken() {
        let refused = |constant: &str, value: &str, part: &str| {
            let message = with(&[(constant, value)]).unwrap_err().to_string();
            assert!(message.contains(&format!("{constant} = {value:?}: {part}")), "{message}");
        };
        for value in ["1.5", "-1", "4294967296", "4i", "4f", "nan", "", "4; fn g() {}", "2 + 2"] {
            refused("N", value, "its type is u32: a whole number from 0 to 4294967295");
        }
        for value in ["1.5", "2147483648", "true"] {
            refused("V", value, "its type is i32");
        }
        for value in ["nan", "inf", "1e300", "2u", "true", "1.0; fn g() {}", "sin(1.0)"] {
            refused("A", value, "its type is f32");
            refused("M", value, "its type is f32");
        }
        refused("YES", "1", "its type is bool: true or false");
        refused("ON", "7", "its type is bool: true or false");
        assert!(with(&[("T", "1")]).unwrap_err().to_string().contains("the const T is no number"));
        assert!(with(&[("K", "1")]).unwrap_err().to_string().contains("no const or override \"K\""));
    }
}
