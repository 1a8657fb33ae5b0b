//! Golden cases on the engine: a graph from the public API, its gradients, one run.

mod layers;
mod nets;

mod pointwise;
mod recurrent;
mod training;

use std::collections::BTreeMap;

use shadegrad::{DType, Gpu, Graph, Program, Result, Tensor};

use super::golden::{Case, Data};
use super::reference::Attrs;

/// What came out under one name; indices as floats, which they fit exactly.
pub struct Got {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Outputs and gradients by the case's names.
#[derive(Default)]
pub struct Answer {
    pub outputs: BTreeMap<String, Got>,
    pub grads: BTreeMap<String, Got>,
}

pub enum Outcome {
    Answer(Answer),
    /// The engine has no such op.
    Unsupported,
}

/// Tensors by the case's names.
type Named = BTreeMap<String, Tensor>;

/// Builds, compiles and runs `case`.
pub fn run(gpu: &Gpu, case: &Case) -> Result<Outcome> {
    if let Some(outcome) = training::run(gpu, case) {
        return outcome;
    }
    let graph = Graph::new();
    let inputs: Named = case.inputs.iter().map(|(name, t)| (name.clone(), leaf(&graph, &t.data, &t.shape))).collect();
    let attrs = Attrs(&case.attrs);
    let built = pointwise::build(&case.op, attrs, &inputs)
        .or_else(|| layers::build(&case.op, attrs, &inputs))
        .or_else(|| nets::build(&case.op, attrs, &inputs))
        .or_else(|| recurrent::build(&case.op, attrs, &inputs));
    let Some(outputs) = built else {
        return Ok(Outcome::Unsupported);
    };
    // Scalars are stored with shape [1]; here their shape is [].
    let cotangents: Named =
        case.cotangents.keys().map(|name| (name.clone(), graph.input(outputs[name].shape()))).collect();
    let seeds: Vec<_> = cotangents.iter().map(|(name, dy)| (outputs[name].clone(), dy.clone())).collect();
    let grads = graph.grad_from(&seeds, case.grads.keys().map(|name| &inputs[name]));
    let program = gpu.compile(&graph.function(outputs.values().chain(&grads)))?;
    // An input that nothing depends on is none of the program's.
    let needed = |tensor: &Tensor| program.plan().inputs.iter().any(|port| port.value == tensor.value());
    for (name, tensor) in inputs.iter().filter(|(_, tensor)| needed(tensor)) {
        write(&program, tensor, &case.inputs[name].data, 0)?;
    }
    for (name, tensor) in cotangents.iter().filter(|(_, tensor)| needed(tensor)) {
        program.write(tensor, case.cotangents[name].f32().unwrap_or_default())?;
    }
    program.run()?;
    let read = |(name, tensor): (&String, &Tensor)| -> Result<(String, Got)> {
        let values = match tensor.dtype() {
            DType::F32 => program.read(tensor)?,
            _ => program.read_u32(tensor)?.into_iter().map(|v| v as f32).collect(),
        };
        Ok((name.clone(), Got { shape: tensor.shape().to_vec(), values }))
    };
    Ok(Outcome::Answer(Answer {
        outputs: outputs.iter().map(read).collect::<Result<_>>()?,
        grads: case.grads.keys().zip(&grads).map(read).collect::<Result<_>>()?,
    }))
}

/// Indices and labels are u32 in the engine, masks f32.
fn leaf(graph: &Graph, data: &Data, shape: &[usize]) -> Tensor {
    match data {
        Data::I32(_) => graph.input_u32(shape),
        Data::F32(_) | Data::U8(_) => graph.input(shape),
    }
}

/// Writes the n-th part of stored values that is as large as the input.
fn write(program: &Program, input: &Tensor, data: &Data, n: usize) -> Result<()> {
    let part = n * input.elements()..(n + 1) * input.elements();
    match data {
        Data::F32(values) => program.write(input, &values[part])?,
        // A negative label (-100) wraps round.
        Data::I32(values) => program.write_u32(input, &values[part].iter().map(|&v| v as u32).collect::<Vec<_>>())?,
        Data::U8(values) => program.write(input, &values[part].iter().map(|&v| f32::from(v)).collect::<Vec<_>>())?,
    };
    Ok(())
}

fn one(name: &str, tensor: Tensor) -> Option<Named> {
    Some(Named::from([(name.to_owned(), tensor)]))
}

/// The output of an element-wise op.
pub fn pointwise(op: &str, attrs: &serde_json::Value, inputs: &BTreeMap<String, Tensor>) -> Option<Tensor> {
    pointwise::build(op, Attrs(attrs), inputs)?.remove("y")
}
