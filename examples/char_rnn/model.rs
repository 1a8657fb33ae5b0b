//! The network - embedding, recurrent layers, linear - and the three programs that share its weights.

use shadegrad::graph::Role;
use shadegrad::nn::{self, Carried, Module};
use shadegrad::ops::States;
use shadegrad::optim::Adam;
use shadegrad::{Function, Gpu, Graph, Param, Program, Result, Tensor};

/// The recurrent layers.
pub enum Body {
    Lstm(nn::Lstm),
    Gru(nn::Gru),
}

pub struct Model {
    embedding: nn::Embedding,
    body: Body,
    head: nn::Linear,
}

impl Model {
    pub fn new(lstm: bool, classes: usize, hidden: usize, layers: usize) -> Model {
        let width = hidden.min(64);
        let body = match lstm {
            true => Body::Lstm(nn::Lstm::new(width, hidden).layers(layers)),
            false => Body::Gru(nn::Gru::new(width, hidden).layers(layers)),
        };
        Model { embedding: nn::Embedding::new(classes, width), body, head: nn::Linear::new(hidden, classes) }
    }

    pub fn parameters(&self) -> Vec<(String, Param)> {
        let body: &dyn Module = match &self.body {
            Body::Lstm(lstm) => lstm,
            Body::Gru(gru) => gru,
        };
        let parts: [(&str, &dyn Module); 3] = [("embedding", &self.embedding), ("rnn", body), ("fc", &self.head)];
        parts.into_iter().flat_map(|(name, part)| nn::prefixed(name, part)).collect()
    }

    fn carried(&self, batch: usize) -> Carried {
        match &self.body {
            Body::Lstm(lstm) => lstm.carried(batch),
            Body::Gru(gru) => gru.carried(batch),
        }
    }

    /// Tokens [T, N] and the states before them -> logits [T N, classes] and the states after.
    fn run(&self, tokens: &Tensor, states: &States) -> (Tensor, States) {
        let x = self.embedding.forward(tokens);
        let (y, last) = match &self.body {
            Body::Lstm(lstm) => lstm.run(&x, Some(states), None),
            Body::Gru(gru) => gru.run(&x, Some(states), None),
        };
        (self.head.forward(&y.reshape([y.shape()[0] * y.shape()[1], y.shape()[2]])), last)
    }
}

/// A batch of passages that goes on where the last one ended: training if it has an optimizer, else only the loss.
pub struct Pass {
    pub program: Program,
    pub loss: Tensor,
    tokens: Tensor,
    targets: Tensor,
    carried: Carried,
}

impl Pass {
    pub fn new(gpu: &Gpu, model: &Model, [steps, batch]: [usize; 2], optimizer: Option<Adam>) -> Result<Pass> {
        let g = if optimizer.is_some() { Graph::new() } else { Graph::inference() };
        let (tokens, targets) = (g.input_u32([steps, batch]), g.input_u32([steps * batch]));
        let carried = model.carried(batch);
        let (logits, last) = model.run(&tokens, &carried.states(&g));
        let loss = logits.cross_entropy(&targets);
        let function = match optimizer {
            Some(optimizer) => g.minimize(&loss, optimizer),
            None => g.function([&loss]),
        };
        let program = gpu.compile(&carried.keep(function, &last))?;
        Ok(Pass { program, loss, tokens, targets, carried })
    }

    /// Forgets the text so far.
    pub fn forget(&self) -> Result<()> {
        forget(self.program.gpu(), &self.carried)
    }

    /// Runs step `n` over as many strands of the text as the batch has, each of which is read from begin to end.
    pub fn run(&self, text: &[u32], n: usize) -> Result<()> {
        let [steps, batch] = [self.tokens.shape()[0], self.tokens.shape()[1]];
        let strand = text.len() / batch;
        let at = |t: usize, b: usize| b * strand + n * steps + t;
        let places = || (0..steps).flat_map(|t| (0..batch).map(move |b| at(t, b)));
        let tokens: Vec<u32> = places().map(|i| text[i]).collect();
        let targets: Vec<u32> = places().map(|i| text[i + 1]).collect();
        self.program.write_u32(&self.tokens, &tokens)?.write_u32(&self.targets, &targets)?.run()
    }

    /// How often [`Pass::run`] goes into a text.
    pub fn steps(&self, text: &[u32]) -> usize {
        let [steps, batch] = [self.tokens.shape()[0], self.tokens.shape()[1]];
        (text.len() / batch).saturating_sub(1) / steps
    }
}

fn forget(gpu: &Gpu, carried: &Carried) -> Result<()> {
    carried.params().iter().try_for_each(|(_, param)| gpu.write_param(param, &vec![0.0; param.desc().elements()]))
}

/// Writes text, one character a run: what was drawn stays on the GPU and is the next run's input.
pub struct Writer {
    program: Program,
    temperature: Tensor,
    drawn: Tensor,
    token: Param,
    carried: Carried,
}

impl Writer {
    pub fn new(gpu: &Gpu, model: &Model) -> Result<Writer> {
        let g = Graph::inference();
        let token = Param::new_u32("token", Role::State, [1], &[0]);
        let carried = model.carried(1);
        let (logits, last) = model.run(&g.param(&token).reshape([1, 1]), &carried.states(&g));
        let temperature = g.input([]);
        let drawn = (logits / &temperature).sample();
        let function: Function = g.function([&drawn]).update(g.assign(&token, &drawn));
        let program = gpu.compile(&carried.keep(function, &last))?;
        Ok(Writer { program, temperature, drawn, token, carried })
    }

    /// `length` tokens that follow `prompt`.
    pub fn write(&self, prompt: &[u32], length: usize, temperature: f32, seed: u64) -> Result<Vec<u32>> {
        let gpu = self.program.gpu();
        forget(gpu, &self.carried)?;
        self.program.seed(seed)?.write(&self.temperature, &[temperature])?;
        let mut tokens = Vec::new();
        for n in 0..prompt.len() + length {
            if let Some(&token) = prompt.get(n) {
                gpu.write_param_words(&self.token, &[token])?;
            }
            self.program.run()?;
            if n + 1 >= prompt.len() {
                tokens.extend(self.program.read_u32(&self.drawn)?);
            }
        }
        tokens.truncate(length);
        Ok(tokens)
    }
}
