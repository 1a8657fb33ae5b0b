//! Kernels and candidates as data: which shader, which constants, which bindings, what grid.

use std::fmt;
use std::sync::Arc;

/// A WGSL file of the `shaders` folder.
#[derive(Clone, Copy)]
pub struct Shader {
    /// The file's name.
    pub name: &'static str,
    /// Its text.
    pub source: &'static str,
}

impl fmt::Debug for Shader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The [`Shader`] in `shaders/` of that name.
#[macro_export]
#[doc(hidden)]
macro_rules! shader {
    ($name:literal) => {
        $crate::graph::Shader {
            name: $name,
            source: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $name)),
        }
    };
}

/// What one binding of a kernel is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    /// The n-th input, read.
    In(usize),
    /// The n-th output, written.
    Out(usize),
    /// The n-th scratch buffer of the candidate, written here.
    ScratchOut(usize),
    /// The n-th scratch buffer of the candidate, read here.
    ScratchIn(usize),
    /// Constant data (u32 words), uploaded when the program is compiled.
    Table(Arc<[u32]>),
    /// The n-th piece of persistent state, read and written in place.
    State(usize),
    /// The whole slab of memory that the n-th piece of state lives in, read and written in place.
    Slab(usize),
    /// The one buffer in which the op's packed inputs lie, read.
    Pack,
    /// The n-th scratch texture of the candidate (`texture_storage_2d<r32float, read_write>`), written and read here.
    Texels(usize),
}

impl Arg {
    /// Whether the kernel may write through this binding.
    pub fn writes(&self) -> bool {
        matches!(self, Arg::Out(_) | Arg::ScratchOut(_) | Arg::State(_) | Arg::Slab(_) | Arg::Texels(_))
    }
}

/// The value of a `const` in a shader.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Const {
    /// An unsigned integer.
    U32(u32),
    /// A float.
    F32(f32),
}

impl From<usize> for Const {
    fn from(value: usize) -> Self {
        Const::U32(value as u32)
    }
}

impl From<u32> for Const {
    fn from(value: u32) -> Self {
        Const::U32(value)
    }
}

impl From<bool> for Const {
    fn from(value: bool) -> Self {
        Const::U32(value as u32)
    }
}

impl From<f32> for Const {
    fn from(value: f32) -> Self {
        Const::F32(value)
    }
}

impl fmt::Display for Const {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Const::U32(value) => write!(f, "{value}u"),
            Const::F32(value) if value.is_finite() => write!(f, "{value:?}f"),
            // WGSL has no constant for infinities and NaN; naga takes this one.
            Const::F32(value) => write!(f, "bitcast<f32>({}u)", value.to_bits()),
        }
    }
}

/// A WGSL expression that is exactly `value`, to be put into any other; infinities and NaN, for which WGSL has no literals,
/// are functions of `math.wgsl`.
pub fn float(value: f32) -> String {
    let sign = if value.is_sign_negative() { "-" } else { "" };
    match value {
        _ if value.is_nan() => "nan()".into(),
        _ if value.is_infinite() => format!("({sign}infinity())"),
        _ if value.is_sign_negative() => format!("({value:?}f)"),
        _ => format!("{value:?}f"),
    }
}

/// One dispatch: an entry point with its constants fixed, over a grid, with its bindings in order.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The file.
    pub shader: Shader,
    /// The entry point.
    pub entry: &'static str,
    /// Constants by name.
    pub consts: Vec<(&'static str, Const)>,
    /// Functions whose text replaces the shader's own of that name: epilogues, index rules, type aliases.
    pub functions: Vec<(String, String)>,
    /// Functions of the shader that take the place of others in it.
    pub choices: Vec<(&'static str, &'static str)>,
    /// Binding 0, 1, 2...
    pub args: Vec<Arg>,
    /// Those whose elements are read once, neighbours together, so that a copy of them would not pay (see
    /// [`super::mirror`]).
    pub streamed: Vec<usize>,
    /// Whether elements are stored as they were loaded, which `src/graph/wide.rs` asks.
    pub moves: bool,
    /// Workgroups.
    pub grid: [u32; 3],
}

impl Kernel {
    /// A kernel without constants or bindings, over one workgroup.
    pub fn new(shader: Shader, entry: &'static str) -> Self {
        Kernel {
            shader,
            entry,
            consts: Vec::new(),
            functions: Vec::new(),
            choices: Vec::new(),
            args: Vec::new(),
            streamed: Vec::new(),
            moves: false,
            grid: [1; 3],
        }
    }

    /// Fixes the `const` of that name.
    pub fn set(mut self, name: &'static str, value: impl Into<Const>) -> Self {
        self.consts.push((name, value.into()));
        self
    }

    /// Replaces the shader's function (or alias) of that name by this text.
    pub fn replace(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.functions.push((name.into(), text.into()));
        self
    }

    /// Puts the shader's function `other` in the place of its function `name`. Of several for one name the last counts.
    pub fn choose(mut self, name: &'static str, other: &'static str) -> Self {
        self.choices.push((name, other));
        self
    }

    /// Appends bindings.
    pub fn bind(mut self, args: impl IntoIterator<Item = Arg>) -> Self {
        self.args.extend(args);
        self
    }

    /// Appends a binding whose elements are read once, neighbours together.
    pub fn stream(mut self, arg: Arg) -> Self {
        self.streamed.push(self.args.len());
        self.args.push(arg);
        self
    }

    /// Says whether elements are stored as they were loaded.
    pub fn moves(mut self, moves: bool) -> Self {
        self.moves = moves;
        self
    }

    /// Appends a binding whose number the shader takes from the `const` of that name, `@binding(NAME)`.
    pub fn bind_as(mut self, name: &'static str, arg: Arg) -> Self {
        self.consts.push((name, Const::from(self.args.len())));
        self.args.push(arg);
        self
    }

    /// Sets the grid, in workgroups.
    pub fn grid(mut self, grid: [u32; 3]) -> Self {
        self.grid = grid;
        self
    }
}

/// One way to compute a node: dispatches in order, with the scratch memory that they share.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// A name for listings and the tuner.
    pub name: &'static str,
    /// The dispatches.
    pub kernels: Vec<Kernel>,
    /// Sizes of the scratch buffers in bytes.
    pub scratch: Vec<usize>,
    /// Elements of the scratch textures, [`super::mirror::ROW`] to a row; at most one of them.
    pub texels: Vec<usize>,
    /// Turns that the loops of an invocation take together, where that may be more than [`super::Caps::turns`].
    pub turns: usize,
}

impl Candidate {
    /// One dispatch without scratch memory.
    pub fn single(name: &'static str, kernel: Kernel) -> Self {
        Candidate::new(name, vec![kernel], Vec::new())
    }

    /// Dispatches that share scratch buffers of these sizes in bytes.
    pub fn new(name: &'static str, kernels: Vec<Kernel>, scratch: Vec<usize>) -> Self {
        Candidate { name, kernels, scratch, texels: Vec::new(), turns: 0 }
    }

    /// Says how many turns the loops of an invocation take together.
    pub fn turns(self, turns: usize) -> Self {
        Candidate { turns, ..self }
    }
}
