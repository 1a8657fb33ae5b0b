//! Reading results without waiting: copies into mapped memory that the host picks up later.

use super::{Gpu, lock};
use crate::graph::{DType, Desc};
use crate::{Error, Result};
use std::sync::{Arc, Mutex};

type Mapped = Arc<Mutex<Option<std::result::Result<(), wgpu::BufferAsyncError>>>>;

/// Data on its way from the device.
pub struct Readback {
    gpu: Gpu,
    staging: wgpu::Buffer,
    desc: Desc,
    mapped: Mapped,
}

impl Gpu {
    /// Starts to read a tensor, as it is after everything submitted so far.
    pub(super) fn fetch_tensor(&self, buffer: &wgpu::Buffer, offset: u64, desc: &Desc) -> Result<Readback> {
        Ok(Readback { desc: desc.clone(), ..self.fetch(buffer, offset, desc.bytes())? })
    }

    /// [`Gpu::fetch_tensor`] for words.
    pub(super) fn fetch(&self, buffer: &wgpu::Buffer, offset: u64, bytes: usize) -> Result<Readback> {
        let size = (bytes as u64).next_multiple_of(8).max(8);
        self.guarded("reading back", || {
            let staging = self.staging(size);
            let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes as u64);
            self.queue().submit([encoder.finish()]);
            let mapped = Mapped::default();
            let report = mapped.clone();
            staging.slice(..).map_async(wgpu::MapMode::Read, move |result| *lock(&report) = Some(result));
            Readback { gpu: self.clone(), staging, desc: Desc::new([bytes / 4], DType::U32), mapped }
        })
    }
}

impl Gpu {
    /// A buffer to read through: one that a former read-back has given back, or a new one.
    fn staging(&self, size: u64) -> wgpu::Buffer {
        let mut free = lock(&self.0.staging);
        match free.iter().position(|buffer| buffer.size() == size) {
            Some(at) => free.swap_remove(at),
            None => self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("read-back"),
                size,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }),
        }
    }
}

/// Buffers kept for read-backs to come, and their bytes; a training loop needs two or three.
const KEPT: usize = 16;
const KEPT_BYTES: u64 = 64 << 20;

impl Readback {
    /// Whether the data has arrived.
    ///
    /// # Errors
    /// What the device reports.
    pub fn ready(&self) -> Result<bool> {
        self.gpu.poll(wgpu::PollType::Poll)?;
        Ok(lock(&self.mapped).is_some())
    }

    /// Waits for the raw words, whatever their type.
    ///
    /// # Errors
    /// What the device reports.
    pub fn wait(self) -> Result<Vec<u32>> {
        // Another thread's poll may be running the callback, so having polled is not having the data.
        while lock(&self.mapped).is_none() {
            self.gpu.poll(wgpu::PollType::wait_indefinitely())?;
            std::thread::yield_now();
        }
        let failed = |message: String| Error::Device { what: "reading back".into(), message };
        match lock(&self.mapped).take() {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(failed(error.to_string())),
            None => return Err(failed("the data did not arrive".into())),
        }
        let view = self.staging.slice(..).get_mapped_range().map_err(|e| failed(e.to_string()))?;
        let mut words: Vec<u32> = bytemuck::pod_collect_to_vec(&view);
        words.truncate(self.desc.words());
        drop(view);
        self.staging.unmap();
        let mut free = lock(&self.gpu.0.staging);
        let bytes = free.iter().map(wgpu::Buffer::size).sum::<u64>() + self.staging.size();
        if free.len() < KEPT && bytes <= KEPT_BYTES {
            free.push(self.staging);
        }
        Ok(words)
    }

    /// Waits for floats.
    ///
    /// # Errors
    /// A tensor of integers; what the device reports.
    pub fn wait_f32(self) -> Result<Vec<f32>> {
        let (dtype, elements) = (self.desc.dtype, self.desc.elements());
        if !dtype.is_float() {
            let message = format!("it is {}, not floats: read_{dtype} reads it, and wait any words", self.desc);
            return Err(Error::argument("the output", message));
        }
        Ok(dtype.floats(&self.wait()?, elements))
    }
}
