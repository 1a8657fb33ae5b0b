//! Shader modules and pipelines, compiled in parallel and kept.

use super::raw::Trust;
use super::{Gpu, lock, mirror};
use crate::graph::mirror::Texel;
use crate::graph::plan::{Plan, Step};
use crate::graph::{DIGITS, has_table};
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What a pipeline is made from: text, entry point, what its bindings are, and whether it does without run-time checks.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    text: String,
    entry: &'static str,
    bindings: Vec<Kind>,
    trust: Trust,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Buffer { read_only: bool },
    Texture { texel: Texel, read_only: bool },
}

impl Kind {
    fn ty(self) -> wgpu::BindingType {
        match self {
            Kind::Buffer { read_only } => wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            Kind::Texture { texel, read_only } => wgpu::BindingType::StorageTexture {
                access: match read_only {
                    true => wgpu::StorageTextureAccess::ReadOnly,
                    false => wgpu::StorageTextureAccess::ReadWrite,
                },
                format: mirror::format(texel),
                view_dimension: wgpu::TextureViewDimension::D2,
            },
        }
    }
}

impl Key {
    fn new(step: &Step, plan: &Plan) -> Key {
        let bindings = step.bindings.iter().map(|binding| match binding.texture {
            Some(texture) => Kind::Texture { texel: plan.textures[texture].texel, read_only: !binding.writes },
            None => Kind::Buffer { read_only: !binding.writes },
        });
        let trust = if plan.checked { Trust::Checked } else { Trust::Own };
        Key { text: step.source.clone(), entry: step.kernel.entry, bindings: bindings.collect(), trust }
    }
}

type Made = (Key, Arc<Pipeline>);

/// The pipelines made so far.
#[derive(Default)]
pub(super) struct Pipelines(Mutex<HashMap<Key, Arc<Pipeline>>>);

pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    /// Whether its shader looks digits up (see `src/graph/abreast.rs`).
    pub digits: bool,
    pub layout: wgpu::BindGroupLayout,
}

impl Gpu {
    /// The pipelines of a program's steps; those not made before are created on all cores.
    pub(super) fn pipelines(&self, plan: &Plan) -> Result<Vec<Arc<Pipeline>>> {
        let keys: Vec<(Key, &'static str)> =
            plan.steps.iter().map(|step| (Key::new(step, plan), step.kernel.shader.name)).collect();
        let mut missing: Vec<&(Key, &'static str)> = Vec::new();
        {
            let known = lock(&self.0.pipelines.0);
            for key in &keys {
                if !known.contains_key(&key.0) && !missing.iter().any(|other| other.0 == key.0) {
                    missing.push(key);
                }
            }
        }
        let made: Mutex<Vec<Result<Made>>> = Mutex::new(Vec::new());
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((key, name)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let pipeline = self.pipeline(key, name).map(|pipeline| (key.clone(), Arc::new(pipeline)));
                lock(&made).push(pipeline);
            }
        };
        if cfg!(target_arch = "wasm32") {
            work();
        } else {
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(missing.len());
            std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        }
        let mut known = lock(&self.0.pipelines.0);
        for pipeline in made.into_inner().unwrap_or_default() {
            let (key, pipeline) = pipeline?;
            known.insert(key, pipeline);
        }
        let find = |key: &(Key, &str)| {
            let missing = || Error::Shader { shader: key.1.into(), message: "its pipeline was not created".into() };
            known.get(&key.0).cloned().ok_or_else(missing)
        };
        keys.iter().map(find).collect()
    }

    fn pipeline(&self, key: &Key, name: &str) -> Result<Pipeline> {
        let device = self.device();
        let made = self.guarded(name, || {
            let module = self.module(name, &key.text, key.trust);
            let entries: Vec<_> = key
                .bindings
                .iter()
                .enumerate()
                .map(|(binding, kind)| wgpu::BindGroupLayoutEntry {
                    binding: binding as u32,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: kind.ty(),
                    count: None,
                })
                .collect();
            let layout =
                device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
            let digits = has_table(&key.text);
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: if digits { 4 * DIGITS as u32 } else { 0 },
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(key.entry),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(key.entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: self.0.checked || key.trust == Trust::Checked,
                    ..Default::default()
                },
                cache: None,
            });
            Pipeline { pipeline, digits, layout }
        });
        made.map_err(|error| match error {
            Error::Device { message, .. } => Error::Shader { shader: format!("{name} ({})", key.entry), message },
            other => other,
        })
    }

    /// The shader module. Our own kernels are tested under the sanitizer and with all checks on, so by default they
    /// run without bounds checks, loop bounding and division checks, which cost up to 40 % and now and then far more.
    #[allow(unsafe_code)]
    pub(super) fn module(&self, name: &str, text: &str, trust: Trust) -> wgpu::ShaderModule {
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(name), source: wgpu::ShaderSource::Wgsl(text.into()) };
        if self.0.checked || trust == Trust::Checked {
            return self.device().create_shader_module(descriptor);
        }
        // SAFETY: only the crate's own shaders come this far, over what its own operations say of themselves (see
        // `Graph::custom`); they index within the sizes they are specialised for and their loops end.
        unsafe { self.device().create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    }
}
