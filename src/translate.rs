//! What a WGSL shader becomes on each kind of device.

pub use crate::reflect::Wgsl;
use crate::reflect::scalar_name;
use crate::{Error, Result};
use naga::ShaderStage;
use naga::back::pipeline_constants::{PipelineConstantError, process_overrides};
use naga::back::{glsl, hlsl, msl, spv};

impl Wgsl {
    fn error(&self, language: &str, error: impl std::fmt::Display) -> Error {
        self.wrong(format!("it does not translate to {language}: {error}"))
    }

    /// What a pipeline calls the `override` of this name: its `@id` if it has one, otherwise the name.
    pub fn override_key(&self, name: &str) -> Option<String> {
        self.find_override(name).map(key)
    }

    /// The type of the `override` of this name: `f32`, `f16`, `u32`, `i32` or `bool`.
    pub fn override_type(&self, name: &str) -> Option<String> {
        self.module.types[self.find_override(name)?.ty].inner.scalar().map(scalar_name)
    }

    fn find_override(&self, name: &str) -> Option<&naga::Override> {
        let mut all = self.module.overrides.iter().map(|(_, value)| value);
        all.find(|value| value.name.as_deref() == Some(name))
    }

    /// Whether it has a `const` of this name and of a type that the text says, as `4` alone does not.
    pub fn has_typed_const(&self, name: &str) -> bool {
        self.module.constants.iter().any(|(_, constant)| constant.name.as_deref() == Some(name))
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
        let (module, info) = set.map_err(|error| match error {
            PipelineConstantError::MissingValue(missing) => {
                let mut all = self.module.overrides.iter().map(|(_, value)| value);
                let name = all.find(|value| key(value) == missing).and_then(|value| value.name.clone());
                let name = name.unwrap_or(missing);
                self.wrong(format!("its override {name} has no value; say --const \"{name} = ...\""))
            }
            error => {
                let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
                let causes: Vec<String> = causes.map(ToString::to_string).collect();
                self.wrong(format!("its overrides: {}", causes.join(": ")))
            }
        })?;
        let (name, text) = (self.name.clone(), self.text.clone());
        Ok(Wgsl { name, text, module: module.into_owned(), info: info.into_owned() })
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

/// What a pipeline calls an `override`.
fn key(value: &naga::Override) -> String {
    value.id.map_or_else(|| value.name.clone().unwrap_or_default(), |id| id.to_string())
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
