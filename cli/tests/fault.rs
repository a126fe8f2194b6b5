//! A driver with a planted fault: golden vectors must fail where the fault is, and nowhere else.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
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
    /// Golden vectors that failed.
    failed: BTreeSet<String>,
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

/// Runs all golden vectors on a driver with this fault, or with none.
fn verify(fault: Option<&str>) -> Run {
    let name = fault.unwrap_or("none").replace(':', "-");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fault-{name}"));
    fs::create_dir_all(&folder).expect("writable");
    fs::write(folder.join("fault.json"), manifest(&library())).expect("writable");
    // Files, since a pipe that nobody empties would stop the tool.
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.join(name));

    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tests").join("golden");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynconv"));
    command.arg("verify").arg(golden);
    command.env("WGPU_BACKEND", "vulkan").env("VK_LAYER_PATH", &folder).env("VK_INSTANCE_LAYERS", LAYER);
    command.env_remove(FAULT).envs(fault.map(|fault| (FAULT, fault)));
    command.stdout(File::create(&stdout).expect("writable")).stderr(File::create(&stderr).expect("writable"));
    let mut child = command.spawn().expect("the tool starts");
    let Some(status) = child.wait_timeout(LIMIT).expect("the tool can be waited for") else {
        child.kill().expect("the tool can be ended");
        child.wait().expect("the tool ends");
        panic!("{name}: no end after {LIMIT:?}");
    };

    let [printed, said] = [stdout, stderr].map(|file| fs::read_to_string(file).expect("was written"));
    // Other errors than a failed vector, as a crash, would show nothing.
    assert!(printed.ends_with(" failed\n"), "{name}: {status}\n{printed}{said}");
    let failed = printed.lines().filter(|line| line.contains("FAIL")).filter_map(|line| line.split_whitespace().next());
    Run {
        passed: status.success(),
        failed: failed.map(str::to_owned).collect(),
        layer: said.lines().filter_map(|line| line.strip_prefix(PREFIX)).map(str::to_owned).collect(),
        printed,
    }
}

/// Runs with a fault, which must be planted, in no other kernel, and found.
fn find(fault: &str) -> Run {
    let run = verify(Some(fault));
    assert!(!run.layer.is_empty(), "{fault} was not planted:\n{}", run.printed);
    assert!(run.layer.iter().all(|line| line.starts_with(fault)), "{:?}", run.layer);
    assert!(!run.passed && !run.failed.is_empty(), "{fault} went through:\n{}", run.printed);
    run
}

/// These golden vectors fail with the fault, and all others pass.
fn locate(fault: &str, failing: &[&str]) {
    let run = find(fault);
    assert!(run.failed.iter().eq(failing), "{fault}:\n{}", run.printed);
}

const DEPTHWISE: [&str; 3] = ["condconv2d_depthwise", "odconv2d_depth_multiplier2", "odconv2d_depthwise"];

#[test]
fn a_sound_driver_passes_under_the_layer() {
    let run = verify(None);
    assert!(run.passed, "{}", run.printed);
    assert_eq!(run.layer, ["no fault"]);
}

#[test]
fn sums_that_subtract_are_found_and_located() {
    locate("demodulate:add", &["modulated2d"]);
    locate("channel_softmax:add", &["fdyconv2d", "pixelmix2d"]);
    locate("conv_depthwise:add", &DEPTHWISE);
}

#[test]
fn comparisons_one_off_are_found_and_located() {
    locate("conv_depthwise:compare", &DEPTHWISE);
}

/// How many vectors fail is chance on a driver that runs invocations side by side, but those that pool nothing cannot.
#[test]
fn lost_barriers_are_found() {
    let run = find("average_pool:barrier");
    for unpooled in ["modulated2d", "pixelmix2d"] {
        assert!(!run.failed.contains(unpooled), "{}", run.printed);
    }
}
