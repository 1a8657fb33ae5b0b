// One value for a whole workgroup of WIDTH invocations, combined in a fixed tree.

const WIDTH = 128u; // a power of two

var<workgroup> shared_values: array<f32, WIDTH>;

fn all_max(lane: u32, value: f32) -> f32 {
    shared_values[lane] = value;
    workgroupBarrier();
    for (var half = WIDTH / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            shared_values[lane] = max(shared_values[lane], shared_values[lane + half]);
        }
        workgroupBarrier();
    }
    let result = shared_values[0];
    workgroupBarrier();
    return result;
}

fn all_sum(lane: u32, value: f32) -> f32 {
    shared_values[lane] = value;
    workgroupBarrier();
    for (var half = WIDTH / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            shared_values[lane] += shared_values[lane + half];
        }
        workgroupBarrier();
    }
    let result = shared_values[0];
    workgroupBarrier();
    return result;
}

// The same with the subgroups' own sums and maxima, in two barriers instead of one for each halving. Neighbours are in one
// subgroup; of how many, only the device knows.
fn all_max_by_subgroups(lane: u32, value: f32) -> f32 {
    let size = subgroupAdd(1u);
    let own = subgroupMax(value);
    if (lane % size == 0u) {
        shared_values[lane / size] = own;
    }
    workgroupBarrier();
    var result = shared_values[0];
    for (var s = 1u; s < WIDTH / size; s++) {
        result = max(result, shared_values[s]);
    }
    workgroupBarrier();
    return result;
}

fn all_sum_by_subgroups(lane: u32, value: f32) -> f32 {
    let size = subgroupAdd(1u);
    let own = subgroupAdd(value);
    if (lane % size == 0u) {
        shared_values[lane / size] = own;
    }
    workgroupBarrier();
    var result = shared_values[0];
    for (var s = 1u; s < WIDTH / size; s++) {
        result += shared_values[s];
    }
    workgroupBarrier();
    return result;
}

// The same for a team that is one subgroup.
fn all_max_of_subgroup(lane: u32, value: f32) -> f32 {
    return subgroupMax(value);
}

fn all_sum_of_subgroup(lane: u32, value: f32) -> f32 {
    return subgroupAdd(value);
}
