//! Recurrent layers: the loop over time, forward and backward, each in one dispatch where the device's limits allow.
//!
//! The products of all inputs with their weights come before the loop, those that give the weights' gradients after it;
//! both are ordinary products. `docs/recurrent.md` tells who owns what in the kernels.

mod backward;
mod forward;
mod layer;

pub use layer::{LayerWeights, Recurrence, States};

use super::gemm;
use crate::graph::{Arg, Caps, DType, Desc, Kernel, Shader};

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

/// Where a team's states lie from step to step.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// In a texture, for CPU adapters; a whole sequence in one dispatch.
    Texels,
    /// In workgroup memory; a whole sequence in one dispatch.
    Group,
    /// In a buffer, with a dispatch to each step.
    Steps,
}

impl Style {
    /// The candidate's name.
    fn name(self) -> &'static str {
        match self {
            Style::Texels => "texels",
            Style::Group => "sequence",
            Style::Steps => "steps",
        }
    }

    /// The ways that suit a device, the best one first. With large weights, all of a GPU's cores together read them, and eight
    /// invocations for each unit wait for them, faster at each step than a few do for themselves; where that turns is an
    /// estimate (`docs/recurrent.md`).
    fn all(e: &Extents, caps: &Caps) -> Vec<Style> {
        let weights = e.cell.gates() * e.hidden * e.hidden * 4;
        match caps.cpu {
            true => vec![Style::Texels, Style::Group, Style::Steps],
            false if weights > 1 << 17 => vec![Style::Steps, Style::Group],
            false => vec![Style::Group, Style::Steps],
        }
    }
}

/// A workgroup, or those of one dispatch to a step, that run some sequences.
struct Team {
    style: Style,
    rows: usize,
    group: usize,
    /// Sequences of all directions, cut into teams.
    count: usize,
    /// Elements of a plane of one team.
    plane: usize,
}

impl Team {
    /// Teams whose invocations own `width` units or columns, sharing planes for each sequence, if that fits.
    fn new(e: &Extents, width: usize, planes: usize, style: Style, caps: &Caps) -> Option<Team> {
        let teams = |rows: &usize| e.directions * e.batch.div_ceil(*rows);
        let fits =
            |rows: &usize| style != Style::Group || planes * e.hidden * rows * 4 <= caps.workgroup_memory as usize;
        // A team's time, fitted to lavapipe, and how many come one after the other.
        let cost = |rows: &usize| teams(rows).div_ceil(caps.threads.max(1)) * (170 + 39 * rows);
        let rows = match style {
            Style::Texels => (1..=16).min_by_key(cost)?,
            _ => [8, 4, 2, 1].into_iter().filter(|rows| *rows == 1 || rows / 2 < e.batch).find(fits)?,
        };
        let group = match style {
            Style::Texels => 8,
            Style::Group => width.next_multiple_of(32).min(caps.invocations as usize),
            Style::Steps => 32,
        };
        Some(Team { style, rows, group, count: teams(&rows), plane: e.hidden * rows })
    }

    fn set(&self, kernel: Kernel, planes: usize, caps: &Caps) -> Kernel {
        let kernel = kernel
            .set("ROWS", self.rows)
            .set("GROUP", self.group)
            .set("LANES", gemm::lanes(caps))
            .set("PLANES", planes)
            .grid(caps.fold(self.count));
        match self.style {
            Style::Texels => in_texels(kernel, caps),
            Style::Group => kernel,
            Style::Steps => kernel
                .set("PASS", self.rows.min(4))
                .choose("put_plane", "put_plane_memory")
                .choose("at_plane", "at_plane_memory")
                .choose("columns", "columns_of_memory")
                .choose("sync", "no_sync")
                .bind_as("STATE", Arg::ScratchOut(0)),
        }
    }

    /// The dispatches of a loop of `count` steps whose loops take this many turns at each step and before the first: one,
    /// or as many as the device needs. None where they would have to share workgroup memory.
    fn segments(&self, kernel: Kernel, count: usize, [each, first]: [usize; 2], caps: &Caps) -> Option<Vec<Kernel>> {
        // With some room: compilers add loops of their own.
        let segment = (caps.turns / 16 * 15).saturating_sub(first) / each;
        if segment >= count {
            return Some(vec![kernel]);
        }
        if segment == 0 || self.style == Style::Group {
            return None;
        }
        let kernel = kernel.set("SEGMENT", segment).choose("first_step", "first_step_given");
        let number = |s: usize| Arg::Table([s as u32].as_slice().into());
        Some((0..count).step_by(segment).map(|s| kernel.clone().bind_as("STEP", number(s))).collect())
    }

    /// A dispatch that begins, and one for each of `count` steps, in which each team has `blocks` workgroups.
    fn steps(&self, begin: Kernel, step: &Kernel, count: usize, blocks: usize, caps: &Caps) -> Vec<Kernel> {
        let number = |s: usize| Arg::Table([s as u32].as_slice().into());
        let one = |s: usize| step.clone().bind_as("STEP", number(s)).grid(caps.fold(self.count * blocks));
        std::iter::once(begin).chain((0..count).map(one)).collect()
    }
}

/// The planes of a team in a texture, and its lanes' loads shared.
fn in_texels(mut kernel: Kernel, caps: &Caps) -> Kernel {
    if gemm::lanes(caps) > 1 {
        kernel = kernel.replace("from_lane", gemm::SHUFFLE);
    }
    kernel
        .choose("put_plane", "put_plane_texel")
        .choose("at_plane", "at_plane_texel")
        .choose("columns", "columns_of_texels")
        .choose("sync", "sync_texels")
        .bind_as("STATE", Arg::Texels(0))
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
