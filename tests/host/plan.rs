//! The planner: what it chooses, how it splits and folds, and laws over thousands of problems.

use dynconv::Algorithm;
use dynconv::device::MatrixShape;
use dynconv::kernels::{Const, Kernel, Variant};
use dynconv::problem::{AttentionSource, Branch, MapAxis, Mixing, Parts, Problem};
use dynconv::problem::{Layout, WeightOrder};
use dynconv::program::Plan;
use dynconv::{Caps, ConvDesc, Elem, Error, Winograd, wgpu};
use dynconv_suite::cases::cases_2d;
use dynconv_suite::variants::with_lanes;
use proptest::prelude::*;

/// Mixing weights alone.
const MIX: Parts = Parts { channel: false, filter: false, spatial: false, mix: true };

/// A problem with given attention.
fn problem<const D: usize>(desc: &ConvDesc<D>, batch: usize, input: [usize; 3]) -> Problem {
    let attention = AttentionSource::Given(MIX);
    Problem { attention, ..Problem::new(desc.geometry().expect("valid"), batch, input) }
}

fn branch(parts: Parts) -> AttentionSource {
    AttentionSource::Branch(Branch {
        context: None,
        hidden: Some(16),
        parts,
        mixing: Mixing::Softmax,
    })
}

fn plan(problem: &Problem) -> Plan {
    Plan::new(problem, &Caps::webgpu_default()).expect("fits the default limits")
}

#[test]
fn each_shape_gets_its_kernel() {
    let table = [
        (ConvDesc::new(64, 64, [3, 3]).padding([1, 1]), Kernel::ConvGemmShared),
        (ConvDesc::new(64, 64, [1, 1]), Kernel::ConvGemmShared),
        (ConvDesc::new(64, 64, [1, 1]).stride([2, 2]), Kernel::ConvGemmShared),
        // Blocks of channels that are half empty, a kernel that is too large, a transposed
        // convolution.
        (ConvDesc::new(4, 64, [3, 3]).padding([1, 1]), Kernel::ConvTiled),
        (ConvDesc::new(64, 64, [11, 11]).padding([5, 5]), Kernel::ConvTiled),
        (ConvDesc::new(64, 64, [3, 3]).padding([1, 1]).transposed([0, 0]), Kernel::ConvTiled),
        (ConvDesc::new(64, 24, [1, 1]), Kernel::ConvPointwise),
        (ConvDesc::new(64, 64, [3, 3]).groups(64), Kernel::ConvDepthwise),
        (ConvDesc::new(64, 128, [3, 3]).groups(64), Kernel::ConvDepthwise),
        (ConvDesc::new(64, 64, [3, 3]).groups(16), Kernel::ConvDirect),
        (ConvDesc::new(64, 3, [3, 3]), Kernel::ConvDirect),
    ];
    for (desc, kernel) in table {
        assert_eq!(plan(&problem(&desc, 8, [1, 14, 14])).conv_kernel(), kernel, "{desc:?}");
    }
    let software = Caps { device_type: wgpu::DeviceType::Cpu, ..Caps::webgpu_default() };
    let dense = problem(&ConvDesc::new(64, 64, [3, 3]), 8, [1, 14, 14]);
    assert_eq!(Plan::new(&dense, &software).expect("fits").conv_kernel(), Kernel::ConvGemmRegister);
}

#[test]
fn a_kernel_asked_for_by_name_is_the_one_that_runs() {
    let shapes = [
        ConvDesc::new(64, 64, [3, 3]).padding([1, 1]),
        ConvDesc::new(64, 64, [3, 3]).padding([1, 1]).groups(64),
        ConvDesc::new(64, 64, [3, 3]).padding([1, 1]).stride([2, 2]),
        ConvDesc::new(64, 64, [1, 1]),
    ];
    for choice in Algorithm::ALL.iter().copied().filter(|choice| *choice != Algorithm::Auto) {
        // Several slices of a sum are a way to run a kernel.
        let named = if choice == Algorithm::SplitK { "gemm_shared" } else { choice.name() };
        let mut planned = 0;
        let others = cases_2d().into_iter().map(|case| (case.single().desc, case.input()));
        let all = shapes.iter().map(|desc| (*desc, [1, 14, 14])).chain(others);
        for ((desc, input), caps) in
            all.flat_map(|one| [(one, with_lanes()), (one, with_matrices())])
        {
            let asked = Problem { algorithm: choice, ..kept(problem(&desc, 8, input), &caps) };
            let Ok(plan) = Plan::new(&asked, &caps) else { continue };
            assert_eq!(plan.conv_kernel().name(), format!("conv_{named}"), "{choice}");
            planned += 1;
        }
        assert!(planned > 0, "{choice} was planned for nothing");
    }
}

/// Blocks are for invocations that take weights side by side, and for groups that fill half of one.
#[test]
fn banks_lie_in_blocks_where_that_helps() {
    let of = |c_out, groups, device_type| {
        let geometry = ConvDesc::new(64, c_out, [3, 3]).groups(groups).geometry().expect("valid");
        WeightOrder::of_bank(&geometry, &Caps { device_type, ..Caps::webgpu_default() })
    };
    for device in
        [wgpu::DeviceType::DiscreteGpu, wgpu::DeviceType::IntegratedGpu, wgpu::DeviceType::Other]
    {
        assert_eq!(of(64, 1, device), WeightOrder::Blocked);
        assert_eq!(of(64, 8, device), WeightOrder::Blocked);
        assert_eq!(of(56, 8, device), WeightOrder::Plain);
    }
    assert_eq!(of(64, 1, wgpu::DeviceType::Cpu), WeightOrder::Plain);
    let dense = ConvDesc::new(64, 64, [3, 3]).geometry().expect("valid");
    assert_eq!(WeightOrder::of_bank(&dense, &with_lanes()), WeightOrder::Blocked);
}

/// The problem with its weights in the order that a device keeps banks in.
fn kept(problem: Problem, caps: &Caps) -> Problem {
    Problem { order: WeightOrder::of_bank(&problem.geometry, caps), ..problem }
}

#[test]
fn each_shape_gets_its_kernel_on_a_device_with_lanes() {
    let caps = with_lanes();
    let table = [
        (ConvDesc::new(64, 64, [3, 3]).padding([1, 1]), Kernel::Conv3x3Simd8),
        (ConvDesc::new(64, 64, [3, 3]).padding([1, 1]).groups(4), Kernel::Conv3x3Simd8),
        (ConvDesc::new(64, 64, [3, 3]).padding([1, 1]).stride([2, 2]), Kernel::Conv3x3s2Simd8),
        (ConvDesc::new(64, 64, [1, 1]), Kernel::ConvPointwiseSimd8),
        (ConvDesc::new(64, 64, [1, 1]).stride([2, 2]), Kernel::ConvGemmSimd8),
        (ConvDesc::new(3, 64, [7, 7]).padding([3, 3]), Kernel::ConvStripSimd8),
        (ConvDesc::new(64, 64, [5, 5]).padding([2, 2]), Kernel::ConvStripSimd8),
        (ConvDesc::new(64, 64, [5, 5]).padding([2, 2]).transposed([0, 0]), Kernel::ConvGemmSimd8),
        (ConvDesc::new(64, 64, [3, 3]).groups(64), Kernel::ConvDepthwiseStrip),
        (ConvDesc::new(64, 64, [5, 5]).groups(64).stride([2, 2]), Kernel::ConvDepthwiseStrip),
        (ConvDesc::new(64, 64, [3, 3]).groups(64).dilation([2, 2]), Kernel::ConvDepthwise),
        (ConvDesc::new(64, 3, [3, 3]), Kernel::ConvDirect),
    ];
    for (desc, kernel) in table {
        let plan = Plan::new(&kept(problem(&desc, 8, [1, 14, 14]), &caps), &caps).expect("fits");
        assert_eq!(plan.conv_kernel(), kernel, "{desc:?}");
        let mixes_wide = plan.dispatches()[0].variant.kernel == Kernel::AggregateWide;
        assert_eq!(mixes_wide, plan.problem().order == WeightOrder::Blocked, "{desc:?}");
    }
    // Channels last are no rows of positions; a map of 4 x 4 would leave half of the lanes without
    // any; one of 7 x 7 cannot be read in pairs.
    let pointwise = kept(problem(&ConvDesc::new(64, 64, [1, 1]), 8, [1, 14, 14]), &caps);
    let last = Problem { layouts: [Layout::ChannelsLast; 2], ..pointwise };
    let small = Problem { input: [1, 4, 4], ..pointwise };
    let odd = Problem { input: [1, 7, 7], ..pointwise };
    for problem in [last, small, odd] {
        assert_eq!(Plan::new(&problem, &caps).expect("fits").conv_kernel(), Kernel::ConvGemmSimd8);
    }
    let map = Problem { attention: AttentionSource::Map(MapAxis::All), ..pointwise };
    assert_eq!(Plan::new(&map, &caps).expect("fits").conv_kernel(), Kernel::ConvGemmSimd8);
}

#[test]
fn minimal_filtering_along_rows_is_asked_for() {
    let desc = ConvDesc::new(64, 64, [3, 3]).padding([1, 1]);
    let by = |problem: Problem, caps: &Caps| {
        Plan::new(
            &Problem { algorithm: Algorithm::Conv3x3WinogradSimd8, ..kept(problem, caps) },
            caps,
        )
    };
    let lanes = with_lanes();
    let whole = problem(&desc, 8, [1, 14, 14]);
    let plan = by(whole, &lanes).expect("fits");
    assert_eq!(plan.conv_kernel(), Kernel::Conv3x3WinogradSimd8);
    // The same operands as those of the plain sum, and its operations.
    let plain = Plan::new(&kept(whole, &lanes), &lanes).expect("fits");
    assert_eq!((plan.scratch_bytes(), plan.flops()), (plain.scratch_bytes(), plain.flops()));
    // 2 x 2 tiles x 4 blocks of channels, for each sample.
    assert_eq!(plan.dispatches()[1].grid, [8 * 16, 1, 1]);

    let error = by(whole, &Caps::webgpu_default()).expect_err("has no lanes");
    assert!(matches!(error, Error::MissingFeature { .. }), "{error}");
    let strided = problem(&desc.stride([2, 2]), 8, [1, 14, 14]);
    let map = Problem { attention: AttentionSource::Map(MapAxis::All), ..whole };
    for problem in [strided, map] {
        let error = by(problem, &lanes).expect_err("is not possible").to_string();
        assert!(error.contains("conv_3x3_winograd_simd8"), "{error}");
    }
}

#[test]
fn minimal_filtering_multiplies_tiles_of_mixed_kernels() {
    let kernels =
        |plan: &Plan| plan.dispatches().iter().map(|d| d.variant.kernel).collect::<Vec<_>>();
    let desc = ConvDesc::new(64, 128, [3, 3]).kernels(4).padding([1, 1]).winograd(Winograd::F4);
    let filtered = plan(&problem(&desc, 8, [1, 56, 56]));
    let [input, product, output] =
        [Kernel::WinogradInput, Kernel::ConvGemmShared, Kernel::WinogradOutput];
    assert_eq!(kernels(&filtered), [Kernel::Aggregate, input, product, output], "{filtered}");
    // 14 x 14 tiles of 36 numbers, in and out, and kernels of 36 numbers.
    assert_eq!(filtered.scratch_bytes(), 4 * 8 * 36 * (196 * (64 + 128) + 64 * 128));
    assert_eq!(
        filtered.flops(),
        plan(&problem(&desc.winograd(Winograd::F2), 8, [1, 56, 56])).flops()
    );
    // Few tiles: the products mix the kernels themselves. Tiles of parts of a batch share their
    // memory.
    let few =
        plan(&Problem { algorithm: Algorithm::ConvGemmShared, ..problem(&desc, 8, [1, 14, 14]) });
    assert_eq!(kernels(&few), [input, product, output], "{few}");
    let caps = Caps { max_storage_binding: 9 << 20, ..Caps::webgpu_default() };
    let parts = Plan::new(&problem(&desc, 8, [1, 56, 56]), &caps).expect("fits");
    assert_eq!(parts.samples_per_chunk(), 2);
    assert_eq!(4 * parts.scratch_bytes(), filtered.scratch_bytes());
}

#[test]
fn what_minimal_filtering_cannot_do_is_refused() {
    let desc = ConvDesc::new(8, 8, [3, 3]).winograd(Winograd::F2);
    let wrong = [
        (desc.stride([2, 2]).geometry(), "3 x 3 kernel, stride 1"),
        (ConvDesc::new(8, 8, [5, 5]).winograd(Winograd::F2).geometry(), "3 x 3 kernel, stride 1"),
        (desc.bank_elem(Elem::F16Storage).geometry(), "kernel bank in f32"),
    ];
    for (geometry, because) in wrong {
        let error = geometry.expect_err("not possible").to_string();
        assert!(error.contains("Winograd") && error.contains(because), "{error}");
    }
    let spatial = branch(Parts { spatial: true, mix: true, ..Parts::default() });
    for (attention, because) in [
        (AttentionSource::SampleWeights, "from a bank"),
        (AttentionSource::Map(MapAxis::All), "from a bank"),
        (spatial, "gains of the taps"),
    ] {
        let problem = Problem { attention, ..problem(&desc, 1, [1, 7, 7]) };
        let error =
            Plan::new(&problem, &Caps::webgpu_default()).expect_err("not possible").to_string();
        assert!(error.contains(because), "{error}");
    }
}

/// On software adapters with lanes, small maps get smaller tiles, and loads and stores of as many
/// neighbours as make up their runs.
#[test]
fn maps_decide_what_lanes_load_at_once() {
    let depthwise = ConvDesc::new(64, 64, [3, 3]).padding([1, 1]).groups(64);
    let conv_by = |kernel, desc: &ConvDesc<2>, input| {
        let problem = Problem {
            algorithm: kernel,
            order: WeightOrder::of_bank(&desc.geometry().expect("valid"), &with_lanes()),
            ..problem(desc, 8, input)
        };
        let plan = Plan::new(&problem, &with_lanes()).expect("fits");
        plan.into_dispatches().pop().expect("is planned").variant
    };
    let conv = |desc: &ConvDesc<2>, input| conv_by(Algorithm::Auto, desc, input);
    let widths = |variant: &Variant| {
        let value =
            |name| variant.consts.iter().find_map(|(n, value)| (*n == name).then_some(*value));
        ["HALVES", "X_WIDTH", "Y_WIDTH"].map(|name| match value(name) {
            Some(Const::U32(number)) => number,
            _ => 0,
        })
    };
    for (input, expected) in
        [([1, 28, 28], [0, 2, 4]), ([1, 14, 14], [0, 2, 2]), ([1, 7, 7], [0, 1, 1])]
    {
        let variant = conv(&depthwise, input);
        assert_eq!(
            (variant.kernel, widths(&variant)),
            (Kernel::ConvDepthwiseStrip, expected),
            "{input:?}"
        );
    }
    // A line begins at an even column, whatever the padding is.
    for (padding, shift) in [(0, 0), (1, 1), (2, 0)] {
        let variant = conv(&depthwise.padding([1, padding]), [1, 9, 16]);
        assert_eq!(widths(&variant)[1], 2);
        assert!(variant.consts.contains(&("SHIFT", Const::U32(shift))), "{padding}");
    }
    let pointwise = ConvDesc::new(64, 64, [1, 1]);
    let maps = [
        ([1, 14, 14], [2, 4, 4]),
        ([1, 8, 10], [1, 4, 4]),
        ([1, 6, 11], [1, 2, 2]),
        ([1, 7, 7], [2, 1, 1]),
    ];
    for (input, expected) in maps {
        let variant = conv_by(Algorithm::ConvPointwiseSimd8, &pointwise, input);
        assert_eq!(
            (variant.kernel, widths(&variant)),
            (Kernel::ConvPointwiseSimd8, expected),
            "{input:?}"
        );
    }
    let patch = ConvDesc::new(64, 64, [3, 3]).padding([1, 1]);
    for (desc, kernel) in
        [(patch, Kernel::Conv3x3Simd8), (patch.stride([2, 2]), Kernel::Conv3x3s2Simd8)]
    {
        let even = desc.padding([1, 0]);
        for (desc, input, width) in
            [(&desc, [1, 14, 14], 2), (&desc, [1, 14, 15], 1), (&even, [1, 14, 14], 1)]
        {
            let variant = conv(desc, input);
            assert_eq!((variant.kernel, widths(&variant)[1]), (kernel, width), "{input:?}");
        }
    }
}

/// Mobile GPUs compute in registers what others compute in workgroup memory, with weights that lie
/// together.
#[test]
fn mobile_gpus_compute_in_registers() {
    let [adreno, mali] = ["Adreno (TM) 740", "Mali-G610 (Panfrost)"];
    let mobile = [
        adreno,
        mali,
        "Turnip Adreno (TM) 618",
        "Immortalis-G715",
        "Mali-G715-Immortalis MC11",
        "PowerVR Rogue GE8320",
    ];
    let others = [
        "AMD Radeon RX 6800 (RADV NAVI21)",
        "Samsung Xclipse 920",
        "Apple M2",
        "NVIDIA GeForce RTX 4070",
        "Somaliland",
        "",
    ];
    let caps = |name: &str| Caps { name: name.into(), ..Caps::webgpu_default() };
    let dense = problem(&ConvDesc::new(64, 64, [3, 3]).padding([1, 1]), 8, [1, 56, 56]);
    let mapped = Problem { attention: AttentionSource::Map(MapAxis::All), ..dense };
    let narrow = problem(&ConvDesc::new(64, 64, [1, 1]), 8, [1, 56, 56]);
    let kernel = |problem: &Problem, name: &str| {
        Plan::new(problem, &caps(name)).expect("fits").conv_kernel()
    };
    for name in mobile {
        assert!(caps(name).is_mobile(), "{name}");
        let kernels = [&dense, &mapped, &narrow].map(|problem| kernel(problem, name));
        assert_eq!(
            kernels,
            [Kernel::ConvGemmRegister, Kernel::ConvGemmRegister, Kernel::ConvPointwise],
            "{name}"
        );
    }
    for name in others {
        let kernels = [&dense, &mapped, &narrow].map(|problem| kernel(problem, name));
        assert_eq!(
            kernels,
            [Kernel::ConvGemmShared, Kernel::ConvTiled, Kernel::ConvGemmShared],
            "{name}"
        );
    }
    let says = Plan::new(&dense, &caps(mali)).expect("fits").to_string();
    assert!(says.contains("conv_gemm_register because: a mobile GPU"), "{says}");
}

/// A GPU with matrices of 16 x 16 in both element types.
fn with_matrices() -> Caps {
    dynconv_suite::variants::with_matrices(16)
}

#[test]
fn matrices_are_chosen_where_they_were_tested_and_fill() {
    let dense = |c_in, c_out, map| {
        let desc = ConvDesc::new(c_in, c_out, [3, 3]).padding([1, 1]);
        Problem { elems: [Elem::F16, Elem::F32], ..problem(&desc, 8, [1, map, map]) }
    };
    let chosen =
        |problem: &Problem, caps: &Caps| Plan::new(problem, caps).expect("fits").conv_kernel();
    let (full, caps) = (dense(64, 64, 14), with_matrices());
    assert_eq!(chosen(&full, &caps), Kernel::ConvGemmCoopmat);
    // An input in f32 is multiplied in f32.
    let single = Problem { elems: [Elem::F32; 2], ..full };
    assert_eq!(chosen(&single, &caps), Kernel::ConvGemmCoopmat);
    let only =
        |operand| Caps { matrices: vec![MatrixShape { size: 16, operand }], ..with_matrices() };
    assert_eq!(chosen(&single, &only(Elem::F16)), Kernel::ConvGemmShared);
    assert_eq!(chosen(&full, &only(Elem::F32)), Kernel::ConvGemmShared);
    // Nobody turned them on, no subgroups to compute them, no f16, a software adapter, workgroups
    // that are too small.
    let lacking = [
        Caps { matrices: vec![], ..with_matrices() },
        Caps { subgroups: false, ..with_matrices() },
        Caps { device_type: wgpu::DeviceType::Cpu, ..with_matrices() },
        Caps { subgroup_size: [32, 128], ..with_matrices() },
    ];
    for caps in lacking {
        assert_ne!(chosen(&full, &caps), Kernel::ConvGemmCoopmat, "{caps:?}");
    }
    // Tiles and steps that are mostly empty, a map.
    for problem in [dense(64, 12, 14), dense(12, 64, 14), dense(64, 64, 3)] {
        assert_ne!(chosen(&problem, &caps), Kernel::ConvGemmCoopmat, "{problem:?}");
    }
    let map = Problem { attention: AttentionSource::Map(MapAxis::All), ..full };
    assert_eq!(chosen(&map, &caps), Kernel::ConvTiled);
    // The choice, and with it the order of the sum, is the same for every batch.
    for batch in [1, 2, 100] {
        assert_eq!(chosen(&Problem { batch, ..full }, &caps), Kernel::ConvGemmCoopmat);
    }
}

#[test]
fn matrices_that_cannot_be_had_are_refused_by_name() {
    let desc = ConvDesc::new(64, 64, [3, 3]);
    let asked = Problem { algorithm: Algorithm::ConvGemmCoopmat, ..problem(&desc, 2, [1, 9, 9]) };
    let refused = |problem: &Problem, caps: &Caps| {
        Plan::new(problem, caps).expect_err("cannot be").to_string()
    };
    let untested = "conv_gemm_coopmat with an input in Elem::F32 needs the device feature \
                    EXPERIMENTAL_COOPERATIVE_MATRIX, in matrices that Context::with_matrices has \
                    tested, which is not enabled";
    assert_eq!(refused(&asked, &Caps::webgpu_default()), untested);
    let map = Problem { attention: AttentionSource::Map(MapAxis::All), ..asked };
    let mixes = "conv_gemm_coopmat is not possible: it cannot mix kernels at every position";
    assert_eq!(refused(&map, &with_matrices()), mixes);
    let large = Caps { subgroup_size: [32, 128], ..with_matrices() };
    assert!(
        refused(&asked, &large).contains("max_compute_invocations_per_workgroup is 256"),
        "{}",
        refused(&asked, &large)
    );
}

/// A tile is as large as leaves two workgroups to each of the cores that a device is taken to have.
#[test]
fn more_work_gets_larger_tiles() {
    let tile = |batch, c_out, map, device_type| {
        let desc = ConvDesc::new(64, c_out, [3, 3]).padding([1, 1]);
        let caps = Caps { device_type, ..Caps::webgpu_default() };
        let problem = Problem {
            algorithm: Algorithm::ConvGemmShared,
            ..problem(&desc, batch, [1, map, map])
        };
        let plan = Plan::new(&problem, &caps).expect("fits");
        let variant = &plan.dispatches().last().expect("convolves").variant;
        ["TILE_M", "TILE_N"].map(|name| {
            let (_, value) =
                variant.consts.iter().find(|(own, _)| *own == name).expect("has a tile");
            let Const::U32(value) = value else { panic!("{name} is a number") };
            *value
        })
    };
    use wgpu::DeviceType::{DiscreteGpu, IntegratedGpu};
    assert_eq!(tile(32, 128, 28, DiscreteGpu), [128, 128]);
    assert_eq!(tile(32, 512, 7, DiscreteGpu), [128, 64]);
    assert_eq!(tile(8, 64, 56, DiscreteGpu), [64, 128]);
    assert_eq!(tile(3, 64, 56, IntegratedGpu), [64, 128]);
    assert_eq!(tile(1, 256, 14, DiscreteGpu), [64, 64]);
}

/// Where workgroup memory takes a tile's operands twice, they are written while others are read. No
/// tile is left out for want of that.
#[test]
fn two_buffers_where_they_fit() {
    let desc = ConvDesc::new(64, 128, [3, 3]).padding([1, 1]);
    let problem = problem(&desc, 64, [1, 28, 28]);
    let memory = |max_workgroup_memory| {
        let caps = Caps { max_workgroup_memory, ..Caps::webgpu_default() };
        Plan::new(&problem, &caps)
            .expect("fits")
            .dispatches()
            .last()
            .expect("convolves")
            .workgroup_memory
    };
    assert_eq!(memory(32 << 10), 16_896);
    assert_eq!(memory(16_896), 16_896);
    assert_eq!(memory(16 << 10), 8_448);
}

#[test]
fn a_plan_explains_itself() {
    let text =
        plan(&problem(&ConvDesc::new(64, 64, [3, 3]).kernels(4).padding([1, 1]), 8, [1, 56, 56]))
            .to_string();
    assert_eq!(
        text,
        "64 -> 64 channels, kernel 3x3, stride 1x1, groups 1, K 4, batch 8: 56x56 -> 56x56\n\
         conv_gemm_shared because: 64 channels x 3136 positions fill large tiles\n  \
         aggregate               1152 workgroups (1152 x 1 x 1) of 64, 0 B of workgroup memory\n  \
         conv_gemm_shared        200 workgroups (200 x 1 x 1) of 128, 12800 B of workgroup memory\n\
         scratch memory 1179648 B"
    );
}

#[test]
fn a_batch_past_the_binding_limit_is_split_evenly() {
    // 512 -> 512, 3 x 3 is 9.4 MB a sample: 128 MiB hold 14 of them.
    let desc = ConvDesc::new(512, 512, [3, 3]).kernels(4).padding([1, 1]);
    let stored =
        |batch| Problem { algorithm: Algorithm::ConvTiled, ..problem(&desc, batch, [1, 7, 7]) };
    let split = plan(&stored(64));
    assert_eq!(split.samples_per_chunk(), 13);
    assert_eq!(split.dispatches().len(), 2 * 5);
    assert!(split.scratch_bytes() <= 128 << 20);
    assert!(split.to_string().contains("in chunks of 13 samples"));
    assert_eq!(plan(&stored(14)).samples_per_chunk(), 14);
}

#[test]
fn kernels_for_few_positions_are_mixed_as_they_are_loaded() {
    let mixed = |desc: ConvDesc<2>, map: usize| {
        let plan = plan(&Problem {
            algorithm: Algorithm::ConvGemmShared,
            ..problem(&desc, 16, [1, map, map])
        });
        let kernels: Vec<_> = plan.dispatches().iter().map(|d| d.variant.kernel).collect();
        let says = plan.to_string().contains("kernels are mixed as they are loaded");
        assert_eq!(says, kernels == [Kernel::ConvGemmShared], "{plan}");
        assert_eq!(says, plan.scratch_bytes() == 0, "{plan}");
        says
    };
    let desc = ConvDesc::new(64, 64, [3, 3]).kernels(4).padding([1, 1]);
    assert!(mixed(desc, 7));
    assert!(mixed(desc, 11));
    assert!(!mixed(desc, 12), "144 positions");
    assert!(mixed(desc.kernels(8), 7));
    assert!(!mixed(desc.kernels(9), 7), "more kernels than a step takes");
    assert!(!mixed(desc.bank_elem(Elem::F16Storage), 7), "a bank in f16");
    let biased = Problem {
        has_bias: true,
        algorithm: Algorithm::ConvGemmShared,
        ..problem(&desc, 16, [1, 7, 7])
    };
    assert_eq!(plan(&biased).dispatches().len(), 2, "a bias is mixed beforehand");
}

fn on(device_type: wgpu::DeviceType) -> Caps {
    Caps { device_type, ..Caps::webgpu_default() }
}

/// Parts of the sum: how often its outputs are in the partial sums of a sample.
fn parts(plan: &Plan) -> u64 {
    let outputs = plan.problem().geometry.c_out
        * plan.output().iter().product::<usize>()
        * plan.samples_per_chunk();
    let values = plan.program().values();
    let partials = values.iter().find(|info| info.value.name() == "partial sums");
    partials.map_or(1, |info| info.len() as u64 / outputs as u64)
}

#[test]
fn a_sum_with_few_tiles_is_split_among_workgroups() {
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu};
    let desc = ConvDesc::new(512, 512, [3, 3]).kernels(4).padding([1, 1]);
    let small = Plan::new(&problem(&desc, 1, [1, 7, 7]), &on(DiscreteGpu)).expect("fits");
    assert_eq!(
        small.to_string(),
        "512 -> 512 channels, kernel 3x3, stride 1x1, groups 1, K 4, batch 1: 7x7 -> 7x7\n\
         conv_gemm_shared because: 512 channels x 49 positions fill large tiles\n\
         kernels are mixed as they are loaded: too few positions to store them for\n\
         sums are split in 16 slices of 32 input channels: a sample has too few tiles for every \
         core\n  \
         conv_gemm_shared        128 workgroups (128 x 1 x 1) of 64, 8704 B of workgroup memory\n  \
         sum_slices              392 workgroups (392 x 1 x 1) of 64, 0 B of workgroup memory\n\
         scratch memory 1605632 B"
    );
    let of = |desc: &ConvDesc<2>, map, device| {
        parts(&Plan::new(&problem(desc, 1, [1, map, map]), &on(device)).expect("fits"))
    };
    let dense = |channels| ConvDesc::new(channels, channels, [3, 3]).padding([1, 1]);
    // Twice the cores have eight tiles each, or 256 steps are the least; parts of whole blocks of
    // channels.
    assert_eq!(of(&dense(512), 7, IntegratedGpu), 8);
    assert_eq!(of(&dense(256), 14, DiscreteGpu), 8);
    assert_eq!(
        of(&dense(256), 7, DiscreteGpu),
        8,
        "2304 steps are nine times 256: parts of four blocks"
    );
    assert_eq!(of(&dense(64), 7, DiscreteGpu), 2);
    assert_eq!(of(&ConvDesc::new(1024, 256, [1, 1]), 7, DiscreteGpu), 4);
    // Too few steps, more positions than steps, tiles for all cores; software adapters have others.
    assert_eq!(of(&ConvDesc::new(256, 256, [1, 1]), 7, DiscreteGpu), 1);
    assert_eq!(of(&dense(64), 56, DiscreteGpu), 1);
    assert_eq!(of(&dense(512), 28, DiscreteGpu), 2, "104 tiles");
    assert_eq!(of(&dense(512), 28, IntegratedGpu), 1);
    assert_eq!(of(&dense(512), 7, Cpu), 1);
}

/// The order of summation is the same for a sample in every batch: kernel and parts are.
#[test]
fn kernels_and_parts_are_the_same_in_every_batch() {
    for device in [wgpu::DeviceType::DiscreteGpu, wgpu::DeviceType::IntegratedGpu] {
        for (channels, map, kernel) in
            [(512, 7, 3), (256, 14, 3), (64, 7, 3), (64, 14, 1), (128, 28, 3), (64, 56, 3)]
        {
            let desc =
                ConvDesc::new(channels, channels, [kernel; 2]).kernels(4).padding([kernel / 2; 2]);
            let of = |batch| {
                let plan =
                    Plan::new(&problem(&desc, batch, [1, map, map]), &on(device)).expect("fits");
                (plan.conv_kernel(), parts(&plan))
            };
            let alone = of(1);
            for batch in [2, 3, 8, 64, 200] {
                assert_eq!(of(batch), alone, "{desc:?} {map} {batch}");
            }
        }
    }
}

#[test]
fn a_split_sum_is_asked_for_by_name() {
    let split = |c_in, caps: &Caps| {
        let desc = ConvDesc::new(c_in, 20, [1, 1]);
        Plan::new(&Problem { algorithm: Algorithm::SplitK, ..problem(&desc, 3, [1, 4, 5]) }, caps)
    };
    let caps = Caps::webgpu_default();
    let error = split(16, &caps).expect_err("one block of channels");
    assert_eq!(
        error.to_string(),
        "conv_gemm_shared in slices is not possible: it needs more than 16 input channels a group, \
         and there are 16"
    );
    assert_eq!(parts(&split(17, &caps).expect("two blocks")), 2);
    assert_eq!(parts(&split(90, &on(wgpu::DeviceType::Cpu)).expect("many blocks")), 2);
    // Where loops are short, parts are: six blocks, one a part.
    let most = Caps { max_loop_iterations: 130, ..caps.clone() };
    assert_eq!(parts(&split(90, &most).expect("short loops")), 6);
    let plan = split(90, &caps).expect("many blocks");
    assert!(plan.to_string().contains("in 2 slices of 48 input channels: asked for"), "{plan}");
    let whole = Problem { algorithm: Algorithm::ConvGemmShared, ..*plan.problem() };
    assert_eq!(parts(&Plan::new(&whole, &caps).expect("fits")), 1);
}

#[test]
fn one_sample_past_the_binding_limit_is_refused_with_numbers() {
    let desc = ConvDesc::new(4096, 4096, [3, 3]).kernels(1);
    let error = Plan::new(&problem(&desc, 1, [1, 7, 7]), &Caps::webgpu_default())
        .expect_err("600 MB of weights");
    let Error::Limit { limit, needed, available, .. } = error else { panic!("{error}") };
    assert_eq!(
        (limit, needed, available),
        ("max_storage_buffer_binding_size", 603_979_776, 134_217_728 - 256)
    );
}

#[test]
fn an_empty_batch_has_a_plan_without_dispatches() {
    let desc = ConvDesc::new(64, 64, [3, 3]).kernels(4).padding([1, 1]);
    let plan =
        Plan::new(&problem(&desc, 0, [1, 7, 7]), &Caps::webgpu_default()).expect("nothing to do");
    assert_eq!((plan.dispatches(), plan.scratch_bytes(), plan.flops()), (&[][..], 0, 0));
    assert_eq!(plan.output(), [1, 7, 7]);
    assert!(plan.to_string().ends_with("scratch memory 0 B"), "{plan}");
}

/// What is missing is said where it changes what runs, and nowhere else.
#[test]
fn a_plan_says_what_the_device_lacks() {
    let lanes = Caps {
        device_type: wgpu::DeviceType::Cpu,
        subgroup_size: [8, 8],
        ..Caps::webgpu_default()
    };
    let names = |caps: &Caps| caps.missing().iter().map(|missing| missing.name).collect::<Vec<_>>();
    assert_eq!(names(&lanes), ["SUBGROUP", "SHADER_INT64"]);
    assert_eq!(names(&Caps { subgroups: true, ..lanes.clone() }), ["SHADER_INT64"]);
    assert_eq!(names(&Caps { subgroups: true, int64: true, ..lanes.clone() }), [""; 0]);
    assert_eq!(
        names(&Caps { subgroup_size: [4, 4], ..lanes.clone() }),
        [""; 0],
        "other subgroups are no lanes"
    );
    let gpu = on(wgpu::DeviceType::DiscreteGpu);
    assert_eq!(names(&gpu), ["max_compute_workgroup_storage_size"]);
    let small = Caps { max_invocations: 128, ..gpu.clone() };
    assert_eq!(
        names(&small),
        ["max_compute_invocations_per_workgroup", "max_compute_workgroup_storage_size"]
    );
    assert_eq!(names(&Caps { max_workgroup_memory: 32 << 10, ..gpu.clone() }), [""; 0]);
    assert_eq!(names(&Caps { name: "Mali-G78".into(), ..small }), [""; 0]);

    let desc = ConvDesc::new(64, 64, [3, 3]).kernels(4).padding([1, 1]);
    let of =
        |caps: &Caps, batch| Plan::new(&problem(&desc, batch, [1, 56, 56]), caps).expect("fits");
    let plan = of(&lanes, 8);
    assert_eq!(plan.conv_kernel(), Kernel::ConvGemmRegister);
    assert_eq!(plan.missing(), lanes.missing());
    let line = "slower than need be, if the adapter has SUBGROUP and SHADER_INT64: ";
    assert!(plan.to_string().contains(line), "{plan}");
    let full = of(&Caps { subgroups: true, int64: true, ..lanes }, 8);
    assert_eq!((full.conv_kernel(), full.missing()), (Kernel::Conv3x3Simd8, &[][..]));
    assert!(!full.to_string().contains("slower"), "{full}");
    // A tile that two buffers fit as well.
    assert_eq!(of(&gpu, 1).missing(), []);
}

#[test]
fn kernels_that_cannot_are_refused() {
    let desc = ConvDesc::new(64, 64, [3, 3]);
    for kernel in [Algorithm::ConvPointwise, Algorithm::ConvDepthwise] {
        let problem = Problem { algorithm: kernel, ..problem(&desc, 1, [1, 7, 7]) };
        let error = Plan::new(&problem, &Caps::webgpu_default()).expect_err("not possible");
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    let pointwise = Problem { algorithm: Algorithm::ConvPointwise, ..problem(&desc, 0, [1, 7, 7]) };
    let error = Plan::new(&pointwise, &Caps::webgpu_default())
        .expect_err("not possible, for no samples either");
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn odconv_without_kernel_or_spatial_attention_shares_its_kernel() {
    let attention = branch(Parts { channel: true, filter: true, ..Parts::default() });
    let shared = Problem { attention, ..problem(&ConvDesc::new(32, 24, [1, 1]), 3, [1, 7, 7]) };
    let kernels: Vec<_> = plan(&shared).dispatches().iter().map(|d| d.variant.kernel).collect();
    assert_eq!(kernels, [Kernel::AveragePool, Kernel::AttentionMlp, Kernel::ConvPointwise]);
    assert_eq!(plan(&shared).scratch_bytes(), 4 * (3 * (32 + 24) + 3 * 32));
}

/// Sources of attention to draw from: with a kernel a sample, with one kernel for all, and maps.
const SOURCES: usize = 9;

fn source(number: usize) -> AttentionSource {
    let gains = Parts { channel: true, filter: true, ..Parts::default() };
    match number {
        0 => AttentionSource::Given(MIX),
        1 => branch(Parts { spatial: true, mix: true, ..gains }),
        2 => branch(Parts { mix: true, ..gains }),
        3 => AttentionSource::Static,
        4 => branch(gains),
        5 => AttentionSource::Given(gains),
        6 => AttentionSource::SampleWeights,
        7 => AttentionSource::Map(MapAxis::All),
        _ => AttentionSource::Map(MapAxis::One(number % 3)),
    }
}

pub(crate) fn any_problem() -> impl Strategy<Value = (Problem, Caps)> {
    let channels = (1_usize..5, 1_usize..40, 1_usize..40);
    let axis = (1_usize..6, 1_usize..4, 1_usize..4, 0_usize..4, 0_usize..4, 1_usize..40);
    let winograd =
        prop_oneof![4 => Just(None), 1 => Just(Some(Winograd::F2)), 1 => Just(Some(Winograd::F4))];
    let rest = (1_usize..70, 1_usize..6, 0..SOURCES + 2, any::<[bool; 3]>(), winograd);
    let limits = (16_u32..28, 3_u32..17, 9_u32..20);
    (channels, [axis.clone(), axis], rest, limits).prop_filter_map(
        "the kernel fits the input",
        |(
            (groups, c_in, c_out),
            axes,
            (batch, kernels, number, [has_bias, lanes, is_split], winograd),
            (binding, grid, iterations),
        )| {
            let attention = source(number);
            // Minimal filtering takes banks without gains of the taps, and one kind of kernel.
            let winograd = winograd.filter(|_| [0, 2, 3, 4, 5].contains(&number));
            let axes = axes.map(|a| if winograd.is_some() { (3, 1, 1, a.3, a.4, a.5) } else { a });
            let is_map = matches!(attention, AttentionSource::Map(_));
            let desc = ConvDesc::new(groups * c_in, groups * c_out, axes.map(|a| a.0))
                .groups(groups)
                .stride(axes.map(|a| a.1))
                .dilation(axes.map(|a| a.2))
                .padding_sides(axes.map(|a| [a.3, a.4]));
            let desc = winograd.map_or(desc, |winograd| desc.winograd(winograd));
            let input = [1, axes[0].5, axes[1].5];
            let one = Problem { attention, has_bias, ..problem(&desc, batch, input) };
            one.geometry.output_size(input).ok()?;
            // A bank needs mixing weights.
            let kernels = if one.shares_kernel() && !is_map { 1 } else { kernels };
            let problem =
                Problem { geometry: desc.kernels(kernels).geometry().expect("valid"), ..one };
            let mut caps = if lanes { with_lanes() } else { Caps::webgpu_default() };
            let is_bank = attention != AttentionSource::SampleWeights;
            let problem = if is_bank { kept(problem, &caps) } else { problem };
            let is_able = Algorithm::SplitK.accepts(&problem).is_ok();
            let algorithm = if is_split && is_able { Algorithm::SplitK } else { Algorithm::Auto };
            let problem = Problem { algorithm, ..problem };
            caps.max_storage_binding = 1 << binding;
            caps.max_workgroups = 1 << grid;
            caps.max_loop_iterations = 1 << iterations;
            Some((problem, caps))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is planned keeps every limit and covers the output exactly once; whatever is
    /// refused names a limit.
    #[test]
    fn plans_keep_every_limit((problem, caps) in any_problem()) {
        let plan = match Plan::new(&problem, &caps) {
            Ok(plan) => plan,
            Err(Error::Limit { needed, available, .. }) => {
                prop_assert!(needed > available);
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let outputs =
            problem.geometry.c_out as u64 * plan.output().iter().product::<usize>() as u64;
        let mut next = 0;
        // Parts that wait to be added up.
        let mut partials = None;
        for dispatch in plan.dispatches() {
            prop_assert!(dispatch.grid.iter().all(|&n| n >= 1 && n <= caps.max_workgroups));
            let grid: u64 = dispatch.grid.iter().map(|&n| u64::from(n)).product();
            prop_assert!(grid >= u64::from(dispatch.workgroups));
            prop_assert!(dispatch.workgroup_size <= caps.max_invocations);
            prop_assert!(dispatch.workgroup_memory <= caps.max_workgroup_memory);
            let storage = dispatch.variant.kernel.def().storage;
            let bound = dispatch.slices.iter().zip(storage).enumerate();
            for (binding, (slice, is_written)) in bound {
                prop_assert!(slice.len > 0);
                let info = plan.program().info(slice.value).expect("is of this program");
                prop_assert!(problem.batch == 0 || slice.start + slice.len <= info.len() as u64);
                prop_assert!(
                    4 * slice.len + u64::from(caps.storage_alignment) <= caps.max_storage_binding
                );
                // What is read stands in for what a kernel does not read.
                if slice.value.name() == "partial sums" && (binding == 0 || *is_written) {
                    partials = match partials {
                        None => Some(*slice),
                        Some(written) => {
                            prop_assert_eq!(
                                (written, dispatch.variant.kernel),
                                (*slice, Kernel::SumSlices)
                            );
                            None
                        }
                    };
                }
                if slice.value == plan.operands().y {
                    // A sum that goes on where another dispatch ended adds to the same outputs.
                    let goes_on =
                        dispatch.variant.consts.contains(&("CONTINUES", Const::Bool(true)));
                    prop_assert_eq!(slice.start + if goes_on { slice.len } else { 0 }, next);
                    next = slice.start + slice.len;
                }
            }
        }
        prop_assert_eq!((next, partials), (problem.batch as u64 * outputs, None));
        prop_assert!(!plan.to_string().is_empty());
    }
}

/// Super-resolution: 64 channels of 4096 x 4096 are 4.3 GB a sample, and a binding holds 2. Strips
/// read what is around them, write every output once, and fit; attention is averaged in parts.
#[test]
fn a_sample_larger_than_a_binding_runs_in_strips() {
    let limit: u64 = 1 << 31;
    let caps = Caps { max_storage_binding: limit, max_buffer: 1 << 33, ..Caps::webgpu_default() };
    let desc = ConvDesc::new(64, 64, [3, 3]).padding([1, 1]);
    let last = [Layout::ChannelsLast; 2];
    let size = [1, 4096, 4096];
    let row = 4096 * 64;
    for attention in [AttentionSource::Static, AttentionSource::Given(MIX), branch(MIX)] {
        let problem = Problem { attention, layouts: last, ..problem(&desc, 2, size) };
        let plan = Plan::new(&problem, &caps).expect("runs in strips");
        let bytes = |len: u64| 4 * len;
        assert!(plan.dispatches().iter().flat_map(|d| &d.slices).all(|s| bytes(s.len) <= limit));
        let convolutions: Vec<_> = plan
            .dispatches()
            .iter()
            .filter(|dispatch| dispatch.variant.kernel == plan.conv_kernel())
            .map(|dispatch| (dispatch.slices[0], dispatch.slices[5]))
            .collect();
        assert_eq!(convolutions.len(), 2 * 3);
        let mut end = 0;
        for (number, (x, y)) in convolutions.iter().enumerate() {
            assert_eq!(y.start, end, "outputs follow each other");
            end = y.start + y.len;
            let [above, below] = [number % 3 > 0, number % 3 < 2].map(u64::from);
            assert_eq!(x.start, y.start - above * row);
            assert_eq!(x.len, y.len + (above + below) * row);
        }
        assert_eq!(end, 2 * 4096 * row);
        let pools = plan.dispatches().iter().filter(|d| d.variant.kernel == Kernel::AveragePool);
        let is_averaged = matches!(attention, AttentionSource::Branch(_));
        assert_eq!(pools.count(), if is_averaged { 2 * (4 + 1) } else { 0 });
    }
    let first = Problem { layouts: [Layout::ChannelsFirst; 2], ..problem(&desc, 1, size) };
    let refused = Plan::new(&first, &caps).expect_err("no strip lies in one piece").to_string();
    assert!(refused.contains("or channels last"), "{refused}");
}
