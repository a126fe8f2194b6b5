//! `cargo xtask demo`: build the tool, make sure of an adapter, run the demo.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::adapter;
use crate::exec;
use crate::tool::Tool;

/// Runs the demo and returns its exit code.
pub(crate) fn run(install: bool, tool_args: &[OsString]) -> Result<ExitCode, String> {
    Tool::RELEASE.build()?;
    if let Err(reason) = adapter::ensure(&Tool::RELEASE, install) {
        // Not fatal: the tool falls back to its CPU reference and says so.
        println!("{reason}");
    }
    let status = exec::status(Tool::RELEASE.command("demo").args(tool_args))?;
    Ok(exit_code(status.code()))
}

/// A demo ended by a signal has no code of its own and counts as a plain failure.
fn exit_code(code: Option<i32>) -> ExitCode {
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_demos_own() {
        assert_eq!(exit_code(Some(0)), ExitCode::SUCCESS);
        assert_eq!(exit_code(Some(3)), ExitCode::from(3));
        assert_eq!(exit_code(None), ExitCode::FAILURE);
    }
}
