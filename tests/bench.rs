//! The command line's benchmarks and tuner, as a user meets them.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

/// Doubles 2^16 numbers; `TURNS` makes it slow, `FACTOR` wrong.
const KERNEL: &str = "//! entry: double
//! grid: 1024
//! buffer x: f32[65536] random
//! buffer y: f32[65536] zero
//! flops: 65536
const TURNS = 1u;
const FACTOR = 2.0;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn double(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = 0.0;
    for (var t = 0u; t < TURNS; t++) {
        sum += x[(id.x + t) % 65536u];
    }
    y[id.x] = FACTOR * x[id.x] + 1e-20 * sum;
}
";

struct Place(tempfile::TempDir);

/// A cache with what the device can do, measured once for all tests, before any of them loads it.
static ROOFS: LazyLock<PathBuf> = LazyLock::new(|| {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("roofs");
    let _ = std::fs::remove_dir_all(&cache); // of a run before
    let output = program(&cache, &["bench", "device"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cache
});

/// Runs the program with its cache there.
fn program(cache: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadegrad"));
    command.args(args).env("SHADEGRAD_CACHE", cache).output().expect("the program runs")
}

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a temporary folder"))
    }

    /// One that knows the device's roofs.
    fn with_roofs() -> Place {
        let place = Place::new();
        std::fs::create_dir(place.path("cache")).expect("a folder");
        for entry in std::fs::read_dir(&*ROOFS).expect("a cache") {
            let entry = entry.expect("a file");
            std::fs::copy(entry.path(), place.path("cache").join(entry.file_name())).expect("a copy");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a file");
        self.path(name).display().to_string()
    }

    /// Runs the program, with its cache here.
    fn run(&self, args: &[&str]) -> Output {
        program(&self.path("cache"), args)
    }

    fn fine(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// What it says when it refuses.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn rows(text: &str) -> Vec<Value> {
    let values = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    values.filter(|value| value.get("case").is_some()).collect()
}

#[test]
fn a_kernel_of_the_user_s_own_is_measured_compared_and_translated() {
    let place = Place::with_roofs();
    let (fast, folder) = (place.write("double.wgsl", KERNEL), place.path("translated"));
    let slow = place.write("slow.wgsl", &KERNEL.replace("TURNS = 1u", "TURNS = 300u"));
    let text = place.fine(&[
        "bench",
        &fast,
        "--against",
        &slow,
        "--seconds",
        "0.1",
        "--json",
        "--translate",
        &folder.display().to_string(),
    ]);
    let rows = rows(&text);
    let time = |n: usize| rows[n]["median_us"].as_f64().expect("a time");
    assert_eq!(rows.len(), 2, "{text}");
    assert!(rows[0]["case"].as_str().is_some_and(|name| name.ends_with("double.wgsl")), "{text}");
    assert!(time(1) > 5.0 * time(0), "the slow kernel is not reported as slow: {text}");
    assert!(rows[0]["gflops"].as_f64() > Some(0.0) && rows[0]["of_roof"].as_f64() > Some(0.0), "{text}");
    for extension in ["spv", "metal", "hlsl", "glsl", "es.glsl"] {
        assert!(Path::new(&folder).join("double").with_extension(extension).exists(), "{extension}");
    }

    let wrong = place.write("wrong.wgsl", &KERNEL.replace("FACTOR = 2.0", "FACTOR = 2.01"));
    let message = place.refused(&["bench", &fast, "--against", &wrong]);
    assert!(message.contains("the results differ: y[") && message.contains("wrong.wgsl"), "{message}");
    assert!(message.contains("of 65536 numbers of y differ by more"), "{message}");
    results_are_compared(&place);
}

/// One kernel for both sides of a comparison: a huge number beside small ones, integers, and NaNs on request.
const MIXED: &str = "//! grid: GRID
//! buffer x: f32[4096] random
//! buffer n: u32[1024] zero
override FACTOR = 2.0;
const STEP = 1u;
const ROOT = 1.0;
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>, 1024>;
@group(0) @binding(2) var<storage, read_write> n: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    y[id.x] = select(FACTOR * x[id.x] * sqrt(ROOT + 0.0 * x[id.x]), vec4(1e30), id.x == 7u);
    n[id.x] = 1000000000u + id.x * STEP;
}
";

/// Each number is compared, each kernel has a head of its own, and what is no number is warned of.
fn results_are_compared(place: &Place) {
    // The same in half the workgroups, of twice the size.
    let plain = MIXED.replace("GRID", "16");
    let twice = MIXED.replace("GRID", "8").replace("workgroup_size(64)", "workgroup_size(128)");
    let (one, twice) = (place.write("one.wgsl", &plain), place.write("twice.wgsl", &twice));
    let run = ["bench", &one, "--against", &twice, "--seconds", "0.02"];
    let text = place.fine(&[&run[..], &["--json"]].concat());
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert!(last["difference"] == 0.0 && last["times_as_fast"].as_f64() > Some(0.0) && last["nan"] == 0, "{text}");
    let text = place.fine(&[&run[..], &["--csv"]].concat());
    assert!(text.contains("\ndifference,times_as_fast\n0e0,"), "{text}");
    // What is said on the command line holds for both.
    let text = place.fine(&[&run[..], &["--const", "FACTOR = 3.0", "--const", "STEP = 2"]].concat());
    assert!(text.contains("the results are the same; "), "{text}");
    let refused = |other: &str, part: &str| {
        let other = place.write("other.wgsl", other);
        let message = place.refused(&["bench", &one, "--against", &other]);
        assert!(message.contains(part), "{message}");
    };
    refused(&plain.replace("FACTOR = 2.0", "FACTOR = 2.001"), "of 4096 numbers of y differ");
    refused(&plain.replace("STEP = 1u", "STEP = 2u"), "n[1] is 1000000001 in");
    refused(&plain.replace("ROOT = 1.0", "ROOT = -1.0"), "4092 are NaN");
    refused(&plain.replace("x: f32[4096]", "x: f32[8192]"), "the buffer x is of another size or type in");

    let bad = place.write("bad.wgsl", &plain.replace("ROOT = 1.0", "ROOT = -1.0"));
    let output = place.run(&["bench", &bad, "--against", &bad, "--seconds", "0.02"]);
    let (text, warning) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("4092 numbers are NaN in both"), "{text}");
    let expected = "4092 NaN and 0 infinite of 4096 numbers in y, the first y[0], after the first run";
    assert!(warning.contains(expected), "{warning}");
    let growing = plain.replace("y[id.x] = select(", "y[id.x] = 1e6 * y[id.x] + select(").replace("1e30", "1.0");
    let growing = place.write("growing.wgsl", &growing);
    let output = place.run(&["bench", &growing, "--seconds", "0.02", "--flops", "1e15"]);
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(warning.contains("infinite of 4096 numbers in y") && warning.contains("after many runs"), "{warning}");
    assert!(warning.contains("growing.wgsl came above the roof"), "{warning}");
}

#[test]
fn overrides_are_set_where_a_kernel_runs_and_where_it_is_translated() {
    let place = Place::with_roofs();
    let text = KERNEL.replace("const FACTOR", "@id(7) override FACTOR").replace("const TURNS", "override TURNS");
    let (kernel, folder) = (place.write("scaled.wgsl", &text), place.path("translated"));
    // What is said of a constant holds for both kernels if both have it.
    let doubled = place.write("double.wgsl", &KERNEL.replace("FACTOR", "TWICE"));
    let run = ["bench", &kernel, "--seconds", "0.05", "--against", &doubled];
    place.fine(&[&run[..], &["--const", "FACTOR = 2f", "--translate", &folder.display().to_string()]].concat());
    for extension in ["spv", "metal", "hlsl", "glsl", "es.glsl"] {
        assert!(Path::new(&folder).join("scaled").with_extension(extension).exists(), "{extension}");
    }
    let message = place.refused(&[&run[..], &["--const", "FACTOR = 3.0"]].concat());
    assert!(message.contains("the results differ: y["), "{message}");
    let message = place.refused(&[&run[..], &["--const", "FACTOR = fast"]].concat());
    assert!(message.contains("FACTOR = \"fast\": its type is f32"), "{message}");
    let open = place.write("open.wgsl", &text.replace("override TURNS = 1u", "override TURNS: u32"));
    let message = place.refused(&["bench", &open]);
    assert!(message.contains("override TURNS has no value; say --const \"TURNS = ...\""), "{message}");

    // Translating needs neither a grid nor buffers.
    let bare: String = text.lines().filter(|line| !line.starts_with("//!")).map(|line| format!("{line}\n")).collect();
    let bare = place.write("bare.wgsl", &bare);
    let output = place.run(&["bench", &bare, "--translate", &folder.display().to_string()]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && message.contains("bare.spv") && message.contains("the grid is not known"),
        "{message}"
    );
    assert!(place.refused(&["bench", &bare, "--translate", &bare]).contains("bare.wgsl is a file; name a folder"));
}

#[test]
fn what_is_wrong_with_a_kernel_is_named() {
    let place = Place::with_roofs();
    let good = place.write("double.wgsl", KERNEL);
    let refused = |args: &[&str], part: &str| {
        let message = place.refused(&[&["bench"], args].concat());
        assert!(message.contains(part), "{args:?}: {message}");
    };
    let syntax = place.write("syntax.wgsl", &KERNEL.replace("sum += x", "sum +- x"));
    refused(&[&syntax], "syntax.wgsl:14:13");
    let type_ = place.write("type.wgsl", &KERNEL.replace("= FACTOR * x[id.x] + 1e-20 * sum", "= id.x"));
    refused(&[&type_], "type.wgsl:16:");
    refused(&[&good, "--grid", "70000"], "70000 workgroups");
    refused(&[&good, "--grid", "many"], "\"many\" is no grid");
    refused(&[&good, "--buffer", "z: f32[3]"], "double uses no buffer \"z\"; it uses x (line 8), y (line 9)");
    refused(&[&good, "--entry", "triple"], "no compute entry point \"triple\"; there are double");
    refused(&[&good, "--const", "SIDE = 3u"], "no const or override \"SIDE\"");
    let bare = place.write("bare.wgsl", &KERNEL.replace("//! buffer y: f32[65536] zero\n", ""));
    refused(&[&bare], "the size of the buffer y is not known; say --buffer \"y: f32[1024] random\"");
    refused(&["missing.wgsl"], "missing.wgsl");
    refused(&["kernels", "matmul_256", "nothing_like_it"], "no case is like \"nothing_like_it\"; --list shows");
    refused(&["peers", "matmul_256", "nothing_like_it"], "no case is like \"nothing_like_it\"");
    refused(&[&good, "--buffer", "x: f32[1e13]"], "needs 40000000000000 bytes, but this device allows");
    refused(&[&good, "--buffer", "x: u32[65536]"], "x holds f32 in the shader (line 8), not u32");
    refused(&[&good, "--buffer", "x: f32[65536] 1e300"], "is no f32");
    refused(&[&good, "--const", "TURNS = 1u; const X = 2u"], "its type is u32");
    for tolerance in ["nan", "inf", "-1"] {
        refused(&[&good, "--against", &good, &format!("--tolerance={tolerance}")], "it is a number from 0");
    }
    let shared = format!("var<workgroup> w: array<f32, 100000000>;\n{KERNEL}");
    let shared = place.write("shared.wgsl", &shared.replace("= FACTOR *", "= w[id.x] + FACTOR *"));
    refused(&[&shared], "the workgroup memory of double needs 400000000 bytes");
    let wide = KERNEL.replace("workgroup_size(64)", "workgroup_size(WIDE)") + "override WIDE = 64u;\n";
    let wide = place.write("wide.wgsl", &wide);
    refused(&[&wide, "--const", "WIDE = 4096"], "needs 4096 invocations");
    refused(&[&wide, "--const", "WIDE = 100000"], "Workgroup size is out of range");
    let texture = format!("@group(1) @binding(0) var t: texture_2d<f32>;\n{KERNEL}");
    let texture =
        place.write("texture.wgsl", &texture.replace("= FACTOR *", "= textureLoad(t, id.xy, 0).x + FACTOR *"));
    refused(&[&texture], "line 1: t is no buffer");
    refused(&[&place.write("head.wgsl", &KERNEL.replace("grid:", "gird:"))], "line 2: \"gird\" is none of entry, grid");
    let baseline = place.write("baseline.json", "not a baseline");
    refused(&["kernels", "relu_4m", "--compare", &baseline], "line 1 is no JSON");
    for wrong in ["nan", "inf", "-1"] {
        refused(
            &["kernels", "--compare", &baseline, "--regression", wrong],
            "a number of percent, 0 or more, is wanted",
        );
    }
    for wrong in ["-1", "0", "1e18", "nan"] {
        refused(&["models", "--seconds", wrong], "a number of seconds above 0, 3600 at the most, is wanted");
        refused(&[&good, "--seconds", wrong], "a number of seconds above 0, 3600 at the most, is wanted");
    }
    let mut peers = Command::new(env!("CARGO_BIN_EXE_shadegrad"));
    let output = peers.args(["bench", "peers", "matmul_256"]).env("PEER_BUDGET_S", "nan").output().expect("it runs");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("PEER_BUDGET_S: \"nan\": a number of seconds"), "{message}");
    refused(&[], "name a suite or a WGSL file");
}

#[test]
fn a_suite_is_printed_in_every_form_and_compared_with_a_baseline() {
    let place = Place::with_roofs();
    let short = ["bench", "kernels", "matmul_256", "--seconds", "0.05"];
    let with = |more: &[&str]| place.fine(&[&short, more].concat());
    let text = with(&["--json"]);
    let row = rows(&text).pop().expect("a row");
    let head = text.lines().next().expect("a line for the device");
    assert_eq!((row["case"].as_str(), row["flops"].as_f64()), (Some("matmul_256"), Some(f64::from(2 << 24))));
    assert!(with(&[]).contains("matmul_256  "));
    assert_eq!(with(&["--csv"]).lines().map(|line| line.split(',').count()).collect::<Vec<_>>(), [11, 11]);
    assert!(with(&["--markdown"]).contains("| matmul_256 | "));

    let scaled = |factor: f64| {
        let mut row = row.clone();
        row["median_us"] = (row["median_us"].as_f64().expect("a time") * factor).into();
        place.write("baseline.json", &format!("{head}\n{row}\n"))
    };
    let chart = place.path("roof.svg").display().to_string();
    let faster = with(&["--compare", &scaled(1e4), "--svg", &chart]);
    let cells: Vec<&str> = faster.lines().last().expect("a row").split_whitespace().collect();
    let percent: f64 = cells[4].parse().expect("a change");
    assert!(faster.contains(" change % ") && (-100.0..-90.0).contains(&percent), "{faster}");
    let change = rows(&with(&["--json", "--compare", &scaled(1e4)])).pop().expect("a row")["change"].as_f64();
    assert!((-1.0..-0.9).contains(&change.expect("a change")), "{change:?}");
    let picture = std::fs::read_to_string(&chart).expect("a picture");
    assert!(picture.contains("matmul_256") && picture.contains("operations per byte"));
    let against = |baseline: &str| place.refused(&[&short[..], &["--compare", baseline]].concat());
    let message = against(&scaled(0.01));
    assert!(message.contains("1 of 1 cases take more than 10 % longer: matmul_256 (+"), "{message}");
    let foreign = place.write("foreign.json", &format!("{{\"device\": \"another\"}}\n{row}\n"));
    assert!(against(&foreign).contains("measured on another, this is"));
    let other = place.write("other.json", &format!("{head}\n{row}\n").replace("matmul_256", "matmul_257"));
    assert!(against(&other).contains("no case that was measured is in the baseline"));
}

#[test]
fn what_was_tuned_is_kept_and_explained() {
    let place = Place::new();
    let explain = ["tune", "matmul_64x512x512", "--explain"];
    let first = place.fine(&explain);
    assert!(first.contains("Matmul") && first.contains("  * ") && first.contains("1 kinds of work tuned"), "{first}");
    let second = place.fine(&explain);
    assert!(second.contains("0 kinds of work tuned") && second.contains("1 known before"), "{second}");
    let table = |text: &str| text.lines().filter(|line| line.contains(" us  ")).map(String::from).collect::<Vec<_>>();
    assert_eq!(table(&first), table(&second));
    assert!(place.fine(&["tune", "matmul_64x512x512", "--fresh"]).contains("1 kinds of work tuned"));
    // A damaged cache is no obstacle.
    for entry in std::fs::read_dir(place.path("cache")).expect("a cache") {
        std::fs::write(entry.expect("a file").path(), "{").expect("a file");
    }
    let again = place.run(&explain);
    let (said, warned) = (String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&again.stderr));
    assert!(said.contains("1 kinds of work tuned") && said.contains("the default, measured "), "{said}");
    assert_eq!(warned.matches("no JSON").count(), 1, "{warned}");
    let names = std::fs::read_dir(place.path("cache")).expect("a cache").map(|entry| entry.expect("a file").path());
    let aside: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|ending| ending == "bak")).collect();
    assert!(matches!(&aside[..], [path] if std::fs::read_to_string(path).expect("a file") == "{"), "{aside:?}");
    std::fs::remove_dir_all(place.path("cache")).expect("a cache");
    place.write("cache", "a file where a folder should be");
    assert!(place.refused(&explain).contains("the choices are not kept"));
    assert!(place.refused(&["tune", "relu_4m", "nothing_like_it"]).contains("no case is like \"nothing_like_it\""));
}
