//! The wide pass: vectors moved in 64-bit words.
//!
//! Drivers that run shaders on a CPU may load and store a vector component by component and lane by lane, each at the same
//! price whatever its size. So, where such an adapter has 64-bit integers ([`Caps::wide`]), kernels move two numbers at a
//! time in buffers of vectors of two and four f32 or u32, and of pairs of `vec4<f32>`. No op and no shader knows of it: what
//! indexes a buffer is rewritten.

use super::Caps;
use super::abreast;
use super::plan::Plan;
use super::shake::{globals, identifiers, items};

/// Gives the dispatches of a plan wide access to their buffers.
pub(super) fn widen(plan: &mut Plan, caps: &Caps) {
    if !caps.wide {
        return;
    }
    for step in &mut plan.steps {
        let proved = if caps.abreast { abreast::prove(&step.source) } else { None };
        let lanes = caps.subgroup.filter(|_| proved.is_some());
        step.source = proved.unwrap_or_else(|| std::mem::take(&mut step.source));
        for n in 0..step.bindings.len() {
            if step.bindings[n].texture.is_none()
                && let Some(source) = through_words(&step.source, n, step.kernel.moves, lanes)
            {
                step.source = source;
            }
        }
    }
}

/// What an element is in the shader, the words that it is in memory, and how one becomes the other. Words that are stored
/// as they were loaded would be kept in registers of 512 bits, where there are such, and to take lanes out of these takes
/// twice as long as out of two of 256 bits; a `zero` that compilers cannot foresee keeps their halves apart there.
const ELEMENTS: [(&str, &str, &str, &str); 5] = [
    (
        "vec2<u32>",
        "u64",
        "vec2<u32>(u32(w), u32(w >> 32u))",
        "let b = v ^ vec2<u32>(zero);\n    return u64(b.x) | (u64(b.y) << 32u);",
    ),
    (
        "vec4<u32>",
        "vec2<u64>",
        "vec4<u32>(u32(w.x), u32(w.x >> 32u), u32(w.y), u32(w.y >> 32u))",
        "let b = v ^ vec4<u32>(zero);\n    return vec2<u64>(u64(b.x) | (u64(b.y) << 32u), u64(b.z) | (u64(b.w) << 32u));",
    ),
    (
        "vec2<f32>",
        "u64",
        "bitcast<vec2<f32>>(vec2<u32>(u32(w), u32(w >> 32u)))",
        "let b = bitcast<vec2<u32>>(v) ^ vec2<u32>(zero);\n    return u64(b.x) | (u64(b.y) << 32u);",
    ),
    (
        "vec4<f32>",
        "vec2<u64>",
        "bitcast<vec4<f32>>(vec4<u32>(u32(w.x), u32(w.x >> 32u), u32(w.y), u32(w.y >> 32u)))",
        "let b = bitcast<vec4<u32>>(v) ^ vec4<u32>(zero);\n    \
         return vec2<u64>(u64(b.x) | (u64(b.y) << 32u), u64(b.z) | (u64(b.w) << 32u));",
    ),
    (
        "array<vec4<f32>, 2>",
        "vec4<u64>",
        "array<vec4<f32>, 2>(bitcast<vec4<f32>>(vec4<u32>(u32(w.x), u32(w.x >> 32u), u32(w.y), u32(w.y >> 32u))), \
         bitcast<vec4<f32>>(vec4<u32>(u32(w.z), u32(w.z >> 32u), u32(w.w), u32(w.w >> 32u))))",
        "let b = bitcast<vec4<u32>>(v[0]) ^ vec4<u32>(zero);\n    let c = bitcast<vec4<u32>>(v[1]) ^ vec4<u32>(zero);\n    \
         return vec4<u64>(u64(b.x) | (u64(b.y) << 32u), u64(b.z) | (u64(b.w) << 32u), \
         u64(c.x) | (u64(c.y) << 32u), u64(c.z) | (u64(c.w) << 32u));",
    ),
];

/// A shader that moves the array at `binding` in 64-bit words; `None` where its elements are others, or where it is used
/// other than by `name[index]` and `name[index] = value;`. `moves`: elements are stored as they were loaded. `lanes`: those
/// of a subgroup, where what lies abreast in it is moved as a whole.
fn through_words(source: &str, binding: usize, moves: bool, lanes: Option<u32>) -> Option<String> {
    let head = format!("@group(0) @binding({binding}) var");
    let mut declarations = items(source).into_iter().filter(|item| item.starts_with(&head));
    let (declaration, None) = (declarations.next()?, declarations.next()) else { return None };
    let (space, rest) = declaration.strip_prefix(&head)?.split_once("> ")?;
    let (name, ty) = rest.strip_suffix(';')?.split_once(": ")?;
    let element = ty.strip_prefix("array<")?.strip_suffix('>')?;
    let meant = |name: &str| {
        let alias = format!("alias {name} = ");
        items(source)
            .into_iter()
            .find_map(|item| item.strip_prefix(&alias)?.strip_suffix(';'))
            .unwrap_or(name)
            .to_string()
    };
    let whole = match element.strip_prefix("vec4<").and_then(|rest| rest.strip_suffix('>')) {
        Some(component) => format!("vec4<{}>", meant(component)),
        None => meant(element),
    };
    let abreast = lanes.filter(|_| source.contains(&format!("{name}[abreast(")));
    let element_itself = (whole.as_str(), whole.as_str(), "w", "return v;");
    let &(_, words, read, write) = match whole.as_str() {
        "f32" | "u32" if abreast.is_some() => &element_itself,
        _ => ELEMENTS.iter().find(|e| e.0 == whole)?,
    };
    let (directives, others): (Vec<_>, Vec<_>) =
        items(source).into_iter().partition(|item| item.starts_with("enable "));
    let mut text: String = directives.iter().map(|directive| format!("{directive}\n")).collect();
    text += &format!("{head}{space}> {name}: array<{words}>;\n");
    text += &format!("fn {name}_wide(i: u32) -> {element} {{\n    let w = {name}[i];\n    return {read};\n}}\n");
    // In a function of its own, as `v` may be the buffer's name.
    let zero = if moves { format!("u32(arrayLength(&{name}) == 0u)") } else { "0u".into() };
    text += &format!("fn {name}_zero() -> u32 {{\n    return {zero};\n}}\n");
    text += &format!("fn {name}_words(v: {element}) -> {words} {{\n    let zero = {name}_zero();\n    {write}\n}}\n");
    if let Some(lanes) = lanes {
        text += &abreast::load(name, element, read, lanes);
        if space.ends_with("read_write") {
            text += &abreast::store(name, element, lanes);
        }
    }
    for item in others.into_iter().filter(|item| !item.starts_with(&head)) {
        text += &if globals(item).contains(name) { accesses(item, name, lanes)? } else { item.to_string() };
        text.push('\n');
    }
    Some(text)
}

/// `text` with `name_wide(index)` for `name[index]`, and `name[index] = name_words(value);` for stores; with
/// `name_abreast(places)` and `name_put(places, value);` where there are `lanes` and the index is `abreast(place)`.
fn accesses(text: &str, name: &str, lanes: Option<u32>) -> Option<String> {
    let Some((at, _)) = identifiers(text).find(|(_, word)| *word == name) else { return Some(text.to_string()) };
    let open = at + name.len();
    let close = open + matching(&text[open..])?;
    let index = accesses(&text[open + 1..close], name, lanes)?;
    let places = lanes.and_then(|lanes| abreast::places(&index, lanes));
    let (before, after) = (&text[..at], &text[close + 1..]);
    if let Some(value) = after.strip_prefix(" = ") {
        let (value, rest) = value.split_at(value.find(';')?);
        let value = accesses(value, name, lanes)?;
        let rest = accesses(rest, name, lanes)?;
        return Some(match places {
            Some(places) => format!("{before}{name}_put({places}, {value}){rest}"),
            None => format!("{before}{name}[{index}] = {name}_words({value}){rest}"),
        });
    }
    // A component that is stored, an operation in place, or an address.
    let statement = before.trim_end().ends_with([';', '{', '}', '&']);
    let load = match places {
        Some(places) => format!("{name}_abreast({places})"),
        None => format!("{name}_wide({index})"),
    };
    (!statement).then(|| Some(format!("{before}{load}{}", accesses(after, name, lanes)?)))?
}

/// The place of the bracket that closes the one at the start of `text`.
pub(super) fn matching(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' if depth == 1 => return Some(at),
            ']' | ')' => depth -= 1,
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_and_stores_are_of_words() {
        let source = "enable f16;\n@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;\n\
                      @group(0) @binding(1) var<storage, read_write> y: array<Pair>;\nalias Pair = array<vec4<f32>, 2>;\n\
                      fn f(i: u32) {\n    let v = x[i + k[1]] * x[2u].y;\n    y[i] = Pair(v, x[i]);\n}\n";
        let text = through_words(source, 0, false, None).unwrap();
        assert!(
            text.starts_with("enable f16;\n@group(0) @binding(0) var<storage, read> x: array<vec2<u64>>;\n"),
            "{text}"
        );
        assert!(text.contains("let v = x_wide(i + k[1]) * x_wide(2u).y;"), "{text}");
        let text = through_words(&text, 1, false, None).unwrap();
        assert!(text.contains("var<storage, read_write> y: array<vec4<u64>>;"), "{text}");
        assert!(text.contains("y[i] = y_words(Pair(v, x_wide(i)));"), "{text}");
    }

    #[test]
    fn components_may_have_another_name() {
        let source = "alias Element = f32;\n@group(0) @binding(0) var<storage, read_write> y: array<vec4<Element>>;\n\
                      fn f(v: vec4<Element>) {\n    y[0] = v;\n}\n";
        let text = through_words(source, 0, false, None).unwrap();
        assert!(text.contains("y: array<vec2<u64>>;") && text.contains("y[0] = y_words(v);"), "{text}");
        assert!(through_words(&source.replace("= f32", "= f16"), 0, false, None).is_none());
    }

    #[test]
    fn what_is_read_and_written_in_place_has_both() {
        let source = "@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;\n\
                      fn f() { x[x[0].z] = x[1] + x[2]; }\n";
        let text = through_words(source, 0, false, None).unwrap();
        assert!(text.contains("x[x_wide(0).z] = x_words(x_wide(1) + x_wide(2));"), "{text}");
        // The function that makes words calls its parameter so, too.
        let text = through_words(
            "@group(0) @binding(0) var<storage, read_write> v: array<vec4<f32>>;\nfn f() { v[0] = v[1]; }\n",
            0,
            true,
            None,
        )
        .unwrap();
        assert_eq!(text.matches("&v").count(), 1, "{text}");
        assert!(text.contains("fn v_zero() -> u32 {\n    return u32(arrayLength(&v) == 0u);"), "{text}");
    }

    #[test]
    fn what_lies_abreast_is_moved_as_a_whole() {
        let source = "@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;\n\
                      fn f(i: u32) {\n    x[abreast(own_lane * i)] = x[abreast(i + own_lane)] * x[abreast(own_lane) + 1u];\n}\n";
        let text = through_words(source, 0, false, Some(2)).unwrap();
        assert!(
            text.contains("x_put(0u * i, 1u * i, x_abreast(i + 0u, i + 1u) * x_wide(abreast(own_lane) + 1u));"),
            "{text}"
        );
        assert!(text.contains("w = select(w, w1, own_lane == 1u);"), "{text}");
        assert!(text.contains("x[p1] = subgroupBroadcast(w, 1u);"), "{text}");
        // Where the adapter cannot, lane by lane; and what is only read is not stored to.
        let text = through_words(source, 0, false, None).unwrap();
        let expected =
            "x[abreast(own_lane * i)] = x_words(x_wide(abreast(i + own_lane)) * x_wide(abreast(own_lane) + 1u));";
        assert!(text.contains(expected), "{text}");
        let read = source.replace("read_write", "read").replace("x[abreast(own_lane * i)] = ", "let y = ");
        assert!(!through_words(&read, 0, false, Some(2)).unwrap().contains("_put"));
    }

    #[test]
    fn other_elements_and_other_uses_stay() {
        let declared = |ty: &str, body: &str| {
            format!("@group(0) @binding(0) var<storage, read_write> x: array<{ty}>;\nfn f() {{ {body} }}\n")
        };
        for (ty, body) in [
            ("f32", "x[0] = 1.0;"),
            ("vec4<i32>", "x[0] = x[1];"),
            ("vec4<f32>", "x[0].x = 1.0;"),
            ("vec4<f32>", "x[0] += x[1];"),
            ("vec4<f32>", "n = arrayLength(&x);"),
        ] {
            assert!(through_words(&declared(ty, body), 0, false, None).is_none(), "{body}");
        }
    }
}
