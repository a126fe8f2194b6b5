//! The command-line tool `dynconv`, built and run through cargo.

use std::process::Command;

use crate::exec;

/// The tool in one build profile.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Selects the profile.
    flags: &'static str,
}

impl Tool {
    /// Quick to build.
    pub(crate) const DEBUG: Self = Self { flags: "" };
    /// Quick to run.
    pub(crate) const RELEASE: Self = Self { flags: "--release" };

    /// Builds it, with cargo's progress shown.
    pub(crate) fn build(&self) -> Result<(), String> {
        exec::run(&mut exec::cargo(&format!("build {} -p dynconv-cli", self.flags)))
    }

    /// A command that runs one of its subcommands; the exit code is the tool's own.
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        exec::cargo(&format!("run --quiet {} -p dynconv-cli -- {subcommand}", self.flags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(tool: &Tool) -> Vec<String> {
        tool.command("info").get_args().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_tool_runs_in_its_profile() {
        assert_eq!(args(&Tool::DEBUG), ["run", "--quiet", "-p", "dynconv-cli", "--", "info"]);
        assert_eq!(
            args(&Tool::RELEASE),
            ["run", "--quiet", "--release", "-p", "dynconv-cli", "--", "info"]
        );
    }

    #[test]
    fn the_tool_runs_in_the_callers_folder() {
        assert_eq!(Tool::DEBUG.command("demo").get_current_dir(), None);
    }
}
