//! How busy other programs keep the machine, where the system tells (`/proc`).

use std::time::Duration;

/// Long enough for the system's clock, which counts hundredths of a second on each processor.
const GLANCE: Duration = Duration::from_millis(250);
/// A share of the machine's processors with which others disturb measurements.
const BUSY: f64 = 0.2;

/// The share of the machine's processors that other programs are using now, if it is large enough to disturb
/// measurements. Watches for a quarter of a second.
pub fn busy() -> Option<f64> {
    let watch = Watch::start()?;
    std::thread::sleep(GLANCE);
    watch.busy()
}

/// Ticks of the system's clock, of all processors together.
pub(super) struct Watch {
    total: u64,
    /// In which programs ran, this one aside.
    others: u64,
}

impl Watch {
    /// Nothing where the system does not tell.
    pub fn start() -> Option<Watch> {
        let read = |path| std::fs::read_to_string(path).ok();
        Watch::of(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    fn of(system: &str, own: &str) -> Option<Watch> {
        // user, nice, system, idle, waiting for disks, interrupts (two kinds), taken by other machines; see proc(5).
        let ticks = system.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let ticks = ticks.map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let total: u64 = ticks.iter().sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        // The program's name, in parentheses, may hold anything; user and system are the 12th and 13th after it.
        let own = own.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
        let own = own.map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
        Some(Watch { total, others: (total - idle).saturating_sub(own.iter().sum()) })
    }

    /// The share that others have had since the start, if it disturbs.
    pub fn busy(&self) -> Option<f64> {
        self.until(&Watch::start()?).filter(|share| *share > BUSY)
    }

    fn until(&self, now: &Watch) -> Option<f64> {
        let total = now.total.checked_sub(self.total).filter(|ticks| *ticks > 0)?;
        Some(now.others.saturating_sub(self.others) as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_use_is_told_from_what_this_program_uses() {
        let own = |user: u64, system: u64| format!("7 (a ) b) R 1 7 7 0 -1 0 10 0 0 0 {user} {system} 5 5 20 0 4 0 99");
        let before = Watch::of("cpu  100 0 20 800 10 0 5 5 0 0\ncpu0 1 2 3\n", &own(50, 10)).unwrap();
        let after = Watch::of("cpu  160 0 40 890 20 5 10 15 0 0\ncpu0 1 2 3\n", &own(90, 20)).unwrap();
        // Of 200 ticks 100 were idle or waiting and 50 this program's.
        assert_eq!(before.until(&after), Some(0.25));
        assert_eq!(before.until(&before), None);
        assert!(Watch::of("cpu 1 2", &own(1, 1)).is_none() && Watch::of("", "").is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells() {
        let (watch, start) = (Watch::start().unwrap(), std::time::Instant::now());
        while start.elapsed() < Duration::from_millis(100) {}
        assert!((0.0..=1.0).contains(&watch.until(&Watch::start().unwrap()).unwrap()));
    }
}
