//! Which packages bring software Vulkan, by package manager.

use crate::os_release::OsRelease;

/// What Debian and Ubuntu call Mesa's Vulkan drivers and the Vulkan loader.
pub(crate) const APT_PACKAGES: [&str; 2] = ["mesa-vulkan-drivers", "libvulkan1"];

/// The package managers whose names for software Vulkan are known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PackageManager {
    /// Debian, Ubuntu and their relatives.
    Apt,
    /// Fedora and its relatives.
    Dnf,
    /// Arch and its relatives.
    Pacman,
    /// Alpine.
    Apk,
    /// openSUSE and SUSE Linux Enterprise.
    Zypper,
}

impl PackageManager {
    /// Decides by the distribution's own name, then by those it is close to.
    pub(crate) fn of(os: &OsRelease) -> Option<Self> {
        std::iter::once(&os.id).chain(&os.id_like).find_map(|name| Self::of_distribution(name))
    }

    fn of_distribution(name: &str) -> Option<Self> {
        match name {
            "debian" | "ubuntu" => Some(Self::Apt),
            "fedora" | "rhel" | "centos" => Some(Self::Dnf),
            "arch" => Some(Self::Pacman),
            "alpine" => Some(Self::Apk),
            "suse" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" | "sles" => Some(Self::Zypper),
            _ => None,
        }
    }

    /// The command that installs software Vulkan, for people to run.
    pub(crate) fn install_command(self) -> String {
        let install = match self {
            Self::Apt => {
                return format!(
                    "sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
                    APT_PACKAGES.join(" ")
                );
            }
            Self::Dnf => "dnf install mesa-vulkan-drivers vulkan-loader",
            Self::Pacman => "pacman -S vulkan-swrast vulkan-icd-loader",
            Self::Apk => "apk add mesa-vulkan-swrast vulkan-loader",
            Self::Zypper => "zypper install libvulkan_lvp libvulkan1",
        };
        format!("sudo {install}")
    }
}

/// What somebody should do by hand on a Linux machine without an adapter, in one line.
pub(crate) fn advice(os: &OsRelease) -> String {
    let Some(manager) = PackageManager::of(os) else {
        return "install a Vulkan driver and the Vulkan loader with your package manager \
                (Mesa's lavapipe, also called swrast, runs on any CPU)"
            .to_owned();
    };
    let mut advice = format!("install software Vulkan with: {}", manager.install_command());
    if os.is_debian_12() {
        advice.push_str(
            " (Debian 12's own Mesa is about ten times slower than that of bookworm-backports; \
             with backports enabled, add `-t bookworm-backports`)",
        );
    }
    advice
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
    fn the_distribution_decides_the_package_manager() {
        let cases = [
            (os("debian", &[]), Some(PackageManager::Apt)),
            (os("ubuntu", &["debian"]), Some(PackageManager::Apt)),
            (os("linuxmint", &["ubuntu"]), Some(PackageManager::Apt)),
            (os("fedora", &[]), Some(PackageManager::Dnf)),
            (os("rocky", &["rhel", "centos", "fedora"]), Some(PackageManager::Dnf)),
            (os("endeavouros", &["arch"]), Some(PackageManager::Pacman)),
            (os("alpine", &[]), Some(PackageManager::Apk)),
            (os("opensuse-slowroll", &["opensuse", "suse"]), Some(PackageManager::Zypper)),
            (os("nixos", &[]), None),
            (os("", &[]), None),
        ];
        for (os, expected) in cases {
            assert_eq!(PackageManager::of(&os), expected, "{os:?}");
        }
    }

    #[test]
    fn advice_names_the_exact_command() {
        assert_eq!(
            advice(&os("fedora", &[])),
            "install software Vulkan with: sudo dnf install mesa-vulkan-drivers vulkan-loader"
        );
        assert!(advice(&os("ubuntu", &[])).ends_with("mesa-vulkan-drivers libvulkan1"));
        assert!(advice(&os("nixos", &[])).contains("package manager"));
    }

    #[test]
    fn advice_on_debian_12_mentions_backports() {
        let mut debian = os("debian", &[]);
        assert!(!advice(&debian).contains("backports"));
        debian.version_id = "12".to_owned();
        assert!(advice(&debian).contains("bookworm-backports"));
    }
}
