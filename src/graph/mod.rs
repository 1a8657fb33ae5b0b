//! The ground floor: the network as nodes, and the passes over it. Pure data - no device, no files.
//!
//! `Graph` (built by layers or by hand) -> [`grad`] -> [`fuse`] -> [`plan`], which [`choose`]s kernels, -> [`mirror`] ->
//! a [`plan::Plan`], which the `gpu` module plays. Operations are known here only through the [`Op`] trait.

mod abreast;
mod caps;
mod checkpoint;
pub mod choose;
mod desc;
pub mod fuse;
pub mod grad;
mod index;
mod kernel;
mod listing;
pub mod mirror;
mod op;
mod param;
pub mod plan;
mod shake;
mod tensor;
pub mod wgsl;
mod wide;

pub(crate) use abreast::{DIGITS, MOST_UNIFORM, has_table};
pub use caps::Caps;
pub use desc::{DType, Desc, Shape};
pub use kernel::{Arg, Candidate, Const, Kernel, Shader, float};
pub use op::{Backward, Io, Op, Place, Pointwise, View};
pub(crate) use param::Memory;
pub use param::{Param, Role};
pub use tensor::Tensor;

use crate::{Error, Result};
use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node's place in the graph.
    pub node: usize,
    /// Which of its outputs.
    pub output: usize,
}

/// Where a node's outputs come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Written by the host, or bound by the app, before each run.
    Input(String),
    /// Persistent state, as it was before the run.
    Param(Param),
    /// Fixed data.
    Constant(Arc<[u32]>),
    /// Computed.
    Op(Rc<dyn Op>),
}

/// A node of the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// What makes its outputs.
    pub source: Source,
    /// What it reads.
    pub inputs: Vec<Value>,
    /// What it makes.
    pub outputs: Vec<Desc>,
}

impl Node {
    /// The operation, if it is one.
    pub fn op(&self) -> Option<&Rc<dyn Op>> {
        match &self.source {
            Source::Op(op) => Some(op),
            _ => None,
        }
    }

    /// A short name for listings.
    pub fn name(&self) -> String {
        match &self.source {
            Source::Input(name) => name.clone(),
            Source::Param(param) => param.name(),
            Source::Constant(_) => "constant".into(),
            Source::Op(op) => op.name().into(),
        }
    }
}

/// The values that elements of a u32 input may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// From the first to below the last.
    pub range: Range<u32>,
    /// Others.
    pub except: Vec<u32>,
}

impl Allowed {
    /// What is wrong with these words, if anything is.
    pub(crate) fn check(&self, words: &[u32]) -> Result<(), String> {
        let wrong = |word: &u32| !self.range.contains(word) && !self.except.contains(word);
        match words.iter().position(wrong) {
            None => Ok(()),
            Some(at) if self.range.start == 0 => {
                Err(format!("element {at} is {}, but must be below {}", words[at], self.range.end))
            }
            Some(at) => {
                let (first, last) = (self.range.start, self.range.end.saturating_sub(1));
                Err(format!("element {at} is {}, but must be from {first} to {last}", words[at]))
            }
        }
    }
}

pub(crate) struct Inner {
    pub(crate) id: u64,
    pub(crate) nodes: Vec<Node>,
    /// What label-like inputs may hold, which is checked when they are written.
    pub(crate) bounds: HashMap<usize, Allowed>,
    /// The first mistake: op, message, site.
    error: Option<[String; 3]>,
    known: HashMap<String, usize>,
    random: Option<(Param, Value)>,
    /// Updates that go with a node: a function that needs it performs them.
    upkeep: Vec<(usize, Update)>,
    salt: u32,
    training: bool,
    /// Whether it holds operations from outside of this crate.
    custom: bool,
}

/// A network under construction: nodes with static shapes, in the order in which they were made.
///
/// Building never fails and never panics: the first mistake is kept, with the caller's file and line, and
/// comes back from [`Graph::error`] and from `Gpu::compile`.
#[derive(Clone)]
pub struct Graph(Rc<RefCell<Inner>>);

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Graph(Rc::new(RefCell::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            nodes: Vec::new(),
            bounds: HashMap::new(),
            error: None,
            known: HashMap::new(),
            random: None,
            upkeep: Vec::new(),
            salt: 0,
            training: true,
            custom: false,
        })))
    }

    /// An empty graph for using a network rather than training it: layers such as dropout do nothing.
    pub fn inference() -> Self {
        let graph = Graph::new();
        graph.0.borrow_mut().training = false;
        graph
    }

    /// Whether layers shall behave as in training.
    pub fn is_training(&self) -> bool {
        self.inner().training
    }

    pub(crate) fn inner(&self) -> Ref<'_, Inner> {
        self.0.borrow()
    }

    /// A number that no other graph of this process has.
    pub fn id(&self) -> u64 {
        self.inner().id
    }

    fn add(&self, source: Source, inputs: Vec<Value>, outputs: Vec<Desc>) -> usize {
        let mut inner = self.0.borrow_mut();
        inner.nodes.push(Node { source, inputs, outputs });
        inner.nodes.len() - 1
    }

    #[track_caller]
    fn leaf(&self, source: Source, desc: Desc) -> Tensor {
        if let Err(message) = desc.check() {
            let name = Node { source, inputs: Vec::new(), outputs: Vec::new() }.name();
            return self.poison(&name, message);
        }
        let node = self.add(source, Vec::new(), vec![desc.clone()]);
        Tensor::new(self.clone(), Value { node, output: 0 }, desc)
    }

    /// An f32 tensor that is written before each run.
    #[track_caller]
    pub fn input(&self, shape: impl Into<Shape>) -> Tensor {
        self.input_of(Desc::f32(shape))
    }

    /// A u32 tensor (labels, indices) that is written before each run.
    #[track_caller]
    pub fn input_u32(&self, shape: impl Into<Shape>) -> Tensor {
        self.input_of(Desc::new(shape, DType::U32))
    }

    /// An f16 tensor that is written before each run, as f32 values that are rounded.
    #[track_caller]
    pub fn input_f16(&self, shape: impl Into<Shape>) -> Tensor {
        self.input_of(Desc::new(shape, DType::F16))
    }

    /// A tensor of any type that is written before each run.
    #[track_caller]
    pub fn input_of(&self, desc: Desc) -> Tensor {
        let name = format!("input{}", self.inner().nodes.len());
        self.leaf(Source::Input(name), desc)
    }

    /// Persistent state as a tensor: its values before the run's updates; as an output, after them. The same parameter gives
    /// the same node.
    #[track_caller]
    pub fn param(&self, param: &Param) -> Tensor {
        let known =
            self.inner().nodes.iter().position(|node| matches!(&node.source, Source::Param(other) if other == param));
        match known {
            Some(node) => Tensor::new(self.clone(), Value { node, output: 0 }, param.desc().clone()),
            None => self.leaf(Source::Param(param.clone()), param.desc().clone()),
        }
    }

    /// Fixed f32 data.
    #[track_caller]
    pub fn constant(&self, shape: impl Into<Shape>, values: &[f32]) -> Tensor {
        self.words(Desc::f32(shape), values.iter().map(|v| v.to_bits()).collect())
    }

    /// Fixed u32 data.
    #[track_caller]
    pub fn constant_u32(&self, shape: impl Into<Shape>, values: &[u32]) -> Tensor {
        self.words(Desc::new(shape, DType::U32), values.into())
    }

    #[track_caller]
    fn words(&self, desc: Desc, words: Arc<[u32]>) -> Tensor {
        if desc.check().is_ok() && words.len() != desc.words() {
            self.fail("constant", format!("{} values were given for the shape {}", words.len(), desc.shape));
        }
        self.leaf(Source::Constant(words), desc)
    }

    /// The state of the graph's random numbers, u32 `[2]`: seed and step. A program that uses it counts the step up
    /// at its end, so that every run draws anew.
    pub fn random(&self) -> Tensor {
        if let Some((_, value)) = &self.inner().random {
            return Tensor::new(self.clone(), *value, Desc::new([2], DType::U32));
        }
        let param = Param::new_u32("random", Role::State, [2], &[0, 0]);
        let tensor = self.param(&param);
        self.0.borrow_mut().random = Some((param, tensor.value()));
        tensor
    }

    /// A number for one random node, so that two nodes of one step draw different numbers.
    pub(crate) fn salt(&self) -> u32 {
        let mut inner = self.0.borrow_mut();
        inner.salt += 1;
        inner.salt
    }

    pub(crate) fn random_state(&self) -> Option<Param> {
        self.inner().random.as_ref().map(|(param, _)| param.clone())
    }

    /// Declares that the elements of the u32 input behind `tensor` must lie in `range` (or be one of `except`); writes
    /// check it.
    pub(crate) fn bound(&self, tensor: &Tensor, range: Range<u32>, except: &[u32]) {
        if tensor.graph().id() != self.id() {
            return;
        }
        let mut inner = self.0.borrow_mut();
        let Value { mut node, mut output } = tensor.value();
        while let (Source::Op(op), Some(input)) = (&inner.nodes[node].source, inner.nodes[node].inputs.get(output)) {
            if !op.alias() {
                return;
            }
            Value { node, output } = *input;
        }
        if matches!(inner.nodes[node].source, Source::Input(_)) {
            let known =
                inner.bounds.entry(node).or_insert_with(|| Allowed { range: range.clone(), except: except.into() });
            known.range = known.range.start.max(range.start)..known.range.end.min(range.end);
        }
    }

    /// Remembers the first mistake.
    #[track_caller]
    pub(crate) fn fail(&self, op: &str, message: impl Into<String>) {
        let site = Location::caller();
        let mut inner = self.0.borrow_mut();
        if inner.error.is_none() {
            inner.error = Some([op.into(), message.into(), format!("{}:{}", site.file(), site.line())]);
        }
    }

    /// What `build` gives; a mistake in it is one in the part of that name, made at the caller's line.
    #[track_caller]
    pub(crate) fn part<T>(&self, name: &str, build: impl FnOnce() -> T) -> T {
        let before = self.failed();
        let built = build();
        if let (false, Some([_, message, site])) = (before, &mut self.0.borrow_mut().error) {
            let caller = Location::caller();
            *message = format!("{name}: {message}");
            *site = format!("{}:{}", caller.file(), caller.line());
        }
        built
    }

    /// A tensor that stands for a failed operation; a graph with one never compiles.
    #[track_caller]
    pub(crate) fn poison(&self, op: &str, message: impl Into<String>) -> Tensor {
        self.fail(op, message);
        self.leaf(Source::Constant([0].into()), Desc::f32([]))
    }

    /// The first mistake made while building, if there was one.
    pub fn error(&self) -> Result<()> {
        match self.inner().error.clone() {
            Some([op, message, site]) => Err(Error::Graph { op, message, site }),
            None => Ok(()),
        }
    }

    /// Whether a mistake was made.
    pub fn failed(&self) -> bool {
        self.inner().error.is_some()
    }

    /// Adds an operation of your own; gives its outputs. Equal operations on equal inputs become one node.
    ///
    /// The crate's own shaders run without wgpu's run-time checks, as their operations are known to give them memory of the
    /// right size. What another operation says of itself nobody has tested, so all shaders of a program with one keep them.
    #[track_caller]
    pub fn custom(&self, op: impl Op + 'static, inputs: &[&Tensor]) -> Vec<Tensor> {
        self.0.borrow_mut().custom = true;
        self.push(op, inputs)
    }

    /// [`Graph::custom`] for an operation that changes state in place; it takes effect when it is in a [`Function`].
    #[track_caller]
    pub fn custom_update(&self, op: impl Op + 'static, inputs: &[&Tensor]) -> Update {
        self.0.borrow_mut().custom = true;
        self.update(op, inputs)
    }

    /// Adds an operation; gives its outputs. Equal operations on equal inputs become one node.
    #[track_caller]
    pub(crate) fn push(&self, op: impl Op + 'static, inputs: &[&Tensor]) -> Vec<Tensor> {
        let descs: Vec<Desc> = inputs.iter().map(|t| t.desc().clone()).collect();
        self.own(op.name(), inputs.iter().copied());
        if self.failed() {
            return vec![self.poison(op.name(), "")];
        }
        let sized = |outputs: Vec<Desc>| outputs.iter().try_for_each(Desc::check).map(|()| outputs);
        let outputs = match halves(&op, &descs).and_then(|()| op.outputs(&descs)).and_then(sized) {
            Ok(outputs) => outputs,
            Err(message) => return vec![self.poison(op.name(), message)],
        };
        let values: Vec<Value> = inputs.iter().map(|t| t.value()).collect();
        let key = op.state().is_empty().then(|| format!("{op:?}{values:?}"));
        let known = key.as_ref().and_then(|key| self.inner().known.get(key).copied());
        let node = known.unwrap_or_else(|| self.add(Source::Op(Rc::new(op)), values, outputs.clone()));
        if let Some(key) = key {
            self.0.borrow_mut().known.insert(key, node);
        }
        let tensor = |(output, desc)| Tensor::new(self.clone(), Value { node, output }, desc);
        outputs.into_iter().enumerate().map(tensor).collect()
    }

    /// Refuses tensors of other graphs.
    #[track_caller]
    pub(crate) fn own<'a>(&self, op: &str, tensors: impl IntoIterator<Item = &'a Tensor>) {
        if tensors.into_iter().any(|t| t.graph().id() != self.id()) {
            self.fail(op, "its tensors belong to different graphs");
        }
    }

    /// [`Graph::push`] for an operation with one output.
    #[track_caller]
    pub(crate) fn push1(&self, op: impl Op + 'static, inputs: &[&Tensor]) -> Tensor {
        let name = op.name();
        match self.push(op, inputs).into_iter().next() {
            Some(tensor) => tensor,
            None => self.poison(name, "it has no output"),
        }
    }

    /// Adds an operation that changes state in place; it takes effect when it is in a [`Function`].
    #[track_caller]
    pub(crate) fn update(&self, op: impl Op + 'static, inputs: &[&Tensor]) -> Update {
        let descs: Vec<Desc> = inputs.iter().map(|t| t.desc().clone()).collect();
        let values = inputs.iter().map(|t| t.value()).collect();
        self.own(op.name(), inputs.iter().copied());
        if let Err(message) = halves(&op, &descs).and_then(|()| op.outputs(&descs)) {
            self.fail(op.name(), message);
        }
        Update(self.add(Source::Op(Rc::new(op)), values, Vec::new()), self.id())
    }

    /// The values of `tensor`; every function that needs what this returns performs the updates, too: for statistics that
    /// a layer keeps.
    #[track_caller]
    pub fn upkeep(&self, tensor: &Tensor, updates: impl IntoIterator<Item = Update>) -> Tensor {
        let updates: Vec<Update> = updates.into_iter().collect();
        if updates.iter().any(|update| update.1 != self.id()) {
            return self.poison("upkeep", "its updates belong to different graphs");
        }
        // A node of its own, as the layer's is not the only one that may compute these values.
        let number = updates.first().map_or(0, |update| update.0);
        let kept = self.push1(checkpoint::Again("kept", number), &[tensor]);
        let node = kept.value().node;
        self.0.borrow_mut().upkeep.extend(updates.into_iter().map(|update| (node, update)));
        kept
    }

    /// What a program shall compute: these outputs.
    #[track_caller]
    pub fn function<'a>(&self, outputs: impl IntoIterator<Item = &'a Tensor>) -> Function {
        let outputs: Vec<Tensor> = outputs.into_iter().cloned().collect();
        self.own("function", &outputs);
        Function { graph: self.clone(), outputs, updates: Vec::new(), settings: Vec::new() }
    }
}

/// Refuses f16 inputs of an op that does not read them.
fn halves(op: &impl Op, inputs: &[Desc]) -> Result<(), String> {
    let read = |input: &Desc| op.halves() || op.alias() || op.view(input).is_some();
    match inputs.iter().find(|input| input.dtype == DType::F16 && !read(input)) {
        Some(input) => Err(format!("it does not read {input}; give it cast(DType::F32) of that")),
        None => Ok(()),
    }
}

/// A node that changes state, as [`Graph::assign`] gives it: its place, and the graph's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update(pub(crate) usize, u64);

/// What to compile: outputs, and state updates that take place after every read of the old state.
#[derive(Clone)]
pub struct Function {
    pub(crate) graph: Graph,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) updates: Vec<Update>,
    pub(crate) settings: Vec<(String, Param, usize)>,
}

impl Function {
    /// The outputs, in order; what an optimizer adds (the norm of the gradients) stands last.
    pub fn outputs(&self) -> &[Tensor] {
        &self.outputs
    }

    /// The first mistake made while its graph was built, if there was one; `compile` gives it, too.
    ///
    /// # Errors
    /// [`Error::Graph`].
    pub fn check(&self) -> Result<()> {
        self.graph.error()
    }

    /// The nodes that it needs.
    pub(crate) fn nodes(&self) -> Vec<usize> {
        let inner = self.graph.inner();
        let mut seen = vec![false; inner.nodes.len()];
        let mut stack: Vec<usize> = self.outputs.iter().map(|t| t.value().node).collect();
        stack.extend(self.updates.iter().map(|u| u.0));
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut seen[id], true) {
                stack.extend(inner.nodes[id].inputs.iter().map(|v| v.node));
            }
        }
        (0..seen.len()).filter(|&id| seen[id]).collect()
    }

    /// With the updates that go with its nodes ([`Graph::upkeep`]), and with those that go with theirs.
    pub(crate) fn kept_up(&self) -> Function {
        let mut function = self.clone();
        loop {
            let (nodes, known) = (function.nodes(), function.updates.len());
            let inner = self.graph.inner();
            let new =
                inner.upkeep.iter().filter(|(node, update)| nodes.contains(node) && !function.updates.contains(update));
            let new: Vec<Update> = new.map(|(_, update)| *update).collect();
            function.updates.extend(new);
            if function.updates.len() == known {
                return function;
            }
        }
    }

    /// Adds an output.
    #[track_caller]
    pub fn output(mut self, tensor: &Tensor) -> Self {
        self.graph.own("output", [tensor]);
        self.outputs.push(tensor.clone());
        self
    }

    /// Adds an update.
    #[track_caller]
    pub fn update(mut self, update: Update) -> Self {
        match update.1 == self.graph.id() {
            true => self.updates.push(update),
            false => self.graph.fail("update", "the update and the function belong to different graphs"),
        }
        self
    }

    /// Names a hyper-parameter: element `index` of `param`, to be set between runs. Several of one name are set together.
    #[track_caller]
    pub fn setting(mut self, name: impl Into<String>, param: &Param, index: usize) -> Self {
        let name = name.into();
        if param.desc().dtype == DType::F32 && index < param.desc().elements() {
            self.settings.push((name, param.clone(), index));
        } else {
            let message =
                format!("{name} is to be element {index} of the f32 parameter {} {}", param.name(), param.desc());
            self.graph.fail("setting", message);
        }
        self
    }
}
