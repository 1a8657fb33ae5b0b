//! Which pixels does the answer depend on? The gradient of the winning score with respect to the *input*, as a picture
//! (Simonyan et al., 2013). The network trains for a moment first, on digits that the program draws.

use shadegrad::data::{Order, digits};
use shadegrad::nn::{self, Module};
use shadegrad::ops::ImageBatch;
use shadegrad::optim::Adam;
use shadegrad::train::pictures;
use shadegrad::{Gpu, Graph, Result};

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    let images = digits::draw(6_400, 3)?;
    let (mean, std) = images.mean_std();
    let (store, rule) = (images.store(), ImageBatch::new([1, 28, 28], mean, std));
    let net = nn::sequential((
        (nn::Conv2d::new(1, 16, 5).padding(2)),
        nn::Relu,
        nn::MaxPool2d::new(2),
        (nn::Conv2d::new(16, 32, 5).padding(2)),
        nn::Relu,
        nn::MaxPool2d::new(2),
        nn::Flatten,
        nn::Linear::new(32 * 7 * 7, 10),
    ));

    let g = Graph::new();
    let chosen = g.input_u32([64]);
    let labels = g.param(&store.labels).index_select(0, &chosen);
    let loss = net.forward(&g.param(&store.pixels).image_batch(&chosen, &rule)).cross_entropy(&labels);
    let step = gpu.compile(&g.minimize(&loss, Adam::new(2e-3)))?;
    let mut order = Order::new(images.len(), 64, 3)?;
    for n in 0..200 {
        step.write_u32(&chosen, order.batch(n))?.run()?;
    }
    println!("trained to a loss of {:.3}", step.read(&loss)?[0]);

    let g = Graph::inference();
    let which = g.input_u32([1]);
    let x = g.param(&store.pixels).image_batch(&which, &rule);
    let scores = net.forward(&x);
    let gradient = g.grad(&scores.amax(&[1], false), [&x]).remove(0);
    let explain = gpu.compile(&g.function([&scores.argmax(&[1], false), &gradient]))?;
    println!("{explain}");
    for digit in 0..10 {
        explain.write_u32(&which, &[digit])?.run()?;
        let path = format!("target/saliency/{digit}.png");
        pictures::heat_overlay(&path, images.image(digit as usize), &explain.read(&gradient)?, [28, 28])?;
    }
    println!("pictures in target/saliency");
    Ok(())
}
