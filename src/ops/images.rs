//! Batches of images from bytes on the device, so that a training step moves no pixels over the bus.

use crate::graph::{Arg, Candidate, Caps, DType, Desc, Io, Kernel, Op, Shape, Tensor};
use crate::shader;

/// How bytes become a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageBatch {
    shape: [usize; 3],
    mean: f32,
    std: f32,
    shift: usize,
    mirror: bool,
}

impl ImageBatch {
    /// Images of `[C, H, W]` bytes, as `(byte / 255 - mean) / std`.
    pub fn new(shape: [usize; 3], mean: f32, std: f32) -> Self {
        ImageBatch { shape, mean, std, shift: 0, mirror: false }
    }

    /// Moves each image by up to this many pixels each way, at random, anew each run.
    pub fn shift(mut self, pixels: usize) -> Self {
        self.shift = pixels;
        self
    }

    /// Mirrors every other image left to right, at random.
    pub fn mirror(mut self, mirror: bool) -> Self {
        self.mirror = mirror;
        self
    }
}

/// Reads (words of bytes, indices, random state).
#[derive(Debug)]
struct Batch {
    rule: ImageBatch,
    salt: u32,
}

impl Op for Batch {
    fn name(&self) -> &'static str {
        "image_batch"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let (pixels, chosen) = (&inputs[0], &inputs[1]);
        if pixels.dtype != DType::U32 || chosen.dtype != DType::U32 || chosen.shape.len() != 1 {
            return Err(format!("it needs u32 words of pixels and u32 indices [batch], not {pixels} and {chosen}"));
        }
        if !(self.rule.std.is_finite() && self.rule.std > 0.0 && self.rule.mean.is_finite()) {
            return Err(format!("cannot scale by mean {} and deviation {}", self.rule.mean, self.rule.std));
        }
        let [c, h, w] = self.rule.shape;
        Ok(vec![Desc::f32([chosen.elements(), c, h, w])])
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let [c, h, w] = self.rule.shape;
        let kernel = Kernel::new(shader!("images.wgsl"), "batch")
            .set("COUNT", io.elements())
            .set("IMAGES", images(&self.rule, &io.inputs[0]))
            .set("C", c)
            .set("H", h)
            .set("W", w)
            .set("SCALE", 1.0 / (255.0 * self.rule.std))
            .set("OFFSET", -self.rule.mean / self.rule.std)
            .set("SHIFT", self.rule.shift)
            .set("FLIP", self.rule.mirror)
            .set("SALT", self.salt)
            .bind([Arg::In(0), Arg::In(1), Arg::In(2), Arg::Out(0)])
            .grid(caps.fold(io.elements().div_ceil(64)));
        vec![Candidate::single("gather", kernel)]
    }
}

/// How many images lie in these words.
fn images(rule: &ImageBatch, words: &Desc) -> usize {
    words.elements() * 4 / Shape::from(rule.shape).elements().max(1)
}

impl Tensor {
    /// A batch f32 [B, C, H, W] of the images that `indices` (u32 `[B]`) name, from bytes `[N, C, H, W]` packed four to a
    /// u32 word, lowest byte first. An index that was computed on the device and names none gives NaN.
    #[track_caller]
    pub fn image_batch(&self, indices: &Tensor, rule: &ImageBatch) -> Tensor {
        let g = self.graph();
        g.bound(indices, 0..images(rule, self.desc()) as u32, &[]);
        let salt = if rule.shift > 0 || rule.mirror { g.salt() } else { 0 };
        let random = if salt > 0 { g.random() } else { g.constant_u32([2], &[0, 0]) };
        g.push1(Batch { rule: rule.clone(), salt }, &[self, indices, &random])
    }
}
