//! The trio rule: a kernel is `shaders/K.wgsl`, `src/kernels/K.rs` and `src/reference/K.rs`, and is
//! registered.

use std::collections::BTreeSet;
use std::path::Path;

use dynconv::kernels::{Kernel, shader_files};

/// Files of the kernels folder that are no kernel: what several kernels share.
const SHARED: [&str; 4] = ["mod", "conv", "launch", "shader"];

fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(&path)
        .expect("the folder exists")
        .map(|entry| entry.expect("readable").path());
    let files = entries.filter(|path| path.extension().is_some_and(|e| e == extension));
    let stem = |path: std::path::PathBuf| {
        path.file_stem().expect("has a name").to_string_lossy().into_owned()
    };
    files.map(stem).collect()
}

/// Kernels in `src/kernels/`.
fn kernels() -> BTreeSet<String> {
    stems("src/kernels", "rs").into_iter().filter(|stem| !SHARED.contains(&stem.as_str())).collect()
}

#[test]
fn every_kernel_is_three_files_and_registered() {
    let registered: BTreeSet<String> = Kernel::names().map(ToString::to_string).collect();
    assert_eq!(registered.len(), Kernel::ALL.len(), "two kernels share a name");
    assert_eq!(stems("shaders", "wgsl"), registered, "shaders/");
    assert_eq!(kernels(), registered, "src/kernels/");
    let mut twins = stems("src/reference", "rs");
    twins.remove("mod");
    assert_eq!(twins, registered, "src/reference/");
}

#[test]
fn every_file_of_the_shaders_is_known_to_the_host() {
    let known: BTreeSet<&str> = shader_files().map(|(name, _)| name).collect();
    let folders = [("shaders", ""), ("shaders/lib", "lib/"), ("shaders/elem", "elem/")];
    let there = folders.map(|(folder, prefix)| {
        stems(folder, "wgsl").into_iter().map(move |stem| format!("{prefix}{stem}.wgsl"))
    });
    let there: BTreeSet<String> = there.into_iter().flatten().collect();
    assert_eq!(there.iter().map(String::as_str).collect::<BTreeSet<_>>(), known);
}

#[test]
fn a_shaders_entry_point_has_the_kernels_name() {
    for name in Kernel::names() {
        let file = format!("{name}.wgsl");
        let (_, text) = shader_files().find(|(known, _)| *known == file).expect("is known");
        assert!(text.contains(&format!("fn {name}(")), "{file} has no entry point");
    }
}

#[test]
fn the_readme_begins_with_the_quickstart_example() {
    let readme = include_str!("../../README.md");
    let block = readme.split("```").nth(1).expect("has a code block");
    let (_, code) = block.split_once('\n').expect("has a language line");
    let (_, example) =
        include_str!("../../examples/quickstart.rs").split_once('\n').expect("has a first line");
    assert_eq!(code, example);
}
