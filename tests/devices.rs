//! Devices that come, go, and belong to somebody else.

use shadegrad::gpu::{Options, adapters};
use shadegrad::graph::{Arg, Candidate, Caps, Desc, Io, Kernel, Op, Role, Shader};
use shadegrad::io::{Checkpoint, state_dict};
use shadegrad::nn::{self, Module};
use shadegrad::optim::Adam;
use shadegrad::train::Session;
use shadegrad::{Error, Gpu, Graph, Param, Program, Result, Tensor, wgpu};
use std::collections::BTreeMap;

/// A small network in training on one fixed batch.
fn training(gpu: &Gpu) -> Result<(nn::Sequential, Program, Tensor)> {
    nn::manual_seed(1);
    let net = nn::sequential((nn::Linear::new(6, 16), nn::Relu, nn::Linear::new(16, 3)));
    let g = Graph::new();
    let values: Vec<f32> = (0..48).map(|i| (i % 7) as f32 - 3.0).collect();
    let loss = net.forward(&g.constant([8, 6], &values)).cross_entropy(&g.constant_u32([8], &[0, 1, 2, 0, 1, 2, 0, 1]));
    let step = gpu.compile(&g.minimize(&loss, Adam::new(0.01)))?;
    Ok((net, step, loss))
}

#[test]
fn an_adapter_that_is_not_there_is_named_beside_those_that_are() {
    let options = Options { adapter: Some("no such thing".into()), ..Options::default() };
    let message = Gpu::open(&options).unwrap_err().to_string();
    let present = adapters()[0].get_info().name.clone();
    assert!(message.contains("no such thing") && message.contains(&present), "{message}");
}

#[test]
fn an_adapter_is_chosen_by_backend_or_by_a_part_of_its_name() -> Result<()> {
    let first = adapters()[0].get_info();
    let part: String = first.name.chars().take(4).collect::<String>().to_uppercase();
    for wanted in [first.backend.to_string(), part.clone(), format!("{}:{part}", first.backend)] {
        let gpu = Gpu::open(&Options { adapter: Some(wanted.clone()), ..Options::default() })?;
        assert_eq!(gpu.info().name, first.name, "{wanted}");
    }
    Ok(())
}

#[test]
fn a_lost_device_is_an_error_and_the_last_checkpoint_is_intact() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.safetensors");
    let gpu = Gpu::new()?;
    let (net, step, loss) = training(&gpu)?;
    let session = Session::new(&step, net.parameters(), 1)?;
    step.run()?;
    session.save(&path, 1, 0, &BTreeMap::new())?;
    let saved = state_dict(&gpu, &net.parameters())?;

    gpu.device().destroy();
    // The loss is reported with the next poll at the latest.
    let error = (0..10).find_map(|_| step.run().and_then(|()| gpu.wait()).err()).expect("the device is gone");
    assert!(matches!(error, Error::DeviceLost(_)), "{error}");
    assert!(error.to_string().contains("checkpoint"), "{error}");
    assert!(step.read(&loss).is_err());
    assert!(session.save(&path, 2, 0, &BTreeMap::new()).is_err());

    assert_eq!(Checkpoint::load(&path)?.model, saved);
    let fresh = Gpu::new()?;
    let (net, step, _) = training(&fresh)?;
    assert_eq!(Session::new(&step, net.parameters(), 1)?.resume(&path)?, 1);
    assert_eq!(state_dict(&fresh, &net.parameters())?, saved);
    Ok(())
}

#[test]
fn a_guest_records_into_the_host_s_encoder_and_leaves_its_error_handler_alone() -> Result<()> {
    let adapter = adapters().remove(0);
    let (device, queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).expect("the host's device");
    let errors = std::sync::Arc::new(std::sync::Mutex::new(0));
    let counted = errors.clone();
    device.on_uncaptured_error(std::sync::Arc::new(move |_| *counted.lock().expect("the count") += 1));

    let gpu = Gpu::from_wgpu(&device, &queue);
    let g = Graph::inference();
    let x = g.input([5]);
    let y = &x * 2.0 + 1.0;
    let program = gpu.compile(&g.function([&y]))?;
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    assert!(program.record(&mut encoder).is_err_and(|error| error.to_string().contains("never written")));
    program.write(&x, &[1.0, 2.0, 3.0, 4.0, 5.0])?;
    program.record(&mut encoder)?;
    program.record(&mut encoder)?;
    queue.submit([encoder.finish()]);
    assert_eq!(program.read(&y)?, [3.0, 5.0, 7.0, 9.0, 11.0]);

    // A mistake of the host's own still reaches the host's handler.
    let _ = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 16,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    assert_eq!(*errors.lock().expect("the count"), 1);

    // That the device is lost only the host hears, and tells.
    gpu.device_lost("unplugged");
    assert!(matches!(program.run(), Err(Error::DeviceLost(reason)) if reason == "unplugged"));
    Ok(())
}

#[test]
fn warming_up_computes_nothing() -> Result<()> {
    for adapter in ["vulkan", "gl"] {
        let gpu = Gpu::open(&Options { adapter: Some(adapter.into()), ..Options::default() })?;
        let (net, step, loss) = training(&gpu)?;
        let before = state_dict(&gpu, &net.parameters())?;
        step.warm_up()?;
        gpu.wait()?;
        assert_eq!(state_dict(&gpu, &net.parameters())?, before);
        step.run()?;
        let warmed = (step.read(&loss)?, state_dict(&gpu, &net.parameters())?);
        let (net, step, loss) = training(&gpu)?;
        step.run()?;
        assert!(warmed == (step.read(&loss)?, state_dict(&gpu, &net.parameters())?) && warmed.1 != before);
    }
    Ok(())
}

#[test]
fn all_run_time_checks_change_nothing_but_speed() -> Result<()> {
    let mut answers = Vec::new();
    for checked in [false, true] {
        let gpu = Gpu::open(&Options { checked, ..Options::default() })?;
        let (net, step, _) = training(&gpu)?;
        (0..5).try_for_each(|_| step.run())?;
        answers.push(state_dict(&gpu, &net.parameters())?);
    }
    assert_eq!(answers[0], answers[1]);
    Ok(())
}

/// Takes the element of four that its input names, wherever that is.
#[derive(Debug)]
struct Pick;

impl Op for Pick {
    fn name(&self) -> &'static str {
        "pick"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::f32([1])])
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        const PICK: Shader = Shader {
            name: "pick.wgsl",
            source: "
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<workgroup> four: array<f32, 4>;
@compute @workgroup_size(1)
fn pick() {
    for (var i = 0u; i < 4u; i++) { four[i] = f32(i + 1u); }
    y[0] = four[x[0]];
}
",
        };
        vec![Candidate::single("only", Kernel::new(PICK, "pick").bind([Arg::In(0), Arg::Out(0)]))]
    }
}

#[test]
fn an_operation_from_outside_keeps_the_run_time_checks() -> Result<()> {
    let gpu = Gpu::new()?;
    let g = Graph::new();
    let x = g.input_u32([1]);
    let y = g.custom(Pick, &[&x]).remove(0);
    let program = gpu.compile(&g.function([&y]))?;
    assert!(program.plan().checked);
    // wgpu reads the last element in the place of one that there is not.
    for (at, want) in [(0, 1.0), (3, 4.0), (5, 4.0), (2_000, 4.0)] {
        program.write_u32(&x, &[at])?.run()?;
        assert_eq!(program.read(&y)?, [want], "{at}");
    }
    Ok(())
}

#[test]
fn a_parameter_is_at_home_on_one_device_and_limits_are_named() -> Result<()> {
    let (here, there) = (Gpu::new()?, Gpu::new()?);
    let weight = Param::new("scale", Role::Weight, [4], &[1.0, 2.0, 3.0, 4.0]);
    let ask = |gpu: &Gpu| {
        let g = Graph::new();
        gpu.compile(&g.function([&(g.param(&weight) * 2.0)]))
    };
    ask(&here)?;
    let message = ask(&there).err().expect("the other device").to_string();
    assert!(message.contains("scale") && message.contains("another device"), "{message}");

    let g = Graph::new();
    let huge = g.input([1 << 20, 1 << 10]);
    let message = here.compile(&g.function([&huge.relu()])).err().expect("4 GiB in one binding").to_string();
    assert!(message.contains("4294967296 bytes") && message.contains("smaller batch"), "{message}");
    Ok(())
}

#[test]
fn the_memory_of_a_program_serves_the_next() -> Result<()> {
    let gpu = Gpu::open(&Options { mirrors: Some(false), ..Options::default() })?;
    let scale = |n: usize| {
        let g = Graph::new();
        let x = g.input([n]);
        let y = &x * 2.0;
        gpu.compile(&g.function([&y])).map(|program| (program, x, y))
    };
    let bytes = scale(1 << 16)?.0.bytes();
    // What the results are read through.
    const READ: u64 = 4 << 16;
    for _ in 0..3 {
        let (program, x, y) = scale(1 << 16)?;
        program.write(&x, &vec![1.5; 1 << 16])?.run()?;
        assert!(program.read(&y)?.iter().all(|v| *v == 3.0));
    }
    // A program of another size takes none of it, and what it gives back comes on top.
    drop(scale(1 << 10)?);
    assert_eq!(gpu.trim(), bytes + 2 * 4096 + READ);
    assert_eq!(gpu.trim(), 0);
    Ok(())
}

/// Run by [`exhausted_memory_is_an_error_and_the_last_checkpoint_is_intact`] in a process that may not take much.
#[test]
#[ignore = "a part of another test"]
fn with_little_memory() -> Result<()> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.safetensors");
    let gpu = Gpu::new()?;
    let (net, step, loss) = training(&gpu)?;
    let session = Session::new(&step, net.parameters(), 1)?;
    step.run()?;
    session.save(&path, 1, 0, &BTreeMap::new())?;
    let saved = state_dict(&gpu, &net.parameters())?;
    let before = step.read(&loss)?;

    // 64 MiB in and 64 MiB out, until there is no more.
    let hog = || {
        let g = Graph::new();
        gpu.compile(&g.function([&(g.input([16 << 20]) * 2.0)]))
    };
    let mut hogs = Vec::new();
    let error = loop {
        match hog() {
            Ok(program) => hogs.push(program),
            Err(error) => break error,
        }
        assert!(hogs.len() < 100, "12.8 GB were granted");
    };
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert!(error.to_string().contains("smaller batch"), "{error}");

    // Nothing that was there is harmed, and training goes on.
    assert_eq!(state_dict(&gpu, &net.parameters())?, saved);
    assert_eq!(Checkpoint::load(&path)?.model, saved);
    step.run()?;
    assert!(step.read(&loss)?[0] < before[0]);
    // What some give back is enough for one more.
    hogs.truncate(hogs.len().saturating_sub(2));
    hog().map(drop)
}

#[cfg(target_os = "linux")]
#[test]
fn exhausted_memory_is_an_error_and_the_last_checkpoint_is_intact() {
    if !adapters().first().is_some_and(|a| a.get_info().device_type == wgpu::DeviceType::Cpu) {
        println!("NOT RUN: only where the device's memory is the process's can it be limited");
        return;
    }
    let test = std::env::current_exe().expect("this test");
    let limited = format!("ulimit -v 6000000; exec '{}' --exact with_little_memory --ignored", test.display());
    let output = std::process::Command::new("sh").args(["-c", &limited]).output().expect("a shell");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}{}", String::from_utf8_lossy(&output.stderr));
}
