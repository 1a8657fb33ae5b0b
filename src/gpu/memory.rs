//! Where parameters live: slabs of device memory, shared by every program that uses them.

use super::Gpu;
use crate::graph::{Memory, Param, Place, Role};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One buffer that holds parameters.
pub(super) struct Slab {
    pub id: u64,
    pub buffer: wgpu::Buffer,
}

/// A parameter's stretch of a slab.
pub(super) struct Stored {
    gpu: u64,
    pub slab: Arc<Slab>,
    /// In elements.
    pub offset: usize,
}

impl Gpu {
    /// Brings parameters that are still on the host to the device; those of one role lie side by side.
    pub(super) fn place(&self, params: &[Param]) -> Result<()> {
        let mut waiting: BTreeMap<u8, Vec<&Param>> = BTreeMap::new();
        for param in params {
            if matches!(&*param.memory(), Memory::Host(_)) {
                let role = match param.role() {
                    Role::Weight => 0,
                    Role::Buffer => 1,
                    Role::State => 2,
                };
                waiting.entry(role).or_default().push(param);
            }
        }
        let guard = self.caps().guard as u64;
        for group in waiting.values() {
            let mut slab: Vec<&Param> = Vec::new();
            let mut bytes = 0;
            for param in group {
                let more = padded(param);
                self.check_size(param, more + guard)?;
                if bytes + more + guard > self.caps().binding.min(self.caps().buffer) {
                    self.fill_slab(&slab, bytes)?;
                    (slab, bytes) = (Vec::new(), 0);
                }
                slab.push(param);
                bytes += more;
            }
            self.fill_slab(&slab, bytes)?;
        }
        Ok(())
    }

    fn check_size(&self, param: &Param, bytes: u64) -> Result<()> {
        let most = self.caps().binding.min(self.caps().buffer);
        if bytes <= most {
            return Ok(());
        }
        Err(Error::Limit {
            what: format!("the parameter {} {}", param.name(), param.desc()),
            need: format!("{bytes} bytes in one buffer"),
            limit: format!("{most} bytes"),
            remedy: "split it into several".into(),
        })
    }

    fn fill_slab(&self, params: &[&Param], bytes: u64) -> Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let buffer = self.buffer("parameters", bytes + self.caps().guard as u64)?;
        let slab = Arc::new(Slab { id: NEXT.fetch_add(1, Ordering::Relaxed), buffer });
        let mut offset = 0;
        for param in params {
            let mut memory = param.memory();
            if let Memory::Host(words) = &*memory {
                self.write_words("writing a parameter", &slab.buffer, offset, words)?;
                let stored = Stored { gpu: self.0.id, slab: slab.clone(), offset: offset as usize / 4 };
                *memory = Memory::Device(Arc::new(stored));
            }
            offset += padded(param);
        }
        Ok(())
    }

    /// A storage buffer that can be copied to and from.
    pub(super) fn buffer(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        self.guarded(&format!("allocating {bytes} bytes ({label})"), || {
            self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes.next_multiple_of(16).max(16),
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    /// Writes words into a buffer, from this byte on.
    pub(super) fn write_words(&self, what: &str, buffer: &wgpu::Buffer, offset: u64, words: &[u32]) -> Result<()> {
        self.guarded(what, || self.queue().write_buffer(buffer, offset, bytemuck::cast_slice(words)))
    }

    /// Where a parameter lies on this device.
    pub(super) fn stored(&self, param: &Param) -> Result<Arc<Stored>> {
        let stored = match &*param.memory() {
            Memory::Device(any) => any.clone().downcast::<Stored>().ok(),
            Memory::Host(_) => None,
        };
        match stored {
            Some(stored) if stored.gpu == self.0.id => Ok(stored),
            Some(_) => Err(Error::argument(param.name(), "this parameter lives on another device; load it there anew")),
            None => Err(Error::argument(param.name(), "this parameter is not on the device yet")),
        }
    }

    /// The raw words of parameters, in order; those that no program has used yet are still on the host.
    ///
    /// # Errors
    /// A parameter that lives on another device; what the device reports.
    pub fn read_params(&self, params: &[Param]) -> Result<Vec<Vec<u32>>> {
        let mut pending = Vec::new();
        for param in params {
            let host = match &*param.memory() {
                Memory::Host(words) => Some(words.clone()),
                Memory::Device(_) => None,
            };
            pending.push(match host {
                Some(words) => Err(words),
                None => {
                    let stored = self.stored(param)?;
                    let from = (stored.offset * 4) as u64;
                    Ok(self.fetch_tensor(&stored.slab.buffer, from, param.desc())?)
                }
            });
        }
        pending.into_iter().map(|p| p.map_or_else(Ok, |readback| readback.wait())).collect()
    }

    /// The values of one parameter of floats.
    ///
    /// # Errors
    /// As for [`Gpu::read_params`]; a parameter of integers.
    pub fn read_param(&self, param: &Param) -> Result<Vec<f32>> {
        floats(param, "read its words by read_params")?;
        let words = self.read_params(std::slice::from_ref(param))?.pop().unwrap_or_default();
        Ok(param.desc().dtype.floats(&words, param.desc().elements()))
    }

    /// Overwrites a parameter with raw words; later runs see them.
    ///
    /// # Errors
    /// The wrong number of words; a parameter that lives on another device; what the device reports.
    pub fn write_param_words(&self, param: &Param, words: &[u32]) -> Result<()> {
        if words.len() != param.desc().words() {
            let message = format!("{} words were given for {}", words.len(), param.desc());
            return Err(Error::argument(param.name(), message));
        }
        if let Memory::Host(values) = &mut *param.memory() {
            values.copy_from_slice(words);
            return Ok(());
        }
        let stored = self.stored(param)?;
        let offset = (stored.offset * 4) as u64;
        self.write_words("writing a parameter", &stored.slab.buffer, offset, words)
    }

    /// Overwrites a parameter of floats, which f16 rounds; later runs see the new values.
    ///
    /// # Errors
    /// As for [`Gpu::write_param_words`]; a parameter of integers.
    pub fn write_param(&self, param: &Param, values: &[f32]) -> Result<()> {
        floats(param, "give its words to write_param_words")?;
        if values.len() != param.desc().elements() {
            let message = format!("{} values were given for {}", values.len(), param.desc());
            return Err(Error::argument(param.name(), message));
        }
        self.write_param_words(param, &param.desc().dtype.words(values))
    }
}

impl Stored {
    pub fn place(&self) -> Place {
        Place { slab: self.slab.id, offset: self.offset }
    }
}

/// Refuses a parameter of integers.
fn floats(param: &Param, remedy: &str) -> Result<()> {
    match param.desc().dtype.is_float() {
        true => Ok(()),
        false => Err(Error::argument(param.name(), format!("it is {}, not floats; {remedy}", param.desc()))),
    }
}

/// A parameter's bytes in a slab: bindings start at multiples of 256 bytes on every device.
fn padded(param: &Param) -> u64 {
    (param.desc().bytes() as u64).next_multiple_of(256).max(256)
}
