//! The sanitizer against planted faults, and against a network without any.

use shadegrad::gpu::Options;
use shadegrad::graph::{Arg, Candidate, Caps, Desc, Io, Kernel, Op, Role, Shader};
use shadegrad::ops::{Conv2dOptions, PadMode, Window};
use shadegrad::optim::Adam;
use shadegrad::{DType, Error, Gpu, Graph, Param, Tensor};

/// Each entry point copies x to y, and is wrong in one place.
const FAULTS: Shader = Shader {
    name: "faults.wgsl",
    source: "
const COUNT = 1u;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(0) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> bits: array<u32>;

@compute @workgroup_size(64)
fn right(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT) { y[id.x] = x[id.x]; }
}

@compute @workgroup_size(64)
fn right_by_four(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < (COUNT + 3u) / 4u) { y4[id.x] = x4[id.x]; }
}

@compute @workgroup_size(64)
fn four_too_many(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x <= (COUNT + 3u) / 4u) { y4[id.x] = x4[0]; }
}

@compute @workgroup_size(64)
fn past_end(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x <= COUNT) { y[id.x] = x[min(id.x, COUNT - 1u)]; }
}

@compute @workgroup_size(64)
fn far_past_end(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT) { y[id.x] = x[id.x]; }
    if (id.x == 0u) { y[COUNT + 1000u] = 1.0; }
}

@compute @workgroup_size(64)
fn unwritten(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT && id.x != 23u) { y[id.x] = x[id.x]; }
}

@compute @workgroup_size(64)
fn accumulates(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT) { y[id.x] += x[id.x]; }
}

@compute @workgroup_size(64)
fn reads_past_end(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT) { y[id.x] = x[id.x + 1u]; }
}

@compute @workgroup_size(64)
fn makes_nan(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COUNT) { return; }
    let zero = x[id.x] - x[id.x];
    y[id.x] = select(x[id.x], zero / zero, id.x == 17u);
}

@compute @workgroup_size(64)
fn makes_nan_bits(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT) { bits[id.x] = 0x7fc00000u; }
}

@compute @workgroup_size(64)
fn first_half(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT / 2u) { y[id.x] = x[id.x]; }
}

@compute @workgroup_size(64)
fn second_half(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COUNT / 2u && id.x < COUNT) { y[id.x] = x[id.x]; }
}

@compute @workgroup_size(64)
fn most_of_second_half(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= COUNT / 2u && id.x < COUNT - 1u) { y[id.x] = x[id.x]; }
}
",
};

/// A copy of its first input by these kernels, one after the other.
#[derive(Debug)]
struct Copy(&'static [&'static str], DType);

impl Op for Copy {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::new(inputs[0].shape.clone(), self.1)])
    }

    fn candidates(&self, io: &Io<'_>, caps: &Caps) -> Vec<Candidate> {
        let kernel = |&entry: &&'static str| {
            Kernel::new(FAULTS, entry)
                .set("COUNT", io.elements())
                .bind([Arg::In(0), Arg::Out(0)])
                .grid(caps.fold(io.elements().div_ceil(64) + 1))
        };
        vec![Candidate::new("planned", self.0.iter().map(kernel).collect(), Vec::new())]
    }
}

/// A copy through scratch memory.
#[derive(Debug)]
struct ByScratch(&'static str);

impl Op for ByScratch {
    fn name(&self) -> &'static str {
        "by_scratch"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(inputs.to_vec())
    }

    fn candidates(&self, io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        let kernel = |entry| Kernel::new(FAULTS, entry).set("COUNT", io.elements()).grid([2, 1, 1]);
        let first = kernel(self.0).bind([Arg::In(0), Arg::ScratchOut(0)]);
        let second = kernel("right").bind([Arg::ScratchIn(0), Arg::Out(0)]);
        vec![Candidate::new("scratch", vec![first, second], vec![io.elements() * 4])]
    }
}

/// The sum of its packed inputs, and of their places in the pack where they end.
#[derive(Debug)]
struct Packed;

impl Op for Packed {
    fn name(&self) -> &'static str {
        "packed"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![inputs[0].clone()])
    }

    fn candidates(&self, io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        const SUM: Shader = Shader {
            name: "packed.wgsl",
            source: "
const COUNT = 1u;
const SECOND = 0u;
@group(0) @binding(0) var<storage, read> pack: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn packed(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT) { y[id.x] = pack[id.x] + pack[SECOND + id.x]; }
}
",
        };
        let kernel = Kernel::new(SUM, "packed").set("COUNT", io.elements()).set("SECOND", io.pack[1]);
        vec![Candidate::single("packed", kernel.bind([Arg::Pack, Arg::Out(0)]))]
    }

    fn packed(&self, _inputs: usize) -> usize {
        2
    }
}

/// Adds its input to the first parameter; wrong ones touch others.
#[derive(Debug)]
struct Add {
    entry: &'static str,
    arg: Arg,
    params: Vec<Param>,
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(Vec::new())
    }

    fn candidates(&self, io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        const ADD: Shader = Shader {
            name: "add.wgsl",
            source: "
const COUNT = 1u;
const START = 0u;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> state: array<f32>;
@compute @workgroup_size(128)
fn add(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT) { state[START + id.x] += x[id.x]; }
}
@compute @workgroup_size(128)
fn add_too_many(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x <= COUNT) { state[START + id.x] += x[min(id.x, COUNT - 1u)] + 1.0; }
}
@compute @workgroup_size(128)
fn add_elsewhere(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT) { state[START + id.x] += x[id.x]; }
    if (id.x == 0u) { state[START + 64u + 2u] += 1.0; }
}
@compute @workgroup_size(128)
fn add_nan(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < COUNT) { state[START + id.x] += select(x[id.x], sqrt(-1.0 - abs(x[id.x])), id.x == 5u); }
}
",
        };
        let start = if matches!(self.arg, Arg::Slab(_)) { io.state[0].offset } else { 0 };
        let kernel = Kernel::new(ADD, self.entry).set("COUNT", io.inputs[0].elements()).set("START", start);
        vec![Candidate::single("add", kernel.bind([Arg::In(0), self.arg.clone()]))]
    }

    fn state(&self) -> Vec<Param> {
        self.params.clone()
    }
}

fn open(sanitize: bool, candidate: usize) -> Gpu {
    Gpu::open(&Options { sanitize, candidate: Some(candidate), ..Default::default() }).expect("an adapter")
}

/// What the sanitizer says of `build`'s output for the input 1, 2, 3..., with element `nan` replaced.
fn run(count: usize, nan: Option<usize>, build: impl Fn(&Tensor) -> Tensor) -> Result<Vec<f32>, Error> {
    let g = Graph::new();
    let x = g.input([count]);
    let y = build(&x);
    let program = open(true, 0).compile(&g.function([&y]))?;
    let mut values: Vec<f32> = (1..=count).map(|i| i as f32).collect();
    if let Some(at) = nan {
        values[at] = f32::NAN;
    }
    program.write(&x, &values)?.run()?;
    program.read(&y)
}

fn planted(x: &Tensor, entries: &'static [&'static str]) -> Tensor {
    x.graph().custom(Copy(entries, DType::F32), &[x]).remove(0)
}

/// Asserts that a finding names `kernel`, `node` and `element`, and that its sentence has all of `parts`.
#[track_caller]
fn finds<T>(result: Result<T, Error>, kernel: &str, node: &str, element: usize, parts: &[&str]) {
    let Err(error) = result else { panic!("the fault of {kernel} was not found") };
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} not in {message:?}");
    let Error::Sanitizer { kernel: found, node: label, element: at, .. } = error else { panic!("{message}") };
    assert_eq!((found.as_str(), label.as_str(), at), (kernel, node, element), "{message}");
}

#[test]
fn a_write_past_the_end_is_found() {
    // 61 elements leave room in the last vec4, 64 do not; neither may be written.
    for count in [61, 64] {
        let found = run(count, None, |x| planted(x, &["past_end"]));
        finds(found, "faults.wgsl:past_end", "planted", count, &["candidate planned", "1 (output 0)", "past the end"]);
    }
    let found = run(61, None, |x| planted(x, &["far_past_end"]));
    finds(found, "faults.wgsl:far_past_end", "planted", 1061, &["1 in all"]);
    // Kernels that declare vec4s may write whole ones, but no more.
    assert!(run(61, None, |x| planted(x, &["right_by_four"])).is_ok());
    let found = run(61, None, |x| planted(x, &["four_too_many"]));
    finds(found, "faults.wgsl:four_too_many", "planted", 64, &["4 in all"]);
}

#[test]
fn an_unwritten_element_is_found() {
    let found = run(61, None, |x| planted(x, &["unwritten"]));
    finds(found, "faults.wgsl:unwritten", "planted", 23, &["candidate planned", "never written", "1 of 61"]);
    let found = run(61, None, |x| planted(x, &["accumulates"]));
    finds(found, "faults.wgsl:accumulates", "planted", 0, &["61 of 61"]);
    let found = run(61, None, |x| x.graph().custom(ByScratch("unwritten"), &[x]).remove(0));
    finds(found, "faults.wgsl:unwritten", "by_scratch", 23, &["1 (scratch 0)"]);
    assert!(run(61, None, |x| x.graph().custom(ByScratch("right"), &[x]).remove(0)).is_ok());
}

#[test]
fn an_output_may_be_written_by_several_dispatches() {
    let halves = run(61, None, |x| planted(x, &["first_half", "second_half"])).unwrap();
    assert_eq!(halves, (1..=61).map(|i| i as f32).collect::<Vec<_>>());
    let found = run(61, None, |x| planted(x, &["first_half", "most_of_second_half"]));
    finds(found, "faults.wgsl:most_of_second_half", "planted", 60, &["never written"]);
}

#[test]
fn a_nan_is_found_where_it_is_made() {
    let found = run(61, None, |x| planted(&(x * 2.0), &["makes_nan"]).relu());
    finds(found, "faults.wgsl:makes_nan", "planted", 17, &["NaN", "1 of 61"]);
    // Bits that would be a NaN are none in an output of integers.
    let integers =
        run(61, None, |x| x.graph().custom(Copy(&["makes_nan_bits"], DType::U32), &[x]).remove(0).cast(DType::F32));
    assert!(integers.is_ok());
}

#[test]
fn a_nan_that_came_in_is_no_finding() {
    let y = run(61, Some(40), |x| planted(x, &["right"]) * 3.0).unwrap();
    assert!(y[40].is_nan() && y[41] == 126.0);
    assert!(run(61, Some(40), |x| planted(x, &["first_half", "second_half"])).is_ok());
    // Also as f16, in memory between two dispatches.
    let halves = run(61, Some(40), |x| {
        let one = x.graph().full([1, 1], 1.0);
        x.reshape([61, 1]).cast(DType::F16).matmul(&one).reshape([61])
    });
    assert!(halves.unwrap()[40].is_nan());
    // Other faults are found beside it.
    let found = run(61, Some(40), |x| planted(x, &["unwritten"]));
    finds(found, "faults.wgsl:unwritten", "planted", 23, &["1 of 61"]);
}

#[test]
fn a_read_past_the_end_is_found_in_what_it_makes() {
    for count in [61, 64] {
        let found = run(count, None, |x| planted(x, &["reads_past_end"]));
        finds(found, "faults.wgsl:reads_past_end", "planted", count - 1, &["past the end of an input"]);
    }
}

#[test]
fn packed_neighbours_have_a_guard_between_them() {
    let sum = |entries: &'static [&'static str]| {
        run(64, None, move |x| {
            let (a, b) = (planted(x, entries), planted(&(x * 10.0), &["right"]));
            x.graph().custom(Packed, &[&a, &b]).remove(0)
        })
    };
    assert_eq!(sum(&["right"]).unwrap(), (1..=64).map(|i| 11.0 * i as f32).collect::<Vec<_>>());
    finds(sum(&["past_end"]), "faults.wgsl:past_end", "planted", 64, &["past the end"]);
}

#[test]
fn state_is_only_changed_where_it_is_declared() {
    let add = |entry, arg: Arg, both: bool, x0: f32| {
        let g = Graph::new();
        let (mine, other) =
            (Param::new("mine", Role::State, [64], &[1.0; 64]), Param::new("other", Role::State, [64], &[]));
        let x = g.input([64]);
        let params = if both { vec![mine.clone(), other.clone()] } else { vec![mine.clone()] };
        let update = g.custom_update(Add { entry, arg, params }, &[&x]);
        let gpu = open(true, 0);
        let program = gpu.compile(&g.function([&g.param(&other)]).update(update))?;
        program.write(&x, &[x0; 64])?.run()?;
        gpu.read_param(&mine)
    };
    for arg in [Arg::State(0), Arg::Slab(0)] {
        assert_eq!(add("add", arg.clone(), false, 2.0).unwrap(), [3.0; 64]);
        assert!(add("add", arg.clone(), false, f32::NAN).is_ok());
        let found = add("add_too_many", arg.clone(), false, 2.0);
        finds(found, "add.wgsl:add_too_many", "add", 64, &["element 0 of the parameter other", "not declare"]);
        let found = add("add_elsewhere", arg.clone(), false, 2.0);
        finds(found, "add.wgsl:add_elsewhere", "add", 66, &["element 2 of the parameter other"]);
        assert!(add("add_elsewhere", arg.clone(), true, 2.0).is_ok());
        finds(add("add_nan", arg, false, 2.0), "add.wgsl:add_nan", "add", 5, &["parameter mine", "NaN"]);
    }
}

/// Two training steps of a network of many ops: its loss, gradients and weights, each value as bits.
fn network(gpu: &Gpu) -> Result<Vec<Vec<u32>>, Error> {
    let g = Graph::new();
    let numbers = |count: usize, scale: f32| -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + 13) % 1009) as f32 / 1009.0 * scale - scale / 2.0).collect()
    };
    let weight = |name: &str, shape: &[usize]| {
        g.param(&Param::new(name, Role::Weight, shape, &numbers(shape.iter().product(), 0.6)))
    };
    let (x, labels) = (g.input([3, 2, 13, 11]), g.input_u32([3]));
    let weights = [
        weight("conv", &[5, 2, 3, 3]),
        weight("bias", &[5, 1, 1]),
        weight("deep", &[7, 5, 3, 2]),
        weight("linear", &[6, 150]),
        weight("last", &[6]),
    ];
    let [conv, bias, deep, linear, last] = &weights;
    let h = (x.conv2d(conv, &Conv2dOptions::new().padding([1, 1])) + bias).relu();
    let h = h.max_pool2d(&Window::new([2, 2]));
    let strided = h.conv2d(deep, &Conv2dOptions::new().stride([2, 1]).padding([1, 0]));
    let pooled = strided.avg_pool2d(&Window::new([3, 3]).stride([1, 1]).padding([1, 1])).gelu();
    let flat = pooled.flatten(1);
    let wide = flat.concat(&[&flat.cumsum(1).tanh().flip(1)], 1).pad(&[(0, 0), (1, 200)], PadMode::Constant(0.5));
    let h = wide.narrow(1, 0, 150).linear(linear, Some(last)).dropout(0.25);
    let scores = h.softmax(1) + h.log_softmax(0) * 0.1 + h.var(&[1], 1.0, true) + h.amax(&[0, 1], true);
    let index = g.constant_u32([4], &[5, 0, 3, 3]);
    let picked = scores.index_select(1, &index).prod(&[1], false).permute(&[0]).sum(&[], false);
    let loss = scores.cross_entropy(&labels) + picked + h.mean(&[0, 1], false) + h.norm(&[1], false).sum(&[0], false);
    let best = scores.argmax(&[1], false);
    let mut outputs = vec![loss.clone(), scores, best];
    outputs.extend(g.grad(&loss, weights.iter().chain([&x])));
    let function = outputs
        .iter()
        .fold(g.minimize(&loss, Adam::new(1e-3).clip_norm(1.0)), |function, output| function.output(output));
    let program = gpu.compile(&function)?;
    program.write(&x, &numbers(3 * 2 * 13 * 11, 2.0))?.write_u32(&labels, &[4, 0, 5])?;
    program.run()?;
    program.run()?;
    let mut bits: Vec<Vec<u32>> =
        outputs.iter().map(|output| program.fetch(output)?.wait()).collect::<Result<_, _>>()?;
    bits.extend(gpu.read_params(program.params())?);
    Ok(bits)
}

#[test]
fn a_network_runs_clean_with_the_same_bits() {
    for candidate in 0..3 {
        let [plain, sanitized] = [false, true].map(|sanitize| network(&open(sanitize, candidate)).unwrap());
        assert!(plain.iter().flatten().any(|word| *word != 0));
        assert_eq!(plain, sanitized, "candidate {candidate}");
    }
}

#[test]
fn long_sums_run_clean() {
    for candidate in 0..3 {
        let [plain, sanitized] = [false, true].map(|sanitize| {
            let g = Graph::new();
            let (a, b) = (g.input([3, 1031]), g.input([1031, 65]));
            let y = a.matmul(&b);
            let outputs = [y.clone(), a.sum(&[], false), b.amax(&[0], false), b.mean(&[1], true)];
            let program = open(sanitize, candidate).compile(&g.function(&outputs)).unwrap();
            let fill = |n: usize| (0..n).map(|i| (i % 17) as f32 - 8.0).collect::<Vec<_>>();
            program.write(&a, &fill(3 * 1031)).unwrap().write(&b, &fill(1031 * 65)).unwrap().run().unwrap();
            outputs.iter().map(|y| program.fetch(y).unwrap().wait().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(plain, sanitized, "candidate {candidate}");
    }
}

/// Run by [`the_environment_turns_it_on`] in a process of its own.
#[test]
#[ignore = "a part of another test"]
fn with_the_environment() {
    let gpu = Gpu::new().expect("an adapter");
    let g = Graph::new();
    let x = g.input([61]);
    let program = gpu.compile(&g.function([&planted(&x, &["unwritten"])])).unwrap();
    program.write(&x, &[1.0; 61]).unwrap();
    let on = std::env::var("SHADEGRAD_SANITIZE").is_ok_and(|v| v == "1");
    assert_eq!(matches!(program.run(), Err(Error::Sanitizer { element: 23, .. })), on);
}

#[test]
fn the_environment_turns_it_on() {
    for value in ["1", "0"] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "with_the_environment", "--ignored"]).env("SHADEGRAD_SANITIZE", value);
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }
}
