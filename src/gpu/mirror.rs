//! Textures that operands are read through (see [`crate::graph::mirror`]), and the copies into them.

use super::Gpu;
use crate::Result;
use crate::graph::DType;
use crate::graph::mirror::{ROW, Texel, Texture};

/// The format of a texture of such texels.
pub(super) fn format(texel: Texel) -> wgpu::TextureFormat {
    match (texel.dtype, texel.four) {
        (DType::F32 | DType::F16, false) => wgpu::TextureFormat::R32Float,
        (DType::F32 | DType::F16, true) => wgpu::TextureFormat::Rgba32Float,
        (DType::U32, false) => wgpu::TextureFormat::R32Uint,
        (DType::U32, true) => wgpu::TextureFormat::Rgba32Uint,
        (DType::I32, false) => wgpu::TextureFormat::R32Sint,
        (DType::I32, true) => wgpu::TextureFormat::Rgba32Sint,
    }
}

impl Gpu {
    pub(super) fn texture(&self, texture: &Texture) -> Result<wgpu::Texture> {
        let size = wgpu::Extent3d {
            width: (ROW / texture.texel.elements()) as u32,
            height: texture.rows as u32,
            depth_or_array_layers: 1,
        };
        self.guarded(&format!("allocating a texture of {} x {}", size.width, size.height), || {
            self.device().create_texture(&wgpu::TextureDescriptor {
                label: Some("mirror"),
                size,
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: format(texture.texel),
                usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
                view_formats: &[],
            })
        })
    }
}

/// A stretch of a buffer, and the texture that it is read through.
pub(super) struct Mirror {
    pub buffer: wgpu::Buffer,
    pub offset: u64,
    /// Whole vec4s.
    pub bytes: u64,
    pub texture: wgpu::Texture,
}

impl Mirror {
    /// Records the copy: whole rows, and what is left.
    pub fn copy(&self, encoder: &mut wgpu::CommandEncoder) {
        const PITCH: u64 = 4 * ROW as u64;
        let (rows, rest) = (self.bytes / PITCH, self.bytes % PITCH);
        let width = self.texture.width();
        if rows > 0 {
            self.copy_rows(encoder, 0, width, rows as u32);
        }
        if rest > 0 {
            self.copy_rows(encoder, rows, (rest * u64::from(width) / PITCH) as u32, 1);
        }
    }

    fn copy_rows(&self, encoder: &mut wgpu::CommandEncoder, first: u64, width: u32, height: u32) {
        const PITCH: u32 = 4 * ROW as u32;
        encoder.copy_buffer_to_texture(
            wgpu::TexelCopyBufferInfo {
                buffer: &self.buffer,
                layout: wgpu::TexelCopyBufferLayout {
                    offset: self.offset + first * u64::from(PITCH),
                    bytes_per_row: Some(PITCH),
                    rows_per_image: None,
                },
            },
            wgpu::TexelCopyTextureInfo {
                origin: wgpu::Origin3d { x: 0, y: first as u32, z: 0 },
                ..self.texture.as_image_copy()
            },
            wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
        );
    }
}
