//! The planning pass: from fused units to dispatches over recycled buffers.

use super::choose::{self, Choices, Work};
use super::fuse::{Fused, Unit, fuse};
use super::mirror::{self, Texel, Texture};
use super::wide;
use super::{
    Allowed, Arg, Candidate, Caps, DType, Desc, Function, Inner, Io, Kernel, Param, Place, Source, Value, wgsl,
};
use crate::ops::pointwise;
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes that every planned region is rounded up to, so that kernels may move whole vec4s.
const GRAIN: usize = 16;

/// Which memory a region lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// A buffer of the program, by its place in [`Plan::buffers`].
    Own(usize),
    /// A slab that holds parameters.
    Slab(u64),
}

/// A stretch of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Where.
    pub memory: Memory,
    /// From which byte.
    pub offset: usize,
    /// How many bytes.
    pub bytes: usize,
}

/// A buffer that the program owns.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Its size.
    pub bytes: usize,
    /// Its contents, where they are fixed.
    pub constant: Option<Arc<[u32]>>,
}

/// What one binding of a dispatch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The memory.
    pub region: Region,
    /// Whether the kernel may write there.
    pub writes: bool,
    /// The texture of [`Plan::textures`] that stands for the memory: a copy that is read, or scratch that is written.
    pub texture: Option<usize>,
}

/// One dispatch with its bindings resolved.
#[derive(Clone, Debug)]
pub struct Step {
    /// The nodes it computes.
    pub label: String,
    /// The candidate that was chosen.
    pub candidate: &'static str,
    /// The kernel.
    pub kernel: Kernel,
    /// Its text, with everything fixed.
    pub source: String,
    /// Its bindings, in order.
    pub bindings: Vec<Binding>,
    /// The same number for all dispatches of one candidate.
    pub unit: usize,
    /// The persistent state that its op changes in place.
    pub state: Vec<Param>,
    /// Bytes read and written, each binding counted once.
    pub bytes: usize,
    /// Floating-point operations (of the whole unit, at its first dispatch).
    pub flops: u64,
}

/// A tensor that is written before or read after a run.
#[derive(Clone, Debug)]
pub struct Port {
    /// The tensor's own value in the graph.
    pub value: Value,
    /// Name, for inputs.
    pub name: String,
    /// Shape and type.
    pub desc: Desc,
    /// Where it lies.
    pub region: Region,
    /// What its elements may be.
    pub allowed: Option<Allowed>,
}

/// A compiled graph as data: dispatches in order over planned buffers.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program's buffers.
    pub buffers: Vec<Buffer>,
    /// The textures that operands are read through, where the device wants that.
    pub textures: Vec<Texture>,
    /// The dispatches.
    pub steps: Vec<Step>,
    /// Tensors to write.
    pub inputs: Vec<Port>,
    /// Tensors to read.
    pub outputs: Vec<Port>,
    /// What several kernels could have done.
    pub works: Vec<Work>,
    /// Whether its shaders keep wgpu's run-time checks on every device (see [`super::Graph::custom`]).
    pub checked: bool,
}

/// Every parameter that `function` reads or changes.
pub fn params(function: &Function) -> Vec<Param> {
    let inner = function.graph.inner();
    let mut found: Vec<Param> = Vec::new();
    for id in function.nodes() {
        match &inner.nodes[id].source {
            Source::Param(param) => found.push(param.clone()),
            Source::Op(op) => found.extend(op.state()),
            _ => {}
        }
    }
    found.extend(function.settings.iter().map(|(_, param, _)| param.clone()));
    found.sort_by_key(Param::id);
    found.dedup();
    found
}

impl Plan {
    /// Plans `function` for a device with `caps`, its parameters lying where `place` says, with these choices of
    /// kernels.
    ///
    /// # Errors
    /// The first mistake made while the graph was built; a tensor beyond the device's limits.
    pub fn new(function: &Function, caps: &Caps, place: &dyn Fn(&Param) -> Place, choices: &Choices) -> Result<Plan> {
        function.check()?;
        let fused = fuse(function, caps.storage_buffers);
        let inner = function.graph.inner();
        let mut planner = Planner::new(&inner, caps, place, choices, &fused);
        for (at, unit) in fused.units.iter().enumerate() {
            planner.unit(at, unit)?;
        }
        let asked = function.outputs.iter().map(|tensor| (tensor.value(), tensor.desc().clone()));
        planner.finish(asked.zip(fused.outputs.iter().copied()))
    }

    /// Plans one unit of [`Plan::works`] alone: what it reads is written from outside.
    pub fn isolated(function: &Function, caps: &Caps, place: &dyn Fn(&Param) -> Place, unit: usize) -> Result<Plan> {
        let whole = fuse(function, caps.storage_buffers);
        let inner = function.graph.inner();
        let choices = Choices::default();
        let outputs = Planner::new(&inner, caps, place, &choices, &whole);
        let unit = whole.units[unit].clone();
        let outputs = unit.outputs.iter().copied().filter(|value| outputs.last.contains_key(value)).collect();
        let fused = Fused { units: vec![unit], outputs };
        let mut planner = Planner { isolated: true, ..Planner::new(&inner, caps, place, &choices, &fused) };
        planner.unit(0, &fused.units[0])?;
        let outputs: Vec<_> =
            fused.outputs.iter().map(|&value| ((value, planner.desc(value).clone()), value)).collect();
        planner.finish(outputs.into_iter())
    }

    /// Bytes of all the program's own buffers and textures.
    pub fn bytes(&self) -> usize {
        let textures = self.textures.iter().map(Texture::bytes).sum::<usize>();
        self.buffers.iter().map(|b| b.bytes).sum::<usize>() + textures
    }
}

struct Planner<'a> {
    inner: &'a Inner,
    caps: &'a Caps,
    place: &'a dyn Fn(&Param) -> Place,
    /// For each value, the last unit that reads it; `usize::MAX` for outputs.
    last: HashMap<Value, usize>,
    regions: HashMap<Value, Region>,
    /// Values that go into a buffer shared by an op's packed inputs.
    packed: HashMap<Value, Region>,
    packs: HashMap<Vec<Value>, (Region, Vec<usize>)>,
    free: Vec<usize>,
    tables: HashMap<Arc<[u32]>, usize>,
    buffers: Vec<Buffer>,
    textures: Vec<Texture>,
    steps: Vec<Step>,
    emitted: usize,
    inputs: Vec<Port>,
    choices: &'a Choices,
    works: Vec<Work>,
    /// What was not computed is an input.
    isolated: bool,
}

impl<'a> Planner<'a> {
    fn new(
        inner: &'a Inner,
        caps: &'a Caps,
        place: &'a dyn Fn(&Param) -> Place,
        choices: &'a Choices,
        fused: &Fused,
    ) -> Self {
        let mut planner = Planner {
            inner,
            caps,
            place,
            last: HashMap::new(),
            regions: HashMap::new(),
            packed: HashMap::new(),
            packs: HashMap::new(),
            free: Vec::new(),
            tables: HashMap::new(),
            buffers: Vec::new(),
            textures: Vec::new(),
            steps: Vec::new(),
            emitted: 0,
            inputs: Vec::new(),
            choices,
            works: Vec::new(),
            isolated: false,
        };
        for (at, unit) in fused.units.iter().enumerate() {
            let operands = unit.expr.iter().flat_map(|e| &e.operands).map(|o| o.value);
            for value in unit.inputs.iter().copied().chain(operands) {
                planner.last.insert(value, at);
            }
        }
        for &value in &fused.outputs {
            planner.last.insert(value, usize::MAX);
        }
        planner.pack(fused);
        planner
    }

    fn desc(&self, value: Value) -> &'a Desc {
        &self.inner.nodes[value.node].outputs[value.output]
    }

    /// Lays out the buffers of packed inputs; values that only those ops read are computed right into them.
    fn pack(&mut self, fused: &Fused) {
        let packs = |unit: &Unit| self.inner.nodes[unit.node].op().map_or(0, |op| op.packed(unit.inputs.len()));
        let mut others: HashMap<Value, bool> = fused.outputs.iter().map(|&v| (v, true)).collect();
        for unit in &fused.units {
            let own = packs(unit);
            let operands = unit.expr.iter().flat_map(|e| &e.operands).map(|o| o.value);
            for value in unit.inputs[own.min(unit.inputs.len())..].iter().copied().chain(operands) {
                others.insert(value, true);
            }
        }
        let produced: Vec<Value> = fused.units.iter().flat_map(|u| u.outputs.iter().copied()).collect();
        for unit in &fused.units {
            let own = packs(unit);
            let key = unit.inputs[..own].to_vec();
            if own == 0 || self.packs.contains_key(&key) {
                continue;
            }
            let mut offsets: HashMap<Value, usize> = HashMap::new();
            let mut total = 0;
            for &value in &key {
                offsets.entry(value).or_insert_with(|| {
                    let offset = total;
                    let bytes = self.inner.nodes[value.node].outputs[value.output].bytes();
                    total += bytes.next_multiple_of(256) + self.caps.guard.next_multiple_of(256);
                    offset
                });
            }
            let memory = Memory::Own(self.buffers.len());
            self.buffers.push(Buffer { bytes: self.padded(total), constant: None });
            for (&value, &offset) in &offsets {
                let bytes = self.desc(value).bytes();
                let free = !others.contains_key(&value) && produced.contains(&value);
                if free && !self.packed.contains_key(&value) {
                    self.packed.insert(value, Region { memory, offset, bytes });
                }
            }
            let offsets = key.iter().map(|v| offsets[v]).collect();
            self.packs.insert(key, (Region { memory, offset: 0, bytes: total }, offsets));
        }
    }

    /// Bytes of a buffer that holds `bytes` bytes: whole vec4s, and the guard.
    fn padded(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(GRAIN).max(GRAIN) + self.caps.guard
    }

    fn limit(&self, what: String, bytes: usize) -> Result<()> {
        let most = self.caps.binding.min(self.caps.buffer);
        if bytes as u64 <= most {
            return Ok(());
        }
        Err(Error::Limit {
            what,
            need: format!("{bytes} bytes in one buffer"),
            limit: format!("{most} bytes"),
            remedy: "split the tensor or use a smaller batch".into(),
        })
    }

    /// A buffer of the program for `bytes` bytes: the smallest free one that fits, else a new one.
    fn allocate(&mut self, what: &str, bytes: usize) -> Result<Region> {
        let padded = self.padded(bytes);
        self.limit(what.into(), padded)?;
        // A much larger buffer is left for a tensor that needs it.
        let fits = |&(_, size): &(usize, usize)| size >= padded && size <= 2 * padded.max(4096);
        let free = self.free.iter().map(|&id| (id, self.buffers[id].bytes)).filter(fits).min_by_key(|&(_, size)| size);
        let id = match free {
            Some((id, _)) => {
                self.free.retain(|&other| other != id);
                id
            }
            None => {
                self.buffers.push(Buffer { bytes: padded, constant: None });
                self.buffers.len() - 1
            }
        };
        Ok(Region { memory: Memory::Own(id), offset: 0, bytes })
    }

    /// A texture for a candidate to write and read; candidates run one after the other, so one serves all.
    fn texels(&mut self, elements: usize) -> usize {
        let texel = Texel { dtype: DType::F32, four: false };
        let known = self.textures.iter().position(|texture| texture.texel == texel);
        let id = known.unwrap_or_else(|| {
            self.textures.push(Texture { texel, rows: 0 });
            self.textures.len() - 1
        });
        self.textures[id].rows = self.textures[id].rows.max(elements.div_ceil(mirror::ROW));
        id
    }

    fn constant(&mut self, words: &Arc<[u32]>) -> Region {
        let id = match self.tables.get(words) {
            Some(&id) => id,
            None => {
                let bytes = self.padded(words.len() * 4);
                self.buffers.push(Buffer { bytes, constant: Some(words.clone()) });
                self.tables.insert(words.clone(), self.buffers.len() - 1);
                self.buffers.len() - 1
            }
        };
        Region { memory: Memory::Own(id), offset: 0, bytes: words.len() * 4 }
    }

    /// Where a value is; leaves get their place at the first question.
    fn region(&mut self, value: Value) -> Result<Region> {
        if let Some(region) = self.regions.get(&value) {
            return Ok(*region);
        }
        let node = &self.inner.nodes[value.node];
        let region = match &node.source {
            Source::Param(param) => self.param(param),
            Source::Constant(words) => self.constant(words),
            Source::Input(name) => self.input(value, name.clone())?,
            Source::Op(op) if self.isolated => self.input(value, op.name().into())?,
            Source::Op(op) => {
                let message = format!("the node {} was read before it was computed", op.name());
                return Err(Error::argument("plan", message));
            }
        };
        self.regions.insert(value, region);
        Ok(region)
    }

    fn input(&mut self, value: Value, name: String) -> Result<Region> {
        let desc = self.desc(value);
        let bytes = desc.bytes();
        let padded = self.padded(bytes);
        self.limit(format!("the input {desc}"), padded)?;
        self.buffers.push(Buffer { bytes: padded, constant: None });
        let region = Region { memory: Memory::Own(self.buffers.len() - 1), offset: 0, bytes };
        let allowed = self.inner.bounds.get(&value.node).cloned();
        self.inputs.push(Port { value, name, desc: desc.clone(), region, allowed });
        Ok(region)
    }

    fn param(&self, param: &Param) -> Region {
        let place = (self.place)(param);
        Region { memory: Memory::Slab(place.slab), offset: place.offset * 4, bytes: param.desc().bytes() }
    }

    /// Plans one unit: places its outputs, chooses its kernels, frees what it read last.
    fn unit(&mut self, at: usize, unit: &Unit) -> Result<()> {
        let node = &self.inner.nodes[unit.node];
        let Some(op) = node.op().cloned() else { return Ok(()) };
        let mut inputs = Vec::new();
        for &value in &unit.inputs {
            inputs.push(self.region(value)?);
        }
        let mut operands = Vec::new();
        for operand in unit.expr.iter().flat_map(|e| &e.operands) {
            operands.push(self.region(operand.value)?);
        }
        let (pack, offsets) = match self.packs.get(&unit.inputs[..op.packed(unit.inputs.len()).min(unit.inputs.len())])
        {
            Some((region, offsets)) if op.packed(unit.inputs.len()) > 0 => (Some(*region), offsets.clone()),
            _ => (None, Vec::new()),
        };
        if let Some(pack) = pack {
            self.gather_pack(&unit.inputs[..op.packed(unit.inputs.len())], &inputs, pack, &offsets)?;
        }
        let used: Vec<bool> = unit.outputs.iter().map(|value| self.last.contains_key(value)).collect();
        if !unit.outputs.is_empty() && unit.outputs.iter().all(|&v| self.desc(v).elements() == 0) {
            self.place_outputs(unit, &used)?;
            self.release(at, unit);
            return Ok(());
        }
        let state: Vec<Param> = op.state();
        let places: Vec<Place> = state.iter().map(|p| (self.place)(p)).collect();
        let in_descs: Vec<Desc> = unit.inputs.iter().zip(&node.inputs).map(|(_, v)| self.desc(*v).clone()).collect();
        let out_descs: Vec<Desc> = unit.outputs.iter().map(|v| self.desc(*v).clone()).collect();
        let element_offsets: Vec<usize> = offsets.iter().map(|o| o / 4).collect();
        let candidate = if unit.pointwise {
            pointwise::lower(unit, &out_descs[0], self.caps)
        } else {
            let (inputs, outputs) = (&in_descs, &node.outputs);
            let (views, pack) = (&unit.views, &element_offsets);
            let io = Io { inputs, views, outputs, used: &used, state: &places, pack };
            let all = choose::permitted(&*op, &io, self.caps);
            let work = choose::work(at, &*op, &io, &all);
            let Some(mut chosen) = choose::pick(all, self.caps, work.as_ref(), self.choices) else {
                return Err(Error::argument(op.name(), choose::none_left(self.caps)));
            };
            self.works.extend(work);
            if let (Some(expr), Some(kernel)) = (&unit.expr, chosen.kernels.last_mut()) {
                pointwise::attach(expr, unit.inputs.len(), kernel);
            }
            chosen
        };
        let bound = |n| candidate.kernels.iter().any(|kernel| kernel.args.contains(&Arg::Out(n)));
        let needed: Vec<bool> = used.iter().enumerate().map(|(n, used)| *used || bound(n)).collect();
        let outputs = self.place_outputs(unit, &needed)?;
        let flops = op.flops(&in_descs, &out_descs)
            + unit.expr.as_ref().map_or(0, |e| (e.lines.len() * out_descs[0].elements()) as u64);
        let wiring = Wiring { inputs: [inputs, operands].concat(), outputs, state, pack };
        self.emit(&unit.label, candidate, &wiring, flops)?;
        self.release(at, unit);
        Ok(())
    }

    /// Gives the outputs that are needed their memory.
    fn place_outputs(&mut self, unit: &Unit, needed: &[bool]) -> Result<Vec<Region>> {
        let mut outputs = Vec::new();
        for (&value, &needed) in unit.outputs.iter().zip(needed) {
            let desc = self.desc(value);
            let region = match self.packed.get(&value) {
                Some(region) => *region,
                None if needed => self.allocate(&format!("{} ({desc})", unit.label), desc.bytes())?,
                None => Region { memory: Memory::Own(usize::MAX), offset: 0, bytes: 0 },
            };
            if needed {
                self.regions.insert(value, region);
            }
            outputs.push(region);
        }
        Ok(outputs)
    }

    /// Copies packed inputs that were not computed in place.
    fn gather_pack(&mut self, values: &[Value], inputs: &[Region], pack: Region, offsets: &[usize]) -> Result<()> {
        for ((&value, &from), &offset) in values.iter().zip(inputs).zip(offsets) {
            let to = Region { memory: pack.memory, offset, bytes: from.bytes };
            if from == to || from.bytes == 0 {
                continue;
            }
            let candidate = pointwise::copy(self.desc(value), self.caps);
            let wiring = Wiring { inputs: vec![from], outputs: vec![to], state: Vec::new(), pack: None };
            self.emit("copy", candidate, &wiring, 0)?;
        }
        Ok(())
    }

    /// Turns a candidate's kernels into steps.
    fn emit(&mut self, label: &str, candidate: Candidate, wiring: &Wiring, flops: u64) -> Result<()> {
        let mut scratch = Vec::new();
        for &bytes in &candidate.scratch {
            scratch.push(self.allocate(&format!("scratch of {label}"), bytes)?);
        }
        let texels: Vec<usize> = candidate.texels.iter().map(|&elements| self.texels(elements)).collect();
        let mut flops = Some(flops);
        self.emitted += 1;
        for kernel in candidate.kernels {
            let mut bindings = Vec::new();
            for arg in &kernel.args {
                let mut texture = None;
                let region = match arg {
                    Arg::Texels(n) => {
                        texture = Some(texels[*n]);
                        Region { memory: Memory::Own(usize::MAX), offset: 0, bytes: 0 }
                    }
                    Arg::In(n) => wiring.inputs[*n],
                    Arg::Out(n) => wiring.outputs[*n],
                    Arg::ScratchIn(n) | Arg::ScratchOut(n) => scratch[*n],
                    Arg::Table(words) => self.constant(words),
                    Arg::State(n) => self.param(&wiring.state[*n]),
                    Arg::Slab(n) => {
                        let region = self.param(&wiring.state[*n]);
                        Region { offset: 0, bytes: usize::MAX, ..region }
                    }
                    Arg::Pack => wiring.pack.ok_or_else(|| Error::argument(label, "it has no packed inputs"))?,
                };
                bindings.push(Binding { region, writes: arg.writes(), texture });
            }
            if kernel.grid.iter().any(|&g| g > self.caps.groups) {
                return Err(Error::Limit {
                    what: format!("the grid of {label}"),
                    need: format!("{:?} workgroups", kernel.grid),
                    limit: format!("{} along each axis", self.caps.groups),
                    remedy: "use a smaller batch".into(),
                });
            }
            let sized = bindings.iter().map(|b| b.region.bytes).filter(|&bytes| bytes != usize::MAX);
            self.steps.push(Step {
                label: label.into(),
                candidate: candidate.name,
                bytes: sized.sum(),
                unit: self.emitted,
                state: wiring.state.clone(),
                source: wgsl::specialise(&kernel)?,
                kernel,
                bindings,
                flops: flops.take().unwrap_or(0),
            });
        }
        for region in scratch {
            self.give_back(region);
        }
        Ok(())
    }

    fn give_back(&mut self, region: Region) {
        if let Memory::Own(id) = region.memory {
            self.free.push(id);
        }
    }

    /// The plan, with these outputs: what was asked for, and the value that it is.
    fn finish(mut self, outputs: impl Iterator<Item = ((Value, Desc), Value)>) -> Result<Plan> {
        let mut ports = Vec::new();
        for ((value, desc), place) in outputs {
            let (region, name) = (self.region(place)?, self.inner.nodes[place.node].name());
            ports.push(Port { value, name, desc, region, allowed: None });
        }
        let Planner { inner, caps, buffers, textures, steps, inputs, works, .. } = self;
        let checked = inner.custom;
        let mut plan = Plan { buffers, textures, steps, inputs, outputs: ports, works, checked };
        mirror::mirror(&mut plan, caps);
        wide::widen(&mut plan, caps);
        Ok(plan)
    }

    /// Frees the buffers of values that no later unit reads.
    fn release(&mut self, at: usize, unit: &Unit) {
        let operands = unit.expr.iter().flat_map(|e| &e.operands).map(|o| o.value);
        let mut done: Vec<Value> = unit.inputs.iter().copied().chain(operands).collect();
        done.extend(unit.outputs.iter().copied());
        done.sort_unstable();
        done.dedup();
        for value in done {
            let dead = self.last.get(&value).is_none_or(|&last| last <= at);
            let computed = self.inner.nodes[value.node].op().is_some();
            if dead
                && computed
                && !self.packed.contains_key(&value)
                && let Some(region) = self.regions.get(&value).copied()
            {
                self.give_back(region);
            }
        }
    }
}

struct Wiring {
    inputs: Vec<Region>,
    outputs: Vec<Region>,
    state: Vec<Param>,
    pack: Option<Region>,
}
