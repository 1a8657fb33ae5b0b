// Sums, maxima and minima of lines of neighbouring elements, in a fixed order, and the places of these.
// include: lines.wgsl
// include: math.wgsl

const KIND = 0u; // 0 sum, 1 maximum, 2 minimum

@group(0) @binding(1) var<storage, read_write> results: array<f32>; // [LINES]
@group(0) @binding(1) var<storage, read_write> places: array<u32>; // [LINES], within their lines

// Minima are found as maxima of the negated elements.
fn signed(v: Lanes) -> Lanes {
    if (KIND == 2u) {
        return -v;
    }
    return v;
}

fn loudest_of(v: vec4<u32>) -> u32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn loudest_of_one(v: u32) -> u32 {
    return v;
}

const INFINITE = 0x7f800000u; // the magnitudes of NaNs are above it

fn magnitudes(v: Lanes) -> Words {
    return bitcast<Words>(v) & Words(0x7fffffffu);
}

// What the invocations of a team have found, together, and the largest magnitude of all elements.
fn of_team(lane: u32, found: Lanes, loudest: Words) -> f32 {
    if (KIND == 0u) {
        return all_sum(lane, total(found));
    }
    let lost = all_max(lane, select(0.0, 1.0, loudest_of(loudest) > INFINITE));
    let most = all_max(lane, largest(found));
    return select(select(most, -most, KIND == 2u), nan(), lost > 0.0);
}

alias Piece = array<Lanes, PIECE>;
@group(0) @binding(0) var<storage, read> pieces: array<Piece>; // x

fn piece(k: u32) -> Piece {
    return Piece(x[k]);
}

fn piece_of_two(k: u32) -> Piece {
    return pieces[k];
}

struct Found {
    most: Lanes, // or the sum
    loudest: Words,
}

// What is found of a line whose first piece is `base`, before any of it is.
fn nothing(base: u32) -> Found {
    if (KIND == 0u) {
        return Found();
    }
    return Found(signed(piece(base)[0]), Words());
}

fn with_piece(before: Found, loaded: Piece) -> Found {
    var found = before;
    for (var i = 0u; i < PIECE; i++) { // unroll
        if (KIND == 0u) {
            found.most += loaded[i];
        } else {
            let v = signed(loaded[i]);
            found.most = select(found.most, v, v > found.most);
            found.loudest = max(found.loudest, magnitudes(v));
        }
    }
    return found;
}

// `lane` of `team` invocations, of whom the first stores the result if the line is `live`.
fn reduce(line: u32, live: bool, lane: u32, team: u32) {
    let base = line * (LENGTH / (LANES * PIECE));
    var found = nothing(base);
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                found = with_piece(found, piece(base + k));
            }
        }
    }
    let result = of_team(lane, found.most, found.loudest);
    if (lane == 0u && live) {
        results[line] = epilogue(result, line);
    }
}

// The same with one round, of a subgroup whose lanes lie abreast.
fn reduce_abreast(line: u32, live: bool, lane: u32, team: u32) {
    let base = line * (LENGTH / (LANES * PIECE));
    var found = nothing(base);
    for (var h = 0u; h < HELD; h++) { // unroll
        if (is_abreast(h)) {
            found = with_piece(found, pieces[abreast(base + h * SUBGROUP + own_lane)]);
        } else if (within(h, h * SUBGROUP + lane)) {
            found = with_piece(found, pieces[base + h * SUBGROUP + lane]);
        }
    }
    let result = of_team(lane, found.most, found.loudest);
    if (lane == 0u && live) {
        results[line] = epilogue(result, line);
    }
}

const LAST = 0x7f7fffffu; // the largest finite float

// Places as floats that are the larger, the earlier these are: all are finite, and none is too small to be kept.
fn earliness(place: Words) -> Lanes {
    return bitcast<Lanes>(Words(LAST) - place);
}

// Like `reduce`, for the place of the first of the largest elements, or of the first NaN.
fn locate(line: u32, live: bool, lane: u32, team: u32) {
    let base = line * (LENGTH / (LANES * PIECE));
    var found = signed(piece(base)[0]);
    var at = Words();
    var loudest = Words();
    for (var round = 0u; round < ROUNDS; round++) {
        for (var h = 0u; h < HELD; h++) { // unroll
            let k = (round * HELD + h) * team + lane;
            if (within(h, k)) {
                let loaded = piece(base + k);
                for (var i = 0u; i < PIECE; i++) { // unroll
                    let v = signed(loaded[i]);
                    at = select(at, Words(PIECE * k + i), v > found);
                    found = select(found, v, v > found);
                    loudest = max(loudest, magnitudes(v));
                }
            }
        }
    }
    let lost = all_max(lane, select(0.0, 1.0, loudest_of(loudest) > INFINITE)) > 0.0;
    let most = all_max(lane, largest(found));
    var earliest = select(Lanes(), earliness(places_of(at)), found == Lanes(most));
    if (lost) {
        earliest = Lanes();
        for (var k = lane; k < LENGTH / (LANES * PIECE); k += team) {
            let loaded = piece(base + k);
            for (var i = 0u; i < PIECE; i++) { // unroll
                let hit = magnitudes(loaded[i]) > Words(INFINITE);
                earliest = max(earliest, select(Lanes(), earliness(places_of(Words(PIECE * k + i))), hit));
            }
        }
    }
    let first = all_max(lane, largest(earliest));
    if (lane == 0u && live) {
        // None is found where the largest element is subnormal and the device took it for zero in its maximum alone.
        places[line] = min(LAST - bitcast<u32>(first), LENGTH - 1u);
    }
}
