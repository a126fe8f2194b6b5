//! Whole networks as a person meets them: photos, checkpoints, and what is wrong with either.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dynconv::Checkpoint;
use half::{bf16, f16};
use image::{Rgb, RgbImage};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// A file of the networks' tests.
fn network_file(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nets/tests");
    text(&root.join(name)).to_owned()
}

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("writable");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are UTF-8")
}

/// Exit status, standard output and standard error.
fn dynconv(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_dynconv")).args(arguments).output().expect("it starts");
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
    (status.code(), stdout, stderr)
}

/// The run succeeds: what it printed.
fn printed(arguments: &[&str]) -> String {
    let (status, printed, said) = dynconv(arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {said}");
    printed
}

/// The run ends with this status, and its last line on standard error says `message`.
fn ends_with(status: i32, arguments: &[&str], message: &str) {
    let (found, _, said) = dynconv(arguments);
    assert_eq!(found, Some(status), "{arguments:?}: {said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains(message), "not \"{message}\": {said}");
}

const FAILED: i32 = 1;
const WRONG_USAGE: i32 = 2;

/// A photo of stripes, which `step` makes another.
fn photo(path: &Path, step: u32) {
    let pixel = |x: u32, y: u32| {
        Rgb([x * step, y * 3, x * y].map(|value| u8::try_from(value % 251).expect("small")))
    };
    RgbImage::from_fn(90, 70, pixel).save(path).expect("writable");
}

/// A network of ordinary size on small photos.
const SMALL: [&str; 6] = ["--resize", "64", "--size", "64", "--temperature", "4"];

#[test]
fn photos_and_folders_of_them_are_classified() {
    let weights = network_file("golden/dy_resnet18.safetensors");
    let folder = folder("photos");
    for (step, name) in [(1, "a.png"), (5, "b.JPG"), (9, "c.jpeg")] {
        photo(&folder.join(name), step);
    }
    for (name, bytes) in [("aa.png", &b"no picture"[..]), ("notes.txt", b"no photo")] {
        fs::write(folder.join(name), bytes).expect("writable");
    }
    let json = folder.join("out.json");
    let one = folder.join("a.png");
    let paths = ["classify", text(&folder), text(&one), "--weights", &weights];
    let options = ["--top", "2", "--batch", "2", "--net", "resnet", "--json", text(&json)];
    let (status, printed, said) = dynconv(&[&paths[..], &options, &SMALL].concat());
    // A photo that is none is named, and the others are classified.
    assert_eq!(status, Some(1), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    let left_out = format!("left out 1 of {}", folder.display());
    assert!(lines[0].starts_with(&left_out) && lines[0].ends_with(": notes.txt"), "{said}");
    let spoilt = format!("error: {}", folder.join("aa.png").display());
    assert!(lines.iter().any(|line| line.starts_with(&spoilt)), "{said}");
    assert!(printed.starts_with("network: ResNet, 10 classes\n"), "{printed}");
    let preparation = "photos: shorter side to 64 (bilinear), middle 64 x 64, mean [0.485, ";
    assert!(printed.contains(preparation), "{printed}");
    assert!(printed.ends_with("4 of 5 photos were classified\n"), "{printed}");

    let written = fs::read_to_string(&json).expect("written");
    let lines: Vec<serde_json::Value> =
        written.lines().map(|line| serde_json::from_str(line).expect("is JSON")).collect();
    let name = |line: &serde_json::Value| {
        let path = Path::new(line["path"].as_str().expect("a path"));
        path.file_name().expect("has a name").to_string_lossy().into_owned()
    };
    let names: Vec<String> = lines.iter().map(name).collect();
    assert_eq!(names, ["a.png", "aa.png", "b.JPG", "c.jpeg", "a.png"]);
    assert!(lines[1]["error"].as_str().expect("an error").contains("cannot be read as PNG"));
    let classes = lines[0]["classes"].as_array().expect("classes");
    let probability = |class: &serde_json::Value| class["probability"].as_f64().expect("a number");
    assert!(classes.len() == 2 && probability(&classes[0]) >= probability(&classes[1]));
    let label = format!("class {}", classes[0]["class"]);
    assert_eq!(classes[0]["label"], label);
    // The same photo, in another batch and place.
    assert_eq!(lines[0]["classes"], lines[4]["classes"]);
    assert_ne!(lines[0]["classes"], lines[2]["classes"]);
}

#[test]
fn one_photo_is_held_against_float64() {
    let weights = network_file("golden/dy_resnet18.safetensors");
    let one = folder("checked").join("a.png");
    photo(&one, 3);
    let all = ["classify", text(&one), "--weights", &weights, "--check"];
    let printed = printed(&[&all[..], &SMALL].concat());
    let last = printed.lines().last().unwrap_or_default();
    let error = last.strip_prefix(&format!("check: {}: ", one.display())).expect("is checked");
    let error: f64 = error.split(' ').next().unwrap_or_default().parse().expect("a number");
    assert!(error > 0.0 && error < 2e-4, "{last}");
}

/// A network of other weights than the golden ones fails, as its bound is not taken from how far it
/// is from them.
#[test]
fn a_network_that_computes_something_else_fails() {
    let folder = folder("other-weights");
    let [weights, io] = ["dy_resnet18.safetensors", "dy_resnet18.io.safetensors"];
    fs::copy(network_file(&format!("golden/{io}")), folder.join(io)).expect("writable");
    let bytes = fs::read(network_file(&format!("golden/{weights}"))).expect("readable");
    let place = folder.join(weights);
    fs::write(&place, &bytes).expect("writable");
    let verify = ["verify", text(&folder)];
    assert!(printed(&verify).ends_with("1 passed, 0 failed\n"));

    let whole = SafeTensors::deserialize(&bytes).expect("is one");
    let bias = whole.tensor("fc.bias").expect("is there");
    let (numbers, _) = bias.data().as_chunks::<4>();
    let other: Vec<u8> =
        numbers.iter().flat_map(|&v| (f32::from_le_bytes(v) + 0.01).to_le_bytes()).collect();
    let other = TensorView::new(Dtype::F32, bias.shape().to_vec(), &other).expect("fits");
    let tensors = whole.iter().map(|(key, tensor)| match key {
        "fc.bias" => (key, other.clone()),
        _ => (key, tensor),
    });
    let spoilt = safetensors::serialize(tensors, None).expect("is written");
    fs::write(&place, spoilt).expect("writable");
    let (status, printed, _) = dynconv(&verify);
    assert_eq!(status, Some(FAILED), "{printed}");
    assert!(printed.contains(" at logits  FAIL\n"), "{printed}");
}

#[test]
fn labels_name_classes() {
    let weights = network_file("golden/dy_resnet18.safetensors");
    let folder = folder("labels");
    let (one, labels) = (folder.join("a.png"), folder.join("labels.txt"));
    photo(&one, 1);
    let names: Vec<String> = (0..10).map(|class| format!("sort {class}")).collect();
    fs::write(&labels, names.join("\r\n")).expect("writable");
    let all =
        [&["classify", text(&one), "--weights", &weights, "--labels", text(&labels)], &SMALL[..]]
            .concat();
    let table = printed(&all);
    assert_eq!(table.matches("sort ").count(), 5, "{table}");
    fs::write(&labels, "one\ntwo\n").expect("writable");
    ends_with(FAILED, &all, "has 2 labels, and the network 10 classes");
}

#[test]
fn families_are_prepared_as_they_were_trained() {
    let folder = folder("families");
    let one = folder.join("a.png");
    photo(&one, 1);
    let imagenet = "mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225]";
    for (name, filter, numbers) in [
        ("efficientnet_cc_b0_4e", "bicubic", "mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]"),
        ("kw_resnet18", "bicubic", imagenet),
        ("dy_mobilenetv2", "bilinear", imagenet),
    ] {
        let weights = network_file(&format!("golden/{name}.safetensors"));
        let printed = printed(&["classify", text(&one), "--weights", &weights, "--size", "32"]);
        let line = format!("photos: shorter side to 256 ({filter}), middle 32 x 32, {numbers}\n");
        assert!(printed.contains(&line), "{name}: {printed}");
    }
}

#[test]
fn what_cannot_be_classified_is_named() {
    let weights = network_file("golden/dy_resnet18.safetensors");
    let folder = folder("refused");
    let one = folder.join("a.jpg");
    photo(&one, 1);
    let all = [&["classify", text(&one), "--weights", &weights], &SMALL[..]].concat();
    let with = |options: &[&'static str]| -> Vec<String> {
        all.iter().chain(options).map(|&option| option.to_owned()).collect()
    };
    let misused = |options: &[&'static str], message: &str| {
        let all = with(options);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        ends_with(WRONG_USAGE, &all, message);
    };
    misused(&["--std", "1,0,1"], "--std: expected numbers above 0, found [1.0, 0.0, 1.0]");
    misused(&["--mean", "1,2"], "--mean: expected three numbers, found [1.0, 2.0]");
    misused(&["--batch", "0"], "--batch: expected at least 1, found 0");
    misused(&["--top", "0"], "--top: expected at least 1, found 0");
    let small = ["classify", text(&one), "--weights", &weights, "--size"];
    let small = |size| [&small[..], &[size], &["--temperature", "4"]].concat();
    ends_with(WRONG_USAGE, &small("0"), "--size: expected at least 1, found 0");
    ends_with(
        WRONG_USAGE,
        &small("300"),
        "--size: expected at most 256, which --resize is, found 300",
    );
    let other = [&all[..], &["--net", "mobilenet-v2"]].concat();
    ends_with(FAILED, &other, "expected MobileNetV2, as --net says, found ResNet");
    let (status, _, said) = dynconv(&[&all[..], &["--net", "alexnet"]].concat());
    assert_eq!(status, Some(WRONG_USAGE));
    assert!(said.contains("resnet, mobilenet-v2, mobilenet-v3-small, efficientnet-cc"), "{said}");

    let untold = ["classify", text(&one), "--weights", &weights];
    ends_with(FAILED, &untold, "found none; say it with --temperature T");
    let empty = folder.join("empty");
    fs::create_dir(&empty).expect("writable");
    let none = [&["classify", text(&empty), "--weights", &weights], &SMALL[..]].concat();
    ends_with(FAILED, &none, "empty: no PNG or JPEG in this folder");
    let absent = folder.join("absent.pth");
    ends_with(
        FAILED,
        &["classify", text(&one), "--weights", text(&absent)],
        "absent.pth: No such file",
    );
    ends_with(
        FAILED,
        &["classify", text(&one), "--weights", text(&one)],
        "a.jpg: checkpoint: invalid PyTorch file format",
    );
    // The decoder alone would fill the rest with grey.
    let whole = fs::read(&one).expect("readable");
    fs::write(&one, &whole[..whole.len() / 2]).expect("writable");
    ends_with(FAILED, &all, "a.jpg: a JPEG without its end");
}

#[test]
fn a_checkpoint_tells_depth_width_and_kernels() {
    let printed = |name: &str, options: &[&str]| {
        let weights = network_file(&format!("golden/{name}.safetensors"));
        printed(&[&["inspect", &weights, "--size", "64"], options].concat())
    };
    let found = printed("dy_resnet18", &["--temperature", "4"]);
    for line in [
        "network: ResNet\n",
        "dynamic: DY-CNN in 19 convolutions, K = 4\n",
        "parameters: 398,052\n",
        "file: 159 tensors in F32, 1.60 MB; 20 tensors in I64, 0.00 MB\n",
        "not in the file: --epsilon as published, --temperature 4\n",
        "classes: 10\n",
        "runs: [1, 3, 64, 64] -> [1, 10], 80 dispatches\n",
        "memory of weights, input and output: ",
    ] {
        assert!(found.contains(line), "no {line:?} in:\n{found}");
    }
    let row = |found: &str, stage: &str| -> Vec<String> {
        let line = found.lines().find(|line| line.contains(stage)).expect("has the stage");
        line.trim_matches('│').split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row(&found, "layer3"), ["layer3", "2", "24", "4", "x", "4"], "{found}");
    let found = printed("od_resnet50", &[]);
    assert_eq!(row(&found, "layer3")[..3], ["layer3", "6", "128"], "{found}");
    assert!(found.contains("dynamic: ODConv in 48 convolutions, K = 1\n"), "{found}");
    let found = printed("efficientnet_cc_b0_4e", &[]);
    assert_eq!(row(&found, "blocks.5")[..3], ["blocks.5", "4", "24"], "{found}");
    assert!(found.contains("dynamic: CondConv in 8 blocks, K = 4\n"), "{found}");
    let found = printed("kw_resnet18", &[]);
    assert!(found.contains("dynamic: 4 warehouses of 56, 47, 47, 27 cells\n"), "{found}");
    for (name, line, input) in [
        ("dymn", "dynamic: DyMN's in 44 convolutions, K = 4\n", "[1, 1, 128, 1000]"),
        ("fdy_crnn", "dynamic: frequency-dynamic in 6 convolutions, K = 4\n", "[1, 128, 626]"),
    ] {
        let found = printed(name, &["--temperature", "31"]);
        let runs = format!("runs: {input} -> ");
        assert!(found.contains(line) && found.contains(&runs), "{found}");
    }
    let found = printed("dy_mobilenetv3", &["--stem-stride", "1", "--steps"]);
    assert!(found.contains("--temperature as published, --stem-stride 1\n"), "{found}");
    assert!(found.lines().count() > 100, "{found}");
}

#[test]
fn what_is_wrong_with_a_network_is_named() {
    let file = |name: &str| network_file(&format!("golden/{name}.safetensors"));
    ends_with(
        FAILED,
        &["inspect", &file("dy_resnet18")],
        "needs that at the end of training, which no checkpoint holds, found none; say it with \
         --temperature T",
    );
    ends_with(FAILED, &["inspect", &file("dy_mobilenetv3")], "say it with --stem-stride STRIDE");
    ends_with(FAILED, &["inspect", &file("dy_resnet18.io")], "no network that is known here");
    let small = file("od_resnet50");
    ends_with(WRONG_USAGE, &["inspect", &small, "--size", "0"], "--size: expected at least 1");

    let bytes = fs::read(&small).expect("readable");
    let whole = SafeTensors::deserialize(&bytes).expect("is one");
    let folder = folder("wrong");
    let written = |name: &str, tensors: Vec<(&str, TensorView<'_>)>| -> String {
        let path = folder.join(name);
        let bytes = safetensors::serialize(tensors, None).expect("is written");
        fs::write(&path, bytes).expect("writable");
        text(&path).to_owned()
    };
    let without = whole.iter().filter(|(key, _)| *key != "layer2.1.bn2.running_var").collect();
    ends_with(
        FAILED,
        &["inspect", &written("missing.safetensors", without)],
        "missing.safetensors: checkpoint: no tensor layer2.1.bn2.running_var, which should have",
    );
    let zeros = [0; 12];
    let view = || TensorView::new(Dtype::F32, vec![3], &zeros).expect("fits");
    let shaped = whole.iter().map(|(key, tensor)| match key {
        "fc.bias" => (key, view()),
        _ => (key, tensor),
    });
    ends_with(
        FAILED,
        &["inspect", &written("shape.safetensors", shaped.collect())],
        "shape.safetensors: fc.bias: expected [10], found [3]",
    );
    let more = whole.iter().chain([("head.scale", view()), ("head.shift", view())]).collect();
    ends_with(
        FAILED,
        &["inspect", &written("more.safetensors", more)],
        "2 of its tensors are no part of a known ResNet, and may change what it computes: \
         head.scale, head.shift",
    );
}

#[test]
fn files_of_pytorch_are_converted() {
    let out = folder("converted").join("a.safetensors");
    let file = network_file("pickles/odconv.pth.tar");
    let (_, printed, said) = dynconv(&["convert", &file, text(&out)]);
    assert!(printed.starts_with("20 tensors, "), "{printed}");
    assert!(said.starts_with("read state_dict of "), "{said}");
    let bomb = network_file("pickles/bad_expand_bomb.pth");
    ends_with(FAILED, &["convert", &bomb, text(&out)], "would make more than");
    let code = network_file("pickles/bad_code.pth");
    let (_, _, said) = dynconv(&["convert", &code, text(&out)]);
    assert_eq!(said, "left out x (posix.system), which is no tensor\n");
}

#[test]
fn floats_are_rounded_to_the_nearest() {
    let folder = folder("rounded");
    for file in ["pickles/f64.pth", "golden/od_resnet50.safetensors"] {
        let file = network_file(file);
        let out = folder.join("same.safetensors");
        printed(&["convert", &file, text(&out)]);
        let before = fs::read(&out).expect("written");
        let before = Checkpoint::new(&before).expect("is one");
        for elem in ["f32", "f16", "bf16"] {
            let out = folder.join(format!("{elem}.safetensors"));
            let line = printed(&["convert", &file, text(&out), "--elem", elem]);
            assert!(elem == "f32" || line.contains(&format!("rounded to {elem}")), "{line}");
            let after = fs::read(&out).expect("written");
            let after = Checkpoint::new(&after).expect("is one");
            assert!(before.keys().eq(after.keys()));
            for key in before.keys() {
                assert_eq!(before.shape(key), after.shape(key), "{key}");
                // Integers stay what they are, which are no values to either.
                let (Ok(before), after) = (before.values(key), after.values(key)) else { continue };
                let rounded = before.iter().map(|&value| match elem {
                    "f16" => f16::from_f64(value).to_f64(),
                    "bf16" => bf16::from_f64(value).to_f64(),
                    _ => f64::from(dynconv::reference::narrow(&[value])[0]),
                });
                assert_eq!(rounded.collect::<Vec<_>>(), after.expect("is of floats"), "{key}");
            }
        }
    }
}

#[test]
fn halves_integers_and_what_does_not_fit() {
    let folder = folder("fits");
    let (file, out) = (folder.join("a.safetensors"), folder.join("b.safetensors"));
    let write = |values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let floats = TensorView::new(Dtype::F32, vec![values.len()], &bytes).expect("fits");
        let steps = 7_i64.to_le_bytes();
        let steps = TensorView::new(Dtype::I64, vec![], &steps).expect("fits");
        let metadata = [("config".to_owned(), "kept".to_owned())].into();
        let tensors = [("module.fc.weight", floats), ("steps", steps)];
        let bytes = safetensors::serialize(tensors, Some(metadata)).expect("is written");
        fs::write(&file, bytes).expect("writable");
    };
    let convert = ["convert", text(&file), text(&out), "--elem"];
    // Ties between 2048 and 2050, between 2050 and 2052; past the smallest; not finite.
    write(&[2049.0, 2051.0, 1e-9, f32::INFINITY, 65519.0]);
    let (status, line, said) = dynconv(&[&convert[..], &["f16"]].concat());
    assert_eq!((status, said.as_str()), (Some(0), "1 numbers were too small, and are 0 now\n"));
    assert!(line.starts_with("2 tensors, 1 of them rounded to f16, "), "{line}");
    let bytes = fs::read(&out).expect("written");
    let made = SafeTensors::deserialize(&bytes).expect("is one");
    let weight = made.tensor("module.fc.weight").expect("keeps its name");
    let halves = weight.data().as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes));
    let halves: Vec<f32> = halves.map(f32::from).collect();
    assert_eq!(halves, [2048.0, 2052.0, 0.0, f32::INFINITY, 65504.0]);
    let steps = made.tensor("steps").expect("is there");
    assert_eq!((steps.dtype(), steps.data()), (Dtype::I64, &7_i64.to_le_bytes()[..]));
    assert_eq!(Checkpoint::new(&bytes).expect("is one").metadata("config"), Some("kept"));

    write(&[1.0, -65520.0]);
    let refused = "module.fc.weight, element 1: needs at most 65504 to be f16, found -65520";
    ends_with(FAILED, &[&convert[..], &["f16"]].concat(), refused);
    write(&[f32::MAX]);
    ends_with(FAILED, &[&convert[..], &["bf16"]].concat(), "element 0: needs at most 3389");

    let itself = folder.join(".").join("a.safetensors");
    let convert = ["convert", text(&file)];
    let over = [&convert[..], &[text(&itself)]].concat();
    ends_with(WRONG_USAGE, &over, "a.safetensors would be written over itself");
    let pth = folder.join("b.pth");
    let named = [&convert[..], &[text(&pth)]].concat();
    ends_with(WRONG_USAGE, &named, "expected a name that ends in .safetensors, found");
}

/// A sound of a second, of two channels.
fn sound(path: &Path) {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 44_100,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("writable");
    for i in 0..88_200_i32 {
        writer.write_sample(i * 31 % 2003 - 1001).expect("writable");
    }
    writer.finalize().expect("writable");
}

#[test]
fn sounds_are_tagged_by_networks_that_hear_them() {
    let folder = folder("sounds");
    let wav = folder.join("a.wav");
    sound(&wav);
    let json = folder.join("tags.jsonl");
    for (weights, classes) in [("dymn", 20), ("fdy_crnn", 10)] {
        let weights = network_file(&format!("golden/{weights}.safetensors"));
        let told = printed(&[
            "tag",
            text(&wav),
            "--weights",
            &weights,
            "--top",
            "2",
            "--json",
            text(&json),
        ]);
        assert!(told.contains(&format!(", {classes} classes")), "{told}");
        assert!(told.contains("a.wav"), "{told}");
        let line = fs::read_to_string(&json).expect("written");
        let line: serde_json::Value = serde_json::from_str(&line).expect("is JSON");
        let classes = line["classes"].as_array().expect("is a list");
        assert_eq!(classes.len(), 2, "{line}");
        assert!(classes[0]["probability"].as_f64() >= classes[1]["probability"].as_f64());
    }
    let hears = network_file("golden/dymn.safetensors");
    let sees = network_file("golden/dy_resnet18.safetensors");
    ends_with(FAILED, &["tag", text(&wav), "--weights", &sees], "expected a network of sounds");
    ends_with(FAILED, &["tag", text(&wav), "--weights", "/no/such.safetensors"], "cannot read");
    let wrong = ["tag", text(&wav), "--weights", &hears, "--seconds", "0"];
    assert_eq!(dynconv(&wrong).0, Some(WRONG_USAGE));
    fs::write(folder.join("b.wav"), "RIFF, but no more").expect("writable");
    let bad = folder.join("b.wav");
    let (status, told, said) = dynconv(&["tag", text(&wav), text(&bad), "--weights", &hears]);
    assert_eq!(status, Some(FAILED), "{said}");
    assert!(told.contains("1 of 2 sounds were tagged"), "{told}");
}
