//! Recurrent layers, embeddings and the states between their runs: what the golden cases and the twins do not say.

use shadegrad::gpu::Options;
use shadegrad::graph::Role;
use shadegrad::nn::{self, Module};
use shadegrad::ops::{Cell, LayerWeights, Recurrence, States};
use shadegrad::optim::{Adagrad, Optimizer, Sgd};
use shadegrad::{Gpu, Graph, Param, Result, Tensor};

const CELLS: [Cell; 5] = [Cell::Lstm, Cell::Gru, Cell::GruResetBefore, Cell::RnnTanh, Cell::RnnRelu];

fn gpu(candidate: usize) -> Gpu {
    Gpu::open(&Options { candidate: Some(candidate), ..Options::default() }).expect("an adapter")
}

/// Numbers between -1 and 1, the same for the same seed.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| 2.0 * rng.f32() - 1.0).collect()
}

fn weights(g: &Graph, cell: Cell, inputs: usize, hidden: usize, scale: f32) -> LayerWeights {
    let rows = cell.gates() * hidden;
    let draw = |shape: &[usize], seed| {
        let values: Vec<f32> = numbers(shape.iter().product(), seed).into_iter().map(|v| scale * v).collect();
        g.constant(shape, &values)
    };
    LayerWeights {
        input: draw(&[rows, inputs], 1),
        hidden: draw(&[rows, hidden], 2),
        input_bias: Some(draw(&[rows], 3)),
        hidden_bias: Some(draw(&[rows], 4)),
    }
}

/// The result, the last states and all gradients of a layer, for ones that arrive everywhere.
fn everything(x: &Tensor, layer: &LayerWeights, options: &Recurrence) -> Vec<Tensor> {
    let (y, last) = x.recurrent(std::slice::from_ref(layer), options);
    let mut outputs = vec![y, last.h];
    outputs.extend(last.c);
    let seeds: Vec<_> = outputs.iter().map(|y| (y.clone(), y.ones_like())).collect();
    let biases = layer.input_bias.iter().chain(&layer.hidden_bias);
    let leaves = [x, &layer.input, &layer.hidden].into_iter().chain(biases);
    outputs.extend(x.graph().grad_from(&seeds, leaves));
    outputs
}

fn values(gpu: &Gpu, x: &Tensor, input: &[f32], outputs: &[Tensor]) -> Result<Vec<Vec<f32>>> {
    let program = gpu.compile(&x.graph().function(outputs))?;
    program.write(x, input)?.run()?;
    outputs.iter().map(|output| program.read(output)).collect()
}

#[test]
fn saturated_gates_stay_finite() {
    for candidate in 0..3 {
        let gpu = gpu(candidate);
        for cell in CELLS {
            for size in [1e3, 1e10, 1e30] {
                let g = Graph::new();
                let x = g.input([4, 3, 5]);
                // Sums of such numbers would be infinite in any arithmetic with weights above 1.
                let outputs = everything(&x, &weights(&g, cell, 5, 6, 0.5), &Recurrence::new(cell));
                let input: Vec<f32> = numbers(60, 9).into_iter().map(|v| if v < 0.0 { -size } else { size }).collect();
                // A plain unit of relu grows without end; its sums must only not be NaN.
                let fine = |v: &f32| if cell == Cell::RnnRelu { !v.is_nan() } else { v.is_finite() };
                for (n, values) in values(&gpu, &x, &input, &outputs).expect("a run").iter().enumerate() {
                    assert!(values.iter().all(fine), "{cell:?}, kernel {candidate}, {size:e}: output {n}: {values:?}");
                }
            }
        }
    }
}

#[test]
fn every_run_has_the_same_bits() {
    for candidate in 0..3 {
        let gpu = gpu(candidate);
        for cell in CELLS {
            let g = Graph::new();
            let x = g.input([7, 9, 5]);
            let outputs = everything(&x, &weights(&g, cell, 5, 33, 0.3), &Recurrence::new(cell));
            let program = gpu.compile(&g.function(&outputs)).expect("a program");
            let run = || {
                program.write(&x, &numbers(315, 5))?.run()?;
                outputs.iter().map(|output| program.read(output)).collect::<Result<Vec<_>>>()
            };
            let first = run().expect("a run");
            for _ in 0..3 {
                assert!(run().expect("a run") == first, "{cell:?} with kernel {candidate}");
            }
        }
    }
}

fn close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 1e-5 + 1e-5 * want.abs(), "{what}: element {i} is {got}, not {want}");
    }
}

/// Recomputed segments give the same values and gradients from less memory.
#[test]
fn checkpoints_every_few_steps() {
    let gpu = gpu(0);
    for cell in CELLS {
        let run = |options: Recurrence| {
            let g = Graph::new();
            let x = g.input([512, 8, 16]);
            let outputs = everything(&x, &weights(&g, cell, 16, 32, 0.2), &options);
            let program = gpu.compile(&g.function(&outputs)).expect("a program");
            program.write(&x, &numbers(512 * 8 * 16, 5)).and_then(|p| p.run()).expect("a run");
            let read = outputs.iter().map(|output| program.read(output)).collect::<Result<Vec<_>>>();
            (read.expect("values"), program.bytes())
        };
        let (plain, whole) = run(Recurrence::new(cell));
        let (again, less) = run(Recurrence::new(cell).checkpoint(30));
        for (n, (got, want)) in again.iter().zip(&plain).enumerate() {
            let most = want.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            let scaled = |values: &[f32]| values.iter().map(|v| v / most).collect::<Vec<_>>();
            close(&format!("{cell:?}: output {n}"), &scaled(got), &scaled(want));
        }
        if cell == Cell::Lstm {
            assert!(3 * less < 2 * whole, "{less} bytes, and {whole} without recomputation");
        }
    }
}

/// A part must not use weights that it is not given: they would get no gradient.
#[test]
fn checkpoints_name_what_they_are_not_given() {
    let g = Graph::new();
    let (x, weight) = (g.input([2, 3]), Param::new("weight", Role::Weight, [4, 3], &[0.0; 12]));
    let w = g.param(&weight);
    g.checkpoint(&[&x], move |inputs| vec![inputs[0].linear(&w, None)]);
    let message = g.error().expect_err("an error").to_string();
    assert!(message.contains("weight") && message.contains("not among its inputs"), "{message}");
}

/// What was made from an input outside the part would lose its gradient, too.
#[test]
fn checkpoints_name_what_was_made_outside() {
    let g = Graph::new();
    let (x, w) = (g.input([2, 3]), g.input([4, 3]));
    let outside = w.relu();
    let y = g.checkpoint(&[&x, &w], move |inputs| vec![inputs[0].linear(&outside, None)]).remove(0);
    g.grad(&y, [&x]);
    assert!(g.error().expect_err("an error").to_string().contains("not among its inputs"));
}

/// One tensor in two places has the gradients of both.
#[test]
fn checkpoints_take_the_same_input_twice() {
    let g = Graph::new();
    let x = g.input([3]);
    let y = g.checkpoint(&[&x, &x], |inputs| vec![&inputs[0] * inputs[1].square()]).remove(0);
    let dx = g.grad(&y, [&x]).remove(0);
    assert_eq!(values(&gpu(0), &x, &[1.0, 2.0, -3.0], &[dx]).expect("a run"), [[3.0, 12.0, 27.0]]);
}

/// Dropout draws the same numbers when it is computed again.
#[test]
fn checkpoints_repeat_their_dropout() {
    let g = Graph::new();
    let x = g.input([1000]);
    let y = g.checkpoint(&[&x], |inputs| vec![inputs[0].dropout(0.5).square()]).remove(0);
    let dx = g.grad(&y, [&x]).remove(0);
    let [y, dx] = &values(&gpu(0), &x, &[1.0; 1000], &[y, dx]).expect("a run")[..] else { panic!("two outputs") };
    assert!(y.contains(&0.0) && y.contains(&4.0));
    assert!(y.iter().zip(dx).all(|(y, dx)| *dx == 2.0 * y));
}

/// Two halves of a sequence, the states kept on the GPU in between, are the whole sequence; so are single steps.
#[test]
fn states_are_carried_from_run_to_run() -> Result<()> {
    let gpu = gpu(0);
    let lstm = nn::Lstm::new(3, 10).layers(2);
    let input = numbers(8 * 2 * 3, 7);
    let g = Graph::inference();
    let x = g.input([8, 2, 3]);
    let whole = values(&gpu, &x, &input, &[lstm.forward(&x)])?.remove(0);

    let (carried, g) = (lstm.carried(2), Graph::inference());
    let x = g.input([4, 2, 3]);
    let (y, next) = lstm.run(&x, Some(&carried.states(&g)), None);
    let half = gpu.compile(&carried.keep(g.function([&y]), &next))?;
    let mut all = Vec::new();
    for part in input.chunks(4 * 2 * 3) {
        half.write(&x, part)?.run()?;
        all.extend(half.read(&y)?);
    }
    close("two halves", &all, &whole);

    let (carried, g) = (lstm.carried(2), Graph::inference());
    let x = g.input([2, 3]);
    let (y, next) = lstm.step(&x, &carried.states(&g));
    let step = gpu.compile(&carried.keep(g.function([&y]), &next))?;
    all.clear();
    for part in input.chunks(2 * 3) {
        step.write(&x, part)?.run()?;
        all.extend(step.read(&y)?);
    }
    close("single steps", &all, &whole);
    Ok(())
}

/// Few rows of a large table are read and changed, as a dense step would change them.
#[test]
fn tables_are_updated_by_rows() -> Result<()> {
    const ROWS: usize = 100_000;
    let gpu = gpu(0);
    let optimizers: [(Optimizer, bool); 5] = [
        (Sgd::new(0.5).into(), true),
        (Sgd::new(0.5).clip_norm(0.25).into(), true),
        (Adagrad::new(0.5).clip_value(0.1).into(), true),
        (Sgd::new(0.5).momentum(0.9).into(), false),
        (Adagrad::new(0.5).weight_decay(0.1).into(), false),
    ];
    for (optimizer, by_rows) in optimizers {
        let name = format!("{optimizer:?}");
        let first = numbers(ROWS * 2, 3);
        let run = |dense: bool| {
            let (table, scale) = (
                Param::new("table", Role::Weight, [ROWS, 2], &first),
                Param::new("scale", Role::Weight, [2], &[1.0, 2.0]),
            );
            let g = Graph::new();
            let tokens = g.input_u32([5]);
            let rows = tokens.embedding(&g.param(&table), None) * g.param(&scale);
            // The table in a second place gives a gradient for every row, though one of zeros.
            let other = if dense { g.param(&table).sum(&[], false) * 0.0 } else { g.full([], 0.0) };
            let loss = rows.square().sum(&[], false) + other;
            let program = gpu.compile(&g.minimize(&loss, optimizer.clone()))?;
            for tokens_now in [[7, 99_999, 7, 0, 3], [3, 3, 3, 3, 12]] {
                program.write_u32(&tokens, &tokens_now)?.run()?;
            }
            let labels: Vec<String> = program.plan().steps.iter().map(|step| step.label.clone()).collect();
            Ok::<_, shadegrad::Error>((gpu.read_param(&table)?, gpu.read_param(&scale)?, labels))
        };
        let (table, scale, labels) = run(false)?;
        let (dense_table, dense_scale, dense_labels) = run(true)?;
        let named = |labels: &[String], part: &str| labels.iter().any(|label| label.contains(part));
        assert_eq!(named(&labels, "_rows"), by_rows, "{name}: {labels:?}");
        assert_eq!(named(&labels, "embedding_grad"), !by_rows, "{name}: {labels:?}");
        assert!(!named(&dense_labels, "_rows"), "{name}: {dense_labels:?}");
        close(&format!("{name}: the table"), &table, &dense_table);
        close(&format!("{name}: the scale"), &scale, &dense_scale);
        let changed = table.chunks(2).zip(first.chunks(2)).filter(|(a, b)| a != b).count();
        assert!(changed == 5 || !by_rows, "{name}: {changed} rows changed");
    }
    Ok(())
}

/// A table that is a part of a parameter of another shape.
#[test]
fn tables_under_another_shape() -> Result<()> {
    let gpu = gpu(0);
    let whole = Param::new("whole", Role::Weight, [1, 1000, 2], &[1.0; 2000]);
    let g = Graph::new();
    let tokens = g.input_u32([3]);
    let rows = tokens.embedding(&g.param(&whole).reshape([1000, 2]), None);
    let program = gpu.compile(&g.minimize(&rows.sum(&[], false), Sgd::new(0.25)))?;
    program.write_u32(&tokens, &[999, 4, 999])?.run()?;
    let now = gpu.read_param(&whole)?;
    let changed: Vec<_> = now.chunks(2).enumerate().filter(|(_, row)| row[0] != 1.0).collect();
    assert_eq!(changed, [(4, &[0.75, 0.75][..]), (999, &[0.5, 0.5][..])]);
    // Other rows could not decay.
    assert!(program.set("weight_decay", 0.1).is_err());
    Ok(())
}

#[test]
fn state_is_not_assigned_as_it_is() {
    let g = Graph::new();
    let [a, b] = ["a", "b"].map(|name| Param::new(name, Role::State, [4], &[0.0; 4]));
    g.assign(&a, &g.param(&b).reshape([2, 2]).reshape([4]));
    assert!(g.error().expect_err("an error").to_string().contains("not something computed"));
}

#[test]
fn parameters_are_named_as_in_pytorch() {
    let names =
        |module: &dyn Module| module.parameters().into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ");
    let both = "weight_ih_l0 weight_hh_l0 bias_ih_l0 bias_hh_l0 \
                weight_ih_l0_reverse weight_hh_l0_reverse bias_ih_l0_reverse bias_hh_l0_reverse";
    assert_eq!(names(&nn::Gru::new(3, 4).bidirectional()), both);
    assert_eq!(
        names(&nn::Rnn::new(3, 4).layers(2).without_bias()),
        "weight_ih_l0 weight_hh_l0 weight_ih_l1 weight_hh_l1"
    );
    assert_eq!(names(&nn::Lstm::new(3, 4).cell()), "weight_ih weight_hh bias_ih bias_hh");
    let shapes: Vec<_> =
        nn::Lstm::new(3, 4).layers(2).parameters().into_iter().map(|(_, param)| param.desc().shape.to_vec()).collect();
    assert_eq!(shapes[..3], [vec![16, 3], vec![16, 4], vec![16]]);
    assert_eq!(shapes[4], [16, 4]);
}

/// Bad input gets an error that names it; `part` are words of its message.
fn refused(part: &str, build: impl Fn(&Graph)) {
    let g = Graph::new();
    build(&g);
    let message = g.error().expect_err("an error").to_string();
    assert!(message.contains(part) && message.contains("tests/recurrent.rs"), "{message}");
}

#[test]
fn bad_layers_are_refused() {
    let lstm = |g: &Graph, inputs, hidden| weights(g, Cell::Lstm, inputs, hidden, 1.0);
    let run = |x: &Tensor, layer: LayerWeights, options: Recurrence| {
        x.recurrent(&[layer], &options);
    };
    refused("f32[16, 5]", |g| run(&g.input([3, 2, 5]), lstm(g, 6, 4), Recurrence::new(Cell::Lstm)));
    refused("recurrent weights", |g| {
        let layer = LayerWeights { hidden: g.input([12, 4]), ..lstm(g, 5, 4) };
        run(&g.input([3, 2, 5]), layer, Recurrence::new(Cell::Lstm));
    });
    refused("have no steps", |g| run(&g.input([0, 2, 5]), lstm(g, 5, 4), Recurrence::new(Cell::Lstm)));
    refused("no units", |g| run(&g.input([3, 2, 5]), lstm(g, 5, 0), Recurrence::new(Cell::Lstm)));
    refused("three axes", |g| run(&g.input([2, 5]), lstm(g, 5, 4), Recurrence::new(Cell::Lstm)));
    refused("u32[2]", |g| {
        let lengths = g.input_u32([3]);
        run(&g.input([3, 2, 5]), lstm(g, 5, 4), Recurrence::new(Cell::Lstm).lengths(&lengths));
    });
    refused("states c", |g| {
        let states = States { h: g.input([1, 2, 4]), c: None };
        run(&g.input([3, 2, 5]), lstm(g, 5, 4), Recurrence::new(Cell::Lstm).initial(&states));
    });
    refused("f32[1, 2, 4]", |g| {
        let states = States { h: g.input([1, 3, 4]), c: Some(g.input([1, 3, 4])) };
        run(&g.input([3, 2, 5]), lstm(g, 5, 4), Recurrence::new(Cell::Lstm).initial(&states));
    });
    refused("no layers of 2 directions", |g| {
        run(&g.input([3, 2, 5]), lstm(g, 5, 4), Recurrence::new(Cell::Lstm).bidirectional(true));
    });
    refused("one direction", |g| {
        let options = Recurrence::new(Cell::Lstm).bidirectional(true).checkpoint(2);
        g.input([3, 2, 5]).recurrent(&[lstm(g, 5, 4), lstm(g, 5, 4)], &options);
    });
    refused("not f32[rows, width]", |g| {
        g.input_u32([3]).embedding(&g.input([5]), None);
    });
    refused("not u32", |g| {
        g.input([3]).embedding(&g.input([5, 2]), None);
    });
    refused("padding row 5", |g| {
        g.input_u32([3]).embedding(&g.input([5, 2]), Some(5));
    });
    refused("one step takes [N, inputs]", |g| {
        let gru = nn::Gru::new(3, 4);
        gru.step(&g.input([1, 2, 3]), &gru.carried(2).states(g));
    });
}

#[test]
fn bad_values_are_refused_when_written() -> Result<()> {
    let gpu = gpu(0);
    let (g, lstm) = (Graph::new(), nn::Lstm::new(2, 3));
    let (tokens, lengths) = (g.input_u32([4, 2]), g.input_u32([2]));
    let (y, _) = lstm.run(&nn::Embedding::new(10, 2).forward(&tokens), None, Some(&lengths));
    let program = gpu.compile(&g.function([&y]))?;
    let message = |wrong: shadegrad::Result<&shadegrad::Program>| wrong.map(|_| ()).expect_err("an error").to_string();
    let too_large = message(program.write_u32(&tokens, &[0, 1, 2, 3, 4, 5, 6, 10]));
    assert!(too_large.contains("element 7 is 10, but must be below 10"), "{too_large}");
    let empty = message(program.write_u32(&lengths, &[4, 0]));
    assert!(empty.contains("element 1 is 0, but must be from 1 to 4"), "{empty}");
    let too_long = message(program.write_u32(&lengths, &[5, 1]));
    assert!(too_long.contains("element 0 is 5, but must be from 1 to 4"), "{too_long}");
    Ok(())
}
