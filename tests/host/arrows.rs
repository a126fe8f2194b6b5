//! One direction: problem → kernels → plan → device → layers. A file imports from its own folder
//! and from those below, and no two files of a folder import from each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files of `src/`, from the bottom to the top.
const ORDER: [&str; 14] = [
    "error",
    "elem",
    "registry",
    "caps",
    "problem",
    "reference",
    "kernels",
    "program",
    "tuning",
    "device",
    "tune",
    "layers",
    "checkpoint",
    "lib",
];

/// Rust files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder exists");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let of = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    paths.flat_map(of).filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

/// Folder and name of a file of `src/`: `src/plan/choose.rs` is `["program", "choose"]`.
fn module(root: &Path, path: &Path) -> Vec<String> {
    let path = path.strip_prefix(root).expect("is below").with_extension("");
    path.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

/// Paths from the crate's root that a text names outside of comments and of its tests.
fn named(text: &str) -> Vec<Vec<&str>> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or(""));
    let word = |c: char| !c.is_alphanumeric() && c != '_';
    lines
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|path| path.split("::").map(|part| part.split(word).next().unwrap_or("")).collect())
        .collect()
}

/// The faults of a set of files: module and text.
fn faults(files: &[(Vec<String>, String)]) -> Vec<String> {
    let rank = |folder: &str| ORDER.iter().position(|one| *one == folder);
    let mut faults = Vec::new();
    let mut beside: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (module, text) in files {
        let Some(own) = rank(&module[0]) else {
            faults.push(format!("{} has no place in the order", module.join("/")));
            continue;
        };
        for path in named(text) {
            let Some(other) = rank(path[0]) else { continue };
            if other > own {
                faults.push(format!("{} imports {} above it", module.join("/"), path[0]));
            }
        }
        let Some(file) = module.get(1).filter(|name| *name != "mod") else { continue };
        let code = text.split("#[cfg(test)]").next().unwrap_or(text);
        let siblings = files.iter().filter(|(other, _)| other[0] == module[0]);
        for sibling in siblings.filter_map(|(other, _)| other.get(1)) {
            let by_name = [format!("super::{sibling}::"), format!("{}::{sibling}::", module[0])];
            if sibling != file && by_name.iter().any(|name| code.contains(name.as_str())) {
                beside.entry((&module[0], file)).or_default().insert(sibling);
            }
        }
    }
    // A circle of any length: follow imports until nothing new is reached.
    for (folder, file) in beside.keys() {
        let mut reached = BTreeSet::new();
        let mut left = vec![*file];
        while let Some(next) = left.pop() {
            for other in beside.get(&(*folder, next)).into_iter().flatten() {
                if reached.insert(*other) {
                    left.push(other);
                }
            }
        }
        if reached.contains(file) {
            faults.push(format!("{folder}/{file} imports itself by others"));
        }
    }
    faults
}

#[test]
fn no_file_imports_from_above_and_none_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |path: PathBuf| (module(&root, &path), fs::read_to_string(path).expect("readable"));
    let files: Vec<_> = files(&root).into_iter().map(read).collect();
    assert!(files.len() > 60, "{} files", files.len());
    assert_eq!(faults(&files), [""; 0]);
}

#[test]
fn planted_arrows_are_found() {
    let file = |path: &str, text: &str| {
        (path.split('/').map(ToString::to_string).collect::<Vec<_>>(), text.to_string())
    };
    let up = [file("problem/mod", "use crate::kernels::Kernel;\n")];
    assert_eq!(faults(&up), ["problem/mod imports kernels above it"]);
    let down = [file("program/mod", "use crate::kernels::Kernel; // not crate::device\n")];
    assert_eq!(faults(&down), [""; 0]);
    let circle = [
        file("program/cut", "use super::choose::choose;\n"),
        file("program/choose", "use crate::program::cut::parts;\n"),
    ];
    let both = ["program/choose imports itself by others", "program/cut imports itself by others"];
    assert_eq!(faults(&circle), both);
    assert_eq!(faults(&[file("new/mod", "")]), ["new/mod has no place in the order"]);
}
