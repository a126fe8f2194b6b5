//! Apt's configured package sources, and one for Debian 12's backports.

use std::fs;
use std::path::{Path, PathBuf};

/// The suite with newer packages for Debian 12.
pub(crate) const BACKPORTS: &str = "bookworm-backports";

/// One entry of apt's sources, from either of their two formats.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// Files or fingerprints of keys; none if apt's own keys count.
    signed_by: Option<String>,
}

impl Source {
    /// Whether this entry offers `suite`.
    fn has_suite(&self, suite: &str) -> bool {
        self.suites.iter().any(|own| own == suite)
    }

    /// The address of a mirror, if this entry can be Debian 12's main archive.
    fn mirror(&self) -> Option<&str> {
        let main = self.components.iter().any(|component| component == "main");
        if !main || !self.has_suite("bookworm") {
            return None;
        }
        self.uris
            .iter()
            .find(|uri| !uri.contains("debian-security") && !uri.starts_with("cdrom:"))
            .map(String::as_str)
    }
}

/// All package sources that are configured and enabled.
pub(crate) fn configured() -> Vec<Source> {
    let mut paths = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        paths.extend(folder.flatten().map(|entry| entry.path()));
    }
    paths.sort();
    paths.iter().flat_map(|path| read(path)).collect()
}

/// Apt itself ignores files with other endings, too.
fn read(path: &Path) -> Vec<Source> {
    let text = fs::read_to_string(path).unwrap_or_default();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("sources") => parse_deb822(&text),
        Some("list") => text.lines().filter_map(parse_line).collect(),
        _ => Vec::new(),
    }
}

/// Whether backports are among the sources.
pub(crate) fn has_backports(sources: &[Source]) -> bool {
    sources.iter().any(|source| source.has_suite(BACKPORTS))
}

/// The line to add to apt's sources for backports, from the same mirror as Debian 12's main
/// archive; none if they are there already, or if that mirror is not known.
pub(crate) fn missing_backports(sources: &[Source]) -> Option<String> {
    if has_backports(sources) {
        return None;
    }
    let archive = main_archive(sources)?;
    let uri = archive.mirror()?;
    let keys = archive.signed_by.as_deref();
    let options = keys.map(|keys| format!("[signed-by={keys}] ")).unwrap_or_default();
    Some(format!("deb {options}{uri} {BACKPORTS} main"))
}

/// The mirror of Debian 12's main archive.
pub(crate) fn mirror(sources: &[Source]) -> Option<String> {
    main_archive(sources)?.mirror().map(str::to_owned)
}

/// Other vendors name their suites after Debian's as well, so the best match counts, not the first:
/// only Debian's archive has `bookworm-updates` beside `bookworm`, and mirrors end in `/debian`.
fn main_archive(sources: &[Source]) -> Option<&Source> {
    let rank = |source: &&Source| {
        let uri = source.mirror().unwrap_or_default();
        let has_updates = sources.iter().any(|other| {
            other.has_suite("bookworm-updates") && other.uris.iter().any(|u| u == uri)
        });
        let is_named_debian = uri.trim_end_matches('/').ends_with("/debian");
        (has_updates, is_named_debian)
    };
    // Reversed, because `max_by_key` takes the last of equals and the first is wanted.
    sources.iter().rev().filter(|source| source.mirror().is_some()).max_by_key(rank)
}

/// Parses a file of stanzas with one field a line (`*.sources`).
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    // The empty line at the end closes the last stanza.
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza_source(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza_source(fields: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| {
        let found = fields.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    };
    let enabled = !matches!(field("enabled"), Some("no" | "false" | "off" | "0"));
    let types = words(field("types")?);
    (enabled && types.iter().any(|kind| kind == "deb")).then(|| Source {
        uris: words(field("uris").unwrap_or_default()),
        suites: words(field("suites").unwrap_or_default()),
        components: words(field("components").unwrap_or_default()),
        // A whole key in place of its file does not fit on a line.
        signed_by: field("signed-by")
            .filter(|keys| !keys.contains('\n'))
            .map(|keys| words(keys).join(",")),
    })
}

/// Parses a classic line: `deb [options] URI suite component...`.
pub(crate) fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        // `deb-src`
        return None;
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracket) => bracket.split_once(']')?,
        None => ("", rest),
    };
    let mut entries = words(rest).into_iter();
    Some(Source {
        uris: vec![entries.next()?],
        suites: vec![entries.next()?],
        components: entries.collect(),
        signed_by: words(options)
            .iter()
            .find_map(|option| Some(option.strip_prefix("signed-by=")?.to_owned())),
    })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "\
Types: deb
# http://old.example/debian
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
";

    fn lines(text: &str) -> Vec<Source> {
        text.lines().filter_map(parse_line).collect()
    }

    #[test]
    fn stanzas_are_parsed() {
        let sources = parse_deb822(DEBIAN);
        assert_eq!(sources.len(), 2);
        let expected = Source {
            uris: vec!["http://mirror.example/debian".to_owned()],
            suites: vec!["bookworm".to_owned(), "bookworm-updates".to_owned()],
            components: vec!["main".to_owned()],
            signed_by: Some("/usr/share/keyrings/archive.gpg".to_owned()),
        };
        assert_eq!(sources[0], expected);
        assert!(sources[1].mirror().is_none());
    }

    #[test]
    fn disabled_and_source_only_stanzas_are_left_out() {
        let disabled = DEBIAN.replace("Types: deb\n", "Types: deb\nEnabled: no\n");
        assert!(parse_deb822(&disabled).is_empty());
        assert!(parse_deb822(&DEBIAN.replace("Types: deb", "Types: deb-src")).is_empty());
    }

    #[test]
    fn backports_take_mirror_and_keys_from_the_archive() {
        let expected = "deb [signed-by=/usr/share/keyrings/archive.gpg] \
                        http://mirror.example/debian bookworm-backports main";
        assert_eq!(missing_backports(&parse_deb822(DEBIAN)).as_deref(), Some(expected));
    }

    #[test]
    fn keys_written_into_the_stanza_are_left_to_apt() {
        let keys = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQENBF\n -----END";
        let sources = parse_deb822(&DEBIAN.replace(" /usr/share/keyrings/archive.gpg", keys));
        assert_eq!(
            missing_backports(&sources).as_deref(),
            Some("deb http://mirror.example/debian bookworm-backports main")
        );
    }

    #[test]
    fn lines_are_parsed() {
        let text = "\
# deb http://commented.example/debian bookworm main
deb-src http://mirror.example/debian bookworm main
deb [ arch=amd64 signed-by=/etc/key.asc ] http://mirror.example/debian bookworm main # here
deb http://mirror.example/debian-security bookworm-security main
deb
";
        let sources = lines(text);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].signed_by.as_deref(), Some("/etc/key.asc"));
        assert_eq!(sources[0].mirror(), Some("http://mirror.example/debian"));
        assert!(sources[1].mirror().is_none());
    }

    #[test]
    fn security_and_discs_are_never_the_archive() {
        let text = "\
deb cdrom:[Debian GNU/Linux 12 _Bookworm_]/ bookworm main
deb cdrom:/ bookworm main
deb http://mirror.example/debian-security bookworm main
deb http://mirror.example/debian-security bookworm-security main
";
        let sources = lines(text);
        assert_eq!(main_archive(&sources), None);
        assert_eq!(missing_backports(&sources), None);
    }

    #[test]
    fn other_vendors_are_passed_over() {
        let text = "\
deb http://vendor.example/apt bookworm main
deb http://corporate.example/mirror bookworm main
deb http://corporate.example/mirror bookworm-updates main
";
        assert_eq!(main_archive(&lines(text)), lines(text).get(1));

        let text = "\
deb http://vendor.example/apt bookworm main
deb http://first.example/debian/ bookworm main
deb http://second.example/debian bookworm main
";
        assert_eq!(main_archive(&lines(text)), lines(text).get(1));
    }

    #[test]
    fn backports_that_are_there_are_not_missing() {
        let sources = lines("deb http://mirror.example/debian bookworm-backports main");
        assert_eq!(missing_backports(&sources), None);
    }
}
