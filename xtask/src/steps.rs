//! `cargo xtask test`: every check and test, one step after the other.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::adapter;
use crate::exec;
use crate::tool::Tool;

/// A step's name and what it runs.
type Step<'a> = (&'static str, &'a dyn Fn() -> Result<(), String>);

/// Runs all steps up to the first that fails, in order of cost: a slip in formatting is known
/// before the first compilation.
pub(crate) fn run_all(install: bool) -> Result<(), String> {
    run_steps(&[
        ("fmt", &fmt),
        ("clippy", &clippy),
        ("library", &library),
        ("docs", &docs),
        ("build", &|| Tool::DEBUG.build()),
        // Without an adapter most tests would have nothing to run on, and none may be skipped silently.
        ("adapter", &|| adapter::ensure(&Tool::DEBUG, install)),
        ("tests", &tests),
        ("doctests", &doctests),
        ("demo", &demo),
    ])
}

fn run_steps(steps: &[Step<'_>]) -> Result<(), String> {
    let mut times = Vec::new();
    let mut outcome = Ok(());
    for (name, run) in steps {
        println!("==> [{}/{}] {name}", times.len() + 1, steps.len());
        let start = Instant::now();
        outcome = run().map_err(|reason| format!("step {name} failed: {reason}"));
        times.push((*name, start.elapsed()));
        if outcome.is_err() {
            break;
        }
    }
    print!("\n{}", summary(&times, outcome.is_err()));
    outcome
}

/// The table of step times, with the closing line; only the last step can have failed.
fn summary(times: &[(&str, Duration)], has_failed: bool) -> String {
    let mut text = String::new();
    for (name, time) in times {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<9} {:>7.1} s", time.as_secs_f64());
    }
    let failed = usize::from(has_failed);
    let _ = writeln!(text, "steps: {} passed, {failed} failed", times.len() - failed);
    text
}

fn fmt() -> Result<(), String> {
    ensure_component("fmt", "rustfmt")?;
    cargo("fmt --all --check")
}

fn clippy() -> Result<(), String> {
    ensure_component("clippy", "clippy")?;
    cargo("clippy --workspace --all-targets --all-features -- -D warnings")
}

/// The library as its users get it, with default features.
fn library() -> Result<(), String> {
    cargo("clippy -p dynconv -- -D warnings")
}

fn docs() -> Result<(), String> {
    let mut command = exec::cargo("doc --workspace --no-deps --all-features");
    exec::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> Result<(), String> {
    if exec::succeeds(&mut exec::cargo("nextest --version")) {
        return cargo("nextest run --workspace --all-features");
    }
    cargo("test --workspace --all-features --lib --bins --tests --examples")
}

fn doctests() -> Result<(), String> {
    cargo("test --workspace --all-features --doc")
}

/// Its report goes to the workspace's `target` folder, which need not be where cargo builds.
fn demo() -> Result<(), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target");
    fs::create_dir_all(&folder).map_err(|error| format!("could not create {}: {error}", folder.display()))?;
    let mut command = Tool::DEBUG.command("demo --images 300 --report");
    exec::run(command.arg(folder.join("demo-smoke.html")))
}

/// Adds a missing component of the toolchain, which a minimal installation lacks.
fn ensure_component(command: &str, component: &str) -> Result<(), String> {
    let works = || exec::succeeds(&mut exec::cargo(&format!("{command} --version")));
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

fn cargo(args: &str) -> Result<(), String> {
    exec::run(&mut exec::cargo(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_stops_the_run_and_is_named() {
        let pass = || Ok(());
        let fail = || Err("broken".to_owned());
        let unreachable = || panic!("a step ran after a failure");
        assert_eq!(run_steps(&[("one", &pass)]), Ok(()));
        let outcome = run_steps(&[("one", &pass), ("two", &fail), ("three", &unreachable)]);
        assert_eq!(outcome, Err("step two failed: broken".to_owned()));
    }

    #[test]
    fn the_summary_lists_times_and_counts() {
        let times = [("fmt", Duration::from_millis(1_250)), ("clippy", Duration::from_secs(61))];
        let table = "fmt           1.2 s\nclippy       61.0 s\n";
        assert_eq!(summary(&times, false), format!("{table}steps: 2 passed, 0 failed\n"));
        assert_eq!(summary(&times, true), format!("{table}steps: 1 passed, 1 failed\n"));
    }
}
