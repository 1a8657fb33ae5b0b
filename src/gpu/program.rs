//! Compiled graphs: recorded once, played again and again.

use super::memory::Slab;
use super::mirror::Mirror;
use super::pipeline::Pipeline;
use super::sanitize::Sanitizer;
use super::{Gpu, Readback, lock};
use crate::graph::mirror::Texture;
use crate::graph::plan::{Binding, Memory, Plan, Port, Region, Step, params};
use crate::graph::{DIGITS, DType, Function, Param, Place, Tensor, Value};
use crate::ops::complete;
use crate::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

/// The table of `src/graph/abreast.rs`.
const NUMBERS: [u32; DIGITS] = {
    let mut numbers = [0; DIGITS];
    let mut n = 0;
    while n < DIGITS {
        numbers[n] = n as u32;
        n += 1;
    }
    numbers
};

/// Runs that may be under way before `run` waits for an earlier one.
const IN_FLIGHT: usize = 3;

/// A compiled graph: dispatches with their pipelines, bindings and memory, made once. Running it creates nothing.
pub struct Program {
    pub(super) gpu: Gpu,
    graph: u64,
    pub(super) plan: Plan,
    buffers: Vec<wgpu::Buffer>,
    textures: Vec<wgpu::Texture>,
    pub(super) dispatches: Vec<Dispatch>,
    pub(super) params: Vec<Param>,
    settings: Vec<(String, Param, usize)>,
    submitted: Mutex<VecDeque<wgpu::SubmissionIndex>>,
    /// Inputs that have not been written yet.
    missing: Mutex<Vec<Value>>,
    slabs: HashMap<u64, Arc<Slab>>,
    sanitizer: Option<Sanitizer>,
}

pub(super) struct Dispatch {
    pipeline: Arc<Pipeline>,
    bindings: wgpu::BindGroup,
    grid: [u32; 3],
    mirrors: Vec<Mirror>,
}

/// Where a function's parameters are on a device.
#[derive(Clone)]
pub(super) struct Home {
    params: Vec<Param>,
    pub(super) places: HashMap<u64, Place>,
    slabs: HashMap<u64, Arc<Slab>>,
}

impl Home {
    /// Brings the parameters there that are still on the host.
    pub(super) fn of(gpu: &Gpu, function: &Function) -> Result<Home> {
        let params = params(function);
        gpu.place(&params)?;
        let (mut slabs, mut places) = (HashMap::new(), HashMap::new());
        for param in &params {
            let stored = gpu.stored(param)?;
            places.insert(param.id(), stored.place());
            slabs.insert(stored.slab.id, stored.slab.clone());
        }
        Ok(Home { params, places, slabs })
    }
}

/// Records dispatches: one pass, interrupted where operands must be copied into textures.
pub(super) fn record(dispatches: &[Dispatch], encoder: &mut wgpu::CommandEncoder) {
    for run in dispatches.chunk_by(|_, next| next.mirrors.is_empty()) {
        run.iter().for_each(|dispatch| dispatch.prepare(encoder));
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        run.iter().for_each(|dispatch| dispatch.record(&mut pass));
    }
}

impl Dispatch {
    /// Records the copies that it reads.
    pub(super) fn prepare(&self, encoder: &mut wgpu::CommandEncoder) {
        self.mirrors.iter().for_each(|mirror| mirror.copy(encoder));
    }

    pub(super) fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.record_grid(pass, self.grid);
    }

    fn record_grid(&self, pass: &mut wgpu::ComputePass<'_>, [x, y, z]: [u32; 3]) {
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bindings, &[]);
        if self.pipeline.digits {
            pass.set_immediates(0, bytemuck::cast_slice(&NUMBERS));
        }
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Program {
    pub(super) fn new(gpu: &Gpu, function: &Function) -> Result<Program> {
        function.graph.error()?;
        let function = &complete(function);
        let home = Home::of(gpu, function)?;
        let plan = Plan::new(function, gpu.caps(), &|param| home.places[&param.id()], &gpu.choices())?;
        Program::play(gpu, plan, function, home)
    }

    /// The program that plays `plan`, a plan of `function`.
    pub(super) fn play(gpu: &Gpu, plan: Plan, function: &Function, home: Home) -> Result<Program> {
        let Home { params, slabs, .. } = home;
        let pipelines = gpu.pipelines(&plan)?;
        let sanitizer = if gpu.caps().guard > 0 { Some(Sanitizer::new(&plan.steps)?) } else { None };
        let mut buffers = Vec::new();
        for buffer in &plan.buffers {
            let made = gpu.pooled("program", buffer.bytes as u64)?;
            if let Some(words) = &buffer.constant {
                gpu.write_words("writing constants", &made, 0, words)?;
            }
            buffers.push(made);
        }
        let textures = plan.textures.iter().map(|texture| gpu.texture(texture)).collect::<Result<_>>()?;
        let missing = plan.inputs.iter().map(|port| port.value).collect();
        let mut program = Program {
            gpu: gpu.clone(),
            graph: function.graph.id(),
            plan,
            buffers,
            textures,
            dispatches: Vec::new(),
            params,
            settings: function.settings.clone(),
            submitted: Mutex::default(),
            missing: Mutex::new(missing),
            slabs,
            sanitizer,
        };
        let dispatches = gpu.guarded("binding buffers", || program.bind(pipelines))?;
        program.dispatches = dispatches;
        Ok(program)
    }

    fn bind(&self, pipelines: Vec<Arc<Pipeline>>) -> Vec<Dispatch> {
        let views: Vec<_> = self.textures.iter().map(|texture| texture.create_view(&Default::default())).collect();
        let bind = |(pipeline, step): (Arc<Pipeline>, &Step)| {
            let resource = |(n, binding): (usize, &Binding)| wgpu::BindGroupEntry {
                binding: n as u32,
                resource: match binding.texture {
                    Some(texture) => wgpu::BindingResource::TextureView(&views[texture]),
                    None => wgpu::BindingResource::Buffer(self.stretch(&binding.region)),
                },
            };
            let entries: Vec<wgpu::BindGroupEntry<'_>> = step.bindings.iter().enumerate().map(resource).collect();
            let bindings = self.gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&step.label),
                layout: &pipeline.layout,
                entries: &entries,
            });
            let mirrors = step.bindings.iter().filter_map(|binding| self.mirror(binding)).collect();
            Dispatch { pipeline, bindings, grid: step.kernel.grid, mirrors }
        };
        pipelines.into_iter().zip(&self.plan.steps).map(bind).collect()
    }

    fn mirror(&self, binding: &Binding) -> Option<Mirror> {
        let texture = self.textures[binding.texture.filter(|_| !binding.writes)?].clone();
        let stretch = self.stretch(&binding.region);
        let bytes = stretch.size.map_or(0, std::num::NonZeroU64::get);
        Some(Mirror { buffer: stretch.buffer.clone(), offset: stretch.offset, bytes, texture })
    }

    pub(super) fn memory(&self, memory: Memory) -> &wgpu::Buffer {
        match memory {
            Memory::Own(id) => &self.buffers[id],
            Memory::Slab(id) => &self.slabs[&id].buffer,
        }
    }

    fn stretch(&self, region: &Region) -> wgpu::BufferBinding<'_> {
        let buffer = self.memory(region.memory);
        let whole = region.bytes == usize::MAX;
        let guard = self.gpu.caps().guard as u64;
        let size = (!whole).then(|| (region.bytes as u64).next_multiple_of(16).max(16) + guard);
        wgpu::BufferBinding { buffer, offset: region.offset as u64, size: size.and_then(std::num::NonZeroU64::new) }
    }

    fn port<'a>(&self, ports: &'a [Port], tensor: &Tensor, what: &str) -> Result<&'a Port> {
        if tensor.graph().id() != self.graph {
            return Err(Error::argument(what, "the tensor belongs to another graph than this program"));
        }
        ports
            .iter()
            .find(|port| port.value == tensor.value())
            .ok_or_else(|| Error::argument(what, format!("{tensor:?} is no {what} of this program")))
    }

    /// Writes an f32 input, or an f16 one (rounded), for the runs to come; does not wait for those under way.
    ///
    /// # Errors
    /// A tensor that is no input (or none that the program needs), the wrong number of values, a label out of range.
    pub fn write(&self, input: &Tensor, values: &[f32]) -> Result<&Self> {
        match input.dtype() {
            DType::F16 => self.write_words(input, DType::F16, values.len(), &DType::F16.words(values)),
            _ => self.write_words(input, DType::F32, values.len(), bytemuck::cast_slice(values)),
        }
    }

    /// [`Program::write`] for a u32 input.
    ///
    /// # Errors
    /// As for [`Program::write`].
    pub fn write_u32(&self, input: &Tensor, values: &[u32]) -> Result<&Self> {
        self.write_words(input, DType::U32, values.len(), values)
    }

    /// [`Program::write`] for an i32 input.
    ///
    /// # Errors
    /// As for [`Program::write`].
    pub fn write_i32(&self, input: &Tensor, values: &[i32]) -> Result<&Self> {
        self.write_words(input, DType::I32, values.len(), bytemuck::cast_slice(values))
    }

    fn write_words(&self, input: &Tensor, dtype: DType, count: usize, words: &[u32]) -> Result<&Self> {
        let port = self.port(&self.plan.inputs, input, "input")?;
        if port.desc.dtype != dtype || count != port.desc.elements() {
            let message = format!("{count} values of {dtype} were written to the input {}", port.desc);
            return Err(Error::argument("write", message));
        }
        if let Some(Err(message)) = port.allowed.as_ref().map(|allowed| allowed.check(words)) {
            return Err(Error::argument("labels or indices", message));
        }
        let buffer = self.memory(port.region.memory);
        self.gpu.write_words("writing an input", buffer, port.region.offset as u64, words)?;
        lock(&self.missing).retain(|value| *value != port.value);
        Ok(self)
    }

    /// Starts the program's random numbers (dropout, sampling) anew from this seed.
    ///
    /// # Errors
    /// What the device reports.
    pub fn seed(&self, seed: u64) -> Result<&Self> {
        for param in self.params().iter().filter(|param| param.name() == "random") {
            self.gpu().write_param_words(param, &[seed as u32 ^ (seed >> 32) as u32, 0])?;
        }
        Ok(self)
    }

    /// Sets a hyper-parameter (`lr`, ...) for the runs to come: that of every [`crate::Graph::apply`] in the program.
    ///
    /// # Errors
    /// A name that the program does not have; a value that is not finite; what the device reports.
    pub fn set(&self, name: &str, value: f32) -> Result<&Self> {
        if !self.settings.iter().any(|(known, _, _)| known == name) {
            let mut names: Vec<&str> = self.settings.iter().map(|(known, _, _)| known.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            return Err(Error::argument(name, format!("this program has no such setting; it has {names:?}")));
        }
        if !value.is_finite() {
            return Err(Error::argument(name, format!("it cannot be set to {value}, which is not finite")));
        }
        for (_, param, index) in self.settings.iter().filter(|(known, _, _)| known == name) {
            let stored = self.gpu.stored(param)?;
            let offset = ((stored.offset + index) * 4) as u64;
            self.gpu.write_words("setting a hyper-parameter", &stored.slab.buffer, offset, &[value.to_bits()])?;
        }
        Ok(self)
    }

    /// Records the program into an encoder of the caller's; submits nothing. It is one compute pass, but on adapters
    /// where operands are read through textures (see [`crate::graph::mirror`]). The program's memory serves others once
    /// it is dropped, so it has to live until the encoder is submitted.
    ///
    /// # Errors
    /// An input that was never written.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.written()?;
        self.append(encoder);
        Ok(())
    }

    /// [`Program::record`] whatever the inputs hold.
    pub(super) fn append(&self, encoder: &mut wgpu::CommandEncoder) {
        record(&self.dispatches, encoder);
    }

    /// Refuses to go on without an input.
    pub(super) fn written(&self) -> Result<()> {
        let Some(value) = lock(&self.missing).first().copied() else { return Ok(()) };
        let port = self.plan.inputs.iter().find(|port| port.value == value);
        let what = port.map_or_else(String::new, |port| format!("{} ({})", port.name, port.desc));
        Err(Error::argument(what, "this input was never written; write it before the first run"))
    }

    /// Has the driver compile the program's kernels now, by dispatching each over no workgroups: nothing is computed and
    /// nothing needs to be written yet. Some drivers (lavapipe, many GL drivers) compile a kernel only at its first
    /// dispatch; this returns at once, and the caller can load its data meanwhile.
    ///
    /// ```no_run
    /// # fn load() -> Vec<f32> { vec![0.0; 1024] }
    /// let gpu = shadegrad::Gpu::new()?;
    /// let g = shadegrad::Graph::inference();
    /// let x = g.input([1024]);
    /// let y = x.softmax(0);
    /// let program = gpu.compile(&g.function([&y]))?;
    /// program.warm_up()?;
    /// program.write(&x, &load())?.run()?;
    /// # Ok::<(), shadegrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the device reports.
    pub fn warm_up(&self) -> Result<()> {
        self.gpu.guarded("warming up", || {
            let mut encoder = self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            self.dispatches.iter().for_each(|dispatch| dispatch.record_grid(&mut pass, [0; 3]));
            drop(pass);
            self.gpu.queue().submit([encoder.finish()]);
        })
    }

    /// Runs once: records and submits. Returns as soon as the work is queued, or when an earlier run is done if
    /// several are under way.
    ///
    /// Under the sanitizer ([`Options::sanitize`](super::Options::sanitize)) the dispatches run one by one, and what
    /// each of them wrote is examined.
    ///
    /// # Errors
    /// An input that was never written; what the device reports; [`Error::Sanitizer`] for a kernel that wrote outside
    /// its outputs, left a part of them unwritten, or made a NaN.
    pub fn run(&self) -> Result<()> {
        self.written()?;
        self.submit()
    }

    /// [`Program::run`] whatever the inputs hold.
    pub(super) fn submit(&self) -> Result<()> {
        if let Some(sanitizer) = &self.sanitizer {
            return sanitizer.run(self);
        }
        let index = self.gpu.guarded("running", || {
            let mut encoder = self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            self.append(&mut encoder);
            self.gpu.queue().submit([encoder.finish()])
        })?;
        let mut submitted = lock(&self.submitted);
        submitted.push_back(index);
        if submitted.len() >= IN_FLIGHT {
            let submission_index = submitted.pop_front();
            self.gpu.poll(wgpu::PollType::Wait { submission_index, timeout: None })?;
        }
        Ok(())
    }

    /// Starts to read an output as it is after the last run, without waiting.
    ///
    /// # Errors
    /// A tensor that is no output; what the device reports.
    pub fn fetch(&self, output: &Tensor) -> Result<Readback> {
        let port = self.port(&self.plan.outputs, output, "output")?;
        self.gpu.fetch_tensor(self.memory(port.region.memory), port.region.offset as u64, &port.desc)
    }

    /// An output's values after the last run; waits for it.
    ///
    /// # Errors
    /// As for [`Program::fetch`]; an output of integers.
    pub fn read(&self, output: &Tensor) -> Result<Vec<f32>> {
        self.fetch(output)?.wait_f32()
    }

    /// [`Program::read`] for a u32 output.
    ///
    /// # Errors
    /// As for [`Program::fetch`]; an output of another type.
    pub fn read_u32(&self, output: &Tensor) -> Result<Vec<u32>> {
        self.read_words(output, DType::U32)
    }

    /// [`Program::read`] for an i32 output.
    ///
    /// # Errors
    /// As for [`Program::read_u32`].
    pub fn read_i32(&self, output: &Tensor) -> Result<Vec<i32>> {
        Ok(bytemuck::cast_vec(self.read_words(output, DType::I32)?))
    }

    fn read_words(&self, output: &Tensor, dtype: DType) -> Result<Vec<u32>> {
        let readback = self.fetch(output)?;
        if output.dtype() != dtype {
            let message =
                format!("it is {}, not {dtype}: read it by read, or its words by fetch and wait", output.desc());
            return Err(Error::argument("the output", message));
        }
        readback.wait()
    }

    /// The device it runs on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The plan it plays; prints as a table.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Every parameter it reads or changes.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Bytes of device memory that it holds beside the parameters.
    pub fn bytes(&self) -> u64 {
        let textures = self.plan.textures.iter().map(Texture::bytes).sum::<usize>();
        self.buffers.iter().map(wgpu::Buffer::size).sum::<u64>() + textures as u64
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.gpu.recycle(self.buffers.drain(..));
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}
