//! Functions of one, two and three tensors.

use serde_json::{Value, json};

use shadegrad::Graph;
use shadegrad::ops::{CrossEntropy, Reduction, Window};

use crate::support::engine;
use crate::support::reference::{Array, Random};
use crate::trial::*;

/// The op, its attributes, and the range of its arguments.
pub fn unary() -> Vec<(&'static str, Value, [f64; 2])> {
    let plain = ["relu", "relu6", "selu", "gelu", "gelu_tanh", "silu", "mish", "softsign", "hardsigmoid", "hardswish"];
    let more = ["sigmoid", "tanh", "logsigmoid", "tanhshrink", "exp", "expm1", "square", "abs", "neg", "sign", "erf"];
    let steps = ["sin", "cos", "floor", "ceil", "round"];
    let all = plain.into_iter().chain(more).chain(steps);
    let mut ops: Vec<_> = all.map(|op| (op, no_attrs(), [-4.0, 4.0])).collect();
    ops.extend([
        ("leaky_relu", json!({"negative_slope": 0.1}), [-4.0, 4.0]),
        ("elu", json!({"alpha": 1.25}), [-4.0, 4.0]),
        ("celu", json!({"alpha": 0.75}), [-4.0, 4.0]),
        ("softplus", json!({"beta": 1.5, "threshold": 3.0}), [-4.0, 4.0]),
        ("hardtanh", json!({"min_val": -1.5, "max_val": 0.5}), [-3.0, 3.0]),
        ("clamp", json!({"min": -0.5, "max": 1.5}), [-3.0, 3.0]),
        ("log", no_attrs(), [0.05, 6.0]),
        ("log1p", no_attrs(), [-0.9, 6.0]),
        ("sqrt", no_attrs(), [0.05, 6.0]),
        ("rsqrt", no_attrs(), [0.05, 6.0]),
        ("reciprocal", no_attrs(), [0.2, 4.0]),
        ("reciprocal", no_attrs(), [-4.0, -0.2]),
        ("pow_scalar", json!({"exponent": 3.0}), [-2.0, 2.0]),
        ("pow_scalar", json!({"exponent": -1.5}), [0.3, 3.0]),
    ]);
    ops
}

#[test]
fn one_operand() {
    let mut random = Random::new(1);
    let odd = odd_shapes();
    for (n, (op, attrs, [low, high])) in unary().into_iter().enumerate() {
        for round in 0..4 {
            let shape = if round == 0 { odd[n % odd.len()].clone() } else { shape(&mut random, 1 + (n + round) % 5) };
            let x = named([("x", random.uniform(shape, low, high))]);
            check(&gpu(0), op, &attrs, &x, VALUES, &mut random);
        }
    }
}

/// Long tensors, of which an invocation may compute several parts in turn: whole turns, and some that are not.
#[test]
fn parts_in_turn() {
    for rows in [65_537, 1 << 18, (1 << 18) + 301, (1 << 20) + 77] {
        let g = Graph::new();
        let (x, z, bias) = (g.input([rows, 8]), g.input([rows, 8]), g.input([8]));
        let sum = (&x * 2.0 + &z - &bias).relu();
        let turned = x.reshape([rows, 2, 4]).permute(&[1, 0, 2]).reshape([2, 4 * rows]);
        let program = gpu(0).compile(&g.function([&sum, &turned])).expect("a program");
        let abreast = program.plan().steps.iter().any(|step| step.kernel.entry == "pairs_abreast");
        assert_eq!(abreast, program.gpu().caps().abreast, "{program}");
        let whole = |step: usize| (0..8 * rows).map(|i| ((i * step + i / 29) % 23) as f32 - 11.0).collect::<Vec<_>>();
        let (a, b, c) = (whole(7), whole(5), [3.0, -2.0, 0.0, 1.0, 4.0, -5.0, 2.0, 7.0]);
        let run = program.write(&x, &a).and_then(|p| p.write(&z, &b)).and_then(|p| p.write(&bias, &c));
        run.and_then(|p| p.run()).expect("a run");
        let (sum, turned) = (program.read(&sum).expect("sums"), program.read(&turned).expect("elements"));
        for i in 0..8 * rows {
            assert_eq!(sum[i], (2.0 * a[i] + b[i] - c[i % 8]).max(0.0), "element {i} of {rows} rows");
            let [half, row, column] = [i / (4 * rows), i / 4 % rows, i % 4];
            assert_eq!(turned[i], a[8 * row + 4 * half + column], "element {i} of {rows} rows, turned");
        }
    }
}

/// Two shapes that broadcast to one: axes set to 1, leading axes left out.
fn partners(random: &mut Random, full: &[usize]) -> [Vec<usize>; 2] {
    let (mut a, mut b) = (full.to_vec(), full.to_vec());
    for axis in 0..full.len() {
        match random.below(4) {
            0 => a[axis] = 1,
            1 => b[axis] = 1,
            _ => {}
        }
    }
    let lead = b.iter().take_while(|n| **n == 1).count();
    [a, b[random.below(lead + 1)..].to_vec()]
}

#[test]
fn two_operands() {
    let mut random = Random::new(2);
    for op in ["add", "sub", "mul", "div", "pow", "maximum", "minimum", "where"] {
        for round in 0..12 {
            let full = match round {
                0 => vec![],
                1 => vec![3, 0, 2],
                2 => vec![1, 1],
                _ => shape(&mut random, 1 + round % 5),
            };
            let [a, b] = partners(&mut random, &full);
            let (low, high) = if op == "pow" { (0.3, 2.5) } else { (-3.0, 3.0) };
            let a = random.uniform(a, low, high);
            let b = random.uniform(b, low, high).map(|v| if op == "div" && v.abs() < 0.3 { 0.5 } else { v });
            let mut inputs = named([("a", a), ("b", b)]);
            if op == "where" {
                let mask = random.integers(full.clone(), 2);
                inputs.insert("cond".into(), mask);
            }
            // Gradients of broadcast operands are sums.
            let bound = Bound::Values(2e-5, 2e-5);
            check(&gpu(0), op, &no_attrs(), &inputs, bound, &mut random);
        }
    }
}

#[test]
fn gates() {
    let mut random = Random::new(3);
    for rank in 1..5 {
        let mut x = shape(&mut random, rank);
        let dim = random.below(rank);
        x[dim] *= 2;
        let inputs = named([("x", random.normal(x))]);
        check(&gpu(0), "glu", &json!({"dim": dim as i64 - rank as i64}), &inputs, VALUES, &mut random);
        let x = [vec![3], shape(&mut random, rank)].concat();
        let weight: Array = random.uniform(if rank % 2 == 0 { vec![1] } else { vec![x[1]] }, -0.5, 0.5);
        let inputs = named([("x", random.normal(x)), ("weight", weight)]);
        check(&gpu(0), "prelu", &no_attrs(), &inputs, Bound::Values(2e-5, 2e-5), &mut random);
    }
}

/// What has reached its limit stays there, however far.
#[test]
fn saturated_functions_are_exact() {
    let values = [-6.0, -10.0, -100.0, -1e6, -1e30, 6.0, 10.0, 1e6, 1e30];
    let graph = Graph::new();
    let x = graph.input([values.len()]);
    let (gelu, erf) = (x.gelu(), x.erf());
    let slope = graph.grad(&gelu, [&x]).remove(0);
    let program = gpu(0).compile(&graph.function([&gelu, &erf, &slope])).expect("a program");
    program.write(&x, &values).expect("an input").run().expect("a run");
    let read = |y| program.read(y).expect("an output");
    assert_eq!(read(&gelu), values.map(|v| v.max(0.0)));
    assert_eq!(read(&erf), values.map(f32::signum));
    let slopes = read(&slope);
    assert!(slopes.iter().zip(values).all(|(s, v)| (s - f32::from(v > 0.0)).abs() < 1e-7), "{slopes:?}");
}

/// A cumulative distribution stays between 0 and 1 on the way to its limits.
#[test]
fn gelu_approaches_its_limits() {
    let values: Vec<f32> = (0..140).map(|n| 4.5 + n as f32 * 0.01).flat_map(|v| [v, -v]).collect();
    let graph = Graph::inference();
    let x = graph.input([values.len()]);
    let y = x.gelu();
    let program = gpu(0).compile(&graph.function([&y])).expect("a program");
    program.write(&x, &values).expect("an input").run().expect("a run");
    for (v, y) in values.iter().zip(program.read(&y).expect("an output")) {
        assert!(y <= v.max(0.0) && y >= v.min(0.0), "{v}: {y}");
        assert!(*v < 0.0 || y > v * 0.999_99, "{v}: {y}");
        assert!(*v > 0.0 || y > -2e-5, "{v}: {y}");
    }
}

/// A network that has diverged must not look healthy: what is made from a NaN is one, and nothing else is.
#[test]
fn a_nan_gets_through() {
    let values = [0.5, f32::NAN, 1.5, 0.25];
    let graph = Graph::new();
    let x = graph.input([4]);
    let mut outputs = Vec::new();
    for (op, attrs, _) in unary().into_iter().filter(|(op, ..)| *op != "sign") {
        let y = engine::pointwise(op, &attrs, &[("x".to_owned(), x.clone())].into()).expect("an op of the engine");
        outputs.push((op, y, vec![1]));
    }
    let (one, image) = (graph.full([4], 1.0), x.reshape([1, 1, 1, 4]));
    let pair = Window::new([1, 2]);
    outputs.extend([
        ("maximum, left", x.maximum(&one), vec![1]),
        ("maximum, right", one.maximum(&x), vec![1]),
        ("minimum, left", x.minimum(&one), vec![1]),
        ("minimum, right", one.minimum(&x), vec![1]),
        ("amax", x.reshape([2, 2]).amax(&[1], false), vec![0]),
        ("amin", x.reshape([2, 2]).amin(&[1], false), vec![0]),
        ("max_pool2d", image.max_pool2d(&pair), vec![0]),
        ("avg_pool2d", image.avg_pool2d(&pair), vec![0]),
        ("softmax", x.reshape([2, 2]).softmax(1), vec![0, 1]),
        ("logsumexp", x.reshape([2, 2]).logsumexp(1, false), vec![0]),
    ]);
    let labels = graph.constant_u32([2], &[0, 1]);
    let losses = CrossEntropy::new().reduction(Reduction::None);
    outputs.push(("cross_entropy", x.reshape([2, 2]).cross_entropy_with(&labels, &losses), vec![0]));
    let place = x.argmax(&[0], false);
    let program = gpu(0).compile(&graph.function(outputs.iter().map(|o| &o.1).chain([&place]))).expect("a program");
    program.write(&x, &values).expect("an input").run().expect("a run");
    for (op, y, want) in outputs {
        let got = program.read(&y).expect("an output");
        let nans: Vec<usize> = (0..got.len()).filter(|&i| got[i].is_nan()).collect();
        assert_eq!(nans, want, "{op} of {values:?}: {got:?}");
    }
    assert_eq!(program.read_u32(&place).expect("a place"), [1]);
}
