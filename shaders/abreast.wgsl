// A subgroup's lanes abreast: where a driver that runs shaders on a CPU can tell that an address is the same in a whole
// subgroup, it loads and stores there once, not lane by lane with tests for each of them (src/graph/abreast.rs).

// This lane's number in its subgroup; entry points set it.
var<private> own_lane: u32;

// The place of this lane's element: an expression in which `own_lane` stands and, but for it, only literals and what
// `subgroup_uniform` returns. As an index it belongs outside of branches and of loops that are not written out: within one,
// every lane would load all lanes' elements by itself, and stores need all lanes.
fn abreast(place: u32) -> u32 {
    return place;
}

// n, which is the same in all lanes and below `most`, a constant of at most 2^25.
fn subgroup_uniform(n: u32, most: u32) -> u32 {
    return n;
}

// The first of the `size` places that the n-th subgroup takes of `count`. Where the last one would have fewer, and for those
// in excess, they are others' places again.
fn stretch(n: u32, size: u32, count: u32) -> u32 {
    let last = count - size;
    return min(subgroup_uniform(n, last / size + 2u) * size, last);
}
