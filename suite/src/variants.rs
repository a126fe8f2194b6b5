//! Every variant that plans contain.
#![allow(clippy::missing_panics_doc, reason = "a case that does not plan is a slip in the suite")]

use std::collections::{BTreeSet, HashSet};

use dynconv::Algorithm;
use dynconv::device::MatrixShape;
use dynconv::kernels::{Dispatch, Variant};
use dynconv::layers::{
    AnyLayer, Gains, Gate, Gru, GruWeights, LayerNorm, Resample, WeightedMean, WindowPool,
};
use dynconv::problem::{AttentionSource, Branch, MapAxis, Mixing, Parts, Problem};
use dynconv::problem::{Cells, Epilogue, Geometry, Layout, Pooling, Sampling, WeightOrder};
use dynconv::program::Plan;
use dynconv::{
    Activation, Caps, Context, ConvDesc, Dcd2d, Elem, FdyConv2d, ModulatedConv2d, PixelMix2d,
    Tensor, Winograd, wgpu,
};

use crate::cases::{self, ACTIVATIONS, Case};
use crate::matrices;
use crate::noise::Noise;
use crate::weights;

/// A device that validates every call and computes nothing.
#[must_use]
pub fn noop() -> Context {
    // So that shaders of every kind can be planned; nothing is computed.
    let required_features = wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
    let experimental_features = matrices::experimental();
    let descriptor =
        wgpu::DeviceDescriptor { required_features, experimental_features, ..Default::default() };
    let (device, queue) = wgpu::Device::noop(&descriptor);
    Context::from_wgpu(device, queue)
}

/// A device that computes nothing and plans as that of `context` does.
#[must_use]
pub fn noop_like(context: &Context) -> Context {
    noop().with_caps(context.caps().clone())
}

/// A software adapter with the default limits, subgroups of eight and 64-bit integers.
#[must_use]
pub fn with_lanes() -> Caps {
    let device_type = wgpu::DeviceType::Cpu;
    Caps {
        device_type,
        subgroups: true,
        subgroup_size: [8, 8],
        int64: true,
        ..Caps::webgpu_default()
    }
}

/// A GPU with the default limits, and cooperative matrices of this size in f32 and in f16.
#[must_use]
pub fn with_matrices(size: u32) -> Caps {
    let matrices = [Elem::F32, Elem::F16].map(|operand| MatrixShape { size, operand }).to_vec();
    Caps { subgroups: true, subgroup_size: [32, 32], f16: true, matrices, ..Caps::webgpu_default() }
}

/// Dispatches of all variants that the test cases give, each variant once.
#[must_use]
pub fn variants() -> Vec<Dispatch> {
    variants_for(&Caps::webgpu_default())
}

/// Dispatches of the variants that only devices with lanes run, each variant once: the kernels that
/// need lanes or load several elements at once, in all they can be; the others, with their weights
/// in blocks, in a few.
#[must_use]
pub fn lane_variants() -> Vec<Dispatch> {
    let caps = with_lanes();
    let is_of_lanes = |variant: &Variant| {
        variant.kernel.def().lanes || variant.consts.iter().any(|(name, _)| *name == "X_WIDTH")
    };
    let of_lanes =
        variants_for(&caps).into_iter().filter(|dispatch| is_of_lanes(&dispatch.variant));
    let mut seen: HashSet<_> = variants().into_iter().map(|dispatch| dispatch.variant).collect();
    let all = of_lanes.chain(elem_variants_for(&caps));
    all.filter(|dispatch| seen.insert(dispatch.variant.clone())).collect()
}

/// Dispatches of the variants that need cooperative matrices, each variant once: small matrices in
/// all element types, large ones in all cases too.
#[must_use]
pub fn matrix_variants() -> Vec<Dispatch> {
    let [small, large] = [8, 16].map(with_matrices);
    let all = elem_variants_for(&small)
        .into_iter()
        .chain(variants_for(&large))
        .chain(elem_variants_for(&large));
    all.filter(|dispatch| dispatch.variant.kernel.def().matrices).collect()
}

fn variants_for(caps: &Caps) -> Vec<Dispatch> {
    let mut problems = Vec::new();
    let push = |problems: &mut Vec<Problem>| {
        cases::cases_2d()
            .iter()
            .chain(&cases::transposed_2d())
            .for_each(|case| push_problems(case, caps, problems));
        cases::cases_1d()
            .iter()
            .chain(&cases::transposed_1d())
            .for_each(|case| push_problems(case, caps, problems));
        cases::cases_3d()
            .iter()
            .chain(&cases::transposed_3d())
            .for_each(|case| push_problems(case, caps, problems));
    };
    push(&mut problems);
    let plan = |problem: &Problem| Plan::new(problem, caps).expect("default limits are enough");
    // Where loops end early, channels are summed in parts; some problems cannot be cut small
    // enough.
    let short = Caps { max_loop_iterations: 300, ..caps.clone() };
    let in_parts = problems.iter().filter_map(|problem| Plan::new(problem, &short).ok());
    let mut seen = HashSet::new();
    let all =
        problems.iter().map(plan).chain(in_parts).flat_map(Plan::into_dispatches).chain(chained());
    let all = all.chain(pooled(Elem::F32)).chain(stepped(Elem::F32)).chain(in_f32());
    all.filter(|dispatch| seen.insert(dispatch.variant.clone())).collect()
}

/// Dispatches in all element types of input, output and bank, by every kernel that has such, each
/// variant once. They need a device whose shaders compute in f16.
#[must_use]
pub fn elem_variants() -> Vec<Dispatch> {
    elem_variants_for(&Caps { f16: true, ..Caps::webgpu_default() })
}

fn elem_variants_for(caps: &Caps) -> Vec<Dispatch> {
    let caps = &Caps { f16: true, ..caps.clone() };
    let elems = [Elem::F32, Elem::F16Storage, Elem::F16];
    let mut dispatches = Vec::new();
    for case in elem_cases() {
        for bank in [Elem::F32, Elem::F16Storage, Elem::Bf16Storage] {
            let geometry = case.desc.bank_elem(bank).geometry().expect("valid");
            let plain = Problem::new(geometry, 2, case.input());
            // Given attention, and attention of a branch, which pools the input.
            for (attention, _) in attentions(&geometry).into_iter().take(2) {
                for (x, y) in elems.into_iter().flat_map(|x| elems.map(|y| (x, y))) {
                    for algorithm in case.all_choices(caps) {
                        let order = order(&geometry, &attention, caps);
                        let problem =
                            Problem { attention, elems: [x, y], algorithm, order, ..plain };
                        dispatches
                            .extend(Plan::new(&problem, caps).expect("plans").into_dispatches());
                    }
                }
            }
        }
    }
    for (x, y) in elems.into_iter().flat_map(|x| elems.map(|y| (x, y))) {
        let filtered = ConvDesc::new(5, 9, [3, 3])
            .padding([1, 1])
            .winograd(Winograd::F2)
            .geometry()
            .expect("valid");
        let problem = Problem { elems: [x, y], ..Problem::new(filtered, 2, [1, 7, 9]) };
        dispatches.extend(Plan::new(&problem, caps).expect("plans").into_dispatches());
    }
    dispatches.extend(elems.into_iter().flat_map(pooled));
    dispatches.extend(elems.into_iter().flat_map(stepped));
    let mut seen = HashSet::new();
    dispatches.retain(|dispatch| seen.insert(dispatch.variant.clone()));
    dispatches
}

/// A dense case, and the widest that each kernel computes.
fn elem_cases() -> Vec<Case<2>> {
    let cases = cases::cases_2d();
    let widest = |algorithm: &Algorithm| {
        let is_able =
            |case: &&Case<2>| cases::able(&case.geometry(), case.input()).contains(algorithm);
        cases.iter().enumerate().filter(|(_, case)| is_able(case)).max_by_key(|(_, c)| c.c_out())
    };
    let numbers = Algorithm::ALL.iter().filter_map(widest).map(|(number, _)| number);
    let numbers: BTreeSet<usize> = numbers.chain([0]).collect();
    numbers.into_iter().map(|number| cases[number]).collect()
}

/// Every source of attention that a case allows, by every kernel, plain and with all that can
/// follow the sum.
fn push_problems<const D: usize>(case: &Case<D>, caps: &Caps, problems: &mut Vec<Problem>) {
    let plain = Problem::new(case.geometry(), 3, case.input());
    for (attention, is_map) in attentions(&case.geometry()) {
        for algorithm in case.all_choices(caps) {
            let order = order(&plain.geometry, &attention, caps);
            let problem = Problem { attention, algorithm, order, ..plain };
            if is_map && algorithm.accepts(&problem).is_err() {
                continue;
            }
            let epilogue = Epilogue {
                affine: true,
                residual: true,
                activation: ACTIVATIONS[problems.len() % ACTIVATIONS.len()],
            };
            let [first, last] = [Layout::ChannelsFirst, Layout::ChannelsLast];
            problems.push(problem);
            problems.push(Problem { has_bias: true, layouts: [last, first], epilogue, ..problem });
            problems.push(Problem { layouts: [first, last], ..problem });
        }
    }
    push_filtered(&plain, caps, problems);
}

/// Minimal filtering, where it can be.
fn push_filtered(plain: &Problem, caps: &Caps, problems: &mut Vec<Problem>) {
    let mix = Parts { mix: true, ..Parts::default() };
    for winograd in
        [Winograd::F2, Winograd::F4].into_iter().filter(|_| plain.geometry.is_plain_3x3())
    {
        let geometry = Geometry { winograd: Some(winograd), ..plain.geometry };
        let attention = AttentionSource::Given(mix);
        let problem =
            Problem { geometry, attention, order: order(&geometry, &attention, caps), ..*plain };
        let epilogue = Epilogue { affine: true, residual: true, activation: ACTIVATIONS[1] };
        let layouts = [Layout::ChannelsLast; 2];
        problems.push(problem);
        problems.push(Problem { has_bias: true, layouts, epilogue, ..problem });
        if geometry.kernels == 1 {
            let gains = Parts { channel: true, filter: true, ..Parts::default() };
            problems.push(Problem { attention: AttentionSource::Given(gains), ..problem });
        }
    }
}

/// The order that layers keep their weights in.
fn order(geometry: &Geometry, attention: &AttentionSource, caps: &Caps) -> WeightOrder {
    let is_bank = !matches!(
        attention,
        AttentionSource::SampleWeights
            | AttentionSource::Branch(Branch { mixing: Mixing::Cells(_), .. })
    );
    if is_bank { WeightOrder::of_bank(geometry, caps) } else { WeightOrder::Plain }
}

/// Sources of attention for a geometry, and whether each is a map.
#[must_use]
pub fn attentions(g: &Geometry) -> Vec<(AttentionSource, bool)> {
    let branch = |hidden, parts, mixing| {
        (AttentionSource::Branch(Branch { context: None, hidden, parts, mixing }), false)
    };
    let mix = Parts { mix: true, ..Parts::default() };
    let gains = Parts { channel: true, filter: true, ..Parts::default() };
    let mut all = vec![
        (AttentionSource::Given(mix), false),
        branch(Some(16), Parts { spatial: true, mix: true, ..gains }, Mixing::Softmax),
        branch(Some(16), mix, Mixing::Softmax),
        branch(None, mix, Mixing::Sigmoid),
        (AttentionSource::SampleWeights, false),
        (AttentionSource::Map(MapAxis::All), true),
    ];
    all.extend([0, 1, 2].map(|axis| (AttentionSource::Map(MapAxis::One(axis)), true)));
    if g.kernels == 1 {
        let whole = Cells { count: 5, c_out: g.c_out, c_in: g.c_in / g.groups, taps: g.taps() };
        all.push((AttentionSource::Static, false));
        all.push((AttentionSource::Given(gains), false));
        all.push(branch(Some(3), gains, Mixing::Softmax));
        all.push(branch(Some(3), mix, Mixing::Cells(whole)));
        all.push(branch(
            Some(3),
            mix,
            Mixing::Cells(Cells { count: 4, c_out: 1, c_in: 1, taps: 1 }),
        ));
    }
    all
}

/// Dispatches of pools, in every layout.
fn pooled(elem: Elem) -> Vec<Dispatch> {
    let caps = Caps { f16: true, ..Caps::webgpu_default() };
    let context = noop().with_caps(caps);
    let windows = ConvDesc::new(5, 5, [3, 2]).groups(5).stride([2, 1]).padding([1, 0]);
    let [first, last] = [Layout::ChannelsFirst, Layout::ChannelsLast];
    let rules = [
        (Pooling::Max, [first, first], [2, 5, 7, 9]),
        (Pooling::Mean, [last, first], [2, 7, 9, 5]),
        (Pooling::MeanWithPadding, [last, last], [2, 7, 9, 5]),
    ];
    let steps = rules.into_iter().flat_map(|(pooling, [input, output], shape)| {
        let pool = WindowPool::new(&context, &windows, pooling).expect("valid");
        let program = pool.layouts(input, output).program(&shape, elem).expect("plans");
        program.steps().to_vec()
    });
    steps.collect()
}

/// Dispatches of gates, norms and maps at other places, in several layouts.
fn stepped(elem: Elem) -> Vec<Dispatch> {
    let caps = Caps { f16: true, ..Caps::webgpu_default() };
    let context = &noop().with_caps(caps);
    let [first, last] = [Layout::ChannelsFirst, Layout::ChannelsLast];
    let act = Activation::HardSwish;
    let gate = |gains| Gate::<3>::new(context, 4, gains).expect("valid");
    let all_gains = [Gains::None, Gains::Channels, Gains::Positions, Gains::Axis(1)];
    let mut layers: Vec<Box<dyn AnyLayer>> = Vec::new();
    for (gains, layouts) in all_gains.into_iter().zip([[first, first], [first, last]].repeat(2)) {
        layers.push(Box::new(gate(gains).activation(act).layouts(layouts[0], layouts[1])));
    }
    for axes in [[1, 2], [2, 1], [2, 0]] {
        layers.push(Box::new(gate(Gains::Axes(axes)).dynamic_relu()));
    }
    let norm = LayerNorm::<3>::new(context, &[1.0; 4], &[0.5; 4], 1e-5).expect("valid");
    layers.push(Box::new(norm.activation(act).layouts(first, last)));
    for sampling in [Sampling::Nearest, Sampling::Linear] {
        let layer = Resample::<3>::enlarge(context, 4, [1, 2, 3], sampling).expect("valid");
        layers.push(Box::new(layer.layouts(first, last)));
    }
    for sampling in [Sampling::Reflection, Sampling::Edge] {
        let layer = Resample::<3>::border(context, 4, [[1, 0], [2, 1], [0, 1]], sampling);
        layers.push(Box::new(layer.expect("valid")));
    }
    let steps = layers
        .iter()
        .flat_map(|layer| layer.program(&[2, 4, 3, 5, 7], elem).expect("plans").steps().to_vec());
    steps.collect()
}

/// Dispatches of layers whose tensors are all f32.
fn in_f32() -> Vec<Dispatch> {
    let context = &noop();
    let mean = WeightedMean::new(context, 0.5).expect("valid");
    let weights = |hidden: usize| GruWeights {
        input: vec![0.5; 3 * hidden * 4],
        state: vec![0.5; 3 * hidden * hidden],
        input_bias: vec![0.5; 3 * hidden],
        state_bias: vec![0.5; 3 * hidden],
    };
    let gru = Gru::new(context, 4, 70, &[weights(70), weights(70)]).expect("valid");
    let layers: [Box<dyn AnyLayer>; 2] = [Box::new(mean), Box::new(gru)];
    let steps = layers
        .iter()
        .flat_map(|layer| layer.program(&[2, 4, 9], Elem::F32).expect("plans").steps().to_vec());
    steps.collect()
}

/// Dispatches of the layers that are several plans in a row.
fn chained() -> Vec<Dispatch> {
    let context = noop();
    let desc = ConvDesc::new(6, 9, [3, 3]).kernels(3).padding([1, 1]);
    let g = desc.geometry().expect("valid");
    let mut noise = Noise::new(1);
    let zeros = |shape: &[usize]| Tensor::zeros(&context, shape).expect("fits");
    let [x, y, style] = [zeros(&[2, 6, 5, 7]), zeros(&[2, 9, 5, 7]), zeros(&[2, 6])];
    let pixel = PixelMix2d::new(&context, &desc, &weights::pixel_mix(&mut noise, &g, true), 1.0)
        .expect("valid");
    let frequency =
        FdyConv2d::new(&context, &desc, &weights::fdy(&mut noise, &g, true), 1.0).expect("valid");
    let modulated = [false, true].map(|demodulate| {
        let layer = ModulatedConv2d::new(
            &context,
            &desc.kernels(1),
            &noise.floats(g.weights()),
            demodulate,
        );
        layer.expect("valid").bind(&x, &style, &y)
    });
    let fusions = [1, 2].map(|cells| {
        let weights = weights::dcd(&mut noise, &g, cells);
        Dcd2d::new(&context, &desc.kernels(1), &weights).expect("valid").bind(&x, &y)
    });
    let mixed = [pixel.bind(&x, &y), frequency.bind(&x, &y)];
    let bounds = mixed.into_iter().chain(modulated).chain(fusions);
    bounds
        .flat_map(|bound| {
            bound.expect("binds").steps().iter().map(|s| s.dispatch().clone()).collect::<Vec<_>>()
        })
        .collect()
}
