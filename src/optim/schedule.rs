//! Learning-rate schedules: by what to multiply the base rate at each step.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// What the errors about a schedule's text call it.
const WHAT: &str = "schedule";
const FORMS: &str = "known are `constant`, `step:EVERY:GAMMA`, `cosine`, `cosine:TOTAL`, `cosine:TOTAL:MIN`, \
    each also after `warmup:STEPS+`";

/// A learning-rate schedule: the factor of the base rate at each optimizer step, steps counted from 0.
///
/// The formulas are PyTorch's (<https://pytorch.org/docs/stable/optim.html>), in closed form and as factors of the base
/// rate, so that one schedule serves parameter groups of different rates, and a resumed run needs nothing but its step.
///
/// ```
/// # fn main() -> shadegrad::Result<()> {
/// use shadegrad::optim::Schedule;
///
/// let schedule = Schedule::cosine(95, 0.0).warmup(5);
/// assert_eq!(schedule.at(0), 0.2);
/// assert_eq!(schedule.at(4), 1.0);
/// assert_eq!(schedule.at(100), 0.0);
/// assert_eq!(schedule.to_string(), "warmup:5+cosine:95:0");
///
/// // From text, for instance of a command line; here the cosine takes what the warm-up leaves of 2,000 steps.
/// let schedule = Schedule::parse("warmup:500+cosine", 2_000)?;
/// assert_eq!((schedule.at(1_250), schedule.to_string().as_str()), (0.5, "warmup:500+cosine"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Steps of warm-up before `shape` begins; 0 for none.
    warmup: u64,
    shape: Shape,
}

/// The course after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Constant,
    Step {
        every: u64,
        gamma: f64,
    },
    Cosine {
        total: u64,
        /// Whether `total` was not given but is the rest of the run: then it is not printed.
        rest: bool,
        /// `None` where it was not given, for 0: then it is not printed.
        min: Option<f64>,
    },
}

impl Schedule {
    /// The base rate throughout.
    pub const fn constant() -> Self {
        Self { warmup: 0, shape: Shape::Constant }
    }

    /// The rate times `gamma` after each `every` steps: `gamma^floor(t / every)`, PyTorch's `StepLR(step_size=every,
    /// gamma=gamma)`. With `every` 0 the rate never changes.
    pub const fn step(every: u64, gamma: f64) -> Self {
        Self { warmup: 0, shape: Shape::Step { every, gamma } }
    }

    /// Half a cosine wave, from the base rate at step 0 to `min` times the base rate at step `total`, and that from there
    /// on: `min + (1 - min) (1 + cos(pi t / total)) / 2`, PyTorch's `CosineAnnealingLR(T_max=total, eta_min=min * lr)`,
    /// which would rise again after `T_max`.
    pub const fn cosine(total: u64, min: f64) -> Self {
        Self { warmup: 0, shape: Shape::Cosine { total, rest: false, min: Some(min) } }
    }

    /// This schedule after `steps` steps of linear warm-up, in place of one that it may already have: the factor is
    /// `(t + 1) / steps` for `t < steps`, then the schedule runs from its step 0.
    ///
    /// That is PyTorch's `LinearLR(start_factor=1/steps, total_iters=steps-1)` and this schedule in a `SequentialLR` with
    /// milestone `steps`. The first step has a rate above 0, the last of the warm-up has the base rate.
    pub const fn warmup(self, steps: u64) -> Self {
        Self { warmup: steps, shape: self.shape }
    }

    /// The factor of the base rate at optimizer step `step`, counted from 0. Computed in `f64`.
    pub fn at(&self, step: u64) -> f32 {
        self.factor(step) as f32
    }

    fn factor(&self, step: u64) -> f64 {
        let Some(t) = step.checked_sub(self.warmup) else {
            return (step + 1) as f64 / self.warmup as f64;
        };
        match self.shape {
            Shape::Constant => 1.0,
            Shape::Step { every, gamma } => gamma.powf(t.checked_div(every).unwrap_or(0) as f64),
            Shape::Cosine { total, min, .. } => {
                let min = min.unwrap_or(0.0);
                if t < total { min + (1.0 - min) * (1.0 + (PI * t as f64 / total as f64).cos()) / 2.0 } else { min }
            }
        }
    }

    /// Reads a schedule for a run of `steps` optimizer steps:
    ///
    /// | text | schedule |
    /// |---|---|
    /// | `constant` | [`Schedule::constant`] |
    /// | `step:1000:0.5` | [`Schedule::step`], half the rate every 1,000 steps |
    /// | `cosine` | [`Schedule::cosine`] to 0 at the run's end |
    /// | `cosine:20000` | to 0 at step 20,000 |
    /// | `cosine:20000:0.1` | to a tenth of the rate at step 20,000 |
    /// | `cosine::0.1` | to a tenth of the rate at the run's end |
    /// | `warmup:500+cosine` | any of these after [`Schedule::warmup`] |
    /// | `warmup:500` | `constant` after warm-up |
    ///
    /// A schedule prints as such a text, and reads back as itself for a run of the same length.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the part that is not understood or out of range.
    pub fn parse(text: &str, steps: u64) -> Result<Self> {
        Self::read(text, Some(steps))
    }

    fn read(text: &str, steps: Option<u64>) -> Result<Self> {
        let fail = |message: String| Error::argument(WHAT, format!("in {text:?}: {message}"));
        let text_parts: Vec<&str> = text.trim().split('+').map(str::trim).collect();
        let (warmup, rest) = match text_parts[..] {
            [first, ref rest @ ..] => match first.strip_prefix("warmup:") {
                Some(count) => (positive(count, "the warm-up's number of steps").map_err(fail)?, rest),
                None => (0, &text_parts[..]),
            },
            [] => (0, &text_parts[..]),
        };
        let shape = match *rest {
            [] => "constant",
            [shape] => shape,
            _ => return Err(fail(format!("more than one schedule after another; {FORMS}"))),
        };
        let shape = match shape.split(':').collect::<Vec<_>>()[..] {
            ["constant"] => Shape::Constant,
            ["step", every, gamma] => Shape::Step {
                every: positive(every, "EVERY").map_err(fail)?,
                gamma: number(gamma, "GAMMA", f64::INFINITY).map_err(fail)?,
            },
            ["cosine", ref options @ ..] if options.len() <= 2 => {
                let given = options.first().filter(|total| !total.is_empty());
                let total = match (given, steps) {
                    (Some(total), _) => positive(total, "TOTAL").map_err(fail)?,
                    (None, Some(steps)) => steps.checked_sub(warmup).filter(|&n| n > 0).ok_or_else(|| {
                        fail(format!("the run of {steps} steps leaves none for the cosine after {warmup} of warm-up"))
                    })?,
                    (None, None) => {
                        return Err(fail("the cosine's length is not known here; write `cosine:TOTAL`".into()));
                    }
                };
                let min = options.get(1).map(|min| number(min, "MIN", 1.0)).transpose().map_err(fail)?;
                Shape::Cosine { total, rest: given.is_none(), min }
            }
            _ => return Err(fail(format!("{shape:?} is not a schedule; {FORMS}"))),
        };
        Ok(Self { warmup, shape })
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self::constant()
    }
}

/// As [`Schedule::parse`], for where the run's length is not known: then `cosine` needs its `TOTAL`.
impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::read(text, None)
    }
}

/// The text that [`Schedule::parse`] reads.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.warmup {
            0 => {}
            n if self.shape == Shape::Constant => return write!(f, "warmup:{n}"),
            n => write!(f, "warmup:{n}+")?,
        }
        match self.shape {
            Shape::Constant => f.write_str("constant"),
            Shape::Step { every, gamma } => write!(f, "step:{every}:{gamma}"),
            Shape::Cosine { total, rest, min } => {
                f.write_str("cosine")?;
                match (rest, min) {
                    (true, None) => Ok(()),
                    (true, Some(min)) => write!(f, "::{min}"),
                    (false, None) => write!(f, ":{total}"),
                    (false, Some(min)) => write!(f, ":{total}:{min}"),
                }
            }
        }
    }
}

fn positive(text: &str, what: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|&n: &u64| n > 0);
    count.ok_or_else(|| format!("{what} is {text:?}, but must be a whole number above 0"))
}

fn number(text: &str, what: &str, most: f64) -> Result<f64, String> {
    let value = text.parse().ok().filter(|v: &f64| v.is_finite() && (0.0..=most).contains(v));
    value.ok_or_else(|| match most {
        f64::INFINITY => format!("{what} is {text:?}, but must be a number of at least 0"),
        _ => format!("{what} is {text:?}, but must be a number from 0 to {most}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates of 20 steps as PyTorch's schedulers give them, to `f32`'s precision.
    fn same_rates(schedule: Schedule, base: f64, torch: [f64; 20]) {
        for (t, expected) in torch.into_iter().enumerate() {
            let rate = base * schedule.factor(t as u64);
            assert!((rate - expected).abs() <= 1e-7 * expected, "{schedule} step {t}: {rate}, PyTorch {expected}");
        }
    }

    #[test]
    fn cosine_is_torchs() {
        #[rustfmt::skip]
        let torch = [
            0.02, 0.019883038476109505, 0.019535036757588387, 0.018964562565088272, 0.018185662105679512,
            0.017217515036463737, 0.016083959490060806, 0.014812909997999668, 0.013435661792755127,
            0.011986127123236656, 0.0105, 0.009013872593641281, 0.007564338389784098, 0.0061870901845395565,
            0.004916040226817131, 0.0037824856117367744, 0.002814338542521, 0.00203543808311224,
            0.0014649630757048726, 0.0011169607751071453,
        ];
        // lr 0.02, T_max 20, eta_min 0.001
        same_rates(Schedule::cosine(20, 0.05), 0.02, torch);
    }

    #[test]
    fn step_is_torchs() {
        let torch = std::array::from_fn(|t| [0.1, 0.05, 0.025, 0.0125][t / 6]);
        // lr 0.1, step_size 6, gamma 0.5
        same_rates(Schedule::step(6, 0.5), 0.1, torch);
    }

    #[test]
    fn warmup_then_cosine_is_torchs() {
        #[rustfmt::skip]
        let torch = [
            0.002, 0.004, 0.006, 0.008, 0.01, 0.01, 0.009890737943351269, 0.009567727334797382, 0.009045084938406944,
            0.008345653302967548, 0.0075, 0.006545084994286299, 0.005522642284631729, 0.004477357491850853,
            0.003454915015026927, 0.0025, 0.001654346939176321, 0.0009549150126986206, 0.00043227270361967385,
            0.00010926199320238084,
        ];
        // lr 0.01, 5 steps of warm-up, 20 in all
        same_rates(Schedule::cosine(15, 0.0).warmup(5), 0.01, torch);
        same_rates(Schedule::parse("warmup:5+cosine", 20).unwrap(), 0.01, torch);
    }

    #[test]
    fn ends_and_extremes() {
        assert_eq!(Schedule::constant().at(u64::MAX), 1.0);
        assert_eq!(Schedule::default(), Schedule::constant());
        assert_eq!((Schedule::step(0, 0.5).at(9), Schedule::step(1, 0.5).at(u64::MAX)), (1.0, 0.0));
        let cosine = Schedule::cosine(10, 0.25);
        assert_eq!((cosine.at(0), cosine.at(10), cosine.at(u64::MAX)), (1.0, 0.25, 0.25));
        assert_eq!(Schedule::cosine(0, 0.5).at(0), 0.5);
        let slow = Schedule::constant().warmup(u64::MAX);
        assert!(slow.at(0) > 0.0 && slow.at(u64::MAX) == 1.0);
        assert_eq!(Schedule::constant().warmup(1).at(0), 1.0);
    }

    #[test]
    fn text_round_trips() {
        for text in [
            "constant",
            "step:1000:0.5",
            "cosine",
            "cosine:20000",
            "cosine:20000:0.1",
            "cosine::0.1",
            "warmup:500",
            "warmup:500+cosine",
            "warmup:500+step:30:0.1",
            "warmup:1+cosine:7:0",
        ] {
            let schedule = Schedule::parse(text, 1_000).unwrap();
            assert_eq!(schedule.to_string(), text);
            assert_eq!(Schedule::parse(&schedule.to_string(), 1_000).unwrap(), schedule);
        }
        assert_eq!(Schedule::parse(" warmup:5 + constant ", 9).unwrap().to_string(), "warmup:5");
        assert_eq!("cosine:9:0.5".parse::<Schedule>().unwrap(), Schedule::cosine(9, 0.5));
    }

    #[test]
    fn errors_name_the_part() {
        for (text, words) in [
            ("", "\"\" is not a schedule; known are"),
            ("linear", "\"linear\" is not a schedule"),
            ("step:10", "\"step:10\" is not a schedule"),
            ("step:0:0.5", "EVERY is \"0\""),
            ("step:1.5:0.5", "EVERY is \"1.5\""),
            ("step:10:-1", "GAMMA is \"-1\", but must be a number of at least 0"),
            ("step:10:nan", "GAMMA is \"nan\""),
            ("cosine:10:2", "MIN is \"2\", but must be a number from 0 to 1"),
            ("cosine:1:0:0", "is not a schedule"),
            ("warmup:x+cosine", "the warm-up's number of steps is \"x\""),
            ("warmup:0", "is \"0\", but must be a whole number above 0"),
            ("warmup:100+cosine", "the run of 100 steps leaves none for the cosine after 100 of warm-up"),
            ("warmup:5+warmup:5", "\"warmup:5\" is not a schedule"),
            ("cosine+constant", "more than one schedule"),
            ("warmup:5+", "\"\" is not a schedule"),
        ] {
            let message = Schedule::parse(text, 100).unwrap_err().to_string();
            assert!(message.starts_with(&format!("schedule: in {text:?}: ")) && message.contains(words), "{message}");
        }
        assert!("cosine".parse::<Schedule>().unwrap_err().to_string().contains("write `cosine:TOTAL`"));
    }
}
