//! Device memory that outlives its programs: what one gives back serves the next.

use super::{Gpu, lock};
use crate::{Error, Result};
use std::sync::Mutex;

/// Buffers that no program uses.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<wgpu::Buffer>>);

/// Bytes that may lie idle; a pool that would hold more gives the oldest back to the device.
const IDLE: u64 = 256 << 20;

impl Gpu {
    /// A storage buffer that can be copied to and from, with anything in it: from the pool, or new. Where memory is
    /// short, the pool is emptied first.
    pub(super) fn pooled(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        let known = {
            let mut free = lock(&self.0.pool.0);
            let fits = |buffer: &wgpu::Buffer| buffer.size() >= bytes && buffer.size() <= 2 * bytes.max(4096);
            let best = (0..free.len()).filter(|&n| fits(&free[n])).min_by_key(|&n| free[n].size());
            best.map(|n| free.remove(n))
        };
        match known.map_or_else(|| self.buffer(label, bytes), Ok) {
            Err(Error::OutOfMemory { .. }) if self.trim() > 0 => {
                // What was given back is free once nothing that is queued needs it.
                self.wait()?;
                self.buffer(label, bytes)
            }
            made => made,
        }
    }

    /// Takes buffers back. Work on them that is queued is done before whatever is queued for their next owner.
    pub(super) fn recycle(&self, buffers: impl IntoIterator<Item = wgpu::Buffer>) {
        let mut free = lock(&self.0.pool.0);
        free.extend(buffers);
        let mut idle: u64 = free.iter().map(wgpu::Buffer::size).sum();
        let surplus = free.iter().take_while(|buffer| {
            let more = idle > IDLE;
            idle -= buffer.size();
            more
        });
        let surplus = surplus.count();
        free.drain(..surplus);
    }

    /// Gives memory that no program uses back to the device; tells how many bytes. It is kept for programs to come
    /// otherwise (up to 256 MiB), and for reading results (up to 64 MiB).
    pub fn trim(&self) -> u64 {
        let [programs, staging] = [&self.0.pool.0, &self.0.staging].map(|free| std::mem::take(&mut *lock(free)));
        programs.iter().chain(&staging).map(wgpu::Buffer::size).sum()
    }
}
