//! The command line.

use std::ffi::OsString;

/// What `--help` prints, and what follows a usage error.
pub(crate) const USAGE: &str = "\
usage: cargo xtask demo [--no-install] [--] [ARGS]...
       cargo xtask test [--fast] [--no-install]
       cargo xtask isa [--no-install] [ARGS]...

demo  builds the tool, makes sure of an adapter and runs `dynconv demo ARGS`
      (`cargo xtask demo -- --help` lists ARGS)
test  runs the format check, lints, docs, build, all tests, a short demo, and
      the shaders on second adapters and in Chromium; names what was not run,
      which is a failure where CI=true; --fast runs what takes less than three
      minutes once it is built: format, lints, tests that need no adapter, and
      the quick problems on one
isa   compiles the kernels for GPUs of AMD, Intel, NVIDIA, Qualcomm, Apple and
      Arm, which needs none of them, and prints registers, occupancy and the
      share of multiply-adds in the main loop; on Debian 12 the compilers are
      unpacked into target/isa; --family PART takes families with PART in their
      names, --markdown FILE writes the table into FILE, --budgets FILE compares
      it with what is asked for, --source KERNEL prints a shader, --try KERNEL FILE
      the rows of a changed one, --listing KERNEL FAMILY instructions, --body
      KERNEL FAMILY those of the main loop

Where no adapter is found on Debian or Ubuntu, they install software Vulkan
with apt if they may, and test also Chromium, SPIR-V tools and OpenGL;
--no-install only prints the commands to run.";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Task {
    /// Print the usage.
    Help,
    /// Run the tool's demo.
    Demo {
        /// Whether software Vulkan may be installed.
        install: bool,
        /// Passed on to the tool as they are.
        tool_args: Vec<OsString>,
    },
    /// Compile the kernels for GPUs and look at what came of them.
    Isa {
        /// Whether the compiler, which is a driver, may be installed.
        install: bool,
        /// Passed on to the program that looks.
        tool_args: Vec<OsString>,
    },
    /// Run all checks and tests.
    Test {
        /// Whether software Vulkan may be installed.
        install: bool,
        /// Only what is quick.
        fast: bool,
    },
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Task, String> {
    let mut args = args.into_iter();
    let command = args.next().ok_or("no command given")?;
    match command.to_str() {
        Some("demo") => {
            Ok(parse_tool(args, |install, tool_args| Task::Demo { install, tool_args }))
        }
        Some("isa") => Ok(parse_tool(args, |install, tool_args| Task::Isa { install, tool_args })),
        Some("test") => parse_test(args),
        Some("--help" | "-h" | "help") => Ok(Task::Help),
        _ => Err(format!("unknown command `{}`", command.display())),
    }
}

/// Everything that is not ours belongs to the tool; after `--`, everything does.
fn parse_tool(
    mut args: impl Iterator<Item = OsString>,
    task: impl FnOnce(bool, Vec<OsString>) -> Task,
) -> Task {
    let mut install = true;
    let mut tool_args = Vec::new();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--help" | "-h") => return Task::Help,
            Some("--no-install") => install = false,
            Some("--") => tool_args.extend(args.by_ref()),
            _ => tool_args.push(arg),
        }
    }
    task(install, tool_args)
}

fn parse_test(args: impl Iterator<Item = OsString>) -> Result<Task, String> {
    let [mut install, mut fast] = [true, false];
    for arg in args {
        match arg.to_str() {
            Some("--help" | "-h") => return Ok(Task::Help),
            Some("--no-install") => install = false,
            Some("--fast") => fast = true,
            _ => return Err(format!("unknown argument `{}`", arg.display())),
        }
    }
    Ok(Task::Test { install, fast })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn demo(install: bool, tool_args: &[&str]) -> Result<Task, String> {
        let tool_args = tool_args.iter().map(OsString::from).collect();
        Ok(Task::Demo { install, tool_args })
    }

    #[test]
    fn demo_passes_on_what_it_does_not_know() {
        assert_eq!(parsed("demo"), demo(true, &[]));
        assert_eq!(parsed("demo --images 5 --no-install"), demo(false, &["--images", "5"]));
    }

    #[test]
    fn demo_passes_on_everything_after_two_dashes() {
        assert_eq!(
            parsed("demo --no-install -- --help --no-install --"),
            demo(false, &["--help", "--no-install", "--"])
        );
    }

    #[test]
    fn isa_passes_on_its_arguments() {
        let tool_args = ["--budgets", "FILE"].map(OsString::from).to_vec();
        assert_eq!(
            parsed("isa --no-install --budgets FILE"),
            Ok(Task::Isa { install: false, tool_args })
        );
    }

    #[test]
    fn test_takes_only_its_own_flags() {
        let test = |install, fast| Ok(Task::Test { install, fast });
        assert_eq!(parsed("test"), test(true, false));
        assert_eq!(parsed("test --no-install"), test(false, false));
        assert_eq!(parsed("test --fast"), test(true, true));
        assert_eq!(parsed("test --quick"), Err("unknown argument `--quick`".to_owned()));
    }

    #[test]
    fn help_is_found_in_every_place() {
        for line in ["--help", "-h", "help", "demo --help", "test --help", "isa --help"] {
            assert_eq!(parsed(line), Ok(Task::Help), "{line}");
        }
    }

    #[test]
    fn a_missing_or_unknown_command_is_an_error() {
        assert_eq!(parsed(""), Err("no command given".to_owned()));
        assert_eq!(parsed("bench"), Err("unknown command `bench`".to_owned()));
        assert_eq!(parsed("--fast"), Err("unknown command `--fast`".to_owned()));
    }
}
