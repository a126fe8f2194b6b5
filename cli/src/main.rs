//! `dynconv`: demo, adapter information and verification for the dynconv library.

mod bench;
mod check;
mod dataset;
mod demo;
mod fuzz;
mod info;
mod jobs;
mod map;
mod mutants;
mod network;
mod pipelines;
mod report;
mod tune;
mod verify;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use dynconv::{AdapterChoice, Caps, Context, ContextOptions, wgpu};

#[derive(Debug, Parser)]
#[command(version, about = "Dynamic convolution on the GPU")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Classify the Fashion-MNIST test images with an ODConv network and compare with the float64 reference
    Demo(demo::Options),
    /// List adapters, their limits and features, and which one would be used
    Info(info::Options),
    /// Measure layers beside static convolution, the batch as groups and the adapter's own peaks
    Bench(bench::Options),
    /// Measure which convolution kernel is the fastest for each shape on an adapter, and remember it
    Tune(tune::Options),
    /// Check layers against golden vectors
    Verify(verify::Options),
    /// Hold an adapter and its driver to the laws of the correctness suite
    Check(check::Options),
    /// Draw problems at random and hold them to the laws, for as long as you like
    Fuzz(fuzz::Options),
    /// Plant faults in the shaders, one at a time, and count how many the laws find
    Mutants(mutants::Options),
    /// Compile all shaders and run cases in a browser
    Web(web::Options),
}

/// Which adapter to use.
#[derive(Debug, Args)]
struct AdapterArgs {
    /// Adapter: its number in `dynconv info`, or part of its name
    #[arg(long, value_name = "NAME|NUMBER")]
    adapter: Option<String>,
    /// Turn on the adapter's cooperative matrices, which wgpu calls experimental
    #[arg(long)]
    matrices: bool,
}

impl AdapterArgs {
    fn options(&self) -> ContextOptions {
        let adapter = match &self.adapter {
            None => AdapterChoice::Fastest,
            Some(text) => match text.parse() {
                // Names have numbers in them too; no machine has a hundred adapters.
                Ok(number) if number < 100 => AdapterChoice::Index(number),
                _ => AdapterChoice::Name(text.clone()),
            },
        };
        ContextOptions { adapter, backends: backends() }
    }

    fn context(&self) -> dynconv::Result<Context> {
        match self.matrices {
            true => pollster::block_on(dynconv_suite::matrices::request(&self.options())),
            false => pollster::block_on(Context::request(&self.options())),
        }
    }
}

/// Vulkan, Metal and DX12, unless `WGPU_BACKEND` names others.
fn backends() -> wgpu::Backends {
    wgpu::Backends::from_env().unwrap_or(wgpu::Backends::PRIMARY)
}

/// Adapter, driver and backend on one line.
fn adapter_line(caps: &Caps) -> String {
    format!("{} ({}), {:?}", caps.name, caps.driver, caps.backend)
}

/// Adapter, driver and backend for programs.
fn adapter_json(caps: &Caps) -> serde_json::Value {
    serde_json::json!({ "name": caps.name, "driver": caps.driver, "backend": format!("{:?}", caps.backend) })
}

/// Where to write results for programs.
#[derive(Debug, Args)]
struct JsonArgs {
    /// Also write the results to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl JsonArgs {
    fn write(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        use anyhow::Context as _;
        let Some(path) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(value)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Info(options) => info::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Tune(options) => tune::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Mutants(options) => mutants::run(&options),
        Command::Web(options) => web::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
