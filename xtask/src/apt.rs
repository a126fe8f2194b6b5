//! Installs software Vulkan on Debian and Ubuntu.

use std::process::Command;

use crate::apt_sources::{self, BACKPORTS, Source};
use crate::exec;
use crate::os_release::OsRelease;
use crate::privilege::Privilege;

/// What Debian and Ubuntu call Mesa's Vulkan drivers and the Vulkan loader.
const PACKAGES: [&str; 2] = ["mesa-vulkan-drivers", "libvulkan1"];

/// Where backports are added on a Debian 12 that does not name them yet.
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/dynconv-bookworm-backports.list";

/// Installs Mesa's software Vulkan and the Vulkan loader.
pub(crate) fn install(os: &OsRelease, privilege: Privilege) -> Result<(), String> {
    if os.is_debian_12() {
        let Err(reason) = install_from_backports(privilege) else {
            return Ok(());
        };
        println!(
            "{BACKPORTS} cannot be used: {reason}\n\
             taking Debian 12's own Mesa instead; the demo and the tests will be slow, since its \
             software Vulkan is about ten times slower"
        );
    }
    update(privilege);
    install_packages(privilege, None)
}

/// Whether a package is installed.
pub(crate) fn has(package: &str) -> bool {
    let query = ["-W", "-f", "${db:Status-Status}", package];
    exec::capture(Command::new("dpkg-query").args(query))
        .is_ok_and(|output| output.stdout == b"installed")
}

/// Installs packages that tests use.
pub(crate) fn install_tools(
    os: &OsRelease,
    privilege: Privilege,
    packages: &[&str],
) -> Result<(), String> {
    update(privilege);
    println!("installing what tests use ({}) ...", packages.join(" "));
    let suite = tools_suite(os, &apt_sources::configured());
    exec::run_quietly(&mut install_command(privilege, suite, packages))
}

/// Where tools come from. Mesa's OpenGL must be of the same version as its Vulkan drivers, which
/// [`install`] took from backports if they are there; what backports lack comes from the release
/// all the same.
fn tools_suite(os: &OsRelease, sources: &[Source]) -> Option<&'static str> {
    (os.is_debian_12() && apt_sources::has_backports(sources)).then_some(BACKPORTS)
}

/// The commands that do what [`install`] does, for people to run; `sudo` precedes what needs the
/// rights of root.
pub(crate) fn commands(os: &OsRelease, sources: &[Source], sudo: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut suite = String::new();
    if os.is_debian_12() {
        let line = apt_sources::missing_backports(sources);
        commands.extend(line.map(|line| format!("echo '{line}' | {sudo}tee {BACKPORTS_FILE}")));
        suite = format!("-t {BACKPORTS} ");
    }
    commands.push(format!("{sudo}apt-get update"));
    commands.push(format!("{sudo}apt-get install {suite}{}", PACKAGES.join(" ")));
    commands
}

/// Debian 12's own Mesa 22.3 is about ten times slower in software Vulkan.
fn install_from_backports(privilege: Privilege) -> Result<(), String> {
    let added = add_backports(privilege)?;
    update(privilege);
    let installed = install_packages(privilege, Some(BACKPORTS));
    if installed.is_err() && added {
        // A source that does not answer would trouble every later `apt-get update`.
        exec::run_quietly(privilege.command("rm").args(["-f", BACKPORTS_FILE]))?;
    }
    installed
}

/// Adds backports to apt's sources unless they are there; says whether it did.
fn add_backports(privilege: Privilege) -> Result<bool, String> {
    let Some(line) = apt_sources::missing_backports(&apt_sources::configured()) else {
        return Ok(false);
    };
    println!("adding {BACKPORTS} to apt's sources ({BACKPORTS_FILE}) ...");
    exec::feed(privilege.command("tee").arg(BACKPORTS_FILE), &format!("{line}\n"))?;
    // Under a strict umask nobody but root could read it, which breaks apt's queries for others.
    exec::run_quietly(privilege.command("chmod").args(["644", BACKPORTS_FILE]))?;
    Ok(true)
}

/// A failure here is no failure yet: it may concern a source that is not needed.
fn update(privilege: Privilege) {
    println!("updating apt's package lists ...");
    if let Err(reason) = exec::run_quietly(apt_get(privilege).arg("update")) {
        println!("{reason}; going on with the lists there are");
    }
}

fn install_packages(privilege: Privilege, suite: Option<&str>) -> Result<(), String> {
    let origin = suite.map(|suite| format!(" from {suite}"));
    println!(
        "installing software Vulkan ({}{}) ...",
        PACKAGES.join(" "),
        origin.unwrap_or_default()
    );
    exec::run_quietly(&mut install_command(privilege, suite, &PACKAGES))
}

fn install_command(privilege: Privilege, suite: Option<&str>, packages: &[&str]) -> Command {
    let mut command = apt_get(privilege);
    command.args(["install", "-y", "--no-install-recommends"]);
    if let Some(suite) = suite {
        command.args(["-t", suite]);
    }
    command.args(packages);
    command
}

/// `env` carries the variable through `sudo`, which drops the caller's variables. The wait is for
/// automatic updates, which hold the lock on a machine that has just started.
fn apt_get(privilege: Privilege) -> Command {
    let mut command = privilege.command("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
    command.args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian(version: &str) -> OsRelease {
        OsRelease {
            id: "debian".to_owned(),
            version_id: version.to_owned(),
            ..OsRelease::default()
        }
    }

    fn source(suite: &str) -> Vec<Source> {
        apt_sources::parse_line(&format!("deb http://mirror.example/debian {suite} main"))
            .into_iter()
            .collect()
    }

    #[test]
    fn debian_12_gets_the_commands_for_backports() {
        let expected = [
            "echo 'deb http://mirror.example/debian bookworm-backports main' \
             | sudo tee /etc/apt/sources.list.d/dynconv-bookworm-backports.list",
            "sudo apt-get update",
            "sudo apt-get install -t bookworm-backports mesa-vulkan-drivers libvulkan1",
        ];
        assert_eq!(commands(&debian("12"), &source("bookworm"), "sudo "), expected);
        assert_eq!(commands(&debian("12"), &source(BACKPORTS), "sudo "), expected[1..]);
    }

    #[test]
    fn tools_are_of_the_suite_that_software_vulkan_is_of() {
        assert_eq!(tools_suite(&debian("12"), &source(BACKPORTS)), Some(BACKPORTS));
        assert_eq!(tools_suite(&debian("12"), &source("bookworm")), None);
        assert_eq!(tools_suite(&debian("12"), &[]), None);
        assert_eq!(tools_suite(&debian("13"), &source(BACKPORTS)), None);
    }

    #[test]
    fn other_versions_get_the_plain_commands() {
        let expected = ["apt-get update", "apt-get install mesa-vulkan-drivers libvulkan1"];
        assert_eq!(commands(&debian("13"), &source("trixie"), ""), expected);
    }
}
