//! Project tasks: `cargo xtask demo`, `cargo xtask test` and `cargo xtask isa` do all set-up on a
//! machine that has nothing but a Rust toolchain, software Vulkan included.

mod adapter;
mod apt;
mod apt_sources;
mod args;
mod demo;
mod exec;
mod gpu_compilers;
mod isa;
mod old_mesa;
mod os_release;
mod packages;
mod privilege;
mod steps;
mod tiers;
mod tool;

use std::process::ExitCode;

use args::Task;

/// Exit code for a command line that could not be understood.
const USAGE_ERROR: u8 = 2;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(task) => run(&task),
        Err(reason) => {
            eprintln!("error: {reason}\n\n{}", args::USAGE);
            ExitCode::from(USAGE_ERROR)
        }
    }
}

fn run(task: &Task) -> ExitCode {
    let outcome = match task {
        Task::Help => {
            println!("{}", args::USAGE);
            Ok(ExitCode::SUCCESS)
        }
        Task::Demo { install, tool_args } => demo::run(*install, tool_args),
        Task::Isa { install, tool_args } => {
            isa::run(*install, tool_args).map(|()| ExitCode::SUCCESS)
        }
        Task::Test { install, fast: true } => steps::run_fast(*install).map(|()| ExitCode::SUCCESS),
        Task::Test { install, fast: false } => steps::run_all(*install).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|reason| {
        eprintln!("error: {reason}");
        ExitCode::FAILURE
    })
}
