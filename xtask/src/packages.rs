//! Which packages bring software Vulkan, by distribution.

use crate::apt;
use crate::apt_sources;
use crate::os_release::OsRelease;
use crate::privilege;

/// Whether this is Debian, Ubuntu or one of their relatives.
pub(crate) fn uses_apt(os: &OsRelease) -> bool {
    os.names().any(|name| matches!(name, "debian" | "ubuntu"))
}

/// What somebody should do by hand on a Linux machine without an adapter.
pub(crate) fn advice(os: &OsRelease) -> String {
    let sudo = if privilege::is_root() { "" } else { "sudo " };
    let commands = if uses_apt(os) {
        apt::commands(os, &apt_sources::configured(), sudo)
    } else if let Some(command) = os.names().find_map(install_command) {
        vec![format!("{sudo}{command}")]
    } else {
        return "install a Vulkan driver and the Vulkan loader with your package manager \
                (Mesa's lavapipe, also called swrast, runs on any CPU)"
            .to_owned();
    };
    format!("install software Vulkan with:\n  {}", commands.join("\n  "))
}

/// The command outside the Debian family.
fn install_command(distribution: &str) -> Option<&'static str> {
    match distribution {
        "fedora" | "rhel" | "centos" => Some("dnf install mesa-vulkan-drivers vulkan-loader"),
        "arch" => Some("pacman -S vulkan-swrast vulkan-icd-loader"),
        "alpine" => Some("apk add mesa-vulkan-swrast vulkan-loader"),
        "suse" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" | "sles" => {
            Some("zypper install libvulkan_lvp libvulkan1")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(id: &str, id_like: &[&str]) -> OsRelease {
        OsRelease {
            id: id.to_owned(),
            id_like: id_like.iter().map(ToString::to_string).collect(),
            version_id: String::new(),
        }
    }

    #[test]
    fn the_debian_family_uses_apt() {
        for family in [os("debian", &[]), os("ubuntu", &["debian"]), os("linuxmint", &["ubuntu"])] {
            assert!(uses_apt(&family), "{family:?}");
            assert!(
                advice(&family).ends_with("apt-get install mesa-vulkan-drivers libvulkan1"),
                "{family:?}"
            );
        }
    }

    #[test]
    fn the_distribution_decides_the_command() {
        let cases = [
            (os("fedora", &[]), "dnf install"),
            (os("rocky", &["rhel", "centos", "fedora"]), "dnf install"),
            (os("endeavouros", &["arch"]), "pacman -S"),
            (os("alpine", &[]), "apk add"),
            (os("opensuse-slowroll", &["opensuse", "suse"]), "zypper install"),
            (os("nixos", &[]), "with your package manager"),
            (os("", &[]), "with your package manager"),
        ];
        for (os, expected) in cases {
            assert!(!uses_apt(&os), "{os:?}");
            assert!(advice(&os).contains(expected), "{os:?}");
        }
    }
}
