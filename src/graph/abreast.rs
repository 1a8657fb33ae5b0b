//! The abreast pass: a subgroup's lanes load and store a stretch of memory together.
//!
//! Drivers that run shaders on a CPU load and store lane by lane, with tests for each lane. Where they can tell that an
//! address is the same in the whole subgroup, and that all of its lanes are active, they load it once for all of them, and
//! store what the first lane has. So, where such an adapter can do it ([`Caps::abreast`]), `name[abreast(first)]`, the
//! element `first + lane` for each lane, becomes a load of every lane's element, of which each lane picks its own, and a
//! store is one of every lane's value in turn, handed to the first lane.
//!
//! Older ones of these drivers (lavapipe up to Mesa 23) know of few numbers that they are the same in all lanes: literals,
//! push constants (immediates), and what is computed from them; but of an array of push constants every element, as Vulkan
//! allows no other index there ("Push Constant Interface"). So `subgroup_uniform(n, most)` looks n up, digit by digit, in a table of
//! the numbers from 0 to 31.

use super::shake::items;

/// How many digits there are: as many words as any device with push constants has room for.
pub const DIGITS: usize = 32;

const TABLE: &str = "var<immediate> digits: array<u32, 32>;";

/// Whether this shader reads the table.
pub fn has_table(text: &str) -> bool {
    text.contains(TABLE)
}

/// `source` with the table behind its `subgroup_uniform`.
pub(super) fn prove(source: &str) -> Option<String> {
    let own = items(source).into_iter().find(|item| item.starts_with("fn subgroup_uniform("))?;
    Some(source.replace(
        own,
        &format!(
            "{TABLE}\n\
             fn subgroup_uniform(n: u32, most: u32) -> u32 {{\n    \
             var all = digits[n & 31u];\n    \
             if (most > 32u) {{ all += digits[(n >> 5u) & 31u] << 5u; }}\n    \
             if (most > 1024u) {{ all += digits[(n >> 10u) & 31u] << 10u; }}\n    \
             if (most > 32768u) {{ all += digits[n >> 15u] << 15u; }}\n    \
             return all;\n}}"
        ),
    ))
}

/// The function that loads what lies abreast from `first` on in the buffer `name`; `read` makes an element of words `w`.
pub(super) fn load(name: &str, element: &str, read: &str, lanes: u32) -> String {
    let all: String = (0..lanes).map(|lane| format!("    let w{lane} = {name}[first + {lane}u];\n")).collect();
    let pick = |lane| format!("    w = select(w, w{lane}, own_lane == {lane}u);\n");
    let own: String = (1..lanes).map(pick).collect();
    format!("fn {name}_abreast(first: u32) -> {element} {{\n{all}    var w = w0;\n{own}    return {read};\n}}\n")
}

/// The function that stores each lane's `v` abreast from `first` on in the buffer `name`.
pub(super) fn store(name: &str, element: &str, lanes: u32) -> String {
    let put = |lane| format!("    {name}[first + {lane}u] = subgroupBroadcast(w, {lane}u);\n");
    let all: String = (0..lanes).map(put).collect();
    format!("fn {name}_put(first: u32, v: {element}) {{\n    let w = {name}_words(v);\n{all}}}\n")
}
