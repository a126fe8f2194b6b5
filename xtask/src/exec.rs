//! Running other programs.

use std::env;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

/// A cargo command, its arguments separated by spaces. It runs in the caller's folder, so that
/// relative paths mean what the caller meant; the caller's own cargo found the workspace there.
pub(crate) fn cargo(args: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args.split_whitespace());
    command
}

/// Runs the command with its output shown, and returns how it ended.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus, String> {
    command.status().map_err(|error| not_started(command, &error))
}

/// Runs the command with its output shown, and fails unless it exits with 0.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = status(command)?;
    check(command, status)
}

/// Runs the command without input and collects its output.
pub(crate) fn capture(command: &mut Command) -> Result<Output, String> {
    command.stdin(Stdio::null()).output().map_err(|error| not_started(command, &error))
}

/// Runs the command without input; its output is shown only when it fails.
pub(crate) fn run_quietly(command: &mut Command) -> Result<(), String> {
    let output = capture(command)?;
    if !output.status.success() {
        show(&output);
    }
    check(command, output.status)
}

/// Whether the command can be started and exits with 0; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    capture(command).is_ok_and(|output| output.status.success())
}

/// Runs the command with `input` on its standard input.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| not_started(command, &error))?;
    // Taking the pipe closes it after the write; otherwise the command would wait for more.
    if let Some(mut pipe) = child.stdin.take() {
        // A command that stops reading early says why through its exit status.
        let _ = pipe.write_all(input.as_bytes());
    }
    let status = child.wait().map_err(|error| not_started(command, &error))?;
    check(command, status)
}

/// Prints what a captured command printed.
pub(crate) fn show(output: &Output) {
    for stream in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(stream);
        if !text.trim().is_empty() {
            println!("{}", text.trim_end());
        }
    }
}

fn check(command: &Command, status: ExitStatus) -> Result<(), String> {
    if status.success() {
        return Ok(());
    }
    Err(format!("`{}` failed ({status})", describe(command)))
}

fn not_started(command: &Command, error: &std::io::Error) -> String {
    format!("could not run `{}`: {error}", describe(command))
}

/// The command as one would type it; the program goes by its name, not by its path.
fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line =
        program.file_stem().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_described_without_the_program_folder() {
        let mut command = Command::new("some/folder/cargo");
        command.args(["fmt", "--all"]);
        assert_eq!(describe(&command), "cargo fmt --all");
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        let mut command = Command::new("no-such-program-anywhere");
        assert!(!succeeds(&mut command));
        let reason = run(&mut command).expect_err("nothing to run");
        assert!(reason.starts_with("could not run `no-such-program-anywhere`: "), "{reason}");
    }
}
