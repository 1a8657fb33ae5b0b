//! Keeps of a shader only what its entry point reaches: drivers compile less, and a binding's number names one variable.

use std::collections::{HashMap, HashSet};

const ENABLE_F16: &str = "enable f16;";

/// `text` without comments and without the top-level items that `entry` does not reach.
pub(super) fn shake(text: &str, entry: &str) -> String {
    let text = uncommented(text);
    let items = items(&text);
    let named: HashMap<&str, usize> = items.iter().enumerate().filter_map(|(n, item)| Some((name(item)?, n))).collect();
    let mut kept: HashSet<usize> =
        items.iter().enumerate().filter(|(_, i)| name(i).is_none()).map(|(n, _)| n).collect();
    let mut waiting: Vec<usize> = named.get(entry).copied().into_iter().collect();
    while let Some(n) = waiting.pop() {
        if kept.insert(n) {
            waiting.extend(globals(items[n]).into_iter().filter_map(|word| named.get(word)));
        }
    }
    let kept: Vec<&str> = items.iter().enumerate().filter(|(n, _)| kept.contains(n)).map(|(_, item)| *item).collect();
    // Where there is no f16, the device need not have it.
    let f16 = kept.iter().any(|item| *item != ENABLE_F16 && globals(item).contains("f16"));
    kept.into_iter().filter(|item| f16 || *item != ENABLE_F16).collect::<Vec<_>>().join("\n") + "\n"
}

fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code).trim_end());
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The top-level declarations and directives.
pub(super) fn items(text: &str) -> Vec<&str> {
    let (mut items, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' | b'(' => depth += 1,
            b'}' | b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(byte, b'}' | b';') {
            items.push(text[start..=at].trim());
            start = at + 1;
        }
    }
    items
}

/// What an item declares; directives declare nothing.
fn name(item: &str) -> Option<&str> {
    let mut words = identifiers(item).map(|(_, word)| word);
    match words.find(|word| matches!(*word, "fn" | "struct" | "alias" | "const" | "override" | "var"))? {
        // `var<storage, read> name: ...`
        "var" => identifiers(item.split_once(':')?.0).last().map(|(_, word)| word),
        _ => words.next(),
    }
}

/// The words of an item that may name other items: neither members nor what a function declares itself.
pub(super) fn globals(item: &str) -> HashSet<&str> {
    let head = item.find('{').unwrap_or(item.len());
    let mut own = HashSet::new();
    let mut before = "";
    for (at, word) in identifiers(item) {
        let parameter = at < head && item[at + word.len()..].trim_start().starts_with(':');
        if parameter || (at > head && matches!(before, "let" | "var" | "const")) {
            own.insert(word);
        }
        before = word;
    }
    identifiers(item).map(|(_, word)| word).filter(|word| !own.contains(word)).collect()
}

/// The words of a text with their places, without members (`.x`) and numbers.
pub(super) fn identifiers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text[at..].find(word)?;
            let length = text[start..].find(|c| !word(c)).unwrap_or(text.len() - start);
            at = start + length;
            let found = &text[start..at];
            if !found.starts_with(|c: char| c.is_ascii_digit()) && !text[..start].ends_with('.') {
                return Some((start, found));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
const A = 2u; // not A { at all
const B = A + 1u;
struct Pair { first: u32, second: Kind }
alias Kind = f32;
@group(0) @binding(0) var<storage, read> x: array<f32>; // [A]
@group(0) @binding(0) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<workgroup> tile: array<f32, B>;
fn square(x: f32) -> f32 { return x * x; }
fn unused() { tile[0] = 1.0; }
@compute @workgroup_size(A)
fn four(@builtin(local_invocation_index) lane: u32) {
    let y4 = x4[lane];
    y[lane] = square(y4.x);
}
@compute @workgroup_size(1)
fn one() { var p: Pair; y[0] = x[0]; }
";

    #[test]
    fn an_entry_point_keeps_what_it_reaches() {
        let text = shake(TEXT, "four");
        let names: Vec<&str> = items(&text).into_iter().filter_map(name).collect();
        assert_eq!(names, ["A", "x4", "y", "square", "four"], "{text}");
        let text = shake(TEXT, "one");
        let names: Vec<&str> = items(&text).into_iter().filter_map(name).collect();
        assert_eq!(names, ["Pair", "Kind", "x", "y", "one"], "{text}");
    }

    #[test]
    fn members_and_numbers_are_no_identifiers() {
        let words: Vec<&str> = identifiers("a.b + 12u * c_1(d)").map(|(_, word)| word).collect();
        assert_eq!(words, ["a", "c_1", "d"]);
    }
}
