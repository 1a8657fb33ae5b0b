//! Choices as text.

use crate::graph::choose::{Choice, Choices, Trial};
use crate::{Error, Result};
use serde_json::{Map, Value, json};

impl Choices {
    /// As JSON: work to winner, fingerprint and trials.
    pub fn to_json(&self) -> String {
        format!("{:#}", self.to_value())
    }

    /// From [`Choices::to_json`]'s text.
    ///
    /// # Errors
    /// [`Error::Argument`] for text that is something else; it says what.
    pub fn from_json(text: &str) -> Result<Choices> {
        let wrong = |message: String| Error::argument("choices", message);
        let value = serde_json::from_str(text).map_err(|e| wrong(format!("this is no JSON: {e}")))?;
        match Choices::from_value(&value) {
            (choices, None) => Ok(choices),
            (_, Some(complaint)) => Err(wrong(complaint)),
        }
    }

    pub(super) fn to_value(&self) -> Value {
        let choice = |choice: &Choice| {
            let trials: Vec<Value> = choice.trials.iter().map(trial).collect();
            // Beyond 2^53 not every reader of JSON keeps a number.
            let fingerprint = format!("{:016x}", choice.fingerprint);
            json!({ "candidate": choice.candidate, "fingerprint": fingerprint, "trials": trials })
        };
        Value::Object(self.0.iter().map(|(work, chosen)| (work.clone(), choice(chosen))).collect::<Map<_, _>>())
    }

    /// The choices that can be read, and what is wrong with the first other one.
    pub(super) fn from_value(value: &Value) -> (Choices, Option<String>) {
        let mut choices = Choices::default();
        let Some(works) = value.as_object() else { return (choices, Some("an object of choices is missing".into())) };
        let mut unreadable = None;
        for (work, value) in works {
            match choice(value) {
                Some(choice) => drop(choices.0.insert(work.clone(), choice)),
                None => {
                    unreadable =
                        unreadable.or_else(|| Some(format!("the choice for {work:?} is incomplete or has no times")))
                }
            }
        }
        (choices, unreadable)
    }
}

fn trial(trial: &Trial) -> Value {
    let Trial { candidate, microseconds, rounds, remark } = trial;
    json!({ "candidate": candidate, "us": microseconds, "rounds": rounds, "remark": remark })
}

fn choice(value: &Value) -> Option<Choice> {
    let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
    let trial = |value: &Value| {
        let microseconds = value.get("us")?;
        let time = |value: &Value| value.as_f64().filter(|time| time.is_finite() && *time > 0.0);
        let microseconds = if microseconds.is_null() { None } else { Some(time(microseconds)?) };
        let rounds = value.get("rounds")?.as_u64()? as usize;
        Some(Trial { candidate: text(value, "candidate")?, microseconds, rounds, remark: text(value, "remark")? })
    };
    let choice = Choice {
        candidate: text(value, "candidate")?,
        fingerprint: u64::from_str_radix(&text(value, "fingerprint")?, 16).ok()?,
        trials: value.get("trials")?.as_array()?.iter().map(trial).collect::<Option<_>>()?,
    };
    let won = choice.trials.iter().any(|trial| trial.candidate == choice.candidate && trial.microseconds.is_some());
    won.then_some(choice)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn example() -> Choices {
        let trial = |candidate: &str, microseconds, remark: &str| Trial {
            candidate: candidate.into(),
            microseconds,
            rounds: usize::from(microseconds.is_some()),
            remark: remark.into(),
        };
        let choice = Choice {
            candidate: "tile".into(),
            fingerprint: u64::MAX - 1,
            trials: vec![trial("block", None, "its element 7 is \"1\""), trial("tile", Some(12.25), "")],
        };
        Choices([("matmul f32[2, 3]".to_string(), choice)].into())
    }

    #[test]
    fn text_and_choices_are_the_same() {
        assert_eq!(Choices::from_json(&example().to_json()).unwrap(), example());
        assert_eq!(Choices::from_json(&Choices::default().to_json()).unwrap(), Choices::default());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let message = |text: &str| Choices::from_json(text).unwrap_err().to_string();
        assert!(message("{").contains("no JSON"));
        assert!(message("[]").contains("an object of choices is missing"));
        assert!(message(r#"{"matmul": {"candidate": "a"}}"#).contains(r#"the choice for "matmul" is incomplete"#));
        let text = example().to_json();
        for (part, wrong) in [("12.25", "0"), ("12.25", "-1"), ("12.25", "\"1\""), ("\"tile\"", "\"other\"")] {
            assert!(text.contains(part) && message(&text.replacen(part, wrong, 1)).contains("has no times"), "{wrong}");
        }
    }
}
