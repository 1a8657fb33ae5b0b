//! What ops over lines of neighbouring elements share: the shapes of their kernels (`shaders/lines.wgsl`).

use crate::graph::{Candidate, Caps, Kernel};

/// f32 registers in which an invocation keeps what it has read of its line.
const HELD: usize = 32;

/// `kernel` for lines that are no whole vec4s.
pub(super) fn one_lane(kernel: Kernel) -> Kernel {
    let kernel = kernel.set("LANES", 1u32).replace("Lanes", "alias Lanes = f32;");
    let functions = [
        ("epilogues", "epilogues_one"),
        ("first_of", "first_of_one"),
        ("total", "total_one"),
        ("largest", "largest_one"),
    ];
    functions.into_iter().fold(kernel, |kernel, (all, one)| kernel.choose(all, one))
}

/// The candidates from kernels with an invocation per line and with a workgroup per line, for `lines` of `length`
/// elements. `hold` makes a kernel keep what it reads, `tensors` like x, in registers, where lines are short.
pub(super) fn candidates(
    [serial, grouped]: [Kernel; 2],
    [lines, length]: [usize; 2],
    tensors: usize,
    hold: impl Fn(Kernel) -> Kernel,
    caps: &Caps,
) -> Vec<Candidate> {
    let lanes = if length.is_multiple_of(4) { 4 } else { 1 };
    let steps = length / lanes;
    // About four loads for each invocation, in whole subgroups.
    let width = steps.div_ceil(4).next_power_of_two().clamp(32, caps.invocations.min(256) as usize);
    let rounds = steps.div_ceil(width);
    let fit = |kernel: Kernel| kernel.set("LINES", lines).set("LENGTH", length);
    let serial = fit(serial).set("ROUNDS", steps).choose("all_sum", "sum_alone").choose("all_max", "max_alone");
    let serial = Candidate::single("serial", serial.grid(caps.fold(lines.div_ceil(64)))).turns(3 * steps + 3);
    let grouped = fit(grouped).set("WIDTH", width).grid(caps.fold(lines));
    let grouped = match rounds * lanes * tensors <= HELD {
        true => Candidate::single("held", hold(grouped.set("HELD", rounds))),
        false => Candidate::single("grouped", grouped.set("ROUNDS", rounds)).turns(3 * rounds + 30),
    };
    // An invocation per line is faster on a CPU, if there are enough lines for all threads, and for very short ones.
    let serial_first = if caps.cpu { lines >= 64 * caps.threads } else { length < 32 };
    if serial_first { vec![serial, grouped] } else { vec![grouped, serial] }
}

/// `kernel` with what it reads of x in registers.
pub(super) fn hold(kernel: Kernel) -> Kernel {
    kernel.choose("hold", "hold_in_registers").choose("again", "again_from_registers")
}
