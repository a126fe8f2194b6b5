//! The right to install packages.

use std::process::Command;

use crate::exec;

/// How commands get the rights of root.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Privilege {
    /// This process has them already.
    Root,
    /// `sudo` gives them without asking for a password.
    Sudo,
}

impl Privilege {
    /// Finds out without ever asking for a password.
    pub(crate) fn detect() -> Option<Self> {
        if is_root() {
            return Some(Self::Root);
        }
        exec::succeeds(Command::new("sudo").args(["-n", "true"])).then_some(Self::Sudo)
    }

    /// A command that runs `program` as root.
    pub(crate) fn command(self, program: &str) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", program]);
                command
            }
        }
    }
}

/// Whether this process has the rights of root.
pub(crate) fn is_root() -> bool {
    exec::capture(Command::new("id").arg("-u"))
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
