//! Apt's configured package sources, and a stanza for Debian 12's backports.

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
    signed_by: Option<String>,
}

impl Source {
    /// Whether this entry offers `suite`.
    pub(crate) fn has_suite(&self, suite: &str) -> bool {
        self.suites.iter().any(|own| own == suite)
    }

    /// The address of a mirror, if this entry can be Debian 12's main archive.
    fn mirror(&self) -> Option<&str> {
        let main = self.components.iter().any(|component| component == "main");
        if !main || !self.has_suite("bookworm") {
            return None;
        }
        self.uris.iter().find(|uri| !uri.contains("debian-security") && !uri.starts_with("cdrom:")).map(String::as_str)
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

/// The source for backports from the same mirror as Debian 12's main archive.
pub(crate) fn backports_stanza(sources: &[Source]) -> Option<String> {
    let archive = main_archive(sources)?;
    let uri = archive.mirror()?;
    let mut stanza = format!(
        "# Added by dynconv's `cargo xtask`: Mesa's software Vulkan from backports is faster.\n\
         Types: deb\nURIs: {uri}\nSuites: {BACKPORTS}\nComponents: main\n"
    );
    if let Some(keys) = &archive.signed_by {
        stanza.push_str(&format!("Signed-By: {keys}\n"));
    }
    Some(stanza)
}

/// Other vendors name their suites after Debian's as well, so the best match counts, not the first:
/// only Debian's archive has `bookworm-updates` beside `bookworm`, and mirrors end in `/debian`.
fn main_archive(sources: &[Source]) -> Option<&Source> {
    let rank = |source: &&Source| {
        let uri = source.mirror().unwrap_or_default();
        let has_updates =
            sources.iter().any(|other| other.has_suite("bookworm-updates") && other.uris.iter().any(|u| u == uri));
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
        signed_by: field("signed-by").map(str::to_owned),
    })
}

/// Parses a classic line: `deb [options] URI suite component...`.
fn parse_line(line: &str) -> Option<Source> {
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
        signed_by: words(options).iter().find_map(|option| Some(option.strip_prefix("signed-by=")?.to_owned())),
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

    fn uri_in(stanza: Option<String>) -> Option<String> {
        stanza?.lines().find_map(|line| Some(line.strip_prefix("URIs: ")?.to_owned()))
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
    fn the_stanza_takes_mirror_and_keys_from_the_archive() {
        let stanza = backports_stanza(&parse_deb822(DEBIAN)).expect("an archive");
        let fields: Vec<_> = stanza.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "Types: deb",
            "URIs: http://mirror.example/debian",
            "Suites: bookworm-backports",
            "Components: main",
            "Signed-By: /usr/share/keyrings/archive.gpg",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn keys_written_into_the_stanza_are_kept_whole() {
        let keys = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQENBF\n -----END";
        let text = DEBIAN.replace(" /usr/share/keyrings/archive.gpg", keys);
        let stanza = backports_stanza(&parse_deb822(&text)).expect("an archive");
        assert!(stanza.ends_with(&format!("Signed-By: {keys}\n")), "{stanza}");
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
    fn a_source_without_keys_gives_a_stanza_without_keys() {
        let sources = lines("deb http://mirror.example/debian bookworm main");
        let stanza = backports_stanza(&sources).expect("an archive");
        assert!(!stanza.contains("Signed-By"));
    }

    #[test]
    fn security_and_discs_are_never_the_archive() {
        let text = "\
deb cdrom:[Debian GNU/Linux 12 _Bookworm_]/ bookworm main
deb cdrom:/ bookworm main
deb http://mirror.example/debian-security bookworm main
deb http://mirror.example/debian-security bookworm-security main
";
        assert_eq!(backports_stanza(&lines(text)), None);
    }

    #[test]
    fn other_vendors_are_passed_over() {
        let text = "\
deb http://vendor.example/apt bookworm main
deb http://corporate.example/mirror bookworm main
deb http://corporate.example/mirror bookworm-updates main
";
        let found = uri_in(backports_stanza(&lines(text)));
        assert_eq!(found.as_deref(), Some("http://corporate.example/mirror"));

        let text = "\
deb http://vendor.example/apt bookworm main
deb http://first.example/debian/ bookworm main
deb http://second.example/debian bookworm main
";
        let found = uri_in(backports_stanza(&lines(text)));
        assert_eq!(found.as_deref(), Some("http://first.example/debian/"));
    }

    #[test]
    fn backports_are_recognised() {
        let sources = lines("deb http://mirror.example/debian bookworm-backports main");
        assert!(sources[0].has_suite(BACKPORTS));
        assert!(!parse_deb822(DEBIAN)[0].has_suite(BACKPORTS));
    }
}
