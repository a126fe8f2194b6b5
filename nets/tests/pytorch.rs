//! Files of PyTorch in every layout, and hostile ones.
#![cfg(feature = "pytorch")]

use std::fs;
use std::path::{Path, PathBuf};

use dynconv::Checkpoint;
use dynconv_nets::PytorchFile;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pickles");
    let files = fs::read_dir(folder).expect("there are files");
    let mut files: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
    files.sort();
    files
}

fn name(file: &Path) -> String {
    file.file_name().expect("has a name").to_string_lossy().into_owned()
}

fn is_pytorch(file: &Path) -> bool {
    !name(file).ends_with(".safetensors")
}

/// Every layout holds the same 20 tensors.
#[test]
fn every_layout_gives_the_same_tensors() {
    let plain =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pickles/plain.safetensors"));
    let plain = plain.expect("readable");
    let plain = Checkpoint::new(&plain).expect("is one");
    let mut read = 0;
    for file in files().iter().filter(|file| is_pytorch(file) && !name(file).starts_with("bad_")) {
        let name = name(file);
        let found = PytorchFile::read(file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let checkpoint = Checkpoint::new(&found.safetensors).expect("is one");
        let of =
            |checkpoint: &Checkpoint<'_>| checkpoint.keys().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(of(&checkpoint), of(&plain), "{name}");
        assert_eq!(found.skipped, [""; 0], "{name}");
        let under = match name.as_str() {
            "odconv.pth.tar" | "legacy_nested.pth.tar" => Some("state_dict"),
            "kernelwarehouse.pth" => Some("model"),
            _ => None,
        };
        assert_eq!(found.under, under, "{name}");
        // Of what is rounded, the rounding.
        let tolerance = match name.as_str() {
            "f16.pth" => 1e-3,
            "bf16.pth" => 8e-3,
            _ => 0.0,
        };
        for key in plain.keys() {
            if name == "expanded.pth" && key == "bn1.weight" {
                assert!(checkpoint.values(key).expect("is there").iter().all(|&v| v == 1.0));
                continue;
            }
            let Ok(expected) = plain.values(key) else { continue };
            assert_eq!(checkpoint.shape(key), plain.shape(key), "{name}: {key}");
            let values = checkpoint.values(key).expect("is there");
            for (value, expected) in values.iter().zip(&expected) {
                let error = (value - expected).abs();
                assert!(error <= tolerance * expected.abs(), "{name}: {key}: {value} {expected}");
            }
        }
        read += 1;
    }
    assert!(read >= 12, "{read} files");
}

/// Nothing hostile panics, runs code, or takes memory that the file does not warrant.
#[test]
fn hostile_files_are_refused_by_name() {
    let mut refused = 0;
    for file in files().iter().filter(|file| name(file).starts_with("bad_")) {
        let name = name(file);
        match (name.as_str(), PytorchFile::read(file)) {
            // The object that would run a command is none of the tensors, and is named.
            ("bad_code.pth", Ok(found)) => {
                assert_eq!(found.skipped.len(), 1, "{:?}", found.skipped);
                let checkpoint = Checkpoint::new(&found.safetensors).expect("is one");
                assert_eq!(checkpoint.keys().count(), 20);
            }
            // A count that nothing reads.
            ("bad_storage_count.pth", Ok(found)) => assert!(found.safetensors.len() < 20_000),
            (_, Ok(found)) => panic!("{name} was read: {} bytes", found.safetensors.len()),
            (_, Err(error)) => {
                let message = error.to_string();
                assert!(message.len() > 10, "{name}: {message}");
                if name.starts_with("bad_expand_bomb") {
                    assert!(message.contains("would make more than"), "{message}");
                }
                println!("{name}: {message}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 12, "{refused} refused");
}
