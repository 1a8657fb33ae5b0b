// f16 in memory: two to a word, the first in the low bits. Needs no feature of the device.

// WGSL leaves open what becomes of numbers beyond f16's range; here they become infinities, as in IEEE 754.
fn pack_halves(v: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(v);
    let magnitude = bits & vec2<u32>(0x7fffffffu);
    let beyond = magnitude >= vec2<u32>(0x477ff000u); // 65,520, infinities and NaN
    let packed = pack2x16float(select(v, vec2<f32>(), beyond));
    let special = select(vec2<u32>(0x7c00u), vec2<u32>(0x7e00u), magnitude > vec2<u32>(0x7f800000u));
    let signed = select(vec2<u32>(), special | ((bits >> vec2<u32>(16u)) & vec2<u32>(0x8000u)), beyond);
    return packed | signed.x | (signed.y << 16u);
}

fn pack_four(v: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(pack_halves(v.xy), pack_halves(v.zw));
}

fn four_of(words: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

// Element i, given the word that it lies in.
fn half_of(word: u32, i: u32) -> f32 {
    return unpack2x16float(word >> (i % 2u * 16u)).x;
}

fn to_half(x: f32) -> f32 {
    return unpack2x16float(pack_halves(vec2<f32>(x, 0.0))).x;
}
