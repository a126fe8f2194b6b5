//! A shader says what it is made of: its first line imports, by name, every file that its own text
//! takes names from, and each name means one thing.

use std::collections::{BTreeMap, BTreeSet};

use dynconv::kernels::{Slot, imports, shader_files};

/// Names that a file declares at module scope; `of_bindings` only those of bindings.
fn declared(text: &str, of_bindings: bool) -> BTreeSet<&str> {
    let keywords = ["fn ", "struct ", "const ", "alias ", "var<", "@group"];
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let declares = keywords.iter().any(|keyword| line.starts_with(keyword));
        if !declares || of_bindings && !line.starts_with("@group") {
            continue;
        }
        // What comes after the keyword, which may have `<..>` of its own.
        let rest = match line.rsplit_once("> ").filter(|_| line.contains("var<")) {
            Some((_, rest)) => rest,
            None => line.split_once(' ').map_or("", |(_, rest)| rest),
        };
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        names.insert(&rest[..end]);
    }
    names
}

/// Words of a file's code that are no members: what may be names from elsewhere.
fn words(text: &str) -> BTreeSet<&str> {
    let mut words = BTreeSet::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or("");
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let mut at = 0;
        while let Some(first) = code[at..].find(is_word).map(|first| at + first) {
            let end = code[first..].find(|c| !is_word(c)).map_or(code.len(), |end| first + end);
            if !code[..first].ends_with('.') {
                words.insert(&code[first..end]);
            }
            at = end;
        }
    }
    words
}

/// What an import stands for: a file of `lib/`, or the files of a slot.
fn files_of(import: &str) -> Vec<(&'static str, &'static str)> {
    let (prefix, is_wide) = match (Slot::of(import), import.strip_suffix("_wide")) {
        (None, _) => (format!("lib/{import}.wgsl"), false),
        (Some(_), Some(slot)) => (format!("elem/{slot}_"), true),
        (Some(_), None) => (format!("elem/{import}_"), false),
    };
    let is_meant = |name: &str| name.starts_with(&prefix) && (is_wide || !name.contains("scalar"));
    shader_files().filter(|(name, _)| is_meant(name)).collect()
}

#[test]
fn every_import_names_files_that_there_are() {
    for (file, text) in shader_files() {
        for import in imports(text) {
            assert!(!files_of(import).is_empty(), "{file} imports {import}");
        }
    }
}

/// Names that files declare.
fn names_of(files: &[(&'static str, &'static str)]) -> BTreeSet<&'static str> {
    files.iter().flat_map(|&(_, text)| declared(text, false)).collect()
}

/// Neither a common file nor a kernel takes a name from a file that it does not import itself, and
/// none imports what it does not use.
#[test]
fn a_file_imports_what_it_takes_names_from_and_nothing_else() {
    let owners: BTreeMap<&str, &str> = shader_files()
        .filter(|(name, _)| name.contains('/'))
        .flat_map(|(name, text)| declared(text, false).into_iter().map(move |word| (word, name)))
        .collect();
    for (file, text) in shader_files() {
        let own = declared(text, false);
        let imported: Vec<_> = imports(text).map(|import| (import, files_of(import))).collect();
        let there: BTreeSet<&str> =
            imported.iter().flat_map(|(_, files)| names_of(files)).collect();
        let code = words(text);
        for (import, files) in &imported {
            let is_used = names_of(files).iter().any(|name| code.contains(name));
            assert!(is_used, "{file} imports {import} and uses nothing of it");
        }
        let is_called = |name: &str| {
            text.lines().any(|line| {
                line.split("//").next().is_some_and(|code| {
                    code.contains(&format!("{name}("))
                        || code.contains(&format!("{name}["))
                        || name.starts_with(char::is_uppercase) && code.contains(name)
                })
            })
        };
        // Constants that the host joins in front may have the name of one that a file declares.
        for name in code.iter().filter(|name| owners.contains_key(*name) && **name != "TAPS") {
            let is_here = own.contains(name) || there.contains(name) || !is_called(name);
            assert!(is_here, "{file} uses {name} without importing {}", owners[name]);
        }
    }
}

/// The slot that a file declares.
fn slot_of(file: &str) -> Option<&str> {
    file.strip_prefix("elem/").and_then(|name| name.split('_').next())
}

/// Bindings are named after the value bound, which several kernels may bind; the files of a slot
/// declare the same names, of which one is joined.
#[test]
fn each_name_means_one_thing() {
    let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, text) in shader_files() {
        let of_bindings = declared(text, true);
        for name in declared(text, false).difference(&of_bindings) {
            owners.entry(name).or_default().push(file);
        }
    }
    for (name, files) in owners {
        let is_of_one_slot =
            files.iter().all(|file| slot_of(file).is_some() && slot_of(file) == slot_of(files[0]));
        assert!(files.len() == 1 || is_of_one_slot, "{name} is declared in {files:?}");
    }
}

/// Beside each storage binding, on the lines before it, stands its shape.
#[test]
fn every_storage_binding_has_its_shape_beside_it() {
    for (file, text) in shader_files() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.starts_with("@group") && line.contains("var<storage"))
        {
            let above = lines[..number].iter().rev().take_while(|line| {
                // A comment may be meant for two bindings, one after the other.
                line.starts_with("//") || line.starts_with("@group") && line.contains("residual")
            });
            let is_said = above.into_iter().any(|line| line.contains('['));
            assert!(is_said, "{file}: {line}");
        }
    }
}

#[test]
fn names_and_words_are_told() {
    let text = "struct Tile {\n    b: u32,\n}\n@group(0) @binding(2) var<storage, read> rows: \
                array<f32>;\nvar<workgroup> tile_w: array<f32, 4>;\nfn f(a: u32) -> u32 {\n    \
                return other(tile.part); // not this\n}\n";
    assert_eq!(declared(text, false), BTreeSet::from(["Tile", "f", "rows", "tile_w"]));
    assert_eq!(declared(text, true), BTreeSet::from(["rows"]));
    let words = words(text);
    assert!(words.contains("other") && !words.contains("part") && !words.contains("not"));
}
