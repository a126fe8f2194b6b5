//! Checkpoints: what is read, and what is refused.

use dynconv::{BatchNorm, Checkpoint, ConvDesc, Error, OdWeights};

/// A safetensors file: name, type, shape and bytes of each tensor.
fn file(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut data = Vec::new();
    for (name, kind, shape, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        fields.push(format!(
            r#""{name}":{{"dtype":"{kind}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
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
    // Data-parallel prefix, fully connected layers of rank 2 and 4, banks in bf16, the earliest
    // checkpoints' bias of fc1.
    let bank: Vec<u8> =
        (0..2 * 4 * 3 * 9).flat_map(|i| half::bf16::from_f32(i as f32).to_le_bytes()).collect();
    let bytes = file(&[
        ("module.conv.weight", "BF16", &[2, 4, 3, 3, 3], bank),
        ("module.conv.attention.fc1.weight", "F32", &[5, 6], f32s(&[0.5; 30])),
        ("module.conv.attention.fc1.bias", "F32", &[5], f32s(&[0.25; 5])),
        ("module.conv.attention.fc2.weight", "F16", &[2, 5, 1, 1], vec![0; 20]),
    ]);
    let (desc, weights) =
        Checkpoint::new(&bytes).expect("valid").dy_cnn::<2>("conv.").expect("fits");
    assert_eq!(desc, ConvDesc::new(6, 4, [3, 3]).kernels(2).groups(2));
    assert_eq!(weights.bank[..3], [0.0, 1.0, 2.0]);
    assert_eq!(weights.hidden_bias, Some(vec![0.25; 5]));
    assert_eq!((weights.head, weights.head_bias, weights.bias), (vec![0.0; 10], None, None));
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
    assert_eq!(
        message(checkpoint.tensor("weight", &[2, 4, 9])),
        "weight: expected [2, 4, 9], found [2, 4, 3, 3]"
    );
    assert_eq!(
        message(checkpoint.tensor("other", &[3])),
        "checkpoint: no tensor other, which should have shape [3]"
    );
    assert_eq!(
        message(checkpoint.tensor("ints", &[1])),
        "checkpoint: ints is stored as I64, not as floats"
    );
    assert_eq!(
        message(checkpoint.tensor("bad", &[2])),
        "bad, element 1: needs a finite number, found inf"
    );
    let bank = checkpoint.dy_cnn::<2>("").expect_err("rank 4").to_string();
    assert_eq!(
        bank,
        "weight: expected [K, channels, channels / groups, 2 kernel sizes], found [2, 4, 3, 3]"
    );
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
    let mut files: Vec<Vec<u8>> =
        headers.iter().map(|header| with_header(header, &[0; 12])).collect();
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
    let bytes = file(&[
        ("cells", "F32", &[0, 1, 1, 1 << 63, 4], vec![]),
        ("many", "F32", &[usize::MAX, 0, 1, 1], vec![]),
    ]);
    let checkpoint = Checkpoint::new(&bytes).expect("valid");
    assert_eq!(checkpoint.warehouse("cells").expect("is there").0.taps, usize::MAX);
    let (cells, _) = checkpoint.warehouse("many").expect("is there");
    assert!(checkpoint.kernel_warehouse("", &ConvDesc::new(2, 2, [1, 1]), cells, 1e-5).is_err());

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

/// A tensor of zeros: name and shape.
fn zeros<'a>(name: &'a str, shape: &'a [usize]) -> (&'a str, &'a str, &'a [usize], Vec<u8>) {
    (name, "F32", shape, vec![0; 4 * shape.iter().product::<usize>()])
}

/// An ODConv layer of one input channel and two output channels, one tap, one kernel; with `more`.
fn od_file(norm: bool, more: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let mut tensors = vec![
        zeros("conv.weight", &[1, 2, 1, 1, 1]),
        zeros("conv.attention.fc.weight", &[3, 1, 1, 1]),
        zeros("conv.attention.channel_fc.weight", &[1, 3]),
        zeros("conv.attention.channel_fc.bias", &[1]),
        zeros("conv.attention.filter_fc.weight", &[2, 3]),
        zeros("conv.attention.filter_fc.bias", &[2]),
    ];
    if norm {
        tensors.push(("conv.attention.bn.weight", "F32", &[3], f32s(&[1.5; 3])));
        tensors.push(("conv.attention.bn.bias", "F32", &[3], f32s(&[0.5; 3])));
        tensors.push(("conv.attention.bn.running_mean", "F32", &[3], f32s(&[2.0; 3])));
        tensors.push(("conv.attention.bn.running_var", "F32", &[3], f32s(&[4.0; 3])));
        tensors.push(("conv.attention.bn.num_batches_tracked", "I64", &[], vec![0; 8]));
    }
    tensors.extend_from_slice(more);
    file(&tensors)
}

fn od(bytes: &[u8]) -> dynconv::Result<OdWeights> {
    Ok(Checkpoint::new(bytes)?.od_conv::<2>("conv.", BatchNorm::EPSILON_TENSORFLOW)?.1)
}

#[test]
fn epsilon_is_the_callers() {
    let bytes = od_file(true, &[]);
    assert_eq!(od(&bytes).expect("fits").norm.epsilon, 1e-3);
    let checkpoint = Checkpoint::new(&bytes).expect("valid");
    let norm =
        checkpoint.batch_norm("conv.attention.bn.", 3, BatchNorm::EPSILON_PYTORCH).expect("fits");
    let (scale, _) = norm.scale_shift(3).expect("valid");
    assert_eq!(scale[0], 1.5 / 4.00001_f64.sqrt());
}

#[test]
fn what_forks_of_odconv_add_is_read() {
    let bank = ("conv.bias", "F32", &[1, 2][..], f32s(&[3.0, 4.0]));
    let hidden = ("conv.attention.fc.bias", "F32", &[3][..], f32s(&[0.25; 3]));
    let normed = od(&od_file(true, &[bank.clone(), hidden.clone()])).expect("fits");
    assert_eq!(normed.bias, Some(vec![3.0, 4.0]));
    assert_eq!(normed.norm.mean, [1.75; 3]);
    // No norm: the identity, to the bit.
    let plain = od(&od_file(false, &[hidden])).expect("fits");
    assert_eq!(plain.norm.scale_shift(3).expect("valid"), (vec![1.0; 3], vec![0.25; 3]));
    assert_eq!(plain.bias, None);
    assert_eq!(od(&od_file(false, &[])).expect("fits").norm.bias, [0.0; 3]);
    let one_row =
        od(&od_file(true, &[("conv.bias", "F32", &[3], f32s(&[0.0; 3]))])).expect_err("3 channels");
    assert_eq!(one_row.to_string(), "conv.bias: expected [1, 2], found [3]");
}

#[test]
fn norms_that_cannot_be_folded_are_refused_by_name() {
    let group = [zeros("conv.attention.gn.weight", &[3]), zeros("conv.attention.gn.bias", &[3])];
    let refused = od(&od_file(false, &group)).expect_err("group norm").to_string();
    assert!(
        refused.starts_with("conv.attention.gn.bias: a norm without running statistics (group,"),
        "{refused}"
    );
    let unnamed = [zeros("conv.attention.bn.weight", &[3]), zeros("conv.attention.bn.bias", &[3])];
    let refused = od(&od_file(false, &unnamed)).expect_err("group norm").to_string();
    assert!(
        refused.starts_with("conv.attention.bn.weight: a norm without running statistics"),
        "{refused}"
    );
    assert!(refused.ends_with("cannot be folded into weights"), "{refused}");
}

#[test]
fn tensors_that_nothing_reads_are_refused_unless_left_out() {
    let bytes = od_file(true, &[zeros("conv.scale", &[2]), zeros("conv.attention.bn.extra", &[1])]);
    let checkpoint = Checkpoint::new(&bytes).expect("valid");
    let refused = |checkpoint: &Checkpoint<'_>| match checkpoint.od_conv::<2>("conv.", 1e-5) {
        Err(Error::UnreadKeys { keys }) => keys,
        other => panic!("{other:?}"),
    };
    // The batch norm is looked at first.
    assert_eq!(refused(&checkpoint), ["conv.attention.bn.extra"]);
    let checkpoint = checkpoint.without(|key| key.ends_with(".extra"));
    assert_eq!(refused(&checkpoint), ["conv.scale"]);
    let text = checkpoint.od_conv::<2>("conv.", 1e-5).expect_err("conv.scale").to_string();
    assert!(
        text.starts_with("checkpoint: no part of this layer reads conv.scale, which may change"),
        "{text}"
    );
    assert!(checkpoint.without(|key| key == "conv.scale").od_conv::<2>("conv.", 1e-5).is_ok());

    // Every reader looks.
    let spare = zeros("spare", &[1]);
    let dy =
        [zeros("weight", &[1, 2, 2, 1, 1]), zeros("attention.fc1.weight", &[1, 2]), spare.clone()];
    let pixel = [
        zeros("weight", &[1, 2, 2, 1, 1]),
        zeros("attention.weight", &[1, 2]),
        zeros("attention.bias", &[1]),
        spare.clone(),
    ];
    let cond = [
        zeros("weight", &[1, 4]),
        zeros("r.weight", &[1, 2]),
        zeros("r.bias", &[1]),
        spare.clone(),
    ];
    let is_unread = |error: Error| matches!(error, Error::UnreadKeys { keys } if keys == ["spare"]);
    let fc2 = zeros("attention.fc2.weight", &[1, 1]);
    let bytes = file(&[&dy[..], &[fc2]].concat());
    assert!(is_unread(Checkpoint::new(&bytes).expect("valid").dy_cnn::<2>("").expect_err("spare")));
    let bytes = file(&pixel);
    assert!(is_unread(Checkpoint::new(&bytes).expect("valid").pixel_mix("").expect_err("spare")));
    let bytes = file(&cond);
    let desc = ConvDesc::new(2, 2, [1, 1]);
    assert!(is_unread(
        Checkpoint::new(&bytes).expect("valid").cond_conv("", "r.", &desc).expect_err("spare")
    ));
    let norm: Vec<_> =
        ["weight", "bias", "running_mean", "running_var", "spare"].map(|n| zeros(n, &[2])).into();
    let bytes = file(&norm);
    assert!(is_unread(
        Checkpoint::new(&bytes).expect("valid").batch_norm("", 2, 1e-5).expect_err("spare")
    ));
}

#[test]
fn keys_are_sorted_and_without_what_training_puts_in_front() {
    let bytes = file(&[
        zeros("module.b", &[1]),
        zeros("_orig_mod.module.c", &[1]),
        zeros("module._orig_mod.a", &[1]),
        zeros("modules.d", &[1]),
    ]);
    let checkpoint = Checkpoint::new(&bytes).expect("valid");
    assert_eq!(checkpoint.keys().collect::<Vec<_>>(), ["a", "b", "c", "modules.d"]);
    let twice = file(&[zeros("module.a", &[1]), zeros("_orig_mod.a", &[1])]);
    let text = Checkpoint::new(&twice).expect_err("one name").to_string();
    assert_eq!(
        text,
        "checkpoint: two tensors are called a without their leading module. and _orig_mod."
    );
}

#[test]
fn a_missing_key_names_what_may_have_been_meant() {
    let bytes = file(&[
        zeros("backbone.layer1.0.conv1.weight", &[1]),
        zeros("backbone.layer1.0.conv2.weight", &[1]),
        zeros("head.weight", &[1]),
    ]);
    let checkpoint = Checkpoint::new(&bytes).expect("valid");
    let near = |key: &str| match checkpoint.tensor(key, &[1]) {
        Err(Error::MissingKey { near, .. }) => near,
        other => panic!("{other:?}"),
    };
    assert_eq!(near("layer1.0.conv1.weight")[0], "backbone.layer1.0.conv1.weight");
    assert_eq!(near("backbone.layer1.0.conv1weight")[0], "backbone.layer1.0.conv1.weight");
    assert!(near("fc.bias").is_empty());
    let text = checkpoint.tensor("haed.weight", &[1]).expect_err("missing").to_string();
    assert_eq!(
        text,
        "checkpoint: no tensor haed.weight, which should have shape [1]; did you mean head.weight?"
    );
}

#[test]
fn other_formats_are_named() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "the file is empty"),
        (
            b"PK\x03\x04rest of an archive",
            "this is a zip archive, as torch.save writes it (.pt, .pth)",
        ),
        (b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9", "this is a pickle, as torch.save wrote it"),
        (b"\x1f\x8b\x08 and so on", "this is a gzip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "this is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "this is a web page"),
        (b"Entry not found, try again", "this is text"),
        (&[200; 40], ""),
    ];
    for (bytes, expected) in cases {
        let text = Checkpoint::new(bytes).expect_err("is none").to_string();
        assert!(text.starts_with(&format!("checkpoint: {expected}")), "{text}");
    }
    // A header of 0x0280 bytes begins like a pickle.
    let header = format!("{:640}", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#);
    assert!(Checkpoint::new(&with_header(&header, &[0; 4])).is_ok());
}

#[test]
fn data_may_hold_what_weights_may_not() {
    let bytes = file(&[("x", "F32", &[3], f32s(&[f32::NAN, f32::INFINITY, 1.5]))]);
    let checkpoint = Checkpoint::new(&bytes).expect("valid");
    let values = checkpoint.values("x").expect("is there");
    assert!(values[0].is_nan() && values[1..] == [f64::INFINITY, 1.5]);
    let refused = checkpoint.tensor("x", &[3]).expect_err("NaN").to_string();
    assert_eq!(refused, "x, element 0: needs a finite number, found NaN");
    assert!(matches!(checkpoint.values("y"), Err(Error::MissingKey { .. })));
}
