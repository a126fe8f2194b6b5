//! Debian 12's own Mesa beside a newer one: an older compiler for the same shaders, unpacked into
//! `target/`; the system stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::exec;
use crate::os_release::OsRelease;

/// The package, from the release itself and not from backports.
const PACKAGE: &str = "mesa-vulkan-drivers/bookworm";

/// Its driver file; fetched first where that is allowed and it is not there yet.
pub(crate) fn driver(install: bool) -> Result<PathBuf, String> {
    let os = OsRelease::read();
    if !os.is_debian_12() {
        return Err("only Debian 12 has an older Mesa beside a newer one".to_owned());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("old-mesa");
    let driver = folder.join("lvp.json");
    if driver.exists() {
        return Ok(driver);
    }
    if !install {
        return Err("not to be fetched".to_owned());
    }
    fetch(&folder)?;
    let library = find_library(&folder)?;
    write(&driver, &manifest(&library))?;
    Ok(driver)
}

fn fetch(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder)
        .map_err(|error| format!("could not create {}: {error}", folder.display()))?;
    println!("fetching {PACKAGE} ...");
    exec::run_quietly(
        Command::new("apt-get").args(["-q", "download", PACKAGE]).current_dir(folder),
    )?;
    let package =
        entries(folder)?.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    let package = package.ok_or("apt-get download left no package")?;
    exec::run_quietly(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder.join("root")))
}

/// Libraries lie in a folder named after the processor.
fn find_library(folder: &Path) -> Result<PathBuf, String> {
    let libraries = entries(&folder.join("root/usr/lib"))?
        .into_iter()
        .map(|path| path.join("libvulkan_lvp.so"));
    libraries
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| "the package has no software Vulkan".to_owned())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("could not read {}: {error}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("could not write {}: {error}", path.display()))
}

/// What the Vulkan loader wants to read of a driver.
fn manifest(library: &Path) -> String {
    format!(
        "{{ \"file_format_version\": \"1.0.0\", \"ICD\": {{ \"library_path\": {library:?}, \
         \"api_version\": \"1.3.230\" }} }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_file_names_the_library() {
        let text = manifest(Path::new("/some/where/libvulkan_lvp.so"));
        assert!(text.contains("\"library_path\": \"/some/where/libvulkan_lvp.so\""), "{text}");
    }

    #[test]
    fn a_folder_without_a_driver_is_named() {
        let reason = find_library(Path::new("/no/such/folder")).expect_err("is not there");
        assert!(reason.starts_with("could not read /no/such/folder/root/usr/lib"), "{reason}");
    }
}
