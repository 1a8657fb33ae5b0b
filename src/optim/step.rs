//! The optimizer's step as graph nodes: the norm of all gradients where it is wanted, and the update.

use super::Optimizer;
use super::kinds::{Clip, Kind};
use super::rows::RowStep;
use crate::graph::{
    Arg, Candidate, Caps, DType, Desc, Function, Graph, Io, Kernel, MOST_UNIFORM, Op, Param, Role, Tensor,
};
use crate::shader;
use std::collections::HashMap;
use std::ops::Range;

/// Elements that one workgroup updates.
const CHUNK: usize = 1024;

/// Elements that an invocation updates at a time; every parameter's moments begin at a multiple of it, as parameters
/// and packed gradients do anyway.
const LANES: usize = 4;

/// Elements that one workgroup of the norm's first stage adds, 256 for each invocation.
const NORM_CHUNK: usize = 1 << 14;

/// Elements of packed gradients, or of moments, that one dispatch can bind on every device, 128 MiB.
const MOST: usize = 32 << 20;

pub(super) const GRADIENT_NORM: &str = "@group(0) @binding(6) var<storage, read> norm: array<f32>; // [1]
fn gradient_norm() -> f32 {
    return norm[0];
}";

#[track_caller]
pub(super) fn add(graph: &Graph, function: Function, pairs: &[(Param, Tensor)], optimizer: &Optimizer) -> Function {
    if let Err(message) = optimizer.check() {
        graph.fail("optimizer", message);
    }
    for (param, grad) in pairs {
        if param.desc().dtype == DType::F16 {
            let message =
                "is not trained, as small steps are lost in it: keep the weight in f32, and cast it for products";
            graph.fail("optimizer", format!("{} {} {message}", param.name(), param.desc()));
        } else if param.desc() != grad.desc() {
            graph.fail(
                "optimizer",
                format!("the gradient of {} is {}, not {}", param.name(), grad.desc(), param.desc()),
            );
        }
    }
    // Tables of which few rows have a gradient, where the others then stay as they are.
    let rows = |grad: &Tensor| if RowStep::fits(optimizer) { RowStep::rows(grad) } else { None };
    let (mut tables, mut pairs): (Vec<_>, Vec<_>) = pairs.iter().cloned().partition(|(_, grad)| rows(grad).is_some());
    if tables.iter().any(|(param, _)| pairs.iter().any(|(other, _)| other == param)) {
        pairs.append(&mut tables);
    }
    let tables: Vec<(Param, [Tensor; 2])> =
        tables.into_iter().filter_map(|(param, grad)| Some((param, rows(&grad)?))).collect();
    let grads: Vec<&Tensor> = pairs.iter().map(|(_, grad)| grad).collect();
    let norm = matches!(optimizer.clip, Clip::Norm(_)).then(|| {
        let squares = tables.iter().map(|(_, [values, _])| values.square().sum(&[], false));
        let dense = (!grads.is_empty()).then(|| norm(graph, &grads));
        match (dense, squares.reduce(|a, b| a + b)) {
            (Some(dense), Some(sum)) => (dense.square() + sum).sqrt(),
            (Some(dense), None) => dense,
            (None, sum) => sum.unwrap_or_else(|| graph.full([1], 0.0)).sqrt().reshape([1]),
        }
    });
    let hyper = Param::new("hyper", Role::State, [9], &hyper(optimizer));
    let mut function = function;
    for (table, [values, numbers]) in &tables {
        let step = RowStep::new(optimizer, table, &hyper, norm.is_some());
        let mut inputs = vec![values, numbers];
        inputs.extend(norm.as_ref());
        function = function.update(graph.update(step, &inputs));
    }
    let pieces = pieces(optimizer, &pairs);
    let mut rest = &pieces[..];
    while !rest.is_empty() {
        // As many weights as fit into one binding.
        let mut elements = 0;
        let fits = |piece: &&Piece<'_>| {
            elements += piece.bound;
            elements <= MOST
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        let step = Step::new(optimizer, now, &hyper, norm.is_some());
        let mut inputs: Vec<&Tensor> = now.iter().map(|piece| piece.grad).collect();
        inputs.extend(norm.as_ref());
        function = function.update(graph.update(step, &inputs));
        rest = later;
    }
    let mut settings = vec![("lr", 0), ("eps", 3)];
    // Rows that are not in use could not decay.
    if tables.is_empty() {
        settings.push(("weight_decay", 4));
    }
    if optimizer.clip != Clip::None {
        settings.push(("clip", 5));
    }
    for (name, index) in settings {
        function = function.setting(name, &hyper, index);
    }
    match norm {
        Some(norm) => function.output(&norm),
        None => function,
    }
}

/// A weight or, where its moments do not fit into one binding, a part of it.
struct Piece<'a> {
    param: &'a Param,
    grad: &'a Tensor,
    range: Range<usize>,
    /// Elements of [`MOST`] that it takes: as many as there are gradients or moments.
    bound: usize,
}

fn pieces<'a>(optimizer: &Optimizer, pairs: &'a [(Param, Tensor)]) -> Vec<Piece<'a>> {
    let slots = optimizer.moments().len().max(1);
    let most = MOST / slots / CHUNK * CHUNK;
    let mut pieces = Vec::new();
    for (param, grad) in pairs {
        let elements = param.desc().elements();
        // A part's gradient is bound as a whole.
        let bound = if elements > most { MOST } else { elements.next_multiple_of(64) * slots };
        let ranges = (0..elements.max(1)).step_by(most).map(|start| start..elements.min(start + most));
        pieces.extend(ranges.map(|range| Piece { param, grad, range, bound }));
    }
    pieces
}

fn hyper(o: &Optimizer) -> [f32; 9] {
    let limit = o.clip.limit();
    [o.lr, o.beta1, o.beta2, o.eps, o.weight_decay, limit, o.lr_decay, 1.0 - o.beta1, 1.0 - o.beta2].map(|v| v as f32)
}

/// The norm of all gradients together, f32 `[1]`.
fn norm(graph: &Graph, grads: &[&Tensor]) -> Tensor {
    let total: usize = grads.iter().map(|g| g.elements().next_multiple_of(64)).sum();
    if total <= MOST {
        return graph.push1(Norm, grads);
    }
    let squares = grads.iter().map(|g| g.square().sum(&[], false));
    match squares.reduce(|a, b| a + b) {
        Some(sum) => sum.sqrt().reshape([1]),
        None => graph.full([1], 0.0),
    }
}

/// The Euclidean norm of packed tensors.
#[derive(Debug)]
struct Norm;

impl Op for Norm {
    fn name(&self) -> &'static str {
        "grad_norm"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::f32([1])])
    }

    fn packed(&self, inputs: usize) -> usize {
        inputs
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let mut table = Vec::new();
        for (input, &start) in io.inputs.iter().zip(io.pack) {
            for first in (0..input.elements()).step_by(NORM_CHUNK) {
                table.extend([(start + first) as u32, NORM_CHUNK.min(input.elements() - first) as u32]);
            }
        }
        let chunks = table.len() / 2;
        // Whole workgroups, of 16 sums and more for each invocation where there are as many.
        let parts = 64 * (chunks / 16).clamp(1, 16);
        let kernel = |entry| {
            let kernel = Kernel::new(shader!("norm.wgsl"), entry).set("CHUNKS", chunks).set("PARTS", parts);
            kernel.set("WIDTH", 64u32)
        };
        let kernels = vec![
            kernel("chunk_squares")
                .bind([Arg::Pack, Arg::Table(table.into()), Arg::ScratchOut(0)])
                .grid(caps.fold(chunks)),
            kernel("gather_parts").bind([Arg::ScratchIn(0), Arg::ScratchOut(1)]).grid([parts as u32 / 64, 1, 1]),
            kernel("root").bind([Arg::ScratchIn(1), Arg::Out(0)]),
        ];
        vec![Candidate::new("staged", kernels, vec![chunks * 64 * 4, parts * 4])]
    }
}

/// An optimizer's counters, and its moments of so many weights.
pub(super) fn moments_of(optimizer: &Optimizer, total: usize) -> (Param, Param) {
    let slots = optimizer.moments();
    let initial = vec![optimizer.initial as f32; total * slots.len()];
    let moments = Param::new(slots.join("+"), Role::State, [(total * slots.len()).max(1)], &initial);
    (Param::new_u32("counters", Role::State, [3], &[0; 3]), moments)
}

/// A kernel of `optim.wgsl` for an optimizer with so many weights.
pub(super) fn tuned(o: &Optimizer, entry: &'static str, total: usize) -> Kernel {
    let (mut kind, mut nesterov, mut centered, mut amsgrad) = (0u32, false, false, false);
    let mut momentum = false;
    match o.kind {
        Kind::Sgd { nesterov: n } => (nesterov, momentum) = (n, o.beta1 != 0.0),
        Kind::Adam { decoupled, amsgrad: a } => (kind, amsgrad) = (1 + u32::from(decoupled), a),
        Kind::RmsProp { centered: c } => (kind, centered, momentum) = (3, c, o.beta2 != 0.0),
        Kind::Adagrad => kind = 4,
    }
    let clip: u32 = match o.clip {
        Clip::None => 0,
        Clip::Norm(_) => 1,
        Clip::Value(_) => 2,
    };
    Kernel::new(shader!("optim.wgsl"), entry)
        .set("KIND", kind)
        .set("MOMENTUM", momentum)
        .set("NESTEROV", nesterov)
        .set("CENTERED", centered)
        .set("AMSGRAD", amsgrad)
        .set("CLIP", clip)
        .set("TOTAL", total)
}

/// What fits a kernel to subgroups whose lanes lie abreast, for these rows of a table, all of [`CHUNK`] elements: where an
/// adapter can do it, and they are enough to repay the longer time to compile and no more than a grid has workgroups.
fn abreast(rows: &[[u32; 4]], caps: &Caps) -> Option<impl Fn(Kernel) -> Kernel + use<>> {
    let lanes = caps.subgroup.filter(|_| caps.abreast && (128..=caps.groups as usize).contains(&rows.len()))?;
    let last = rows.iter().flat_map(|row| &row[..3]).max()?;
    let places = 1 + last / LANES as u32;
    (places <= MOST_UNIFORM).then_some(move |kernel: Kernel| kernel.set("SUBGROUP", lanes).set("PLACES", places))
}

/// One step of an optimizer over several weights, or a part of one.
#[derive(Debug)]
struct Step {
    optimizer: Optimizer,
    /// Whether the last input is the gradients' norm.
    clip_norm: bool,
    /// Counters, hyper-parameters, moments; then the weights.
    state: Vec<Param>,
    /// The elements of each weight.
    ranges: Vec<Range<usize>>,
    /// Elements between one kind of moments and the next.
    total: usize,
}

impl Step {
    fn new(optimizer: &Optimizer, pieces: &[Piece<'_>], hyper: &Param, clip_norm: bool) -> Self {
        let total: usize = pieces.iter().map(|piece| piece.range.len().next_multiple_of(LANES)).sum();
        let (counters, moments) = moments_of(optimizer, total);
        let mut state = vec![counters, hyper.clone(), moments];
        state.extend(pieces.iter().map(|piece| piece.param.clone()));
        let ranges = pieces.iter().map(|piece| piece.range.clone()).collect();
        Step { optimizer: optimizer.clone(), clip_norm, state, ranges, total }
    }
}

impl Op for Step {
    fn name(&self) -> &'static str {
        match self.optimizer.kind {
            Kind::Sgd { .. } => "sgd",
            Kind::Adam { decoupled: false, .. } => "adam",
            Kind::Adam { decoupled: true, .. } => "adamw",
            Kind::RmsProp { .. } => "rmsprop",
            Kind::Adagrad => "adagrad",
        }
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(Vec::new())
    }

    fn state(&self) -> Vec<Param> {
        self.state.clone()
    }

    fn packed(&self, inputs: usize) -> usize {
        inputs - usize::from(self.clip_norm)
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        // For each slab, the first weight in it and the rows of its table.
        let mut slabs: HashMap<u64, (usize, Vec<[u32; 4]>)> = HashMap::new();
        let mut order = Vec::new();
        let mut moment = 0;
        for (n, (range, (place, &grad))) in self.ranges.iter().zip(io.state[3..].iter().zip(io.pack)).enumerate() {
            let (_, rows) = slabs.entry(place.slab).or_insert_with(|| {
                order.push(place.slab);
                (3 + n, Vec::new())
            });
            for first in range.clone().step_by(CHUNK) {
                let (moment, length) = (moment + first - range.start, CHUNK.min(range.end - first));
                rows.push([place.offset + first, grad + first, moment, length].map(|v| v as u32));
            }
            moment += range.len().next_multiple_of(LANES);
        }
        // Bindings behind the gradients, by place; `advance` uses only two of them.
        let args = |table: Arg, weight: usize| {
            let mut args = vec![table, Arg::State(1), Arg::State(0), Arg::Slab(weight), Arg::State(2)];
            if self.clip_norm {
                args.push(Arg::In(io.inputs.len() - 1));
            }
            args
        };
        let kernel = |entry| match self.clip_norm {
            true => tuned(&self.optimizer, entry, self.total).replace("gradient_norm", GRADIENT_NORM),
            false => tuned(&self.optimizer, entry, self.total),
        };
        let mut kernels = Vec::new();
        for slab in order {
            let (weight, rows) = &slabs[&slab];
            let (whole, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row[3] as usize == CHUNK);
            let steps = match abreast(&whole, caps) {
                Some(fit) => vec![(fit(kernel("step_abreast")), whole), (kernel("step"), others)],
                None => vec![(kernel("step"), rows.clone())],
            };
            for (step, rows) in steps.into_iter().filter(|(_, rows)| !rows.is_empty()) {
                let table = Arg::Table(rows.as_flattened().into());
                if kernels.is_empty() {
                    kernels.push(kernel("advance").stream(Arg::Pack).bind(args(table.clone(), *weight)));
                }
                let step = step.set("CHUNKS", rows.len()).stream(Arg::Pack).bind(args(table, *weight));
                kernels.push(step.grid(caps.fold(rows.len())));
            }
        }
        vec![Candidate::new("chunks", kernels, Vec::new())]
    }

    fn flops(&self, _inputs: &[Desc], _outputs: &[Desc]) -> u64 {
        12 * self.total as u64
    }
}
