//! Compute shaders that are no part of a graph: an app's own, or those that measure the device.

use super::Gpu;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// A compute shader with the buffers it is bound to. Making it compiles; recording it dispatches.
pub struct RawKernel {
    gpu: Gpu,
    pipeline: wgpu::ComputePipeline,
    groups: Vec<(u32, wgpu::BindGroup)>,
    buffers: Vec<wgpu::Buffer>,
    grid: [u32; 3],
}

/// A buffer of a [`RawKernel`].
#[derive(Clone, Debug, PartialEq)]
pub struct RawBuffer {
    /// `@group`.
    pub group: u32,
    /// `@binding`.
    pub binding: u32,
    /// `var<uniform>` rather than `var<storage>`.
    pub uniform: bool,
    /// What it holds at first.
    pub words: Vec<u32>,
}

/// Whether a shader keeps wgpu's run-time checks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// One of this crate's, tested under the sanitizer.
    Own,
    /// Anybody's.
    Checked,
}

impl Gpu {
    /// Compiles the entry point of a WGSL shader and binds buffers to it; `overrides` are values of its `override`s.
    /// The shader keeps all run-time checks.
    ///
    /// ```
    /// use shadegrad::gpu::RawBuffer;
    ///
    /// let gpu = shadegrad::Gpu::new()?;
    /// let wgsl = "@group(0) @binding(0) var<storage, read_write> x: array<f32>;
    ///             @compute @workgroup_size(64)
    ///             fn double(@builtin(global_invocation_id) id: vec3<u32>) { x[id.x] *= 2.0; }";
    /// let x = RawBuffer { group: 0, binding: 0, uniform: false, words: vec![1.5f32.to_bits(); 256] };
    /// let kernel = gpu.raw_kernel(wgsl, "double", &[], &[x], [4, 1, 1])?;
    /// println!("{} s", gpu.time(gpu.clock(), |encoder| kernel.record(encoder, 1))?);
    /// assert_eq!(kernel.read(0)?, vec![3f32.to_bits(); 256]);
    /// # Ok::<(), shadegrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shader`] where it does not compile or its bindings are others; [`Error::Limit`] for a grid that the
    /// device does not allow.
    pub fn raw_kernel(
        &self,
        wgsl: &str,
        entry: &str,
        overrides: &[(&str, f64)],
        buffers: &[RawBuffer],
        grid: [u32; 3],
    ) -> Result<RawKernel> {
        self.raw(Trust::Checked, wgsl, entry, overrides, buffers, grid)
    }

    pub(crate) fn raw(
        &self,
        trust: Trust,
        wgsl: &str,
        entry: &str,
        overrides: &[(&str, f64)],
        buffers: &[RawBuffer],
        grid: [u32; 3],
    ) -> Result<RawKernel> {
        if let Some(most) = grid.iter().find(|&&groups| groups > self.caps().groups) {
            return Err(Error::Limit {
                what: format!("the grid of {entry}"),
                need: format!("{most} workgroups along an axis"),
                limit: self.caps().groups.to_string(),
                remedy: "fold it into y and z".into(),
            });
        }
        let device = self.device();
        let shader = |error| match error {
            Error::Device { message, .. } => Error::Shader { shader: entry.into(), message },
            other => other,
        };
        let pipeline = self.guarded(entry, || {
            let module = self.module(entry, wgsl, trust);
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: overrides,
                    zero_initialize_workgroup_memory: trust == Trust::Checked,
                },
                cache: None,
            })
        });
        let pipeline = pipeline.map_err(shader)?;
        let mut made = Vec::new();
        for buffer in buffers {
            made.push(self.raw_buffer(buffer)?);
        }
        let mut entries: BTreeMap<u32, Vec<wgpu::BindGroupEntry<'_>>> = BTreeMap::new();
        for (buffer, memory) in buffers.iter().zip(&made) {
            let entry = wgpu::BindGroupEntry { binding: buffer.binding, resource: memory.as_entire_binding() };
            entries.entry(buffer.group).or_default().push(entry);
        }
        let bind = |(group, entries): (u32, Vec<wgpu::BindGroupEntry<'_>>)| {
            let layout = pipeline.get_bind_group_layout(group);
            let descriptor = wgpu::BindGroupDescriptor { label: Some(entry), layout: &layout, entries: &entries };
            (group, device.create_bind_group(&descriptor))
        };
        let groups = self.guarded(entry, || entries.into_iter().map(bind).collect()).map_err(shader)?;
        Ok(RawKernel { gpu: self.clone(), pipeline, groups, buffers: made, grid })
    }

    fn raw_buffer(&self, buffer: &RawBuffer) -> Result<wgpu::Buffer> {
        // Whole vec4s for uniforms; a storage buffer is as long as it was said to be, which its shader may ask for.
        let grain = if buffer.uniform { 16 } else { 4 };
        let bytes = (buffer.words.len() as u64 * 4).next_multiple_of(grain).max(grain);
        let what = format!("binding {} of group {}", buffer.binding, buffer.group);
        let most = self.caps().binding.min(self.caps().buffer);
        if bytes > most {
            return Err(Error::Limit {
                what,
                need: format!("{bytes} bytes"),
                limit: format!("{most} bytes"),
                remedy: "make it smaller".into(),
            });
        }
        let kind = if buffer.uniform { wgpu::BufferUsages::UNIFORM } else { wgpu::BufferUsages::STORAGE };
        self.guarded(&format!("allocating {what}"), || {
            let memory = self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(&what),
                size: bytes,
                usage: kind | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            self.queue().write_buffer(&memory, 0, bytemuck::cast_slice(&buffer.words));
            memory
        })
    }
}

impl RawKernel {
    /// Records its dispatch, this many times one after the other, in a pass of its own.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder, times: usize) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipeline);
        for (group, bindings) in &self.groups {
            pass.set_bind_group(*group, bindings, &[]);
        }
        let [x, y, z] = self.grid;
        (0..times).for_each(|_| pass.dispatch_workgroups(x, y, z));
    }

    /// The words of the n-th of its buffers, after everything submitted so far.
    ///
    /// # Errors
    /// There is no n-th one; what the device reports.
    pub fn read(&self, n: usize) -> Result<Vec<u32>> {
        let missing = || Error::argument("RawKernel::read", format!("there are {} buffers", self.buffers.len()));
        let buffer = self.buffers.get(n).ok_or_else(missing)?;
        self.gpu.fetch(buffer, 0, buffer.size() as usize)?.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_buffer_is_as_long_as_it_was_said_to_be() {
        let gpu = Gpu::new().unwrap();
        let wgsl = "@group(0) @binding(0) var<storage, read_write> x: array<u32>;\n\
            @compute @workgroup_size(1) fn main() { x[0] = arrayLength(&x); }\n";
        let x = RawBuffer { group: 0, binding: 0, uniform: false, words: vec![7; 3] };
        let kernel = gpu.raw_kernel(wgsl, "main", &[], &[x], [1, 1, 1]).unwrap();
        gpu.time(gpu.clock(), |encoder| kernel.record(encoder, 1)).unwrap();
        assert_eq!(kernel.read(0).unwrap(), [3, 7, 7]);
        assert!(kernel.read(1).unwrap_err().to_string().contains("there are 1 buffers"));
    }
}
