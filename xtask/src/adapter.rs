//! Makes sure that there is an adapter to compute on.

use std::path::Path;
use std::process::Command;

use crate::apt;
use crate::exec;
use crate::os_release::OsRelease;
use crate::packages::{self, PackageManager};
use crate::privilege::Privilege;

/// The exit code of `dynconv info` when it finds no adapter.
const NO_ADAPTER: i32 = 3;

/// Whether there is an adapter in the end.
#[derive(Debug)]
pub(crate) enum Adapter {
    /// The tool can use one.
    Present,
    /// There is none, for the reason given.
    Missing(String),
}

/// Looks for an adapter and, where allowed, installs software Vulkan if there is none.
pub(crate) fn ensure(tool: &Path, install: bool) -> Result<Adapter, String> {
    if probe(tool)? {
        return Ok(Adapter::Present);
    }
    if !cfg!(target_os = "linux") {
        let reason = "no usable adapter found: a Vulkan, Metal or DX12 driver is needed";
        return Ok(Adapter::Missing(reason.to_owned()));
    }
    println!("no usable adapter found on this machine");
    if let Err(reason) = set_up(&OsRelease::read(), install) {
        return Ok(Adapter::Missing(reason));
    }
    if probe(tool)? {
        return Ok(Adapter::Present);
    }
    let reason = "still no usable adapter after installing software Vulkan";
    Ok(Adapter::Missing(reason.to_owned()))
}

/// Asks the tool, in a process of its own so that drivers just installed are seen.
fn probe(tool: &Path) -> Result<bool, String> {
    let output = exec::capture(Command::new(tool).arg("info"))?;
    match output.status.code() {
        Some(0) => {
            if let Some(line) = using_line(&String::from_utf8_lossy(&output.stdout)) {
                println!("{line}");
            }
            Ok(true)
        }
        Some(NO_ADAPTER) => Ok(false),
        _ => {
            exec::show(&output);
            Err(format!("`dynconv info` failed ({})", output.status))
        }
    }
}

fn using_line(stdout: &str) -> Option<&str> {
    stdout.lines().find(|line| line.starts_with("using "))
}

/// Installs software Vulkan, or fails with what somebody should do by hand.
fn set_up(os: &OsRelease, install: bool) -> Result<(), String> {
    if install
        && PackageManager::of(os) == Some(PackageManager::Apt)
        && let Some(privilege) = Privilege::detect()
    {
        return apt::install(os, privilege);
    }
    Err(packages::advice(os))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_adapter_in_use_is_found_among_other_lines() {
        let stdout = "adapters:\n  llvmpipe\nusing llvmpipe (Vulkan)\n";
        assert_eq!(using_line(stdout), Some("using llvmpipe (Vulkan)"));
        assert_eq!(using_line("nothing\n"), None);
    }

    #[test]
    fn without_permission_the_advice_is_the_answer() {
        let os = OsRelease { id: "debian".to_owned(), ..OsRelease::default() };
        assert_eq!(set_up(&os, false), Err(packages::advice(&os)));
    }
}
