//! `cargo xtask test`: every check and test, one step after the other.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::adapter::{self, Adapter};
use crate::exec;
use crate::workspace::Workspace;

struct Context<'a> {
    workspace: &'a Workspace,
    install: bool,
}

struct Step {
    name: &'static str,
    run: fn(&Context<'_>) -> Result<(), String>,
}

struct Record {
    name: &'static str,
    time: Duration,
    passed: bool,
}

/// In order of cost, so that a slip in formatting is known before the first compilation.
const STEPS: [Step; 8] = [
    Step { name: "fmt", run: fmt },
    Step { name: "clippy", run: clippy },
    Step { name: "docs", run: docs },
    Step { name: "build", run: build },
    Step { name: "adapter", run: adapter },
    Step { name: "tests", run: tests },
    Step { name: "doctests", run: doctests },
    Step { name: "demo", run: demo },
];

/// Runs all steps up to the first that fails.
pub(crate) fn run_all(workspace: &Workspace, install: bool) -> Result<(), String> {
    run_steps(&STEPS, &Context { workspace, install })
}

fn run_steps(steps: &[Step], context: &Context<'_>) -> Result<(), String> {
    let mut records = Vec::new();
    let mut outcome = Ok(());
    for (index, step) in steps.iter().enumerate() {
        println!("==> [{}/{}] {}", index + 1, steps.len(), step.name);
        let start = Instant::now();
        let result = (step.run)(context);
        let record = Record { name: step.name, time: start.elapsed(), passed: result.is_ok() };
        println!("    {}", record.line());
        records.push(record);
        if let Err(reason) = result {
            outcome = Err(format!("step {} failed: {reason}", step.name));
            break;
        }
    }
    print!("\n{}", summary(&records));
    outcome
}

impl Record {
    fn line(&self) -> String {
        let word = if self.passed { "passed" } else { "FAILED" };
        let seconds = self.time.as_secs_f64();
        format!("{:<9} {word} {seconds:>7.1} s", self.name)
    }
}

/// The table of steps and times, with the closing line.
fn summary(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records {
        text.push_str(&record.line());
        text.push('\n');
    }
    let passed = records.iter().filter(|record| record.passed).count();
    let failed = records.len() - passed;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "steps: {passed} passed, {failed} failed");
    text
}

fn fmt(context: &Context<'_>) -> Result<(), String> {
    ensure_component(context, "fmt", "rustfmt")?;
    cargo(context, &["fmt", "--all", "--check"])
}

fn clippy(context: &Context<'_>) -> Result<(), String> {
    ensure_component(context, "clippy", "clippy")?;
    let args = "clippy --workspace --all-targets --all-features -- -D warnings";
    cargo(context, &split(args))
}

fn docs(context: &Context<'_>) -> Result<(), String> {
    let args = split("doc --workspace --no-deps --all-features");
    let mut command = context.workspace.cargo(&args);
    exec::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn build(context: &Context<'_>) -> Result<(), String> {
    cargo(context, &["build", "-p", "dynconv-cli"])
}

/// Without an adapter most tests would have nothing to run on, and none may be skipped silently.
fn adapter(context: &Context<'_>) -> Result<(), String> {
    match adapter::ensure(&context.workspace.tool("debug"), context.install)? {
        Adapter::Present => Ok(()),
        Adapter::Missing(reason) => Err(reason),
    }
}

fn tests(context: &Context<'_>) -> Result<(), String> {
    let has_nextest = exec::succeeds(&mut context.workspace.cargo(&["nextest", "--version"]));
    let args = if has_nextest {
        "nextest run --workspace --all-features"
    } else {
        "test --workspace --all-features --lib --bins --tests --examples"
    };
    cargo(context, &split(args))
}

fn doctests(context: &Context<'_>) -> Result<(), String> {
    cargo(context, &split("test --workspace --all-features --doc"))
}

fn demo(context: &Context<'_>) -> Result<(), String> {
    let workspace = context.workspace;
    let mut command = Command::new(workspace.tool("debug"));
    command.args(["demo", "--images", "300", "--report"]);
    exec::run(command.arg(workspace.target().join("demo-smoke.html")))
}

/// Adds a missing component of the toolchain, which a minimal installation lacks.
fn ensure_component(context: &Context<'_>, command: &str, component: &str) -> Result<(), String> {
    let works = || exec::succeeds(&mut context.workspace.cargo(&[command, "--version"]));
    if works() {
        return Ok(());
    }
    println!("adding {component} to the toolchain ...");
    let added = exec::run(Command::new("rustup").args(["component", "add", component]));
    if added.is_ok() && works() {
        return Ok(());
    }
    Err(format!(
        "cargo {command} does not work; install it with `rustup component add {component}`, or \
         the package of your system that holds {component}"
    ))
}

fn cargo(context: &Context<'_>, args: &[&str]) -> Result<(), String> {
    exec::run(&mut context.workspace.cargo(args))
}

fn split(args: &str) -> Vec<&str> {
    args.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(_: &Context<'_>) -> Result<(), String> {
        Ok(())
    }

    fn fail(_: &Context<'_>) -> Result<(), String> {
        Err("broken".to_owned())
    }

    fn unreachable(_: &Context<'_>) -> Result<(), String> {
        panic!("a step ran after a failure")
    }

    #[test]
    fn the_first_failure_stops_the_run_and_is_named() {
        let workspace = Workspace::locate();
        let context = Context { workspace: &workspace, install: false };
        let step = |name, run| Step { name, run };
        let steps = [step("one", pass), step("two", fail), step("three", unreachable)];
        assert_eq!(run_steps(&steps[..1], &context), Ok(()));
        let outcome = run_steps(&steps, &context);
        assert_eq!(outcome, Err("step two failed: broken".to_owned()));
    }

    #[test]
    fn the_summary_lists_times_and_counts() {
        let record = |name, millis, passed| Record { name, time: Duration::from_millis(millis), passed };
        let records = [record("fmt", 1_250, true), record("clippy", 61_000, false)];
        let expected = "\
fmt       passed     1.2 s
clippy    FAILED    61.0 s
steps: 1 passed, 1 failed
";
        assert_eq!(summary(&records), expected);
    }
}
