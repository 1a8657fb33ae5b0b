// A batch from images that lie on the device as bytes: gathered by index, scaled, and shifted at random.
// include: grid.wgsl
// include: math.wgsl
// include: random.wgsl

const COUNT = 1u; // elements of the batch
const IMAGES = 1u;
const C = 1u;
const H = 1u;
const W = 1u;
const SCALE = 1.0; // value = byte * SCALE + OFFSET
const OFFSET = 0.0;
const SHIFT = 0u; // pixels that an image is moved by at the most, each way
const FLIP = 0u;  // 1: every other image is mirrored left to right
const SALT = 0u;

@group(0) @binding(0) var<storage, read> pixels: array<u32>; // [IMAGES, C, H, W], four bytes a word
@group(0) @binding(1) var<storage, read> chosen: array<u32>; // [batch]
@group(0) @binding(2) var<storage, read> random: array<u32>; // [seed, step]
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [batch, C, H, W]

@compute @workgroup_size(64)
fn batch(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group_index(group, groups) * 64u + lane;
    if (i >= COUNT) {
        return;
    }
    let image = i / (C * H * W);
    let bits = random_bits(random[0], random[1], SALT, image);
    var ix = i % W;
    if (FLIP == 1u && (bits & 1u) == 1u) {
        ix = W - 1u - ix;
    }
    // Wraps above the border where it is outside; what comes in from there is background, a byte of 0.
    ix += ((bits >> 1u) & 0x7fffu) % (2u * SHIFT + 1u) - SHIFT;
    let iy = i / W % H + (bits >> 16u) % (2u * SHIFT + 1u) - SHIFT;
    var byte = 0u;
    if (ix < W && iy < H && chosen[image] < IMAGES) {
        let at = ((chosen[image] * C + i / (H * W) % C) * H + iy) * W + ix;
        byte = (pixels[at / 4u] >> (at % 4u * 8u)) & 0xffu;
    }
    y[i] = select(nan(), f32(byte) * SCALE + OFFSET, chosen[image] < IMAGES);
}
