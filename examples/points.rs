//! A two-layer network learns which of two spirals a point of the plane belongs to, and draws what it thinks.

use shadegrad::nn::{self, Module};
use shadegrad::optim::Adam;
use shadegrad::train::pictures;
use shadegrad::{Gpu, Graph, Result};

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    // Two arms of 200 points each, half a turn apart.
    let points: Vec<(f32, f32, u32)> = (0..400)
        .map(|i| {
            let (t, arm) = ((i / 2) as f32 / 200.0, i % 2);
            let (radius, angle) =
                (0.1 + 0.9 * t, 7.0 * t + std::f32::consts::PI * arm as f32 + 0.15 * (i as f32 * 1.7).sin());
            (radius * angle.cos(), radius * angle.sin(), arm)
        })
        .collect();

    let net = nn::sequential((nn::Linear::new(2, 64), nn::Tanh, nn::Linear::new(64, 2)));
    let g = Graph::new();
    let (x, y) = (g.input([400, 2]), g.input_u32([400]));
    let loss = net.forward(&(&x * 4.0)).cross_entropy(&y);
    let step = gpu.compile(&g.minimize(&loss, Adam::new(0.02)))?;
    let positions: Vec<f32> = points.iter().flat_map(|p| [p.0, p.1]).collect();
    let labels: Vec<u32> = points.iter().map(|p| p.2).collect();
    step.write(&x, &positions)?.write_u32(&y, &labels)?;
    for n in 0..=3000 {
        step.run()?;
        if n % 500 == 0 {
            println!("step {n:4}  loss {:.4}", step.read(&loss)?[0]);
        }
    }

    // The probability of the second arm on a grid, with the weights where they are.
    const SIDE: usize = 200;
    let g = Graph::inference();
    let grid = g.input([SIDE * SIDE, 2]);
    let p = net.forward(&(&grid * 4.0)).softmax(1).narrow(1, 1, 1);
    let ask = gpu.compile(&g.function([&p]))?;
    let at = |i: usize| -1.2 + 2.4 * i as f32 / (SIDE - 1) as f32;
    let places: Vec<f32> = (0..SIDE * SIDE).flat_map(|i| [at(i % SIDE), at(i / SIDE)]).collect();
    ask.write(&grid, &places)?.run()?;
    pictures::plane("target/points.png", (-1.2, 1.2, -1.2, 1.2), &ask.read(&p)?, [SIDE, SIDE], &points)?;
    println!("decision boundary in target/points.png");
    Ok(())
}
