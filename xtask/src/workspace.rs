//! Where the workspace and its build outputs are.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace this crate belongs to.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    cargo: OsString,
}

impl Workspace {
    /// Finds the workspace from this crate's own folder, so any current folder will do.
    pub(crate) fn locate() -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = own.parent().unwrap_or(own).to_path_buf();
        let target = env::var_os("CARGO_TARGET_DIR");
        Self {
            target: target_dir(&root, target.as_deref()),
            cargo: env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            root,
        }
    }

    /// A cargo command in the workspace's root folder.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.args(args).current_dir(&self.root);
        command
    }

    /// The tool as built by `profile_dir`, which is `debug` or `release`.
    pub(crate) fn tool(&self, profile_dir: &str) -> PathBuf {
        let name = format!("dynconv{}", env::consts::EXE_SUFFIX);
        self.target.join(profile_dir).join(name)
    }

    /// The folder of build outputs.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }
}

/// A relative `CARGO_TARGET_DIR` counts from the root, where every cargo command here runs.
fn target_dir(root: &Path, variable: Option<&OsStr>) -> PathBuf {
    root.join(variable.unwrap_or(OsStr::new("target")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_folder_follows_the_variable() {
        let root = Path::new("/project");
        let with = |value: &str| target_dir(root, Some(OsStr::new(value)));
        assert_eq!(target_dir(root, None), Path::new("/project/target"));
        assert_eq!(with("out"), Path::new("/project/out"));
        assert_eq!(with("/elsewhere"), Path::new("/elsewhere"));
    }
}
