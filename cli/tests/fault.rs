//! A driver with a planted fault: `dynconv check` must find it and name the kernel that has it.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dynconv_fault_layer::{FAULT, LAYER, PREFIX, manifest};
use wait_timeout::ChildExt as _;

/// What a run under the layer gave.
#[derive(Debug)]
struct Run {
    passed: bool,
    /// Kernels that the tool suspects.
    suspects: Vec<String>,
    printed: String,
    /// What the layer said.
    layer: Vec<String>,
}

/// A fault may make a loop endless.
const LIMIT: Duration = Duration::from_secs(300);

/// The layer: cargo puts libraries that a test depends on beside the test.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the test is a file");
    let library = test.with_file_name("libdynconv_fault_layer.so");
    assert!(library.exists(), "no layer at {}", library.display());
    library
}

/// A folder for what this run writes.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fault-{}", name.replace(':', "-")));
    fs::create_dir_all(&folder).expect("writable");
    folder
}

/// Checks a driver with this fault, or with none.
fn check(fault: Option<&str>) -> Run {
    // The layer speaks once for each device.
    let arguments = ["check", "--jobs", "1", "--cases", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fault.txt")];
    let run = run(&folder(fault.unwrap_or("none")), fault, &arguments);
    // Other errors than a broken law, as a crash, would show nothing.
    assert!(run.printed.contains(" checks: "), "{fault:?}: {}{:?}", run.printed, run.layer);
    run
}

/// Runs the tool on a driver with this fault, or with none.
fn run(folder: &Path, fault: Option<&str>, arguments: &[&str]) -> Run {
    fs::write(folder.join("fault.json"), manifest(&library())).expect("writable");
    // Files, since a pipe that nobody empties would stop the tool.
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.join(name));

    let mut command = Command::new(env!("CARGO_BIN_EXE_dynconv"));
    command.args(arguments);
    command.env("WGPU_BACKEND", "vulkan").env("VK_LAYER_PATH", folder).env("VK_INSTANCE_LAYERS", LAYER);
    command.env_remove(FAULT).envs(fault.map(|fault| (FAULT, fault)));
    command.stdout(File::create(&stdout).expect("writable")).stderr(File::create(&stderr).expect("writable"));
    let mut child = command.spawn().expect("the tool starts");
    let Some(status) = child.wait_timeout(LIMIT).expect("the tool can be waited for") else {
        child.kill().expect("the tool can be ended");
        child.wait().expect("the tool ends");
        panic!("{arguments:?}: no end after {LIMIT:?}");
    };

    let [printed, said] = [stdout, stderr].map(|file| fs::read_to_string(file).expect("was written"));
    let suspects = printed.lines().filter_map(|line| line.strip_prefix("suspect: ")?.split(',').next());
    Run {
        passed: status.success(),
        suspects: suspects.map(str::to_owned).collect(),
        layer: said.lines().filter_map(|line| line.strip_prefix(PREFIX)).map(str::to_owned).collect(),
        printed,
    }
}

/// The fault is planted, in its kernel alone, and found there, with a line that reproduces it.
fn locate(fault: &str) {
    let run = check(Some(fault));
    assert!(!run.layer.is_empty(), "{fault} was not planted:\n{}", run.printed);
    assert!(run.layer.iter().all(|line| line.starts_with(fault)), "{:?}", run.layer);
    assert!(!run.passed, "{fault} went through:\n{}", run.printed);
    let kernel = fault.split(':').next().expect("names a kernel");
    assert_eq!(run.suspects, [kernel], "{fault}:\n{}", run.printed);
    assert!(run.printed.contains("reproduce: dynconv check --law "), "{}", run.printed);
}

#[test]
fn a_sound_driver_passes_under_the_layer() {
    let run = check(None);
    assert!(run.passed, "{}", run.printed);
    assert_eq!(run.layer, ["no fault"]);
    assert!(run.suspects.is_empty());
}

#[test]
fn sums_that_subtract_are_located() {
    ["aggregate:add", "demodulate:add", "channel_softmax:add", "conv_depthwise:add"].into_iter().for_each(locate);
}

#[test]
fn comparisons_one_off_are_located() {
    ["average_pool:compare", "conv_direct:compare", "conv_pointwise:compare"].into_iter().for_each(locate);
}

#[test]
fn lost_barriers_are_located() {
    ["attention_mlp:barrier", "conv_tiled:barrier"].into_iter().for_each(locate);
}

#[test]
fn a_report_shows_the_fault_again_and_clears_the_shaders() {
    let fault = Some("conv_direct:compare");
    let folder = folder("report");
    let report = folder.join("report.json");
    let report = report.to_str().expect("paths here are UTF-8");
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fault.txt");
    let checked = run(&folder, fault, &["check", "--law", "exact", "--cases", cases, "--report", report]);
    assert!(!checked.passed, "{}", checked.printed);
    let line = checked.printed.lines().find(|line| line.starts_with("report: ")).expect("tells of the report");
    assert!(line.contains(" broken problems, "), "{line}");

    let again = run(&folder, fault, &["replay", report]);
    assert!(!again.passed && again.printed.contains("WRONG static "), "{}", again.printed);
    assert!(again.printed.contains("  now: element 0 of "), "{}", again.printed);
    for sound in [run(&folder, None, &["replay", report]), run(&folder, None, &["replay", "--interpreter", report])] {
        assert!(sound.passed && sound.printed.contains("  recorded: element 0 of "), "{}", sound.printed);
        assert!(sound.printed.ends_with(" right, 0 wrong\n"), "{}", sound.printed);
    }
}
