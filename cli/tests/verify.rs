//! `dynconv verify`: configs, kinds and values that golden files may have.

use std::path::{Path, PathBuf};
use std::process::Command;

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn edge(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/edge")
        .join(format!("{name}.safetensors"))
}

/// Success, and what was printed.
fn verify(elem: &str, files: &[PathBuf]) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_dynconv"))
        .args(["verify", "--elem", elem])
        .args(files)
        .output();
    let out = out.expect("the tool starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (out.status.success(), text(out.stdout) + &text(out.stderr))
}

type Named<'a> = (&'a str, &'a [usize], &'a [f32]);

/// A golden file: its config, its tensors in f32, and y in f64.
fn golden(
    name: &str,
    config: &str,
    tensors: &[Named<'_>],
    y_shape: &[usize],
    y: &[f64],
) -> PathBuf {
    let mut fields = vec![format!(r#""__metadata__":{{"config":{config:?}}}"#)];
    let mut data: Vec<u8> = y.iter().flat_map(|v| v.to_le_bytes()).collect();
    fields.push(format!(
        r#""y":{{"dtype":"F64","shape":{y_shape:?},"data_offsets":[0,{}]}}"#,
        data.len()
    ));
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let end = data.len();
        fields.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", fields.join(","));
    let file = scratch(&format!("verify-{name}.safetensors"));
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    std::fs::write(&file, bytes).expect("writable");
    file
}

/// `x = 1, 2, 3` and a kernel `1, 10`, under a config that begins with kind static.
fn static_case(name: &str, more: &str, y: &[f64]) -> PathBuf {
    let config = format!(r#"{{"kind":"static"{more}}}"#);
    let tensors: [Named<'_>; 2] =
        [("x", &[1, 1, 3], &[1.0, 2.0, 3.0]), ("param.weight", &[1, 1, 2], &[1.0, 10.0])];
    golden(name, &config, &tensors, &[1, 1, y.len()], y)
}

#[test]
fn what_a_config_leaves_out_has_its_usual_value() {
    let files = [
        static_case("usual", "", &[21.0, 32.0]),
        static_case("sides", r#","padding":[[1,0]]"#, &[10.0, 21.0, 32.0]),
        static_case("even", r#","padding":[1],"stride":2"#, &[10.0, 32.0]),
        static_case("same", r#","padding":"SAME""#, &[21.0, 32.0, 3.0]),
        static_case("valid", r#","padding":"valid","dilation":[2]"#, &[31.0]),
        static_case(
            "transposed",
            r#","transposed":true,"stride":2,"output_padding":1"#,
            &[1., 10., 2., 20., 3., 30., 0.],
        ),
        static_case(
            "leaky",
            r#","activation":{"name":"leaky_relu","slope":0.5},"padding":1"#,
            &[10., 21., 32., 3.],
        ),
        static_case(
            "relu6",
            r#","activation":"ReLU6","kernel_size":2,"out_channels":1,"name":"any""#,
            &[6.0, 6.0],
        ),
        static_case(
            "hard",
            r#","epilogue":{"activation":"hard-sigmoid"},"mode":"train""#,
            &[1.0, 1.0],
        ),
    ];
    let (success, printed) = verify("f32", &files);
    assert!(success, "{printed}");
    assert!(printed.ends_with("9 passed, 0 failed\n"), "{printed}");
}

#[test]
fn what_would_change_the_result_is_not_ignored() {
    let cases = [
        (
            r#","padding_mode":"reflect""#,
            "config: unknown key \"padding_mode\", which may change the result",
        ),
        (r#","epilogue":{"dropout":1}"#, "unknown field `dropout`"),
        (r#","activation":"mish""#, "unknown activation \"mish\""),
        (r#","activation":{"name":"relu","slope":0.1}"#, "activation relu has no slope"),
        (
            r#","padding":"around""#,
            "padding: expected numbers, \"same\" or \"valid\", found \"around\"",
        ),
        (r#","padding":[1,1]"#, "padding: expected 1 numbers, one an axis, found [1, 1]"),
        (r#","output_padding":1"#, "config: output_padding without transposed"),
        (r#","kernels":2"#, "config: kernels is 2, but the tensors have 1"),
        (r#","kernel_size":3"#, "config: kernel_size is [3], but the tensors have"),
        (r#","tau":0.5"#, "config: tau is 0.5, but layers compute the state of inference, 0"),
        (r#","dims":2"#, "x: expected 4 axes for dims 2, found 3"),
        (r#","stride":"two""#, "expected a number, or a list of numbers, one an axis"),
        (
            r#","padding":{}"#,
            "padding: expected a number, a list of numbers or of pairs [before, after], \
             one an axis",
        ),
        (
            r#","activation":6"#,
            "activation: expected a name, or an object of name, slope, scale and bias",
        ),
    ];
    for (i, (more, message)) in cases.into_iter().enumerate() {
        let (success, printed) =
            verify("f32", &[static_case(&format!("wrong-{i}"), more, &[21.0, 32.0])]);
        assert!(!success && printed.contains(message), "{more}: {printed}");
    }
    let tensors: [Named<'_>; 3] = [
        ("x", &[1, 1, 1], &[1.0]),
        ("param.weight", &[1, 1, 1], &[1.0]),
        ("param.scale", &[1], &[2.0]),
    ];
    let (_, printed) =
        verify("f32", &[golden("spare", r#"{"kind":"static"}"#, &tensors, &[1, 1, 1], &[1.0])]);
    assert!(printed.contains("param.scale: kind static has no use for it"), "{printed}");
    let (_, printed) =
        verify("f32", &[golden("kind", r#"{"kind":"involution"}"#, &tensors, &[1, 1, 1], &[1.0])]);
    assert!(
        printed.contains("unknown kind \"involution\" with 1 spatial axes; there are dyconv, "),
        "{printed}"
    );
}

#[test]
fn layouts_epilogues_and_given_tensors_are_read() {
    let x: Named<'_> = ("x", &[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let weight: Named<'_> = ("param.weight", &[1, 2, 1], &[1.0, 10.0]);
    let bias: Named<'_> = ("param.bias", &[1], &[0.5]);
    let last = r#"{"kind":"static","layout":"channels_last"}"#;
    let mixed = r#"{"kind":"static","output_layout":"channels_last"}"#;
    // y = 2 (x + 10 z + 0.5) - 1 + residual
    let affine = r#"{"kind":"static","epilogue":{"affine":"scale_shift","residual":true}}"#;
    let affine_tensors = [
        x,
        weight,
        bias,
        ("param.scale", &[1][..], &[2.0][..]),
        ("param.shift", &[1], &[-1.0]),
        ("residual", &[1, 1, 2], &[100.0, 200.0]),
    ];
    let norm = r#"{"kind":"static","epsilon":0.25,"epilogue":{"affine":"bn"}}"#;
    let norm_tensors = [
        x,
        weight,
        ("param.bn.weight", &[1][..], &[3.0][..]),
        ("param.bn.bias", &[1], &[1.0]),
        ("param.bn.running_mean", &[1], &[1.0]),
        ("param.bn.running_var", &[1], &[2.0]),
    ];
    let bank = r#"{"kind":"bank","kernels":2}"#;
    let bank_tensors: [Named<'_>; 4] = [
        x,
        ("param.weight", &[2, 1, 2, 1], &[1.0, 10.0, 0.0, 1.0]),
        ("param.bias", &[2, 1], &[1.0, 2.0]),
        ("attention", &[1, 2], &[1.0, 0.5]),
    ];
    let map_tensors: [Named<'_>; 3] = [
        x,
        ("param.weight", &[2, 1, 2, 1], &[1.0, 10.0, 0.0, 1.0]),
        ("map", &[1, 2, 2], &[1.0, 0.0, 0.0, 2.0]),
    ];
    let flat = r#"{"kind":"persample","kernel_size":1,"out_channels":1}"#;
    let flat_tensors: [Named<'_>; 2] =
        [("x", &[2, 1, 1], &[1.0, 2.0]), ("param.weight", &[2, 1], &[3.0, f32::INFINITY])];
    // Slopes below 0: PyTorch's, and that of an epilogue.
    let below: [Named<'_>; 2] = [("x", &[1, 1, 1], &[-10.0]), ("param.weight", &[1, 1, 1], &[1.0])];
    let leaky = r#"{"kind":"static","activation":"leaky_relu"}"#;
    let in_epilogue = r#"{"kind":"static","epilogue":{"activation":"leakyrelu"}}"#;
    let files = [
        golden("leaky-pytorch", leaky, &below, &[1, 1, 1], &[-0.1]),
        golden("leaky-epilogue", in_epilogue, &below, &[1, 1, 1], &[-2.0]),
        golden("last", last, &[x, weight, bias], &[1, 2, 1], &[21.5, 43.5]),
        golden("mixed", mixed, &[x, weight, bias], &[1, 2, 1], &[31.5, 42.5]),
        golden("affine", affine, &affine_tensors, &[1, 1, 2], &[162.0, 284.0]),
        golden("norm", norm, &norm_tensors, &[1, 1, 2], &[61.0, 83.0]),
        golden("bank", bank, &bank_tensors, &[1, 1, 2], &[34.5, 46.0]),
        golden("map", r#"{"kind":"map"}"#, &map_tensors, &[1, 1, 2], &[31.0, 8.0]),
        golden("flat", flat, &flat_tensors, &[2, 1, 1], &[3.0, f64::INFINITY]),
    ];
    let (success, printed) = verify("f32", &files);
    assert!(success, "{printed}");
    assert!(printed.ends_with("9 passed, 0 failed\n"), "{printed}");
}

#[test]
fn matrix_decompositions_are_read() {
    // Nothing goes through the few channels, and the gate of 0 is hs(0) = 1: y = 2 x.
    let one: &[usize] = &[1];
    let matrices = [
        "q.weight",
        "p.weight",
        "fc.0.weight",
        "fc.1.fc.0.weight",
        "fc_phi.weight",
        "fc_scale.weight",
    ];
    let norms = ["bn1", "bn2"].into_iter().flat_map(|norm| {
        let parts = [("weight", 0.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)];
        parts.map(|(part, value)| (format!("param.{norm}.{part}"), vec![value]))
    });
    let zeros = matrices.into_iter().map(|name| (format!("param.{name}"), vec![0.0]));
    let named: Vec<(String, Vec<f32>)> = norms.chain(zeros).collect();
    let mut tensors: Vec<Named<'_>> =
        named.iter().map(|(name, values)| (name.as_str(), one, &values[..])).collect();
    tensors.push(("x", &[1, 1, 1, 2], &[1.0, -3.0]));
    tensors.push(("param.conv.weight", &[1, 1, 1, 1], &[2.0]));
    let dcd = golden("dcd", r#"{"kind":"dcd","latent":1}"#, &tensors, &[1, 1, 1, 2], &[2.0, -6.0]);
    let (success, printed) = verify("f32", std::slice::from_ref(&dcd));
    assert!(success, "{printed}");
    let (success, printed) = verify("f16-storage", &[dcd]);
    assert!(success && printed.contains("1 passed"), "{printed}");
}

#[test]
fn wrong_outputs_fail() {
    let off = static_case("off", "", &[21.0, 32.001]);
    let nan = static_case("nan", "", &[f64::NAN, 32.0]);
    let zero = static_case("zero", "", &[0.0, 0.0]);
    let (success, printed) = verify("f32", &[off, nan, zero]);
    assert!(!success && printed.ends_with("0 passed, 3 failed\n"), "{printed}");
    assert!(printed.contains("FAIL: y element 0 is 21, expected NaN"), "{printed}");
}

#[test]
fn cases_past_the_range_of_f16_are_not_run_in_f16() {
    let large: [Named<'_>; 2] = [("x", &[1, 1, 1], &[7e4]), ("param.weight", &[1, 1, 1], &[1.0])];
    let large = golden("large", r#"{"kind":"static"}"#, &large, &[1, 1, 1], &[7e4]);
    assert!(verify("f32", std::slice::from_ref(&large)).0);
    let (success, printed) = verify("f16-storage", std::slice::from_ref(&large));
    assert!(
        printed.contains("not run: x has 7e4, which is past the largest number of f16, 65504"),
        "{printed}"
    );
    assert!(printed.contains("0 passed, 0 failed, 1 not run\n"), "{printed}");
    assert!(
        !success && printed.ends_with("error: no case could be run, so nothing is verified\n"),
        "{printed}"
    );
    let small: [Named<'_>; 2] = [("x", &[1, 1, 1], &[1e-7]), ("param.weight", &[1, 1, 1], &[1.0])];
    let small = golden("tiny", r#"{"kind":"static"}"#, &small, &[1, 1, 1], &[f64::from(1e-7_f32)]);
    assert!(verify("f32", std::slice::from_ref(&small)).0);
    let (_, printed) = verify("f16-storage", &[small]);
    assert!(printed.contains("below the smallest normal number of f16, 6.1e-5"), "{printed}");
    let (success, printed) =
        verify("f16-storage", &[large, static_case("small", "", &[21.0, 32.0])]);
    assert!(success && printed.ends_with("1 passed, 0 failed, 1 not run\n"), "{printed}");
}

#[test]
fn inputs_that_went_wrong_once_are_right() {
    let folder = edge("nan_relu").with_file_name("");
    let (success, printed) = verify("f32", &[folder]);
    assert!(success && printed.ends_with("7 passed, 0 failed\n"), "{printed}");
}
