//! The tool as a person meets it: real runs, golden vectors, and wrong input.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tool lies in the workspace").to_path_buf()
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
    let out = dynconv(&["demo", "--images", "64", "--batch", "24", "--report", text(&report), "--json", text(&json)]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let printed = String::from_utf8(out.stdout).expect("UTF-8");
    for line in ["adapter: ", "driver: ", "accuracy: ", "images per second: ", "report: "] {
        assert!(printed.contains(line), "no \"{line}\" in:\n{printed}");
    }
    assert!(!printed.contains("CPU reference\n"), "ran without an adapter:\n{printed}");

    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).expect("written")).expect("is JSON");
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
    let header = 8 + usize::try_from(u64::from_le_bytes(golden[..8].try_into().expect("8 bytes"))).expect("fits");
    let fields: serde_json::Value = serde_json::from_slice(&golden[8..header]).expect("is JSON");
    let y = usize::try_from(fields["y"]["data_offsets"][0].as_u64().expect("has y")).expect("fits");
    let mut changed = golden.clone();
    // A bit of the exponent of its first element.
    changed[header + y + 6] ^= 1 << 5;
    let mut unknown = golden.clone();
    let kind = golden.windows(6).position(|w| w == b"dyconv").expect("names its kind");
    unknown[kind..kind + 6].copy_from_slice(b"myconv");
    for (name, bytes) in [("changed", &changed[..]), ("unknown", &unknown), ("cut", &golden[..100])] {
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
    assert!(String::from_utf8(out.stdout).expect("UTF-8").lines().any(|line| line.starts_with("using ")));
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).expect("written")).expect("is JSON");
    assert!(json["selected"].is_u64());

    let out = dynconv(&["info", "--adapter", "no such adapter"]);
    assert_eq!(out.status.code(), Some(1));
    let error = String::from_utf8(out.stderr).expect("UTF-8");
    assert!(error.starts_with("error: no adapter: wanted a name with \"no such adapter\"; found 0: "), "{error}");
}

/// Runs the demo on a spoilt file; it must end with one line that says `message`.
fn demo_refuses(option: &str, name: &str, bytes: &[u8], message: &str) {
    let file = scratch(name);
    std::fs::write(&file, bytes).expect("writable");
    refused(&["demo", "--images", "10", option, text(&file)], message);
}

fn refused(arguments: &[&str], message: &str) {
    // The demo would leave its report in the current folder.
    let report = scratch("refused.html");
    let report: &[&str] = if arguments[0] == "demo" { &["--report", text(&report)] } else { &[] };
    let out = dynconv(&[arguments, report].concat());
    let error = String::from_utf8(out.stderr).expect("UTF-8");
    assert_eq!(out.status.code(), Some(1), "{arguments:?}: {error}");
    assert_eq!(error.lines().count(), 1, "one line: {error}");
    assert!(error.contains(message), "expected \"{message}\", found {error}");
}

#[test]
fn wrong_files_are_refused_in_one_line() {
    let model = asset(MODEL);
    demo_refuses("--model", "cut.safetensors", &model[..model.len() / 2], "checkpoint: ");
    demo_refuses("--model", "empty.safetensors", &[], "checkpoint: ");
    demo_refuses("--model", "text.safetensors", b"{\"not\": \"a checkpoint\"}", "checkpoint: ");

    // A header of 2^60 bytes is not allocated.
    let mut huge = model.clone();
    huge[..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    demo_refuses("--model", "huge.safetensors", &huge, "checkpoint: ");

    let renamed = replaced(&model, b"\"conv3.attention.bn.weight\"", b"\"conv3.attention.bn.wrong_\"");
    demo_refuses(
        "--model",
        "key.safetensors",
        &renamed,
        "no tensor conv3.attention.bn.weight, which should have shape [16]",
    );
    let reshaped = replaced(&model, b"\"shape\":[10,64]", b"\"shape\":[64,10]");
    demo_refuses("--model", "shape.safetensors", &reshaped, "fc.weight: expected [10, 64], found [64, 10]");

    let mut nan = model.clone();
    let last = nan.len() - 4;
    nan[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    demo_refuses("--model", "nan.safetensors", &nan, "needs a finite number, found NaN");

    let images = asset("t10k-images-idx3-ubyte.gz");
    demo_refuses("--image-file", "cut.gz", &images[..images.len() / 2], "images: not a complete gzip file");
    demo_refuses("--image-file", "plain.gz", b"not gzip at all", "images: not a complete gzip file");
    demo_refuses("--label-file", "swapped.gz", &images, "labels: expected the IDX magic number");
    demo_refuses("--reference", "logits.safetensors", &model, "reference logits: checkpoint: no tensor logits");
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
    for (browser, message) in [("chromium", "install Chromium"), ("dawn", "run `npm install webgpu`")] {
        let out = dynconv(&["web", "--browser", browser, "--program", "/no/such/browser"]);
        assert_eq!(out.status.code(), Some(1));
        let error = String::from_utf8(out.stderr).expect("UTF-8");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("error: /no/such/browser") && error.contains(message), "{error}");
    }
}

#[test]
fn wrong_arguments_are_refused_in_one_line() {
    refused(&["demo", "--images", "0"], "--images: expected 1 to 10000, found 0");
    refused(&["demo", "--images", "10001"], "--images: expected 1 to 10000, found 10001");
    refused(&["demo", "--batch", "0"], "--batch: expected at least 1, found 0");
    refused(&["demo", "--model", "/no/such/file"], "cannot read /no/such/file");
    refused(&["demo", "--adapter", "no such adapter"], "no adapter: wanted a name with \"no such adapter\"");
    let out = dynconv(&["verify", "/no/such/folder"]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(String::from_utf8(out.stderr).expect("UTF-8"), "error: /no/such/folder: no such file or folder\n");
}

const PROBLEM: &str = "dycnn batch=2 channels=3x5 input=5x6 kernel=3x3 padding=1x1 kernels=3 conv=direct with=bias";

#[test]
fn a_check_writes_what_it_found() {
    let [json, junit] = ["check.json", "check.xml"].map(scratch);
    let out = dynconv(&["check", "--case", PROBLEM, "--json", text(&json), "--junit", text(&junit)]);
    let printed = String::from_utf8(out.stdout).expect("UTF-8");
    assert!(out.status.success(), "{printed}");
    assert!(printed.ends_with(" s\n") && printed.contains("1 problems, 8 checks: 8 kept, 0 broken"), "{printed}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).expect("written")).expect("is JSON");
    let checks = json["checks"].as_array().expect("a list");
    assert_eq!(checks.len(), 8);
    assert!(checks.iter().all(|check| check["verdict"] == "kept" && check["problem"] == PROBLEM));
    let junit = std::fs::read_to_string(junit).expect("written");
    assert_eq!(junit.matches("<testcase ").count(), 8);
    assert!(junit.contains("failures=\"0\""), "{junit}");
}

#[test]
fn what_cannot_be_checked_is_named() {
    refused(&["check", "--case", "bank batch=1"], "--case \"bank batch=1\": the problem does not say its channels");
    refused(&["check", "--law", "gravity"], "no law \"gravity\"; there are exact, bound,");
    refused(&["check", "--kernel", "conv"], "no kernel \"conv\"; there are average_pool,");
    refused(&["check", "--cases", "/no/such/file"], "cannot read /no/such/file");
    refused(&["check", "--case", PROBLEM, "--kernel", "demodulate"], "no problem was run");
    refused(&["fuzz", "--minutes=-1"], "--minutes -1: needs a number");
    refused(&["mutants", "--file", "no.wgsl"], "no shader file \"no.wgsl\"");
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
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(sorted(&first), sorted(&draw("2")));
}

#[test]
fn mutants_of_a_shader_are_killed() {
    let table = scratch("mutants.md");
    let out = dynconv(&["mutants", "--file", "demodulate.wgsl", "--sample", "6", "--markdown", text(&table)]);
    let printed = String::from_utf8(out.stdout).expect("UTF-8");
    assert!(out.status.success(), "{printed}");
    let table = std::fs::read_to_string(table).expect("written");
    assert!(table.contains("| demodulate.wgsl | ") && table.contains(" mutants killed, 100.0 %"), "{table}");
}

/// Runs the benchmark on two small layers with all kernels, and gives what it wrote and what it printed.
fn benched(name: &str, options: &[&str]) -> (serde_json::Value, String) {
    let json = scratch(name);
    let layers = ["bench", "smoke", "--only", "dense,depth", "--kernel", "auto,direct,depthwise"];
    let out = dynconv(&[&layers[..], options, &["--json", text(&json)]].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let json = serde_json::from_slice(&std::fs::read(json).expect("written")).expect("is JSON");
    (json, String::from_utf8(out.stdout).expect("UTF-8"))
}

#[test]
fn a_quick_benchmark_writes_every_number_once() {
    for family in ["given", "dycnn", "odconv"] {
        let (json, printed) = benched(&format!("bench-{family}.json"), &["--quick", "--family", family]);
        assert!(printed.contains("measured peak ") && printed.contains("auto: conv_depthwise"), "{printed}");
        assert!(
            printed.contains("not run: depthwise on dense batch 3: refused: conv_depthwise is not possible"),
            "{printed}"
        );
        assert_eq!((&json["version"], &json["rows"][0]["elem"]), (&1.into(), &"f32".into()));
        let above_0 = |value: &serde_json::Value| value.as_f64().is_some_and(|number| number > 0.0);
        assert!(above_0(&json["peak_gflops"]) && above_0(&json["copy_gbps"]), "{json}");
        assert!(json["adapter"].is_string() && json["driver"].is_string(), "{json}");
        let rows = json["rows"].as_array().expect("a list");
        assert_eq!(rows.len(), 5, "{printed}");
        for row in rows {
            for name in ["shape", "problem", "strategy", "kernel", "elem", "verified_what"] {
                assert!(row[name].is_string(), "{name}: {row}");
            }
            let numbers = ["batch", "median_ms", "min_ms", "max_ms", "wall_ms", "gflops", "gbps", "static_median_ms"];
            let more = ["groups_median_ms", "ratio_to_static", "ratio_to_groups", "host_record_us", "memory_bytes"];
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
    let (json, _) = benched("bench-batch.json", &["--quick", "--batch", "1,5", "--report", text(&report)]);
    let batches: Vec<_> = json["rows"].as_array().expect("a list").iter().map(|row| row["batch"].clone()).collect();
    assert_eq!(batches, [1, 1, 5, 5, 1, 1, 1, 5, 5, 5]);
    let html = std::fs::read_to_string(report).expect("written");
    for part in ["Roofline", "Time against batch", "dense × 5", "times say nothing"] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("NaN") && !html.contains("<script") && !html.contains("http:"));
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
        let [printed, error] = [out.stdout, out.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
        (out.status.code(), printed, error)
    };
    // A hundred times is more than what the machine can drift by.
    let (code, printed, error) = against(&scaled(&json, 0.01, "bench-fast.json"), &["--samples", "5"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(error.starts_with("error: 4 of 4 layers are slower than in "), "{error}");
    let (code, printed, error) = against(&scaled(&json, 100.0, "bench-slow.json"), &["--samples", "5"]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{printed}");
    assert!(
        printed.contains(": 0 slower, 4 faster, 0 within the noise, 0 with too few samples, 0 not in it"),
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
    assert!(error.contains("expected results of adapter ") && error.ends_with(", found another\n"), "{error}");
}

#[test]
fn what_cannot_be_benched_is_named() {
    let shapes = scratch("shapes.txt");
    std::fs::write(&shapes, "# mine\nsmall channels=4x4 input=8x8 kernel=3x3 sride=2\n").expect("writable");
    let message = format!("error: {}:2: \"sride\": expected channels, input, kernel, stride, ", text(&shapes));
    refused(&["bench", text(&shapes)], &message);
    refused(&["bench", "/no/such/shapes"], "cannot read /no/such/shapes: ");
    refused(&["bench", "--only", "s77"], "--only s77: there is no such shape; there are s0, s1,");
    refused(&["bench", "--batch", "0"], "--batch: expected at least 1, found 0");
    refused(&["bench", "--samples", "0"], "--samples: expected at least 1, found 0");
    refused(&["bench", "--kernel", "fast"], "--kernel fast: expected all, auto, direct,");
    refused(&["bench", "--compare", "/no/such/results"], "/no/such/results: ");
    let old = scratch("old.json");
    std::fs::write(&old, "{\"version\": 0}").expect("writable");
    refused(&["bench", "--compare", text(&old)], "expected results of version 1, found version 0");
}

/// What `dynconv tune` prints and writes as JSON for the pointwise layer, with its cache in this folder.
fn tuned(cache: &Path, options: &[&str]) -> (serde_json::Value, String) {
    let json = scratch("tune.json");
    let layer = ["tune", "smoke", "--only", "point", "--batch", "2", "--family", "static", "--cache", text(cache)];
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
    let trials = json["shapes"][0]["trials"].as_array().expect("a list");
    assert!(trials.len() > 2 && trials[0]["choice"] == "auto", "{json}");
    assert!(trials.iter().all(|trial| trial["ms"].as_f64().is_some_and(|ms| ms > 0.0)), "{json}");

    let files = || std::fs::read_dir(&cache).expect("is there").map(|entry| entry.expect("is there").path());
    let path = files().find(|path| path.extension().is_some_and(|e| e == "tuning")).expect("a table");
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
    assert!(listed.contains("not used: tuning table: its driver is another ") && listed.contains(&line), "{listed}");

    // A table that was spoilt is not measured over.
    std::fs::write(&path, written.replace(" -> ", " = ")).expect("writable");
    refused(&["tune", "smoke", "--cache", text(&cache)], "line 6: expected a problem -> its kernel");
    refused(&["tune", "smoke", "--batch", "0"], "--batch: expected at least 1, found 0");
}
