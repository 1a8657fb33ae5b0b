// Softmax and log-softmax over lines.
// include: exponentials.wgsl
// include: math.wgsl

const LOG = 0u; // 1: log-softmax

fn scale_of(sum: f32) -> f32 {
    return select(1.0 / sum, log_(sum), LOG == 1u);
}

// From x less the line's maximum and the scale of the sum of the exponentials of that.
fn finish(shifted: Lanes, scale: f32) -> Lanes {
    if (LOG == 1u) {
        return shifted - scale;
    }
    return exp(shifted) * scale;
}

// `lane` of `team` invocations, who store what they find if the line is `live`.
fn softmax(line: u32, live: bool, lane: u32, team: u32) {
    let base = base_of(line);
    let found = exponentials(base, lane, team);
    let scale = scale_of(found.sum);
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k) && live) {
                let at = base + k * STEP;
                y[at] = epilogues(finish(x[at] - found.most, scale), LANES * at);
            }
        }
    }
}

// The same with one round, after which all of the line is in registers.
fn softmax_in_registers(line: u32, live: bool, lane: u32, team: u32) {
    let base = base_of(line);
    var most4 = x[base];
    for (var h = 0u; h < HELD; h++) { // unroll
        let k = h * team + lane;
        if (within(h, k)) {
            held[h] = load(h, base, k);
            most4 = max(most4, held[h]);
        }
    }
    let most = all_max(lane, largest(most4));
    var sum4 = Lanes();
    for (var h = 0u; h < HELD; h++) { // unroll
        if (within(h, h * team + lane)) {
            let shifted = held[h] - most;
            let e = exp(shifted);
            sum4 += e;
            held[h] = select(e, shifted, LOG == 1u);
        }
    }
    let scale = scale_of(all_sum(lane, total(sum4)));
    for (var h = 0u; h < HELD; h++) { // unroll
        let k = h * team + lane;
        if (within(h, k) && live) {
            let y4 = select(held[h] * scale, held[h] - scale, LOG == 1u);
            store(h, base, k, epilogues(y4, LANES * (base + k * STEP)));
        }
    }
}
