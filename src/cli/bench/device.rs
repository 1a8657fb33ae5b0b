//! `shadegrad bench device`: what the device can do at the most, and what launching costs.

use crate::cli::launch::Launch;
use crate::cli::say;
use shadegrad::Result;

#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Measure anew what is known already
    #[arg(long)]
    fresh: bool,
    /// A backend, a part of the adapter's name, or both as gl:llvmpipe
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let gpu = super::open(&args.adapter)?;
    super::warn_if_busy();
    let roofline = super::roofline(&gpu, args.fresh)?;
    let launch = Launch::measure(&gpu)?;
    let clock = gpu.clock().describe();
    if args.json {
        let mut value = roofline.to_value();
        value["device"] = gpu.to_string().into();
        value["clock"] = clock.into();
        value["launch"] = launch.json();
        return say(&value.to_string());
    }
    let first = [("arithmetic, f32 multiply and add", roofline.arithmetic, "GFLOP/s")];
    let halves = roofline.halves.map(|rate| ("arithmetic, f16 in pairs".to_string(), rate, "GFLOP/s"));
    let products = |(name, rate): (&String, &f64)| (format!("cooperative matrices, {name}"), *rate, "GFLOP/s");
    let rest = [
        ("reading memory", roofline.read, "GB/s"),
        ("copying memory, read and written", roofline.copy, "GB/s"),
        ("y = x + 3 z", roofline.triad, "GB/s"),
        ("reading workgroup memory", roofline.workgroup, "GB/s"),
    ];
    say(&format!("{gpu}, by {clock}"))?;
    let plain = |(what, value, unit): (&str, f64, &'static str)| (what.to_string(), value, unit);
    let rows = first.map(plain).into_iter().chain(halves).chain(roofline.matrices.iter().map(products));
    let costs = launch.rows().map(|(what, cost)| (what.to_string(), cost, "us"));
    let mut rows = rows.chain(rest.map(plain)).chain(costs);
    rows.try_for_each(|(what, value, unit)| say(&format!("  {what:<36}{value:>12.2} {unit}")))
}
