//! The engine against the plain f64 twins on random shapes: odd, prime, one, zero; and on shapes as large as bindings
//! allow. Everything is seeded.

#[path = "../support/mod.rs"]
mod support;

mod attention;
mod elementwise;
mod ends;
mod fusion;
mod halves;
mod large;
mod movement;
mod norms;
mod products;
mod recurrent;
mod reductions;
mod second;
mod trial;
mod windows;

/// All of it once more in a process of its own, on another adapter, or with this set in its environment.
fn elsewhere(adapter: &str, set: Option<&str>) {
    let present = shadegrad::gpu::adapters().iter().any(|a| a.get_info().backend.to_string() == adapter);
    if !present {
        println!("NOT RUN: there is no {adapter} adapter here");
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"));
    // What takes longest is the same code on either adapter.
    child
        .args(["--skip", "elsewhere_", "--skip", "large_recurrent", "--skip", "long_loops"])
        .env("SHADEGRAD_ADAPTER", adapter);
    child.envs(set.map(|name| (name, "1")));
    let output = child.output().expect("a process");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains(" passed; 0 failed") && !told.contains(" 0 passed"), "{told}");
}

#[test]
fn elsewhere_gl() {
    elsewhere("gl", None);
}

#[test]
fn elsewhere_gl_with_webgpu_limits() {
    elsewhere("gl", Some(trial::WEBGPU_LIMITS));
}

#[test]
fn elsewhere_vulkan_with_webgpu_limits() {
    elsewhere("vulkan", Some(trial::WEBGPU_LIMITS));
}

#[test]
fn elsewhere_with_kernels_for_gpus() {
    elsewhere("vulkan", Some(trial::AS_GPU));
}
