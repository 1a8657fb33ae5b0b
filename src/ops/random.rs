//! Random numbers: dropout, and the counter that makes every run draw anew.

use crate::graph::{
    Arg, Backward, Candidate, Caps, DType, Desc, Graph, Io, Kernel, Op, Param, Pointwise, Shape, Tensor, float,
};
use crate::graph::{Function, plan::params};
use crate::shader;

/// `x` times a mask of 0 and `1 / (1 - p)`; the mask is a function of (seed, step, salt, element) and is never stored.
#[derive(Debug)]
struct Dropout {
    p: f32,
    salt: u32,
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        if inputs[0].dtype != DType::F32 {
            return Err(format!("it needs an f32 tensor, not {}", inputs[0]));
        }
        Ok(vec![inputs[0].clone()])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        // The same mask.
        let graph = node.x(0).graph();
        let op = Dropout { p: self.p, salt: self.salt };
        vec![Some(graph.push1(op, &[&node.dy(), node.x(1), node.x(2)])), None, None]
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn pointwise(&self) -> Option<Pointwise> {
        let (salt, p) = (self.salt, float(self.p));
        Some(Pointwise(format!("({{0}} * dropout_scale({{1}}, {{2}}, {salt}u, {{i}}, {p}))")))
    }
}

/// Counts the step of the graph's random state up.
#[derive(Debug)]
struct Tick(Param);

impl Op for Tick {
    fn name(&self) -> &'static str {
        "tick"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(Vec::new())
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        vec![Candidate::single("tick", Kernel::new(shader!("tick.wgsl"), "tick").bind([Arg::State(0)]))]
    }

    fn state(&self) -> Vec<Param> {
        vec![self.0.clone()]
    }
}

/// `function` with what goes along with it: layers' statistics, and the step of its random numbers, if it draws any.
pub(crate) fn complete(function: &Function) -> Function {
    let function = function.kept_up();
    match function.graph.random_state() {
        Some(random) if params(&function).contains(&random) => {
            let tick = function.graph.update(Tick(random), &[]);
            function.update(tick)
        }
        _ => function,
    }
}

/// Uniform in [0, 1): a function of (seed, step, salt, element).
#[derive(Debug)]
struct Uniform {
    shape: Shape,
    salt: u32,
}

impl Op for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::f32(&self.shape)])
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise(format!("uniform01({{0}}, {{1}}, {}u, {{i}})", self.salt)))
    }
}

impl Graph {
    /// Numbers uniform in [0, 1): fresh ones each run, repeatable by seed ([`crate::Program::seed`]).
    #[track_caller]
    pub fn uniform(&self, shape: impl Into<Shape>) -> Tensor {
        let random = self.random();
        let (seed, step) = (random.narrow(0, 0, 1), random.narrow(0, 1, 1));
        let salt = self.salt();
        self.push1(Uniform { shape: shape.into(), salt }, &[&seed, &step])
    }
}

impl Tensor {
    /// Draws a class from each row of logits [..., classes], with the probabilities of their softmax: u32 [...]. By the
    /// Gumbel-max trick (Gumbel, 1954).
    #[track_caller]
    pub fn sample(&self) -> Tensor {
        // No logarithm is that of 0, whatever the device rounds to.
        let exponential = -self.graph().uniform(self.shape()).maximum(&self.graph().full([], 1e-30)).log();
        let gumbel = -exponential.maximum(&self.graph().full([], 1e-8)).log();
        (self + gumbel).argmax(&[-1], false)
    }

    /// Zeroes each element with probability `p` and scales the rest by `1 / (1 - p)`: a fresh mask each run,
    /// repeatable by seed.
    #[track_caller]
    pub fn dropout(&self, p: f32) -> Tensor {
        if !(0.0..1.0).contains(&p) {
            return self.graph().poison("dropout", format!("p is {p}, but must be at least 0 and below 1"));
        }
        if p == 0.0 {
            return self.clone();
        }
        let random = self.graph().random();
        let (seed, step) = (random.narrow(0, 0, 1), random.narrow(0, 1, 1));
        let salt = self.graph().salt();
        self.graph().push1(Dropout { p, salt }, &[self, &seed, &step])
    }
}
