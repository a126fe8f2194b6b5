//! `cargo xtask isa`: what the kernels become on GPUs. Mesa's drivers compile without one; that for
//! AMD's comes with Mesa's software Vulkan, the others are unpacked beside the system.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::apt;
use crate::exec;
use crate::gpu_compilers;
use crate::os_release::OsRelease;
use crate::packages;
use crate::privilege::Privilege;

/// Where Vulkan drivers are registered.
const FOLDERS: [&str; 3] =
    ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];
/// What the driver's file begins with; some distributions add the processor.
const FILE: &str = "radeon_icd";

/// Runs the program that compiles and looks, with arguments of its own. Compilers that cannot be
/// had are named.
pub(crate) fn run(install: bool, args: &[OsString]) -> Result<(), String> {
    let folder = gpu_compilers::native(install);
    let complete = folder.clone().and_then(|folder| gpu_compilers::add_emulated(&folder, install));
    if let Err(reason) = complete {
        println!("{reason}");
    }
    let folder = folder.ok();
    look(install, folder, args)
}

/// Fails where a kernel has become worse than it may be.
pub(crate) fn check_budgets(install: bool) -> Result<(), String> {
    let budgets = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("isa").join("budgets.txt");
    let folder = gpu_compilers::native(install)?;
    look(install, Some(folder), &["--budgets".into(), budgets.into()])
}

/// Fails with the reason if the compilers that budgets are for cannot be had.
pub(crate) fn available(install: bool) -> Result<(), String> {
    driver(install)?;
    gpu_compilers::native(install).map(drop)
}

fn look(install: bool, roots: Option<PathBuf>, args: &[OsString]) -> Result<(), String> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("isa-program");
    let mut command = exec::cargo("run --quiet -p dynconv-isa --");
    command.args(args).env("VK_DRIVER_FILES", driver(install)?);
    command.env("ISA_COMPILER", gpu_compilers::program(&target)?);
    command.envs(roots.map(|roots| ("ISA_ROOTS", roots)));
    exec::run(&mut command)
}

/// The driver's file; installed first where that is allowed and it is not there yet.
fn driver(install: bool) -> Result<PathBuf, String> {
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
