//! The trio rule: a kernel is `shaders/K.wgsl`, `src/kernels/K.rs` and `src/reference/K.rs`, and is
//! registered.

use std::collections::BTreeSet;
use std::path::Path;

use dynconv::Kernel;

/// Files of the kernels folder that are no kernel: what several kernels share.
const SHARED: [&str; 2] = ["mod", "conv"];

fn stems(folder: &str, extension: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(&path)
        .expect("the folder exists")
        .map(|entry| entry.expect("readable").path());
    let files = entries.filter(|path| path.extension().is_some_and(|e| e == extension));
    let stem = |path: std::path::PathBuf| {
        path.file_stem().expect("has a name").to_string_lossy().into_owned()
    };
    files.map(stem).filter(|stem| !SHARED.contains(&stem.as_str())).collect()
}

#[test]
fn every_kernel_is_three_files_and_registered() {
    let registered: BTreeSet<String> =
        Kernel::ALL.iter().map(|kernel| kernel.name().to_string()).collect();
    assert_eq!(registered.len(), Kernel::ALL.len(), "two kernels share a name");
    assert_eq!(stems("shaders", "wgsl"), registered, "shaders/");
    assert_eq!(stems("src/kernels", "rs"), registered, "src/kernels/");
    assert_eq!(stems("src/reference", "rs"), registered, "src/reference/");
}

#[test]
fn a_kernel_is_built_from_its_own_file_last() {
    for kernel in Kernel::ALL {
        let (file, text) = kernel.def().parts.last().expect("has parts");
        assert_eq!(*file, format!("{}.wgsl", kernel.name()));
        assert!(text.contains(&format!("fn {}(", kernel.name())), "{file} has no entry point");
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
