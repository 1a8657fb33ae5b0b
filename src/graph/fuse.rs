//! The fusion pass: which nodes become one kernel.
//!
//! Pointwise nodes join the node that reads them when all their readers are in one kernel; what is left of such a
//! group is one expression with several operands. If one operand comes from an op with an epilogue (a product, a
//! convolution, a pooling...) and nothing else reads it, the expression becomes that op's epilogue. Reshapes cost
//! nothing, and rearrangements and broadcasts become the index rule by which an operand is read.

use super::{DType, Function, Node, Shape, Source, Value, View};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Nodes that are computed together, by one op's kernels.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The op whose kernels run; for a pointwise group its last node.
    pub node: usize,
    /// The expression: all there is for a pointwise group, the epilogue of another op.
    pub expr: Option<Expr>,
    /// Whether the unit is a pointwise group.
    pub pointwise: bool,
    /// What the op reads, resolved through reshapes.
    pub inputs: Vec<Value>,
    /// The rearrangements that it reads them through.
    pub views: Vec<Option<View>>,
    /// What the unit makes; the first is the result of the expression where there is one.
    pub outputs: Vec<Value>,
    /// Names of the nodes in it, for listings.
    pub label: String,
}

/// A fused expression over the flat index `i` of the output element.
#[derive(Clone, Debug)]
pub struct Expr {
    /// `let` statements; operands are `e0`, `e1`..., the op's own result is `v`.
    pub lines: Vec<String>,
    /// The expression of the result.
    pub result: String,
    /// What is read beside `v`.
    pub operands: Vec<Operand>,
    /// The result's type.
    pub dtype: DType,
}

/// An operand of an [`Expr`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// The tensor that is read.
    pub value: Value,
    /// From the output's index to the tensor's, one rule after the other; none reads element `i`.
    pub path: Vec<View>,
    /// Its type.
    pub dtype: DType,
}

/// The units of a function, in an order in which they can run, and for every value the one that holds its data.
pub struct Fused {
    /// What runs.
    pub units: Vec<Unit>,
    /// The function's outputs, resolved through reshapes.
    pub outputs: Vec<Value>,
}

/// Fuses the nodes that `function` needs, for kernels that may bind `bindings` buffers.
pub fn fuse(function: &Function, bindings: usize) -> Fused {
    let inner = function.graph.inner();
    let outputs: Vec<Value> = function.outputs.iter().map(|t| t.value()).collect();
    let updates: Vec<usize> = function.updates.iter().map(|u| u.0).collect();
    let mut fuser = Fuser::new(&inner.nodes, &outputs, &updates);
    loop {
        fuser.group();
        let units = fuser.units(&outputs, &updates);
        match fuser.overfull(&units, bindings) {
            None => {
                let outputs = outputs.iter().map(|&v| fuser.resolve(v)).collect();
                return Fused { units, outputs };
            }
            Some(cut) => fuser.cut(cut),
        }
    }
}

/// How one node reads another.
#[derive(Clone, Copy)]
struct Reader {
    node: usize,
    /// Element `i` of the reader's output needs just element `i`.
    direct: bool,
}

struct Fuser<'a> {
    nodes: &'a [Node],
    reached: Vec<usize>,
    readers: HashMap<Value, Vec<Reader>>,
    outputs: HashSet<Value>,
    updates: HashSet<usize>,
    /// The last node of the group that a pointwise node is in.
    sink: HashMap<usize, usize>,
    /// The op whose epilogue a group is.
    anchor: HashMap<usize, usize>,
    /// Nodes that must stand alone, and groups that must not be an epilogue.
    cuts: HashSet<usize>,
    plain: HashSet<usize>,
}

/// What to give up where a kernel would bind too many buffers.
enum Cut {
    Node(usize),
    Epilogue(usize),
}

impl<'a> Fuser<'a> {
    fn new(nodes: &'a [Node], outputs: &[Value], updates: &[usize]) -> Self {
        let mut fuser = Fuser {
            nodes,
            reached: Vec::new(),
            readers: HashMap::new(),
            outputs: HashSet::new(),
            updates: updates.iter().copied().collect(),
            sink: HashMap::new(),
            anchor: HashMap::new(),
            cuts: HashSet::new(),
            plain: HashSet::new(),
        };
        fuser.outputs = outputs.iter().map(|&v| fuser.resolve(v)).collect();
        let mut stack: Vec<usize> = outputs.iter().map(|v| v.node).chain(updates.iter().copied()).collect();
        let mut seen = BTreeSet::new();
        while let Some(node) = stack.pop() {
            if seen.insert(node) {
                stack.extend(nodes[node].inputs.iter().map(|v| v.node));
            }
        }
        fuser.reached = seen.into_iter().collect();
        for &id in &fuser.reached {
            if fuser.is_alias(id) {
                continue;
            }
            let node = &nodes[id];
            for &input in &node.inputs {
                let same = node.outputs.first().is_some_and(|o| o.shape == fuser.shape(input));
                let direct = same && fuser.is_pointwise(id);
                fuser.readers.entry(fuser.resolve(input)).or_default().push(Reader { node: id, direct });
            }
        }
        fuser
    }

    fn shape(&self, value: Value) -> Shape {
        self.nodes[value.node].outputs[value.output].shape.clone()
    }

    fn is_alias(&self, node: usize) -> bool {
        self.nodes[node].op().is_some_and(|op| op.alias())
    }

    fn is_pointwise(&self, node: usize) -> bool {
        self.nodes[node].op().is_some_and(|op| op.pointwise().is_some())
    }

    fn view(&self, node: usize) -> Option<View> {
        let op = self.nodes[node].op()?;
        let input = self.nodes[node].inputs.first()?;
        op.view(&self.nodes[input.node].outputs[input.output])
    }

    /// The literal that a node stands for: the same everywhere. A node whose operands are all literals (through reshapes and
    /// rearrangements) is one, too, unless its text becomes long.
    fn literal(&self, node: usize) -> Option<String> {
        const LONG: usize = 200;
        let mut expr = self.nodes[node].op()?.pointwise()?.0;
        if expr.contains("{i}") {
            return None;
        }
        for (n, &input) in self.nodes[node].inputs.iter().enumerate() {
            let mut value = self.resolve(input);
            while self.view(value.node).is_some() {
                value = self.resolve(self.nodes[value.node].inputs[0]);
            }
            let mut operand = self.literal(value.node)?;
            // A compiler may refuse what it finds to be infinite or NaN.
            if self.nodes[value.node].inputs.is_empty() && self.nodes[value.node].outputs[0].dtype == DType::F32 {
                operand = format!("opaque({operand})");
            }
            expr = expr.replace(&format!("{{{n}}}"), &operand);
        }
        (expr.len() <= LONG).then_some(expr)
    }

    /// The value whose memory holds `value`: through reshapes.
    fn resolve(&self, mut value: Value) -> Value {
        while self.is_alias(value.node) {
            value = self.nodes[value.node].inputs[value.output];
        }
        value
    }

    /// Decides for each pointwise node which group it is in, and for each group whether it is an epilogue.
    fn group(&mut self) {
        self.sink.clear();
        self.anchor.clear();
        for &id in self.reached.iter().rev() {
            if self.is_pointwise(id) {
                let joined =
                    (!self.cuts.contains(&id)).then(|| self.common_sink(Value { node: id, output: 0 })).flatten();
                self.sink.insert(id, joined.unwrap_or(id));
            }
        }
        for &id in &self.reached {
            if self.is_pointwise(id) || !self.nodes[id].op().is_some_and(|op| op.epilogue()) {
                continue;
            }
            let Some(sink) = self.common_sink(Value { node: id, output: 0 }) else { continue };
            if self.nodes[sink].outputs[0].dtype != DType::F32 {
                continue;
            }
            let others_later = (1..self.nodes[id].outputs.len()).all(|output| {
                let readers = self.readers.get(&Value { node: id, output });
                readers.into_iter().flatten().all(|reader| reader.node > sink)
            });
            if others_later && !self.plain.contains(&sink) {
                self.anchor.insert(sink, id);
            }
        }
    }

    /// The group that all readers of a value are in, if they read it element by element and nobody else wants it.
    fn common_sink(&self, value: Value) -> Option<usize> {
        if self.outputs.contains(&value) {
            return None;
        }
        let readers = self.readers.get(&value)?;
        let sink = *self.sink.get(&readers.first()?.node)?;
        readers.iter().all(|r| r.direct && self.sink.get(&r.node) == Some(&sink)).then_some(sink)
    }

    /// The units that the outputs and updates need.
    fn units(&self, outputs: &[Value], updates: &[usize]) -> Vec<Unit> {
        let mut units: BTreeMap<usize, Unit> = BTreeMap::new();
        let anchored: HashMap<usize, usize> = self.anchor.iter().map(|(&sink, &anchor)| (anchor, sink)).collect();
        let mut wanted: Vec<usize> =
            outputs.iter().map(|&v| self.resolve(v).node).chain(updates.iter().copied()).collect();
        while let Some(node) = wanted.pop() {
            let node = anchored.get(&node).copied().unwrap_or(node);
            if units.contains_key(&node) || self.nodes[node].op().is_none() {
                continue;
            }
            let unit = self.unit(node);
            wanted.extend(unit.inputs.iter().map(|v| v.node));
            wanted.extend(unit.expr.iter().flat_map(|e| &e.operands).map(|o| o.value.node));
            units.insert(node, unit);
        }
        // State changes after everything that reads the old state.
        let (updates, mut ordered): (Vec<_>, Vec<_>) =
            units.into_iter().partition(|(node, _)| self.updates.contains(node));
        ordered.extend(updates);
        ordered.into_iter().map(|(_, unit)| unit).collect()
    }

    fn unit(&self, node: usize) -> Unit {
        let first = Value { node, output: 0 };
        if !self.is_pointwise(node) && self.view(node).is_none() {
            return self.op_unit(node);
        }
        let anchor = self.anchor.get(&node).copied();
        let mut emit = Emit {
            fuser: self,
            sink: node,
            anchor,
            names: HashMap::new(),
            labels: Vec::new(),
            expr: Expr::new(DType::F32),
        };
        let result = if self.is_pointwise(node) { emit.value(first) } else { emit.read(first, Vec::new()) };
        emit.expr.result = result;
        emit.expr.dtype = self.nodes[node].outputs[0].dtype;
        let (mut labels, expr) = (emit.labels, emit.expr);
        let mut unit = match anchor {
            Some(anchor) => self.op_unit(anchor),
            None => Unit {
                node,
                expr: None,
                pointwise: true,
                inputs: vec![],
                views: vec![],
                outputs: vec![],
                label: String::new(),
            },
        };
        if anchor.is_some() {
            labels.insert(0, unit.label);
            unit.outputs[0] = first;
        } else {
            unit.outputs = vec![first];
        }
        if labels.is_empty() {
            labels.push(self.nodes[node].name());
        }
        unit.label = labels.join("+");
        unit.expr = Some(expr);
        unit
    }

    fn op_unit(&self, id: usize) -> Unit {
        let node = &self.nodes[id];
        let read = |(n, &value): (usize, &Value)| {
            let shape = self.shape(value);
            let (mut value, mut path) = (self.resolve(value), None);
            while let Some(below) = self.view(value.node) {
                let so_far = path.clone().unwrap_or_else(|| View::broadcast(&shape, &shape));
                let Some(longer) = so_far.behind(&below).filter(|v| node.op().is_some_and(|op| op.reads(n, v))) else {
                    break;
                };
                (value, path) = (self.resolve(self.nodes[value.node].inputs[0]), Some(longer));
            }
            (value, path)
        };
        let (inputs, views) = node.inputs.iter().enumerate().map(read).unzip();
        Unit {
            node: id,
            expr: None,
            pointwise: false,
            inputs,
            views,
            outputs: (0..node.outputs.len()).map(|output| Value { node: id, output }).collect(),
            label: node.name(),
        }
    }

    /// The first group that would bind more buffers than allowed, and what to give up for it.
    fn overfull(&self, units: &[Unit], bindings: usize) -> Option<Cut> {
        units.iter().find_map(|unit| {
            let operands = unit.expr.as_ref()?.operands.iter().map(|o| o.value).collect::<HashSet<_>>().len();
            let own = unit.inputs.len() + unit.outputs.len();
            if operands + own <= bindings {
                return None;
            }
            if !unit.pointwise {
                return Some(Cut::Epilogue(unit.outputs[0].node));
            }
            let mut members: Vec<usize> =
                self.sink.iter().filter(|(n, s)| **s == unit.node && *n != *s).map(|(n, _)| *n).collect();
            members.sort_unstable();
            members.get(members.len() / 2).map(|&node| Cut::Node(node))
        })
    }

    fn cut(&mut self, cut: Cut) {
        match cut {
            Cut::Node(node) => self.cuts.insert(node),
            Cut::Epilogue(sink) => self.plain.insert(sink),
        };
    }
}

impl Expr {
    fn new(dtype: DType) -> Self {
        Expr { lines: Vec::new(), result: String::new(), operands: Vec::new(), dtype }
    }
}

/// Writes a group down as statements.
struct Emit<'f, 'a> {
    fuser: &'f Fuser<'a>,
    sink: usize,
    anchor: Option<usize>,
    names: HashMap<Value, String>,
    labels: Vec<String>,
    expr: Expr,
}

impl Emit<'_, '_> {
    /// The name of a value at the output's own index.
    fn value(&mut self, value: Value) -> String {
        let value = self.fuser.resolve(value);
        if let Some(name) = self.names.get(&value) {
            return name.clone();
        }
        if self.anchor == Some(value.node) && value.output == 0 {
            return "v".into();
        }
        if self.fuser.sink.get(&value.node) != Some(&self.sink) || self.fuser.literal(value.node).is_some() {
            return self.read(value, Vec::new());
        }
        let node = &self.fuser.nodes[value.node];
        let Source::Op(op) = &node.source else { return self.read(value, Vec::new()) };
        let Some(pointwise) = op.pointwise() else { return self.read(value, Vec::new()) };
        let mut text = pointwise.0.replace("{i}", "i");
        for (n, &input) in node.inputs.iter().enumerate() {
            let shape = self.fuser.shape(input);
            let name = if shape == node.outputs[0].shape {
                self.value(input)
            } else {
                self.read(input, vec![View::broadcast(&shape, &node.outputs[0].shape)])
            };
            text = text.replace(&format!("{{{n}}}"), &name);
        }
        let name = format!("t{}", value.node);
        self.expr.lines.push(format!("let {name} = {text};"));
        self.labels.push(op.name().into());
        self.names.insert(value, name.clone());
        name
    }

    /// The name of a value read from memory, through reshapes and rearrangements.
    fn read(&mut self, mut value: Value, mut path: Vec<View>) -> String {
        loop {
            value = self.fuser.resolve(value);
            if let Some(literal) = self.fuser.literal(value.node) {
                return literal;
            }
            match self.fuser.view(value.node) {
                Some(view) => {
                    path.push(view);
                    value = self.fuser.nodes[value.node].inputs[0];
                }
                None => break,
            }
        }
        path.retain(|view| !view.is_identity());
        let dtype = self.fuser.nodes[value.node].outputs[value.output].dtype;
        let operand = Operand { value, path, dtype };
        let place = self.expr.operands.iter().position(|o| *o == operand).unwrap_or_else(|| {
            self.expr.operands.push(operand);
            self.expr.operands.len() - 1
        });
        format!("e{place}")
    }
}
