//! Whether two kernels give the same results.

use super::subject::{Made, Numbers};
use shadegrad::{DType, Error, Result};

/// How close the results of two kernels are.
#[derive(Default)]
pub struct Agreement {
    /// Where they differ most.
    pub worst: Option<Worst>,
    /// Numbers that are NaN in both.
    pub nans: usize,
}

/// A number that differs, and by how much: relative to its own magnitude, or to the floor.
#[derive(Debug, PartialEq)]
pub struct Worst {
    pub buffer: String,
    pub at: usize,
    pub error: f64,
    dtype: DType,
    pub ours: f64,
    pub theirs: f64,
}

/// Numbers that nearly cancel out carry the rounding of their terms, which were as large as other results are; so errors
/// are relative to this part of the buffer's median magnitude at the least. Of 20,000 sums of 4,096 random products, added
/// up forwards and backwards, the worst then differ by 5e-5; of 16,384 products, by 1.1e-4. The median, as one huge number
/// must not hide the others.
const FLOOR: f64 = 0.03;

/// That both wrote the same, or an error that says where they did not.
pub fn compare(one: &Made, other: &Made, tolerance: f64) -> Result<Agreement> {
    let refuse = |message| Err(Error::argument("--against", message));
    let (mut agreement, mut compared) = (Agreement::default(), 0);
    for (n, bound) in one.subject.bound.iter().enumerate().filter(|(_, bound)| bound.writes) {
        let name = &bound.name;
        let Some(m) = other.subject.bound.iter().position(|b| b.name == *name && b.writes) else { continue };
        let (ours, theirs) = (one.numbers(n)?, other.numbers(m)?);
        if ours.len() != theirs.len() {
            return refuse(format!("{name} has {} numbers in one, {} in the other", ours.len(), theirs.len()));
        }
        let dtype = |numbers: &Numbers<'_>, at: usize| numbers.get(at).map(|(dtype, _)| dtype);
        if (0..ours.len()).any(|at| dtype(&ours, at) != dtype(&theirs, at)) {
            return refuse(format!("{name} holds other types in {} than in {}", one.subject.name, other.subject.name));
        }
        let pair = |at: usize| ours.get(at).zip(theirs.get(at)).map(|((dtype, a), (_, b))| (dtype, a, b));
        let found = judge(ours.len(), pair, tolerance);
        if let (Some((at, error, (dtype, a, b))), 1..) = (found.worst, found.wrong) {
            let (a, b) = (shown(dtype, a), shown(dtype, b));
            let allowed = match dtype.is_float() {
                true => format!("an error of {error:.1e}, and {tolerance:e} are allowed (--tolerance)"),
                false => "and integers have to be equal".into(),
            };
            let nans = match found.nans {
                [0, 0, _] => String::new(),
                [ours, theirs, _] => format!("; {ours} and {theirs} are NaN"),
            };
            return refuse(format!(
                "the results differ: {name}[{at}] is {a} in {} and {b} in {}, {allowed}; {} of {} numbers of {name} differ \
                 by more{nans}",
                one.subject.name,
                other.subject.name,
                found.wrong,
                ours.len()
            ));
        }
        agreement.nans += found.nans[2];
        compared += 1;
        if let Some((at, error, (dtype, ours, theirs))) = found.worst
            && error > agreement.error()
        {
            agreement.worst = Some(Worst { buffer: name.clone(), at, error, dtype, ours, theirs });
        }
    }
    match compared {
        0 => refuse("the kernels write no buffer of the same name, so there is nothing to compare".into()),
        _ => Ok(agreement),
    }
}

impl Agreement {
    /// The largest error.
    pub fn error(&self) -> f64 {
        self.worst.as_ref().map_or(0.0, |worst| worst.error)
    }
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.worst {
            None => write!(f, "the results are the same")?,
            Some(Worst { buffer, at, error, dtype, ours, theirs }) => {
                let (ours, theirs) = (shown(*dtype, *ours), shown(*dtype, *theirs));
                write!(f, "the results are the same, to {error:.1e} ({buffer}[{at}]: {ours} and {theirs})")?;
            }
        }
        match self.nans {
            0 => Ok(()),
            nans => write!(f, ", but {nans} numbers are NaN in both, which shows nothing"),
        }
    }
}

/// As many digits as its type has.
fn shown(dtype: DType, value: f64) -> String {
    if dtype.is_float() { (value as f32).to_string() } else { value.to_string() }
}

/// A type, and a number of it of each kernel.
type Pair = (DType, f64, f64);

#[derive(Debug)]
struct Judged {
    /// The place where both differ most, by how much, and what is there.
    worst: Option<(usize, f64, Pair)>,
    /// How many differ by more than is allowed.
    wrong: usize,
    /// How many are NaN in the one, in the other, and in both.
    nans: [usize; 3],
}

/// Of `count` pairs, some of which are padding.
fn judge(count: usize, pair: impl Fn(usize) -> Option<Pair>, tolerance: f64) -> Judged {
    let floor = FLOOR * median_magnitude((0..count).filter_map(&pair));
    let mut found = Judged { worst: None, wrong: 0, nans: [0; 3] };
    for (at, (dtype, a, b)) in (0..count).filter_map(|at| Some((at, pair(at)?))) {
        let error = match (a - b).abs() / a.abs().max(b.abs()).max(floor) {
            _ if a == b || (a.is_nan() && b.is_nan()) => 0.0,
            // Infinities, too, are only like themselves.
            error if dtype.is_float() && a.is_finite() && b.is_finite() => error,
            _ => f64::INFINITY,
        };
        found.wrong += usize::from(error > tolerance);
        for (count, nan) in found.nans.iter_mut().zip([a.is_nan(), b.is_nan(), a.is_nan() && b.is_nan()]) {
            *count += usize::from(nan);
        }
        if error > found.worst.map_or(0.0, |worst| worst.1) {
            found.worst = Some((at, error, (dtype, a, b)));
        }
    }
    found
}

/// Of the floats that are neither zero nor infinite, as zeros say nothing of the size of terms.
fn median_magnitude(pairs: impl Iterator<Item = Pair>) -> f64 {
    let larger = pairs.filter(|pair| pair.0.is_float()).map(|(_, a, b)| a.abs().max(b.abs()) as f32);
    let mut all: Vec<f32> = larger.filter(|value| value.is_finite() && *value > 0.0).collect();
    let middle = all.len() / 2;
    if all.is_empty() { 0.0 } else { f64::from(*all.select_nth_unstable_by(middle, f32::total_cmp).1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::cases::random;

    fn judged(ours: &[f32], theirs: &[f32]) -> (Option<(usize, f64)>, usize, [usize; 3]) {
        let pair = |at: usize| Some((DType::F32, f64::from(ours[at]), f64::from(theirs[at])));
        let Judged { worst, wrong, nans } = judge(ours.len(), pair, 1e-4);
        (worst.map(|(at, error, _)| (at, error)), wrong, nans)
    }

    #[test]
    fn sums_in_another_order_are_the_same_and_a_huge_number_hides_nothing() {
        let terms = random(2000 + 4096, 7, 2.0);
        let forwards: Vec<f32> = (0..2000).map(|n| terms[n..n + 4096].iter().sum()).collect();
        let backwards: Vec<f32> = (0..2000).map(|n| terms[n..n + 4096].iter().rev().sum()).collect();
        let (worst, wrong, _) = judged(&forwards, &backwards);
        assert!(wrong == 0 && worst.is_some(), "{worst:?}");
        let (mut huge, mut other) = (forwards, backwards);
        other[77] *= 1.001;
        (huge[3], other[3]) = (1e30, 1e30);
        let (worst, wrong, _) = judged(&huge, &other);
        assert_eq!((worst.map(|worst| worst.0), wrong), (Some(77), 1));
    }

    #[test]
    fn only_what_is_the_same_is_no_difference() {
        const BEYOND: f64 = f64::INFINITY;
        assert_eq!(judged(&[1.0, f32::NAN], &[1.0, 1.0]), (Some((1, BEYOND)), 1, [1, 0, 0]));
        assert_eq!(judged(&[1.0, f32::NAN], &[1.0, f32::NAN]), (None, 0, [1, 1, 1]));
        assert_eq!(judged(&[f32::INFINITY, 1.0], &[f32::INFINITY, 1.0]), (None, 0, [0; 3]));
        assert_eq!(judged(&[f32::INFINITY], &[3e38]).0, Some((0, BEYOND)));
        assert_eq!(judged(&[f32::INFINITY], &[f32::NEG_INFINITY]).0, Some((0, BEYOND)));
        assert_eq!(judged(&[0.0, 0.0], &[0.0, 1.0]), (Some((1, 1.0)), 1, [0; 3]));
        // Beside ones, 1e-8 and 2e-8 are rounding; the zeros do not hide the ones.
        let (mut a, mut b) = ([0.0; 9], [0.0; 9]);
        (a[1], b[1], a[2], b[2], a[3], b[3]) = (1.0, 1.0, 1e-8, 2e-8, 1.0, 1.0);
        assert_eq!(judged(&a, &b).1, 0);
        let integers = |at: usize| Some((DType::U32, 1e9, 1e9 + at as f64));
        assert_eq!(judge(2, integers, 1e-4).wrong, 1);
        assert_eq!(judge(2, |at| integers(at).filter(|_| at == 0), 1e-4).wrong, 0);
    }
}
