//! Checkpoints: what is read, and what is refused.

use dynconv::{Checkpoint, ConvDesc, Error};

/// A safetensors file: name, type, shape and bytes of each tensor.
fn file(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut data = Vec::new();
    for (name, kind, shape, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        fields.push(format!(r#""{name}":{{"dtype":"{kind}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#));
        data.extend(bytes);
    }
    with_header(&format!("{{{}}}", fields.join(",")), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn a_dy_cnn_layer_is_inferred_from_its_shapes() {
    // Data-parallel prefix, fully connected layers of rank 2 and 4, banks in bf16, the earliest checkpoints' bias of fc1.
    let bank: Vec<u8> = (0..2 * 4 * 3 * 9).flat_map(|i| half::bf16::from_f32(i as f32).to_le_bytes()).collect();
    let bytes = file(&[
        ("module.conv.weight", "BF16", &[2, 4, 3, 3, 3], bank),
        ("module.conv.attention.fc1.weight", "F32", &[5, 6], f32s(&[0.5; 30])),
        ("module.conv.attention.fc1.bias", "F32", &[5], f32s(&[0.25; 5])),
        ("module.conv.attention.fc2.weight", "F16", &[2, 5, 1, 1], vec![0; 20]),
    ]);
    let (desc, weights) = Checkpoint::new(&bytes).expect("valid").dy_cnn::<2>("conv.").expect("fits");
    assert_eq!(desc, ConvDesc::new(6, 4, [3, 3]).kernels(2).groups(2));
    assert_eq!(weights.bank[..3], [0.0, 1.0, 2.0]);
    assert_eq!(weights.fc1_bias, Some(vec![0.25; 5]));
    assert_eq!((weights.fc2, weights.fc2_bias, weights.bias), (vec![0.0; 10], None, None));
}

#[test]
fn a_layer_of_one_channel_is_read() {
    let bytes = file(&[
        ("weight", "F32", &[1, 1, 1, 1, 1], f32s(&[2.0])),
        ("attention.fc1.weight", "F32", &[1, 1, 1, 1], f32s(&[1.0])),
        ("attention.fc2.weight", "F32", &[1, 1, 1, 1], f32s(&[1.0])),
    ]);
    let (desc, _) = Checkpoint::new(&bytes).expect("valid").dy_cnn::<2>("").expect("fits");
    assert_eq!(desc, ConvDesc::new(1, 1, [1, 1]));
}

#[test]
fn mismatches_name_the_key_and_both_shapes() {
    let bytes = file(&[
        ("weight", "F32", &[2, 4, 3, 3], f32s(&[0.0; 72])),
        ("ints", "I64", &[1], vec![0; 8]),
        ("bad", "F32", &[2], f32s(&[0.0, f32::INFINITY])),
    ]);
    let checkpoint = Checkpoint::new(&bytes).expect("valid");
    let message = |result: dynconv::Result<Vec<f32>>| result.expect_err("is refused").to_string();
    assert_eq!(message(checkpoint.tensor("weight", &[2, 4, 9])), "weight: expected [2, 4, 9], found [2, 4, 3, 3]");
    assert_eq!(message(checkpoint.tensor("other", &[3])), "checkpoint: no tensor other, which should have shape [3]");
    assert_eq!(message(checkpoint.tensor("ints", &[1])), "checkpoint: ints is stored as I64, not as floats");
    assert_eq!(message(checkpoint.tensor("bad", &[2])), "bad, element 1: needs a finite number, found inf");
    let bank = checkpoint.dy_cnn::<2>("").expect_err("rank 4").to_string();
    assert_eq!(bank, "weight: expected [K, channels, channels / groups, 2 kernel sizes], found [2, 4, 3, 3]");
}

#[test]
fn hostile_files_are_refused() {
    let entry = |name: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let headers = [
        format!("{{{},{}}}", entry("a", "[2]", 0, 8), entry("b", "[2]", 4, 12)),
        format!("{{{}}}", entry("a", "[2]", 0, 4)),
        format!("{{{}}}", entry("a", "[1000000000000]", 0, 4_000_000_000_000)),
        format!("{{{}}}", entry("a", "[18446744073709551615,3]", 0, 8)),
        format!("{{{}}}", entry("a", "[2]", 8, 0)),
        "{".repeat(10_000),
        "[]".into(),
    ];
    let mut files: Vec<Vec<u8>> = headers.iter().map(|header| with_header(header, &[0; 12])).collect();
    files.push(vec![]);
    files.push(u64::MAX.to_le_bytes().to_vec());
    files.push([&(1_u64 << 40).to_le_bytes()[..], b"{}"].concat());
    for (i, bytes) in files.iter().enumerate() {
        let error = Checkpoint::new(bytes).expect_err("is hostile");
        assert!(matches!(error, Error::Checkpoint { .. }), "file {i}: {error}");
    }
}

#[test]
fn empty_tensors_of_absurd_shapes_do_not_overflow() {
    // A zero makes the tensor empty, so that the file is valid and the other sizes may be anything.
    let bytes =
        file(&[("cells", "F32", &[0, 1, 1, 1 << 63, 4], vec![]), ("many", "F32", &[usize::MAX, 0, 1, 1], vec![])]);
    let checkpoint = Checkpoint::new(&bytes).expect("valid");
    assert_eq!(checkpoint.warehouse("cells").expect("is there").0.taps, usize::MAX);
    let (cells, _) = checkpoint.warehouse("many").expect("is there");
    assert!(checkpoint.kernel_warehouse("", &ConvDesc::new(2, 2, [1, 1]), cells).is_err());

    let bytes = file(&[
        ("weight", "F32", &[1, 1, 1, 1, 1], f32s(&[1.0])),
        ("attention.fc1.weight", "F32", &[1, 1], f32s(&[1.0])),
        ("attention.fc2.weight", "F32", &[1, 1], f32s(&[1.0])),
    ]);
    let checkpoint = Checkpoint::new(&bytes).expect("valid");
    for groups in [0, usize::MAX] {
        assert!(checkpoint.dy_cnn_transposed::<2>("", groups).is_err());
    }
}
