//! The mirror pass: which operands are read through a texture instead of their buffer.
//!
//! Drivers that run shaders on a CPU may load an element of a buffer for one SIMD lane after the other - 90 ns for
//! eight of them has been measured - where a texel is gathered for all lanes at once, in 6 ns, and a copy into a
//! texture runs at the speed of memory. So, where an adapter wants it ([`Caps::mirrors`]), heavy dispatches read
//! copies of their operands that are made right before. No op and no shader knows of it: `x[i]` is rewritten.

use super::plan::{Plan, Step};
use super::shake::{globals, identifiers, items};
use super::{Caps, DType};
use std::collections::HashMap;

/// Elements of an operand in a row of its mirror. A row has 32 KiB, which copies and textures allow everywhere.
pub const ROW: usize = 8192;

/// Four elements of f16.
const PAIR: &str = "vec2<u32>";

/// Rows of a texture on every device.
const MOST_ROWS: usize = 8192;

/// What one texel of a mirror holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Texel {
    /// The elements' type.
    pub dtype: DType,
    /// Whether it holds four elements, not one.
    pub four: bool,
}

impl Texel {
    /// Elements in it.
    pub fn elements(self) -> usize {
        if self.four { 4 } else { 1 }
    }

    /// WGSL's name of the format.
    fn format(self) -> String {
        let kind = match self.dtype {
            DType::F32 | DType::F16 => "float",
            DType::U32 => "uint",
            DType::I32 => "sint",
        };
        format!("{}32{kind}", if self.four { "rgba" } else { "r" })
    }

    fn of(element: &str) -> Option<Texel> {
        let (scalar, four) = match element.strip_prefix("vec4<") {
            Some(rest) => (rest.strip_suffix('>')?, true),
            None => (element, false),
        };
        let dtype = [DType::F32, DType::U32, DType::I32].into_iter().find(|dtype| dtype.wgsl() == scalar)?;
        Some(Texel { dtype, four })
    }
}

/// A texture that mirrors go through, one dispatch after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texture {
    /// What a texel holds.
    pub texel: Texel,
    /// Rows of [`ROW`] elements.
    pub rows: usize,
}

impl Texture {
    /// Its size.
    pub fn bytes(&self) -> usize {
        self.rows * ROW * 4
    }
}

/// Gives the heavy dispatches of a plan mirrors of what they read.
pub(super) fn mirror(plan: &mut Plan, caps: &Caps) {
    if caps.mirrors == 0 {
        return;
    }
    let mut flops: HashMap<usize, u64> = HashMap::new();
    for step in &plan.steps {
        *flops.entry(step.unit).or_default() += step.flops;
    }
    for step in &mut plan.steps {
        let written = step.bindings.iter().filter(|b| b.writes && b.region.bytes != usize::MAX);
        let work = written.map(|b| b.region.bytes as u64 / 4).sum::<u64>().max(flops[&step.unit]);
        if work < caps.mirrors_from {
            continue;
        }
        let kernel = &step.kernel;
        // A table of which little is read is not worth copying, although an element is copied in a fraction of the time
        // that a load takes.
        let mut taken: Vec<usize> = step.bindings.iter().filter_map(|binding| binding.texture).collect();
        let worth = |&n: &usize| {
            let b = &step.bindings[n];
            let elements = b.region.bytes as u64 / 4;
            let pays = elements <= 8 * work && !kernel.streamed.contains(&n);
            !b.writes && elements > 0 && (pays || caps.mirrors_from == 0)
        };
        // Kernels bind first what they read most.
        let chosen: Vec<usize> = (0..step.bindings.len()).filter(worth).collect();
        for binding in chosen {
            if taken.len() < caps.mirrors {
                taken.extend(attach(step, binding, &mut plan.textures, &taken, caps.guard));
            }
        }
    }
}

/// Makes `step` read this binding through a texture that is not among `taken`; gives that texture.
fn attach(
    step: &mut Step,
    binding: usize,
    textures: &mut Vec<Texture>,
    taken: &[usize],
    guard: usize,
) -> Option<usize> {
    let rows = (step.bindings[binding].region.bytes + guard).div_ceil(4 * ROW);
    let (source, texel) = through_texture(&step.source, binding).filter(|_| rows <= MOST_ROWS)?;
    let found = (0..textures.len()).find(|n| textures[*n].texel == texel && !taken.contains(n));
    let id = found.unwrap_or_else(|| {
        textures.push(Texture { texel, rows: 0 });
        textures.len() - 1
    });
    textures[id].rows = textures[id].rows.max(rows);
    step.source = source;
    step.bindings[binding].texture = Some(id);
    Some(id)
}

/// A shader that reads the array at `binding` through a texture, and what a texel holds; `None` where the array is
/// not one of scalars, `vec4`s or pairs of words, or is used other than by `name[index]`.
fn through_texture(source: &str, binding: usize) -> Option<(String, Texel)> {
    let head = format!("@group(0) @binding({binding}) var");
    let mut declarations = items(source).into_iter().filter_map(|item| item.strip_prefix(&head));
    let (declaration, None) = (declarations.next()?, declarations.next()) else { return None };
    let (name, ty) = declaration.strip_prefix("<storage, read> ")?.strip_suffix(';')?.split_once(": ")?;
    let element = ty.strip_prefix("array<")?.strip_suffix('>')?;
    let alias = format!("alias {element} = ");
    let meant = items(source).into_iter().find_map(|item| item.strip_prefix(&alias)?.strip_suffix(';'));
    let element = meant.unwrap_or(element);
    // A pair of words is read from two texels.
    let texel = Texel::of(if element == PAIR { "u32" } else { element })?;
    let row = ROW / texel.elements();
    let load = |i: &str| format!("textureLoad({name}, vec2<u32>({i} % {row}u, {i} / {row}u))");
    let value = match texel.four {
        true => load("i"),
        false if element == PAIR => format!("{PAIR}({}.x, {}.x)", load("(2u * i)"), load("(2u * i + 1u)")),
        false => load("i") + ".x",
    };
    // Directives come first.
    let (directives, others): (Vec<_>, Vec<_>) =
        items(source).into_iter().partition(|item| item.starts_with("enable "));
    let mut text: String = directives.iter().map(|directive| format!("{directive}\n")).collect();
    text += &format!(
        "{head} {name}: texture_storage_2d<{}, read>;\nfn {name}_texel(i: u32) -> {element} {{\n    return {value};\n}}\n",
        texel.format()
    );
    for item in others.into_iter().filter(|item| !item.starts_with(&head)) {
        text += &if globals(item).contains(name) { calls(item, name)? } else { item.to_string() };
        text.push('\n');
    }
    Some((text, texel))
}

/// `item` with `name_texel(index)` for `name[index]`; `None` where `name` is used in any other way.
fn calls(item: &str, name: &str) -> Option<String> {
    let used = identifiers(item).filter(|(_, word)| *word == name);
    let places: Vec<usize> = used.map(|(at, _)| at + name.len()).collect();
    if places.iter().any(|&at| !item[at..].starts_with('[')) {
        return None;
    }
    let mut out = String::new();
    // Whether each bracket that is open belongs to the array.
    let mut open = Vec::new();
    for (at, c) in item.char_indices() {
        match c {
            '[' => {
                open.push(places.contains(&at));
                out.push_str(if open.last() == Some(&true) { "_texel(" } else { "[" });
            }
            ']' => out.push(if open.pop()? { ')' } else { ']' }),
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexing_becomes_a_texture_load() {
        let source = "@group(0) @binding(1) var<storage, read> x: array<f32>;\n\
                      fn g(x: f32) -> f32 { return x; }\n\
                      fn f() { y[x[k[1]] + 2u] = v.x[0] * x[x[3u]]; }\n";
        let (text, texel) = through_texture(source, 1).unwrap();
        assert_eq!(texel, Texel { dtype: DType::F32, four: false });
        assert!(text.starts_with("@group(0) @binding(1) var x: texture_storage_2d<r32float, read>;\n"), "{text}");
        assert!(text.contains("y[x_texel(k[1]) + 2u] = v.x[0] * x_texel(x_texel(3u));"), "{text}");
        assert!(text.contains("fn g(x: f32) -> f32 { return x; }"), "{text}");
        assert!(through_texture(source, 0).is_none());
    }

    #[test]
    fn four_elements_are_one_texel() {
        let source = "@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;\nfn f() { y = x[i].z; }\n";
        let (text, texel) = through_texture(source, 0).unwrap();
        assert_eq!(texel, Texel { dtype: DType::U32, four: true });
        assert!(text.contains("texture_storage_2d<rgba32uint, read>") && text.contains("i % 2048u"), "{text}");
        assert!(text.contains("y = x_texel(i).z;"), "{text}");
    }

    #[test]
    fn an_alias_is_what_it_stands_for() {
        let source = "alias Four = vec4<f32>;\n@group(0) @binding(0) var<storage, read> x: array<Four>;\n\
                      fn f() { y = x[i]; }\n";
        assert_eq!(through_texture(source, 0).unwrap().1, Texel { dtype: DType::F32, four: true });
    }

    #[test]
    fn a_pair_of_words_is_two_texels() {
        let source = "@group(0) @binding(0) var<storage, read> x: array<vec2<u32>>;\nfn f() { y = x[i]; }\n";
        let (text, texel) = through_texture(source, 0).unwrap();
        assert_eq!(texel, Texel { dtype: DType::U32, four: false });
        assert!(text.contains("vec2<u32>((2u * i + 1u) % 8192u, (2u * i + 1u) / 8192u)"), "{text}");
    }

    #[test]
    fn what_cannot_be_a_texture_stays_a_buffer() {
        let pairs = "@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;\nfn f() { y = x[i]; }\n";
        let written = "@group(0) @binding(0) var<storage, read_write> x: array<f32>;\nfn f() { x[i] = 1.0; }\n";
        let whole = "@group(0) @binding(0) var<storage, read> x: array<f32>;\nfn f() { n = arrayLength(&x); }\n";
        assert!([pairs, written, whole].iter().all(|source| through_texture(source, 0).is_none()));
    }
}
