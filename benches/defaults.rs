//! How far the kernels that are taken without tuning are from the best ones, on random shapes: `cargo bench --bench
//! defaults [-- SEED]`. It prints every kind of work whose default takes more than 5 % longer than the best.

use fastrand::Rng;
use shadegrad::gpu::{Options, Tuned};
use shadegrad::graph::choose::{Choices, Trial};
use shadegrad::ops::Conv2dOptions;
use shadegrad::{Function, Gpu, Graph, Result, Tensor};

/// Multiply-adds of a convolution at most, so that the whole takes minutes.
const MOST: usize = 1_000_000_000;

/// A multiple of `of` between both, all magnitudes alike.
fn extent(rng: &mut Rng, from: f64, to: f64, of: usize) -> usize {
    let exponent = from.ln() + (to.ln() - from.ln()) * rng.f64();
    (exponent.exp() as usize).div_ceil(of).max(1) * of
}

fn product(rng: &mut Rng, n: usize) -> Function {
    let of = [1, 4, 16][n % 3];
    let (rows, columns, depth) =
        (extent(rng, 1.0, 700.0, 1), extent(rng, 8.0, 1500.0, of), extent(rng, 8.0, 1500.0, of));
    let (flip_a, flip_b) = (n % 5 == 4, n % 2 == 1);
    let g = Graph::inference();
    let a = g.input(if flip_a { [depth, rows] } else { [rows, depth] });
    let b = g.input(if flip_b { [columns, depth] } else { [depth, columns] });
    g.function([&a.matmul_t(&b, flip_a, flip_b)])
}

/// A convolution with both gradients; nothing where it would be too large.
fn convolution(rng: &mut Rng, n: usize) -> Option<Function> {
    let (kernel, of) = ([1, 3, 3, 5, 7][n % 5], [1, 4, 8][n % 3]);
    let (batch, from, to) = (extent(rng, 1.0, 16.0, 1), extent(rng, 3.0, 200.0, of), extent(rng, 4.0, 200.0, of));
    let side = extent(rng, 7.0, 64.0, 1);
    let stride = if n % 7 == 6 { 2 } else { 1 };
    if batch * from * to * side * side * kernel * kernel > MOST {
        return None;
    }
    let g = Graph::new();
    let (x, w) = (g.input([batch, from, side, side]), g.input([to, from, kernel, kernel]));
    let y = x.conv2d(&w, &Conv2dOptions::new().padding([kernel / 2; 2]).stride([stride; 2]));
    let dy = g.input(y.shape().to_vec());
    let mut outputs: Vec<Tensor> = g.grad_from(&[(y.clone(), dy)], [&x, &w]);
    outputs.push(y);
    Some(g.function(&outputs))
}

fn lines(rng: &mut Rng) -> Function {
    let (count, length) = (extent(rng, 1.0, 5000.0, 1), extent(rng, 8.0, 5000.0, 1));
    let g = Graph::inference();
    let x = g.input([count, length]);
    g.function([&x.softmax(1), &x.layer_norm(&[length], None, None, 1e-5)])
}

/// Microseconds from which on the kernel's work, not its launch, is most of what was measured.
const SHORT: f64 = 200.0;

/// How much longer the default takes than the best, and how many microseconds the best takes, for each kind of work; those
/// above 5 % are printed.
fn ratios(tuned: &Tuned) -> Vec<[f64; 2]> {
    let mut all = Vec::new();
    for (work, choice) in &tuned.choices {
        let times: Vec<f64> = choice.trials.iter().filter_map(|trial| trial.microseconds).collect();
        // The default is tried first; where it failed, it is infinitely far from the best.
        let default = choice.trials[0].microseconds.unwrap_or(f64::INFINITY);
        let best = times.iter().copied().fold(f64::INFINITY, f64::min);
        let ratio = default / best;
        if ratio > 1.05 {
            let told = |t: &Trial| format!("{} {:.0} us", t.candidate, t.microseconds.unwrap_or(f64::NAN));
            let trials: Vec<String> = choice.trials.iter().map(told).collect();
            println!("{ratio:.2}  {work}\n      {}", trials.join(", "));
        }
        all.push([ratio, best]);
    }
    all
}

fn main() -> Result<()> {
    let seed = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1);
    let mut rng = Rng::with_seed(seed);
    let options = Options { tune: true, choices: Some(Choices::default()), ..Options::default() };
    let gpu = Gpu::open(&options)?;
    println!("{gpu}, seed {seed}");
    let mut functions: Vec<Function> = (0..30).map(|n| product(&mut rng, n)).collect();
    functions.extend((0..30).filter_map(|n| convolution(&mut rng, n)));
    functions.extend((0..30).map(|_| lines(&mut rng)));
    let mut all = Vec::new();
    for function in functions {
        all.extend(ratios(&gpu.tune(&function)?));
    }
    let tell = |what: &str, ratios: Vec<f64>| {
        let over = ratios.iter().filter(|ratio| **ratio > 1.05).count();
        let worst = ratios.iter().copied().fold(1.0, f64::max);
        println!(
            "{} kinds of work{what}, {over} of them more than 5 % from the best, the worst by a factor of {worst:.2}",
            ratios.len()
        );
    };
    tell("", all.iter().map(|[ratio, _]| *ratio).collect());
    let long = all.iter().filter(|[_, best]| *best >= SHORT);
    tell(&format!(" that take {SHORT:.0} us or longer"), long.map(|[ratio, _]| *ratio).collect());
    Ok(())
}
