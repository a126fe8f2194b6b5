//! Wrong input gets a typed error that names what was wrong, what was needed and what was found.

use dynconv::device::Unit;
use dynconv::layers::Routing;
use dynconv::problem::Cells;
use dynconv::problem::MapAxis;
use dynconv::program::Plan;
use dynconv::{
    BankConv2d, BatchNorm, Caps, ConvDesc, DyCnnWeights, DynConv2d, Elem, Error, FdyConv2d,
    FdyWeights, KernelWarehouse2d, KernelWarehouseWeights, Linear, MapConv2d, ModulatedConv2d,
    OdConv2d, OdWeights, PerSampleConv2d, PixelMix2d, PixelMixWeights, StaticConv2d, Tensor,
    Warehouse, wgpu,
};

use crate::common::noop;

fn message<T: std::fmt::Debug>(result: dynconv::Result<T>) -> String {
    let text = result.expect_err("is refused").to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

fn dy_weights() -> DyCnnWeights {
    DyCnnWeights {
        bank: vec![0.5; 2 * 4 * 3 * 9],
        hidden: vec![0.1; 6],
        head: vec![0.1; 4],
        ..Default::default()
    }
}

fn od_weights() -> OdWeights {
    let linear =
        |outputs: usize| Some(Linear { weight: vec![0.1; outputs * 16], bias: vec![0.0; outputs] });
    OdWeights {
        bias: None,
        bank: vec![0.5; 2 * 4 * 3 * 9],
        hidden: vec![0.1; 16 * 3],
        norm: BatchNorm {
            weight: vec![1.0; 16],
            bias: vec![0.0; 16],
            mean: vec![0.0; 16],
            var: vec![1.0; 16],
            epsilon: 1e-5,
        },
        channel_head: linear(3),
        filter_head: linear(4),
        tap_head: linear(9),
        kernel_head: linear(2),
    }
}

/// A way to spoil weights, and the message that it must give.
type Spoilt<W> = (fn(&mut W), &'static str);

const DESC: fn() -> ConvDesc<2> = || ConvDesc::new(3, 4, [3, 3]).kernels(2).padding([1, 1]);

#[test]
fn errors_are_errors() {
    fn check<T: std::error::Error + Send + Sync + 'static>() {}
    check::<Error>();
}

#[test]
fn weights_of_the_wrong_size_are_named() {
    let context = noop();
    let desc = DESC();
    assert_eq!(
        message(BankConv2d::new(&context, &desc, &[0.0; 5], None)),
        "kernel bank: expected 216 elements, found 5 elements"
    );
    let bias = Some(&[0.0; 3][..]);
    assert_eq!(
        message(BankConv2d::new(&context, &desc, &[0.0; 216], bias)),
        "bias bank: expected 8 elements, found 3 elements"
    );
    assert_eq!(
        message(StaticConv2d::new(&context, &desc, &[0.0; 216], None)),
        "kernels of a static convolution: expected 1, found 2"
    );
    let cases: [Spoilt<DyCnnWeights>; 4] = [
        (|w| w.hidden = vec![0.1; 7], "fc1: expected a multiple of 3 elements, found 7"),
        (|w| w.hidden.clear(), "fc1: expected a multiple of 3 elements, found 0"),
        (|w| w.head = vec![0.1; 5], "fc2: expected 4 elements, found 5 elements"),
        (|w| w.head_bias = Some(vec![0.1]), "fc2 bias: expected 2 elements, found 1 element"),
    ];
    for (spoil, expected) in cases {
        let mut weights = dy_weights();
        spoil(&mut weights);
        assert_eq!(message(DynConv2d::new(&context, &desc, &weights, 1.0)), expected);
    }
    let cases: [Spoilt<OdWeights>; 4] = [
        (|w| w.hidden = vec![0.1; 7], "hidden layer: expected 48 elements, found 7 elements"),
        (
            |w| w.norm.var = vec![0.1; 7],
            "batch norm variance: expected 16 elements, found 7 elements",
        ),
        (
            |w| w.kernel_head = None,
            "kernel bank without kernel_fc: expected 1 kernel, found 2 kernels",
        ),
        (
            |w| w.tap_head.as_mut().expect("is there").bias.clear(),
            "spatial_fc bias: expected 9 elements, found 0 elements",
        ),
    ];
    for (spoil, expected) in cases {
        let mut weights = od_weights();
        spoil(&mut weights);
        assert_eq!(message(OdConv2d::new(&context, &desc, &weights, 1.0)), expected);
    }
}

#[test]
fn values_out_of_their_domain_are_named() {
    let context = noop();
    let desc = DESC();
    for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let text = message(DynConv2d::new(&context, &desc, &dy_weights(), temperature));
        assert_eq!(
            text,
            format!("temperature: needs a finite number above 0, found {temperature}")
        );
    }
    let mut weights = dy_weights();
    weights.bank[17] = f32::NAN;
    assert_eq!(
        message(DynConv2d::new(&context, &desc, &weights, 1.0)),
        "kernel bank, element 17: needs a finite number, found NaN"
    );
    let mut weights = od_weights();
    weights.norm.var[3] = -1.0;
    assert_eq!(
        message(OdConv2d::new(&context, &desc, &weights, 1.0)),
        "batch norm variance: needs a number above 0 with epsilon added, \
         found -1 and epsilon 0.00001"
    );
    for epsilon in [-1e-9, f64::NAN, f64::INFINITY] {
        let mut weights = od_weights();
        weights.norm.epsilon = epsilon;
        assert_eq!(
            message(OdConv2d::new(&context, &desc, &weights, 1.0)),
            format!("batch norm epsilon: needs a finite number, 0 or more, found {epsilon}")
        );
    }
    let layer = BankConv2d::new(&context, &desc, &[0.0; 216], None).expect("valid");
    assert_eq!(
        message(layer.scale_shift(&[1.0; 4], &[f32::INFINITY; 4])),
        "shift, element 0: needs a finite number, found inf"
    );
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let context = noop();
    let layer = BankConv2d::new(&context, &DESC(), &[0.0; 216], None).expect("valid");
    let zeros = |shape: &[usize]| Tensor::zeros(&context, shape).expect("fits");
    let [x, a, y] = [zeros(&[2, 3, 5, 6]), zeros(&[2, 2]), zeros(&[2, 4, 5, 6])];
    layer.bind(&x, &a, &y).expect("binds");
    assert_eq!(
        message(layer.bind(&zeros(&[2, 4, 5, 6]), &a, &y)),
        "input: expected [batch, 3, 2 spatial sizes], found [2, 4, 5, 6]"
    );
    assert_eq!(
        message(layer.bind(&zeros(&[2, 3, 5]), &a, &y)),
        "input: expected [batch, 3, 2 spatial sizes], found [2, 3, 5]"
    );
    assert_eq!(
        message(layer.bind(&x, &zeros(&[2, 3]), &y)),
        "attention: expected [2, 2], found [2, 3]"
    );
    assert_eq!(
        message(layer.bind(&x, &a, &zeros(&[2, 4, 5, 5]))),
        "output: expected [2, 4, 5, 6], found [2, 4, 5, 5]"
    );
    assert_eq!(
        message(Tensor::zeros(&context, &[2, 0])),
        "tensor: expected no empty axis but the first, found [2, 0]"
    );
    assert_eq!(
        message(Tensor::upload(&context, &[2, 3], &[0.0; 5])),
        "tensor: expected 6 elements, found 5 elements"
    );
    let huge = message(Tensor::zeros(&context, &[usize::MAX, 2]));
    assert!(huge.starts_with("size of tensor [18446744073709551615, 2] is "), "{huge}");
}

#[test]
fn buffers_that_do_not_fit_are_named() {
    let context = noop();
    let buffer = |size, usage| {
        context.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    };
    let storage = buffer(64, wgpu::BufferUsages::STORAGE);
    assert_eq!(Tensor::wrap(&context, &storage, 4, &[3, 5]).expect("fits").range(), 4..64);
    assert_eq!(
        message(Tensor::wrap(&context, &storage, 8, &[3, 5])),
        "tensor [3, 5]: buffer needs 68 bytes, has 64 bytes"
    );
    assert_eq!(
        message(Tensor::wrap(&context, &storage, 6, &[3])),
        "tensor [3]: byte offset 6 is not a multiple of 4"
    );
    let uniform = buffer(64, wgpu::BufferUsages::UNIFORM);
    assert_eq!(
        message(Tensor::wrap(&context, &uniform, 0, &[3])),
        "tensor [3]: buffer lacks usage BufferUsages(STORAGE)"
    );
    let tensor = Tensor::wrap(&context, &storage, 0, &[3]).expect("fits");
    assert_eq!(
        message(tensor.read_blocking(&context)),
        "tensor [3]: buffer lacks usage BufferUsages(COPY_SRC)"
    );
    assert_eq!(
        message(tensor.write(&context, &[0.0; 3])),
        "tensor [3]: buffer lacks usage BufferUsages(COPY_DST)"
    );

    let layer =
        StaticConv2d::new(&context, &ConvDesc::new(1, 1, [1, 1]), &[1.0], None).expect("valid");
    let [x, y] = [
        Tensor::wrap(&context, &storage, 0, &[1, 1, 2, 2]),
        Tensor::wrap(&context, &storage, 32, &[1, 1, 2, 2]),
    ]
    .map(|t| t.expect("fits"));
    assert_eq!(
        message(layer.bind(&x, &y)),
        "output and input are in the same buffer; the output needs a buffer of its own"
    );
}

#[test]
fn a_buffer_past_the_limit_is_refused_with_numbers() {
    let context = noop();
    let text = message(Tensor::zeros(&context, &[1 << 40]));
    assert!(
        text.starts_with("tensor needs 4398046511104 bytes (4 TiB), but max_buffer_size is "),
        "{text}"
    );
}

#[test]
fn counts_have_units() {
    let of = |count| Unit::Bytes.of(count);
    assert_eq!(
        [0, 1, 1023, 1024].map(of),
        ["0 bytes", "1 byte", "1023 bytes", "1024 bytes (1 KiB)"]
    );
    assert_eq!(of(134_217_728), "134217728 bytes (128 MiB)");
    assert_eq!(of(1_500_000), "1500000 bytes (1.4 MiB)");
    assert_eq!(of(u64::MAX), "18446744073709551615 bytes (15.9 EiB)");
    assert_eq!(Unit::Invocations.of(1), "1 invocation");
    assert_eq!(Unit::Workgroups.of(65_535), "65535 workgroups");
    assert_eq!(Unit::Bindings.of(8), "8 storage buffers");
    assert_eq!(Unit::Iterations.of(2), "2 iterations");

    let context = noop();
    let caps = context.caps().clone();
    let layer =
        StaticConv2d::new(&context, &ConvDesc::new(1, 1, [1, 1]), &[1.0], None).expect("valid");
    let problem = *layer.plan(1, [64, 64]).expect("plans").problem();
    let refused = |caps: Caps| message(Plan::new(&problem, &caps));
    assert_eq!(
        refused(Caps { max_invocations: 8, ..caps.clone() }),
        "a workgroup of conv_pointwise needs 64 invocations, but \
         max_compute_invocations_per_workgroup is 8 invocations; \
         request the device with a larger limit"
    );
    assert_eq!(
        refused(Caps { max_storage_binding: 4096, ..caps.clone() }),
        "the input of one sample needs 16384 bytes (16 KiB), but max_storage_buffer_binding_size \
         is 3840 bytes (3.7 KiB); request the device with a larger limit, or use a smaller layer, \
         or channels last, of which strips can run one after another"
    );
    assert_eq!(
        refused(Caps { max_storage_buffers: 2, ..caps }),
        "conv_pointwise needs 6 storage buffers, but max_storage_buffers_per_shader_stage is 2 \
         storage buffers; request the device with a larger limit"
    );
}

/// An operand goes by its name in whatever a layer does with it.
#[test]
fn operands_of_a_run_are_named() {
    let context = noop();
    let fixed =
        StaticConv2d::new(&context, &ConvDesc::new(1, 1, [1, 1]), &[1.0], None).expect("valid");
    assert_eq!(
        message(fixed.run(1, [2, 2], &[0.0; 3])),
        "input: expected 4 elements, found 3 elements"
    );
    let given = BankConv2d::new(&context, &DESC(), &[0.0; 216], None).expect("valid");
    assert_eq!(
        message(given.run(1, [1, 1], &[0.0; 3], &[0.0; 1])),
        "attention: expected 2 elements, found 1 element"
    );
    let small = context.clone().with_caps(Caps { max_buffer: 1 << 10, ..context.caps().clone() });
    let layer =
        StaticConv2d::new(&small, &ConvDesc::new(1, 8, [1, 1]), &[1.0; 8], None).expect("valid");
    let text = message(layer.run(1, [32, 32], &[0.0; 1024]));
    assert!(
        text.starts_with(
            "input needs 4096 bytes (4 KiB), but max_buffer_size is 1024 bytes (1 KiB)"
        ),
        "{text}"
    );
    let text = message(layer.run(1, [8, 8], &[0.0; 64]));
    assert!(text.starts_with("output needs 2048 bytes (2 KiB), but "), "{text}");
    let tensor = Tensor::zeros(&context, &[2, 3]).expect("fits");
    assert_eq!(
        message(tensor.write(&context, &[0.0; 5])),
        "tensor [2, 3]: expected 6 elements, found 5 elements"
    );
}

/// What is printed for debugging is about the layer, not about handles of wgpu.
#[test]
fn debug_output_is_about_layers() {
    let context = noop();
    let layer = DynConv2d::new(&context, &DESC(), &dy_weights(), 1.0).expect("valid");
    let text = format!("{layer:?}");
    for part in [
        "Layer<2, DyCnn> { geometry: Geometry {",
        "algorithm: auto",
        "\"kernel bank\": 216 elements of F32",
        "context: context ",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let [x, y] =
        [3, 4].map(|channels| Tensor::zeros(&context, &[1, channels, 5, 5]).expect("fits"));
    let bound = layer.bind(&x, &y).expect("binds");
    let shown = format!("{bound:?}");
    assert!(shown.starts_with("Bound { steps: [Step average_pool"), "{shown}");
    assert!(shown.contains("output: Tensor [1, 4, 5, 5] of F32, context "), "{shown}");
    let pixel = PixelMixWeights {
        bank: vec![0.0; 216],
        bias: None,
        head: Linear { weight: vec![0.1; 6], bias: vec![0.0; 2] },
    };
    let pixel = PixelMix2d::new(&context, &DESC(), &pixel, 1.0).expect("valid");
    let routing = Routing::new(&context, 2, &[0.5; 4], &[0.0; 2]).expect("valid");
    let all = [
        text,
        shown,
        format!("{context:?}"),
        format!("{x:?}"),
        format!("{pixel:?}"),
        format!("{routing:?}"),
    ];
    for text in all {
        assert!(
            !text.contains("wgpu::") && !text.contains("Core") && !text.contains("Id("),
            "{text}"
        );
    }
    assert_eq!(
        format!("{routing:?}").split(", ").next(),
        Some("Routing from 2 channels to 2 experts")
    );
    let dispatch = bound.steps()[0].dispatch();
    assert!(dispatch.to_string().starts_with("average_pool    "), "{dispatch}");
}

#[test]
fn layers_refuse_what_has_no_meaning() {
    let context = noop();
    let desc = ConvDesc::new(2, 4, [3, 3]).padding([1, 1]);
    let two = desc.kernels(2);
    assert_eq!(
        message(ModulatedConv2d::new(&context, &two, &[0.0; 144], true)),
        "kernels of a modulated convolution: expected 1, found 2"
    );
    assert_eq!(
        message(PerSampleConv2d::new(&context, &two)),
        "kernels of a layer of per-sample kernels: expected 1, found 2"
    );
    let axis = MapAxis::One(3);
    assert_eq!(
        message(MapConv2d::new(&context, &two, &[0.0; 144], None, axis)),
        "axis of the map: expected 0 to 2, found 3"
    );

    let norm = BatchNorm {
        weight: vec![1.0; 2],
        bias: vec![0.0; 2],
        mean: vec![0.0; 2],
        var: vec![1.0; 2],
        epsilon: 1e-5,
    };
    let linear = |outputs: usize, inputs: usize| Linear {
        weight: vec![0.1; outputs * inputs],
        bias: vec![0.0; outputs],
    };
    let cells = Cells { count: 3, c_out: 2, c_in: 2, taps: 1 };
    let warehouse = Warehouse::new(&context, cells, &[0.5; 12]).expect("valid");
    let weights = KernelWarehouseWeights {
        hidden: vec![0.1; 4],
        norm: norm.clone(),
        head: linear(18 * 4, 2),
        bias: None,
    };
    KernelWarehouse2d::new(&context, &desc, &weights, &warehouse).expect("valid");
    assert_eq!(
        message(KernelWarehouse2d::new(&context, &two, &weights, &warehouse)),
        "kernels of a KernelWarehouse layer: expected 1, found 2"
    );
    assert_eq!(
        message(KernelWarehouse2d::new(
            &context,
            &desc.bank_elem(Elem::F16Storage),
            &weights,
            &warehouse
        )),
        "a warehouse in F16Storage is not possible: its cells are kept in f32"
    );
    let none = BatchNorm::only_bias(Vec::new());
    let unhidden = KernelWarehouseWeights {
        hidden: vec![],
        norm: none,
        head: Linear { weight: vec![], bias: vec![0.0; 72] },
        bias: None,
    };
    assert_eq!(
        message(KernelWarehouse2d::new(&context, &desc, &unhidden, &warehouse)),
        "hidden units of the attention: expected at least 1, found 0"
    );
    assert_eq!(
        message(Warehouse::new(&context, Cells { count: 0, ..cells }, &[])),
        format!(
            "cells: expected at least 1, of at least 1 element, found 0 of {} elements",
            cells.elements()
        )
    );
    let uneven = Warehouse::new(&context, Cells { c_out: 3, ..cells }, &[0.5; 18]).expect("valid");
    assert_eq!(
        message(KernelWarehouse2d::new(&context, &desc, &weights, &uneven)),
        "cells: output channels: expected a divisor of the layer's 4, found 3"
    );

    let fdy = FdyWeights {
        bank: vec![0.0; 144],
        bias: None,
        hidden: vec![0.1; 12],
        norm,
        head: linear(2, 2),
    };
    let text = message(FdyConv2d::new(&context, &two.transposed([0, 0]), &fdy, 31.0));
    assert!(
        text.starts_with("a transposed frequency-dynamic convolution is not possible"),
        "{text}"
    );
    let same = FdyConv2d::new(&context, &two.padding_same(), &fdy, 31.0).expect("valid");
    let [x, y] =
        [2, 4].map(|channels| Tensor::zeros(&context, &[1, channels, 5, 6]).expect("fits"));
    same.bind(&x, &y).expect("binds");

    let mix = PixelMixWeights { bank: vec![0.0; 144], bias: None, head: linear(2, 2) };
    let shrinking = PixelMix2d::new(&context, &two.padding([0, 0]), &mix, 1.0).expect("valid");
    assert_eq!(
        message(shrinking.bind(&x, &y)),
        "output size of a pixel mixture: expected [5, 6], found [3, 4]"
    );
}

#[test]
fn a_residual_in_the_output_s_buffer_is_refused() {
    let context = noop();
    let layer =
        StaticConv2d::new(&context, &ConvDesc::new(1, 1, [1, 1]), &[1.0], None).expect("valid");
    let whole = Tensor::zeros(&context, &[16]).expect("fits");
    let [r, y] = [0, 32]
        .map(|offset| Tensor::wrap(&context, whole.buffer(), offset, &[1, 1, 2, 2]).expect("fits"));
    let x = Tensor::zeros(&context, &[1, 1, 2, 2]).expect("fits");
    assert_eq!(
        message(layer.bind_add(&x, &r, &y)),
        "output and residual are in the same buffer; the output needs a buffer of its own"
    );
}

#[test]
fn f16_needs_its_feature() {
    let context = noop();
    let caps = Caps { f16: false, ..context.caps().clone() };
    let context = context.with_caps(caps);
    assert_eq!(
        message(Tensor::zeros_in(&context, &[1, 1, 2, 2], Elem::F16)),
        "tensor of Elem::F16 needs the device feature SHADER_F16, which is not enabled"
    );
    let layer =
        StaticConv2d::new(&context, &ConvDesc::new(1, 1, [1, 1]), &[1.0], None).expect("valid");
    let x = Tensor::zeros_in(&context, &[1, 1, 2, 2], Elem::F16Storage).expect("fits");
    let y = Tensor::zeros(&context, &[1, 1, 2, 2]).expect("fits");
    layer.bind(&x, &y).expect("binds");
    let native = Tensor::wrap_in(&context, x.buffer(), 0, &[1, 1, 2, 2], Elem::F16).expect("fits");
    assert_eq!(
        message(layer.bind(&native, &y)),
        "conv_pointwise with Elem::F16 needs the device feature SHADER_F16, which is not enabled"
    );
}

#[test]
fn element_types_that_no_kernel_reads_are_refused() {
    let context = noop();
    let desc = ConvDesc::new(2, 3, [1, 1]);
    let zeros = |shape: &[usize], elem| Tensor::zeros_in(&context, shape, elem).expect("fits");
    let [x, y] = [[1, 2, 4, 4], [1, 3, 4, 4]].map(|shape| zeros(&shape, Elem::F32));
    let layer = StaticConv2d::new(&context, &desc, &[0.5; 6], None).expect("valid");
    let refusal =
        "an input or output in Elem::Bf16Storage is not possible: only kernel banks are stored so";
    assert_eq!(message(layer.bind(&zeros(&[1, 2, 4, 4], Elem::Bf16Storage), &y)), refusal);
    assert_eq!(message(layer.bind(&x, &zeros(&[1, 3, 4, 4], Elem::Bf16Storage))), refusal);

    let f32_only =
        |what: &str| format!("element type of the {what}: expected F32, found F16Storage");
    let kernels = zeros(&[1, 6], Elem::F16Storage);
    let per_sample = PerSampleConv2d::new(&context, &desc).expect("valid");
    assert_eq!(message(per_sample.bind(&x, &kernels, &y)), f32_only("per-sample kernels"));
    let given = BankConv2d::new(&context, &desc.kernels(2), &[0.5; 12], None).expect("valid");
    assert_eq!(
        message(given.bind(&x, &zeros(&[1, 2], Elem::F16Storage), &y)),
        f32_only("attention")
    );
    let modulated = ModulatedConv2d::new(&context, &desc, &[0.5; 6], true).expect("valid");
    assert_eq!(
        message(modulated.bind(&x, &zeros(&[1, 2], Elem::F16Storage), &y)),
        f32_only("style")
    );
    let means = zeros(&[1, 2, 1, 1], Elem::F16Storage);
    assert_eq!(
        message(dynconv::layers::global_average_pool(&context, &x, &means)),
        f32_only("output")
    );
    let routing = Routing::new(&context, 2, &[0.5; 4], &[0.0; 2]).expect("valid");
    assert_eq!(message(routing.bind(&x, &zeros(&[1, 2], Elem::F16Storage))), f32_only("routing"));
}

#[test]
fn cells_of_absurd_sizes_are_refused() {
    let cells = Cells { count: usize::MAX, c_out: usize::MAX, c_in: 3, taps: 5 };
    let text = message(Warehouse::new(&noop(), cells, &[0.5; 12]));
    assert!(text.starts_with("cells: expected 18446744073709551615 elements"), "{text}");
}
