// Of a line of logits, the largest and the sum of the exponentials of what they are above it.
// include: lines.wgsl

const LOWEST = -3.4028234663852886e38;

struct Exponentials {
    most: f32,
    sum: f32,
}

// For what else is to be known: of the k-th Lanes of a line, less the largest logit so far, and by how much all that came
// before is to be shifted.
fn note(k: u32, shifted: Lanes) {
}

fn note_shift(by: f32) {
}

// Of a team, of which this is the `lane`. Both are found in one pass: the sum is scaled whenever the maximum grows (Milakov
// and Gimelshein, "Online normalizer calculation for softmax", 2018). A line of but -inf has a sum of NaN.
fn exponentials(base: u32, lane: u32, team: u32) -> Exponentials {
    var most = largest(x[base]);
    var sum4 = Lanes();
    for (var round = 0u; round < ROUNDS; round++) {
        var most4 = Lanes(most);
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                held[h] = x[base + k * STEP];
                most4 = max(most4, held[h]);
            }
        }
        // Of an invocation that has seen but -inf, all exponentials are to be 0.
        let before = max(most, LOWEST);
        most = largest(most4);
        let shift = max(most, LOWEST);
        sum4 *= exp(before - shift);
        note_shift(before - shift);
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                let shifted = held[h] - shift;
                sum4 += exp(shifted);
                note(k, shifted);
            }
        }
    }
    let all = all_max(lane, most);
    note_shift(max(most, LOWEST) - max(all, LOWEST));
    return Exponentials(all, all_sum(lane, total(sum4) * exp(most - all)));
}
