//! Recurrent layers: the loop over time, forward and backward, each in one dispatch where the device's limits allow.
//!
//! The products of all inputs with their weights come before the loop, those that give the weights' gradients after it;
//! both are ordinary products. `docs/recurrent.md` tells who owns what in the kernels.

mod backward;
mod forward;
mod layer;

pub use layer::{LayerWeights, Recurrence, States};

use crate::graph::{Caps, Const, DType, Desc, Kernel, Shader};

/// What a unit computes at each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// Long short-term memory; gates i, f, g, o.
    Lstm,
    /// Gated recurrent unit with the reset gate after the recurrent product, as in PyTorch and cuDNN: gates r, z, n,
    /// `n = tanh(W_n x + b_n + r (U_n h + c_n))`, `h' = (1 - z) n + z h`.
    Gru,
    /// Gated recurrent unit with the reset gate before the recurrent product (Cho et al., 2014): gates r, z, n,
    /// `n = tanh(W_n x + U_n (r h) + b_n)`, `h' = (1 - z) h + z n`.
    GruResetBefore,
    /// `h' = tanh(W x + U h + b)`.
    RnnTanh,
    /// `h' = max(0, W x + U h + b)`.
    RnnRelu,
}

impl Cell {
    /// How many gates it has: rows of its weights for each unit.
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru | Cell::GruResetBefore => 3,
            Cell::RnnTanh | Cell::RnnRelu => 1,
        }
    }

    /// How many states a unit has: h, and c in an LSTM.
    pub fn states(self) -> usize {
        if self == Cell::Lstm { 2 } else { 1 }
    }

    /// Planes of the gradient that the backward loop gives, and the first of them that go back.
    fn slopes(self) -> (usize, usize) {
        match self {
            Cell::Lstm => (4, 4),
            Cell::Gru => (4, 3),
            Cell::GruResetBefore => (3, 2),
            Cell::RnnTanh | Cell::RnnRelu => (1, 1),
        }
    }

    fn is_gru(self) -> bool {
        matches!(self, Cell::Gru | Cell::GruResetBefore)
    }
}

/// The extents of one layer's loop over time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Extents {
    cell: Cell,
    steps: usize,
    batch: usize,
    hidden: usize,
    directions: usize,
    batch_first: bool,
    /// Whether first states are given, and lengths.
    initial: bool,
    lengths: bool,
}

impl Extents {
    fn rows(&self) -> usize {
        self.steps * self.batch
    }

    /// The hidden size, rounded up to whole vec4s.
    fn columns(&self) -> usize {
        self.hidden.next_multiple_of(4)
    }

    /// [T, N, features] or [N, T, features].
    fn sequence(&self, features: usize) -> Desc {
        let [first, second] = if self.batch_first { [self.batch, self.steps] } else { [self.steps, self.batch] };
        Desc::f32([first, second, features])
    }

    /// [directions, N, hidden].
    fn state(&self) -> Desc {
        Desc::f32([self.directions, self.batch, self.hidden])
    }

    fn states(&self) -> Desc {
        Desc::f32([self.cell.states(), self.directions, self.batch, self.hidden])
    }

    /// The constants that all kernels share, and the cell's functions.
    fn kernel(&self, shader: Shader, entry: &'static str) -> Kernel {
        let [row_t, row_n] = if self.batch_first { [1, self.steps] } else { [self.batch, 1] };
        let kernel = Kernel::new(shader, entry)
            .set("STEPS", self.steps)
            .set("BATCH", self.batch)
            .set("HIDDEN", self.hidden)
            .set("DIRECTIONS", self.directions)
            .set("GATES", self.cell.gates())
            .set("ROW_T", row_t)
            .set("ROW_N", row_n);
        if self.cell.gates() == 1 { kernel.replace("Gates", "alias Gates = f32;") } else { kernel }
    }
}

/// How a workgroup runs its sequences from end to end.
struct Team {
    rows: usize,
    group: usize,
    /// Elements of the planes that its invocations share.
    shared: usize,
    /// Sequences of all directions, cut into teams.
    count: usize,
}

impl Team {
    /// A team whose invocations own `width` units or columns, sharing planes of `planes` elements for each sequence.
    fn new(e: &Extents, width: usize, planes: usize, caps: &Caps) -> Option<Team> {
        let teams = |rows: &usize| e.directions * e.batch.div_ceil(*rows);
        let rows = if caps.cpu {
            // A team's time, fitted to lavapipe, and how many come one after the other.
            let cost = |rows: &usize| teams(rows).div_ceil(caps.threads.max(1)) * (170 + 39 * rows);
            (1..=16).min_by_key(cost)?
        } else {
            let fits = |rows: &usize| planes * rows * 4 <= caps.workgroup_memory as usize;
            [8, 4, 2, 1].into_iter().filter(|rows| *rows == 1 || rows / 2 < e.batch).find(fits)?
        };
        let group = if caps.cpu { 8 } else { width.next_multiple_of(32).min(caps.invocations as usize) };
        Some(Team { rows, group, shared: planes * rows, count: teams(&rows) })
    }

    fn set(&self, kernel: Kernel, caps: &Caps) -> Kernel {
        kernel
            .set("ROWS", self.rows)
            .set("GROUP", self.group)
            .set("LANES", super::gemm::lanes(caps))
            .grid(caps.fold(self.count))
    }
}

/// Replaces a function of one cell by another's.
fn of_cell(kernel: Kernel, name: &'static str, [gru, tanh, relu]: [&'static str; 3], cell: Cell) -> Kernel {
    match cell {
        Cell::Lstm => kernel,
        Cell::Gru | Cell::GruResetBefore => kernel.choose(name, gru),
        Cell::RnnTanh => kernel.choose(name, tanh),
        Cell::RnnRelu => kernel.choose(name, relu),
    }
}

fn expect(what: &str, got: Option<&Desc>, want: &Desc) -> Result<(), String> {
    match got {
        Some(got) if got == want => Ok(()),
        Some(got) => Err(format!("the {what} are {got}, not {want}")),
        None => Err(format!("the {what} are missing")),
    }
}

fn lengths_desc(e: &Extents) -> Desc {
    Desc::new([e.batch], DType::U32)
}

/// 1 or 0, for a shader.
fn flag(on: bool) -> Const {
    Const::from(on)
}
