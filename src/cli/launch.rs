//! What it costs to launch work: measured with programs of many tiny dispatches.

use super::median;
use shadegrad::{Gpu, Graph, Program, Result, Tensor};
use std::time::Instant;

/// Dispatches of the long program.
const LONG: usize = 256;

/// A program of `dispatches` dispatches of one workgroup each, every one reading what the one before wrote.
pub fn chain(gpu: &Gpu, dispatches: usize) -> Result<(Program, Tensor)> {
    let graph = Graph::new();
    let x = graph.input([8, 8]);
    // Two kinds in turn, so that no two neighbours share a pipeline.
    let link = |y: Tensor, n: usize| if n.is_multiple_of(2) { y.softmax(1) } else { y.log_softmax(1) };
    let y = (0..dispatches).fold(x.clone(), link);
    let program = gpu.compile(&graph.function([&y]))?;
    program.write(&x, &[0.5; 64])?;
    program.run()?;
    gpu.wait()?;
    Ok((program, y))
}

/// Costs of launching, in microseconds of wall time; medians.
pub struct Launch {
    /// One more dispatch in a pass that waits for the one before.
    pub dispatch: f64,
    /// An empty submit and the wait for it.
    pub submit: f64,
    /// A run of one dispatch, and its output of 256 bytes back on the host.
    pub read_back: f64,
}

impl Launch {
    /// Measures; takes about a second.
    pub fn measure(gpu: &Gpu) -> Result<Launch> {
        let (short, last) = chain(gpu, 1)?;
        let (long, _) = chain(gpu, LONG + 1)?;
        let run = |program: &Program| {
            program.run()?;
            gpu.wait()
        };
        let one = repeat(|| run(&short))?;
        let many = repeat(|| run(&long))?;
        let submit = repeat(|| {
            gpu.queue().submit([]);
            gpu.wait()
        })?;
        let read_back = repeat(|| {
            short.run()?;
            short.read(&last).map(drop)
        })?;
        Ok(Launch { dispatch: (many - one) / LONG as f64, submit, read_back })
    }
}

/// Microseconds of one call, the median of many.
fn repeat(mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for turn in 0..60 {
        let start = Instant::now();
        call()?;
        if turn >= 10 {
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(median(&mut times))
}
