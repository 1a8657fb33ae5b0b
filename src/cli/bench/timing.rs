//! How a case is timed: the first call apart, a warm-up, then as many calls as fit in the budget.

use crate::cli::median;
use shadegrad::{Error, Gpu, Result, wgpu};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// When the process started.
#[derive(Clone, Copy)]
pub struct Start(Instant);

impl Start {
    /// Now, or earlier if `PEER_T0_NS` (Unix time in nanoseconds) says so.
    pub fn now() -> Start {
        let setting = std::env::var("PEER_T0_NS").ok().and_then(|text| text.parse().ok());
        let before = setting.and_then(|ns| {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
            unix.checked_sub(Duration::from_nanos(ns))
        });
        let now = Instant::now();
        Start(before.and_then(|before| now.checked_sub(before)).unwrap_or(now))
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Measuring a case for longer than this is a slip of the hand.
const LONGEST: Duration = Duration::from_secs(3600);

/// Seconds, as a number above 0 and not beyond an hour.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| !time.is_zero() && *time <= LONGEST)
        .ok_or_else(|| format!("a number of seconds above 0, {} at the most, is wanted", LONGEST.as_secs()))
}

/// Time for the timed calls of a case: the seconds of `PEER_BUDGET_S`, else 3.
pub fn budget() -> Result<Duration> {
    match std::env::var("PEER_BUDGET_S") {
        Ok(text) => seconds(&text).map_err(|why| Error::argument("PEER_BUDGET_S", format!("{text:?}: {why}"))),
        Err(_) => Ok(Duration::from_secs(3)),
    }
}

/// The times of one case, in milliseconds.
pub struct Sample {
    pub median: f64,
    pub min: f64,
    pub reps: usize,
    /// The first call.
    pub first: f64,
    /// From the start of the process - without the cases before this one - to the first result.
    pub cold: f64,
    /// What the second call gave.
    pub check: f64,
}

/// Calls that are timed at most.
const MOST: usize = 300;
/// A case whose call takes longer than this is content with three calls instead of five.
const SLOW: Duration = Duration::from_secs(5);

/// Times `call`, which waits for its result, and gives a check value if asked. `cold` tells the time since the start.
pub fn measure(
    mut call: impl FnMut(bool) -> Result<f64>,
    cold: impl FnOnce() -> Duration,
    budget: Duration,
) -> Result<Sample> {
    let mut timed = |check| {
        let start = Instant::now();
        call(check).map(|value| (start.elapsed(), value))
    };
    let (first, _) = timed(false)?;
    let cold = cold();
    let (_, check) = timed(true)?;
    let warm = Instant::now();
    let mut calls = 0;
    let last = loop {
        let (time, _) = timed(false)?;
        calls += 1;
        let spent = warm.elapsed();
        if spent > budget || (calls >= 3 && spent > budget / 6) {
            break time;
        }
    };
    let fewest = if last > SLOW { 3 } else { 5 };
    let reps = (budget.as_secs_f64() / last.as_secs_f64().max(1e-6)) as usize;
    let mut times = Vec::new();
    for _ in 0..reps.clamp(fewest, MOST) {
        times.push(milliseconds(timed(false)?.0));
    }
    let (median, reps) = (median(&mut times), times.len());
    Ok(Sample { median, min: times[0], reps, first: milliseconds(first), cold: milliseconds(cold), check })
}

/// The device's times of one run, in microseconds.
pub struct Times {
    pub median: f64,
    pub min: f64,
    /// From the first to the third quartile, as a part of the median.
    pub spread: f64,
    /// Batches that were timed.
    pub reps: usize,
}

/// How many sets of buffers to rotate over, of which one holds this many bytes, so that caches do not flatter.
pub fn sets(bytes: f64) -> usize {
    (64e6 / bytes.max(1.0)).ceil().clamp(1.0, 4.0) as usize
}

/// Runs are timed in batches that take at least so long, of so many runs at the most.
const BATCH: Duration = Duration::from_millis(2);
const RUNS: usize = 200;

/// Times what `record` records, on the device, until the budget is spent and at least five times.
pub fn on_device(gpu: &Gpu, budget: Duration, mut record: impl FnMut(&mut wgpu::CommandEncoder)) -> Result<Times> {
    let mut times = on_device_in_turn(gpu, budget, 1, |_, encoder| record(encoder))?;
    times.pop().ok_or_else(|| Error::argument("bench", "nothing was timed"))
}

/// The same for `count` kinds of work, of which `record` records one run of the n-th; they are timed in turn, so that
/// what the machine does meanwhile meets all of them.
pub fn on_device_in_turn(
    gpu: &Gpu,
    budget: Duration,
    count: usize,
    mut record: impl FnMut(usize, &mut wgpu::CommandEncoder),
) -> Result<Vec<Times>> {
    let mut batch = |n: usize, runs: usize| {
        Ok(gpu.time(gpu.clock(), |encoder| (0..runs).for_each(|_| record(n, encoder)))? / runs as f64)
    };
    let mut runs = Vec::new();
    for n in 0..count {
        let single = f64::min(batch(n, 1)?, batch(n, 1)?).max(1e-9);
        runs.push(((BATCH.as_secs_f64() / single).ceil() as usize).clamp(1, RUNS));
    }
    let start = Instant::now();
    let mut times = vec![Vec::new(); count];
    let mut rounds = 0;
    while rounds < 5 || (start.elapsed() < budget.saturating_mul(count as u32) && rounds < 1000) {
        for (n, times) in times.iter_mut().enumerate() {
            times.push(batch(n, runs[n])? * 1e6);
        }
        rounds += 1;
    }
    Ok(times.into_iter().map(Times::of).collect())
}

impl Times {
    /// Of these single times.
    fn of(mut times: Vec<f64>) -> Times {
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times[(times.len() - 1) * part / 4];
        Times { median: at(2), min: at(0), spread: (at(3) - at(1)) / at(2).max(1e-9), reps: times.len() }
    }
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_call_is_checked_and_few_calls_are_enough() {
        let mut calls = 0;
        let call = |check| {
            calls += 1;
            Ok(if check { f64::from(calls) } else { 0.0 })
        };
        let sample = measure(call, || Duration::from_millis(7), Duration::ZERO).unwrap();
        assert_eq!((sample.check, sample.reps, sample.cold), (2.0, 5, 7.0));
        assert!(sample.min <= sample.median);
        assert_eq!(calls, 3 + 5);
    }

    #[test]
    fn the_spread_is_that_of_the_middle_half() {
        let times = Times::of(vec![9.0, 1.0, 2.0, 3.0, 100.0]);
        assert_eq!((times.median, times.min, times.reps), (3.0, 1.0, 5));
        assert!((times.spread - 7.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn seconds_are_more_than_none_and_an_hour_at_the_most() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("3600"), Ok(LONGEST));
        for wrong in ["0", "-1", "nan", "inf", "1e18", "3601", "soon", ""] {
            assert!(seconds(wrong).unwrap_err().contains("3600 at the most"), "{wrong}");
        }
    }

    #[test]
    fn an_error_ends_the_measurement() {
        let failed = measure(|_| Err(Error::argument("case", "no")), || Duration::ZERO, Duration::ZERO);
        assert!(failed.is_err());
    }
}
