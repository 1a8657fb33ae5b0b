//! What ops over lines of elements share: the shapes of their kernels (`shaders/lines.wgsl`).

use crate::graph::{Candidate, Caps, Kernel, Shader};

/// f32 registers in which an invocation keeps what it has read of its line.
const HELD: usize = 32;

/// Elements from which subgroups take lines abreast, in code that takes up to a second to compile.
const ABREAST_FROM: usize = 1 << 21;

/// Lines that subgroups take abreast at the most, so that their numbers stay within `subgroup_uniform`'s.
pub(super) const ABREAST_LINES: usize = 1 << 24;

/// Elements that stay in a CPU's cache, roughly.
const CACHED: usize = 1 << 16;

/// [`Lines::block`] and [`Lines::alone`] of what goes through `shaders/exponentials.wgsl`.
pub(super) const BLOCK: usize = 8;
pub(super) const ALONE: [usize; 2] = [12, 5];

/// The kernels of [`candidates`]: an invocation, a workgroup and a subgroup for each line, who do what this function of
/// the shader says.
pub(super) fn kernels(shader: Shader, of_line: &'static str) -> [Kernel; 3] {
    ["serial", "grouped", "by_subgroup"].map(|entry| Kernel::new(shader, entry).choose("of_line", of_line))
}

/// `kernel` for lines that are no whole vec4s.
pub(super) fn one_lane(kernel: Kernel) -> Kernel {
    let kernel = kernel.set("LANES", 1u32);
    let kernel = kernel.replace("Lanes", "alias Lanes = f32;").replace("Words", "alias Words = u32;");
    let functions = [
        ("places_of", "places_of_one"),
        ("epilogues", "epilogues_one"),
        ("first_of", "first_of_one"),
        ("total", "total_one"),
        ("largest", "largest_one"),
    ];
    functions.into_iter().fold(kernel, |kernel, (all, one)| kernel.choose(all, one))
}

/// What is computed line by line.
pub(super) struct Lines {
    /// Their number.
    pub count: usize,
    /// Elements of each.
    pub length: usize,
    /// Elements from one of a line to the next.
    pub step: usize,
    /// Tensors of them that are read.
    pub tensors: usize,
    /// Lines that a subgroup takes, one after the other.
    pub taken: usize,
    /// Loads that an invocation takes in one turn, at most, where a line does not stay in registers.
    pub block: usize,
    /// Loads of an invocation from which on a CPU is faster with a subgroup for each line than with an invocation: where all
    /// lines stay in its cache, and where they do not.
    pub alone: [usize; 2],
    /// Whether the shader loads and stores by the functions of `lines.wgsl`, with which a subgroup's lanes lie abreast.
    pub abreast: bool,
}

impl Lines {
    /// Whether a line is whole vec4s.
    pub fn vectors(&self) -> bool {
        self.step == 1 && self.length.is_multiple_of(4)
    }
}

/// The candidates from [`kernels`]; where the elements of a line are apart, neighbouring lines go to neighbouring
/// invocations. `hold` makes a kernel keep what it reads in registers, where lines are short.
pub(super) fn candidates(
    [serial, grouped, by_subgroup]: [Kernel; 3],
    lines: &Lines,
    hold: impl Fn(Kernel) -> Kernel,
    caps: &Caps,
) -> Vec<Candidate> {
    let lanes = if lines.vectors() { 4 } else { 1 };
    let &Lines { count: lines, length, step, tensors, taken, block, alone, abreast } = lines;
    let steps = length / lanes;
    let width = width([lines, steps], caps);
    let rounds = steps.div_ceil(width);
    let fit = |kernel: Kernel| kernel.set("LINES", lines).set("LENGTH", length);
    // Of what stays in registers: a CPU keeps more on its stack; what limits it is the time to compile so many loads.
    let registers = if caps.cpu { 1 } else { lanes };
    let most = if caps.cpu { HELD / 2 } else { HELD };
    let whole = (1..=block).rev().find(|block| steps.is_multiple_of(*block)).unwrap_or(1);
    let (serial, turns) = match steps * tensors * registers <= most {
        true => (hold(fit(serial).set("HELD", steps)), 1),
        false => (fit(serial).set("HELD", whole).set("ROUNDS", steps / whole), steps / whole),
    };
    let serial =
        Candidate::single("serial", in_an_invocation(serial.set("STEP", step), lines, caps)).turns(3 * turns + 3);
    if step > 1 {
        return vec![serial];
    }
    let grouped = fit(grouped).grid(caps.fold(lines));
    let (names, grouped) = match rounds * lanes * tensors <= HELD {
        true => (["held", "held_by_subgroups"], hold(grouped.set("HELD", rounds))),
        false => {
            (["grouped", "grouped_by_subgroups"], grouped.set("HELD", block).set("ROUNDS", rounds.div_ceil(block)))
        }
    };
    let mut teams = teams(names, grouped, width, 3 * rounds + 30, caps);
    if caps.cpu && lines == 1 {
        // With nothing else to do, a CPU's workgroup is faster through a tree.
        teams.reverse();
    }
    // An invocation per line is faster on a CPU, if there are enough lines for all threads or too few elements to share.
    let serial_first = if caps.cpu { lines >= 8 * caps.threads || steps <= 1000 * lines } else { length < 32 };
    teams.insert(if serial_first { 0 } else { teams.len() }, serial);
    if let Some(size) = caps.subgroup.filter(|&size| size > 1) {
        let rounds = steps.div_ceil(size as usize);
        if rounds * tensors * registers <= HELD {
            let by_subgroup = hold(fit(by_subgroup).set("HELD", rounds).choose("within", "within_by_subgroup"));
            let kernel = in_a_subgroup(by_subgroup.clone(), size, lines.div_ceil(taken), caps);
            let first = if caps.cpu { rounds >= alone[usize::from(lines * length >= CACHED)] } else { !serial_first };
            teams.insert(usize::from(!first), Candidate::single("in_a_subgroup", kernel).turns(7 * taken + 1));
            if caps.abreast && abreast && lanes > 1 && lines <= ABREAST_LINES && lines * length >= ABREAST_FROM {
                let kernel = Kernel { entry: "by_subgroup_abreast", ..by_subgroup }.set("ABREAST", true);
                let kernel = in_a_subgroup(kernel, size, lines, caps);
                teams.insert(usize::from(!first), Candidate::single("abreast", kernel));
            }
        }
    }
    teams
}

/// `kernel` for invocations that take one of `count` lines each.
pub(super) fn in_an_invocation(kernel: Kernel, count: usize, caps: &Caps) -> Kernel {
    // A workgroup for each thread of a CPU, where that is but one SIMD vector.
    let group = if caps.cpu && count < 64 * caps.threads { 8 } else { 64 };
    let kernel = kernel.set("TEAMS", group).grid(caps.fold(count.div_ceil(group)));
    let kernel = kernel.choose("all_sum", "sum_alone").choose("all_max", "max_alone");
    kernel.choose("within", "within_alone")
}

/// Invocations of a workgroup for each of `lines` of `steps` loads: about four for each of them.
pub(super) fn width([lines, steps]: [usize; 2], caps: &Caps) -> usize {
    // As many workgroups as a large GPU has cores, or fewer, should fill a core each.
    let most = if caps.cpu || lines > 256 { 256 } else { 1024 };
    steps.div_ceil(4).next_power_of_two().clamp(32, caps.invocations.min(most) as usize)
}

/// `kernel` for subgroups of `size`, of which there are to be `count`.
pub(super) fn in_a_subgroup(kernel: Kernel, size: u32, count: usize, caps: &Caps) -> Kernel {
    let width = size.max(64);
    let kernel =
        kernel.set("WIDTH", width).set("SUBGROUP", size).grid(caps.fold(count.div_ceil((width / size) as usize)));
    kernel.choose("all_sum", "all_sum_of_subgroup").choose("all_max", "all_max_of_subgroup")
}

/// The candidates that are `kernel` with workgroups of `width`: combining values in a tree and, where there are subgroups,
/// by way of them (`shaders/team.wgsl`); the preferred one first.
pub(super) fn teams(
    [tree, by_subgroups]: [&'static str; 2],
    kernel: Kernel,
    width: usize,
    turns: usize,
    caps: &Caps,
) -> Vec<Candidate> {
    let kernel = kernel.set("WIDTH", width);
    let by_subgroups = caps.subgroups.then(|| {
        let kernel = kernel.clone().choose("all_max", "all_max_by_subgroups");
        Candidate::single(by_subgroups, kernel.choose("all_sum", "all_sum_by_subgroups")).turns(turns)
    });
    by_subgroups.into_iter().chain([Candidate::single(tree, kernel).turns(turns)]).collect()
}

/// `kernel` with what it reads of x in registers.
pub(super) fn hold(mut kernel: Kernel) -> Kernel {
    kernel.streamed.push(0);
    kernel.choose("again", "again_from_registers")
}
