//! Which Linux distribution this is.

use std::fs;

/// The parts of `os-release` that decide how packages are installed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct OsRelease {
    /// The distribution, such as `debian`.
    pub(crate) id: String,
    /// Distributions it is close to, nearest first.
    pub(crate) id_like: Vec<String>,
    /// Its version, such as `12`; empty for rolling releases.
    pub(crate) version_id: String,
}

impl OsRelease {
    /// Reads this machine's; all empty where there is none.
    pub(crate) fn read() -> Self {
        ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .map(|text| Self::parse(&text))
            .unwrap_or_default()
    }

    fn parse(text: &str) -> Self {
        let mut os = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = unquote(value.trim());
            match key.trim() {
                "ID" => value.clone_into(&mut os.id),
                "ID_LIKE" => os.id_like = value.split_whitespace().map(str::to_owned).collect(),
                "VERSION_ID" => value.clone_into(&mut os.version_id),
                _ => {}
            }
        }
        os
    }

    /// Its own name, then those of the distributions it is close to.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.id).chain(&self.id_like).map(String::as_str)
    }

    /// Debian 12 itself; distributions derived from it have archives of their own.
    pub(crate) fn is_debian_12(&self) -> bool {
        self.id == "debian" && self.version_id == "12"
    }
}

fn unquote(value: &str) -> &str {
    ['"', '\'']
        .iter()
        .find_map(|&quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_12_is_recognised() {
        let os = OsRelease::parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
        );
        assert!(os.is_debian_12());
        assert!(os.id_like.is_empty());
    }

    #[test]
    fn quotes_comments_and_lists_are_understood() {
        let os = OsRelease::parse("# ID=debian\nID='pop'\nID_LIKE=\"ubuntu debian\"\nnonsense\n");
        let expected = OsRelease {
            id: "pop".to_owned(),
            id_like: vec!["ubuntu".to_owned(), "debian".to_owned()],
            version_id: String::new(),
        };
        assert_eq!(os, expected);
        assert!(os.names().eq(["pop", "ubuntu", "debian"]));
    }

    #[test]
    fn derived_distributions_are_not_debian_12() {
        let os = OsRelease::parse("ID=raspbian\nID_LIKE=debian\nVERSION_ID=\"12\"\n");
        assert!(!os.is_debian_12());
    }
}
