//! `cargo xtask isa`: what the kernels become on AMD GPUs. Mesa's driver for them compiles without
//! one; it comes with Mesa's software Vulkan.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::apt;
use crate::exec;
use crate::os_release::OsRelease;
use crate::packages;
use crate::privilege::Privilege;

/// Where Vulkan drivers are registered.
const FOLDERS: [&str; 3] =
    ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];
/// What the driver's file begins with; some distributions add the processor.
const FILE: &str = "radeon_icd";

/// Runs the program that compiles and looks, with arguments of its own.
pub(crate) fn run(install: bool, args: &[OsString]) -> Result<(), String> {
    let mut command = exec::cargo("run --quiet -p dynconv-isa --");
    exec::run(command.args(args).env("VK_DRIVER_FILES", driver(install)?))
}

/// Fails where a kernel has become worse than it may be.
pub(crate) fn check_budgets(install: bool) -> Result<(), String> {
    let budgets = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("isa").join("budgets.txt");
    run(install, &["--budgets".into(), budgets.into()])
}

/// The driver's file; installed first where that is allowed and it is not there yet.
pub(crate) fn driver(install: bool) -> Result<PathBuf, String> {
    if let Some(file) = registered(&FOLDERS) {
        return Ok(file);
    }
    let os = OsRelease::read();
    let privilege = Privilege::detect().filter(|_| install && packages::uses_apt(&os));
    let Some(privilege) = privilege else {
        return Err(format!(
            "there is no {FILE}.json, Mesa's Vulkan driver for AMD GPUs; {}",
            packages::advice(&os)
        ));
    };
    apt::install(&os, privilege)?;
    registered(&FOLDERS).ok_or_else(|| format!("Mesa's Vulkan drivers brought no {FILE}.json"))
}

fn registered(folders: &[&str]) -> Option<PathBuf> {
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut files = entries.flatten().map(|entry| entry.path());
    files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FILE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_driver_has_none() {
        assert_eq!(registered(&["/no/such/folder", env!("CARGO_MANIFEST_DIR")]), None);
    }
}
