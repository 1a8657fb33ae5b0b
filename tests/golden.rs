//! The engine against PyTorch's answers, on each adapter, with full and with WebGPU's limits, with every kernel.

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use shadegrad::Gpu;
use shadegrad::gpu::{Options, adapters};

use support::engine::{self, Answer, Got, Outcome};
use support::golden::{self, Case, Tensor, Tolerance};
use support::reference::compare;

#[test]
fn vulkan() {
    check("", "vulkan", Options::default());
}

#[test]
fn vulkan_with_webgpu_limits() {
    check(" (vulkan, WebGPU's limits)", "vulkan", Options { webgpu_limits: true, ..Options::default() });
}

#[test]
fn vulkan_with_second_kernels() {
    // As on a GPU: operands in buffers.
    let options = Options { candidate: Some(1), mirrors: Some(false), ..Options::default() };
    check(" (vulkan, second kernels)", "vulkan", options);
}

#[test]
fn vulkan_with_third_kernels() {
    check(" (vulkan, third kernels)", "vulkan", Options { candidate: Some(2), ..Options::default() });
}

#[test]
fn vulkan_with_fourth_kernels() {
    check(" (vulkan, fourth kernels)", "vulkan", Options { candidate: Some(3), ..Options::default() });
}

#[test]
fn vulkan_with_fifth_kernels() {
    check(" (vulkan, fifth kernels)", "vulkan", Options { candidate: Some(4), ..Options::default() });
}

#[test]
fn vulkan_with_sixth_kernels() {
    check(" (vulkan, sixth kernels)", "vulkan", Options { candidate: Some(5), ..Options::default() });
}

#[test]
fn vulkan_through_textures() {
    check(" (vulkan, operands in textures)", "vulkan", Options { mirrors: Some(true), ..Options::default() });
}

#[test]
fn gl_through_textures() {
    check(" (gl, operands in textures)", "gl", Options { mirrors: Some(true), ..Options::default() });
}

#[test]
fn vulkan_under_the_sanitizer() {
    check(" (vulkan, sanitizer)", "vulkan", Options { sanitize: true, ..Options::default() });
}

#[test]
fn vulkan_through_textures_under_the_sanitizer() {
    let options = Options { sanitize: true, mirrors: Some(true), ..Options::default() };
    check(" (vulkan, operands in textures, sanitizer)", "vulkan", options);
}

/// What a GPU is given.
fn as_gpu(title: &str, options: Options) {
    check(&format!(" (vulkan, kernels for GPUs{title})"), "vulkan", Options { as_gpu: true, ..options });
}

#[test]
fn kernels_for_gpus() {
    as_gpu("", Options::default());
}

#[test]
fn kernels_for_gpus_with_webgpu_limits() {
    as_gpu(", WebGPU's limits", Options { webgpu_limits: true, ..Options::default() });
}

#[test]
fn second_kernels_for_gpus() {
    as_gpu(", second ones", Options { candidate: Some(1), ..Options::default() });
}

#[test]
fn third_kernels_for_gpus() {
    as_gpu(", third ones", Options { candidate: Some(2), ..Options::default() });
}

#[test]
fn fourth_kernels_for_gpus() {
    as_gpu(", fourth ones", Options { candidate: Some(3), ..Options::default() });
}

#[test]
fn fifth_kernels_for_gpus() {
    as_gpu(", fifth ones", Options { candidate: Some(4), ..Options::default() });
}

#[test]
fn sixth_kernels_for_gpus() {
    as_gpu(", sixth ones", Options { candidate: Some(5), ..Options::default() });
}

#[test]
fn gl() {
    check(" (gl)", "gl", Options::default());
}

#[test]
fn gl_with_webgpu_limits() {
    check(" (gl, WebGPU's limits)", "gl", Options { webgpu_limits: true, ..Options::default() });
}

#[test]
fn gl_with_second_kernels() {
    check(" (gl, second kernels)", "gl", Options { candidate: Some(1), ..Options::default() });
}

#[test]
fn gl_with_third_kernels() {
    check(" (gl, third kernels)", "gl", Options { candidate: Some(2), ..Options::default() });
}

#[test]
fn gl_with_fourth_kernels() {
    check(" (gl, fourth kernels)", "gl", Options { candidate: Some(3), ..Options::default() });
}

#[test]
fn gl_with_fifth_kernels() {
    check(" (gl, fifth kernels)", "gl", Options { candidate: Some(4), ..Options::default() });
}

#[test]
fn gl_with_sixth_kernels() {
    check(" (gl, sixth kernels)", "gl", Options { candidate: Some(5), ..Options::default() });
}

/// In one piece and past the test harness's capture, so that it is seen when all goes well, too.
fn say(lines: &[String]) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{}\n", lines.join("\n")).as_bytes()).and_then(|()| out.flush()).expect("standard output");
}

/// Runs every case on the adapter of this backend. Vulkan must be there; of any other, its absence is announced.
fn check(title: &str, backend: &str, options: Options) {
    let present = adapters().iter().any(|a| a.get_info().backend.to_string().eq_ignore_ascii_case(backend));
    if !present && backend != "vulkan" {
        return say(&[format!("golden{title}: NOT RUN, there is no {backend} adapter here")]);
    }
    let start = Instant::now();
    let gpu = Gpu::open(&Options { adapter: Some(backend.into()), ..options }).expect("the adapter");
    let mut tally = Tally::default();
    for case in golden::load().expect("a golden folder") {
        tally.take(&case, engine::run(&gpu, &case));
    }
    let mut lines = vec![tally.line(title)];
    lines.extend(tally.notes());
    lines.push(format!("  {:.1} s on {gpu}", start.elapsed().as_secs_f32()));
    say(&lines);
    let failures = tally.failures.join("\n");
    assert!(tally.failures.is_empty(), "{} of {} cases fail:\n{failures}", tally.failed, tally.ran);
    assert!(tally.ran > 0, "no case was run");
    if std::env::var_os("SHADEGRAD_GOLDEN").is_none() {
        assert!(tally.unsupported.is_empty(), "not supported: {:?}", tally.unsupported);
    }
}

#[derive(Default)]
struct Tally {
    ran: usize,
    failed: usize,
    failures: Vec<String>,
    unsupported: BTreeMap<String, usize>,
    /// Infinities, NaN, huge arguments: WGSL promises nothing for them.
    special: usize,
    /// The ops that differ there.
    special_misses: Vec<String>,
}

impl Tally {
    fn take(&mut self, case: &Case, outcome: shadegrad::Result<Outcome>) {
        let refused = outcome.is_err();
        let misses = match outcome {
            Ok(Outcome::Unsupported) => return *self.unsupported.entry(case.op.clone()).or_default() += 1,
            Ok(Outcome::Answer(answer)) => misses(case, &answer),
            Err(error) => vec![error.to_string()],
        };
        if case.id.starts_with("unary_special_") && !refused {
            self.special += 1;
            self.special_misses.extend((!misses.is_empty()).then(|| case.op.clone()));
            return;
        }
        self.ran += 1;
        self.failed += usize::from(!misses.is_empty());
        self.failures.extend(misses.iter().map(|miss| format!("{} {}: {miss}", case.op, case.id)));
    }

    fn line(&self, title: &str) -> String {
        let unsupported: usize = self.unsupported.values().sum();
        let (passed, ran) = (self.ran - self.failed, self.ran);
        format!("golden{title}: {passed} of {ran} cases pass, {unsupported} not yet supported")
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.unsupported.is_empty() {
            notes.push(format!("  not yet supported: {:?}", self.unsupported));
        }
        if self.special > 0 {
            let (count, misses) = (self.special_misses.len(), self.special_misses.join(", "));
            notes.push(format!("  special values, not counted: {count} of {} cases differ ({misses})", self.special));
        }
        notes
    }
}

/// What an answer lacks or misses.
fn misses(case: &Case, answer: &Answer) -> Vec<String> {
    let outputs = case.outputs.iter().map(|(name, want)| (name.clone(), want, answer.outputs.get(name)));
    let grads = case.grads.iter().map(|(name, want)| (format!("gradient of {name}"), want, answer.grads.get(name)));
    outputs.chain(grads).filter_map(|(name, want, got)| miss(got, want).map(|m| format!("{name}: {m}"))).collect()
}

fn miss(got: Option<&Got>, (want, tolerance): &(Tensor, Tolerance)) -> Option<String> {
    let Some(got) = got else { return Some("is missing".into()) };
    // Scalars are stored with shape [1].
    let scalar = want.shape == [1] && got.shape.is_empty();
    if !scalar && got.shape != want.shape {
        return Some(format!("has shape {:?}, not {:?}", got.shape, want.shape));
    }
    let Tolerance { rtol, atol, .. } = *tolerance;
    let worst = compare(&got.values, &want.to_array().data, rtol, atol).err()?;
    Some(format!("{worst} (rtol {rtol:e}, atol {atol:e})"))
}
