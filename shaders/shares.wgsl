// Which elements of a line each of several invocations takes, whose partial results are put together later. Whoever includes
// this defines `const LENGTH`, the elements of a line.

const OUTPUTS = 1u;  // lines
const SPLITS = 1u;   // invocations that share one of them
const INNER = 0u;    // 1: neighbouring invocations share a line, whose elements are neighbours; 0: they have lines side by side
const TEAM = 1u;     // neighbours that walk side by side, a divisor of SPLITS

// Where an invocation's share of a result begins and ends, and the step from one of its elements to the next.
struct Share {
    result: u32,
    split: u32,
    first: u32,
    last: u32,
    step: u32,
}

fn share_of(id: u32) -> Share {
    let run = (LENGTH + SPLITS - 1u) / SPLITS;
    if (INNER == 0u) {
        let split = id / OUTPUTS;
        return Share(id % OUTPUTS, split, split * run, min(split * run + run, LENGTH), 1u);
    }
    // TEAM neighbours walk through one stretch side by side.
    let split = id % SPLITS;
    let stretch = split / TEAM * TEAM * run;
    return Share(id / SPLITS, split, stretch + split % TEAM, min(stretch + TEAM * run, LENGTH), TEAM);
}
