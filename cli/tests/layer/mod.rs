//! Programs on a driver with a fault.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use dynconv_fault_layer::{FAULT, LAYER, PREFIX, manifest};
use wait_timeout::ChildExt as _;

/// What a run under the layer gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) printed: String,
    /// All that was written to standard error.
    pub(crate) said: String,
    /// What the layer said of it.
    pub(crate) layer: Vec<String>,
}

/// The layer: cargo puts libraries that a test depends on beside the test.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the test is a file");
    let library = test.with_file_name("libdynconv_fault_layer.so");
    assert!(library.exists(), "no layer at {}", library.display());
    library
}

/// A folder for what a run writes.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fault-{}", name.replace(':', "-")));
    fs::create_dir_all(&folder).expect("writable");
    folder
}

/// Runs a program on a driver with this fault, or with none. A fault may make a loop endless, or
/// have the program wait for what never comes.
pub(crate) fn run(
    command: &mut Command,
    folder: &Path,
    fault: Option<&str>,
    limit: Duration,
) -> Run {
    fs::write(folder.join("fault.json"), manifest(&library())).expect("writable");
    // Files, since a pipe that nobody empties would stop the program.
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.join(name));
    command
        .env("WGPU_BACKEND", "vulkan")
        .env("VK_LAYER_PATH", folder)
        .env("VK_INSTANCE_LAYERS", LAYER);
    command.env_remove(FAULT).envs(fault.map(|fault| (FAULT, fault)));
    command
        .stdout(File::create(&stdout).expect("writable"))
        .stderr(File::create(&stderr).expect("writable"));
    let mut child = command.spawn().expect("the program starts");
    let Some(status) = child.wait_timeout(limit).expect("the program can be waited for") else {
        child.kill().expect("the program can be ended");
        child.wait().expect("the program ends");
        panic!("{command:?}: no end after {limit:?}");
    };
    let [printed, said] =
        [stdout, stderr].map(|file| fs::read_to_string(file).expect("was written"));
    let layer =
        said.lines().filter_map(|line| line.strip_prefix(PREFIX)).map(str::to_owned).collect();
    Run { status, printed, said, layer }
}
