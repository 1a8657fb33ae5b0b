// A subgroup's lanes abreast: where a driver that runs shaders on a CPU can tell that an address is the same in a whole
// subgroup, it loads and stores there once, not lane by lane with tests for each of them (src/graph/abreast.rs).

// This lane's number in its subgroup; entry points set it.
var<private> own_lane: u32;

// The place of this lane's element in a stretch that begins at `first`, which is the same in all lanes and made of literals and
// of what `subgroup_uniform` returns. As an index it belongs outside of branches and of loops that are not written out: within
// one, every lane would load the whole stretch by itself, and stores need all lanes.
fn abreast(first: u32) -> u32 {
    return first + own_lane;
}

// n, which is the same in all lanes and below `most`, a constant of at most 2^25.
fn subgroup_uniform(n: u32, most: u32) -> u32 {
    return n;
}
