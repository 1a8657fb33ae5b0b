//! Random graphs: chains that are fused, split for want of bindings, read through index rules, used by several groups.

use shadegrad::ops::Conv2dOptions;
use shadegrad::{Graph, Tensor};

use crate::support::reference::shape as moves;
use crate::support::reference::*;
use crate::trial::*;

/// A graph under construction beside its values.
struct Growing {
    graph: Graph,
    inputs: Vec<(Tensor, Array)>,
    nodes: Vec<(Tensor, Array)>,
    random: Random,
    story: String,
}

impl Growing {
    fn new(seed: u64) -> Self {
        let mut growing = Growing {
            graph: Graph::new(),
            inputs: Vec::new(),
            nodes: Vec::new(),
            random: Random::new(seed),
            story: String::new(),
        };
        let shape = [1, 2, 3, 4, 5, 8].map(|n| n);
        let base: Vec<usize> = (0..3).map(|_| shape[growing.random.below(6)]).collect();
        for round in 0..4 {
            let own = base.iter().map(|&n| if round > 0 && growing.random.below(4) == 0 { 1 } else { n }).collect();
            growing.input(own);
        }
        growing
    }

    fn input(&mut self, shape: Vec<usize>) -> usize {
        let array = self.random.normal(shape.clone());
        let tensor = self.graph.input(shape);
        self.inputs.push((tensor.clone(), array.clone()));
        self.nodes.push((tensor, array));
        self.nodes.len() - 1
    }

    /// Adds a random op on random nodes.
    fn grow(&mut self) {
        let pick = self.random.below(self.nodes.len());
        let (x, v) = self.nodes[pick].clone();
        let rank = v.rank();
        let axis = self.random.below(rank.max(1));
        let choice = self.random.below(12);
        let made: Option<(Tensor, Array)> = match choice {
            0..=3 => {
                let (y, w) = self.nodes[self.random.below(self.nodes.len())].clone();
                broadcast_shape(&v.shape, &w.shape).map(|_| match choice {
                    0 => (&x + &y, Binary::Add.apply(&v, &w)),
                    1 => ((&x * &y).tanh(), Unary::Tanh.apply(&Binary::Mul.apply(&v, &w))),
                    2 => (&x - &y, Binary::Sub.apply(&v, &w)),
                    _ => (x.maximum(&y), Binary::Maximum.apply(&v, &w)),
                })
            }
            4 => Some((x.sigmoid() * 1.5, Unary::Sigmoid.apply(&v).map(|s| 1.5 * s))),
            5 if rank > 1 => {
                let mut dims: Vec<i64> = (0..rank as i64).collect();
                dims.swap(axis, rank - 1);
                let engine: Vec<isize> = dims.iter().map(|&d| d as isize).collect();
                Some((x.permute(&engine), moves::permute(&v, &dims)))
            }
            6 if rank > 0 => {
                // Backwards in steps of two.
                let n = v.shape[axis];
                let mut ranges: Vec<_> = v.shape.iter().map(|&n| (0, n as isize, 1)).collect();
                ranges[axis] = (n - 1, -1, -2);
                let turned = moves::flip(&v, &[axis as i64]);
                let mut step = vec![1; rank];
                step[axis] = 2;
                Some((x.slice(&ranges), moves::slice(&turned, &vec![0; rank], &turned.shape.clone(), &step)))
            }
            7 if v.len() < 200 => {
                let shape = [vec![2], v.shape.clone()].concat();
                Some((x.expand(shape.clone()), v.broadcast_to(&shape)))
            }
            8 if rank > 0 => {
                let dims = [axis as i64];
                Some((x.mean(&[axis as isize], true), reduce(Reduce::Mean, &v, &dims, true)))
            }
            9 => Some((x.flatten(rank.saturating_sub(2)), {
                let lead = rank.saturating_sub(2);
                let mut shape = v.shape[..lead].to_vec();
                shape.push(v.shape[lead..].iter().product());
                v.clone().reshape(shape)
            })),
            10 if rank == 2 => {
                let product = matmul(&v, &v, false, true);
                Some(((x.matmul_t(&x, false, true) * 0.125).tanh(), Unary::Tanh.apply(&product.map(|p| 0.125 * p))))
            }
            11 if rank > 0 => {
                Some((x.concat(&[&x.tanh()], axis as isize), moves::concat(&[&v, &Unary::Tanh.apply(&v)], axis as i64)))
            }
            _ => None,
        };
        if let Some((tensor, array)) = made.filter(|(_, array)| array.len() <= 4000 && array.rank() <= 5) {
            assert_eq!(tensor.shape(), array.shape, "{}", self.story);
            self.story += &format!("\n{} = {choice} of {pick}: {:?}", self.nodes.len(), array.shape);
            self.nodes.push((tensor, array));
        }
    }
}

#[test]
fn random_graphs() {
    for seed in 0..60 {
        let mut growing = Growing::new(1000 + seed);
        for _ in 0..24 {
            growing.grow();
        }
        // The last node and some others; everything reaches some output.
        let mut chosen: Vec<usize> = vec![growing.nodes.len() - 1];
        (0..4).for_each(|_| chosen.push(growing.random.below(growing.nodes.len())));
        let tensors: Vec<Tensor> = chosen.iter().map(|&n| growing.nodes[n].0.clone()).collect();
        // Keeps every input an input of the program.
        let mut outputs = tensors.clone();
        outputs.extend(growing.inputs.iter().map(|(t, _)| t.sum(&[], false)));
        for gpu in [small_gpu(), gpu(1)] {
            let got = run(&gpu, &growing.graph, &growing.inputs, &outputs)
                .unwrap_or_else(|e| panic!("seed {seed}: {e}{}", growing.story));
            for (&n, got) in chosen.iter().zip(&got) {
                let what = format!("seed {seed}, node {n}{}", growing.story);
                agree(&what, got, &growing.nodes[n].1, Bound::Values(2e-5, 2e-5), None);
            }
        }
    }
}

/// More operands than a kernel may bind buffers: the chain is split.
#[test]
fn long_chains() {
    let mut random = Random::new(61);
    for count in [7, 8, 9, 15, 30] {
        for tail in [1, 6] {
            let g = Graph::new();
            let inputs: Vec<(Tensor, Array)> = (0..count).map(|_| (g.input([5, 7]), random.normal([5, 7]))).collect();
            let (mut y, mut want) = inputs[0].clone();
            for (tensor, array) in &inputs[1..] {
                y = (&y * tensor + 0.5).tanh();
                want = want.zip(array, |a, b| (a * b + 0.5).tanh());
            }
            // Operands again, out of order and transposed.
            for (tensor, array) in inputs.iter().rev().take(tail) {
                y = &y + tensor.permute(&[1, 0]).permute(&[1, 0]).flip(0) * 0.5;
                want = want.zip(&moves::flip(array, &[0]), |a, b| a + 0.5 * b);
            }
            let program = small_gpu().compile(&g.function([&y])).expect("a program");
            let most = program.plan().steps.iter().map(|s| s.bindings.len()).max();
            assert!(most <= Some(8), "{count} operands: {most:?} bindings");
            let got = run(&small_gpu(), &g, &inputs, &[y]).expect("a run");
            agree(&format!("{count} operands"), &got[0], &want, VALUES, None);
        }
    }
}

/// Bias, residual and activation behind a product or a convolution; the product itself is wanted, too, or not.
#[test]
fn epilogues() {
    let mut random = Random::new(62);
    for kernel in 0..3 {
        for round in 0..4 {
            let g = Graph::new();
            let (x, w) = (random.normal([2, 3, 9, 8]), random.normal([5, 3, 3, 3]));
            let (bias, more) = (random.normal([5, 1, 1]), random.normal([2, 5, 9, 8]));
            let [tx, tw, tb, tm] = [&x, &w, &bias, &more].map(|a| g.input(a.shape.as_slice()));
            let conv = tx.conv2d(&tw, &Conv2dOptions::new().padding([1, 1]));
            let y = (&conv + &tb + &tm).gelu();
            let z = if round % 2 == 0 { y.permute(&[0, 2, 3, 1]) } else { &y * &conv };
            let mut outputs = vec![z.clone()];
            if round > 1 {
                outputs.push(conv.sum(&[2, 3], false));
            }
            let c = Conv2d { padding: [1; 4], ..Conv2d::default() }.forward(&x, &w, None);
            let sum = Binary::Add.apply(&Binary::Add.apply(&c, &bias), &more);
            let want = Unary::Gelu.apply(&sum);
            let want = if round % 2 == 0 { moves::permute(&want, &[0, 2, 3, 1]) } else { want.zip(&c, |a, b| a * b) };
            let inputs = [(tx, x), (tw, w), (tb, bias), (tm, more)];
            let got = run(&gpu(kernel), &g, &inputs, &outputs).expect("a run");
            let bound = Bound::Values(2e-5, 5e-5);
            agree("conv2d, bias, residual, gelu", &got[0], &want, bound, None);
            if round > 1 {
                let sums = reduce(Reduce::Sum, &c, &[2, 3], false);
                agree("its sums", &got[1], &sums, Bound::Values(2e-5, 5e-5), None);
            }
        }
        let g = Graph::new();
        let (a, b) = (random.normal([33, 20]), random.normal([17, 20]));
        let (bias, more) = (random.normal([17]), random.normal([17, 33]));
        let [ta, tb, tc, tm] = [&a, &b, &bias, &more].map(|v| g.input(v.shape.as_slice()));
        let y = (ta.linear(&tb, Some(&tc)).relu() + tm.transpose(0, 1)) * 0.5;
        let product = Unary::Relu.apply(&linear(&a, &b, Some(&bias)));
        let want = product.zip(&moves::permute(&more, &[1, 0]), |p, m| 0.5 * (p + m));
        let got = run(&gpu(kernel), &g, &[(ta, a), (tb, b), (tc, bias), (tm, more)], &[y]).expect("a run");
        agree("linear, relu, transposed residual", &got[0], &want, Bound::Values(2e-5, 5e-5), None);
    }
}

/// Products and reductions read slices, permutations and broadcasts in place.
#[test]
fn operands_in_place() {
    let mut random = Random::new(63);
    for kernel in 0..3 {
        for rows in [4, 3] {
            let g = Graph::new();
            let (x, w) = (random.normal([5, rows, 2, 12]), random.normal([2, 8, 12]));
            let [tx, tw] = [&x, &w].map(|a| g.input(a.shape.as_slice()));
            // [2, 3, rows, 4]: of every second of five steps, the last four of the twelve.
            let part = tx.slice(&[(0, 5, 2), (0, rows as isize, 1), (0, 2, 1), (8, 12, 1)]).permute(&[2, 0, 1, 3]);
            let other = tw.slice(&[(0, 2, 1), (0, 8, 1), (4, 8, 1)]).reshape([2, 1, 8, 4]);
            let outputs = [
                part.matmul_t(&other.expand([2, 3, 8, 4]), false, true),
                part.sum(&[1, 3], false),
                part.transpose(2, 3).amax(&[3], false),
            ];
            let sliced = moves::slice(&x, &[0, 0, 0, 8], &[5, rows, 2, 12], &[2, 1, 1, 1]);
            let a = moves::permute(&sliced, &[2, 0, 1, 3]);
            let b = moves::slice(&w, &[0, 0, 4], &[2, 8, 8], &[1; 3]).reshape([2, 1, 8, 4]).broadcast_to(&[2, 3, 8, 4]);
            let wants = [
                matmul(&a, &b, false, true),
                reduce(Reduce::Sum, &a, &[1, 3], false),
                reduce(Reduce::Max, &a, &[2], false),
            ];
            let program = gpu(kernel).compile(&g.function(&outputs)).expect("a program");
            let copies = program.plan().steps.iter().filter(|step| step.label.contains("slice")).count();
            assert_eq!(copies, 0, "{program}");
            let got = run(&gpu(kernel), &g, &[(tx, x), (tw, w)], &outputs).expect("a run");
            for (n, (got, want)) in got.iter().zip(&wants).enumerate() {
                agree(&format!("output {n} with kernel {kernel}"), got, want, Bound::Values(2e-5, 2e-5), None);
            }
        }
    }
}
