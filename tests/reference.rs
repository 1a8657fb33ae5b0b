//! The twins themselves against PyTorch's answers: values, gradients by formula, gradients by finite differences.

mod support;

use std::collections::BTreeMap;

use support::golden::{self, Case, Tensor, Tolerance};
use support::reference::optim::clip_norm;
use support::reference::{Array, Attrs, Named, Random, Twin, compare_f64, convnet, numeric, twin};

/// Elements of each gradient that are checked by finite differences, at most.
const SAMPLED: usize = 96;
/// About as many products as an op may need for all its samples.
const BUDGET: usize = 300_000_000;

#[derive(Debug, Default)]
struct Tally {
    values: usize,
    formulas: usize,
    differences: usize,
    kinks: usize,
    misses: Vec<String>,
}

impl Tally {
    fn check(&mut self, what: &str, got: &Array, (want, tolerance): &(Tensor, Tolerance)) {
        if significant(&got.shape) != significant(&want.shape) {
            self.misses.push(format!("{what}: shape {:?}, not {:?}", got.shape, want.shape));
        } else if let Err(worst) = compare_f64(&got.data, &want.to_array().data, tolerance.rtol, tolerance.atol) {
            self.misses.push(format!("{what}: {worst}"));
        }
    }

    fn check_map(&mut self, id: &str, got: &Named, want: &BTreeMap<String, (Tensor, Tolerance)>) -> usize {
        for (name, want) in want {
            match got.get(name) {
                Some(got) => self.check(&format!("{id} {name}"), got, want),
                None => self.misses.push(format!("{id} {name}: the twin has no such result")),
            }
        }
        want.len()
    }

    fn finish(self, skipped: &BTreeMap<String, usize>) {
        let Tally { values, formulas, differences, kinks, misses } = self;
        println!("{values} outputs and {formulas} gradients by formula checked,");
        println!(
            "{differences} gradient elements by finite differences, {kinks} of them at kinks; skipped {skipped:?}"
        );
        assert!(values > 0, "nothing was checked");
        assert!(misses.is_empty(), "{} misses:\n{}", misses.len(), misses.join("\n"));
        if std::env::var_os("SHADEGRAD_GOLDEN").is_none() {
            assert!(skipped.is_empty(), "cases without a twin: {skipped:?}");
        }
    }
}

/// Scalars are stored with shape `[1]`.
fn significant(shape: &[usize]) -> &[usize] {
    if shape == [1] { &[] } else { shape }
}

fn arrays(tensors: &BTreeMap<String, Tensor>) -> Named {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.to_array())).collect()
}

fn cases(keep: impl Fn(&Case) -> bool) -> Vec<Case> {
    golden::load().expect("a golden folder").into_iter().filter(keep).collect()
}

#[test]
fn twins_meet_the_golden_cases() {
    let (mut tally, mut skipped) = (Tally::default(), BTreeMap::new());
    for case in cases(|c| c.op != "optimizer" && c.op != "model_trace") {
        let Some(twin) = twin(&case.op, &case.attrs) else {
            *skipped.entry(case.op).or_default() += 1;
            continue;
        };
        let inputs = arrays(&case.inputs);
        tally.values += tally.check_map(&case.id, &twin.outputs(&inputs), &case.outputs);
        if case.grads.is_empty() {
            continue;
        }
        let dy = case.cotangents[twin.output].to_array().reshape(twin.value(&inputs).shape);
        if let Some(grads) = twin.grads(&inputs, &dy) {
            tally.formulas += tally.check_map(&case.id, &grads, &case.grads);
        }
        check_differences(&mut tally, &case, &twin, &inputs, &dy);
    }
    tally.finish(&skipped);
}

/// Golden gradients against finite differences of the twin's forward pass.
fn check_differences(tally: &mut Tally, case: &Case, twin: &Twin, inputs: &Named, dy: &Array) {
    let multilinear = matches!(case.op.as_str(), "conv2d" | "matmul" | "linear");
    let mut random = Random::new(case.id.len() as u64);
    for (name, (want, _)) in &case.grads {
        let (x, want) = (&inputs[name], want.to_array());
        let loss = |x: &Array| {
            let mut inputs = inputs.clone();
            inputs.insert(name.clone(), x.clone());
            twin.value(&inputs).dot(dy)
        };
        let largest = want.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let magnitude = twin.value(inputs).zip(dy, |y, d| (y * d).abs()).sum();
        if multilinear {
            let (got, direction) = numeric::directional(&loss, x, &mut random);
            let scale = want.zip(&direction, |w, d| (w * d).abs()).sum();
            tally.differences += 1;
            if (got - want.dot(&direction)).abs() > 1e-7 * scale + 1e-10 * magnitude {
                tally.misses.push(format!("{} d{name} along a direction: {got:e}", case.id));
            }
        }
        let cost = if multilinear { dy.len() * inputs.values().map(Array::len).max().unwrap_or(1) } else { x.len() };
        let samples = (BUDGET / cost.max(1)).clamp(2, SAMPLED);
        for sample in 0..samples.min(x.len()) {
            let i = if x.len() <= samples { sample } else { random.below(x.len()) };
            let (got, want) = (numeric::derivative(&loss, x, i), want.data[i]);
            tally.differences += 1;
            // Golden gradients carry f32 rounding, differences the rounding of the loss divided by the step.
            let allowed = 2e-7 * want.abs() + 1e-7 * largest + 1e-10 * magnitude + 1e-12;
            if (got - want).abs() <= allowed {
                continue;
            }
            let [left, right] = numeric::one_sided(&loss, x, i);
            let (low, high) = (left.min(right), left.max(right));
            if high - low > 1e-3 * largest && (low - 1e-5 * largest..=high + 1e-5 * largest).contains(&want) {
                tally.kinks += 1;
            } else {
                tally.misses.push(format!("{} d{name}[{i}]: {got:e} by differences, golden {want:e}", case.id));
            }
        }
    }
}

#[test]
fn optimizers_meet_the_golden_cases() {
    let mut tally = Tally::default();
    for case in cases(|c| c.op == "optimizer") {
        let (attrs, inputs) = (Attrs(&case.attrs), arrays(&case.inputs));
        let names: Vec<&str> = case.inputs.keys().filter_map(|n| n.strip_prefix("p0.")).collect();
        let mut params: Vec<Array> = names.iter().map(|n| inputs[&format!("p0.{n}")].clone()).collect();
        let (mut optimizer, base) = attrs.optimizer("");
        let schedule = attrs.schedule();
        let mut got: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let steps = attrs.usize("steps");
        for step in 0..steps {
            let mut grads: Vec<Array> = names.iter().map(|n| row(&inputs[&format!("g.{n}")], step)).collect();
            let rate = schedule.rate(base, step);
            if case.outputs.contains_key("grad_norm") {
                got.entry("grad_norm".to_owned()).or_default().push(clip_norm(&mut grads, attrs.f64("clip_norm")));
            }
            optimizer.step(&mut params, &grads, rate);
            got.entry("lr".to_owned()).or_default().push(rate);
            for (name, param) in names.iter().zip(&params) {
                got.entry(format!("p.{name}")).or_default().extend(&param.data);
            }
        }
        let shaped =
            |(name, data): (String, Vec<f64>)| (name.clone(), Array::new(case.outputs[&name].0.shape.clone(), data));
        let got = got.into_iter().map(shaped).collect();
        tally.values += tally.check_map(&case.id, &got, &case.outputs);
    }
    tally.finish(&BTreeMap::new());
}

#[test]
fn training_meets_the_golden_traces() {
    let (mut tally, mut skipped) = (Tally::default(), BTreeMap::new());
    for case in cases(|c| c.op == "model_trace") {
        if case.attrs["model"] != "cnn" {
            *skipped.entry(case.id).or_default() += 1;
            continue;
        }
        let (attrs, inputs) = (Attrs(&case.attrs), arrays(&case.inputs));
        let (x, y) = (&inputs["x"], &inputs["y"]);
        let mut params: Vec<Array> = convnet::PARAMETERS.iter().map(|n| inputs[&format!("init.{n}")].clone()).collect();
        let (mut optimizer, rate) = attrs.optimizer("optimizer_");
        let steps = attrs.usize("steps");
        let (mut got, mut losses) = (Named::new(), Vec::new());
        for s in 0..steps {
            let step = convnet::step(&params, &row(x, s), &row(y, s));
            losses.push(step.loss);
            if s == 0 {
                got.insert("logits_step0".to_owned(), step.logits);
                for (name, grad) in convnet::PARAMETERS.iter().zip(&step.grads) {
                    got.insert(format!("grad_stats.{name}"), stats(grad));
                }
                for (name, want) in &case.grads {
                    let at = convnet::PARAMETERS.iter().position(|n| n == name).expect("a parameter's name");
                    let shown = step.grads[at].data[..want.0.to_array().len()].to_vec();
                    let shown = Array::new(want.0.shape.clone(), shown);
                    tally.check(&format!("{} d{name}", case.id), &shown, want);
                    tally.formulas += 1;
                }
            }
            optimizer.step(&mut params, &step.grads, rate);
        }
        got.insert("losses".to_owned(), Array::new([steps], losses));
        got.insert("logits_final".to_owned(), convnet::step(&params, &row(x, 0), &row(y, 0)).logits);
        for (name, param) in convnet::PARAMETERS.iter().zip(&params) {
            got.insert(format!("stats.{name}"), stats(param));
        }
        tally.values += tally.check_map(&case.id, &got, &case.outputs);
    }
    tally.finish(&skipped);
}

/// `x[i]` along the first axis.
fn row(x: &Array, i: usize) -> Array {
    let len = x.len() / x.shape[0];
    Array::new(&x.shape[1..], x.data[i * len..(i + 1) * len].to_vec())
}

/// Sum, l2 norm, first six values.
fn stats(x: &Array) -> Array {
    let data: Vec<f64> = [x.sum(), x.dot(x).sqrt()].into_iter().chain(x.data.iter().copied().take(6)).collect();
    Array::new([data.len()], data)
}
