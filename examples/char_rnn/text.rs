//! The text: read from a file, or made up from a small grammar.

use shadegrad::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Characters and their numbers.
pub struct Alphabet(Vec<char>);

impl Alphabet {
    /// The characters that occur in a text, in their order.
    pub fn of(text: &str) -> Alphabet {
        Alphabet(text.chars().collect::<BTreeSet<char>>().into_iter().collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// As a string, for a checkpoint.
    pub fn text(&self) -> String {
        self.0.iter().collect()
    }

    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let number = |c: char| {
            let unknown = || Error::argument("text", format!("the model has never seen {c:?}"));
            self.0.binary_search(&c).map(|n| n as u32).map_err(|_| unknown())
        };
        text.chars().map(number).collect()
    }

    pub fn decode(&self, tokens: &[u32]) -> String {
        tokens.iter().filter_map(|&token| self.0.get(token as usize)).collect()
    }
}

/// The file's text; without one, a text made up from a grammar.
pub fn load(path: Option<&Path>, seed: u64) -> Result<String> {
    match path {
        Some(path) => std::fs::read_to_string(path).map_err(|error| Error::io(path, error)),
        None => Ok(Grammar(fastrand::Rng::with_seed(seed)).text(300_000)),
    }
}

/// Small stories: sentences that agree in number and tense, with quotations and relative clauses.
struct Grammar(fastrand::Rng);

impl Grammar {
    fn text(&mut self, length: usize) -> String {
        let mut text = String::new();
        while text.len() < length {
            for _ in 0..self.0.usize(2..6) {
                text += &capital(&self.sentence());
                text.push(' ');
            }
            text.pop();
            text += "\n\n";
        }
        text
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.0.usize(..from.len())]
    }

    fn sentence(&mut self) -> String {
        let (subject, many) = self.subject(2);
        let rest = self.predicate(many);
        match self.0.u8(..6) {
            0 => format!("\"{} {rest},\" said the {}.", capital(&subject), self.pick(&["king", "miller", "old woman"])),
            1 => format!("{}, {subject} {rest}.", self.pick(&["in the morning", "every winter", "far away"])),
            2 => format!("if {subject} {rest}, then {}", self.sentence()),
            _ => format!("{subject} {rest}."),
        }
    }

    /// A noun phrase, and whether it is plural.
    fn subject(&mut self, depth: usize) -> (String, bool) {
        let (one, several) = [
            ("fox", "foxes"),
            ("miller", "millers"),
            ("child", "children"),
            ("river", "rivers"),
            ("goose", "geese"),
            ("stone", "stones"),
        ][self.0.usize(..6)];
        let many = self.0.bool();
        let which = self.pick(if many { &["the", "three", "some"] } else { &["the", "a", "every"] });
        let adjective = self.pick(&["", "", "small ", "grey ", "hungry ", "clever "]);
        let mut phrase = format!("{which} {adjective}{}", if many { several } else { one });
        if depth > 0 && self.0.u8(..4) == 0 {
            let (other, others) = self.subject(depth - 1);
            phrase += &format!(" that {other} {}", verb("see", others));
        }
        (phrase, many)
    }

    fn predicate(&mut self, many: bool) -> String {
        let action = self.pick(&["sleep", "wait", "sing", "wander"]);
        match self.0.u8(..3) {
            0 => format!("{} {}", verb(action, many), self.pick(&["by the well", "in the wood", "under the bridge"])),
            1 => {
                let told = self.pick(&["follow", "love", "fear"]);
                format!("{} {}", verb(told, many), self.subject(1).0)
            }
            _ => format!("{} not {action}", if many { "do" } else { "does" }),
        }
    }
}

fn verb(stem: &str, many: bool) -> String {
    format!("{stem}{}", if many { "" } else { "s" })
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
}
