//! f16 in memory: rounding, packing, rearranging, and who reads it.

use half::f16;
use shadegrad::graph::Role;
use shadegrad::{DType, Graph, Param, Tensor};

use crate::support::reference::Random;
use crate::trial::*;

/// Whether a device's answer is what f16 gives, which may flush what is below its normal numbers to zero.
fn rounded(value: f32, got: f32) -> bool {
    let half = f16::from_f32(value);
    let want = half.to_f32();
    want.to_bits() == got.to_bits()
        || (want.is_nan() && got.is_nan())
        || (!half.is_normal() && want.abs() < 6.2e-5 && got.abs() < 6.2e-5)
}

fn numbers(random: &mut Random, count: usize) -> Vec<f32> {
    let special =
        [0.0, -0.0, 1.0, 65_504.0, 65_519.0, 65_520.0, -1e9, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-9];
    let normal = random.normal([count]).to_f32();
    let scale = |i: usize| 10f32.powi(i as i32 % 9 - 4);
    (0..count).map(|i| special.get(i / 3).filter(|_| i % 3 == 0).copied().unwrap_or(normal[i] * scale(i))).collect()
}

/// Every way into f16 and out of it.
#[test]
fn halves_round_as_ieee_754_says() {
    let mut random = Random::new(90);
    for count in [1, 2, 3, 4, 5, 64, 67, 1000] {
        let g = Graph::inference();
        let (x, given) = (g.input([count]), g.input_f16([count]));
        let values = numbers(&mut random, count);
        let param = g.param(&Param::new_f16("halves", Role::Weight, [count], &values));
        let stored = x.cast(DType::F16);
        let in_registers = (&x * 1.0).cast(DType::F16).cast(DType::F32);
        let outputs = [&stored, &stored.cast(DType::F32), &in_registers, &given, &param, &given.cast(DType::F32)];
        let program = gpu(0).compile(&g.function(outputs)).unwrap();
        program.write(&x, &values).unwrap().write(&given, &values).unwrap().run().unwrap();
        for (n, output) in outputs.into_iter().enumerate() {
            let got = program.read(output).unwrap();
            assert_eq!(got.len(), count);
            for (value, got) in values.iter().zip(got) {
                assert!(rounded(*value, got), "output {n} of {count}: {value:e} became {got:e}");
            }
        }
    }
}

/// Kernels that read f16 by every rule, and store it.
#[test]
fn halves_are_rearranged() {
    let mut random = Random::new(91);
    let views: [fn(&Tensor) -> Tensor; 8] = [
        |t| t.permute(&[2, 0, 1]),
        |t| t.slice(&[(0, t.shape()[0] as isize, 1), (1, 3, 1), (t.shape()[2] - 1, -1, -1)]),
        |t| t.narrow(2, 1, 2),
        |t| t.narrow(0, 1, 1).expand([3, t.shape()[1], t.shape()[2]]),
        |t| t.reshape([t.elements()]),
        |t| t.transpose(1, 2),
        |t| t.transpose(0, 1).reshape([t.elements()]).narrow(0, 3, 5),
        |t| t.narrow(2, 0, 1).expand([t.shape()[0], t.shape()[1], 7]),
    ];
    for shape in [[2, 3, 3], [5, 7, 11], [4, 8, 12], [3, 64, 32]] {
        for (n, view) in views.into_iter().enumerate() {
            let x = random.normal(shape).map(|v| f64::from(f16::from_f64(v)));
            let g = Graph::inference();
            let input = g.input(x.shape.clone());
            // The same of f32 is tested against a twin.
            let want = view(&input);
            let half = input.cast(DType::F16);
            let kept = view(&half);
            let read = view(&half).cast(DType::F32) * 2.0;
            let (values, outputs) = ([(input, x)], [want, kept, read, half]);
            let got = run(&gpu(0), &g, &values, &outputs).unwrap();
            assert!(got[1] == got[0], "view {n} of {shape:?}");
            assert!(got[2].iter().zip(&got[0]).all(|(a, b)| *a == 2.0 * b), "view {n} of {shape:?}, read");
        }
    }
}

/// Rounding does not stop gradients, which stay f32.
#[test]
fn gradients_pass_through_halves() {
    let g = Graph::new();
    let x = g.input([5]);
    let y = x.cast(DType::F16).reshape([5, 1]).cast(DType::F32).square().sum(&[], false);
    let dx = g.grad(&y, [&x]).remove(0);
    assert_eq!(dx.dtype(), DType::F32);
    let program = gpu(0).compile(&g.function([&dx])).unwrap();
    program.write(&x, &[1.0, -2.0, 0.1, 100.0, 0.0]).unwrap().run().unwrap();
    let tenth = f16::from_f32(0.1).to_f32();
    assert_eq!(program.read(&dx).unwrap(), [2.0, -4.0, 2.0 * tenth, 200.0, 0.0]);
}

#[test]
fn ops_that_do_not_read_halves_say_so() {
    let refused = |build: fn(&Tensor) -> Tensor| {
        let g = Graph::new();
        let y = build(&g.input_f16([4, 4]));
        gpu(0).compile(&g.function([&y])).map(drop).unwrap_err().to_string()
    };
    let ops: [fn(&Tensor) -> Tensor; 6] = [
        |x| x.relu(),
        |x| x + x,
        |x| x.softmax(1),
        |x| x.concat(&[x], 0),
        |x| x.sum(&[0], false),
        |x| x.layer_norm(&[4], None, None, 1e-5),
    ];
    for op in ops {
        let message = refused(op);
        assert!(message.contains("f16[4, 4]") && message.contains("cast"), "{message}");
    }
    let g = Graph::new();
    let w = g.param(&Param::new_f16("w", Role::Weight, [4, 4], &[1.0; 16]));
    let loss = g.input([4, 4]).matmul(&w).sum(&[], false);
    let step = gpu(0).compile(&g.minimize(&loss, shadegrad::optim::Sgd::new(0.1))).map(drop);
    let message = step.unwrap_err().to_string();
    assert!(message.contains('w') && message.contains("f16[4, 4]") && message.contains("cast"), "{message}");
}

/// States are carried from run to run, and values pass where no gradient does.
#[test]
fn halves_are_assigned_and_detached() {
    let state = Param::new_f16("state", Role::State, [3], &[1.0, 2.0, 3.0]);
    let g = Graph::new();
    let x = g.input([3]);
    let next = (g.param(&state).cast(DType::F32) + x.cast(DType::F16).detach().cast(DType::F32)).cast(DType::F16);
    let program = gpu(0).compile(&g.function([&next]).update(g.assign(&state, &next))).unwrap();
    for _ in 0..2 {
        program.write(&x, &[0.5, 0.25, -3.0]).unwrap().run().unwrap();
    }
    assert_eq!(gpu(0).read_param(&state).unwrap(), [2.0, 2.5, -3.0]);
}

/// Half the memory, saved and loaded as f32.
#[test]
fn parameters_of_halves_are_saved_and_loaded() {
    let gpu = gpu(0);
    let param = Param::new_f16("w", Role::Weight, [3, 3], &[0.1; 9]);
    let g = Graph::inference();
    let (x, w) = (g.input([2, 3]), g.param(&param));
    let y = x.linear(&w, None);
    let program = gpu.compile(&g.function([&y])).unwrap();
    program.write(&x, &[1.0; 6]).unwrap().run().unwrap();
    let tenth = f16::from_f32(0.1).to_f32();
    assert!(program.read(&y).unwrap().iter().all(|v| (v - 3.0 * tenth).abs() < 1e-6));
    let named = [("w".to_string(), param.clone())];
    let mut state = shadegrad::io::state_dict(&gpu, &named).unwrap();
    assert_eq!(state.get("w").unwrap().to_f32().unwrap(), [tenth; 9]);
    let other = shadegrad::io::HostTensor::from_f32(&[3, 3], &[0.3; 9]).unwrap();
    state.tensors.insert("w".into(), other);
    shadegrad::io::load_state_dict(&gpu, &named, &state).unwrap();
    assert_eq!(gpu.read_param(&param).unwrap(), [f16::from_f32(0.3).to_f32(); 9]);
    assert_eq!(param.desc().bytes(), 20);
    assert!(gpu.write_param(&param, &[1.0; 8]).is_err());
}

/// A layer in mixed precision learns: weights in f32, products of their f16.
#[test]
fn a_layer_learns_through_halves() {
    let gpu = gpu(0);
    let g = Graph::new();
    let (x, y) = (g.input([64, 8]), g.input([64, 1]));
    let weight = g.param(&Param::new("w", Role::Weight, [1, 8], &[0.1; 8])).cast(DType::F16);
    let loss = (x.cast(DType::F16).matmul_t(&weight, false, true) - &y).square().mean(&[], false);
    let step = gpu.compile(&g.minimize(&loss, shadegrad::optim::Adam::new(0.05))).unwrap();
    let mut random = Random::new(92);
    let inputs = random.normal([64, 8]).to_f32();
    let targets: Vec<f32> = inputs.chunks(8).map(|row| row[0] - 2.0 * row[3]).collect();
    let mut losses = Vec::new();
    for _ in 0..200 {
        step.write(&x, &inputs).unwrap().write(&y, &targets).unwrap().run().unwrap();
        losses.push(step.read(&loss).unwrap()[0]);
    }
    assert!(losses[199] < 1e-3 * losses[0], "{} {}", losses[0], losses[199]);
}
