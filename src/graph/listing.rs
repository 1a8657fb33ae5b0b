//! A plan as a readable table: node, kernel, grid, bytes, work, buffers.

use super::plan::{Memory, Plan};
use std::fmt;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>3}  {:<34} {:<26} {:>14} {:>11} {:>9}  buffers",
            "", "node", "kernel", "grid", "bytes", "MFLOP"
        )?;
        for (n, step) in self.steps.iter().enumerate() {
            let kernel = format!("{}:{}", step.kernel.shader.name.trim_end_matches(".wgsl"), step.kernel.entry);
            let [x, y, z] = step.kernel.grid;
            let buffers: Vec<String> = step
                .bindings
                .iter()
                .map(|binding| {
                    let name = match binding.region.memory {
                        Memory::Own(id) => format!("b{id}"),
                        Memory::Slab(id) => format!("p{id}+{}", binding.region.offset),
                    };
                    match binding.texture {
                        Some(texture) if binding.writes => format!(">t{texture}"),
                        Some(texture) => format!("{name}~t{texture}"),
                        None if binding.writes => format!(">{name}"),
                        None => name,
                    }
                })
                .collect();
            let label: String = step.label.chars().take(34).collect();
            writeln!(
                f,
                "{n:>3}  {label:<34} {kernel:<26} {:>14} {:>11} {:>9.2}  {}",
                format!("{x}x{y}x{z}"),
                step.bytes,
                step.flops as f64 / 1e6,
                buffers.join(" ")
            )?;
        }
        write!(f, "{} dispatches, {} buffers", self.steps.len(), self.buffers.len())?;
        if !self.textures.is_empty() {
            write!(f, ", {} textures", self.textures.len())?;
        }
        write!(f, ", {} bytes", self.bytes())
    }
}
