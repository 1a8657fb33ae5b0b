//! What a device can do, as plain data: the graph's passes choose kernels by it without touching a device.

use super::DType;

/// The limits and abilities that kernels are chosen by.
#[derive(Clone, Debug, PartialEq)]
pub struct Caps {
    /// Storage buffers that one dispatch may bind.
    pub storage_buffers: usize,
    /// Invocations in one workgroup.
    pub invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Workgroups along one axis of a grid.
    pub groups: u32,
    /// Bytes in one storage binding.
    pub binding: u64,
    /// Bytes in one buffer.
    pub buffer: u64,
    /// Alignment of a binding's offset, in bytes.
    pub alignment: u64,
    /// Subgroup operations exist.
    pub subgroups: bool,
    /// The subgroup size, where they exist and the size is known to be this one.
    pub subgroup: Option<u32>,
    /// Cooperative matrices that the device multiplies, summing in f32: the factors' type, and rows and columns, 8 or 16.
    pub matrices: Vec<(DType, u32)>,
    /// The adapter is a CPU: a workgroup's invocations are SIMD lanes, workgroup memory and barriers are slow.
    pub cpu: bool,
    /// Workgroups that run at the same time on a CPU adapter; 0 on others.
    pub threads: usize,
    /// Turns that all loops of an invocation may take together, each loop's end counted as one; some drivers stop there
    /// (`docs/adapters.md`).
    pub turns: usize,
    /// How many operands of a dispatch may be read through textures (see [`super::mirror`]); 0 where buffers are as fast.
    pub mirrors: usize,
    /// Operations or elements that a dispatch must be worth to have its operands copied into textures.
    pub mirrors_from: u64,
    /// Move vectors in 64-bit words (see `wide.rs`).
    pub wide: bool,
    /// Move what lies abreast in a subgroup as a whole (see `abreast.rs`); with 64-bit words and subgroups of a known size.
    pub abreast: bool,
    /// Take the n-th candidate (modulo their number) of every op, whatever was chosen.
    pub candidate: Option<usize>,
    /// Bytes left unused after every region of memory, so that writes past its end can be seen there; 0 but under the
    /// sanitizer.
    pub guard: usize,
}

impl Caps {
    /// WebGPU's default limits: what a kernel may use anywhere.
    pub fn webgpu() -> Self {
        Caps {
            storage_buffers: 8,
            invocations: 256,
            workgroup_memory: 16 << 10,
            groups: 65_535,
            binding: 128 << 20,
            buffer: 256 << 20,
            alignment: 256,
            subgroups: false,
            subgroup: None,
            matrices: Vec::new(),
            cpu: false,
            threads: 0,
            turns: usize::MAX,
            mirrors: 0,
            mirrors_from: 0,
            wide: false,
            abreast: false,
            candidate: None,
            guard: 0,
        }
    }

    /// A grid of `groups` workgroups, folded into y and z where one axis cannot hold them.
    pub fn fold(&self, groups: usize) -> [u32; 3] {
        // Balanced, so that hardly any workgroup has nothing to do.
        let (groups, most) = (groups.max(1), self.groups as usize);
        let z = groups.div_ceil(most * most);
        let y = groups.div_ceil(z).div_ceil(most);
        let x = groups.div_ceil(z * y);
        [x as u32, y as u32, z as u32]
    }
}
