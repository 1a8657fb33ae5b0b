//! What the run leaves: numbers on the terminal and pictures under `target/mnist`.

use shadegrad::data::Images;
use shadegrad::nn::{Module, Sequential};
use shadegrad::train::pictures::{self, Curve, Tile};
use shadegrad::{Gpu, Result};
use std::path::Path;

/// Loss and accuracy of each step.
#[derive(Default)]
pub struct History {
    loss: Vec<(f64, f64)>,
    accuracy: Vec<(f64, f64)>,
}

impl History {
    pub fn push(&mut self, step: u64, loss: f32, accuracy: f32) {
        self.loss.push((step as f64, f64::from(loss)));
        self.accuracy.push((step as f64, f64::from(accuracy)));
    }

    /// The mean of the last 50 steps, in words.
    pub fn recent(&self) -> String {
        let mean = |points: &[(f64, f64)]| {
            let last = &points[points.len().saturating_sub(50)..];
            last.iter().map(|p| p.1).sum::<f64>() / last.len().max(1) as f64
        };
        format!("loss {:.4}  accuracy {:.2} %", mean(&self.loss), 100.0 * mean(&self.accuracy))
    }
}

/// The share of right answers.
pub fn share_right(test: &Images, answers: &[u32]) -> f64 {
    let right = test.labels.iter().zip(answers).filter(|(truth, answer)| truth == answer).count();
    right as f64 / test.len() as f64
}

/// Prints accuracy and confusion matrix, and draws the pictures.
pub fn finish(gpu: &Gpu, net: &Sequential, test: &Images, answers: &[u32], history: &History) -> Result<()> {
    let classes = test.classes.len();
    let mut counts = vec![vec![0u32; classes]; classes];
    for (&truth, &answer) in test.labels.iter().zip(answers) {
        counts[truth as usize][answer as usize] += 1;
    }
    let right: u32 = (0..classes).map(|c| counts[c][c]).sum();
    println!("\ntest accuracy {:.2} % ({right} of {})\n", 100.0 * f64::from(right) / test.len() as f64, test.len());
    println!("true \\ answer {}", test.classes.iter().map(|c| format!("{c:>6}")).collect::<String>());
    for (class, row) in test.classes.iter().zip(&counts) {
        println!("{class:>13} {}", row.iter().map(|n| format!("{n:>6}")).collect::<String>());
    }
    let folder = Path::new("target/mnist");
    if !history.loss.is_empty() {
        let (loss, accuracy) = (
            Curve { name: "training loss", points: &history.loss },
            Curve { name: "training accuracy", points: &history.accuracy },
        );
        pictures::curves(folder.join("curves.png"), "Training", &[loss], &[accuracy])?;
    }
    let filters = net.parameters().into_iter().find(|(name, _)| name == "conv1.weight");
    if let Some((_, weight)) = filters {
        pictures::filters(folder.join("filters.png"), &gpu.read_param(&weight)?, [32, 1, 5, 5])?;
    }
    pictures::confusion(folder.join("confusion.png"), &counts, &test.classes)?;
    pictures::contact_sheet(folder.join("predictions.png"), &tiles(test, answers), 10)?;
    println!("\npictures in {}", folder.display());
    Ok(())
}

/// Up to thirty mistakes, and right answers for the rest of sixty.
fn tiles<'a>(test: &'a Images, answers: &[u32]) -> Vec<Tile<'a>> {
    let of = |wrong: bool| (0..test.len()).filter(move |&i| (answers[i] != test.labels[i]) == wrong);
    let mut chosen: Vec<usize> = of(true).take(30).collect();
    chosen.extend(of(false).take(60 - chosen.len()));
    let tile = |i: usize| {
        let (answer, truth) = (&test.classes[answers[i] as usize], &test.classes[test.labels[i] as usize]);
        let wrong = answer != truth;
        let caption = if wrong { format!("{answer}, is {truth}") } else { answer.clone() };
        Tile { pixels: test.image(i), height: test.height, width: test.width, caption, wrong }
    };
    chosen.into_iter().map(tile).collect()
}
