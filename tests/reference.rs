//! The twins themselves against PyTorch's answers: values, gradients by formula, gradients by finite differences.

mod support;

use std::collections::BTreeMap;

use support::golden::{self, Case, Tensor, Tolerance};
use support::reference::loss::CrossEntropy;
use support::reference::optim::clip_norm;
use support::reference::{
    Array, Attrs, AvgPool2d, Binary, Conv2d, Named, Random, Reduce, Twin, Unary, broadcast_shape, compare, convnet,
    erf, log_softmax, numeric, reduce, shape, twin,
};

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
        } else if let Err(worst) = compare(&got.to_f32(), &want.to_array().data, tolerance.rtol, tolerance.atol) {
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
        let values = twin.differentiable(&inputs);
        let shaped = |(name, dy): (&String, &Tensor)| (name.clone(), dy.to_array().reshape(values[name].shape.clone()));
        let dys: Named = case.cotangents.iter().map(shaped).collect();
        if let Some(grads) = twin.grads_from(&inputs, &dys) {
            tally.formulas += tally.check_map(&format!("{} gradient of", case.id), &grads, &case.grads);
        }
        // A padding row gets no gradient although the outputs depend on it.
        if case.attrs["padding_idx"].is_null() {
            check_differences(&mut tally, &case, &twin, &inputs, &dys);
        }
    }
    tally.finish(&skipped);
}

/// Golden gradients against finite differences of the twin's forward pass.
fn check_differences(tally: &mut Tally, case: &Case, twin: &Twin, inputs: &Named, dys: &Named) {
    let multilinear = matches!(case.op.as_str(), "conv2d" | "matmul" | "linear");
    let mut random = Random::new(case.id.len() as u64);
    for (name, (want, _)) in &case.grads {
        let (x, want) = (&inputs[name], want.to_array());
        let loss = |x: &Array| {
            let mut inputs = inputs.clone();
            inputs.insert(name.clone(), x.clone());
            let values = twin.differentiable(&inputs);
            dys.iter().map(|(name, dy)| values[name].dot(dy)).sum()
        };
        let largest = want.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let values = twin.differentiable(inputs);
        let magnitude = dys.iter().map(|(name, dy)| values[name].zip(dy, |y, d| (y * d).abs()).sum()).sum::<f64>();
        if multilinear {
            let (got, direction) = numeric::directional(&loss, x, &mut random);
            let scale = want.zip(&direction, |w, d| (w * d).abs()).sum();
            tally.differences += 1;
            if (got - want.dot(&direction)).abs() > 1e-7 * scale + 1e-10 * magnitude {
                tally.misses.push(format!("{} d{name} along a direction: {got:e}", case.id));
            }
        }
        let wide = dys.values().map(Array::len).sum::<usize>();
        let cost = if multilinear { wide * inputs.values().map(Array::len).max().unwrap_or(1) } else { x.len() };
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
    let mut tally = Tally::default();
    // The other networks are made of twins that are checked above.
    for case in cases(|c| c.op == "model_trace" && c.attrs["model"] == "cnn") {
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
    tally.finish(&BTreeMap::new());
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

#[test]
fn a_miss_is_reported_with_its_place_and_size() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    assert!(compare(&[1.0, nan, inf, -0.0], &[1.000_009, f64::NAN, f64::INFINITY, 0.0], 1e-5, 0.0).is_ok());
    let worst = compare(&[1.0, 2.0, 4.0], &[1.0, 2.5, 3.0], 0.0, 0.25).unwrap_err();
    assert_eq!((worst.index, worst.got, worst.want, worst.ratio, worst.misses), (2, 4.0, 3.0, 4.0, 2));
    for (got, want) in [(nan, 1.0), (1.0, f64::NAN), (inf, f64::NEG_INFINITY), (inf, 1e30), (1.0, f64::INFINITY)] {
        assert!(compare(&[got], &[want], 1.0, 1e30).unwrap_err().ratio.is_infinite(), "{got} for {want}");
    }
    assert!(compare(&[], &[1.0], 1.0, 1.0).is_err());
    assert!(compare(&[1.0], &[], 1.0, 1.0).is_err());
}

#[test]
#[should_panic(expected = "attribute `dim`")]
fn a_missing_attribute_is_named() {
    Attrs(&serde_json::json!({"axis": 1})).i64("dim");
}

#[test]
fn random_data_repeats_and_is_exact_in_f32() {
    let [a, b] = [7, 7].map(|seed| Random::new(seed).normal([10_000]));
    assert_eq!(a, b);
    assert_ne!(a, Random::new(8).normal([10_000]));
    assert_eq!(Array::from_f32([10_000], &a.to_f32()), a);
    assert!((a.sum() / 1e4).abs() < 0.05 && (a.dot(&a) / 1e4 - 1.0).abs() < 0.05);
    let c = Random::new(1).uniform([10_000], -2.0, 3.0);
    assert!(c.data.iter().all(|v| (-2.0..=3.0).contains(v)) && (c.sum() / 1e4 - 0.5).abs() < 0.1);
}

#[test]
fn broadcasting_follows_numpy() {
    assert_eq!(broadcast_shape(&[5, 1, 3], &[4, 1]), Some(vec![5, 4, 3]));
    assert_eq!(broadcast_shape(&[], &[2]), Some(vec![2]));
    assert_eq!(broadcast_shape(&[2, 3], &[2]), None);
    let column = Array::new([2, 1], vec![1.0, 2.0]);
    assert_eq!(column.broadcast_to(&[2, 3]).data, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    assert_eq!(column.broadcast_to(&[2, 3]).sum_to(&[1]).data, [9.0]);
}

/// What no golden case covers.
#[test]
fn twins_meet_known_values() {
    for (x, want) in [(0.5, 0.5204998778130465), (-1.0, -0.8427007929497149), (2.49, 0.9995708)] {
        assert!((erf(x) - want).abs() < if x > 2.0 { 1e-6 } else { 1e-15 }, "erf({x}) = {}", erf(x));
    }
    let join = erf(2.5 - 1e-12) - erf(2.5);
    assert!(join.abs() < 1e-14, "the two branches of erf differ by {join:e}");
    let halves = Array::new([5], vec![-1.5, -0.5, 0.5, 1.5, 2.5]);
    assert_eq!(Unary::Round.apply(&halves).data, [-2.0, -0.0, 0.0, 2.0, 2.0]);
    assert_eq!(Unary::Sign.apply(&halves).data, [-1.0, -1.0, 1.0, 1.0, 1.0]);
    assert_eq!(Binary::Maximum.slopes(1.0, 1.0), [0.5, 0.5]);
    let labels = Array::new([2], vec![1.0, 5.0]);
    assert_eq!(shape::one_hot(&labels, 3).data, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    let x = Array::from_fn([1, 1, 3, 3], |i| (3 * i[2] + i[3]) as f64);
    let pool = AvgPool2d {
        kernel: [2, 2],
        stride: [2, 2],
        padding: [0, 0],
        ceil_mode: true,
        count_include_pad: false,
        divisor: Some(2),
    };
    assert_eq!(pool.forward(&x).data, [4.0, 3.5, 6.5, 4.0]);
}

#[test]
fn a_turned_kernel_and_uneven_padding_are_what_they_say() {
    let mut random = Random::new(5);
    let (x, w) = (random.normal([2, 4, 6, 7]), random.normal([6, 2, 3, 2]));
    let plain = Conv2d { stride: [2, 1], dilation: [1, 2], groups: 2, ..Conv2d::default() };
    let conv = Conv2d { padding: [2, 0, 1, 3], flip: true, ..plain };
    let y = conv.forward(&x, &w, None);
    let padded = shape::pad(&x, &[[0, 0], [0, 0], [2, 0], [1, 3]], shape::Fill::Constant(0.0));
    assert_eq!(y, plain.forward(&padded, &shape::flip(&w, &[2, 3]), None));
    let dy = random.normal(y.shape.clone());
    let by_x = numeric::gradient(&|x| conv.forward(x, &w, None).dot(&dy), &x);
    let by_w = numeric::gradient(&|w| conv.forward(&x, w, None).dot(&dy), &w);
    assert!(compare(&conv.grad_x(&dy, &w, &x.shape).to_f32(), &by_x.data, 1e-6, 1e-6).is_ok());
    assert!(compare(&conv.grad_weight(&dy, &x, &w.shape).to_f32(), &by_w.data, 1e-6, 1e-6).is_ok());
}

#[test]
fn cross_entropy_is_the_log_softmax_at_the_label() {
    let mut random = Random::new(6);
    let (x, labels) = (random.normal([5, 4]), random.integers([5], 4));
    let hits = shape::one_hot(&labels, 4).zip(&log_softmax(&x, -1), |h, l| -h * l);
    let want = reduce(Reduce::Mean, &reduce(Reduce::Sum, &hits, &[1], false), &[], false);
    assert!((CrossEntropy::default().forward(&x, &labels).data[0] - want.data[0]).abs() < 1e-12);
}

#[test]
fn malformed_folders_are_refused_with_the_case() {
    let good = r#"{"id":"a","op":"relu","attrs":{},"file":"f","inputs":["x"],"outputs":{},"grads":{},"cotangents":[]}"#;
    let folder = tempfile::tempdir().unwrap();
    let load = |case: &str| {
        std::fs::write(folder.path().join("manifest.json"), format!("{{\"cases\": [{case}]}}")).unwrap();
        golden::load_from(folder.path()).map_err(|e| e.to_string())
    };
    assert!(golden::load_from(&folder.path().join("absent")).is_err());
    assert!(load(good).unwrap_err().contains("case a: f: "));

    let header = br#"{"a/x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"h":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(&[0, 0, 128, 63, 0, 0, 0, 64, 1]);
    std::fs::write(folder.path().join("f"), &bytes).unwrap();
    let cases = load(&good.replace(r#"["x"]"#, r#"["x","@h"]"#)).unwrap();
    assert_eq!(cases[0].inputs["x"].f32(), Some([1.0, 2.0].as_slice()));
    assert_eq!(cases[0].inputs["h"].to_array(), Array::scalar(1.0));

    for (from, to, complaint) in [
        (r#""id":"a","#, "", "case 0 has no id"),
        (r#""op":"relu","#, "", "case a: `op`"),
        (r#""attrs":{}"#, r#""attrs":[]"#, "case a: `attrs`"),
        (r#"["x"]"#, r#"["y"]"#, "case a: f: a/y"),
        (r#"["x"]"#, "[1]", "case a: `inputs`"),
        (r#""outputs":{}"#, r#""outputs":{"x":{"rtol":1}}"#, "case a: x has no tolerance"),
        (r#""grads":{},"#, "", "case a: `grads`"),
    ] {
        let message = load(&good.replace(from, to)).unwrap_err();
        assert!(message.contains(complaint), "{complaint:?} is not in {message:?}");
    }
    std::fs::write(folder.path().join("f"), &bytes[..bytes.len() - 1]).unwrap();
    assert!(load(good).unwrap_err().contains("case a: f: "));
}
