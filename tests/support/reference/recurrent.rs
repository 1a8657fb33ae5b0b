//! Recurrent layers, sequence by sequence, step by step, and back the same way.

use super::{Array, Attrs, Named};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    Lstm,
    Gru,
    GruResetBefore,
    RnnTanh,
    RnnRelu,
}

/// A stack of layers.
#[derive(Clone, Debug)]
pub struct Stack {
    cell: Cell,
    layers: usize,
    both: bool,
    batch_first: bool,
    lengths: Option<Vec<usize>>,
}

/// One layer's weights in one direction, or their gradients: input [G H, I], hidden [G H, H], biases [G H].
#[derive(Clone, Debug)]
struct Weights {
    w: Array,
    u: Array,
    b: Array,
    c: Array,
}

/// What one step computed: the states before it, its input, the gates, the candidate's recurrent part.
struct Step {
    x: Vec<f64>,
    h: Vec<f64>,
    c: Vec<f64>,
    gates: Vec<Vec<f64>>,
    part: Vec<f64>,
}

type Sequence = Vec<Vec<f64>>;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Rows of gate `g` times `v`.
fn product(m: &Array, g: usize, hidden: usize, v: &[f64]) -> Vec<f64> {
    let row = |u: usize| &m.data[(g * hidden + u) * v.len()..][..v.len()];
    (0..hidden).map(|u| row(u).iter().zip(v).map(|(a, b)| a * b).sum()).collect()
}

/// Adds the gradients of a product of gate `g` from what arrives at it: to the matrix and to the vector.
fn product_back(m: &Array, dm: &mut Array, g: usize, v: &[f64], dy: &[f64], dv: &mut [f64]) {
    for (u, d) in dy.iter().enumerate() {
        let first = (g * dy.len() + u) * v.len();
        for k in 0..v.len() {
            dm.data[first + k] += d * v[k];
            dv[k] += d * m.data[first + k];
        }
    }
}

impl Stack {
    pub fn new(op: &str, attrs: Attrs) -> Option<Self> {
        let cell = match op {
            "lstm" => Cell::Lstm,
            "gru" => Cell::Gru,
            "gru_reset_before" => Cell::GruResetBefore,
            "rnn_tanh" => Cell::RnnTanh,
            "rnn_relu" => Cell::RnnRelu,
            _ => return None,
        };
        Some(Stack {
            cell,
            layers: attrs.usize("num_layers"),
            both: attrs.bool_or("bidirectional", false),
            batch_first: attrs.bool_or("batch_first", false),
            lengths: attrs.ints_if("lengths").map(|list| list.into_iter().map(|n| n as usize).collect()),
        })
    }

    fn gates(&self) -> usize {
        match self.cell {
            Cell::Lstm => 4,
            Cell::Gru | Cell::GruResetBefore => 3,
            _ => 1,
        }
    }

    fn directions(&self) -> usize {
        1 + usize::from(self.both)
    }

    fn suffix(&self, n: usize) -> String {
        let (layer, reverse) = (n / self.directions(), n % self.directions() == 1);
        format!("l{layer}{}", if reverse { "_reverse" } else { "" })
    }

    fn weights(&self, x: &Named, n: usize) -> Weights {
        let suffix = self.suffix(n);
        if self.cell == Cell::GruResetBefore {
            // [hidden, hidden + inputs] for each gate, the state's columns first.
            let parts = ["r", "z", "h"].map(|gate| &x[&format!("w_{gate}_{suffix}")]);
            let [hidden, all] = [parts[0].shape[0], parts[0].shape[1]];
            let cut = |from: usize, to: usize| {
                let rows = parts.iter().flat_map(|part| part.data.chunks(all)).flat_map(|row| row[from..to].to_vec());
                Array::new([3 * hidden, to - from], rows.collect())
            };
            let biases = ["r", "z", "h"].iter().flat_map(|gate| x[&format!("b_{gate}_{suffix}")].data.clone());
            let b = Array::new([3 * hidden], biases.collect());
            return Weights { w: cut(hidden, all), u: cut(0, hidden), c: Array::zeros([3 * hidden]), b };
        }
        let get = |name: &str| x.get(&format!("{name}_{suffix}")).cloned();
        let u = get("weight_hh").expect("recurrent weights");
        let zeros = || Array::zeros([u.shape[0]]);
        Weights {
            w: get("weight_ih").expect("input weights"),
            b: get("bias_ih").unwrap_or_else(zeros),
            c: get("bias_hh").unwrap_or_else(zeros),
            u,
        }
    }

    /// The gradients by the names of the weights.
    fn name(&self, grads: &[Weights]) -> Named {
        let mut named = Named::new();
        for (n, grad) in grads.iter().enumerate() {
            let suffix = self.suffix(n);
            if self.cell != Cell::GruResetBefore {
                let parts =
                    [("weight_ih", &grad.w), ("weight_hh", &grad.u), ("bias_ih", &grad.b), ("bias_hh", &grad.c)];
                named.extend(parts.map(|(name, part)| (format!("{name}_{suffix}"), part.clone())));
                continue;
            }
            let (hidden, inputs) = (grad.u.shape[1], grad.w.shape[1]);
            for (g, gate) in ["r", "z", "h"].iter().enumerate() {
                let rows = (g * hidden..(g + 1) * hidden).flat_map(|row| {
                    let (u, w) = (&grad.u.data[row * hidden..][..hidden], &grad.w.data[row * inputs..][..inputs]);
                    [u, w].concat()
                });
                let whole = Array::new([hidden, hidden + inputs], rows.collect());
                named.insert(format!("w_{gate}_{suffix}"), whole);
                let bias = grad.b.data[g * hidden..][..hidden].to_vec();
                named.insert(format!("b_{gate}_{suffix}"), Array::new([hidden], bias));
            }
        }
        named
    }

    fn forward_step(&self, w: &Weights, x: &[f64], h: &[f64], c: &[f64]) -> (Step, Vec<f64>, Vec<f64>) {
        let hidden = h.len();
        let input = |g: usize, u: usize, of: &[f64]| of[u] + w.b.data[g * hidden + u];
        let sums: Vec<_> = (0..self.gates()).map(|g| product(&w.w, g, hidden, x)).collect();
        let back: Vec<_> = (0..self.gates()).map(|g| product(&w.u, g, hidden, h)).collect();
        let all = |g: usize, u: usize| input(g, u, &sums[g]) + back[g][u] + w.c.data[g * hidden + u];
        let units = || 0..hidden;
        let gate = |g: usize, f: fn(f64) -> f64| units().map(|u| f(all(g, u))).collect::<Vec<_>>();
        let (mut part, mut next_c) = (Vec::new(), Vec::new());
        let (gates, next) = match self.cell {
            Cell::Lstm => {
                let [i, f, g, o] = [gate(0, sigmoid), gate(1, sigmoid), gate(2, f64::tanh), gate(3, sigmoid)];
                next_c = units().map(|u| f[u] * c[u] + i[u] * g[u]).collect();
                let next = units().map(|u| o[u] * next_c[u].tanh()).collect();
                (vec![i, f, g, o], next)
            }
            Cell::Gru => {
                let (r, z) = (gate(0, sigmoid), gate(1, sigmoid));
                part = units().map(|u| back[2][u] + w.c.data[2 * hidden + u]).collect();
                let n: Vec<f64> = units().map(|u| (input(2, u, &sums[2]) + r[u] * part[u]).tanh()).collect();
                let next = units().map(|u| (1.0 - z[u]) * n[u] + z[u] * h[u]).collect();
                (vec![r, z, n], next)
            }
            Cell::GruResetBefore => {
                let (r, z) = (gate(0, sigmoid), gate(1, sigmoid));
                part = units().map(|u| r[u] * h[u]).collect();
                let back = product(&w.u, 2, hidden, &part);
                let n: Vec<f64> = units().map(|u| (input(2, u, &sums[2]) + back[u]).tanh()).collect();
                let next = units().map(|u| (1.0 - z[u]) * h[u] + z[u] * n[u]).collect();
                (vec![r, z, n], next)
            }
            Cell::RnnTanh => (vec![gate(0, f64::tanh)], gate(0, f64::tanh)),
            Cell::RnnRelu => (vec![gate(0, |v| v.max(0.0))], gate(0, |v| v.max(0.0))),
        };
        (Step { x: x.to_vec(), h: h.to_vec(), c: c.to_vec(), gates, part }, next, next_c)
    }

    /// From the gradients of a step's states those of its input and of the states before it.
    fn backward_step(&self, w: &Weights, grads: &mut Weights, s: &Step, dh: &[f64], dc: &[f64]) -> [Vec<f64>; 3] {
        let hidden = dh.len();
        let (mut dx, mut before, mut dc_before) = (vec![0.0; s.x.len()], vec![0.0; hidden], vec![0.0; hidden]);
        let mut sums = vec![vec![0.0; hidden]; self.gates()];
        let slope = |v: f64| v * (1.0 - v);
        for u in 0..hidden {
            let g = |gate: usize| s.gates[gate][u];
            match self.cell {
                Cell::Lstm => {
                    let t = (g(1) * s.c[u] + g(0) * g(2)).tanh();
                    let all = dc[u] + dh[u] * g(3) * (1.0 - t * t);
                    sums[0][u] = all * g(2) * slope(g(0));
                    sums[1][u] = all * s.c[u] * slope(g(1));
                    sums[2][u] = all * g(0) * (1.0 - g(2) * g(2));
                    sums[3][u] = dh[u] * t * slope(g(3));
                    dc_before[u] = all * g(1);
                }
                Cell::Gru => {
                    sums[2][u] = dh[u] * (1.0 - g(1)) * (1.0 - g(2) * g(2));
                    sums[1][u] = dh[u] * (s.h[u] - g(2)) * slope(g(1));
                    sums[0][u] = sums[2][u] * s.part[u] * slope(g(0));
                    before[u] = dh[u] * g(1);
                }
                Cell::GruResetBefore => {
                    sums[2][u] = dh[u] * g(1) * (1.0 - g(2) * g(2));
                    sums[1][u] = dh[u] * (g(2) - s.h[u]) * slope(g(1));
                    before[u] = dh[u] * (1.0 - g(1));
                }
                Cell::RnnTanh => sums[0][u] = dh[u] * (1.0 - g(0) * g(0)),
                Cell::RnnRelu => sums[0][u] = if g(0) > 0.0 { dh[u] } else { 0.0 },
            }
        }
        if self.cell == Cell::GruResetBefore {
            let mut of_part = vec![0.0; hidden];
            product_back(&w.u, &mut grads.u, 2, &s.part, &sums[2], &mut of_part);
            for u in 0..hidden {
                before[u] += of_part[u] * s.gates[0][u];
                sums[0][u] = of_part[u] * s.h[u] * slope(s.gates[0][u]);
            }
        }
        for (g, sum) in sums.iter().enumerate() {
            product_back(&w.w, &mut grads.w, g, &s.x, sum, &mut dx);
            // What goes to the recurrent part of the gate.
            let own = match (self.cell, g) {
                (Cell::GruResetBefore, 2) => vec![0.0; hidden],
                (Cell::Gru, 2) => sum.iter().zip(&s.gates[0]).map(|(d, r)| d * r).collect(),
                _ => sum.clone(),
            };
            product_back(&w.u, &mut grads.u, g, &s.h, &own, &mut before);
            for u in 0..hidden {
                grads.b.data[g * hidden + u] += sum[u];
                grads.c.data[g * hidden + u] += own[u];
            }
        }
        [dx, before, dc_before]
    }

    /// Runs everything; `arriving` gives the gradients of y, hn and cn, for which those of the inputs come back.
    fn run(&self, x: &Named, arriving: Option<&Named>) -> (Named, Named) {
        let data = &x["x"];
        let place = |n: usize, t: usize| if self.batch_first { [n, t] } else { [t, n] };
        let [batch, steps] = place(data.shape[0], data.shape[1]);
        let (directions, inputs) = (self.directions(), data.shape[2]);
        let weights: Vec<Weights> = (0..self.layers * directions).map(|n| self.weights(x, n)).collect();
        let hidden = weights[0].u.shape[1];
        let row = |a: &Array, i: usize, j: usize| {
            let width = a.shape[2];
            a.data[(i * a.shape[1] + j) * width..][..width].to_vec()
        };
        let set = |a: &mut Array, i: usize, j: usize, from: usize, values: &[f64]| {
            let first = (i * a.shape[1] + j) * a.shape[2] + from;
            a.data[first..first + values.len()].copy_from_slice(values);
        };
        let [first, second] = place(batch, steps);
        let states = [self.layers * directions, batch, hidden];
        let (mut y, mut hn, mut cn) =
            (Array::zeros([first, second, directions * hidden]), Array::zeros(states), Array::zeros(states));
        let zeros = Weights { w: Array::zeros([0]), u: Array::zeros([0]), b: Array::zeros([0]), c: Array::zeros([0]) };
        let mut grads = vec![zeros; weights.len()];
        for (grad, w) in grads.iter_mut().zip(&weights) {
            let like = |a: &Array| Array::zeros(a.shape.clone());
            *grad = Weights { w: like(&w.w), u: like(&w.u), b: like(&w.b), c: like(&w.c) };
        }
        let (mut dx, mut dh0, mut dc0) =
            (Array::zeros([first, second, inputs]), Array::zeros(states), Array::zeros(states));
        for n in 0..batch {
            let length = self.lengths.as_ref().map_or(steps, |lengths| lengths[n]);
            let at = |t: usize| place(n, t);
            let mut sequence: Sequence = (0..length).map(|t| row(data, at(t)[0], at(t)[1])).collect();
            let mut traces = Vec::new();
            for layer in 0..self.layers {
                let mut results = vec![Vec::new(); length];
                for d in 0..directions {
                    let k = layer * directions + d;
                    let initial = |name: &str| x.get(name).map_or(vec![0.0; hidden], |s| row(s, k, n));
                    let (mut h, mut c) = (initial("h0"), initial("c0"));
                    let mut trace = Vec::new();
                    for s in 0..length {
                        let t = if d == 1 { length - 1 - s } else { s };
                        let step;
                        (step, h, c) = self.forward_step(&weights[k], &sequence[t], &h, &c);
                        trace.push((t, step));
                        results[t].extend(&h);
                    }
                    set(&mut hn, k, n, 0, &h);
                    set(&mut cn, k, n, 0, &c);
                    traces.push(trace);
                }
                sequence = results;
            }
            for (t, values) in sequence.iter().enumerate() {
                set(&mut y, at(t)[0], at(t)[1], 0, values);
            }
            let Some(arriving) = arriving else { continue };
            let of = |name: &str, k: usize| arriving.get(name).map_or(vec![0.0; hidden], |d| row(d, k, n));
            let of_y =
                |t: usize| arriving.get("y").map_or(vec![0.0; directions * hidden], |d| row(d, at(t)[0], at(t)[1]));
            let mut back: Sequence = (0..length).map(of_y).collect();
            for layer in (0..self.layers).rev() {
                let width = if layer == 0 { inputs } else { directions * hidden };
                let mut below = vec![vec![0.0; width]; length];
                for d in 0..directions {
                    let k = layer * directions + d;
                    let (mut dh, mut dc) = (of("hn", k), of("cn", k));
                    for (t, step) in traces[k].iter().rev() {
                        dh.iter_mut().zip(&back[*t][d * hidden..]).for_each(|(a, b)| *a += b);
                        let dx;
                        [dx, dh, dc] = self.backward_step(&weights[k], &mut grads[k], step, &dh, &dc);
                        below[*t].iter_mut().zip(&dx).for_each(|(a, b)| *a += b);
                    }
                    set(&mut dh0, k, n, 0, &dh);
                    set(&mut dc0, k, n, 0, &dc);
                }
                back = below;
            }
            for (t, values) in back.iter().enumerate() {
                set(&mut dx, at(t)[0], at(t)[1], 0, values);
            }
        }
        let mut outputs = Named::from([("y".to_owned(), y), ("hn".to_owned(), hn)]);
        let mut named = self.name(&grads);
        named.extend([("x".to_owned(), dx), ("h0".to_owned(), dh0)]);
        if self.cell == Cell::Lstm {
            outputs.insert("cn".to_owned(), cn);
            named.insert("c0".to_owned(), dc0);
        }
        (outputs, named)
    }

    pub fn forward(&self, inputs: &Named) -> Named {
        self.run(inputs, None).0
    }

    pub fn grads(&self, inputs: &Named, arriving: &Named) -> Named {
        self.run(inputs, Some(arriving)).1
    }
}
