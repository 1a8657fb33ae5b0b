//! The case list: what is computed, from which numbers, and how much work it is.

use super::{networks, recurrent};
use shadegrad::ops::{Attention, Conv2dOptions, Window};
use shadegrad::optim::Adam;
use shadegrad::{DType, Error, Function, Graph, Program, Result, Tensor};

/// One line of the benchmark.
pub struct Case {
    pub name: String,
    /// Floating-point operations, or 0.
    pub flops: f64,
    /// Bytes of inputs and outputs, or 0.
    pub bytes: f64,
    /// The type of what is multiplied.
    pub factors: DType,
    /// Images or sequences of one call, or 0.
    pub items: f64,
    /// What an item is.
    pub unit: &'static str,
    build: Box<dyn Fn(&mut Builder) -> Job>,
}

/// What a case runs.
pub struct Job {
    pub function: Function,
    /// Written once, before the first call.
    pub data: Vec<(Tensor, Data)>,
    /// The check value is the sum of their mean magnitudes.
    pub check: Vec<Tensor>,
    /// A call also reads the checked tensors, as a training loop reads its loss.
    pub reads: bool,
}

/// The contents of an input.
pub enum Data {
    Float(Vec<f32>),
    Labels(Vec<u32>),
}

impl Data {
    pub fn write(&self, program: &Program, tensor: &Tensor) -> Result<()> {
        match self {
            Data::Float(values) => program.write(tensor, values)?,
            Data::Labels(values) => program.write_u32(tensor, values)?,
        };
        Ok(())
    }
}

/// A graph under construction with the contents of its inputs.
#[derive(Default)]
pub struct Builder {
    pub graph: Graph,
    data: Vec<(Tensor, Data)>,
}

impl Case {
    pub fn new(name: impl Into<String>, build: impl Fn(&mut Builder) -> Job + 'static) -> Case {
        let factors = DType::F32;
        Case { name: name.into(), flops: 0.0, bytes: 0.0, factors, items: 0.0, unit: "-", build: Box::new(build) }
    }

    pub fn flops(mut self, flops: usize) -> Case {
        self.flops = flops as f64;
        self
    }

    /// Sets the traffic from the number of f32 values read and written.
    pub fn traffic(mut self, values: usize) -> Case {
        self.bytes = 4.0 * values as f64;
        self
    }

    /// The factors are f16.
    pub fn halves(mut self) -> Case {
        self.factors = DType::F16;
        self
    }

    fn images(mut self, count: usize) -> Case {
        (self.items, self.unit) = (count as f64, "img");
        self
    }

    pub fn sequences(mut self, count: usize) -> Case {
        (self.items, self.unit) = (count as f64, "seq");
        self
    }

    pub fn job(&self) -> Job {
        (self.build)(&mut Builder::default())
    }
}

impl Builder {
    /// An input filled with [`random`] numbers.
    pub fn input<const N: usize>(&mut self, shape: [usize; N], seed: u32, scale: f32) -> Tensor {
        let tensor = self.graph.input(shape);
        let values = random(tensor.elements(), seed, scale);
        self.data.push((tensor.clone(), Data::Float(values)));
        tensor
    }

    /// The same, of f16.
    pub fn halves<const N: usize>(&mut self, shape: [usize; N], seed: u32, scale: f32) -> Tensor {
        let tensor = self.graph.input_f16(shape);
        let values = random(tensor.elements(), seed, scale);
        self.data.push((tensor.clone(), Data::Float(values)));
        tensor
    }

    /// An input of labels below `classes`.
    pub fn labels(&mut self, count: usize, seed: u32, classes: u32) -> Tensor {
        let tensor = self.graph.input_u32([count]);
        let label = |v: f32| (((v + 0.5) * classes as f32) as u32).min(classes - 1);
        let values = random(count, seed, 1.0).into_iter().map(label).collect();
        self.data.push((tensor.clone(), Data::Labels(values)));
        tensor
    }

    /// The output alone.
    pub fn forward(&mut self, y: Tensor) -> Job {
        self.job(self.graph.function([&y]), vec![y], false)
    }

    /// The output and, for a gradient of ones that arrives there, those of `wrt`.
    fn both(&mut self, y: Tensor, wrt: &[&Tensor]) -> Job {
        let mut job = self.gradients(y.clone(), wrt);
        job.check = job.function.outputs().to_vec();
        job
    }

    /// The same, but only the first gradient is checked.
    pub fn gradients(&mut self, y: Tensor, wrt: &[&Tensor]) -> Job {
        let dy = self.input_like(&y);
        let mut outputs = self.graph.grad_from(&[(y.clone(), dy)], wrt.iter().copied());
        outputs.push(y);
        self.job(self.graph.function(&outputs), outputs[..1].to_vec(), false)
    }

    /// The gradient that arrives at `y`: ones, but an input, so that no pass can profit from knowing it.
    fn input_like(&mut self, y: &Tensor) -> Tensor {
        let dy = self.graph.input(y.desc().shape.clone());
        self.data.push((dy.clone(), Data::Float(vec![1.0; dy.elements()])));
        dy
    }

    /// The gradient of one operand alone.
    pub fn gradient(&mut self, y: &Tensor, wrt: &Tensor) -> Job {
        let dy = self.input_like(y);
        let grads = self.graph.grad_from(&[(y.clone(), dy)], [wrt]);
        self.job(self.graph.function(&grads), grads, false)
    }

    /// A step of an optimizer.
    pub fn minimize(&mut self, loss: &Tensor, optimizer: Adam) -> Job {
        self.job(self.graph.minimize(loss, optimizer), vec![loss.clone()], false)
    }

    /// A training step with Adam, of which the loss is read each time.
    pub fn train(&mut self, loss: Tensor) -> Job {
        self.job(self.graph.minimize(&loss, Adam::new(1e-3)), vec![loss], true)
    }

    fn job(&mut self, function: Function, check: Vec<Tensor>, reads: bool) -> Job {
        Job { function, data: std::mem::take(&mut self.data), check, reads }
    }
}

/// Numbers in [-scale/2, scale/2) that every harness makes alike: a hash of place and seed.
pub fn random(count: usize, seed: u32, scale: f32) -> Vec<f32> {
    let start = seed.wrapping_mul(40_503);
    let number = |i: usize| {
        let mut bits = (i as u32).wrapping_mul(0x9E37_79B1).wrapping_add(start);
        bits = (bits ^ (bits >> 15)).wrapping_mul(0x85EB_CA77);
        bits = (bits ^ (bits >> 13)).wrapping_mul(0xC2B2_AE3D);
        bits ^= bits >> 16;
        ((bits >> 8) as f32 / (1 << 24) as f32 - 0.5) * scale
    };
    (0..count).map(number).collect()
}

/// Every case that the engine can express, in the order of the common list.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for n in [256, 512, 1024, 2048] {
        cases.push(matmul(format!("matmul_{n}"), n, n, n));
    }
    for (m, k, n) in [(1, 1024, 1024), (32, 3136, 128), (64, 512, 512)] {
        cases.push(matmul(format!("matmul_{m}x{k}x{n}"), m, k, n).traffic(m * k + k * n + m * n));
    }
    cases.extend(CONVS.iter().flat_map(|conv| [conv.case(false), conv.case(true)]));
    cases.extend(memory_bound());
    cases.extend(recurrent::layers());
    for batch in [1, 64, 256] {
        let case = Case::new(format!("mnist_infer_b{batch}"), move |b| networks::infer(b, batch));
        cases.push(case.flops(networks::FLOPS * batch).images(batch));
    }
    cases.push(Case::new("mnist_train_b64", |b| networks::train(b, 64)).flops(3 * networks::FLOPS * 64).images(64));
    let train = Case::new("rnn_train_b32", |b| recurrent::train(b, 32));
    cases.push(train.flops(recurrent::TRAIN_FLOPS * 32).sequences(32));
    cases.push(Case::new("sdpa_4x8x256x64", attention).flops(4 * 4 * 8 * 256 * 256 * 64));
    cases
}

/// The networks of `shadegrad bench models`: inference and training steps.
pub fn models() -> Vec<Case> {
    let mut all = all();
    all.retain(|case| ["mnist", "rnn_train"].iter().any(|name| case.name.starts_with(name)));
    all
}

/// The cases of these names or, where no case is called so, with these parts in their names; all if none are given. A name
/// that no case is like is refused with a word on which list shows what there is.
pub fn like(mut cases: Vec<Case>, names: &[String], list: &str) -> Result<Vec<Case>> {
    if names.is_empty() {
        return Ok(cases);
    }
    if let Some(name) = names.iter().find(|name| !cases.iter().any(|case| case.name.contains(name.as_str()))) {
        return Err(Error::argument("cases", format!("no case is like {name:?}; {list} shows what there is")));
    }
    let exact: Vec<bool> = names.iter().map(|name| cases.iter().any(|case| case.name == *name)).collect();
    cases.retain(|case| {
        let fits = |(name, &exact): (&String, &bool)| match exact {
            true => case.name == *name,
            false => case.name.contains(name.as_str()),
        };
        names.iter().zip(&exact).any(fits)
    });
    Ok(cases)
}

pub fn matmul(name: String, m: usize, k: usize, n: usize) -> Case {
    let build = move |b: &mut Builder| {
        let (x, y) = (b.input([m, k], 1, 2.0), b.input([k, n], 2, 2.0));
        b.forward(x.matmul(&y))
    };
    Case::new(name, build).flops(2 * m * k * n)
}

/// A convolution of stride 1 whose output is as large as its input, without bias.
#[derive(Clone, Copy)]
struct Conv {
    name: &'static str,
    batch: usize,
    channels: [usize; 2],
    kernel: usize,
    side: usize,
    groups: usize,
}

const CONVS: [Conv; 5] = [
    Conv { name: "conv_c1_32_k5_28", batch: 32, channels: [1, 32], kernel: 5, side: 28, groups: 1 },
    Conv { name: "conv_c32_64_k5_14", batch: 32, channels: [32, 64], kernel: 5, side: 14, groups: 1 },
    Conv { name: "conv_c64_64_k3_56", batch: 8, channels: [64, 64], kernel: 3, side: 56, groups: 1 },
    Conv { name: "conv_c128_128_k1_28", batch: 8, channels: [128, 128], kernel: 1, side: 28, groups: 1 },
    Conv { name: "conv_dw128_k3_28", batch: 8, channels: [128, 128], kernel: 3, side: 28, groups: 128 },
];

impl Conv {
    fn case(self, backward: bool) -> Case {
        let [from, to] = self.channels;
        let (side, k) = (self.side, self.kernel);
        let taps = from / self.groups * k * k;
        let flops = 2 * self.batch * to * side * side * taps;
        let build = move |b: &mut Builder| {
            let x = b.input([self.batch, from, side, side], 1, 2.0);
            let w = b.input([to, from / self.groups, k, k], 2, 2.0 / (taps as f32).sqrt());
            let y = x.conv2d(&w, &Conv2dOptions::new().padding([k / 2; 2]).groups(self.groups));
            if backward { b.both(y, &[&x, &w]) } else { b.forward(y) }
        };
        let (name, passes) = if backward { ("fb", 3) } else { ("fwd", 1) };
        Case::new(format!("{}_{name}", self.name), build).flops(passes * flops)
    }
}

/// The cases in which bytes count, not operations.
fn memory_bound() -> Vec<Case> {
    const POOLED: usize = 32 * 32 * 28 * 28;
    const LONG: usize = 1 << 24;
    let pool = |b: &mut Builder| {
        let x = b.input([32, 32, 28, 28], 1, 2.0);
        let y = x.max_pool2d(&Window::new([2, 2]));
        (x, y)
    };
    let pool_forward = move |b: &mut Builder| {
        let (_, y) = pool(b);
        b.forward(y)
    };
    let pool_both = move |b: &mut Builder| {
        let (x, y) = pool(b);
        b.both(y, &[&x])
    };
    let softmax = |b: &mut Builder| {
        let x = b.input([4096, 1000], 1, 8.0);
        b.forward(x.softmax(1))
    };
    let sum = |b: &mut Builder| {
        let x = b.input([LONG], 1, 2.0);
        b.forward(x.sum(&[], false))
    };
    let gelu = |b: &mut Builder| {
        let x = b.input([LONG], 1, 8.0);
        b.forward(x.gelu())
    };
    let layer_norm = |b: &mut Builder| {
        let x = b.input([4096, 768], 1, 8.0);
        let (weight, bias) = (b.graph.constant([768], &[1.0; 768]), b.graph.constant([768], &[0.0; 768]));
        b.forward(x.layer_norm(&[768], Some(&weight), Some(&bias), 1e-5))
    };
    vec![
        Case::new("maxpool_fwd", pool_forward).traffic(POOLED + POOLED / 4),
        Case::new("maxpool_fb", pool_both).traffic(2 * POOLED + POOLED / 2),
        Case::new("softmax_4096x1000", softmax).traffic(2 * 4096 * 1000),
        Case::new("layernorm_4096x768", layer_norm).traffic(2 * 4096 * 768),
        Case::new("sum_16m", sum).traffic(LONG),
        Case::new("gelu_16m", gelu).traffic(2 * LONG),
    ]
}

fn attention(b: &mut Builder) -> Job {
    let [q, k, v] = [1, 2, 3].map(|seed| b.input([4, 8, 256, 64], seed, 2.0));
    b.forward(q.scaled_dot_product_attention(&k, &v, &Attention::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_other_harnesses() {
        let numbers = random(1 << 16, 7, 2.0);
        let mean = numbers.iter().map(|v| f64::from(v.abs())).sum::<f64>() / numbers.len() as f64;
        assert_eq!(numbers[..3], [-0.7420968, 0.96822166, 0.09620988]);
        assert!((mean - 0.5).abs() < 0.01 && numbers.iter().all(|v| (-1.0..1.0).contains(v)), "{mean}");
    }

    #[test]
    fn every_case_builds() {
        for case in all() {
            let built = case.job().check[0].graph().error();
            assert!(built.is_ok(), "{}: {built:?}", case.name);
        }
    }

    #[test]
    fn patterns_are_names_or_parts_of_them() {
        let wanted = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|text| text.to_string()).collect();
            let found = like(all(), &names, "a list").map_err(|error| error.to_string())?;
            Ok::<_, String>(found.into_iter().map(|case| case.name).collect::<Vec<_>>())
        };
        assert_eq!(wanted(&["mnist_infer_b1", "pool_f"]).unwrap(), ["maxpool_fwd", "maxpool_fb", "mnist_infer_b1"]);
        assert!(wanted(&["matmul_256", "nothing"]).unwrap_err().contains("like \"nothing\"; a list shows"));
        assert_eq!(wanted(&[]).unwrap().len(), 37);
    }
}
