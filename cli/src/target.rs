//! Files that a run writes at its end, tried before it begins: a folder that does not exist is no
//! news for after an hour.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::say;

/// Where results go that an option asks for. What was in a file stays until they are written.
#[derive(Debug)]
pub(crate) enum Target {
    Nowhere,
    Stdout,
    File(PathBuf),
    /// A pipe or a device: who reads it would see it closed if it were opened twice.
    Open(PathBuf, File),
}

/// Files that options name.
static NAMED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Target {
    /// Tries the file that an option names, without changing what is in it; `-` is standard output.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Nowhere) };
        if path == Path::new("-") {
            ensure!(say::take_stdout(), "two options name standard output");
            return Ok(Self::Stdout);
        }
        let is_new = !path.exists();
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        say::keep_for_files();
        if !file.metadata()?.is_file() {
            return Ok(Self::Open(path.into(), file));
        }
        let name = path.canonicalize()?;
        if is_new {
            fs::remove_file(path)?;
        }
        let mut named = say::lock(&NAMED);
        ensure!(!named.contains(&name), "{}: two options name this file", path.display());
        named.push(name);
        Ok(Self::File(path.into()))
    }

    /// Writes the results, in place of what was in the file.
    pub(crate) fn write(self, text: &str) -> anyhow::Result<()> {
        let (path, written) = match self {
            Self::Nowhere => return Ok(()),
            Self::Stdout => {
                say::write_stdout(text);
                return Ok(());
            }
            Self::File(path) => {
                let written = fs::write(&path, text);
                (path, written)
            }
            Self::Open(path, mut file) => (path, file.write_all(text.as_bytes())),
        };
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes results as JSON.
    pub(crate) fn write_json(self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        self.write(&(serde_json::to_string_pretty(value)? + "\n"))
    }
}

/// Where to write results for programs.
#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Also write the results to this file as JSON; `-` is standard output, and all else then goes
    /// to standard error
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

impl JsonArgs {
    /// Tries the file, before the run.
    pub(crate) fn open(&self) -> anyhow::Result<Target> {
        Target::open(self.json.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_left_as_it_was_until_it_is_written() {
        let path = std::env::temp_dir().join(format!("dynconv-target-{}", std::process::id()));
        let content = || fs::read_to_string(&path).ok();
        let first = Target::open(Some(&path)).expect("writable");
        assert_eq!(content(), None, "nothing is left of a run that ends early");
        let twice = Target::open(Some(&path)).expect_err("named already").to_string();
        assert!(twice.ends_with("two options name this file"), "{twice}");
        first.write("a longer text").expect("writable");
        assert_eq!(content().as_deref(), Some("a longer text"));
        say::lock(&NAMED).clear();
        let again = Target::open(Some(&path)).expect("writable");
        assert_eq!(content().as_deref(), Some("a longer text"));
        again.write("short").expect("writable");
        assert_eq!(content().as_deref(), Some("short"));
        fs::remove_file(&path).expect("is there");
        let error = Target::open(Some(&path.join("in a file"))).expect_err("no folder").to_string();
        assert!(error.starts_with("cannot write ") && error.ends_with("in a file"), "{error}");
    }
}
