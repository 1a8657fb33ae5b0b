//! Grids of more than 65,535 workgroups along one axis, and bindings up to the limit of 128 MiB.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;
use shadegrad::graph::Role;
use shadegrad::ops::Window;
use shadegrad::optim::{Adagrad, Adam, AdamW, Optimizer, RmsProp, Sgd};
use shadegrad::{Error, Graph, Param};

use crate::support::reference::Random;
use crate::trial::*;

/// More workgroups of 64 than one axis of a grid holds.
const MANY: usize = 64 * 65_535 + 77;

/// One at a time: each needs some hundred MiB.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Small whole numbers, of which f32 sums are exact.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + i / 13) % 17) as f32 - 8.0).collect()
}

#[test]
fn many_lines() {
    let _turn = turn();
    let g = Graph::new();
    let x = g.input([MANY, 2]);
    let (sum, most, place) = (x.sum(&[1], false), x.softmax(1).amax(&[1], false), x.argmax(&[1], false));
    let (step, parts) = (x.cumsum(1), x.narrow(1, 1, 1).concat(&[&x], 1));
    let program = small_gpu().compile(&g.function([&sum, &most, &place, &step, &parts])).expect("a program");
    let v = values(2 * MANY);
    program.write(&x, &v).and_then(|p| p.run()).expect("a run");
    let [sum, most, step, parts] = [&sum, &most, &step, &parts].map(|t| program.read(t).expect("values"));
    let place = program.read_u32(&place).expect("places");
    for (i, pair) in v.chunks_exact(2).enumerate() {
        let (a, b) = (pair[0], pair[1]);
        let share = 1.0 / (1.0 + (-(a - b).abs()).exp());
        assert_eq!((sum[i], place[i]), (a + b, u32::from(b > a)), "line {i}");
        assert!((most[i] - share).abs() < 1e-5, "line {i}: {} and not {share}", most[i]);
        assert_eq!(step[2 * i..2 * i + 2], [a, a + b], "line {i}");
        assert_eq!(parts[3 * i..3 * i + 3], [b, a, b], "line {i}");
    }
}

#[test]
fn many_windows_and_selections() {
    let _turn = turn();
    let g = Graph::new();
    let side = 2_051;
    let x = g.input([1, 1, 2 * side, side]);
    let window = Window::new([2, 1]).stride([1, 1]);
    let (most, mean) = (x.max_pool2d(&window), x.avg_pool2d(&window));
    let turned = x.flip(2).index_select(2, &g.constant_u32([2 * side], &(0..2 * side as u32).collect::<Vec<_>>()));
    let back = g.grad(&(&mean * 2.0), [&x]).remove(0);
    let program = small_gpu().compile(&g.function([&most, &mean, &turned, &back])).expect("a program");
    let v = values(2 * side * side);
    program.write(&x, &v).and_then(|p| p.run()).expect("a run");
    let [most, mean, turned, back] = [&most, &mean, &turned, &back].map(|t| program.read(t).expect("values"));
    assert!(most.len() > 64 * 65_535);
    for i in 0..most.len() {
        assert_eq!((most[i], mean[i]), (v[i].max(v[i + side]), (v[i] + v[i + side]) / 2.0), "window {i}");
    }
    for (i, &value) in turned.iter().enumerate() {
        let (row, column) = (i / side, i % side);
        assert_eq!(value, v[(2 * side - 1 - row) * side + column], "row {row}, column {column}");
        let twice = (1..2 * side - 1).contains(&row);
        assert_eq!(back[i], if twice { 2.0 } else { 1.0 }, "gradient at {row}, {column}");
    }
}

/// 128 MiB to the byte go through; one element more is refused, with the limit.
#[test]
fn the_largest_binding() {
    let _turn = turn();
    let count = 32 << 20;
    let g = Graph::new();
    let x = g.input([count]);
    let (y, sum) = (&x * 2.0 + 1.0, x.square().mean(&[], false));
    let program = small_gpu().compile(&g.function([&y, &sum])).expect("a program");
    let v = values(count);
    program.write(&x, &v).and_then(|p| p.run()).expect("a run");
    let y = program.read(&y).expect("values");
    let wrong = y.iter().zip(&v).position(|(y, v)| *y != v * 2.0 + 1.0);
    assert_eq!((y.len(), wrong), (count, None));
    let want = v.iter().map(|v| f64::from(v * v)).sum::<f64>() / count as f64;
    let got = f64::from(program.read(&sum).expect("a mean")[0]);
    assert!((got - want).abs() < 1e-5 * want, "{got} and not {want}");

    let g = Graph::new();
    let y = g.input([count + 1]).neg();
    match small_gpu().compile(&g.function([&y])) {
        Err(Error::Limit { limit, .. }) => assert_eq!(limit, "134217728 bytes"),
        other => panic!("{:?}", other.err()),
    }
}

/// Adam's moments of this weight do not fit into one binding, so parts of it have their own.
#[test]
fn the_moments_of_a_large_weight() {
    let _turn = turn();
    const COUNT: usize = (16 << 20) + 1_025;
    let (large, small) =
        (Param::new("large", Role::Weight, [COUNT], &[]), Param::new("small", Role::Weight, [3], &[0.0; 3]));
    let g = Graph::new();
    let slope = g.input([1]);
    let loss = (g.param(&large) * &slope).sum(&[], false) + (g.param(&small) * &slope).sum(&[], false);
    let gpu = small_gpu();
    let program = gpu.compile(&g.minimize(&loss, Adam::new(0.5))).expect("a program");
    for value in [1.0, 3.0] {
        program.write(&slope, &[value]).and_then(|p| p.run()).expect("a run");
    }
    // As Kingma and Ba have it, for the gradients 1 and 3.
    let [m, v] = [(0.9 * 0.1 + 0.1 * 3.0) / (1.0 - 0.81), (0.999 * 0.001 + 0.001 * 9.0) / (1.0 - 0.999f32.powi(2))];
    let want = -0.5 - 0.5 * m / v.sqrt();
    for weight in [&large, &small] {
        let values = gpu.read_param(weight).expect("values");
        let wrong = values.iter().position(|value| (value - want).abs() > 1e-4);
        assert_eq!(wrong, None, "{weight:?}: {:?} and not {want}", wrong.map(|at| values[at]));
    }
}

/// A large weight whose elements repeat a small one's, and so do its gradients: whatever kernels update it, each element
/// has to become what the small one's becomes, to the bit.
#[test]
fn large_weights_are_updated_as_small_ones() {
    const COUNT: usize = (130 << 10) + 77;
    const PERIOD: usize = 997;
    let optimizers: [Optimizer; 9] = [
        Sgd::new(0.1).weight_decay(0.01).clip_value(0.8).into(),
        Sgd::new(0.1).momentum(0.9).dampening(0.1).into(),
        Sgd::new(0.1).momentum(0.9).nesterov(true).clip_norm(5.0).into(),
        Adam::new(0.1).weight_decay(0.01).into(),
        Adam::new(0.1).amsgrad(true).clip_norm(5.0).into(),
        AdamW::new(0.1).into(),
        RmsProp::new(0.1).into(),
        RmsProp::new(0.1).momentum(0.9).centered(true).into(),
        Adagrad::new(0.1).lr_decay(0.1).into(),
    ];
    let mut random = Random::new(91);
    let mut draw = || random.normal(vec![PERIOD]).to_f32();
    let whole = |part: &[f32]| part.iter().copied().cycle().take(COUNT).collect::<Vec<_>>();
    let gpu = gpu(0);
    for optimizer in optimizers {
        let (name, start) = (format!("{optimizer:?}"), draw());
        let small = Param::new("small", Role::Weight, [PERIOD], &start);
        let large = Param::new("large", Role::Weight, [COUNT], &whole(&start));
        let g = Graph::new();
        let (slope, slopes) = (g.input([PERIOD]), g.input([COUNT]));
        let loss = (g.param(&small) * &slope).sum(&[], false) + (g.param(&large) * &slopes).sum(&[], false);
        let program = gpu.compile(&g.minimize(&loss, optimizer)).expect("a program");
        let abreast = program.plan().steps.iter().any(|step| step.kernel.entry == "step_abreast");
        assert_eq!(abreast, program.gpu().caps().abreast, "{program}");
        for _ in 0..3 {
            let values = draw();
            let written = program.write(&slope, &values).and_then(|p| p.write(&slopes, &whole(&values)));
            written.and_then(|p| p.run()).expect("a run");
        }
        let [small, large] = [&small, &large].map(|param| gpu.read_param(param).expect("weights"));
        assert_ne!(small, start, "{name}");
        let wrong = large.iter().zip(whole(&small)).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(wrong, None, "{name}");
    }
}

/// Loops over more than 65,535 elements, behind which some drivers stop (`docs/adapters.md`): cut into parts, or refused.
#[test]
fn long_loops() {
    let _turn = turn();
    let mut random = Random::new(81);
    const LONG: usize = 70_001;
    for op in ["argmax", "argmin", "sum", "amax"] {
        let attrs = json!({"dim": [1], "keepdim": false});
        check(&gpu(0), op, &attrs, &named([("x", random.normal([2, LONG]))]), Bound::Values(1e-5, 1e-3), &mut random);
    }
    for kernel in 0..2 {
        let attrs = json!({"dim": 1});
        let x = named([("x", random.normal([2, LONG]))]);
        check(&gpu(kernel), "log_softmax", &attrs, &x, Bound::Values(1e-5, 1e-5), &mut random);
        // In blocks, more elements than the loops have turns.
        let x = named([("x", random.normal([2, 128_256]))]);
        check(&gpu(kernel), "softmax", &attrs, &x, Bound::Values(1e-5, 1e-9), &mut random);
        let (a, b) = (random.normal([3, LONG]), random.normal([5, LONG]));
        let attrs = json!({"transpose_a": false, "transpose_b": true});
        check(&gpu(kernel), "matmul", &attrs, &named([("a", a), ("b", b)]), TERMS, &mut random);
    }
    let g = Graph::new();
    let refused = gpu(0).compile(&g.function([&g.input([LONG]).cumsum(0)])).err();
    if gpu(0).caps().cpu && gpu(0).caps().turns < LONG {
        let message = refused.expect("an error").to_string();
        assert!(message.contains("cumsum") && message.contains("65535"), "{message}");
    } else {
        assert!(refused.is_none(), "{refused:?}");
    }
}
