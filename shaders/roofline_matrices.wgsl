// How fast a device multiplies cooperative matrices that are in registers. Not part of any network.
enable wgpu_cooperative_matrix;
enable f16;
// include: grid.wgsl

const TURNS = 1u;
const GROUP = 128u;
const SIZE = 16u; // rows and columns: 8 or 16
alias Element = f16;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;

@group(0) @binding(0) var<storage, read_write> results: array<f32>; // SIZE x SIZE per workgroup
var<workgroup> factors: array<Element, 4u * SIZE * SIZE>;

// 8 TURNS products per subgroup, all of which have the same results; the factors are not known to the compiler.
@compute @workgroup_size(GROUP)
fn products(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group_index(group, groups) * SIZE * SIZE;
    for (var i = lane; i < 4u * SIZE * SIZE; i += GROUP) {
        factors[i] = Element(results[first + i % (SIZE * SIZE)] * 0.01 * f32(1u + i / (SIZE * SIZE)));
    }
    workgroupBarrier();
    let a_0 = coopLoad<Left>(&factors[0], SIZE);
    let a_1 = coopLoad<Left>(&factors[SIZE * SIZE], SIZE);
    let b_0 = coopLoad<Right>(&factors[2u * SIZE * SIZE], SIZE);
    let b_1 = coopLoad<Right>(&factors[3u * SIZE * SIZE], SIZE);
    var sum_0 = Sum();
    var sum_1 = Sum();
    var sum_2 = Sum();
    var sum_3 = Sum();
    for (var t = 0u; t < 2u * TURNS; t++) {
        sum_0 = coopMultiplyAdd(a_0, b_0, sum_0);
        sum_1 = coopMultiplyAdd(a_0, b_1, sum_1);
        sum_2 = coopMultiplyAdd(a_1, b_0, sum_2);
        sum_3 = coopMultiplyAdd(a_1, b_1, sum_3);
    }
    coopStore(sum_0 + sum_1 + sum_2 + sum_3, &results[first], SIZE);
}
