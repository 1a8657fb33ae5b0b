//! What a WGSL shader says of itself: the buffers that an entry point uses, what they hold, and what it needs.

use crate::{DType, Error, Result};
use naga::valid::{Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, ArraySize, Handle, ScalarKind, ShaderStage, StorageAccess, Type, TypeInner};

/// A WGSL shader that was parsed and validated.
pub struct Wgsl {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) module: naga::Module,
    pub(crate) info: ModuleInfo,
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
    /// Whether it has exactly as many, as no array in it is sized at run time.
    pub fixed: bool,
    /// The types of the numbers in it, each once: `f32`, `u32`...
    pub scalars: Vec<String>,
    /// The line that declares it, from 1.
    pub line: u32,
}

/// What an entry point needs of the device.
pub(crate) struct Needs {
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup: u64,
    /// Bytes of variables that each invocation has, in the function with most of them.
    pub private: u64,
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
        Ok(Wgsl { name: name.into(), text: text.into(), module, info })
    }

    pub(crate) fn wrong(&self, message: String) -> Error {
        Error::Shader { shader: self.name.clone(), message }
    }

    /// What was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The compute entry points.
    pub fn entries(&self) -> Vec<&str> {
        let compute = self.module.entry_points.iter().filter(|entry| entry.stage == ShaderStage::Compute);
        compute.map(|entry| entry.name.as_str()).collect()
    }

    fn entry(&self, name: &str) -> Result<usize> {
        let found = |entry: &naga::EntryPoint| entry.stage == ShaderStage::Compute && entry.name == name;
        self.module.entry_points.iter().position(found).ok_or_else(|| {
            self.wrong(format!("it has no compute entry point {name:?}; there are {}", self.entries().join(", ")))
        })
    }

    /// The variables of the module that an entry point uses.
    fn used(&self, entry: usize) -> impl Iterator<Item = (Handle<naga::GlobalVariable>, &naga::GlobalVariable)> {
        let used = self.info.get_entry_point(entry);
        self.module.global_variables.iter().filter(|(handle, _)| !used[*handle].is_empty())
    }

    /// The buffers that an entry point uses.
    ///
    /// # Errors
    /// [`Error::Shader`] if it is not there, or uses textures or samplers.
    pub fn bound(&self, entry: &str) -> Result<Vec<Bound>> {
        let mut found = Vec::new();
        for (handle, variable) in self.used(self.entry(entry)?) {
            let Some(naga::ResourceBinding { group, binding }) = variable.binding else { continue };
            let name = variable.name.clone().unwrap_or_default();
            let line = self.module.global_variables.get_span(handle).location(&self.text).line_number;
            let (uniform, writes) = match variable.space {
                AddressSpace::Uniform => (true, false),
                AddressSpace::Storage { access } => (false, access.contains(StorageAccess::STORE)),
                _ => {
                    let message = format!(
                        "line {line}: {name} is no buffer; only kernels over buffers can be run here, so bind a \
                         var<storage> in its place"
                    );
                    return Err(self.wrong(message));
                }
            };
            let inner = &self.module.types[variable.ty].inner;
            let bytes = match inner {
                TypeInner::Array { size: ArraySize::Dynamic, stride, .. } => *stride as usize,
                other => other.size(self.module.to_ctx()) as usize,
            };
            let fixed = !inner.is_dynamically_sized(&self.module.types);
            let mut scalars = Vec::new();
            self.scalars(variable.ty, &mut scalars);
            found.push(Bound { name, group, binding, uniform, writes, bytes, fixed, scalars, line });
        }
        found.sort_by_key(|bound| (bound.group, bound.binding));
        Ok(found)
    }

    fn scalars(&self, ty: Handle<Type>, found: &mut Vec<String>) {
        match &self.module.types[ty].inner {
            TypeInner::Array { base, .. } => self.scalars(*base, found),
            TypeInner::Struct { members, .. } => members.iter().for_each(|member| self.scalars(member.ty, found)),
            inner => {
                let scalar = match inner {
                    TypeInner::Atomic(scalar) => Some(*scalar),
                    other => other.scalar(),
                };
                let name = scalar.map(scalar_name).unwrap_or_default();
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        }
    }

    /// What begins at a byte of a buffer: a number of this type, or none in the middle of one or in padding.
    pub fn layout(&self, bound: &Bound) -> impl Fn(usize) -> Option<DType> {
        let named = |variable: &&naga::GlobalVariable| variable.name.as_ref() == Some(&bound.name);
        let ty = self.module.global_variables.iter().map(|(_, variable)| variable).find(named).map(|found| found.ty);
        move |byte| match self.scalar_at(ty?, byte)? {
            naga::Scalar { kind: ScalarKind::Float, width: 4 } => Some(DType::F32),
            naga::Scalar { kind: ScalarKind::Float, width: 2 } => Some(DType::F16),
            naga::Scalar { kind: ScalarKind::Uint, width: 4 } => Some(DType::U32),
            naga::Scalar { kind: ScalarKind::Sint, width: 4 } => Some(DType::I32),
            _ => None,
        }
    }

    fn scalar_at(&self, ty: Handle<Type>, byte: usize) -> Option<naga::Scalar> {
        let vector = |scalar: naga::Scalar, size: naga::VectorSize, byte: usize| {
            let width = usize::from(scalar.width);
            (byte.is_multiple_of(width) && byte < size as usize * width).then_some(scalar)
        };
        match &self.module.types[ty].inner {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => (byte == 0).then_some(*scalar),
            TypeInner::Vector { size, scalar } => vector(*scalar, *size, byte),
            TypeInner::Matrix { rows, columns, scalar } => {
                let stride = naga::proc::Alignment::from(*rows) * u32::from(scalar.width);
                let (column, byte) = (byte / stride as usize, byte % stride as usize);
                (column < *columns as usize).then(|| vector(*scalar, *rows, byte))?
            }
            TypeInner::Array { base, size, stride } => {
                let (element, byte) = (byte / *stride as usize, byte % *stride as usize);
                match size {
                    ArraySize::Constant(count) if element >= count.get() as usize => None,
                    _ => self.scalar_at(*base, byte),
                }
            }
            TypeInner::Struct { members, .. } => {
                let member = members.iter().rev().find(|member| member.offset as usize <= byte)?;
                self.scalar_at(member.ty, byte - member.offset as usize)
            }
            _ => None,
        }
    }

    /// What an entry point needs of the device.
    pub(crate) fn needs(&self, entry: &str) -> Result<Needs> {
        let entry = self.entry(entry)?;
        let bytes = |ty: Handle<Type>| u64::from(self.module.types[ty].inner.size(self.module.to_ctx()));
        let global = |space: AddressSpace| {
            let sizes = self.used(entry).filter(|(_, variable)| variable.space == space);
            sizes.map(|(_, variable)| bytes(variable.ty).next_multiple_of(16)).sum::<u64>()
        };
        let local = |function: &naga::Function| -> u64 {
            function.local_variables.iter().map(|(_, variable)| bytes(variable.ty)).sum()
        };
        let point = &self.module.entry_points[entry];
        let functions = self.module.functions.iter().map(|(_, function)| function).chain([&point.function]);
        Ok(Needs {
            workgroup_size: point.workgroup_size,
            workgroup: global(AddressSpace::WorkGroup),
            private: global(AddressSpace::Private) + functions.map(local).max().unwrap_or(0),
        })
    }
}

/// As WGSL calls it.
pub(crate) fn scalar_name(scalar: naga::Scalar) -> String {
    let kind = match scalar.kind {
        ScalarKind::Bool => return "bool".into(),
        ScalarKind::Sint | ScalarKind::AbstractInt => 'i',
        ScalarKind::Uint => 'u',
        ScalarKind::Float | ScalarKind::AbstractFloat => 'f',
    };
    format!("{kind}{}", 8 * u32::from(scalar.width))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "struct Size { n: u32, m: vec3<f32> }\n\
        @group(1) @binding(0) var<uniform> size: Size;\n\
        @group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;\n\
        @group(0) @binding(1) var<storage, read> x: array<f32, 6>;\n\
        @group(0) @binding(7) var<storage, read> other: array<f32>;\n\
        var<workgroup> shared_: array<atomic<u32>, 5>;\n\
        @compute @workgroup_size(4, 2) fn main() {\n\
        var turns: array<f32, 100>; turns[size.n] = size.m.x; atomicAdd(&shared_[0], 1u);\n\
        y[size.n] = vec4<f32>(x[size.n]) + turns[x_of()]; }\n\
        fn x_of() -> u32 { var few: array<u32, 9>; return few[size.n]; }\n";

    #[test]
    fn only_what_the_entry_point_uses_is_bound() {
        let wgsl = Wgsl::parse("test.wgsl", TEXT).unwrap();
        let bound = |name: &str, place: (u32, u32), (uniform, writes), (bytes, fixed), scalars: &[&str], line| Bound {
            name: name.into(),
            group: place.0,
            binding: place.1,
            uniform,
            writes,
            bytes,
            fixed,
            scalars: scalars.iter().map(|&scalar| scalar.into()).collect(),
            line,
        };
        let expected = [
            bound("x", (0, 1), (false, false), (24, true), &["f32"], 4),
            bound("y", (0, 2), (false, true), (16, false), &["f32"], 3),
            bound("size", (1, 0), (true, false), (32, true), &["u32", "f32"], 2),
        ];
        assert_eq!(wgsl.bound("main").unwrap(), expected);
        let message = wgsl.bound("other").unwrap_err().to_string();
        assert!(message.contains("no compute entry point \"other\"; there are main"), "{message}");
    }

    #[test]
    fn each_number_is_found_where_it_begins() {
        use DType::{F16, F32, I32, U32};
        let text = "enable f16;\nstruct Row { a: f16, b: vec2<f16>, c: mat2x3<f32>, d: atomic<i32> }\n\
            struct All { n: u32, head: vec3<f32>, rows: array<Row> }\n\
            @group(0) @binding(0) var<storage, read_write> all: All;\n\
            @compute @workgroup_size(1) fn main() { atomicAdd(&all.rows[all.n].d, 1i); }\n";
        let wgsl = Wgsl::parse("test.wgsl", text).unwrap();
        let bound = wgsl.bound("main").unwrap();
        let layout = wgsl.layout(&bound[0]);
        let numbers =
            |from: usize, to: usize| (from..to).filter_map(|b| Some((b - from, layout(b)?))).collect::<Vec<_>>();
        assert_eq!(numbers(0, 32), [(0, U32), (16, F32), (20, F32), (24, F32)]);
        let row =
            [(0, F16), (4, F16), (6, F16), (16, F32), (20, F32), (24, F32), (32, F32), (36, F32), (40, F32), (48, I32)];
        assert_eq!(numbers(32, 96), row);
        assert_eq!(numbers(32 + 5 * 64, 96 + 5 * 64), row);
    }

    #[test]
    fn what_an_entry_point_needs_is_added_up() {
        let needs = Wgsl::parse("test.wgsl", TEXT).unwrap().needs("main").unwrap();
        assert_eq!((needs.workgroup_size, needs.workgroup, needs.private), ([4, 2, 1], 32, 400));
    }

    #[test]
    fn a_mistake_is_shown_in_its_line() {
        let message = Wgsl::parse("a/b.wgsl", "fn f() {\n  let x = y;\n}\n").err().unwrap().to_string();
        assert!(message.contains("a/b.wgsl:2:11"), "{message}");
    }
}
