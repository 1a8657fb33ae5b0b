//! Code for fused pointwise expressions: kernels of their own, and epilogues of other kernels.

use crate::graph::fuse::{Expr, Operand, Unit};
use crate::graph::{Arg, Candidate, Caps, DType, Desc, Kernel, MOST_UNIFORM, Value, View};
use crate::shader;
use std::fmt::Write;

/// The kernel of a pointwise unit.
pub(crate) fn lower(unit: &Unit, desc: &Desc, caps: &Caps) -> Candidate {
    match &unit.expr {
        Some(expr) => {
            let kernel = kernel(expr, desc, caps);
            Candidate::single(kernel.entry, kernel)
        }
        None => copy(desc, caps),
    }
}

/// A plain copy from input 0 to output 0.
pub(crate) fn copy(desc: &Desc, caps: &Caps) -> Candidate {
    let value = Value { node: 0, output: 0 };
    let operand = Operand { value, path: Vec::new(), dtype: desc.dtype };
    let expr = Expr { lines: Vec::new(), result: "e0".into(), operands: vec![operand], dtype: desc.dtype };
    Candidate::single("copy", kernel(&expr, desc, caps))
}

fn kernel(expr: &Expr, desc: &Desc, caps: &Caps) -> Kernel {
    let mut bindings = Bindings::new(expr, 0, 1);
    let turned = expr.operands.iter().enumerate().find_map(|(n, operand)| Some((n, Turned::of(operand)?)));
    let turned = turned.filter(|(n, _)| bindings.alone(*n));
    let pairs = caps.wide && turned.is_none() && desc.elements().is_multiple_of(8) && expr.dtype != DType::F16;
    let large = caps.abreast && expr.dtype == DType::F32 && desc.elements() >= ABREAST_FROM;
    let abreast = caps.subgroup.filter(|&lanes| match &turned {
        Some((_, turned)) => large && turned.has_tile(lanes as usize),
        None => large && pairs,
    });
    let turns = turns(desc.elements(), abreast.is_some());
    // The operands that `value4` is given.
    let given: Vec<usize> = match &turned {
        Some((n, _)) => vec![*n],
        None if pairs => (0..expr.operands.len()).filter(|&n| bindings.is_pairs(expr, n, abreast.is_some())).collect(),
        None => Vec::new(),
    };
    let (entry, name, replaced) = match &turned {
        Some(_) if abreast.is_some() => ("transpose_abreast", "value4_of_turned", "value4_of_turned"),
        Some(_) => ("transpose", "value4_of_turned", "value4_of_turned"),
        None if abreast.is_some() => ("pairs_abreast", "value4_of_pair", "pair"),
        None if pairs => ("pairs", "value4_of_pair", "pair"),
        None => ("pointwise", "value4", "value4"),
    };
    let mut body = bindings.value4(name, expr, desc.elements(), &given);
    if pairs {
        body += &bindings.pair(&given);
    }
    let element = expr.dtype.wgsl();
    let mut kernel = Kernel::new(shader!("pointwise.wgsl"), entry)
        .replace("Element", format!("alias Element = {element};"))
        .replace("Pair", format!("alias Pair = array<vec4<{element}>, 2>;"))
        .replace(replaced, bindings.declarations(if pairs { &given } else { &[] }) + &body)
        .moves(expr.lines.is_empty())
        .bind([Arg::Out(0)]);
    for (arg, (slot, ..)) in bindings.args.iter().zip(&bindings.types) {
        let mut readers = expr.operands.iter().zip(&bindings.slots).filter(|(_, of)| *of == slot);
        let is_turned = turned.as_ref().is_some_and(|(n, _)| bindings.slots[*n] == *slot);
        let streams = readers.all(|(operand, _)| (is_turned || four(operand) == Four::Vector) && !operand.repeats());
        kernel = if streams { kernel.stream(arg.clone()) } else { kernel.bind([arg.clone()]) };
    }
    if expr.dtype == DType::F16 {
        kernel = kernel.choose("store", "store_halves");
    }
    if let Some(lanes) = abreast {
        kernel = kernel.set("SUBGROUP", lanes);
    }
    if pairs {
        kernel = kernel
            .set("TURNS", turns)
            .replace("Given", format!("alias Given = array<array<vec4<f32>, 2>, {}>;", given.len().max(1)))
            .replace("given", bindings.given(expr, &given, desc.elements() / 8, abreast.is_some()));
    }
    match turned {
        None => {
            let (elements, group) = if pairs { (8, 256 * turns) } else { (4, 64) };
            let count = desc.elements().div_ceil(elements);
            kernel.set("COUNT", count).grid(caps.fold(count.div_ceil(group)))
        }
        Some((n, turned)) => {
            let Operand { dtype, .. } = expr.operands[n];
            let read = |name, q| {
                let four = load_four(bindings.slots[n], dtype, q);
                format!("fn {name}(p: u32) -> vec4<Turned> {{\n    return {four};\n}}")
            };
            let origin = expr.operands[n].place("first(o)");
            let own = "abreast((p + own_lane % DOWN * 4u) / 4u + own_lane / DOWN * FROM)";
            turned
                .set(kernel, abreast, caps)
                .replace("Turned", format!("alias Turned = {};", dtype.wgsl()))
                .replace("origin", format!("fn origin(o: u32) -> u32 {{\n    return {origin};\n}}"))
                .replace("turned", read("turned", "p / 4u"))
                .replace("turned_abreast", read("turned_abreast", own))
        }
    }
}

/// Elements from which subgroups move their pairs abreast: fewer would not repay the 20 to 90 ms that it takes longer to
/// compile.
const ABREAST_FROM: usize = 1 << 19;

/// Lanes below each other, of a subgroup whose lanes lie abreast, in a transposition: with four rows each, as many rows as
/// there are elements in a line of a CPU's cache.
const DOWN: usize = 4;

/// Rows and columns that such a subgroup transposes.
fn tile(lanes: usize) -> [usize; 2] {
    [4 * DOWN, 4 * (lanes / DOWN)]
}

/// Turns of an invocation that computes pairs of vec4s; more of them take longer to compile, which large tensors pay back.
fn turns(elements: usize, abreast: bool) -> usize {
    match elements >> 20 {
        0..4 if abreast => 2,
        0..2 => 1,
        2..8 => 4,
        _ if abreast => 4,
        _ => 8,
    }
}

/// How an operand lies that is read across the output's rows: its neighbours are `columns` along another axis, `rows`.
struct Turned {
    rows: usize,
    columns: usize,
    /// Elements of the output from one row to the next.
    step: usize,
    /// Elements of the operand from one column to the next.
    from: usize,
    /// The output's other axes: extent, and elements from one to the next.
    others: View,
}

impl Turned {
    /// Where all rows, columns and strides consist of whole vec4s.
    fn of(operand: &Operand) -> Option<Turned> {
        let [view] = operand.path.as_slice() else { return None };
        let axes = view.merged();
        let (&(columns, from), before) = axes.split_last()?;
        let axis = before.iter().position(|&(_, stride)| stride == 1)?;
        let rows = before[axis].0;
        let whole = |n: usize| n > 0 && n.is_multiple_of(4);
        let others_whole = axes.iter().enumerate().all(|(n, (_, stride))| n == axis || *stride >= 0 && stride % 4 == 0);
        // A workgroup has 32 x 32: where most of it would be idle, gathering is faster.
        let covered = rows.next_multiple_of(32) * columns.next_multiple_of(32);
        if !whole(rows)
            || !whole(columns)
            || rows * columns * 2 < covered
            || !view.offset.is_multiple_of(4)
            || !others_whole
            || from == 0
        {
            return None;
        }
        let step_of = |n: usize| axes[n + 1..].iter().map(|(extent, _)| extent).product::<usize>();
        let (shape, strides) =
            (0..before.len()).filter(|n| *n != axis).map(|n| (axes[n].0, step_of(n) as isize)).unzip();
        Some(Turned {
            rows,
            columns,
            step: step_of(axis),
            from: from as usize,
            others: View { shape, strides, offset: 0 },
        })
    }

    /// Whether there is a tile for a subgroup whose `lanes` lie abreast, and whether the tiles can be counted there.
    fn has_tile(&self, lanes: usize) -> bool {
        let [rows, columns] = tile(lanes);
        lanes >= DOWN
            && self.rows >= rows
            && self.columns >= columns
            && self.tiles([rows, columns]) <= MOST_UNIFORM as usize
    }

    fn tiles(&self, [rows, columns]: [usize; 2]) -> usize {
        self.others.shape.iter().product::<usize>() * self.rows.div_ceil(rows) * self.columns.div_ceil(columns)
    }

    /// `abreast`: the lanes of such a subgroup.
    fn set(&self, kernel: Kernel, abreast: Option<u32>, caps: &Caps) -> Kernel {
        let others: usize = self.others.shape.iter().product();
        let (kernel, groups) = match abreast.map(|lanes| lanes as usize) {
            Some(lanes) => (kernel.set("DOWN", DOWN), self.tiles(tile(lanes)).div_ceil(64 / lanes)),
            None => (kernel, self.tiles([32, 32])),
        };
        let first = format!("fn first(o: u32) -> u32 {{\n    return {};\n}}", self.others.wgsl("o"));
        kernel
            .set("ROWS", self.rows)
            .set("COLUMNS", self.columns)
            .set("STEP", self.step)
            .set("FROM", self.from)
            .set("OTHERS", others)
            .replace("first", first)
            .grid(caps.fold(groups))
    }
}

/// Makes `expr` the epilogue of a kernel of an op with `inputs` inputs of its own.
pub(crate) fn attach(expr: &Expr, inputs: usize, kernel: &mut Kernel) {
    let bindings = Bindings::new(expr, inputs, kernel.args.len());
    let mut body = String::from("// include: math.wgsl\n// include: random.wgsl\n") + &bindings.declarations(&[]);
    body.push_str("fn epilogue(v: f32, i: u32) -> f32 {\n");
    for (n, operand) in expr.operands.iter().enumerate() {
        let _ = writeln!(body, "    let e{n} = {};", load(bindings.slots[n], operand.dtype, &operand.place("i")));
    }
    for line in &expr.lines {
        let _ = writeln!(body, "    {line}");
    }
    let _ = write!(body, "    return {};\n}}\n", expr.result);
    kernel.functions.push(("epilogue".into(), body));
    kernel.args.extend(bindings.args);
}

/// Reads element `i` of what is bound as `slot`.
fn load(slot: u32, dtype: DType, i: &str) -> String {
    match dtype {
        DType::F16 => format!("half_of(f{slot}[{i} / 2u], {i})"),
        _ => format!("f{slot}[{i}]"),
    }
}

/// Reads elements 4q to 4q + 3.
fn load_four(slot: u32, dtype: DType, q: &str) -> String {
    match dtype {
        DType::F16 => format!("four_of(f{slot}[{q}])"),
        _ => format!("f{slot}[{q}]"),
    }
}

/// How four neighbouring elements of an operand are read.
#[derive(Clone, Copy, PartialEq)]
enum Four {
    /// As one vec4 at `index / 4`.
    Vector,
    /// One element for all four.
    Splat,
    /// One by one.
    Gather,
}

/// The buffers an expression reads and how they are declared.
struct Bindings {
    args: Vec<Arg>,
    /// For each operand, its binding.
    slots: Vec<u32>,
    /// For each binding, its element type.
    types: Vec<(u32, DType, bool)>,
}

impl Bindings {
    /// Numbers the operands' tensors from binding `first` on; as inputs they come after the op's own.
    fn new(expr: &Expr, inputs: usize, first: usize) -> Self {
        let mut bindings = Bindings { args: Vec::new(), slots: Vec::new(), types: Vec::new() };
        let mut seen: Vec<Value> = Vec::new();
        for (n, operand) in expr.operands.iter().enumerate() {
            let place = seen.iter().position(|v| *v == operand.value).unwrap_or_else(|| {
                seen.push(operand.value);
                bindings.args.push(Arg::In(inputs + n));
                bindings.types.push(((first + seen.len() - 1) as u32, operand.dtype, false));
                seen.len() - 1
            });
            bindings.slots.push((first + place) as u32);
        }
        bindings
    }

    /// Their declarations; those of the operands `pairs` hold pairs of vec4s.
    fn declarations(&self, pairs: &[usize]) -> String {
        let declare = |(slot, dtype, vector): &(u32, DType, bool)| {
            let element = match (dtype, vector) {
                _ if pairs.iter().any(|&n| self.slots[n] == *slot) => "array<vec4<f32>, 2>".into(),
                (DType::F16, true) => "vec2<u32>".into(),
                (DType::F16, false) => "u32".into(),
                (_, true) => format!("vec4<{dtype}>"),
                (_, false) => dtype.to_string(),
            };
            format!("@group(0) @binding({slot}) var<storage, read> f{slot}: array<{element}>;\n")
        };
        self.types.iter().map(declare).collect()
    }

    /// Whether no other operand reads what operand `n` does.
    fn alone(&self, n: usize) -> bool {
        self.slots.iter().filter(|slot| **slot == self.slots[n]).count() == 1
    }

    /// Whether operand `n` is read in pairs of vec4s; those that do not lie as the output does only where lanes lie `abreast`,
    /// and where they are not read again and again.
    fn is_pairs(&self, expr: &Expr, n: usize, abreast: bool) -> bool {
        let Operand { dtype, path, .. } = &expr.operands[n];
        let lies_in_pairs = match path.as_slice() {
            [] => true,
            [view] => abreast && view.in_parts(8) && !expr.operands[n].repeats(),
            _ => false,
        };
        *dtype == DType::F32 && lies_in_pairs && self.alone(n)
    }

    /// `given`: the operands that are read in pairs, no further than the `count`-th; if `abreast`, those of a subgroup.
    fn given(&self, expr: &Expr, given: &[usize], count: usize, abreast: bool) -> String {
        let load = |n: &usize| match (abreast, expr.operands[*n].path.is_empty()) {
            (false, _) => format!("f{}[min(o, {}u)]", self.slots[*n], count.saturating_sub(1)),
            (true, true) => format!("f{}[abreast(o + own_lane)]", self.slots[*n]),
            (true, false) => {
                let place = expr.operands[*n].place("(8u * (o + own_lane))");
                format!("f{}[abreast({place} / 8u)]", self.slots[*n])
            }
        };
        let loads: Vec<String> = given.iter().map(load).collect();
        format!("fn given(o: u32) -> Given {{\n    return Given({});\n}}\n", loads.join(", "))
    }

    /// `pair`: two vec4s of the result, from the operands `given` in pairs and the others.
    fn pair(&self, given: &[usize]) -> String {
        let call = |half: usize| {
            let arguments: String = (0..given.len()).map(|n| format!(", e[{n}][{half}]")).collect();
            format!("value4_of_pair(2u * o + {half}u{arguments})")
        };
        format!("fn pair(o: u32, e: Given) -> Pair {{\n    return Pair({}, {});\n}}\n", call(0), call(1))
    }

    /// `value` for one element and `name` for four, which is given some operands instead of reading them.
    fn value4(&mut self, name: &str, expr: &Expr, elements: usize, given: &[usize]) -> String {
        let parameters: String =
            expr.operands.iter().enumerate().map(|(n, o)| format!(", e{n}: {}", o.dtype.wgsl())).collect();
        let mut body = format!("fn value(i: u32{parameters}) -> Element {{\n");
        for line in &expr.lines {
            let _ = writeln!(body, "    {line}");
        }
        let parameter = |n: &usize| format!(", e{n}: vec4<{}>", expr.operands[*n].dtype.wgsl());
        let parameters: String = given.iter().map(parameter).collect();
        let _ = write!(
            body,
            "    return {};\n}}\nfn {name}(q: u32{parameters}) -> vec4<Element> {{\n    let i = q * 4u;\n",
            expr.result
        );
        let mut fours: Vec<Four> = expr.operands.iter().map(four).collect();
        given.iter().for_each(|&n| fours[n] = Four::Vector);
        for (n, four) in fours.iter().enumerate() {
            let slot = self.slots[n];
            let alone = (0..fours.len()).all(|m| self.slots[m] != slot || fours[m] == Four::Vector);
            if let (Four::Vector, true, Some(entry)) = (four, alone, self.types.iter_mut().find(|t| t.0 == slot)) {
                entry.2 = true;
            }
        }
        // Lanes past the end of the output repeat its last element, lest they read past an operand's.
        let lane = |k: usize| match elements % 4 {
            0 => format!("(i + {k}u)"),
            _ => format!("min(i + {k}u, {}u)", elements.saturating_sub(1)),
        };
        for (n, operand) in expr.operands.iter().enumerate().filter(|(n, _)| !given.contains(n)) {
            let slot = self.slots[n];
            let vector = self.types.iter().any(|t| t.0 == slot && t.2);
            let (dtype, ty) = (operand.dtype, operand.dtype.wgsl());
            let four = match fours[n] {
                Four::Vector if vector && operand.path.is_empty() => load_four(slot, dtype, "q"),
                Four::Vector if vector => load_four(slot, dtype, &format!("({}) / 4u", operand.place("i"))),
                Four::Splat => format!("vec4<{ty}>({})", load(slot, dtype, &operand.place("i"))),
                _ => {
                    let each: Vec<String> = (0..4).map(|k| load(slot, dtype, &operand.place(&lane(k)))).collect();
                    format!("vec4<{ty}>({})", each.join(", "))
                }
            };
            let _ = writeln!(body, "    let e{n} = {four};");
        }
        let each: Vec<String> = "xyzw"
            .chars()
            .enumerate()
            .map(|(k, c)| {
                let arguments: String = (0..expr.operands.len()).map(|n| format!(", e{n}.{c}")).collect();
                format!("value(i + {k}u{arguments})")
            })
            .collect();
        let _ = write!(body, "    return vec4<Element>({});\n}}\n", each.join(", "));
        body
    }
}

impl Operand {
    /// Whether elements of it are read again and again, along an axis that it lacks.
    fn repeats(&self) -> bool {
        let along =
            |view: &View| view.shape.iter().zip(&view.strides).any(|(extent, stride)| *extent > 1 && *stride == 0);
        self.path.iter().any(along)
    }

    /// The index expression for output element `i`.
    fn place(&self, i: &str) -> String {
        self.path.iter().fold(i.to_string(), |i, view| format!("({})", view.wgsl(&i)))
    }
}

/// How four elements that start at a multiple of four can be read.
fn four(operand: &Operand) -> Four {
    match operand.path.as_slice() {
        [] => Four::Vector,
        [view] => view.four(),
        _ => Four::Gather,
    }
}

impl View {
    fn four(&self) -> Four {
        let axes = self.merged();
        match axes.last() {
            None => Four::Splat,
            Some(&(extent, 0)) if extent % 4 == 0 || axes.len() == 1 => Four::Splat,
            _ if self.in_parts(4) => Four::Vector,
            _ => Four::Gather,
        }
    }
}
