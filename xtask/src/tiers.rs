//! Tests that need more than a toolchain and an adapter: a browser, second adapters. On Debian and
//! Ubuntu what they need is installed; where it cannot be had, the run says so instead of passing
//! in silence.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::adapter;
use crate::apt;
use crate::exec;
use crate::old_mesa;
use crate::os_release::OsRelease;
use crate::packages;
use crate::privilege::Privilege;
use crate::tool::Tool;

/// Programs that `dynconv web` looks for.
const BROWSERS: [&str; 4] =
    ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// SwiftShader as a Vulkan driver, as Debian's Chromium brings it.
const SWIFTSHADER: &str = "/usr/lib/chromium/vk_swiftshader_icd.json";

/// What second adapters are held to.
const CHECK: &str = "check";

/// An adapter beside the one that the tests run on, chosen by variables.
#[derive(Debug)]
pub(crate) struct SecondAdapter {
    variables: Vec<(&'static str, OsString)>,
    /// A file without which it is not there.
    file: Option<PathBuf>,
}

impl SecondAdapter {
    /// A Vulkan driver by its file.
    fn vulkan(driver: PathBuf) -> Self {
        let variables =
            vec![("WGPU_BACKEND", "vulkan".into()), ("VK_DRIVER_FILES", driver.clone().into())];
        Self { variables, file: Some(driver) }
    }

    /// SwiftShader: 256 invocations, 10 storage buffers and no f16, as in browsers.
    pub(crate) fn swiftshader() -> Self {
        Self::vulkan(SWIFTSHADER.into())
    }

    /// OpenGL, to which shaders go as GLSL.
    pub(crate) fn gl() -> Self {
        Self { variables: vec![("WGPU_BACKEND", "gl".into())], file: None }
    }

    /// An older Mesa, with the faults of its time.
    pub(crate) fn old_mesa(install: bool) -> Result<Self, String> {
        old_mesa::driver(install).map(Self::vulkan)
    }

    /// Fails with the reason if there is no such adapter.
    pub(crate) fn available(&self) -> Result<(), String> {
        if let Some(file) = self.file.as_ref().filter(|file| !file.exists()) {
            return Err(format!("there is no {}", file.display()));
        }
        match adapter::probe(&mut self.command("info"))? {
            true => Ok(()),
            false => Err("there is no such adapter".to_owned()),
        }
    }

    /// Holds it to the laws.
    pub(crate) fn run(&self) -> Result<(), String> {
        exec::run(&mut self.command(CHECK))
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Tool::DEBUG.command(subcommand);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Fails with the reason if there is no browser. Ubuntu's package is a program that only names
/// another one to install.
pub(crate) fn browser_available() -> Result<(), String> {
    if BROWSERS.iter().any(|name| exec::succeeds(Command::new(name).arg("--version"))) {
        return Ok(());
    }
    Err("there is no Chromium".to_owned())
}

/// All laws on the adapter that the tests run on.
pub(crate) fn check() -> Result<(), String> {
    exec::run(&mut Tool::DEBUG.command("check --full"))
}

/// The quick problems.
pub(crate) fn check_quick() -> Result<(), String> {
    exec::run(&mut Tool::DEBUG.command("check"))
}

/// Everything measured once, on shapes at the edges of what kernels are tuned for: that all of it
/// runs and is right.
pub(crate) fn bench() -> Result<(), String> {
    exec::run(&mut Tool::DEBUG.command("bench smoke corners --quick"))
}

/// Problems drawn at random, the same in every run.
pub(crate) fn fuzz() -> Result<(), String> {
    exec::run(&mut Tool::DEBUG.command("fuzz --problems 100 --seed 1"))
}

/// Every kernel in the interpreter, and every barrier taken out in turn.
pub(crate) fn sanitize() -> Result<(), String> {
    exec::run(&mut Tool::DEBUG.command("sanitize --barriers"))
}

/// A few faults planted in the shaders: the interpreter must find nearly all.
pub(crate) fn mutants() -> Result<(), String> {
    exec::run(&mut Tool::DEBUG.command("mutants --without-laws --sample 80 --seed 15"))
}

/// The shaders in Chromium.
pub(crate) fn web() -> Result<(), String> {
    exec::run(&mut Tool::DEBUG.command("web"))
}

/// Installs what is missing for the tests and tiers, where allowed. What cannot be had is missed
/// later, by whatever needs it.
pub(crate) fn set_up(install: bool) -> Result<(), String> {
    let os = OsRelease::read();
    let missing: Vec<&str> =
        wanted(&os).iter().copied().filter(|package| !apt::has(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let Some(privilege) = Privilege::detect().filter(|_| install) else {
        println!("not installed: {}", missing.join(" "));
        return Ok(());
    };
    if let Err(reason) = apt::install_tools(&os, privilege, &missing) {
        println!("{reason}");
    }
    Ok(())
}

/// Packages of this distribution. Ubuntu has no Chromium as a package, only as a snap, which
/// containers cannot run.
fn wanted(os: &OsRelease) -> &'static [&'static str] {
    const ALL: [&str; 4] = ["spirv-tools", "libegl1", "libgl1-mesa-dri", "chromium"];
    match packages::uses_apt(os) {
        false => &[],
        true if os.id == "debian" => &ALL,
        true => &ALL[..3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(id: &str, id_like: &[&str]) -> OsRelease {
        let id_like = id_like.iter().map(ToString::to_string).collect();
        OsRelease { id: id.to_owned(), id_like, version_id: String::new() }
    }

    #[test]
    fn only_debian_has_chromium_as_a_package() {
        assert!(wanted(&os("debian", &[])).contains(&"chromium"));
        assert!(!wanted(&os("ubuntu", &["debian"])).contains(&"chromium"));
        assert!(wanted(&os("ubuntu", &["debian"])).contains(&"spirv-tools"));
        assert!(wanted(&os("fedora", &[])).is_empty());
    }

    #[test]
    fn a_second_adapter_is_chosen_by_variables() {
        let command = SecondAdapter::gl().command("info");
        let variables: Vec<_> = command.get_envs().collect();
        assert_eq!(variables, [("WGPU_BACKEND".as_ref(), Some("gl".as_ref()))]);
    }

    #[test]
    fn a_driver_that_is_not_there_is_named() {
        let absent = SecondAdapter::vulkan("/no/such/driver.json".into());
        assert_eq!(absent.available(), Err("there is no /no/such/driver.json".to_owned()));
    }
}
