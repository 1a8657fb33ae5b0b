//! The abreast pass: a subgroup's lanes load and store together.
//!
//! Mesa's lavapipe loads and stores lane by lane, with tests for each lane. Where it can tell that an address is the same in
//! a whole subgroup, and that all lanes are active, it loads once for all of them, and stores what the first lane has. So,
//! on that driver ([`Caps::abreast`](super::Caps::abreast)), `name[abreast(place)]`, where `place` differs between lanes by
//! their number `own_lane`, becomes a load of all lanes' elements, of which each lane picks its own, and a store puts down
//! every lane's value in turn, handed to the first lane.
//!
//! Up to Mesa 23 it knows of few numbers that they are the same in all lanes: literals, push constants (immediates), and
//! what is computed from these; but of arrays of push constants every element (`nir_src_is_always_uniform`), as Vulkan asks
//! for indices there that do not differ. So `subgroup_uniform(n, most)` looks n up, digit by digit, in a table of the
//! numbers from 0 to 31. There n may differ between a workgroup's subgroups, which is more than Vulkan allows and right on
//! this driver, whose shaders run subgroup by subgroup.

use super::shake::{identifiers, items};
use super::wide::matching;

/// How many digits there are: as many words as any device with push constants has room for.
pub const DIGITS: usize = 32;

/// What `most` is at the most.
pub const MOST_UNIFORM: u32 = 1 << 25;

const OWN: &str = "own_lane";

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
             if (most > 32768u) {{ all += digits[(n >> 15u) & 31u] << 15u; }}\n    \
             if (most > 1048576u) {{ all += digits[n >> 20u] << 20u; }}\n    \
             return all;\n}}"
        ),
    ))
}

/// The function that loads the lanes' elements of the buffer `name`; `read` makes an element of words `w`.
pub(super) fn load(name: &str, element: &str, read: &str, lanes: u32) -> String {
    let all: String = (0..lanes).map(|lane| format!("    let w{lane} = {name}[p{lane}];\n")).collect();
    let pick = |lane| format!("    w = select(w, w{lane}, own_lane == {lane}u);\n");
    let own: String = (1..lanes).map(pick).collect();
    let places = each(lanes, |lane| format!("p{lane}: u32"));
    format!("fn {name}_abreast({places}) -> {element} {{\n{all}    var w = w0;\n{own}    return {read};\n}}\n")
}

/// The function that stores the lanes' values `v` in the buffer `name`.
pub(super) fn store(name: &str, element: &str, lanes: u32) -> String {
    let put = |lane| format!("    {name}[p{lane}] = subgroupBroadcast(w, {lane}u);\n");
    let all: String = (0..lanes).map(put).collect();
    let places = each(lanes, |lane| format!("p{lane}: u32"));
    format!("fn {name}_put({places}, v: {element}) {{\n    let w = {name}_words(v);\n{all}}}\n")
}

/// What the functions of `load` and `store` are given where an index is `abreast(place)`: the places of all lanes.
pub(super) fn places(index: &str, lanes: u32) -> Option<String> {
    let inner = index.strip_prefix("abreast")?;
    let place = (matching(inner)? + 1 == inner.len()).then(|| &inner[1..inner.len() - 1])?;
    let own: Vec<usize> = identifiers(place).filter(|(_, word)| *word == OWN).map(|(at, _)| at).collect();
    Some(each(lanes, |lane| {
        let mut text = place.to_string();
        own.iter().rev().for_each(|&at| text.replace_range(at..at + OWN.len(), &format!("{lane}u")));
        text
    }))
}

fn each(lanes: u32, of: impl Fn(u32) -> String) -> String {
    (0..lanes).map(of).collect::<Vec<_>>().join(", ")
}
