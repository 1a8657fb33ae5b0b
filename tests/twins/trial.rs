//! One op on one set of inputs: what the engine answers, what the twin does, and how far apart they may be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};
use shadegrad::gpu::Options;
use shadegrad::{Gpu, Graph, Result, Tensor};

use crate::support::engine::{self, Got, Outcome};
use crate::support::golden::{Case, Data, Tensor as Stored};
use crate::support::reference::{Array, Named, Random, compare, twin};

/// How far the engine may be from the twin.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// For sums of products: this much of the sum of the terms' absolute values.
    Terms(f64),
    /// Relative and absolute.
    Values(f64, f64),
}

/// Sums of products. Rounding alone gives at most 6e-8 for each addition in a row, and on average the root of that.
pub const TERMS: Bound = Bound::Terms(2e-6);

/// Single values: a few roundings, and a transcendental function of 2 to 3 units in the last place.
pub const VALUES: Bound = Bound::Values(1e-5, 2e-6);

/// Kernels that an op offers for the same work at the most.
pub const KERNELS: usize = 6;

/// The same for ops over lines: softmax, norms, reductions of neighbours.
pub const LINES: usize = 5;

/// The same for poolings.
pub const POOLINGS: usize = 5;

/// The same for attention.
pub const ATTENTIONS: usize = 4;

/// Nothing is computed.
pub const EXACT: Bound = Bound::Values(0.0, 0.0);

/// Set in the environment of a run within WebGPU's default limits.
pub const WEBGPU_LIMITS: &str = "TWINS_WEBGPU_LIMITS";

/// Set in the environment of a run of the kernels that a GPU would be given.
pub const AS_GPU: &str = "TWINS_AS_GPU";

/// The adapter with the n-th kernels. Each test's thread has its own devices. Their pipelines take a lot of memory, so
/// those of tests that have ended are closed; not at the thread's end itself, where wgpu's own data may be gone already.
pub fn gpu(candidate: usize) -> Gpu {
    thread_local! {
        static RUNNING: Arc<()> = Arc::default();
    }
    static OPEN: Mutex<Vec<(Weak<()>, usize, Gpu)>> = Mutex::new(Vec::new());
    let webgpu_limits = candidate == 9 || std::env::var_os(WEBGPU_LIMITS).is_some();
    let as_gpu = std::env::var_os(AS_GPU).is_some();
    let options = Options { webgpu_limits, as_gpu, candidate: Some(candidate % 9), ..Options::default() };
    let own = RUNNING.with(Arc::downgrade);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|(test, ..)| test.strong_count() > 0);
    if let Some((.., gpu)) = open.iter().find(|(test, kernels, _)| test.ptr_eq(&own) && *kernels == candidate) {
        return gpu.clone();
    }
    let gpu = Gpu::open(&options).expect("an adapter");
    open.push((own, candidate, gpu.clone()));
    gpu
}

/// The adapter with WebGPU's limits.
pub fn small_gpu() -> Gpu {
    gpu(9)
}

pub fn named<const N: usize>(inputs: [(&str, Array); N]) -> Named {
    inputs.into_iter().map(|(name, array)| (name.to_owned(), array)).collect()
}

/// Runs `op` on the engine and on its twin, forward and (if it has gradients) backward; panics where they differ.
pub fn check(gpu: &Gpu, op: &str, attrs: &Value, inputs: &Named, bound: Bound, random: &mut Random) {
    let twin = twin(op, attrs).unwrap_or_else(|| panic!("{op} has no twin"));
    let outputs = twin.outputs(inputs);
    let dys: Named =
        twin.differentiable(inputs).into_iter().map(|(name, value)| (name, random.normal(value.shape))).collect();
    let grads = twin.grads_from(inputs, &dys).unwrap_or_default();
    let grads: Named = grads.into_iter().filter(|(name, _)| inputs.contains_key(name)).collect();
    let exact = |_: &Array| {
        (stored("", &Array::zeros([0])), crate::support::golden::Tolerance { rtol: 0.0, atol: 0.0, exact: true })
    };
    let case = Case {
        id: "random".into(),
        op: op.into(),
        attrs: attrs.clone(),
        inputs: inputs.iter().map(|(name, array)| (name.clone(), stored(name, array))).collect(),
        outputs: BTreeMap::new(),
        cotangents: if grads.is_empty() {
            BTreeMap::new()
        } else {
            dys.iter().map(|(name, dy)| (name.clone(), stored("", dy))).collect()
        },
        grads: grads.iter().map(|(name, array)| (name.clone(), exact(array))).collect(),
        note: String::new(),
    };
    let what = || {
        let shapes: Vec<String> = inputs.iter().map(|(name, array)| format!("{name} {:?}", array.shape)).collect();
        format!("{op} {attrs} of {}", shapes.join(", "))
    };
    let answer = match engine::run(gpu, &case) {
        Ok(Outcome::Answer(answer)) => answer,
        Ok(Outcome::Unsupported) => panic!("{} is not supported", what()),
        Err(error) => panic!("{}: {error}", what()),
    };
    // The same sums over absolute values bound the rounding errors.
    let absolute = |named: &Named| -> Named { named.iter().map(|(n, a)| (n.clone(), a.map(f64::abs))).collect() };
    let (sizes, grad_sizes) = match bound {
        Bound::Terms(_) => {
            let inputs = absolute(inputs);
            (twin.outputs(&inputs), twin.grads_from(&inputs, &absolute(&dys)).unwrap_or_default())
        }
        Bound::Values(..) => Default::default(),
    };
    for (name, want) in &outputs {
        same(&format!("{}: {name}", what()), &answer.outputs[name], want, bound, sizes.get(name));
    }
    for (name, want) in &grads {
        let what = format!("{}: gradient of {name}", what());
        same(&what, &answer.grads[name], want, bound, grad_sizes.get(name));
    }
}

fn same(what: &str, got: &Got, want: &Array, bound: Bound, sizes: Option<&Array>) {
    assert_eq!(got.shape, want.shape, "{what}: the shape");
    agree(what, &got.values, want, bound, sizes);
}

/// `sizes`: for [`Bound::Terms`], the sums of absolute values.
pub fn agree(what: &str, got: &[f32], want: &Array, bound: Bound, sizes: Option<&Array>) {
    match (bound, sizes) {
        (Bound::Values(rtol, atol), _) => {
            compare(got, &want.data, rtol, atol).unwrap_or_else(|worst| panic!("{what}: {worst}"));
        }
        (Bound::Terms(part), Some(sizes)) => {
            assert_eq!(got.len(), want.len(), "{what}");
            for (i, (&got, (&want, &size))) in got.iter().zip(want.data.iter().zip(&sizes.data)).enumerate() {
                let off = (f64::from(got) - want).abs();
                assert!(
                    off <= part * size,
                    "{what}: element {i} is {got:e}, not {want:e}; off by {:.1e} of its terms",
                    off / size
                );
            }
        }
        (Bound::Terms(_), None) => panic!("{what}: the sizes of the terms are missing"),
    }
}

/// Labels and indices are integers.
fn stored(name: &str, array: &Array) -> Stored {
    let data = match name {
        "index" | "indices" | "target" if array.data.iter().all(|v| v.fract() == 0.0) => {
            Data::I32(array.data.iter().map(|&v| v as i32).collect())
        }
        _ => Data::F32(array.to_f32()),
    };
    Stored { shape: array.shape.clone(), data }
}

/// Compiles and runs a graph of f32 inputs; the values of `outputs`.
pub fn run(gpu: &Gpu, graph: &Graph, inputs: &[(Tensor, Array)], outputs: &[Tensor]) -> Result<Vec<Vec<f32>>> {
    let program = gpu.compile(&graph.function(outputs))?;
    let ports = &program.plan().inputs;
    // An input that nothing depends on is none of the program's.
    for (tensor, array) in inputs.iter().filter(|(t, _)| ports.iter().any(|port| port.value == t.value())) {
        program.write(tensor, &array.to_f32())?;
    }
    program.run()?;
    outputs.iter().map(|output| program.read(output)).collect()
}

const EXTENTS: [usize; 12] = [1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17, 31];

/// Of this rank, with extents that are odd, prime, one, powers of two.
pub fn shape(random: &mut Random, rank: usize) -> Vec<usize> {
    let few = if rank > 3 { 6 } else { EXTENTS.len() };
    (0..rank).map(|_| EXTENTS[random.below(few)]).collect()
}

/// Shapes that have often been got wrong.
pub fn odd_shapes() -> Vec<Vec<usize>> {
    vec![vec![], vec![1], vec![0], vec![3, 0, 5], vec![0, 4], vec![1, 1, 1, 1, 1], vec![257], vec![1, 65]]
}

pub fn no_attrs() -> Value {
    json!({})
}
