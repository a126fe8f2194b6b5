//! Makes sure that there is an adapter to compute on.

use std::process::Command;

use crate::apt;
use crate::exec;
use crate::os_release::OsRelease;
use crate::packages;
use crate::privilege::Privilege;
use crate::tool::Tool;

/// The exit code of `dynconv info` when it finds no adapter.
const NO_ADAPTER: i32 = 3;

/// Looks for an adapter and, where allowed, installs software Vulkan if there is none; fails with
/// the reason if there is none in the end.
pub(crate) fn ensure(tool: &Tool, install: bool) -> Result<(), String> {
    if probe(&mut tool.command("info"))? {
        return Ok(());
    }
    if !cfg!(target_os = "linux") {
        return Err("no usable adapter found: a Vulkan, Metal or DX12 driver is needed".to_owned());
    }
    println!("no usable adapter found on this machine");
    set_up(&OsRelease::read(), install)?;
    if probe(&mut tool.command("info"))? {
        return Ok(());
    }
    Err("still no usable adapter after installing software Vulkan".to_owned())
}

/// Asks the tool by `info`, in a process of its own so that drivers just installed are seen.
pub(crate) fn probe(info: &mut Command) -> Result<bool, String> {
    let output = exec::capture(info)?;
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
        && packages::uses_apt(os)
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
