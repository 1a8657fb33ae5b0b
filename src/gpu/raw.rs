//! Compute shaders that are no part of a graph: an app's own, or those that measure the device.

use super::Gpu;
use crate::reflect::{Bound, Wgsl};
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

/// Bytes of variables that an invocation may have: beyond any register file, and drivers run out of memory or die long before
/// they say so.
const MOST_PRIVATE: u64 = 1 << 20;

/// That `buffers` are those of the shader, and long enough.
fn bound_as_said(bound: &[Bound], buffers: &[RawBuffer]) -> Result<(), String> {
    for Bound { name, group, binding, uniform, bytes, line, .. } in bound {
        let place = format!("{name} of line {line}, binding {binding} of group {group}");
        let buffer = buffers.iter().find(|buffer| (buffer.group, buffer.binding) == (*group, *binding));
        match buffer {
            None => return Err(format!("no buffer is bound to {place}")),
            Some(buffer) if buffer.uniform != *uniform => {
                let (shader, said) = if *uniform { ("uniform", "storage") } else { ("storage", "uniform") };
                return Err(format!("{place}, is a {shader} buffer, but a {said} buffer was said to be there"));
            }
            Some(buffer) if 4 * buffer.words.len() < *bytes => {
                return Err(format!("{place}, wants {bytes} bytes, but its buffer has {}", 4 * buffer.words.len()));
            }
            Some(_) => {}
        }
    }
    let known = |buffer: &&RawBuffer| bound.iter().all(|b| (b.group, b.binding) != (buffer.group, buffer.binding));
    match buffers.iter().find(known) {
        Some(RawBuffer { group, binding, .. }) => {
            Err(format!("the entry point uses no binding {binding} of group {group}, but a buffer is bound to it"))
        }
        None => Ok(()),
    }
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
    /// [`Error::Shader`] where it does not compile, or its bindings are others or need more words; [`Error::Limit`] for a
    /// grid, a workgroup, memory or a buffer that the device does not allow.
    pub fn raw_kernel(
        &self,
        wgsl: &str,
        entry: &str,
        overrides: &[(&str, f64)],
        buffers: &[RawBuffer],
        grid: [u32; 3],
    ) -> Result<RawKernel> {
        let parsed = Wgsl::parse(entry, wgsl)?;
        #[cfg(feature = "translate")]
        let parsed = {
            let values: Vec<(String, f64)> = overrides.iter().map(|(key, value)| (key.to_string(), *value)).collect();
            parsed.with_overrides(entry, &values)?
        };
        self.check_needs(&parsed, entry)?;
        bound_as_said(&parsed.bound(entry)?, buffers).map_err(|message| parsed.wrong(message))?;
        self.raw(Trust::Checked, wgsl, entry, overrides, buffers, grid)
    }

    /// That the device has what the entry point needs: drivers tell of it late, in other words, or by dying.
    fn check_needs(&self, wgsl: &Wgsl, entry: &str) -> Result<()> {
        let (caps, limits, needs) = (self.caps(), self.device().limits(), wgsl.needs(entry)?);
        let [x, y, z] = needs.workgroup_size.map(u64::from);
        let all = x.saturating_mul(y).saturating_mul(z);
        let within = |what: &str, need: u64, unit: &str, limit: u64, remedy: &str| match need <= limit {
            true => Ok(()),
            false => Err(Error::Limit {
                what: format!("{what} of {entry}"),
                need: format!("{need} {unit}"),
                limit: limit.to_string(),
                remedy: remedy.into(),
            }),
        };
        let smaller = "make @workgroup_size smaller, and the grid larger";
        within("the workgroup", all, "invocations", caps.invocations.into(), smaller)?;
        within("the workgroup", x, "invocations along x", limits.max_compute_workgroup_size_x.into(), smaller)?;
        within("the workgroup", y, "invocations along y", limits.max_compute_workgroup_size_y.into(), smaller)?;
        within("the workgroup", z, "invocations along z", limits.max_compute_workgroup_size_z.into(), smaller)?;
        let smaller = "make its var<workgroup> arrays smaller";
        within("the workgroup memory", needs.workgroup, "bytes", caps.workgroup_memory.into(), smaller)?;
        let smaller = "keep large arrays in a buffer";
        within("the private memory", needs.private, "bytes", MOST_PRIVATE, smaller)
    }

    /// The most bytes that a buffer may have.
    pub fn largest_buffer(&self, uniform: bool) -> u64 {
        let binding =
            if uniform { self.device().limits().max_uniform_buffer_binding_size } else { self.caps().binding };
        binding.min(self.caps().buffer)
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
        let most = self.largest_buffer(buffer.uniform);
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

    #[test]
    fn what_the_shader_and_the_device_do_not_allow_is_named_before_anything_is_made() {
        let gpu = Gpu::new().unwrap();
        let buffer = |group, binding, uniform| RawBuffer { group, binding, uniform, words: vec![0; 4] };
        let refused = |text: &str, buffers: &[RawBuffer], part: &str| {
            let wgsl = format!(
                "@group(0) @binding(0) var<storage, read_write> x: array<u32>;\n\
                 @group(2) @binding(3) var<uniform> y: vec4<u32>;\n{text}\n"
            );
            let message = gpu.raw_kernel(&wgsl, "main", &[], buffers, [1, 1, 1]).err().unwrap().to_string();
            assert!(message.contains(part), "{message}");
        };
        let plain = "@compute @workgroup_size(1) fn main() { x[0] = y.x; }";
        let (x, y) = (buffer(0, 0, false), buffer(2, 3, true));
        refused(plain, std::slice::from_ref(&x), "no buffer is bound to y of line 2, binding 3 of group 2");
        refused(plain, &[x.clone(), buffer(2, 3, false)], "binding 3 of group 2, is a uniform buffer");
        refused(plain, &[x.clone(), y.clone(), buffer(1, 0, false)], "uses no binding 0 of group 1");
        let short = RawBuffer { words: vec![0; 3], ..y.clone() };
        refused(plain, &[x.clone(), short], "wants 16 bytes, but its buffer has 12");
        let both = [x, y];
        let wide = "@compute @workgroup_size(1, 2, 8192) fn main() { x[0] = y.x; }";
        refused(wide, &both, "the workgroup of main needs 16384 invocations");
        let shared = "var<workgroup> w: array<u32, 100000000>;\n\
            @compute @workgroup_size(1) fn main() { w[1] = y.x; x[0] = w[y.x]; }";
        refused(shared, &both, "the workgroup memory of main needs 400000000 bytes");
        let private = "@compute @workgroup_size(1) fn main() { var a: array<u32, 300000>; x[0] = a[y.x]; }";
        refused(private, &both, "the private memory of main needs 1200000 bytes");
    }
}
