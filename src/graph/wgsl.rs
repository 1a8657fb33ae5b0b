//! The specialiser: from a shader file and a kernel's settings to the WGSL that is compiled.
//!
//! A shader is ordinary WGSL. Five things happen to it, in this order:
//! - a line `// include: NAME` is replaced by that helper file's text, also in what comes next;
//! - a function or alias that the kernel replaces gets its new text (an epilogue, say), or another function of the
//!   file takes its place;
//! - `const NAME = ...;` gets the kernel's value, also in `@binding(NAME)`;
//! - a loop `for (var i = 0u; i < BOUND; i++) { // unroll` is written out, `i` becoming a literal, so that arrays
//!   indexed by it can live in registers;
//! - what the entry point does not reach is left out.

use super::choose::Fnv;
use super::shake::shake;
use super::{Kernel, Shader};
use crate::{Error, Result, shader};
use std::collections::HashMap;
use std::sync::OnceLock;

/// Helper files that shaders include by name.
const LIBRARY: [Shader; 19] = [
    shader!("abreast.wgsl"),
    shader!("math.wgsl"),
    shader!("half.wgsl"),
    shader!("random.wgsl"),
    shader!("grid.wgsl"),
    shader!("gemm.wgsl"),
    shader!("operands.wgsl"),
    shader!("conv2d.wgsl"),
    shader!("conv2d_pixels.wgsl"),
    shader!("team.wgsl"),
    shader!("lines.wgsl"),
    shader!("shares.wgsl"),
    shader!("moments.wgsl"),
    shader!("exponentials.wgsl"),
    shader!("cells.wgsl"),
    shader!("recurrent.wgsl"),
    shader!("recurrent_state.wgsl"),
    shader!("attention_scores.wgsl"),
    shader!("attention_columns.wgsl"),
];

/// A hash of all helper files.
pub(super) fn library_fingerprint() -> u64 {
    static HASH: OnceLock<u64> = OnceLock::new();
    *HASH.get_or_init(|| {
        let mut hash = Fnv::default();
        LIBRARY.iter().for_each(|shader| hash.add(shader.source));
        hash.0
    })
}

/// A hash of a shader and all helper files, in hexadecimal digits.
pub(crate) fn fingerprint(shader: &Shader) -> String {
    let mut hash = Fnv::default();
    hash.add(shader.source);
    format!("{:016x}", hash.0 ^ library_fingerprint())
}

/// The WGSL of a kernel.
pub fn specialise(kernel: &Kernel) -> Result<String> {
    let fail = |message: String| Error::Shader { shader: kernel.shader.name.into(), message };
    let mut included = Vec::new();
    let mut text = include(kernel.shader.source, &mut included).map_err(fail)?;
    for (name, replacement) in &kernel.functions {
        let replacement = include(replacement, &mut included).map_err(fail)?;
        text = replace_item(&text, name, &replacement).map_err(fail)?;
    }
    for (name, other) in &kernel.choices {
        text = substitute(&replace_item(&text, name, "").map_err(fail)?, other, name);
    }
    for (name, value) in &kernel.consts {
        text = set_const(&text, name, &value.to_string()).map_err(fail)?;
    }
    let consts = constants(&text);
    let text = number(&text, &consts).map_err(fail)?;
    Ok(shake(&unroll(&text, &consts).map_err(fail)?, kernel.entry))
}

/// Puts helper files, and what they include themselves, in place of the lines that include them, each only once.
fn include(source: &str, included: &mut Vec<String>) -> Result<String, String> {
    let mut text = String::new();
    for line in source.lines() {
        match line.strip_prefix("// include: ") {
            Some(name) if included.iter().any(|other| other == name) => {}
            Some(name) => match LIBRARY.iter().find(|s| s.name == name.trim()) {
                Some(shader) => {
                    included.push(name.into());
                    text.push_str(&include(shader.source, included)?);
                }
                None => return Err(format!("there is no helper file {name:?} to include")),
            },
            None => text.push_str(line),
        }
        text.push('\n');
    }
    Ok(text)
}

/// The end (exclusive) of the block whose `{` is the first one at or after `from`.
fn block_end(text: &str, from: usize) -> Option<usize> {
    let open = from + text[from..].find('{')?;
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at + 1),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Replaces the function, or the alias, of that name.
fn replace_item(text: &str, name: &str, replacement: &str) -> Result<String, String> {
    let alias = format!("alias {name} ");
    if let Some(start) = text.find(&alias) {
        let end = start + text[start..].find(';').ok_or("an alias has no end")? + 1;
        return Ok(format!("{}{replacement}{}", &text[..start], &text[end..]));
    }
    let function = format!("fn {name}(");
    // At the beginning of a line, as comments may speak of it, too.
    let mut places = text.match_indices(&function).map(|(at, _)| at);
    let start = places
        .find(|&at| at == 0 || text[..at].ends_with('\n'))
        .ok_or_else(|| format!("it has no function {name:?} to replace"))?;
    let end = block_end(text, start).ok_or_else(|| format!("the function {name:?} has no end"))?;
    Ok(format!("{}{replacement}{}", &text[..start], &text[end..]))
}

fn set_const(text: &str, name: &str, value: &str) -> Result<String, String> {
    let head = format!("const {name} = ");
    let start = text.find(&head).ok_or_else(|| format!("it has no const {name:?} to set"))? + head.len();
    let end = start + text[start..].find(';').ok_or("a const has no end")?;
    Ok(format!("{}{value}{}", &text[..start], &text[end..]))
}

/// The integer constants at the top level.
fn constants(text: &str) -> HashMap<String, u32> {
    let mut known = HashMap::new();
    for line in text.lines() {
        let parts = line.strip_prefix("const ").and_then(|rest| rest.split_once(" = "));
        if let Some((name, value)) = parts.and_then(|(n, v)| Some((n, v.split_once(';')?.0)))
            && let Some(value) = Eval::new(value, &known).whole()
        {
            known.insert(name.to_string(), value);
        }
    }
    known
}

/// Puts numbers in place of names in `@binding(NAME)`, for readers that know nothing of constants.
fn number(text: &str, consts: &HashMap<String, u32>) -> Result<String, String> {
    let mut parts = text.split("@binding(");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (name, rest) = part.split_once(')').ok_or("a binding has no number")?;
        let binding = Eval::new(name, consts).whole().ok_or_else(|| format!("{name:?} is no binding's number"))?;
        out.push_str(&format!("@binding({binding}){rest}"));
    }
    Ok(out)
}

/// Writes out every loop marked `// unroll`, the outermost first.
fn unroll(text: &str, consts: &HashMap<String, u32>) -> Result<String, String> {
    let Some(mark) = text.find("// unroll") else { return Ok(text.to_string()) };
    let line = text[..mark].rfind('\n').map_or(0, |at| at + 1);
    let header = text[line..mark].trim();
    let parts = header.strip_prefix("for (var ").and_then(|rest| rest.split_once(" = 0u; "));
    let (name, rest) = parts.ok_or_else(|| format!("cannot unroll {header:?}"))?;
    let bound = rest.strip_prefix(&format!("{name} < ")).and_then(|rest| Some(rest.split_once(';')?.0));
    let bound = bound.ok_or_else(|| format!("cannot unroll {header:?}"))?;
    let times = Eval::new(bound, consts).whole().ok_or_else(|| format!("{bound:?} is not a constant"))?;
    let end = block_end(text, line).ok_or("an unrolled loop has no end")?;
    let body = unroll(&text[mark + "// unroll".len()..end - 1], consts)?;
    let mut out = text[..line].to_string();
    for n in 0..times {
        out.push('{');
        out.push_str(&substitute(&body, name, &format!("{n}u")));
        out.push_str("}\n");
    }
    out.push_str(&unroll(&text[end..], consts)?);
    Ok(out)
}

/// Replaces the identifier `name` by `value`.
fn substitute(text: &str, name: &str, value: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let before = rest[..at].chars().next_back().is_some_and(|c| word(c) || c == '.');
        let after = rest[at + name.len()..].chars().next().is_some_and(word);
        out.push_str(&rest[..at]);
        out.push_str(if before || after { name } else { value });
        rest = &rest[at + name.len()..];
    }
    out.push_str(rest);
    out
}

/// Evaluates constant u32 expressions: `+ - * / %`, parentheses, literals and known names.
struct Eval<'a> {
    rest: &'a str,
    known: &'a HashMap<String, u32>,
}

impl<'a> Eval<'a> {
    fn new(text: &'a str, known: &'a HashMap<String, u32>) -> Self {
        Eval { rest: text, known }
    }

    fn whole(mut self) -> Option<u32> {
        let value = self.sum()?;
        self.rest.trim().is_empty().then_some(value)
    }

    fn take(&mut self, any: &[char]) -> Option<char> {
        let rest = self.rest.trim_start();
        let first = rest.chars().next().filter(|c| any.contains(c))?;
        self.rest = &rest[1..];
        Some(first)
    }

    fn sum(&mut self) -> Option<u32> {
        let mut value = self.product()?;
        while let Some(op) = self.take(&['+', '-']) {
            let right = self.product()?;
            value = if op == '+' { value.checked_add(right)? } else { value.checked_sub(right)? };
        }
        Some(value)
    }

    fn product(&mut self) -> Option<u32> {
        let mut value = self.atom()?;
        while let Some(op) = self.take(&['*', '/', '%']) {
            let right = self.atom()?;
            value = match op {
                '*' => value.checked_mul(right)?,
                '/' => value.checked_div(right)?,
                _ => value.checked_rem(right)?,
            };
        }
        Some(value)
    }

    fn atom(&mut self) -> Option<u32> {
        if self.take(&['(']).is_some() {
            let value = self.sum()?;
            return self.take(&[')']).map(|_| value);
        }
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        self.known.get(word).copied().or_else(|| word.strip_suffix('u').unwrap_or(word).parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Arg;

    const SOURCE: Shader = Shader {
        name: "test.wgsl",
        source: "const R = 2u;\nconst S = R * 2u + 1u;\nfn f(x: f32) -> f32 {\n    return x;\n}\nfn g() {\n\
                 for (var i = 0u; i < S - 3u; i++) { // unroll\n    a[i] = b.i + ij + R + f(1.0);\n}\n}\n",
    };

    #[test]
    fn constants_functions_and_loops_are_specialised() {
        let kernel = Kernel::new(SOURCE, "g").set("R", 3u32).replace("f", "fn f(x: f32) -> f32 { return 2.0; }");
        let text = specialise(&kernel).unwrap();
        assert!(text.contains("const R = 3u;"));
        assert!(text.contains("return 2.0;") && !text.contains("return x;"));
        assert_eq!(text.matches("= b.i + ij + R + f(1.0);").count(), 4);
        assert!(!text.contains("const S"), "{text}");
        assert!(text.contains("a[3u]") && !text.contains("a[4u]"));
    }

    #[test]
    fn a_function_takes_the_place_of_another() {
        let source = "fn f() -> u32 { return 1u; }\nfn f_two() -> u32 { return 2u; }\nfn g() { y = f(); }\n";
        let kernel = Kernel::new(Shader { name: "test.wgsl", source }, "g").choose("f", "f_two");
        assert_eq!(specialise(&kernel).unwrap(), "fn f() -> u32 { return 2u; }\nfn g() { y = f(); }\n");
    }

    #[test]
    fn bindings_are_numbered_in_the_order_in_which_the_kernel_has_them() {
        let source = "const X = 8u;\nconst Y = 9u;\n@group(0) @binding(X) var x;\n@group(0) @binding(Y) var y;\n\
                      fn g() { y = x; }\n";
        let kernel = Kernel::new(Shader { name: "test.wgsl", source }, "g");
        let text = specialise(&kernel.bind_as("Y", Arg::Out(0)).bind_as("X", Arg::In(0))).unwrap();
        assert!(text.contains("@binding(1) var x;") && text.contains("@binding(0) var y;"), "{text}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |kernel: Kernel| specialise(&kernel).unwrap_err().to_string();
        assert!(message(Kernel::new(SOURCE, "g").set("Q", 3u32)).contains("no const \"Q\""));
        assert!(message(Kernel::new(SOURCE, "g").replace("h", "")).contains("no function \"h\""));
    }
}
