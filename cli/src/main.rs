//! `dynconv`: demo, adapter information and verification for the dynconv library.

// First, since its macros take the place of the standard library's in all other modules.
#[macro_use]
mod say;

mod adapter;
mod bench;
mod check;
mod dataset;
mod demo;
mod fuzz;
mod info;
mod jobs;
mod map;
mod mutants;
mod nets;
mod pipelines;
mod progress;
mod replay;
mod report;
mod rounding;
mod sanitize;
mod shader;
mod stop;
mod target;
mod tune;
mod verify;
mod web;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::adapter::{AdapterArgs, adapter_json, adapter_line};
use crate::say::warn;
use crate::target::JsonArgs;

#[derive(Debug, Parser)]
#[command(version, about = "Dynamic convolution on the GPU", after_help = STATUSES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const STATUSES: &str = "\
Exit status: 0 where all is right; 1 where something is wrong, or nothing was run; 2 for wrong \
arguments;
3 where no adapter does; 130 after Ctrl-C. `mutants --only`: 0 survived, 10 killed, 11 does not \
compile,
12 not run on this device.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Classify the Fashion-MNIST test images with an ODConv network and compare with the float64
    /// reference
    Demo(demo::Options),
    /// List adapters, their limits and features, and which one would be used
    Info(info::Options),
    /// Measure layers beside static convolution, the batch as groups and the adapter's own peaks
    Bench(bench::Options),
    /// Measure which convolution kernel is the fastest for each shape on an adapter, and remember
    /// it
    Tune(tune::Options),
    /// Classify photos with a network of your own checkpoint
    Classify(nets::classify::Options),
    /// Tell what sounds are, with a network of your own checkpoint
    Tag(nets::tag::Options),
    /// Say what network a checkpoint is, what runs, and what memory it takes
    Inspect(nets::inspect::Options),
    /// Write weights as safetensors, rounded to another element type if asked
    Convert(nets::convert::Options),
    /// Check layers against golden vectors
    Verify(verify::Options),
    /// Hold an adapter and its driver to the laws of the correctness suite
    Check(check::Options),
    /// Run again what `check --report` recorded of failures, on an adapter or in the interpreter
    Replay(replay::Options),
    /// Draw problems at random and hold them to the laws, for as long as you like
    Fuzz(fuzz::Options),
    /// Plant faults in the shaders, one at a time, and count how many the laws find
    Mutants(mutants::Options),
    /// Run the shaders in an interpreter that sees races, accesses out of bounds and reads of what
    /// nothing wrote
    Sanitize(sanitize::Options),
    /// Print a kernel's shader as it is compiled, its parts marked
    Shader(shader::Options),
    /// Compile all shaders and run cases in a browser
    Web(web::Options),
}

/// Wrong arguments.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}

impl Usage {
    /// Refuses arguments that are not right.
    fn unless(is_right: bool, text: impl FnOnce() -> String) -> Result<(), Self> {
        if is_right { Ok(()) } else { Err(Self(text())) }
    }
}

/// Exit status for wrong arguments; clap has the same.
const WRONG_USAGE: u8 = 2;
/// Exit status where no adapter does. All other failures exit with 1.
const NO_ADAPTER: u8 = 3;

fn is_no_adapter(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(dynconv::Error::NoAdapter { .. }))
}

/// Prints an error, and gives the exit status that belongs to it.
fn status(error: &anyhow::Error) -> ExitCode {
    warn(format_args!("error: {error:#}\n"));
    if is_no_adapter(error) {
        if let Some(advice) = adapter::advice() {
            warn(format_args!("{advice}\n"));
        }
        return ExitCode::from(NO_ADAPTER);
    }
    ExitCode::from(if error.is::<Usage>() { WRONG_USAGE } else { 1 })
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Info(options) => info::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Tune(options) => tune::run(&options),
        Command::Classify(options) => nets::classify::run(&options),
        Command::Tag(options) => nets::tag::run(&options),
        Command::Inspect(options) => nets::inspect::run(&options),
        Command::Convert(options) => nets::convert::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Mutants(options) => mutants::run(&options),
        Command::Sanitize(options) => sanitize::run(&options),
        Command::Shader(options) => shader::run(&options),
        Command::Web(options) => web::run(&options),
    };
    result.unwrap_or_else(|error| status(&error))
}
