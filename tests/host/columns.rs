//! Lines of the project's own text are at most a hundred columns wide.

use std::path::{Path, PathBuf};

/// Columns of a line, at most.
const WIDTH: usize = 100;

/// Files that are looked at, by their extensions. All others hold data.
const EXTENSIONS: [&str; 9] = ["rs", "wgsl", "toml", "js", "mjs", "html", "css", "py", "md"];

/// Folders of what others wrote or programs make. Hidden ones are left out too.
const FOREIGN: [&str; 6] = ["target", "out", "assets", "corpus", "tests/golden", "suite/cases"];

/// Written by programs: `dynconv-isa`, `dynconv mutants` and `dynconv demo`.
const GENERATED: [&str; 3] = ["benches/ISA.md", "suite/MUTANTS.md", "dynconv-demo.html"];

/// Lines that are too long, by their numbers, and how long they are. Markdown has no other way to
/// write a row of a table or an address; what it fences is often what something printed.
fn long_lines(text: &str, is_markdown: bool) -> Vec<(usize, usize)> {
    let mut is_fenced = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let start = line.trim_start();
        let is_fence = start.starts_with("```");
        is_fenced ^= is_fence;
        let is_exempt = is_fenced || is_fence || start.starts_with('|') || line.contains("://");
        let columns = line.chars().count();
        if columns > WIDTH && !(is_markdown && is_exempt) {
            found.push((number, columns));
        }
    }
    found
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("readable").path();
        let is_one_of = |names: &[&str]| names.iter().any(|name| path.ends_with(name));
        let is_hidden =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !is_hidden && !is_one_of(&FOREIGN) {
            collect(&path, files);
        } else if path.is_file()
            && path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known))
            && !is_one_of(&GENERATED)
        {
            files.push(path);
        }
    }
}

#[test]
fn no_line_is_longer_than_a_hundred_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(root, &mut files);
    files.sort();
    assert!(files.contains(&root.join("tests/host/columns.rs")), "the walk misses this file");
    let mut found = String::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("is text");
        let name = path.strip_prefix(root).expect("in the repository").display();
        for (line, columns) in long_lines(&text, path.extension().is_some_and(|e| e == "md")) {
            found += &format!("\n{name}:{line}: {columns} columns");
        }
    }
    assert!(found.is_empty(), "lines of more than {WIDTH} columns:{found}");
}

#[test]
fn a_long_line_is_found() {
    let [widest, long] = [WIDTH, WIDTH + 1].map(|columns| "é".repeat(columns));
    let text = format!("{widest}\n| {long}\n```\n{long}\n```\nhttps://{long}\n{long}\n");
    assert_eq!(long_lines(&text, true), [(7, 101)]);
    assert_eq!(long_lines(&text, false), [(2, 103), (4, 101), (6, 109), (7, 101)]);
}
