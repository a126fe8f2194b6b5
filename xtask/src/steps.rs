//! `cargo xtask test`: every check and test, one step after the other.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::adapter;
use crate::exec;
use crate::isa;
use crate::tiers::{self, SecondAdapter};
use crate::tool::Tool;

/// What the library is compiled for in browsers.
const BROWSERS: &str = "wasm32-unknown-unknown";

/// Something to run, or the reason why it cannot be.
type Action<'a> = &'a dyn Fn() -> Result<(), String>;

/// A step of the run.
struct Step<'a> {
    name: &'static str,
    /// Fails with the reason if the step cannot be had on this machine, which is no failure of the
    /// run.
    available: Option<Action<'a>>,
    /// A `strict` run fails without the step.
    demanded: bool,
    run: Action<'a>,
}

impl<'a> Step<'a> {
    fn new(name: &'static str, run: Action<'a>) -> Self {
        Self { name, available: None, demanded: true, run }
    }

    fn where_available(self, available: Action<'a>) -> Self {
        Self { available: Some(available), ..self }
    }

    /// For what only the toolchain's owner can add.
    fn if_available(self, available: Action<'a>) -> Self {
        Self { demanded: false, ..self.where_available(available) }
    }
}

/// What became of a step.
enum Outcome {
    Passed,
    Failed,
    NotRun(String),
}

/// Runs all steps up to the first that fails, in order of cost: a slip in formatting is known
/// before the first compilation.
pub(crate) fn run_all(install: bool) -> Result<(), String> {
    // A machine that tests for others must have everything.
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    let adapter = || adapter::ensure(&Tool::DEBUG, install);
    let tools = || tiers::set_up(install);
    let (swiftshader, gl) = (SecondAdapter::swiftshader(), SecondAdapter::gl());
    let (has_swiftshader, run_swiftshader) = (|| swiftshader.available(), || swiftshader.run());
    let (has_gl, run_gl) = (|| gl.available(), || gl.run());
    let (has_compilers, run_budgets) = (|| isa::available(install), || isa::check_budgets(install));
    let has_old_mesa = || SecondAdapter::old_mesa(install)?.available();
    let run_old_mesa = || SecondAdapter::old_mesa(install)?.run();
    let steps = [
        Step::new("fmt", &fmt),
        Step::new("clippy", &clippy),
        Step::new("library", &library),
        Step::new("wasm32", &library_for_browsers).if_available(&ensure_browser_target),
        Step::new("docs", &docs),
        Step::new("build", &|| Tool::DEBUG.build()),
        // Without an adapter most tests would have nothing to run on, and none may be skipped
        // silently.
        Step::new("adapter", &adapter),
        Step::new("tools", &tools),
        Step::new("tests", &tests),
        Step::new("doctests", &doctests),
        Step::new("demo", &demo),
        Step::new("bench", &tiers::bench),
        Step::new("check", &tiers::check),
        Step::new("fuzz", &tiers::fuzz),
        Step::new("sanitize", &tiers::sanitize),
        Step::new("mutants", &tiers::mutants),
        Step::new("isa", &run_budgets).where_available(&has_compilers),
        Step::new("swiftshader", &run_swiftshader).where_available(&has_swiftshader),
        Step::new("gl", &run_gl).where_available(&has_gl),
        Step::new("old mesa", &run_old_mesa).where_available(&has_old_mesa),
        Step::new("web", &tiers::web).where_available(&tiers::browser_available),
    ];
    run_steps(&steps, strict)
}

/// What takes less than three minutes once it is built, for people at work.
pub(crate) fn run_fast(install: bool) -> Result<(), String> {
    let adapter = || adapter::ensure(&Tool::DEBUG, install);
    let steps = [
        Step::new("fmt", &fmt),
        Step::new("clippy", &clippy),
        Step::new("host tests", &host_tests),
        Step::new("build", &|| Tool::DEBUG.build()),
        Step::new("adapter", &adapter),
        Step::new("check", &tiers::check_quick),
    ];
    run_steps(&steps, true)
}

/// A `strict` run fails if a step that is demanded is not available.
fn run_steps(steps: &[Step<'_>], strict: bool) -> Result<(), String> {
    let mut done = Vec::new();
    let mut result = Ok(());
    for step in steps {
        println!("==> [{}/{}] {}", done.len() + 1, steps.len(), step.name);
        let start = Instant::now();
        let missing = step.available.and_then(|available| available().err());
        let outcome = match missing {
            Some(reason) if !(strict && step.demanded) => Outcome::NotRun(reason),
            Some(reason) => fail(&mut result, step.name, &reason),
            None => (step.run)()
                .map_or_else(|reason| fail(&mut result, step.name, &reason), |()| Outcome::Passed),
        };
        done.push((step.name, start.elapsed(), outcome));
        if result.is_err() {
            break;
        }
    }
    print!("\n{}", summary(&done));
    result
}

fn fail(result: &mut Result<(), String>, name: &str, reason: &str) -> Outcome {
    *result = Err(format!("step {name} failed: {reason}"));
    Outcome::Failed
}

/// The table of step times, what was not run and why, and the closing line.
fn summary(done: &[(&str, Duration, Outcome)]) -> String {
    let mut text = String::new();
    let mut missing = String::new();
    let [mut passed, mut failed] = [0, 0];
    for (name, time, outcome) in done {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<11} {:>7.1} s", time.as_secs_f64());
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Failed => failed += 1,
            Outcome::NotRun(reason) => {
                let _ = writeln!(missing, "not run: {name} ({reason})");
            }
        }
    }
    format!("{text}{missing}steps: {passed} passed, {failed} failed\n")
}

/// Cargo does not find the files that the registry declares.
fn fmt() -> Result<(), String> {
    ensure_component("fmt", "rustfmt")?;
    cargo("fmt --all --check")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("src");
    let mut command = Command::new("rustfmt");
    command.arg("--check");
    for folder in ["kernels", "reference"] {
        command.args(rust_files(&root.join(folder))?);
    }
    exec::run(&mut command)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("could not read {}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    Ok(files)
}

fn clippy() -> Result<(), String> {
    ensure_component("clippy", "clippy")?;
    cargo("clippy --workspace --all-targets --all-features -- -D warnings")
}

/// The library as its users get it, with default features.
fn library() -> Result<(), String> {
    cargo("clippy -p dynconv -- -D warnings")
}

fn library_for_browsers() -> Result<(), String> {
    cargo(&format!("clippy -p dynconv --target {BROWSERS} -- -D warnings"))
}

/// Adds the browsers' target to the toolchain, where it is not there.
fn ensure_browser_target() -> Result<(), String> {
    exec::run(Command::new("rustup").args(["target", "add", BROWSERS]))
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

/// Of the library, without an adapter.
fn host_tests() -> Result<(), String> {
    cargo("test -p dynconv --all-features --lib --test host")
}

fn doctests() -> Result<(), String> {
    cargo("test --workspace --all-features --doc")
}

/// Its report goes to the workspace's `target` folder, which need not be where cargo builds.
fn demo() -> Result<(), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target");
    fs::create_dir_all(&folder)
        .map_err(|error| format!("could not create {}: {error}", folder.display()))?;
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
        assert_eq!(run_steps(&[Step::new("one", &pass)], true), Ok(()));
        let steps =
            [Step::new("one", &pass), Step::new("two", &fail), Step::new("three", &unreachable)];
        assert_eq!(run_steps(&steps, false), Err("step two failed: broken".to_owned()));
    }

    #[test]
    fn a_step_that_cannot_be_had_fails_strict_runs_only() {
        let unreachable = || panic!("a step ran that is not available");
        let missing = || Err("no browser".to_owned());
        let steps = [Step::new("web", &unreachable).where_available(&missing)];
        assert_eq!(run_steps(&steps, false), Ok(()));
        assert_eq!(run_steps(&steps, true), Err("step web failed: no browser".to_owned()));
        let steps = [Step::new("wasm32", &unreachable).if_available(&missing)];
        assert_eq!(run_steps(&steps, true), Ok(()));
    }

    #[test]
    fn the_summary_lists_times_and_counts() {
        let done = [
            ("fmt", Duration::from_millis(1_250), Outcome::Passed),
            ("web", Duration::from_millis(1), Outcome::NotRun("no browser".to_owned())),
            ("clippy", Duration::from_secs(61), Outcome::Failed),
        ];
        let expected = "fmt             1.2 s\nweb             0.0 s\nclippy         61.0 s\n\
                        not run: web (no browser)\nsteps: 1 passed, 1 failed\n";
        assert_eq!(summary(&done), expected);
    }
}
