//! What it costs to launch work: measured with programs of many tiny dispatches.

use super::median;
use serde_json::{Value, json};
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
    /// One more pass in an encoder, with nothing in it.
    pub pass: f64,
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
        let passes = |count: usize| {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            for _ in 0..count {
                encoder.begin_compute_pass(&Default::default());
            }
            gpu.queue().submit([encoder.finish()]);
            gpu.wait()
        };
        let (few, full) = (repeat(|| passes(1))?, repeat(|| passes(LONG + 1))?);
        let read_back = repeat(|| {
            short.run()?;
            short.read(&last).map(drop)
        })?;
        let each = |many: f64, one: f64| (many - one) / LONG as f64;
        Ok(Launch { dispatch: each(many, one), pass: each(full, few), submit, read_back })
    }

    /// Each cost with what it is of, for a table.
    pub fn rows(&self) -> [(&'static str, f64); 4] {
        [
            ("a dispatch in a pass", self.dispatch),
            ("an empty pass in an encoder", self.pass),
            ("an empty submit, waited for", self.submit),
            ("run and read 256 bytes", self.read_back),
        ]
    }

    pub fn json(&self) -> Value {
        let Launch { dispatch, pass, submit, read_back } = self;
        json!({ "dispatch_us": dispatch, "empty_pass_us": pass, "empty_submit_us": submit, "read_back_us": read_back })
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
