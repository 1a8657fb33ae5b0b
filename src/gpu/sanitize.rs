//! The sanitizer: runs a program one dispatch at a time and examines what each of them wrote.
//!
//! Under it every region of memory is bound together with a guard behind it. Before a dispatch the guards are filled
//! with one pattern and the outputs with another; afterwards these show
//! - writes past the end: a guard no longer holds its pattern;
//! - elements never written: an output still holds its own;
//! - reads past the end of an input: the guard's pattern, which is a NaN, turns up in an output;
//! - NaNs that the kernel made: none of what it read had one;
//! - state of others: a slab's bytes changed outside the parameters that the op declares.
//!
//! A write or read further away than a guard is long goes unseen, and so does a read past the end of a parameter,
//! whose neighbour in the slab follows it, and whatever happens in a scratch texture.

use super::program::record;
use super::{Gpu, Program};
use crate::graph::plan::{Binding, Memory, Region, Step};
use crate::graph::{Arg, DType, Param};
use crate::{Error, Result};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ImageClass, ScalarKind, StorageFormat, TypeInner};
use std::ops::Range;

/// Bytes of a guard: four elements for each of the 256 invocations that a rounded-up grid may have too many.
pub(super) const GUARD_BYTES: usize = 4096;

/// What outputs hold before a kernel writes them: a quiet NaN that no arithmetic makes.
const POISON: u32 = 0x7fea_5ad1;
/// What lies behind the end of a region: another one.
const GUARD: u32 = 0x7fe9_0a2d;

/// What an entry point declares one of its bindings to be.
#[derive(Clone, Copy)]
struct Layout {
    /// Words in an array element: 4 for `array<vec4<f32>>`, whose last element may reach into a region's padding.
    words: usize,
    float: bool,
}

/// What a program's dispatches declare, for the checks that [`Sanitizer::run`] makes.
pub(super) struct Sanitizer {
    layouts: Vec<Vec<Layout>>,
}

impl Sanitizer {
    pub fn new(steps: &[Step]) -> Result<Sanitizer> {
        Ok(Sanitizer { layouts: steps.iter().map(layouts).collect::<Result<_>>()? })
    }

    /// Runs `program` to its end or to the first finding.
    pub fn run(&self, program: &Program) -> Result<()> {
        for (at, (step, layouts)) in program.plan.steps.iter().zip(&self.layouts).enumerate() {
            Watch { program, step, at, layouts }.run()?;
        }
        Ok(())
    }
}

/// The layouts of a step's bindings, from the text of its kernel.
fn layouts(step: &Step) -> Result<Vec<Layout>> {
    let fail = |message: String| Error::Shader { shader: step.kernel.shader.name.into(), message };
    let module = naga::front::wgsl::parse_str(&step.source).map_err(|e| fail(e.to_string()))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|error| fail(format!("{error:?}")))?;
    let entry = module.entry_points.iter().position(|entry| entry.name == step.kernel.entry);
    let entry = entry.ok_or_else(|| fail(format!("it has no entry point {:?}", step.kernel.entry)))?;
    let mut layouts = vec![Layout { words: 1, float: false }; step.bindings.len()];
    for (handle, variable) in module.global_variables.iter() {
        let used = !info.get_entry_point(entry)[handle].is_empty();
        let place = variable.binding.as_ref().and_then(|binding| layouts.get_mut(binding.binding as usize));
        if let (AddressSpace::Storage { .. } | AddressSpace::Handle, true, Some(layout)) = (variable.space, used, place)
        {
            *layout = Layout::of(&module, variable.ty);
        }
    }
    Ok(layouts)
}

impl Layout {
    fn of(module: &naga::Module, ty: naga::Handle<naga::Type>) -> Layout {
        let float = |ty: naga::Handle<naga::Type>| {
            let scalar = module.types[ty].inner.scalar();
            scalar.is_some_and(|scalar| scalar.kind == ScalarKind::Float)
        };
        match module.types[ty].inner {
            TypeInner::Image { class: ImageClass::Storage { format, .. }, .. } => Layout {
                words: if matches!(format, StorageFormat::R32Float | StorageFormat::R32Uint | StorageFormat::R32Sint) {
                    1
                } else {
                    4
                },
                float: matches!(format, StorageFormat::R32Float | StorageFormat::Rgba32Float),
            },
            TypeInner::Array { base, stride, .. } => Layout { words: (stride as usize / 4).max(1), float: float(base) },
            _ => Layout { words: 1, float: float(ty) },
        }
    }
}

fn is_nan(word: u32) -> bool {
    word & 0x7fff_ffff > 0x7f80_0000 && word != POISON && word != GUARD
}

/// A slab as it was before a dispatch that may write to it.
struct Snapshot {
    id: u64,
    words: Vec<u32>,
}

/// One dispatch under examination.
struct Watch<'a> {
    program: &'a Program,
    step: &'a Step,
    /// The step's place in the plan.
    at: usize,
    layouts: &'a [Layout],
}

impl Watch<'_> {
    fn run(&self) -> Result<()> {
        let mut before: Vec<Option<Vec<u32>>> = Vec::new();
        for n in 0..self.step.bindings.len() {
            before.push(self.prepare(n)?);
        }
        let slabs = self.slabs()?;
        self.dispatch()?;
        for (n, before) in before.iter().enumerate() {
            if self.output(n).is_some() {
                self.examine(n, before.as_deref(), &slabs)?;
            }
        }
        slabs.iter().try_for_each(|slab| self.examine_slab(slab, &slabs))
    }

    fn dispatch(&self) -> Result<()> {
        self.gpu().guarded("running", || {
            let mut encoder = self.gpu().device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            record(std::slice::from_ref(&self.program.dispatches[self.at]), &mut encoder);
            self.gpu().queue().submit([encoder.finish()]);
        })
    }

    fn gpu(&self) -> &Gpu {
        &self.program.gpu
    }

    /// The region of binding `n`, if it is an output: written, and no state.
    fn output(&self, n: usize) -> Option<Region> {
        let Binding { region, writes, texture } = self.step.bindings[n];
        (writes && texture.is_none() && matches!(region.memory, Memory::Own(_))).then_some(region)
    }

    /// Elements of a region, elements that a kernel may touch for binding `n`, and elements with the guard.
    fn extents(&self, n: usize) -> (usize, usize, usize) {
        let bytes = self.step.bindings[n].region.bytes;
        let padded = bytes.next_multiple_of(16).max(16) / 4;
        let reach = (bytes / 4).next_multiple_of(self.layouts[n].words).min(padded);
        (bytes / 4, reach, padded + self.gpu().caps().guard / 4)
    }

    /// Whether a dispatch of the same candidate writes `region` among these steps.
    fn written(&self, region: Region, steps: Range<usize>) -> bool {
        let steps = self.program.plan.steps[steps].iter().filter(|step| step.unit == self.step.unit);
        steps.flat_map(|step| &step.bindings).any(|other| other.writes && other.region == region)
    }

    /// Fills the guard behind binding `n`, and the output if it is one; gives its contents where an earlier dispatch
    /// of the candidate wrote a part of it.
    fn prepare(&self, n: usize) -> Result<Option<Vec<u32>>> {
        let Binding { region, writes, texture } = self.step.bindings[n];
        // Neither slabs nor scratch textures have guards.
        if matches!(region.memory, Memory::Slab(_)) || (writes && texture.is_some()) {
            return Ok(None);
        }
        let (elements, reach, all) = self.extents(n);
        self.fill(region, reach..all, GUARD)?;
        match self.output(n) {
            Some(region) if self.written(region, 0..self.at) => Ok(Some(self.read(region, elements)?)),
            Some(region) => self.fill(region, 0..reach, POISON).map(|()| None),
            None => Ok(None),
        }
    }

    fn fill(&self, region: Region, range: Range<usize>, word: u32) -> Result<()> {
        let offset = (region.offset + range.start * 4) as u64;
        let words = vec![word; range.len()];
        self.gpu().guarded("preparing the sanitizer", || {
            let buffer = self.program.memory(region.memory);
            self.gpu().queue().write_buffer(buffer, offset, bytemuck::cast_slice(&words));
        })
    }

    fn read(&self, region: Region, elements: usize) -> Result<Vec<u32>> {
        self.gpu().fetch(self.program.memory(region.memory), region.offset as u64, elements * 4)?.wait()
    }

    fn read_slab(&self, id: u64) -> Result<Vec<u32>> {
        let memory = Memory::Slab(id);
        let bytes = self.program.memory(memory).size() as usize;
        self.read(Region { memory, offset: 0, bytes }, bytes / 4)
    }

    /// Every slab that this dispatch may write to.
    fn slabs(&self) -> Result<Vec<Snapshot>> {
        let written = self.step.bindings.iter().filter(|binding| binding.writes);
        let mut ids: Vec<u64> = written
            .filter_map(|binding| match binding.region.memory {
                Memory::Slab(id) => Some(id),
                Memory::Own(_) => None,
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(|id| Ok(Snapshot { id, words: self.read_slab(id)? })).collect()
    }

    /// Examines what was written through binding `n`, an output.
    fn examine(&self, n: usize, before: Option<&[u32]>, slabs: &[Snapshot]) -> Result<()> {
        let region = self.step.bindings[n].region;
        let (elements, reach, all) = self.extents(n);
        let words = self.read(region, all)?;
        let (inside, guard) = (&words[..elements], &words[reach..]);
        if let Some(at) = guard.iter().position(|&w| w != GUARD) {
            let count = guard.iter().filter(|&&w| w != GUARD).count();
            let fault = format!("lies past the end (of {elements} elements), but was written ({count} in all)");
            return Err(self.finding(n, reach + at, fault));
        }
        let find = |wrong: &dyn Fn(usize, u32) -> bool| {
            let mut all = inside.iter().enumerate().filter(|&(i, &word)| wrong(i, word)).map(|(i, _)| i);
            all.next().map(|first| (first, format!("({} of {elements} elements)", all.count() + 1)))
        };
        let last = !self.written(region, self.at + 1..self.program.plan.steps.len());
        if let (true, Some((at, count))) = (last, find(&|_, word| word == POISON)) {
            return Err(self.finding(n, at, format!("was never written, or is made from what was there {count}")));
        }
        let old = |i: usize| before.map_or(POISON, |before| before[i]);
        if let Some((at, count)) = find(&|i, word| word == GUARD && old(i) != GUARD) {
            return Err(self.finding(n, at, format!("was read from past the end of an input {count}")));
        }
        let nan = find(&|i, word| self.layouts[n].float && is_nan(word) && !is_nan(old(i)));
        if let Some((at, count)) = nan
            && !self.read_nan(slabs)?
        {
            return Err(self.finding(n, at, format!("is NaN, though nothing that the kernel read is {count}")));
        }
        Ok(())
    }

    /// Whether something that the dispatch read was NaN.
    fn read_nan(&self, slabs: &[Snapshot]) -> Result<bool> {
        // Words may hold two f16 where the kernel unpacks such.
        let halves = self.step.source.contains("unpack2x16float");
        let of_halves = |word: u32| [word, word >> 16].iter().any(|half| half & 0x7fff > 0x7c00);
        for (&Binding { region, writes, .. }, layout) in self.step.bindings.iter().zip(self.layouts) {
            if writes || !(layout.float || halves) {
                continue;
            }
            let nan = |word| if layout.float { is_nan(word) } else { of_halves(word) };
            if self.read(region, region.bytes / 4)?.into_iter().any(nan) {
                return Ok(true);
            }
        }
        for (param, range, slab) in self.declared(slabs)? {
            let words = slab.words.get(range).unwrap_or_default();
            if param.desc().dtype == DType::F32 && words.iter().copied().any(is_nan) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The parameters that the op declares to change, with their words in those of `slabs` that hold them.
    fn declared<'s>(&self, slabs: &'s [Snapshot]) -> Result<Vec<(&Param, Range<usize>, &'s Snapshot)>> {
        let mut found = Vec::new();
        for param in &self.step.state {
            let place = self.gpu().stored(param)?.place();
            if let Some(slab) = slabs.iter().find(|slab| slab.id == place.slab) {
                found.push((param, place.offset..place.offset + param.desc().words(), slab));
            }
        }
        Ok(found)
    }

    /// Examines what became of a slab.
    fn examine_slab(&self, slab: &Snapshot, slabs: &[Snapshot]) -> Result<()> {
        let after = self.read_slab(slab.id)?;
        let written =
            |n: &usize| self.step.bindings[*n].writes && self.step.bindings[*n].region.memory == Memory::Slab(slab.id);
        let bindings: Vec<usize> = (0..self.step.bindings.len()).filter(written).collect();
        let whole = bindings.iter().map(|&n| self.layouts[n].words).max().unwrap_or(1);
        let declared = self.declared(std::slice::from_ref(slab))?;
        let own = |at: usize| {
            declared
                .iter()
                .any(|(_, range, _)| (range.start..range.start + range.len().next_multiple_of(whole)).contains(&at))
        };
        // The binding that begins last before a word is the one it is counted from.
        let locate = |at: usize| {
            let start = |n: &&usize| self.step.bindings[**n].region.offset / 4;
            let n = bindings.iter().filter(|n| start(n) <= at).max_by_key(start).copied().unwrap_or_default();
            (n, at.saturating_sub(self.step.bindings[n].region.offset / 4))
        };
        let changed = |at: &usize| slab.words[*at] != after[*at] && !own(*at);
        if let Some(at) = (0..after.len()).find(changed) {
            let (n, element) = locate(at);
            let place = self.describe(slab.id, at)?;
            return Err(self.finding(n, element, format!("{place} was changed, which the op does not declare")));
        }
        for (param, range, _) in &declared {
            let Some(at) = range.clone().find(|&at| is_nan(after[at]) && !is_nan(slab.words[at])) else { continue };
            if param.desc().dtype == DType::F32 && !self.read_nan(slabs)? {
                let (n, element) = locate(at);
                let place = self.describe(slab.id, at)?;
                return Err(self.finding(
                    n,
                    element,
                    format!("{place} is NaN, though nothing that the kernel read is"),
                ));
            }
        }
        Ok(())
    }

    /// The parameter and element at a word of a slab.
    fn describe(&self, slab: u64, at: usize) -> Result<String> {
        for param in &self.program.params {
            let place = self.gpu().stored(param)?.place();
            if place.slab == slab && (place.offset..place.offset + param.desc().words()).contains(&at) {
                return Ok(format!("(element {} of the parameter {})", at - place.offset, param.name()));
            }
        }
        Ok("(in no parameter of this program)".into())
    }

    fn finding(&self, n: usize, element: usize, fault: String) -> Error {
        let kernel = &self.step.kernel;
        let what = match &kernel.args[n] {
            Arg::Out(n) => format!("output {n}"),
            Arg::ScratchOut(n) => format!("scratch {n}"),
            Arg::State(n) => format!("state {n}"),
            Arg::Slab(n) => format!("the slab of state {n}"),
            read => format!("{read:?}"),
        };
        Error::Sanitizer {
            kernel: format!("{}:{}", kernel.shader.name, kernel.entry),
            candidate: self.step.candidate,
            node: self.step.label.clone(),
            binding: format!("{n} ({what})"),
            element,
            fault,
        }
    }
}
