//! Where a program's time goes: the time of each of its dispatches.

use super::program::{Dispatch, record};
use super::{Clock, Program};
use crate::{Error, Result};
use std::fmt;
use std::time::Instant;

/// Runs that are timed; of each dispatch the median counts.
const REPEATS: usize = 7;
/// Queries that every device can hold in one set.
const QUERIES: usize = 4096;

/// One dispatch and its time.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The nodes it computes.
    pub node: String,
    /// File and entry point of its kernel.
    pub kernel: String,
    /// Its workgroups.
    pub grid: [u32; 3],
    /// Floating-point operations; those of a node of several dispatches stand at its first.
    pub flops: u64,
    /// Bytes read and written, each binding counted once.
    pub bytes: usize,
    /// Microseconds, the median of several runs.
    pub microseconds: f64,
}

/// The time of each dispatch of a program, in their order; prints as a table. See [`Program::profile`].
#[derive(Clone, Debug)]
pub struct Profile {
    /// Which clock was used.
    pub clock: Clock,
    /// The dispatches.
    pub timings: Vec<Timing>,
}

impl Profile {
    /// Microseconds of all dispatches together.
    pub fn total(&self) -> f64 {
        self.timings.iter().map(|timing| timing.microseconds).sum()
    }
}

impl Program {
    /// Runs the program several times and measures each dispatch: by the device's timestamps where it has them and
    /// they fit into the time that passed, else by the host's clock. Updates of parameters take place in every run.
    ///
    /// ```no_run
    /// # fn example(program: &shadegrad::Program) -> shadegrad::Result<()> {
    /// println!("{}", program.profile()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// An input that was never written; what the device reports.
    pub fn profile(&self) -> Result<Profile> {
        if self.gpu().clock() == Clock::Device {
            let start = Instant::now();
            let profile = self.profile_by(Clock::Device)?;
            let (sum, passed) = (profile.total() * REPEATS as f64, start.elapsed().as_secs_f64() * 1e6);
            if sum > 0.0 && sum <= passed {
                return Ok(profile);
            }
            log::warn!("the device's timestamps add up to {sum:.0} us in {passed:.0} us, so they are not used");
        }
        self.profile_by(Clock::Host)
    }

    /// [`Program::profile`] by a certain clock.
    ///
    /// # Errors
    /// As for [`Program::profile`]; the device's timestamps were asked for, and it has none.
    pub fn profile_by(&self, clock: Clock) -> Result<Profile> {
        if clock == Clock::Device && !self.gpu().stamps() {
            return Err(Error::argument("profile", "this device was opened without timestamp queries"));
        }
        self.run()?;
        self.gpu().wait()?;
        let mut times = vec![Vec::new(); self.dispatches.len()];
        for _ in 0..REPEATS {
            let run = match clock {
                Clock::Device => self.by_device()?,
                Clock::Host => self.by_host()?,
            };
            times.iter_mut().zip(run).for_each(|(all, time)| all.push(time));
        }
        let timings = self.plan().steps.iter().zip(times).map(|(step, mut times)| {
            times.sort_by(f64::total_cmp);
            Timing {
                node: step.label.clone(),
                kernel: format!("{}:{}", step.kernel.shader.name.trim_end_matches(".wgsl"), step.kernel.entry),
                grid: step.kernel.grid,
                flops: step.flops,
                bytes: step.bytes,
                microseconds: times[REPEATS / 2],
            }
        });
        Ok(Profile { clock, timings: timings.collect() })
    }

    /// One run with a pass per dispatch and a timestamp at each end of it.
    fn by_device(&self) -> Result<Vec<f64>> {
        let gpu = self.gpu();
        let period = f64::from(gpu.queue().get_timestamp_period()) / 1e3;
        let mut times = Vec::new();
        for dispatches in self.dispatches.chunks(QUERIES / 2) {
            let bytes = dispatches.len() * 16;
            let stamps = gpu.guarded("timing dispatches", || {
                let device = gpu.device();
                let query_set = device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("profile"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2 * dispatches.len() as u32,
                });
                let stamps = device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("profile"),
                    size: bytes as u64,
                    usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: false,
                });
                let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                for (dispatch, first) in dispatches.iter().zip((0..).step_by(2)) {
                    dispatch.prepare(&mut encoder);
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                        label: None,
                        timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                            query_set: &query_set,
                            beginning_of_pass_write_index: Some(first),
                            end_of_pass_write_index: Some(first + 1),
                        }),
                    });
                    dispatch.record(&mut pass);
                }
                encoder.resolve_query_set(&query_set, 0..2 * dispatches.len() as u32, &stamps, 0);
                gpu.queue().submit([encoder.finish()]);
                stamps
            })?;
            let words = gpu.fetch(&stamps, 0, bytes)?.wait()?;
            let stamp = |words: &[u32]| u64::from(words[0]) | u64::from(words[1]) << 32;
            let ticks = |pair: &[u32]| stamp(&pair[2..]).saturating_sub(stamp(&pair[..2]));
            times.extend(words.chunks_exact(4).map(|pair| ticks(pair) as f64 * period));
        }
        Ok(times)
    }

    /// One run with a submit and a wait per dispatch.
    fn by_host(&self) -> Result<Vec<f64>> {
        let timed = |dispatch: &[Dispatch]| self.gpu().time(Clock::Host, |encoder| record(dispatch, encoder));
        self.dispatches.chunks(1).map(|dispatch| Ok(timed(dispatch)? * 1e6)).collect()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        let per = |work: f64, time: f64| match (work, time) {
            (work, time) if work > 0.0 && time > 0.0 => format!("{:.2}", work / time / 1e3),
            _ => "-".into(),
        };
        writeln!(
            f,
            "{:>3}  {:<34} {:<30} {:>14} {:>11} {:>8} {:>8} {:>6}",
            "", "node", "kernel", "grid", "us", "GFLOP/s", "GB/s", "%"
        )?;
        for (n, timing) in self.timings.iter().enumerate() {
            let node: String = timing.node.chars().take(34).collect();
            let ([x, y, z], time) = (timing.grid, timing.microseconds);
            writeln!(
                f,
                "{n:>3}  {node:<34} {:<30} {:>14} {time:>11.1} {:>8} {:>8} {:>6.1}",
                timing.kernel,
                format!("{x}x{y}x{z}"),
                per(timing.flops as f64, time),
                per(timing.bytes as f64, time),
                100.0 * time / total.max(f64::MIN_POSITIVE)
            )?;
        }
        let flops: u64 = self.timings.iter().map(|timing| timing.flops).sum();
        let clock = self.clock.describe();
        write!(f, "{total:.1} us, {} GFLOP/s, by {clock}", per(flops as f64, total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gpu, Graph};

    #[test]
    fn both_clocks_tell_the_same_story() {
        let gpu = Gpu::new().unwrap();
        let graph = Graph::new();
        let (small, large) = (graph.input([8, 8]), graph.input([256, 256]));
        let outputs = [small.softmax(1), large.matmul(&large)];
        let program = gpu.compile(&graph.function(&outputs)).unwrap();
        assert!(program.profile().unwrap_err().to_string().contains("never written"));
        program.write(&small, &[0.5; 64]).unwrap().write(&large, &[0.5; 1 << 16]).unwrap();
        let clocks = if gpu.stamps() { vec![Clock::Host, Clock::Device] } else { vec![Clock::Host] };
        for clock in clocks {
            let profile = program.profile_by(clock).unwrap();
            let [_, large] = &profile.timings[..] else { panic!("{profile}") };
            assert_eq!((large.flops, large.kernel.split(':').next()), (2 << 24, Some("matmul")), "{profile}");
            // Other programs may take the processor at any time, but not every time.
            let longer = |profile: &Profile| profile.timings[1].microseconds > 2.0 * profile.timings[0].microseconds;
            let mut others = (0..20).map(|_| program.profile_by(clock).unwrap());
            assert!(!gpu.caps().cpu || longer(&profile) || others.any(|other| longer(&other)), "{profile}");
            assert_eq!(profile.to_string().lines().count(), 4, "{profile}");
        }
    }
}
