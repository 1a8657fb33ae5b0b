//! Finding and opening adapters.

use super::{Gpu, lock, sanitize};
use crate::graph::choose::Choices;
use crate::graph::{Caps, DIGITS, DType};
use crate::{Error, Result};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// How to open an adapter.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A backend (`vulkan`, `gl`, `metal`, `dx12`) or a part of the adapter's name, or both as `gl:llvmpipe`, in any
    /// case. By default the environment variable `SHADEGRAD_ADAPTER`, else the best adapter there is: discrete before
    /// integrated before software.
    pub adapter: Option<String>,
    /// Ask only for WebGPU's default limits and no features, as a browser would grant them.
    pub webgpu_limits: bool,
    /// Keep every run-time check in the shaders (bounds, loops, divisions): slower, for debugging. Also set by the
    /// environment variable `SHADEGRAD_CHECKED=1`.
    pub checked: bool,
    /// Run programs under the sanitizer (see [`Program::run`](super::Program::run)): far slower, for testing kernels.
    /// Also set by the environment variable `SHADEGRAD_SANITIZE=1`.
    pub sanitize: bool,
    /// Whether kernels read their operands through textures (see [`crate::graph::mirror`]), all or none of them; by
    /// default those do that are worth it, on CPU adapters (for tests and benchmarks).
    pub mirrors: Option<bool>,
    /// Measure the candidate kernels of work that is new to this device when it is first compiled, and keep what was
    /// chosen in a file for this adapter and driver (see [`crate::tune`]). Also set by the environment variable
    /// `SHADEGRAD_TUNE=1`. Without it the shipped defaults of this class of devices serve.
    pub tune: bool,
    /// Kernels chosen before ([`Gpu::choices`]), in the place of those in that file.
    pub choices: Option<Choices>,
    /// Take the n-th candidate kernel of each op instead of the preferred one (for tests and benchmarks).
    pub candidate: Option<usize>,
    /// Choose kernels and their shapes as for a GPU also where the adapter is a CPU (for tests of those kernels).
    pub as_gpu: bool,
}

/// Every adapter present, the best first.
pub fn adapters() -> Vec<wgpu::Adapter> {
    pollster::block_on(ranked(wgpu::Backends::all()))
}

async fn ranked(backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    let descriptor = wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    let mut adapters = wgpu::Instance::new(descriptor).enumerate_adapters(backends).await;
    adapters.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        let class = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Cpu => 3,
            wgpu::DeviceType::Other => 4,
        };
        (class, info.backend == wgpu::Backend::Gl)
    });
    adapters
}

/// Whether `wanted` (a backend, a part of the name, or `backend:name`) fits.
fn matches(info: &wgpu::AdapterInfo, wanted: &str) -> bool {
    let (wanted, backend) = (wanted.to_lowercase(), info.backend.to_string().to_lowercase());
    let name = format!("{} {}", info.name, info.driver).to_lowercase();
    match wanted.split_once(':') {
        Some((first, part)) => backend == first && name.contains(part),
        None if wgpu::Backend::ALL.iter().any(|known| known.to_string() == wanted) => backend == wanted,
        None => name.contains(&wanted),
    }
}

const INSTALL: &str = "no usable graphics driver was found. Install one for your GPU, or one that computes on the CPU:
  Debian, Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1
  Fedora:         dnf install mesa-vulkan-drivers vulkan-loader
  macOS:          Metal comes with the system (10.15 or later)
  Windows:        update the graphics driver (Direct3D 12 comes with Windows 10)";

impl Gpu {
    /// [`Gpu::open`] where blocking is not possible.
    ///
    /// # Errors
    /// As for [`Gpu::open`].
    pub async fn open_async(options: &Options) -> Result<Gpu> {
        let wanted = options.adapter.clone().or_else(|| std::env::var("SHADEGRAD_ADAPTER").ok());
        let wanted = wanted.filter(|w| !w.is_empty());
        let fits = |a: &&wgpu::Adapter| wanted.as_ref().is_none_or(|w| matches(&a.get_info(), w));
        // OpenGL is asked last: its drivers are slow to start, and some print complaints.
        let mut adapters = ranked(wgpu::Backends::all() - wgpu::Backends::GL).await;
        let software = adapters.iter().all(|a| a.get_info().device_type == wgpu::DeviceType::Cpu);
        // Perhaps there is a GPU with no other driver.
        let overlooked = wanted.is_none() && software && Path::new("/dev/dri").exists();
        if !adapters.iter().any(|a| fits(&a)) || overlooked {
            adapters = ranked(wgpu::Backends::all()).await;
        }
        if adapters.is_empty() {
            return Err(Error::NoAdapter(INSTALL.into()));
        }
        let Some(adapter) = adapters.iter().find(fits) else {
            let names: Vec<String> =
                adapters.iter().map(|a| format!("{}:{}", a.get_info().backend, a.get_info().name)).collect();
            let wanted = wanted.unwrap_or_default();
            return Err(Error::NoAdapter(format!("no adapter matches {wanted:?}; there are: {}", names.join(", "))));
        };
        let on = |name| std::env::var(name).is_ok_and(|v| v == "1");
        let options = Options {
            checked: options.checked || on("SHADEGRAD_CHECKED"),
            sanitize: options.sanitize || on("SHADEGRAD_SANITIZE"),
            tune: options.tune || on("SHADEGRAD_TUNE"),
            ..options.clone()
        };
        let (limits, mut features) = match options.webgpu_limits {
            true => (wgpu::Limits::default(), wgpu::Features::empty()),
            false => (adapter.limits(), adapter.features() & FEATURES),
        };
        let descriptor = |required_features| wgpu::DeviceDescriptor {
            label: Some("shadegrad"),
            required_features,
            required_limits: limits.clone(),
            experimental_features: experimental(required_features),
            ..Default::default()
        };
        let mut opened = adapter.request_device(&descriptor(features)).await;
        if opened.is_err() && features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            features.remove(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
            opened = adapter.request_device(&descriptor(features)).await;
        }
        let (device, queue) = opened.map_err(|error| Error::Device {
            what: format!("opening {}", adapter.get_info().name),
            message: error.to_string(),
        })?;
        let lost: Arc<Mutex<Option<String>>> = Arc::default();
        let report = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            *lock(&report) = Some(format!("{reason:?}: {message}"));
        });
        device.on_uncaptured_error(Arc::new(|error: wgpu::Error| log::error!("{error}")));
        let matrices = matrices(adapter, features);
        Ok(Gpu::assemble(device, queue, adapter.get_info(), matrices, &options, lost))
    }
}

/// What kernels use where the adapter has it.
const FEATURES: wgpu::Features = wgpu::Features::SUBGROUP
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::IMMEDIATES)
    .union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

/// wgpu's leave to use cooperative matrices.
#[allow(unsafe_code)]
fn experimental(features: wgpu::Features) -> wgpu::ExperimentalFeatures {
    match features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        // SAFETY: none but the crate's own kernels use them, within the sizes that the adapter names; the tuner, the bench
        // and tests run these, and a network does only where the tuner has found their results right on the device.
        true => unsafe { wgpu::ExperimentalFeatures::enabled() },
        false => wgpu::ExperimentalFeatures::disabled(),
    }
}

/// The cooperative matrices that kernels may use ([`Caps::matrices`]).
fn matrices(adapter: &wgpu::Adapter, features: wgpu::Features) -> Vec<(DType, u32)> {
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SUBGROUP) {
        return Vec::new();
    }
    let usable = |p: &wgpu::wgt::CooperativeMatrixProperties| {
        use wgpu::wgt::CooperativeScalarType::{F16, F32};
        let dtype = match p.ab_type {
            F32 => DType::F32,
            F16 if features.contains(wgpu::Features::SHADER_F16) => DType::F16,
            _ => return None,
        };
        let square = p.m_size == p.n_size && p.m_size == p.k_size && [8, 16].contains(&p.m_size);
        (square && p.cr_type == F32).then_some((dtype, p.m_size))
    };
    let mut found: Vec<(DType, u32)> = adapter.cooperative_matrix_properties().iter().filter_map(usable).collect();
    // Some come with saturation and without.
    found.sort_by_key(|(dtype, size)| (dtype.to_string(), *size));
    found.dedup();
    found
}

/// Mesa's software rasterizers leave every loop after this many turns of all loops of an invocation together.
const LLVMPIPE_TURNS: usize = 65_535;

/// A copy into a texture costs a few microseconds, in which a CPU adapter gets through this many elements.
const MIRRORS_FROM: u64 = 1 << 15;

/// What kernels may rely on.
pub(super) fn caps(
    device: &wgpu::Device,
    info: &wgpu::AdapterInfo,
    matrices: Vec<(DType, u32)>,
    options: &Options,
) -> Caps {
    let limits = device.limits();
    let same = info.subgroup_min_size == info.subgroup_max_size && info.subgroup_min_size > 0;
    let subgroups = device.features().contains(wgpu::Features::SUBGROUP);
    let cpu = info.device_type == wgpu::DeviceType::Cpu && !options.as_gpu;
    let mirrors = if options.mirrors.unwrap_or(cpu) { limits.max_storage_textures_per_shader_stage } else { 0 };
    // The sanitizer tells floats by their types.
    let wide = cpu && !options.sanitize && device.features().contains(wgpu::Features::SHADER_INT64);
    let llvmpipe = info.name.contains("llvmpipe");
    let immediates =
        device.features().contains(wgpu::Features::IMMEDIATES) && limits.max_immediate_size as usize >= 4 * DIGITS;
    Caps {
        storage_buffers: limits.max_storage_buffers_per_shader_stage.min(16) as usize,
        invocations: limits.max_compute_invocations_per_workgroup,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        groups: limits.max_compute_workgroups_per_dimension,
        binding: limits.max_storage_buffer_binding_size,
        buffer: limits.max_buffer_size,
        alignment: u64::from(limits.min_storage_buffer_offset_alignment),
        subgroups,
        subgroup: (subgroups && same).then_some(info.subgroup_min_size),
        // A subgroup multiplies them together, so its size has to be known.
        matrices: if subgroups && same { matrices } else { Vec::new() },
        cpu,
        threads: if cpu { std::thread::available_parallelism().map_or(1, usize::from) } else { 0 },
        turns: if llvmpipe { LLVMPIPE_TURNS } else { usize::MAX },
        mirrors: mirrors as usize,
        mirrors_from: if options.mirrors.is_some() { 0 } else { MIRRORS_FROM },
        wide,
        abreast: llvmpipe && wide && subgroups && same && immediates,
        candidate: options.candidate,
        guard: if options.sanitize { sanitize::GUARD_BYTES } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_s_name_is_no_part_of_another_adapter_s() {
        let (cpu, vulkan) = (wgpu::DeviceType::Cpu, wgpu::Backend::Vulkan);
        let info = wgpu::AdapterInfo { name: "Google SwiftShader".into(), ..wgpu::AdapterInfo::new(cpu, vulkan) };
        assert!(!matches(&info, "gl") && !matches(&info, "gl:swift") && !matches(&info, "llvmpipe"));
        assert!(["vulkan", "google", "Swift", "vulkan:swift"].iter().all(|wanted| matches(&info, wanted)));
    }
}
