//! How long recorded work takes on the device.

use super::Gpu;
use crate::Result;
use std::time::Instant;

/// What measures time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Timestamps that the device writes before and after the work.
    Device,
    /// The host's clock from the submit to the end of the wait, less the time of an empty submit.
    Host,
}

impl Clock {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Clock::Device => "the device's timestamps",
            Clock::Host => "the host's clock, less an empty submit",
        }
    }
}

impl Gpu {
    /// The clock that suits this device: its timestamps where it has them, but for CPU adapters, whose timestamps agree for
    /// long work and add tens of microseconds to short.
    pub fn clock(&self) -> Clock {
        if self.stamps() && !self.caps().cpu { Clock::Device } else { Clock::Host }
    }

    pub(super) fn stamps(&self) -> bool {
        self.device().features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Seconds that the commands take which `record` records, submitted at once; waits for them.
    ///
    /// # Errors
    /// What the device reports.
    pub fn time(&self, clock: Clock, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<f64> {
        match clock {
            Clock::Device => self.time_by_stamps(record),
            Clock::Host => {
                let time = self.time_by_host(record)?;
                // The least of them: on a busy machine one that was interrupted would flatter the work.
                let mut empty = f64::INFINITY;
                for _ in 0..3 {
                    empty = empty.min(self.time_by_host(|_| {})?);
                }
                Ok((time - empty).max(0.0))
            }
        }
    }

    fn time_by_host(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<f64> {
        let commands = self.guarded("timing", || {
            let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            record(&mut encoder);
            encoder.finish()
        })?;
        let start = Instant::now();
        self.guarded("timing", || self.queue().submit([commands]))?;
        self.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Between timestamps in passes of their own, which do nothing else.
    fn time_by_stamps(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<f64> {
        let stamps = self.guarded("timing", || {
            let device = self.device();
            let query_set = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("clock"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            });
            let stamps = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("clock"),
                size: 256,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let stamp = |encoder: &mut wgpu::CommandEncoder, first: Option<u32>, last: Option<u32>| {
                let writes = wgpu::ComputePassTimestampWrites {
                    query_set: &query_set,
                    beginning_of_pass_write_index: first,
                    end_of_pass_write_index: last,
                };
                let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) };
                drop(encoder.begin_compute_pass(&descriptor));
            };
            stamp(&mut encoder, None, Some(0));
            record(&mut encoder);
            stamp(&mut encoder, Some(1), None);
            encoder.resolve_query_set(&query_set, 0..2, &stamps, 0);
            self.queue().submit([encoder.finish()]);
            stamps
        })?;
        let words = self.fetch(&stamps, 0, 16)?.wait()?;
        let tick = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        let period = f64::from(self.queue().get_timestamp_period());
        Ok(tick(2).saturating_sub(tick(0)) as f64 * period / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Graph;

    #[test]
    fn both_clocks_see_that_more_work_takes_longer() {
        let gpu = Gpu::new().unwrap();
        let g = Graph::inference();
        let x = g.input([256, 256]);
        let program = gpu.compile(&g.function([&x.matmul(&x)])).unwrap();
        program.write(&x, &vec![0.5; 1 << 16]).unwrap().run().unwrap();
        for clock in [Clock::Host, Clock::Device] {
            if clock == Clock::Device && !gpu.stamps() {
                continue;
            }
            let time = |runs: usize| {
                let once = || gpu.time(clock, |encoder| (0..runs).for_each(|_| program.append(encoder))).unwrap();
                (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
            };
            // Other programs may take the processor at any time, but not every time.
            let mut seen = (0..10).map(|_| (time(1), time(40)));
            assert!(seen.any(|(one, many)| one > 0.0 && many > 4.0 * one), "{clock:?}: {:?}", (time(1), time(40)));
        }
    }
}
