//! Files that a run writes at its end, tried before it begins: a folder that does not exist is no
//! news for after an hour.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use clap::Args;

use crate::say;

/// A file that can be written. What was in it stays until then; a new one goes again if nothing is
/// written.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    file: File,
    is_left_over: bool,
    /// What it is called among those that are open.
    name: Option<PathBuf>,
}

/// Files that options have opened.
static OPEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Target {
    /// Opens a file without changing what is in it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let is_left_over = !path.exists();
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        // Devices and pipes may be written twice.
        let name = path.canonicalize().ok().filter(|name| name.is_file());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let is_twice = name.as_ref().is_some_and(|name| open.contains(name));
        anyhow::ensure!(!is_twice, "{}: two options name this file", path.display());
        open.extend(name.clone());
        say::keep_for_files();
        Ok(Self { path: path.into(), file, is_left_over, name })
    }

    /// Opens the file that an option names, if it names one.
    pub(crate) fn open_if(path: Option<&PathBuf>) -> anyhow::Result<Option<Self>> {
        path.map(|path| Self::open(path)).transpose()
    }

    /// Replaces what is in the file.
    pub(crate) fn write(mut self, text: &str) -> anyhow::Result<()> {
        let mut write = || -> std::io::Result<()> {
            // A device or a pipe has no length.
            if self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
            }
            self.file.write_all(text.as_bytes())
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))?;
        self.is_left_over = false;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let is_other = |name: &PathBuf| self.name.as_ref() != Some(name);
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).retain(is_other);
        if self.is_left_over {
            // It is empty, and nobody waits for it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Where to write results for programs.
#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Also write the results to this file as JSON; `-` is standard output, and all else then goes to standard error
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// Where the results go that a program reads.
#[derive(Debug)]
pub(crate) enum Json {
    Nowhere,
    Stdout,
    File(Target),
}

impl JsonArgs {
    /// Tries the file, before the run.
    pub(crate) fn open(&self) -> anyhow::Result<Json> {
        Ok(match self.json.as_deref() {
            None => Json::Nowhere,
            Some(path) if path == Path::new("-") => {
                say::take_stdout();
                Json::Stdout
            }
            Some(path) => Json::File(Target::open(path)?),
        })
    }
}

impl Json {
    /// Writes the results.
    pub(crate) fn write(self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        let text = || serde_json::to_string_pretty(value).map(|text| text + "\n");
        match self {
            Self::Nowhere => {}
            Self::Stdout => say::write_stdout(&text()?),
            Self::File(target) => target.write(&text()?)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_left_as_it_was_until_it_is_written() {
        let path = std::env::temp_dir().join(format!("dynconv-target-{}", std::process::id()));
        let content = || fs::read_to_string(&path).ok();
        drop(Target::open(&path).expect("writable"));
        assert_eq!(content(), None, "a new file goes again");
        Target::open(&path).expect("writable").write("a longer text").expect("writable");
        drop(Target::open(&path).expect("writable"));
        assert_eq!(content().as_deref(), Some("a longer text"));
        Target::open(&path).expect("writable").write("short").expect("writable");
        assert_eq!(content().as_deref(), Some("short"));
        let first = Target::open(&path).expect("writable");
        let twice = Target::open(&path).expect_err("open already").to_string();
        assert!(twice.ends_with("two options name this file"), "{twice}");
        drop(first);
        fs::remove_file(&path).expect("is there");
        let error = Target::open(&path.join("in a file")).expect_err("no folder").to_string();
        assert!(error.starts_with("cannot write ") && error.ends_with("in a file"), "{error}");
    }
}
