//! The planner: what it chooses, how it splits and folds, and laws over thousands of problems.

use dynconv::plan::{AttentionSource, Branch, ConvChoice, MapAxis, Mixing, Parts, Plan, Problem};
use dynconv::{Caps, Const, ConvDesc, Error, Kernel, Operand, wgpu};
use proptest::prelude::*;

/// Mixing weights alone.
const MIX: Parts = Parts { channel: false, filter: false, spatial: false, mix: true };

/// A problem with given attention.
fn problem<const D: usize>(desc: &ConvDesc<D>, batch: usize, input: [usize; 3]) -> Problem {
    let attention = AttentionSource::Given(MIX);
    Problem { attention, ..Problem::new(desc.geometry().expect("valid"), batch, input) }
}

fn branch(parts: Parts) -> AttentionSource {
    AttentionSource::Branch(Branch { hidden: Some(16), temperature: 1.0, parts, mixing: Mixing::Softmax })
}

fn plan(problem: &Problem) -> Plan {
    Plan::new(problem, &Caps::webgpu_default()).expect("fits the default limits")
}

#[test]
fn each_shape_gets_its_kernel() {
    let table = [
        (ConvDesc::new(64, 64, [3, 3]).padding([1, 1]), Kernel::ConvBlock),
        (ConvDesc::new(64, 64, [1, 1]), Kernel::ConvBlock),
        // Tiles for too few cores, blocks of channels that are half empty, a kernel that is too large, a transposed convolution.
        (ConvDesc::new(64, 64, [1, 1]).stride([2, 2]), Kernel::ConvTiled),
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
    assert_eq!(Plan::new(&dense, &software).expect("fits").conv_kernel(), Kernel::ConvRegister);
}

/// A tile is as large as leaves two workgroups to each of the cores that a device is taken to have.
#[test]
fn more_work_gets_larger_tiles() {
    let tile = |batch, c_out, map, device_type| {
        let desc = ConvDesc::new(64, c_out, [3, 3]).padding([1, 1]);
        let caps = Caps { device_type, ..Caps::webgpu_default() };
        let problem = Problem { kernel: ConvChoice::Block, ..problem(&desc, batch, [1, map, map]) };
        let plan = Plan::new(&problem, &caps).expect("fits");
        let variant = &plan.dispatches().last().expect("convolves").variant;
        ["TILE_M", "TILE_N"].map(|name| {
            let (_, value) = variant.consts.iter().find(|(own, _)| *own == name).expect("has a tile");
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

#[test]
fn a_plan_explains_itself() {
    let text = plan(&problem(&ConvDesc::new(64, 64, [3, 3]).kernels(4).padding([1, 1]), 8, [1, 56, 56])).to_string();
    assert_eq!(
        text,
        "64 -> 64 channels, kernel 3x3, stride 1x1, groups 1, K 4, batch 8: 56x56 -> 56x56\n\
         conv_block because: 64 channels x 3136 positions fill large tiles on every core\n  \
         aggregate       1152 workgroups (1152 x 1 x 1) of 64, 0 B of workgroup memory\n  \
         conv_block      200 workgroups (200 x 1 x 1) of 128, 6400 B of workgroup memory\n\
         scratch memory 1179648 B"
    );
}

#[test]
fn a_batch_past_the_binding_limit_is_split_evenly() {
    // 512 -> 512, 3 x 3 is 9.4 MB a sample: 128 MiB hold 14 of them.
    let desc = ConvDesc::new(512, 512, [3, 3]).kernels(4).padding([1, 1]);
    let stored = |batch| Problem { kernel: ConvChoice::Tiled, ..problem(&desc, batch, [1, 7, 7]) };
    let split = plan(&stored(64));
    assert_eq!(split.samples_per_part(), 13);
    assert_eq!(split.dispatches().len(), 2 * 5);
    assert!(split.scratch_bytes() <= 128 << 20);
    assert!(split.to_string().contains("in parts of 13 samples"));
    assert_eq!(plan(&stored(14)).samples_per_part(), 14);
}

#[test]
fn kernels_for_few_positions_are_mixed_as_they_are_loaded() {
    let mixed = |desc: ConvDesc<2>, map: usize| {
        let plan = plan(&Problem { kernel: ConvChoice::Block, ..problem(&desc, 16, [1, map, map]) });
        let kernels: Vec<_> = plan.dispatches().iter().map(|d| d.variant.kernel).collect();
        let says = plan.to_string().contains("kernels are mixed as they are loaded");
        assert_eq!(says, kernels == [Kernel::ConvBlock], "{plan}");
        assert_eq!(says, plan.scratch_bytes() == 0, "{plan}");
        says
    };
    let desc = ConvDesc::new(64, 64, [3, 3]).kernels(4).padding([1, 1]);
    assert!(mixed(desc, 7));
    assert!(mixed(desc, 11));
    assert!(!mixed(desc, 12), "144 positions");
    assert!(mixed(desc.kernels(8), 7));
    assert!(!mixed(desc.kernels(9), 7), "more kernels than a step takes");
    assert!(!mixed(desc.bank_elem(dynconv::Elem::F16Storage), 7), "a bank in f16");
    let biased = Problem { has_bias: true, kernel: ConvChoice::Block, ..problem(&desc, 16, [1, 7, 7]) };
    assert_eq!(plan(&biased).dispatches().len(), 2, "a bias is mixed beforehand");
}

#[test]
fn one_sample_past_the_binding_limit_is_refused_with_numbers() {
    let desc = ConvDesc::new(4096, 4096, [3, 3]).kernels(1);
    let error = Plan::new(&problem(&desc, 1, [1, 7, 7]), &Caps::webgpu_default()).expect_err("600 MB of weights");
    let Error::Limit { limit, needed, available, .. } = error else { panic!("{error}") };
    assert_eq!((limit, needed, available), ("max_storage_buffer_binding_size", 603_979_776, 134_217_728 - 256));
}

#[test]
fn kernels_that_cannot_are_refused() {
    let desc = ConvDesc::new(64, 64, [3, 3]);
    for kernel in [ConvChoice::Pointwise, ConvChoice::Depthwise] {
        let problem = Problem { kernel, ..problem(&desc, 1, [1, 7, 7]) };
        let error = Plan::new(&problem, &Caps::webgpu_default()).expect_err("not possible");
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    let empty = Plan::new(&problem(&desc, 0, [1, 7, 7]), &Caps::webgpu_default()).expect_err("no samples");
    assert_eq!(empty.to_string(), "batch: expected at least 1, found 0");
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
        6 => AttentionSource::Rows,
        7 => AttentionSource::Map(MapAxis::All),
        _ => AttentionSource::Map(MapAxis::One(number % 3)),
    }
}

pub(crate) fn any_problem() -> impl Strategy<Value = (Problem, Caps)> {
    let channels = (1_usize..5, 1_usize..40, 1_usize..40);
    let axis = (1_usize..6, 1_usize..4, 1_usize..4, 0_usize..4, 0_usize..4, 1_usize..40);
    let rest = (1_usize..70, 1_usize..6, 0..SOURCES + 2, any::<bool>());
    let limits = (16_u32..28, 3_u32..17, 9_u32..20);
    (channels, [axis.clone(), axis], rest, limits).prop_filter_map(
        "the kernel fits the input",
        |((groups, c_in, c_out), axes, (batch, kernels, number, has_bias), (binding, grid, trips))| {
            let attention = source(number);
            let is_map = matches!(attention, AttentionSource::Map(_));
            let desc = ConvDesc::new(groups * c_in, groups * c_out, axes.map(|a| a.0))
                .groups(groups)
                .stride(axes.map(|a| a.1))
                .dilation(axes.map(|a| a.2))
                .padding_sides(axes.map(|a| [a.3, a.4]));
            let input = [1, axes[0].5, axes[1].5];
            let one = Problem { attention, has_bias, ..problem(&desc, batch, input) };
            one.geometry.output_size(input).ok()?;
            // A bank needs mixing weights.
            let kernels = if one.shares_kernel() && !is_map { 1 } else { kernels };
            let problem = Problem { geometry: desc.kernels(kernels).geometry().expect("valid"), ..one };
            let mut caps = Caps::webgpu_default();
            caps.max_storage_binding = 1 << binding;
            caps.max_workgroups = 1 << grid;
            caps.max_loop_trips = 1 << trips;
            Some((problem, caps))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is planned keeps every limit and covers the output exactly once; whatever is refused names a limit.
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
        let outputs = problem.geometry.c_out as u64 * plan.output().iter().product::<usize>() as u64;
        let mut next = 0;
        for dispatch in plan.dispatches() {
            prop_assert!(dispatch.grid.iter().all(|&n| n >= 1 && n <= caps.max_workgroups));
            let grid: u64 = dispatch.grid.iter().map(|&n| u64::from(n)).product();
            prop_assert!(grid >= u64::from(dispatch.workgroups));
            prop_assert!(dispatch.workgroup_size <= caps.max_invocations);
            prop_assert!(dispatch.workgroup_memory <= caps.max_workgroup_memory);
            for slice in &dispatch.slices {
                prop_assert!(slice.len > 0);
                prop_assert!(4 * slice.len + u64::from(caps.storage_alignment) <= caps.max_storage_binding);
                if slice.operand == Operand::Output {
                    // A sum that goes on where another dispatch ended adds to the same outputs.
                    let goes_on = dispatch.variant.consts.contains(&("CONTINUES", Const::Bool(true)));
                    prop_assert_eq!(slice.start + if goes_on { slice.len } else { 0 }, next);
                    next = slice.start + slice.len;
                }
            }
        }
        prop_assert_eq!(next, problem.batch as u64 * outputs);
        prop_assert!(!plan.to_string().is_empty());
    }
}
