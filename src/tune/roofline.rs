//! What a device can do at the most, measured: the roofs of the roofline model (Williams, Waterman and Patterson,
//! "Roofline", CACM 52(4), 2009).

use super::file::CacheFile;
use super::load::Watch;
use crate::gpu::{RawBuffer, Trust};
use crate::graph::{Kernel, wgsl};
use crate::ops::gemm::of_matrices;
use crate::{DType, Gpu, Graph, Result, shader};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::iter::once_with;

/// A device's measured limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roofline {
    /// f32 multiply-adds from registers, in GFLOP/s.
    pub arithmetic: f64,
    /// The same of f16 in pairs, where shaders have it.
    pub halves: Option<f64>,
    /// Products of cooperative matrices in registers, summed in f32, where the device has them: what is multiplied (as
    /// `f16 16x16`), and GFLOP/s.
    pub matrices: BTreeMap<String, f64>,
    /// Reading storage buffers, in GB/s.
    pub read: f64,
    /// Copying from one to another, read and written, in GB/s.
    pub copy: f64,
    /// y = x + 3 z, in GB/s.
    pub triad: f64,
    /// Reading workgroup memory, in GB/s.
    pub workgroup: f64,
}

/// Which roof is the lower one for some work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roof {
    /// Arithmetic.
    Compute,
    /// Memory.
    Memory,
}

impl fmt::Display for Roof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Roof::Compute { "compute" } else { "memory" })
    }
}

/// Bytes of each buffer, where a binding may be so large: beyond the caches of most devices.
const BYTES: usize = 256 << 20;
/// Invocations of the arithmetic.
const INVOCATIONS: usize = 1 << 16;
/// Each measurement counts with the best of so many, as others can only take away from it.
const REPEATS: usize = 15;

impl Roofline {
    /// The device's memory bandwidth, by the kernel that reaches most, in GB/s.
    pub fn memory(&self) -> f64 {
        self.read.max(self.copy).max(self.triad)
    }

    /// The rate of sums in f32 of products of this type, by whichever units are fastest, in GFLOP/s.
    pub fn products(&self, factors: DType) -> f64 {
        let of = self.matrices.iter().filter(|(name, _)| name.starts_with(&factors.to_string()));
        of.map(|(_, rate)| *rate).fold(self.arithmetic, f64::max)
    }

    /// The least time for this many operations on such factors and bytes in microseconds, and the roof that sets it.
    pub fn bound(&self, factors: DType, flops: f64, bytes: f64) -> (f64, Roof) {
        let (compute, memory) = (flops / self.products(factors) / 1e3, bytes / self.memory() / 1e3);
        if compute >= memory { (compute, Roof::Compute) } else { (memory, Roof::Memory) }
    }

    /// As it was measured before on this adapter and driver with these shaders, or measured now, which takes about half a
    /// minute; `progress` hears what is measured. `fresh` measures in any case. What was measured while other programs
    /// kept the machine [busy](super::busy) is measured anew when they no longer do, and warned of meanwhile.
    ///
    /// # Errors
    /// What the device reports. A file that cannot be written is only warned of.
    pub fn of(gpu: &Gpu, fresh: bool, progress: &mut dyn FnMut(&str)) -> Result<Roofline> {
        let file = CacheFile::of("roofline", gpu.info(), gpu.caps(), gpu.checked());
        let shaders =
            [shader!("roofline.wgsl"), shader!("pointwise.wgsl"), shader!("reduce.wgsl"), shader!("reduce_lines.wgsl")];
        let source = shaders.map(|shader| wgsl::fingerprint(&shader)).join(" ");
        let known = file.load().filter(|value| value["shader"] == source.as_str());
        if let (false, Some(known)) = (fresh, &known)
            && let Some(roofline) = Roofline::from_value(known)
        {
            let disturbed = known["busy"].as_f64();
            if disturbed.is_none() || super::busy().is_some() {
                warn_if_disturbed(disturbed);
                return Ok(roofline);
            }
        }
        let watch = Watch::start();
        let roofline = Roofline::measure(gpu, progress)?;
        let busy = watch.and_then(|watch| watch.busy());
        warn_if_disturbed(busy);
        let mut value = roofline.to_value();
        value["shader"] = source.into();
        value["busy"] = busy.into();
        if let Err(error) = file.save(|| value.clone()) {
            log::warn!("the device's limits are not kept: {error}");
        }
        Ok(roofline)
    }

    /// Measures; `progress` hears what.
    ///
    /// # Errors
    /// What the device reports.
    pub fn measure(gpu: &Gpu, progress: &mut dyn FnMut(&str)) -> Result<Roofline> {
        let mut best = |what: &str, rates: &mut dyn Iterator<Item = Result<f64>>| {
            progress(what);
            let mut best: f64 = 0.0;
            for rate in rates {
                best = best.max(rate?);
            }
            Ok(best)
        };
        let has = |feature| gpu.device().features().contains(feature);
        let chains = |halves| CHAINS.iter().map(move |&chains| arithmetic(gpu, chains, halves));
        let memory = |entry: &'static str| {
            // Integers are no terms of a triad.
            let elements = ELEMENTS.iter().filter(move |(name, _)| {
                !name.contains("u64") || (has(wgpu::Features::SHADER_INT64) && entry != "triad_memory")
            });
            elements
                .map(move |element| bandwidth(gpu, entry, *element))
                .chain(once_with(move || in_a_graph(gpu, entry)))
        };
        let halves = has(wgpu::Features::SHADER_F16);
        let mut matrices = BTreeMap::new();
        for of in &gpu.caps().matrices {
            let name = format!("{} {1}x{1}", of.0, of.1);
            let rate = best(&format!("matrices {name}"), &mut once_with(|| products(gpu, *of)))?;
            matrices.insert(name, rate);
        }
        Ok(Roofline {
            arithmetic: best("arithmetic", &mut chains(false))?,
            halves: if halves { Some(best("f16 arithmetic", &mut chains(true))?) } else { None },
            matrices,
            read: best("reading memory", &mut memory("read_memory"))?,
            copy: best("copying memory", &mut memory("copy_memory"))?,
            triad: best("y = x + 3 z", &mut memory("triad_memory"))?,
            workgroup: best("workgroup memory", &mut once_with(|| workgroup(gpu)))?,
        })
    }

    /// As JSON.
    pub fn to_value(&self) -> Value {
        json!({
            "arithmetic_gflops": self.arithmetic, "halves_gflops": self.halves,
            "matrices_gflops": self.matrices, "read_gbps": self.read, "copy_gbps": self.copy,
            "triad_gbps": self.triad, "workgroup_gbps": self.workgroup,
        })
    }

    fn from_value(value: &Value) -> Option<Roofline> {
        let number = |key: &str| value.get(key)?.as_f64().filter(|number| *number > 0.0);
        Some(Roofline {
            arithmetic: number("arithmetic_gflops")?,
            halves: number("halves_gflops"),
            matrices: serde_json::from_value(value.get("matrices_gflops")?.clone()).ok()?,
            read: number("read_gbps")?,
            copy: number("copy_gbps")?,
            triad: number("triad_gbps")?,
            workgroup: number("workgroup_gbps")?,
        })
    }
}

/// Says so if others had this share of the processors while the limits were measured.
fn warn_if_disturbed(share: Option<f64>) {
    if let Some(share) = share {
        log::warn!(
            "the roofs were measured while other programs used {:.0} % of the processors and may be too low, percentages of \
             them too high; they are measured anew when the machine is no longer busy",
            100.0 * share
        );
    }
}

impl fmt::Display for Roofline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Roofline { arithmetic, halves, matrices, read, copy, triad, workgroup } = self;
        write!(f, "arithmetic {arithmetic:.1}")?;
        halves.iter().try_for_each(|rate| write!(f, ", f16 {rate:.1}"))?;
        matrices.iter().try_for_each(|(name, rate)| write!(f, ", matrices {name} {rate:.1}"))?;
        write!(
            f,
            " GFLOP/s; memory: read {read:.1}, copy {copy:.1}, triad {triad:.1} GB/s; \
             workgroup memory {workgroup:.1} GB/s"
        )
    }
}

/// Sums in registers that are tried: which is best depends on latency and registers.
const CHAINS: [usize; 3] = [8, 12, 24];

/// What the memory kernels move at a time.
const ELEMENTS: [(&str, usize); 3] = [("f32", 1), ("vec4<f32>", 4), ("vec4<u64>", 8)];

/// The best rate, in 10^9 per second, of a kernel that does `work` in a run.
fn rate(gpu: &Gpu, kernel: &Kernel, buffers: &[RawBuffer], work: f64) -> Result<f64> {
    let text = wgsl::specialise(kernel)?;
    let kernel = gpu.raw(Trust::Own, &text, kernel.entry, &[], buffers, kernel.grid)?;
    best_of(gpu, work, |encoder| kernel.record(encoder, 1))
}

/// The best rate, in 10^9 per second, of what does `work` each time that it is recorded.
fn best_of(gpu: &Gpu, work: f64, mut record: impl FnMut(&mut wgpu::CommandEncoder)) -> Result<f64> {
    gpu.time(gpu.clock(), &mut record)?;
    let mut least = f64::INFINITY;
    for _ in 0..REPEATS {
        least = least.min(gpu.time(gpu.clock(), &mut record)?.max(1e-9));
    }
    Ok(work / least / 1e9)
}

fn kernel(entry: &'static str) -> Kernel {
    Kernel::new(shader!("roofline.wgsl"), entry)
}

fn buffer(binding: u32, words: usize) -> RawBuffer {
    RawBuffer { group: 0, binding, uniform: false, words: vec![0.5f32.to_bits(); words] }
}

/// Multiply-adds of f32, or of f16 in pairs.
fn arithmetic(gpu: &Gpu, chains: usize, halves: bool) -> Result<f64> {
    // CPU adapters convert f16 at every step, which takes much more code.
    let (turns, steps, width) = if halves { (512, 1, 2) } else { (1024, 4, 1) };
    let kernel = kernel("arithmetic").set("CHAINS", chains).set("STEPS", steps).set("TURNS", turns);
    let mut kernel = kernel.grid(gpu.caps().fold(INVOCATIONS / 64));
    if halves {
        kernel = kernel.replace("Number", "alias Number = vec2<f16>;");
        kernel = kernel.choose("number", "pair").choose("sum_of", "sum_of_pair");
    }
    rate(gpu, &kernel, &[buffer(3, INVOCATIONS)], (2 * width * chains * steps * turns * INVOCATIONS) as f64)
}

/// Chains of products of cooperative matrices, eight in each subgroup.
fn products(gpu: &Gpu, (dtype, size): (DType, u32)) -> Result<f64> {
    const TURNS: usize = 1024;
    const SUBGROUPS: usize = 4;
    let lanes = gpu.caps().subgroup.unwrap_or(1) as usize;
    let groups = INVOCATIONS / (SUBGROUPS * lanes);
    let kernel = Kernel::new(shader!("roofline_matrices.wgsl"), "products");
    let kernel = of_matrices(kernel, dtype, size)
        .set("TURNS", TURNS)
        .set("GROUP", SUBGROUPS * lanes)
        .grid(gpu.caps().fold(groups));
    let work = 2 * 8 * TURNS * SUBGROUPS * groups * size.pow(3) as usize;
    rate(gpu, &kernel, &[buffer(0, groups * (size * size) as usize)], work as f64)
}

fn bandwidth(gpu: &Gpu, entry: &'static str, (element, width): (&str, usize)) -> Result<f64> {
    const TURNS: usize = 16;
    let words = (BYTES as u64).min(gpu.caps().binding) as usize / 4;
    let count = words / width;
    // Reading stores one element of TURNS.
    let (bindings, moved, invocations): (&[u32], f64, usize) = match entry {
        "read_memory" => (&[0, 2], 1.0 + 1.0 / TURNS as f64, count / TURNS),
        "copy_memory" => (&[0, 2], 2.0, count),
        _ => (&[0, 1, 2], 3.0, count),
    };
    let kernel = if entry == "copy_memory" && element.contains("u64") {
        kernel(entry).choose("moved", "moved_in_halves")
    } else {
        kernel(entry)
    };
    let kernel = kernel
        .replace("Element", format!("alias Element = {element};"))
        .set("COUNT", count)
        .set("TURNS", if entry == "read_memory" { TURNS } else { 1 })
        .grid(gpu.caps().fold(invocations.div_ceil(64)));
    let buffers: Vec<RawBuffer> = bindings.iter().map(|&binding| buffer(binding, words)).collect();
    rate(gpu, &kernel, &buffers, moved * 4.0 * words as f64)
}

/// What the kernels that networks get on this device move where they do next to nothing else: a sum reads, relu copies.
fn in_a_graph(gpu: &Gpu, entry: &'static str) -> Result<f64> {
    let words = (BYTES as u64).min(gpu.caps().binding) as usize / 4;
    let g = Graph::inference();
    let (x, z) = (g.input([words]), g.input([words]));
    let (y, moved) = match entry {
        "read_memory" => (x.sum(&[], false), 1),
        "copy_memory" => (x.relu(), 2),
        _ => (&x + &z * 3.0, 3),
    };
    let program = gpu.compile(&g.function([&y]))?;
    let values = vec![0.5; words];
    program.write(&x, &values)?;
    if moved == 3 {
        program.write(&z, &values)?;
    }
    let mut recorded = Ok(());
    let rate = best_of(gpu, (moved * 4 * words) as f64, |encoder| recorded = program.record(encoder))?;
    recorded.map(|()| rate)
}

fn workgroup(gpu: &Gpu) -> Result<f64> {
    const TURNS: usize = 512;
    let kernel = kernel("read_workgroup").set("TURNS", TURNS).grid(gpu.caps().fold(INVOCATIONS / 64));
    rate(gpu, &kernel, &[buffer(3, INVOCATIONS)], (16 * TURNS * INVOCATIONS) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_roof_bounds() {
        let matrices = [("f16 16x16".to_string(), 400.0), ("f16 8x8".into(), 200.0)].into();
        let roofline =
            Roofline { arithmetic: 100.0, halves: None, matrices, read: 10.0, copy: 20.0, triad: 15.0, workgroup: 1.0 };
        assert_eq!(roofline.bound(DType::F32, 1e9, 1e6), (10_000.0, Roof::Compute));
        assert_eq!(roofline.bound(DType::F16, 1e9, 1e6), (2_500.0, Roof::Compute));
        assert_eq!(roofline.bound(DType::F32, 1e6, 1e9), (50_000.0, Roof::Memory));
        assert_eq!(Roofline::from_value(&roofline.to_value()), Some(roofline));
        assert_eq!(Roofline::from_value(&json!({ "arithmetic_gflops": 1.0 })), None);
    }
}
