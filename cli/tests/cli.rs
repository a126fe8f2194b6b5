//! The tool as a person meets it: real runs, golden vectors, and wrong input.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tool lies in the workspace")
        .to_path_buf()
}

fn dynconv(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dynconv")).args(arguments).output().expect("the tool starts")
}

/// A file of this test's own.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are UTF-8")
}

fn asset(name: &str) -> Vec<u8> {
    std::fs::read(root().join("assets").join(name)).expect("the asset is there")
}

const MODEL: &str = "od_fashion.safetensors";

#[test]
fn the_demo_agrees_with_the_reference() {
    let [report, json] = ["demo.html", "demo.json"].map(scratch);
    let out = dynconv(&[
        "demo",
        "--images",
        "64",
        "--batch",
        "24",
        "--report",
        text(&report),
        "--json",
        text(&json),
    ]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let printed = String::from_utf8(out.stdout).expect("UTF-8");
    for line in ["adapter: ", "driver: ", "accuracy: ", "images per second: ", "report: "] {
        assert!(printed.contains(line), "no \"{line}\" in:\n{printed}");
    }
    assert!(!printed.contains("CPU reference\n"), "ran without an adapter:\n{printed}");

    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json).expect("written")).expect("is JSON");
    assert_eq!(json["total"], 64);
    assert_eq!(json["class_mismatches"], 0);
    assert_eq!(json["correct"], json["reference_correct"]);
    assert!(json["max_logit_error"].as_f64().expect("a number") <= 2e-4);
    assert!(json["images_per_second"].as_f64().expect("a number") > 0.0);
    assert_eq!(json["layers"].as_array().expect("a list").len(), 6);
    let html = std::fs::read_to_string(report).expect("written");
    assert!(html.contains("Ankle boot") && html.contains("data:image/png;base64,"));
}

/// All golden vectors pass with inputs and outputs in this element type.
fn golden_vectors_pass(elem: &str) {
    let out = dynconv(&["verify", "--elem", elem, text(&root().join("tests/golden"))]);
    let printed = String::from_utf8(out.stdout).expect("UTF-8");
    assert!(out.status.success(), "{printed}");
    assert!(printed.ends_with("23 passed, 0 failed\n"), "{printed}");
    assert!(printed.contains("odconv2d_depthwise"), "{printed}");
}

#[test]
fn golden_vectors_pass_in_f32() {
    golden_vectors_pass("f32");
}

#[test]
fn golden_vectors_pass_in_f16_storage() {
    golden_vectors_pass("f16-storage");
}

#[test]
fn golden_vectors_pass_in_f16() {
    golden_vectors_pass("f16");
}

#[test]
fn verify_fails_what_it_cannot_prove() {
    // A golden file whose y was changed, one of an unknown kind, and one that is no such file.
    let folder = scratch("golden");
    std::fs::create_dir_all(&folder).expect("writable");
    let golden = std::fs::read(root().join("tests/golden/dyconv1d.safetensors")).expect("is there");
    let header = 8 + usize::try_from(u64::from_le_bytes(golden[..8].try_into().expect("8 bytes")))
        .expect("fits");
    let fields: serde_json::Value = serde_json::from_slice(&golden[8..header]).expect("is JSON");
    let y = usize::try_from(fields["y"]["data_offsets"][0].as_u64().expect("has y")).expect("fits");
    let mut changed = golden.clone();
    // A bit of the exponent of its first element.
    changed[header + y + 6] ^= 1 << 5;
    let mut unknown = golden.clone();
    let kind = golden.windows(6).position(|w| w == b"dyconv").expect("names its kind");
    unknown[kind..kind + 6].copy_from_slice(b"myconv");
    for (name, bytes) in [("changed", &changed[..]), ("unknown", &unknown), ("cut", &golden[..100])]
    {
        std::fs::write(folder.join(format!("{name}.safetensors")), bytes).expect("writable");
    }
    let out = dynconv(&["verify", text(&folder)]);
    let printed = String::from_utf8(out.stdout).expect("UTF-8");
    assert_eq!(out.status.code(), Some(1), "{printed}");
    assert!(printed.contains("FAIL: unknown kind \"myconv\""), "{printed}");
    assert!(printed.contains("FAIL: checkpoint: "), "{printed}");
    assert!(printed.ends_with("0 passed, 3 failed\n"), "{printed}");
}

#[test]
fn info_says_which_adapter_it_would_use() {
    let json = scratch("info.json");
    let out = dynconv(&["info", "--json", text(&json)]);
    assert!(out.status.success());
    assert!(
        String::from_utf8(out.stdout)
            .expect("UTF-8")
            .lines()
            .any(|line| line.starts_with("using "))
    );
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json).expect("written")).expect("is JSON");
    assert!(json["selected"].is_u64());

    let out = dynconv(&["info", "--json", "-"]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("is JSON alone");
    assert!(json["selected"].is_u64());
    assert!(
        String::from_utf8(out.stderr)
            .expect("UTF-8")
            .lines()
            .any(|line| line.starts_with("using "))
    );

    let out = dynconv(&["info", "--adapter", "no such adapter"]);
    assert_eq!(out.status.code(), Some(NO_ADAPTER));
    let error = String::from_utf8(out.stderr).expect("UTF-8");
    assert!(
        error.starts_with("error: no adapter: wanted a name with \"no such adapter\"; found 0: "),
        "{error}"
    );
}

/// Runs the demo on a spoilt file; it must end with one line that says `message`.
fn demo_refuses(option: &str, name: &str, bytes: &[u8], message: &str) {
    let file = scratch(name);
    std::fs::write(&file, bytes).expect("writable");
    refused(&["demo", "--images", "10", option, text(&file)], message);
}

/// Exit statuses.
const FAILED: i32 = 1;
const WRONG_USAGE: i32 = 2;
const NO_ADAPTER: i32 = 3;
#[cfg(unix)]
const STOPPED: i32 = 130;

/// Whether a line says how far a run has come: it ends with seconds, or has them before what is
/// being done.
fn is_progress(line: &str) -> bool {
    line.ends_with(" s") || line.contains(" s: ")
}

/// The one line that tells an error; before it a run tells how far it has come.
fn the_error(said: &str) -> &str {
    let lines: Vec<&str> = said.lines().filter(|line| !is_progress(line)).collect();
    assert_eq!(lines.len(), 1, "one line: {said}");
    lines[0]
}

/// The run fails, with one line that says `message`.
fn refused(arguments: &[&str], message: &str) {
    ends_with(FAILED, arguments, message);
}

/// The arguments are wrong, as one line says.
fn misused(arguments: &[&str], message: &str) {
    ends_with(WRONG_USAGE, arguments, message);
}

fn ends_with(status: i32, arguments: &[&str], message: &str) {
    // The demo would leave its report in the current folder.
    let report = scratch("refused.html");
    let report: &[&str] = if arguments[0] == "demo" { &["--report", text(&report)] } else { &[] };
    let out = dynconv(&[arguments, report].concat());
    let error = String::from_utf8(out.stderr).expect("UTF-8");
    assert_eq!(out.status.code(), Some(status), "{arguments:?}: {error}");
    let error = the_error(&error);
    assert!(error.contains(message), "expected \"{message}\", found {error}");
}

#[test]
fn wrong_files_are_refused_in_one_line() {
    let model = asset(MODEL);
    demo_refuses(
        "--model",
        "cut.safetensors",
        &model[..model.len() / 2],
        "cut.safetensors: checkpoint: ",
    );
    demo_refuses("--model", "empty.safetensors", &[], "checkpoint: ");
    demo_refuses("--model", "text.safetensors", b"{\"not\": \"a checkpoint\"}", "checkpoint: ");

    // A header of 2^60 bytes is not allocated.
    let mut huge = model.clone();
    huge[..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    demo_refuses("--model", "huge.safetensors", &huge, "checkpoint: ");

    let renamed =
        replaced(&model, b"\"conv3.attention.bn.weight\"", b"\"conv3.attention.bn.wrong_\"");
    demo_refuses(
        "--model",
        "key.safetensors",
        &renamed,
        "no tensor conv3.attention.bn.weight, which should have shape [16]",
    );
    let reshaped = replaced(&model, b"\"shape\":[10,64]", b"\"shape\":[64,10]");
    demo_refuses(
        "--model",
        "shape.safetensors",
        &reshaped,
        "fc.weight: expected [64, 64], found [64, 10]",
    );

    let mut nan = model.clone();
    let last = nan.len() - 4;
    nan[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    demo_refuses("--model", "nan.safetensors", &nan, "needs a finite number, found NaN");

    let images = asset("t10k-images-idx3-ubyte.gz");
    demo_refuses(
        "--image-file",
        "cut.gz",
        &images[..images.len() / 2],
        "cut.gz: images: not a complete gzip file",
    );
    demo_refuses(
        "--image-file",
        "plain.gz",
        b"not gzip at all",
        "plain.gz: images: not a complete gzip file",
    );
    demo_refuses(
        "--label-file",
        "swapped.gz",
        &images,
        "swapped.gz: labels: expected the IDX magic number",
    );
    demo_refuses(
        "--reference",
        "logits.safetensors",
        &model,
        "logits.safetensors: reference logits: checkpoint: no tensor logits",
    );
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let place = bytes.windows(from.len()).position(|w| w == from).expect("the text is there");
    let mut bytes = bytes.to_vec();
    bytes[place..place + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn a_browser_that_is_not_there_is_named_with_what_to_install() {
    for (browser, message) in
        [("chromium", "install Chromium"), ("dawn", "run `npm install webgpu`")]
    {
        let out = dynconv(&["web", "--browser", browser, "--program", "/no/such/browser"]);
        assert_eq!(out.status.code(), Some(1));
        let error = String::from_utf8(out.stderr).expect("UTF-8");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("error: /no/such/browser") && error.contains(message), "{error}");
    }
}

#[test]
fn wrong_arguments_are_refused_in_one_line() {
    misused(&["demo", "--images", "0"], "--images: expected 1 to 10000, found 0");
    misused(&["demo", "--images", "10001"], "--images: expected 1 to 10000, found 10001");
    misused(&["demo", "--batch", "0"], "--batch: expected at least 1, found 0");
    refused(&["demo", "--model", "/no/such/file"], "cannot read /no/such/file");
    ends_with(
        NO_ADAPTER,
        &["demo", "--adapter", "no such adapter"],
        "no adapter: wanted a name with \"no such adapter\"",
    );
    let out = dynconv(&["verify", "/no/such/folder"]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(out.stderr).expect("UTF-8"),
        "error: /no/such/folder: no such file or folder\n"
    );
}

const PROBLEM: &str =
    "dycnn batch=2 channels=3x5 input=5x6 kernel=3x3 padding=1x1 kernels=3 conv=direct with=bias";

#[test]
fn a_check_writes_what_it_found() {
    let [json, junit] = ["check.json", "check.xml"].map(scratch);
    let out =
        dynconv(&["check", "--case", PROBLEM, "--json", text(&json), "--junit", text(&junit)]);
    let printed = String::from_utf8(out.stdout).expect("UTF-8");
    assert!(out.status.success(), "{printed}");
    assert!(
        printed.ends_with(" s\n") && printed.contains("1 problems, 10 checks: 10 kept, 0 broken"),
        "{printed}"
    );
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json).expect("written")).expect("is JSON");
    let checks = json["checks"].as_array().expect("a list");
    assert_eq!(checks.len(), 10);
    let rows: Vec<&str> = printed.lines().filter(|line| line.starts_with('│')).collect();
    assert!(rows.iter().all(|line| line.chars().count() <= 80), "{printed}");
    let with = |word: &str| rows.iter().filter(|line| line.contains(word)).count();
    assert_eq!(with("conv_direct"), with("kernel "), "a row a table: {printed}");
    assert!(!printed.contains("conv_tiled"), "a kernel that did not run: {printed}");
    assert!(checks.iter().all(|check| check["verdict"] == "kept" && check["problem"] == PROBLEM));
    let junit = std::fs::read_to_string(junit).expect("written");
    assert_eq!(junit.matches("<testcase ").count(), 10);
    assert!(junit.contains("failures=\"0\""), "{junit}");
    let short = ["check", "--case", PROBLEM, "--law", "exact", "--junit", "-"];
    let out = dynconv(&short);
    assert!(
        out.stdout.starts_with(b"<?xml") && !Path::new("-").exists(),
        "{}",
        String::from_utf8_lossy(&out.stdout)
    );
    refused(&[&short[..], &["--json", "-"]].concat(), "two options name standard output");
}

#[test]
fn what_cannot_be_checked_is_named() {
    misused(
        &["check", "--case", "bank batch=1"],
        "--case \"bank batch=1\": the problem does not say its channels",
    );
    misused(&["check", "--law", "gravity"], "no law \"gravity\"; there are exact, bound,");
    misused(&["check", "--kernel", "conv"], "no kernel \"conv\"; there are average_pool,");
    refused(&["check", "--cases", "/no/such/file"], "cannot read /no/such/file");
    refused(&["check", "--case", PROBLEM, "--kernel", "demodulate"], "no problem was run");
    refused(
        &["check", "--case", PROBLEM, "--law", "adjoint"],
        "none of these laws says anything about it",
    );
    let matrix = PROBLEM.replace("direct", "gemm_coopmat");
    refused(
        &["check", "--case", &matrix],
        "conv=gemm_coopmat with=bias\": conv_gemm_coopmat with an input",
    );
    refused(&["fuzz", "--problems", "0"], "nothing was checked: 0 problems");
    misused(&["mutants", "--sample", "0"], "--sample: expected at least 1, found 0");
    misused(&["fuzz", "--minutes=-1"], "--minutes -1: needs a number");
    misused(&["mutants", "--file", "no.wgsl"], "no shader file \"no.wgsl\"");
    misused(&["mutants", "--only", "99999999"], "--only 99999999: the last mutant is ");
    let zeros: [&[&str]; 3] =
        [&["mutants", "--timeout", "0"], &["mutants", "--jobs", "0"], &["web", "--silence", "0"]];
    for zero in zeros {
        assert_eq!(dynconv(zero).status.code(), Some(WRONG_USAGE), "{zero:?}");
    }
    // Options that say nothing together.
    let both: [&[&str]; 3] = [
        &["tune", "--list", "--json", "-"],
        &["tune", "--list", "--table", "x"],
        &["check", "--laws", "--json", "-"],
    ];
    for options in both {
        assert_eq!(dynconv(options).status.code(), Some(WRONG_USAGE), "{options:?}");
    }
}

#[test]
fn an_impossible_problem_is_wrong_usage() {
    let plain = "batch=2 channels=4x6 input=9x9 kernel=3x3";
    let problems = [
        (
            format!("bank {plain} groups=3"),
            "impossible: input channels: expected a multiple of 3 groups, found 4",
        ),
        (
            "bank batch=1 channels=1x1 input=2x9 kernel=3x3".into(),
            "impossible: input height: expected at least 3",
        ),
        (
            "bank batch=1 channels=1x1 input=5x5x5x5 kernel=1x1x1x1".into(),
            "axes of the input: expected 1 to 3, found 4",
        ),
        (
            format!("bank {plain} stride=1x1x1"),
            "axes of the stride: expected 2, as of the input, found 3",
        ),
        (format!("bank {plain} transposed=1x1"), "output padding of axis 0: expected below 1"),
        (
            format!("bank {plain} conv=depthwise"),
            "conv_depthwise is not possible: it needs one input channel a group",
        ),
        (
            "bank batch=1 channels=4x6 input=9x9 kernel=5x5 winograd=f2".into(),
            "it needs two axes, a 3 x 3 kernel",
        ),
        (format!("odconv {plain} with=bias"), "a bias is not possible: OdConv layers have none"),
        (
            format!("dcd {plain}"),
            "output size of a DCD layer's static convolution: expected [9, 9], found [7, 7]",
        ),
        (
            "maxpool batch=2 channels=4x4 groups=4 input=9x9 kernel=3x3 activation=relu".into(),
            "an activation is not possible: Pool(Max) layers have none",
        ),
        (
            format!("maxpool {plain}"),
            "output channels and groups of a pool: expected [4, 4], found [6, 1]",
        ),
        (format!("pixelmix {plain} padding=1 limits=tight"), "a choice of limits is not possible"),
        (
            format!("static {plain} kernels=2"),
            "impossible: kernels of a static convolution: expected 1",
        ),
        (format!("per_sample {plain} kernels=2"), "impossible: "),
        (format!("bank {plain} stride=0"), "impossible: stride: expected at least 1, found 0"),
        (format!("bank {plain} batch=3"), "\"batch\": expected every word once"),
        (
            plain.replace("batch=2", "bank batch=0"),
            "impossible: batch: expected at least 1, found 0",
        ),
        (
            format!("bank {plain} offset=1000000000000000000"),
            "too large: offset: expected at most 1048576",
        ),
        (
            plain.replace("4x6", "99999999999x3").replace("batch", "bank batch"),
            "more than the 4294967295",
        ),
        (
            plain.replace("9x9", "4000000000x4000000000").replace("batch", "bank batch"),
            "too large: elements of the input",
        ),
    ];
    for (problem, message) in &problems {
        misused(&["check", "--case", problem], message);
    }
    let cases = scratch("cases.txt");
    std::fs::write(&cases, format!("# mine\nbank {plain}\n{}\n", problems[0].0)).expect("writable");
    misused(
        &["check", "--cases", text(&cases)],
        "cases.txt:3: impossible: input channels: expected a multiple of 3",
    );
    misused(
        &["bench", "--batch", "99999999", "--only", "s0"],
        "s0 batch 99999999: too large: elements of the input",
    );
}

#[test]
fn files_are_tried_before_the_run() {
    let commands: [&[&str]; 9] = [
        &["check", "--json"],
        &["check", "--junit"],
        &["fuzz", "--json"],
        &["fuzz", "--junit"],
        &["mutants", "--markdown"],
        &["bench", "--report"],
        &["tune", "--table"],
        &["info", "--json"],
        &["demo", "--json"],
    ];
    for command in commands {
        let start = std::time::Instant::now();
        refused(
            &[command, &["/no/such/folder/file"]].concat(),
            "cannot write /no/such/folder/file",
        );
        assert!(start.elapsed().as_secs() < 10, "{command:?}");
    }
    // What was there stays if nothing comes of the run; what was not there is not left behind.
    let [old, new] = ["old.json", "new.xml"].map(scratch);
    std::fs::write(&old, "mine").expect("writable");
    let files =
        ["check", "--adapter", "no such adapter", "--json", text(&old), "--junit", text(&new)];
    ends_with(NO_ADAPTER, &files, "no adapter: ");
    assert_eq!(std::fs::read_to_string(&old).expect("is there"), "mine");
    assert!(!new.exists());
}

#[test]
fn a_closed_pipe_ends_in_silence() {
    for arguments in [&["check", "--laws"][..], &["info"], &["info", "--json", "-"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let out = Command::new(env!("CARGO_BIN_EXE_dynconv"))
            .args(arguments)
            .stdout(writer)
            .output()
            .expect("starts");
        let error = String::from_utf8(out.stderr).expect("UTF-8");
        assert_eq!(
            (out.status.code(), error.contains("panicked")),
            (Some(141), false),
            "{arguments:?}: {error}"
        );
    }
    // A run that has a file to write goes on.
    let json = scratch("unheard.json");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynconv"));
    let out =
        command.args(["info", "--json", text(&json)]).stdout(writer).output().expect("starts");
    assert!(out.status.success());
    serde_json::from_slice::<serde_json::Value>(&std::fs::read(json).expect("written"))
        .expect("is JSON");
}

#[test]
#[cfg(target_os = "linux")]
fn without_an_adapter_it_says_what_to_do() {
    let without = |arguments: &[&str], backend: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dynconv"));
        command.env("WGPU_BACKEND", backend).env("VK_DRIVER_FILES", "/no/such/driver.json");
        let out = command.args(arguments).output().expect("the tool starts");
        (out.status.code(), String::from_utf8(out.stderr).expect("UTF-8"))
    };
    for command in ["info", "check", "fuzz", "mutants", "bench", "tune"] {
        let (status, error) = without(&[command], "vulkan");
        assert_eq!(status, Some(NO_ADAPTER), "{command}: {error}");
        for part in [
            "no adapter: ",
            "VK_DRIVER_FILES: there is no /no/such/driver.json",
            "WGPU_BACKEND=vulkan: no other",
        ] {
            assert!(error.contains(part), "{command}: {error}");
        }
        assert!(
            error.contains("apt-get install mesa-vulkan-drivers libvulkan1"),
            "{command}: {error}"
        );
    }
    let (status, error) = without(&["info"], "vulcan");
    let message = "error: WGPU_BACKEND: no backend \"vulcan\"; there are vulkan, metal, dx12, gl\n";
    assert_eq!((status, error.as_str()), (Some(WRONG_USAGE), message));
    assert_eq!(without(&["check"], "metal").0, Some(WRONG_USAGE));
}

#[test]
fn shaders_are_sanitized_without_an_adapter() {
    let problem = "dycnn batch=2 channels=9x8 input=8x7 kernel=3x3 padding=1x1 \
                   kernels=4 conv=tiled limits=tight";
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynconv"));
    // A backend that is not there.
    command.env("WGPU_BACKEND", "metal").args([
        "sanitize",
        "--barriers",
        "--json",
        "-",
        "--case",
        problem,
    ]);
    let out = command.output().expect("the tool starts");
    let said = String::from_utf8(out.stderr).expect("UTF-8");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("is JSON");
    assert_eq!(json["problems"][0]["faults"], serde_json::json!([]), "{said}");
    let barriers = json["barriers"].as_array().expect("a list");
    let missed = |kernel: &str| {
        barriers.iter().filter(|b| b["kernel"] == kernel && b["found"] == true).count()
    };
    assert_eq!((missed("average_pool"), missed("conv_tiled")), (2, 2), "{said}");
    assert!(said.contains("1 problems: 0 faults, 0 not run"), "{said}");
    // One round of runs does not miss the last barrier.
    assert!(
        said.contains("NOT MISSED: the barrier in shaders/attention_mlp.wgsl, line "),
        "{said}"
    );
    assert_eq!(out.status.code(), Some(FAILED));
    let matrices = PROBLEM.replace("direct", "depthwise");
    misused(&["sanitize", "--case", &matrices], "conv_depthwise is not possible");
}

/// A long run, ended by Ctrl-C as soon as it tells of its progress: exit status and what it printed
/// on standard output and standard error.
#[cfg(unix)]
fn interrupted(arguments: &[&str]) -> (Option<i32>, [String; 2]) {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynconv"));
    let mut child = command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("is piped"));
    let mut said = String::new();
    while !said.lines().any(is_progress) && stderr.read_line(&mut said).expect("UTF-8") > 0 {}
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill is there").success());
    stderr.read_to_string(&mut said).expect("UTF-8");
    let out = child.wait_with_output().expect("ends");
    (out.status.code(), [String::from_utf8(out.stdout).expect("UTF-8"), said])
}

/// The JSON on standard output of a run that was ended by Ctrl-C.
#[cfg(unix)]
fn json_when_stopped(arguments: &[&str]) -> serde_json::Value {
    let (status, [printed, said]) = interrupted(&[arguments, &["--json", "-"]].concat());
    assert_eq!(status, Some(STOPPED), "{said}");
    assert!(
        said.contains("stopping after what is running now") && said.contains("stopped"),
        "{said}"
    );
    let json: serde_json::Value = serde_json::from_str(&printed).expect("is JSON alone");
    assert_eq!(json["stopped"], true);
    json
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_a_run_with_what_there_is() {
    let junit = scratch("stopped.xml");
    let json = json_when_stopped(&["check", "--full", "--jobs", "1", "--junit", text(&junit)]);
    let checks = json["checks"].as_array().expect("a list").len();
    assert!(checks > 0);
    let junit = std::fs::read_to_string(junit).expect("written");
    assert_eq!(junit.matches("<testcase ").count(), checks);

    let junit = scratch("fuzzed.xml");
    let json = json_when_stopped(&["fuzz", "--minutes", "60", "--junit", text(&junit)]);
    assert!(json["checks"].as_u64().expect("a number") > 0);
    let junit = std::fs::read_to_string(junit).expect("written");
    assert!(junit.contains(&format!("{} checks", json["checks"])), "{junit}");

    let report = scratch("stopped.html");
    json_when_stopped(&["bench", "smoke", "--samples", "9999", "--report", text(&report)]);
    assert!(
        std::fs::read_to_string(report)
            .expect("written")
            .contains("The run was stopped before its end")
    );

    let json = json_when_stopped(&[
        "demo",
        "--batch",
        "8",
        "--report",
        text(&scratch("stopped-demo.html")),
    ]);
    assert!((1..10_000).contains(&json["total"].as_u64().expect("a number")), "{json}");

    let table = scratch("stopped.md");
    let (status, [printed, said]) =
        interrupted(&["mutants", "--jobs", "1", "--markdown", text(&table)]);
    assert_eq!(status, Some(STOPPED), "{said}");
    assert!(printed.contains("stopped after ") && table.exists(), "{printed}");
}

/// Before the first image, too, there is an answer.
#[test]
#[cfg(unix)]
fn a_demo_that_is_stopped_early_writes_its_json() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynconv"));
    command.args([
        "demo",
        "--batch",
        "10000",
        "--json",
        "-",
        "--report",
        text(&scratch("early-demo.html")),
    ]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("is piped"));
    let mut said = String::new();
    while !said.contains("adapter: ") && stderr.read_line(&mut said).expect("UTF-8") > 0 {}
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill is there").success());
    stderr.read_to_string(&mut said).expect("UTF-8");
    let out = child.wait_with_output().expect("ends");
    assert_eq!(out.status.code(), Some(STOPPED), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("is JSON alone");
    assert_eq!(json["stopped"], true, "{json}");
}

#[test]
#[cfg(unix)]
fn a_second_ctrl_c_ends_at_once() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Stdio;
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynconv"));
    // Tuning cannot be interrupted in the middle of a layer.
    let cache = scratch("stopped-cache");
    command.args(["tune", "peers", "--again", "--cache", text(&cache)]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("is piped")).lines();
    let pid = child.id().to_string();
    let interrupt = || {
        assert!(
            Command::new("kill").args(["-INT", &pid]).status().expect("kill is there").success()
        )
    };
    let told = stderr.find(|line| line.as_ref().is_ok_and(|line| line.contains(" layers, ")));
    assert!(told.is_some());
    interrupt();
    assert!(stderr.any(|line| line.is_ok_and(|line| line.starts_with("stopping after"))));
    interrupt();
    assert_eq!(child.wait().expect("ends").signal(), Some(9));
}

#[test]
fn a_drawn_problem_can_be_drawn_again() {
    let draw = |jobs| {
        let out = dynconv(&["fuzz", "--problems", "3", "--seed", "5", "--trace", "--jobs", jobs]);
        String::from_utf8(out.stdout).expect("UTF-8")
    };
    let first = draw("1");
    assert!(first.ends_with(", 0 failures\n") && first.contains("3 problems, "), "{first}");
    // Which of several jobs prints first is open.
    let sorted =
        |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(sorted(&first), sorted(&draw("2")));
}

#[test]
fn what_is_no_report_is_not_replayed() {
    let file = scratch("no-report.json");
    for (content, message) in [
        ("", "no report of `dynconv check --report`: EOF while parsing"),
        (r#"{"checks": []}"#, "missing field `version`"),
        (r#"{"version": 2}"#, "a report of version 2, expected version 1"),
    ] {
        std::fs::write(&file, content).expect("writable");
        refused(&["replay", text(&file)], message);
        refused(&["web", "--replay", text(&file)], message);
    }
    refused(&["replay", text(&scratch("absent.json"))], "cannot read ");
    // A sound driver breaks nothing, so that nothing can be replayed.
    let case = "static batch=1 channels=1x1 input=3 kernel=1";
    let out = dynconv(&["check", "--law", "exact", "--case", case, "--report", text(&file)]);
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && printed.contains("report: 0 broken problems"), "{printed}");
    refused(&["replay", "--interpreter", text(&file)], "the report has no recorded run");
}

#[test]
fn mutants_of_a_shader_are_killed() {
    let table = scratch("mutants.md");
    // The laws: the interpreter has a step of its own.
    let few = ["mutants", "--file", "demodulate.wgsl", "--sample", "6", "--without-interpreter"];
    let out = dynconv(&[&few[..], &["--markdown", text(&table)]].concat());
    let printed = String::from_utf8(out.stdout).expect("UTF-8");
    assert!(out.status.success(), "{printed}");
    let table = std::fs::read_to_string(table).expect("written");
    assert!(table.contains("| demodulate.wgsl | ") && table.contains("by the laws on "), "{table}");
    assert!(
        table.contains("\n6 of 6 killed, 100.0 %") || table.contains("\n5 of 5 killed, 100.0 %"),
        "{table}"
    );
    assert_eq!(
        dynconv(&["mutants", "--without-laws", "--without-interpreter"]).status.code(),
        Some(WRONG_USAGE)
    );
}

/// Runs the benchmark on two small layers, and gives what it wrote and what it printed.
fn benched(name: &str, options: &[&str]) -> (serde_json::Value, String) {
    let json = scratch(name);
    let layers = ["bench", "smoke", "--only", "dense,depth", "--kernel", "auto,direct"];
    let out = dynconv(&[&layers[..], options, &["--json", text(&json)]].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let json = serde_json::from_slice(&std::fs::read(json).expect("written")).expect("is JSON");
    (json, String::from_utf8(out.stdout).expect("UTF-8"))
}

#[test]
fn a_quick_benchmark_writes_every_number_once() {
    for family in ["given", "dycnn", "odconv"] {
        let (json, printed) =
            benched(&format!("bench-{family}.json"), &["--quick", "--family", family]);
        assert!(
            printed.contains("measured peak ") && printed.contains("auto: conv_depthwise"),
            "{printed}"
        );
        assert_eq!((&json["version"], &json["rows"][0]["elem"]), (&1.into(), &"f32".into()));
        let above_0 = |value: &serde_json::Value| value.as_f64().is_some_and(|number| number > 0.0);
        assert!(above_0(&json["peak_gflops"]) && above_0(&json["copy_gbps"]), "{json}");
        assert!(json["adapter"].is_string() && json["driver"].is_string(), "{json}");
        let rows = json["rows"].as_array().expect("a list");
        assert_eq!(rows.len(), 4, "{printed}");
        for row in rows {
            for name in ["shape", "problem", "strategy", "kernel", "elem", "verified_what"] {
                assert!(row[name].is_string(), "{name}: {row}");
            }
            let numbers = [
                "batch",
                "median_ms",
                "min_ms",
                "max_ms",
                "wall_ms",
                "gflops",
                "gbps",
                "static_median_ms",
            ];
            let more = [
                "groups_median_ms",
                "ratio_to_static",
                "ratio_to_groups",
                "host_record_us",
                "memory_bytes",
            ];
            for name in numbers.into_iter().chain(more).chain(["scratch_bytes", "verified_error"]) {
                assert!(above_0(&row[name]), "{name}: {row}");
            }
            assert!(row["verified_share_of_bound"].as_f64().expect("a number") <= 1.0);
            assert_eq!(above_0(&row["attention_ms"]), family != "given", "{row}");
        }
    }
}

#[test]
fn a_batch_of_its_own_and_a_report() {
    let report = scratch("bench.html");
    let (json, _) =
        benched("bench-batch.json", &["--quick", "--batch", "1,5", "--report", text(&report)]);
    let batches: Vec<_> =
        json["rows"].as_array().expect("a list").iter().map(|row| row["batch"].clone()).collect();
    assert_eq!(batches, [1, 1, 5, 5, 1, 1, 5, 5]);
    let html = std::fs::read_to_string(report).expect("written");
    let command = "<code>dynconv bench smoke --only dense,depth --kernel auto,direct \
                   --quick --batch 1,5 --report ";
    let facts = [
        command,
        "Too few samples to compare",
        "<td class=\"number\">4</td><td>f32</td>",
        " UTC</p>",
    ];
    for part in ["Roofline", "Time against batch", "dense × 5", "times say nothing"]
        .into_iter()
        .chain(facts)
    {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("NaN") && !html.contains("<script") && !html.contains("http:"));
}

#[test]
fn a_kernel_that_was_asked_for_and_cannot_run_is_a_failure() {
    let point = ["bench", "smoke", "--only", "point", "--quick", "--without-groups"];
    let asked = dynconv(&[&point[..], &["--kernel", "auto,3x3_simd8"]].concat());
    let error = String::from_utf8(asked.stderr).expect("UTF-8");
    assert_eq!(asked.status.code(), Some(FAILED), "{error}");
    assert!(
        the_error(&error).starts_with("error: --kernel 3x3_simd8: not measured on point batch ")
            && error.contains("3 x 3"),
        "{error}"
    );
    assert!(
        String::from_utf8(asked.stdout).expect("UTF-8").contains("auto: conv_"),
        "the others are measured"
    );
    assert!(dynconv(&[&point[..], &["--kernel", "all"]].concat()).status.success());
}

/// The same results, all times but the machine's own multiplied.
fn scaled(json: &serde_json::Value, factor: f64, name: &str) -> PathBuf {
    let mut json = json.clone();
    for row in json["rows"].as_array_mut().expect("a list") {
        for time in ["median_ms", "min_ms", "max_ms"] {
            row[time] = (row[time].as_f64().expect("a number") * factor).into();
        }
    }
    let path = scratch(name);
    std::fs::write(&path, json.to_string()).expect("writable");
    path
}

#[test]
fn what_has_become_slower_is_told_from_noise() {
    let (json, _) = benched("bench-base.json", &["--samples", "5"]);
    let against = |old: &Path, options: &[&str]| {
        let layers = ["bench", "smoke", "--only", "dense,depth", "--kernel", "auto,direct"];
        let out = dynconv(&[&layers[..], &["--compare", text(old)], options].concat());
        let [printed, error] =
            [out.stdout, out.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
        (out.status.code(), printed, error)
    };
    // A hundred times is more than what the machine can drift by.
    let (code, printed, error) =
        against(&scaled(&json, 0.01, "bench-fast.json"), &["--samples", "5"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(the_error(&error).starts_with("error: 4 of 4 layers are slower than in "), "{error}");
    let (code, printed, error) =
        against(&scaled(&json, 100.0, "bench-slow.json"), &["--samples", "5"]);
    assert!(code == Some(0) && !error.contains("error: "), "{printed}{error}");
    assert!(
        printed.contains(
            ": 0 slower, 4 faster, 0 within the noise, 0 with too few samples, 0 not in it"
        ),
        "{printed}"
    );
    let (code, printed, _) = against(&scaled(&json, 0.01, "bench-few.json"), &["--samples", "2"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains(", 4 with too few samples, "), "{printed}");

    let mut other = json.clone();
    other["adapter"] = "another".into();
    let old = scaled(&other, 1.0, "bench-other.json");
    let (code, _, error) = against(&old, &["--quick"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("expected results of adapter ") && error.ends_with(", found another\n"),
        "{error}"
    );
    assert!(!error.lines().any(is_progress), "it is found out before the run: {error}");
}

#[test]
fn what_cannot_be_benched_is_named() {
    let shapes = scratch("shapes.txt");
    std::fs::write(&shapes, "# mine\nsmall channels=4x4 input=8x8 kernel=3x3 sride=2\n")
        .expect("writable");
    let message = format!(
        "error: {}:2: \"sride\": expected channels, input, kernel, stride, ",
        text(&shapes)
    );
    misused(&["bench", text(&shapes)], &message);
    refused(&["bench", "/no/such/shapes"], "cannot read /no/such/shapes: ");
    misused(&["bench", "--only", "s77"], "--only s77: there is no such shape; there are s0, s1,");
    misused(
        &["bench", "--batch", "0"],
        "s0 batch 0: impossible: batch: expected at least 1, found 0",
    );
    misused(&["bench", "--samples", "0"], "--samples: expected at least 1, found 0");
    misused(&["bench", "--kernel", "fast"], "--kernel fast: expected all, auto, split_k,");
    refused(&["bench", "--compare", "/no/such/results"], "/no/such/results: ");
    let old = scratch("old.json");
    std::fs::write(&old, "{\"version\": 0}").expect("writable");
    refused(&["bench", "--compare", text(&old)], "expected results of version 1, found version 0");
}

/// What `dynconv tune` prints and writes as JSON for the pointwise layer, with its cache in this
/// folder.
fn tuned(cache: &Path, options: &[&str]) -> (serde_json::Value, String) {
    let json = scratch("tune.json");
    let layer = [
        "tune",
        "smoke",
        "--only",
        "point",
        "--batch",
        "2",
        "--family",
        "static",
        "--cache",
        text(cache),
    ];
    let out = dynconv(&[&layer[..], options, &["--json", text(&json)]].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let json = serde_json::from_slice(&std::fs::read(json).expect("written")).expect("is JSON");
    (json, String::from_utf8(out.stdout).expect("UTF-8"))
}

#[test]
fn what_was_tuned_is_remembered() {
    let [cache, table] = ["tuning", "gains.txt"].map(scratch);
    // What a run before has left.
    let _ = std::fs::remove_dir_all(&cache);
    let (json, printed) = tuned(&cache, &["--table", text(&table)]);
    assert!(printed.contains(" planner's ") && printed.contains("1 shapes in "), "{printed}");
    assert!(printed.contains("gain: the first time divided by the second"), "{printed}");
    let trials = json["shapes"][0]["trials"].as_array().expect("a list");
    assert!(trials.len() > 2 && trials[0]["choice"] == "auto", "{json}");
    assert!(trials.iter().all(|trial| trial["ms"].as_f64().is_some_and(|ms| ms > 0.0)), "{json}");

    let files = || {
        std::fs::read_dir(&cache).expect("is there").map(|entry| entry.expect("is there").path())
    };
    let path =
        files().find(|path| path.extension().is_some_and(|e| e == "tuning")).expect("a table");
    let written = std::fs::read_to_string(&path).expect("written");
    let choice = json["shapes"][0]["choice"].as_str().expect("a name").to_string();
    let line = format!("{} -> {choice}", json["shapes"][0]["problem"].as_str().expect("a problem"));
    assert_eq!(written.lines().skip(5).collect::<Vec<_>>(), [&line]);
    let gains = std::fs::read_to_string(&table).expect("written");
    assert_eq!(gains.contains(&line), choice != "auto", "only gains are written: {gains}");

    let (json, printed) = tuned(&cache, &[]);
    assert_eq!(json["shapes"][0]["known"], choice.as_str());
    assert!(printed.contains(", as known"), "{printed}");

    // Another driver's table is shown with the reason why it is not used.
    let stale = written.replacen("driver ", "driver another ", 1);
    std::fs::write(cache.join("dynconv-0000000000000000.tuning"), stale).expect("writable");
    let listed = dynconv(&["tune", "--list", "--cache", text(&cache)]);
    let listed = String::from_utf8(listed.stdout).expect("UTF-8");
    assert!(
        listed.contains("not used: tuning table: its driver is another ") && listed.contains(&line),
        "{listed}"
    );

    // A table that was spoilt is not measured over.
    std::fs::write(&path, written.replace(" -> ", " = ")).expect("writable");
    refused(
        &["tune", "smoke", "--cache", text(&cache)],
        "line 6: expected a problem -> its kernel",
    );
    misused(&["tune", "smoke", "--batch", "0"], "--batch: expected at least 1, found 0");
}
