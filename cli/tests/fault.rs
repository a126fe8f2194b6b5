//! A driver with a planted fault: `dynconv check` must find it and name the kernel that has it.
#![cfg(target_os = "linux")]

mod layer;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use layer::{Run, folder};

/// A fault may make a loop endless.
const LIMIT: Duration = Duration::from_secs(300);

/// Checks a driver with this fault, or with none.
fn check(fault: Option<&str>) -> Run {
    // The layer speaks once for each device.
    let arguments = [
        "check",
        "--jobs",
        "1",
        "--cases",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fault.txt"),
    ];
    let run = run(&folder(fault.unwrap_or("none")), fault, &arguments);
    // Other errors than a broken law, as a crash, would show nothing.
    assert!(
        run.printed.contains(" checks: "),
        "{fault:?}: {}\n{}{}",
        run.status,
        run.printed,
        run.said
    );
    run
}

/// Runs the tool on a driver with this fault, or with none.
fn run(folder: &Path, fault: Option<&str>, arguments: &[&str]) -> Run {
    layer::run(Command::new(env!("CARGO_BIN_EXE_dynconv")).args(arguments), folder, fault, LIMIT)
}

/// Kernels that the tool suspects.
fn suspects(run: &Run) -> Vec<&str> {
    run.printed
        .lines()
        .filter_map(|line| line.strip_prefix("suspect: ")?.split(',').next())
        .collect()
}

/// The fault is planted, in its kernel alone, and found there, with a line that reproduces it.
fn locate(fault: &str) {
    let run = check(Some(fault));
    assert!(!run.layer.is_empty(), "{fault} was not planted:\n{}", run.printed);
    assert!(run.layer.iter().all(|line| line.starts_with(fault)), "{:?}", run.layer);
    assert!(!run.status.success(), "{fault} went through:\n{}", run.printed);
    let kernel = fault.split(':').next().expect("names a kernel");
    assert_eq!(suspects(&run), [kernel], "{fault}:\n{}", run.printed);
    assert!(run.printed.contains("reproduce: dynconv check --law "), "{}", run.printed);
}

#[test]
fn a_sound_driver_passes_under_the_layer() {
    let run = check(None);
    assert!(run.status.success(), "{}", run.printed);
    assert_eq!(run.layer, ["no fault"]);
    assert!(suspects(&run).is_empty());
}

#[test]
fn sums_that_subtract_are_located() {
    ["aggregate:add", "demodulate:add", "channel_softmax:add", "conv_depthwise:add"]
        .into_iter()
        .for_each(locate);
}

#[test]
fn comparisons_one_off_are_located() {
    ["average_pool:compare", "conv_direct:compare", "conv_pointwise:compare"]
        .into_iter()
        .for_each(locate);
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
    let checked =
        run(&folder, fault, &["check", "--law", "exact", "--cases", cases, "--report", report]);
    assert!(!checked.status.success(), "{}", checked.printed);
    let line = checked
        .printed
        .lines()
        .find(|line| line.starts_with("report: "))
        .expect("tells of the report");
    assert!(line.contains(" broken problems, "), "{line}");

    let again = run(&folder, fault, &["replay", report]);
    assert!(
        !again.status.success() && again.printed.contains("WRONG static "),
        "{}",
        again.printed
    );
    assert!(again.printed.contains("  now: element 0 of "), "{}", again.printed);
    for sound in [
        run(&folder, None, &["replay", report]),
        run(&folder, None, &["replay", "--interpreter", report]),
    ] {
        assert!(
            sound.status.success() && sound.printed.contains("  recorded: element 0 of "),
            "{}",
            sound.printed
        );
        assert!(sound.printed.ends_with(" right, 0 wrong\n"), "{}", sound.printed);
    }
}
