// What one unit of a recurrent cell does at one step, and what of it goes back.
// include: math.wgsl

// The gates of one unit, where a cell has several; the kernel says f32 for a cell with one.
alias Gates = vec4<f32>;

struct Unit {
    h: f32,
    c: f32,
    gates: Gates, // what the way back needs
}

// x: the projected input with its biases, s: the recurrent product; the gates are i, f, g, o (Hochreiter and
// Schmidhuber, 1997, with forget gates; in PyTorch's order).
fn cell(x: Gates, s: Gates, h: f32, c: f32) -> Unit {
    let i = sigmoid(x.x + s.x);
    let f = sigmoid(x.y + s.y);
    let g = tanh_(x.z + s.z);
    let o = sigmoid(x.w + s.w);
    let next = f * c + i * g;
    return Unit(o * tanh_(next), next, Gates(i, f, g, o));
}

// r, z, n, and the recurrent part q of the candidate, its bias included: the reset gate comes after the product, as in
// PyTorch and cuDNN.
fn gru_cell(x: Gates, s: Gates, h: f32, c: f32) -> Unit {
    let r = sigmoid(x.x + s.x);
    let z = sigmoid(x.y + s.y);
    let n = tanh_(x.z + r * s.z);
    return Unit((1.0 - z) * n + z * h, 0.0, Gates(r, z, n, s.z));
}

fn tanh_cell(x: f32, s: f32, h: f32, c: f32) -> Unit {
    return Unit(tanh_(x + s), 0.0, 0.0);
}

fn relu_cell(x: f32, s: f32, h: f32, c: f32) -> Unit {
    return Unit(relu(x + s), 0.0, 0.0);
}

struct Slopes {
    gates: vec4<f32>, // what goes to the gates' sums, in the order of the result
    h: f32,           // what goes to the former state past the recurrent product
    c: f32,
}

// From what a cell kept, its former states, and what arrives at its states.
fn slopes(gates: vec4<f32>, h: f32, c: f32, dh: f32, dc: f32) -> Slopes {
    let i = gates.x;
    let f = gates.y;
    let g = gates.z;
    let o = gates.w;
    let t = tanh_(f * c + i * g);
    let all = dc + dh * o * (1.0 - t * t);
    let d = vec4<f32>(all * g * i * (1.0 - i), all * c * f * (1.0 - f), all * i * (1.0 - g * g), dh * t * o * (1.0 - o));
    return Slopes(d, 0.0, all * f);
}

// q, r, z, n: the last three go to the input, the first three to the recurrent product.
fn gru_slopes(gates: vec4<f32>, h: f32, c: f32, dh: f32, dc: f32) -> Slopes {
    let r = gates.x;
    let z = gates.y;
    let n = gates.z;
    let dn = dh * (1.0 - z) * (1.0 - n * n);
    return Slopes(vec4<f32>(dn * r, dn * gates.w * r * (1.0 - r), dh * (h - n) * z * (1.0 - z), dn), dh * z, 0.0);
}

fn tanh_slopes(gates: vec4<f32>, h: f32, c: f32, dh: f32, dc: f32) -> Slopes {
    return Slopes(vec4<f32>(dh * (1.0 - gates.x * gates.x), 0.0, 0.0, 0.0), 0.0, 0.0);
}

fn relu_slopes(gates: vec4<f32>, h: f32, c: f32, dh: f32, dc: f32) -> Slopes {
    return Slopes(vec4<f32>(select(0.0, dh, gates.x > 0.0), 0.0, 0.0, 0.0), 0.0, 0.0);
}
