//! Shaders as others see them: what an entry point binds, and what WGSL becomes on each kind of device.

use crate::{Error, Result};
use naga::back::pipeline_constants::process_overrides;
use naga::back::{glsl, hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, ShaderStage, StorageAccess, TypeInner};

/// A WGSL shader that was parsed and validated.
pub struct Wgsl {
    name: String,
    module: naga::Module,
    info: ModuleInfo,
}

/// A buffer that an entry point uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The variable's name.
    pub name: String,
    /// `@group`.
    pub group: u32,
    /// `@binding`.
    pub binding: u32,
    /// `var<uniform>`.
    pub uniform: bool,
    /// Whether it may be written.
    pub writes: bool,
    /// Bytes that it has at the least.
    pub bytes: usize,
}

impl Wgsl {
    /// Parses and validates; `name` is for messages.
    ///
    /// # Errors
    /// [`Error::Shader`] with the place in the text.
    pub fn parse(name: &str, text: &str) -> Result<Wgsl> {
        let wrong = |message: String| Error::Shader { shader: name.into(), message };
        let module = naga::front::wgsl::parse_str(text).map_err(|e| wrong(e.emit_to_string_with_path(text, name)))?;
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
        let info = validator.validate(&module).map_err(|e| wrong(e.emit_to_string_with_path(text, name)))?;
        Ok(Wgsl { name: name.into(), module, info })
    }

    fn error(&self, language: &str, error: impl std::fmt::Display) -> Error {
        Error::Shader { shader: self.name.clone(), message: format!("it does not translate to {language}: {error}") }
    }

    /// The compute entry points.
    pub fn entries(&self) -> Vec<&str> {
        let compute = self.module.entry_points.iter().filter(|entry| entry.stage == ShaderStage::Compute);
        compute.map(|entry| entry.name.as_str()).collect()
    }

    /// What a pipeline calls the `override` of this name: its `@id` if it has one, otherwise the name.
    pub fn override_key(&self, name: &str) -> Option<String> {
        let mut all = self.module.overrides.iter().map(|(_, value)| value);
        let found = all.find(|value| value.name.as_deref() == Some(name))?;
        Some(found.id.map_or_else(|| name.into(), |id| id.to_string()))
    }

    /// The shader with one entry point and its `override`s set: those in `values`, by their [keys](Wgsl::override_key), the
    /// others to what the text says. Only then can it be translated.
    ///
    /// ```
    /// # use shadegrad::translate::Wgsl;
    /// let text = "override SIDE: u32 = 8u; @compute @workgroup_size(SIDE) fn main() {}";
    /// let wgsl = Wgsl::parse("side.wgsl", text)?.with_overrides("main", &[("SIDE".into(), 16.0)])?;
    /// assert!(wgsl.hlsl("main")?.contains("numthreads(16, 1, 1)"));
    /// # Ok::<(), shadegrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shader`] where one has no value, or none of its type.
    pub fn with_overrides(&self, entry: &str, values: &[(String, f64)]) -> Result<Wgsl> {
        let values = values.iter().cloned().collect();
        let set = process_overrides(&self.module, &self.info, Some((ShaderStage::Compute, entry)), &values);
        let (module, info) =
            set.map_err(|e| Error::Shader { shader: self.name.clone(), message: format!("its overrides: {e}") })?;
        Ok(Wgsl { name: self.name.clone(), module: module.into_owned(), info: info.into_owned() })
    }

    /// The buffers that an entry point uses.
    ///
    /// # Errors
    /// [`Error::Shader`] if it is not there, or uses textures or samplers.
    pub fn bound(&self, entry: &str) -> Result<Vec<Bound>> {
        let wrong = |message: String| Error::Shader { shader: self.name.clone(), message };
        let entries = &self.module.entry_points;
        let at = entries.iter().position(|e| e.stage == ShaderStage::Compute && e.name == entry);
        let at = at.ok_or_else(|| {
            wrong(format!("it has no compute entry point {entry:?}; there are {}", self.entries().join(", ")))
        })?;
        let used = self.info.get_entry_point(at);
        let mut found = Vec::new();
        for (_, variable) in self.module.global_variables.iter().filter(|(handle, _)| !used[*handle].is_empty()) {
            let Some(binding) = &variable.binding else { continue };
            let name = variable.name.clone().unwrap_or_default();
            let (uniform, writes) = match variable.space {
                AddressSpace::Uniform => (true, false),
                AddressSpace::Storage { access } => (false, access.contains(StorageAccess::STORE)),
                _ => return Err(wrong(format!("{name} is no buffer; only kernels over buffers can be run here"))),
            };
            let inner = &self.module.types[variable.ty].inner;
            let bytes = match inner {
                TypeInner::Array { size: naga::ArraySize::Dynamic, stride, .. } => *stride as usize,
                other => other.size(self.module.to_ctx()) as usize,
            };
            found.push(Bound { name, group: binding.group, binding: binding.binding, uniform, writes, bytes });
        }
        found.sort_by_key(|bound| (bound.group, bound.binding));
        Ok(found)
    }

    /// SPIR-V 1.3, for Vulkan.
    ///
    /// # Errors
    /// [`Error::Shader`] where the language has no words for it; so for the others.
    pub fn spirv(&self, entry: &str) -> Result<Vec<u32>> {
        let options = spv::Options { lang_version: (1, 3), ..Default::default() };
        let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.into() };
        spv::write_vec(&self.module, &self.info, &options, Some(&pipeline)).map_err(|e| self.error("SPIR-V", e))
    }

    /// Metal's shading language, 2.4.
    pub fn msl(&self, entry: &str) -> Result<String> {
        let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
        let entry_point = Some((ShaderStage::Compute, entry.into()));
        let pipeline = msl::PipelineOptions { entry_point, ..Default::default() };
        let written = msl::write_string(&self.module, &self.info, &options, &pipeline);
        written.map(|(text, _)| text).map_err(|e| self.error("MSL", e))
    }

    /// HLSL of shader model 6.0, for Direct3D 12.
    pub fn hlsl(&self, entry: &str) -> Result<String> {
        let shader_model = hlsl::ShaderModel::V6_0;
        let options = hlsl::Options { shader_model, fake_missing_bindings: true, ..Default::default() };
        let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.into())) };
        let mut text = String::new();
        let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(&self.module, &self.info, None);
        written.map_err(|e| self.error("HLSL", e))?;
        Ok(text)
    }

    /// GLSL 4.30, or ES 3.10 where `embedded`.
    pub fn glsl(&self, entry: &str, embedded: bool) -> Result<String> {
        let version = match embedded {
            true => glsl::Version::Embedded { version: 310, is_webgl: false },
            false => glsl::Version::Desktop(430),
        };
        let options = glsl::Options { version, ..Default::default() };
        let (shader_stage, entry_point) = (ShaderStage::Compute, entry.into());
        let pipeline = glsl::PipelineOptions { shader_stage, entry_point, multiview: None };
        let policies = naga::proc::BoundsCheckPolicies::default();
        let mut text = String::new();
        let writer = glsl::Writer::new(&mut text, &self.module, &self.info, &options, &pipeline, policies);
        writer.and_then(|mut writer| writer.write()).map_err(|e| self.error("GLSL", e))?;
        Ok(text)
    }

    /// Whether it shuffles values between the lanes of a subgroup, for which GLSL's core has no words.
    pub fn shuffles(&self) -> bool {
        self.module.functions.iter().any(|(_, function)| gathers(&function.body))
            || self.module.entry_points.iter().any(|entry| gathers(&entry.function.body))
    }
}

fn gathers(block: &naga::Block) -> bool {
    use naga::Statement::{Block, If, Loop, SubgroupGather, Switch};
    block.iter().any(|statement| match statement {
        SubgroupGather { .. } => true,
        Block(inner) => gathers(inner),
        If { accept, reject, .. } => gathers(accept) || gathers(reject),
        Loop { body, continuing, .. } => gathers(body) || gathers(continuing),
        Switch { cases, .. } => cases.iter().any(|case| gathers(&case.body)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "struct Size { n: u32, m: u32 }\n\
        @group(1) @binding(0) var<uniform> size: Size;\n\
        @group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;\n\
        @group(0) @binding(1) var<storage, read> x: array<f32, 6>;\n\
        @group(0) @binding(7) var<storage, read> other: array<f32>;\n\
        @compute @workgroup_size(1) fn main() { y[size.n] = vec4<f32>(x[size.m]); }\n";

    #[test]
    fn only_what_the_entry_point_uses_is_bound() {
        let bound = |name: &str, group, binding, uniform, writes, bytes| Bound {
            name: name.into(),
            group,
            binding,
            uniform,
            writes,
            bytes,
        };
        let wgsl = Wgsl::parse("test.wgsl", TEXT).unwrap();
        let expected = [
            bound("x", 0, 1, false, false, 24),
            bound("y", 0, 2, false, true, 16),
            bound("size", 1, 0, true, false, 8),
        ];
        assert_eq!(wgsl.bound("main").unwrap(), expected);
        assert!(
            wgsl.bound("other").unwrap_err().to_string().contains("no compute entry point \"other\"; there are main")
        );
    }

    #[test]
    fn a_mistake_is_shown_in_its_line() {
        let message = Wgsl::parse("a/b.wgsl", "fn f() {\n  let x = y;\n}\n").err().unwrap().to_string();
        assert!(message.contains("a/b.wgsl:2:11"), "{message}");
    }

    #[test]
    fn every_language_gets_its_text() {
        let wgsl = Wgsl::parse("test.wgsl", TEXT).unwrap();
        assert_eq!(wgsl.spirv("main").unwrap()[0], 0x0723_0203);
        assert!(wgsl.msl("main").unwrap().contains("kernel void"));
        assert!(wgsl.hlsl("main").unwrap().contains("numthreads(1, 1, 1)"));
        assert!(wgsl.glsl("main", false).unwrap().starts_with("#version 430 core"));
        assert!(wgsl.glsl("main", true).unwrap().starts_with("#version 310 es"));
        assert!(!wgsl.shuffles());
        let text = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n\
            @compute @workgroup_size(8) fn main() {\n\
            for (var i = 0u; i < 3u; i++) { if (i > 1u) { y[i] = subgroupShuffle(y[0], i); } }\n}\n";
        assert!(Wgsl::parse("test.wgsl", text).unwrap().shuffles());
    }
}
