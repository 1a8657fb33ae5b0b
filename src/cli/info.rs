//! `shadegrad info`: the adapters present, what they allow and what launching costs.

use super::launch::Launch;
use super::say;
use serde_json::{Value, json};
use shadegrad::gpu::{self, Options};
use shadegrad::wgpu::{self, Features};
use shadegrad::{DType, Gpu, Result};
use std::fmt::Write;

#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let adapters = gpu::adapters();
    if adapters.is_empty() {
        // The library knows how to say what is missing.
        return Gpu::new().map(drop);
    }
    let reports: Vec<Report> = adapters.iter().map(Report::new).collect();
    if args.json {
        let all: Vec<Value> = reports.iter().map(Report::json).collect();
        return say(&format!("{:#}", Value::from(all)));
    }
    reports.iter().enumerate().try_for_each(|(n, report)| {
        let gap = if n == 0 { "" } else { "\n" };
        say(&format!("{gap}{}", report.text().trim_end()))
    })
}

struct Report {
    info: wgpu::AdapterInfo,
    limits: Vec<(&'static str, u64)>,
    features: Vec<(&'static str, bool)>,
    /// Cooperative matrices that kernels use: the factors' type, and rows and columns.
    matrices: Vec<(DType, u32)>,
    launch: Result<Launch>,
}

impl Report {
    fn new(adapter: &wgpu::Adapter) -> Report {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let options = Options { adapter: Some(format!("{}:{}", info.backend, info.name)), ..Options::default() };
        let has = |feature| features.contains(feature);
        let gpu = Gpu::open(&options);
        Report {
            limits: vec![
                ("storage buffers", limits.max_storage_buffers_per_shader_stage.into()),
                ("workgroup invocations", limits.max_compute_invocations_per_workgroup.into()),
                ("workgroup memory", limits.max_compute_workgroup_storage_size.into()),
                ("binding size", limits.max_storage_buffer_binding_size),
                ("buffer size", limits.max_buffer_size),
                ("grid per axis", limits.max_compute_workgroups_per_dimension.into()),
            ],
            features: vec![
                ("subgroups", has(Features::SUBGROUP)),
                ("f16", has(Features::SHADER_F16)),
                ("timestamps", has(Features::TIMESTAMP_QUERY)),
                ("timestamps inside passes", has(Features::TIMESTAMP_QUERY_INSIDE_PASSES)),
                ("pipeline cache", has(Features::PIPELINE_CACHE)),
                ("cooperative matrices", has(Features::EXPERIMENTAL_COOPERATIVE_MATRIX)),
            ],
            matrices: gpu.as_ref().map_or(Vec::new(), |gpu| gpu.caps().matrices.clone()),
            launch: gpu.and_then(|gpu| Launch::measure(&gpu)),
            info,
        }
    }

    /// The subgroup sizes, where there are subgroups.
    fn subgroup(&self) -> Option<(u32, u32)> {
        let supported = self.features.iter().any(|&(name, has)| has && name == "subgroups");
        supported.then_some((self.info.subgroup_min_size, self.info.subgroup_max_size))
    }

    fn text(&self) -> String {
        let info = &self.info;
        let mut text = format!("{}\n", info.name);
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<30}{}", value.trim());
        };
        line("backend", info.backend.to_string());
        line("driver", format!("{} {}", info.driver, info.driver_info));
        line("type", kind(info.device_type).into());
        for &(name, value) in &self.limits {
            let size = name.contains("memory") || name.contains("size");
            line(name, if size { bytes(value) } else { value.to_string() });
        }
        for &(name, has) in &self.features {
            let detail = match (name, self.subgroup()) {
                ("subgroups", Some((min, max))) if min == max => format!(", of {min}"),
                ("subgroups", Some((min, max))) => format!(", of {min} to {max}"),
                ("cooperative matrices", _) => self.matrices.iter().map(|(t, n)| format!(", {t} {n}x{n}")).collect(),
                _ => String::new(),
            };
            line(name, format!("{}{detail}", if has { "yes" } else { "no" }));
        }
        match &self.launch {
            Ok(launch) => launch.rows().iter().for_each(|(what, cost)| line(what, format!("{cost:.2} us"))),
            Err(error) => line("not measured", error.to_string()),
        }
        text
    }

    fn json(&self) -> Value {
        let info = &self.info;
        let key = |name: &str| name.replace(' ', "_");
        let limits: serde_json::Map<_, _> = self.limits.iter().map(|&(n, v)| (key(n), v.into())).collect();
        let features: serde_json::Map<_, _> = self.features.iter().map(|&(n, v)| (key(n), v.into())).collect();
        let launch = match &self.launch {
            Ok(launch) => launch.json(),
            Err(error) => json!({ "error": error.to_string() }),
        };
        json!({
            "name": info.name,
            "backend": info.backend.to_string(),
            "driver": format!("{} {}", info.driver, info.driver_info),
            "type": kind(info.device_type),
            "limits": limits,
            "features": features,
            "subgroup_min_size": self.subgroup().map(|s| s.0),
            "subgroup_max_size": self.subgroup().map(|s| s.1),
            "matrices": self.matrices.iter().map(|(t, n)| format!("{t} {n}x{n}")).collect::<Vec<_>>(),
            "launch": launch,
        })
    }
}

fn kind(kind: wgpu::DeviceType) -> &'static str {
    match kind {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "CPU",
        wgpu::DeviceType::Other => "other",
    }
}

fn bytes(n: u64) -> String {
    match n {
        _ if n >= 1 << 30 => format!("{:.1} GiB", n as f64 / (1u64 << 30) as f64),
        _ if n >= 1 << 20 => format!("{:.1} MiB", n as f64 / (1u64 << 20) as f64),
        _ => format!("{:.1} KiB", n as f64 / 1024.0),
    }
}
