//! Draws whole problems, and makes the smallest of one that fails.

use dynconv::Algorithm;
use dynconv::problem::{Layout, Sampling};
use dynconv::{Elem, Winograd};
use proptest::prelude::*;

use crate::laws::choices;
use crate::ops::Op;
use crate::spec::{ACTIVATIONS, FAMILIES, Family, Limits, Spec};

/// Multiplications of a problem at most, so that the reference takes no longer than the device.
const LARGEST: usize = 400_000;

/// Numbers of one axis.
#[derive(Clone, Copy, Debug)]
struct Axis {
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    padding: [usize; 2],
    output_padding: usize,
}

fn axis() -> impl Strategy<Value = Axis> {
    let padding = [0..4_usize, 0..4_usize];
    (
        1..14_usize,
        1..6_usize,
        prop_oneof![3 => Just(1_usize), 1 => 2..4_usize],
        prop_oneof![3 => Just(1_usize), 1 => 2..4_usize],
        padding,
        0..3_usize,
    )
        .prop_map(|(input, kernel, stride, dilation, padding, output_padding)| Axis {
            input,
            kernel,
            stride,
            dilation,
            padding,
            output_padding,
        })
}

/// What beside the axes decides a problem.
#[derive(Clone, Debug)]
struct Rest {
    family: Family,
    batch: usize,
    groups: usize,
    /// Channels of a group.
    channels: [usize; 2],
    kernels: usize,
    is_transposed: bool,
    winograd: Option<Winograd>,
    conv: prop::sample::Index,
    activation: usize,
    extras: [bool; 3],
    layouts: [bool; 2],
    elems: [Elem; 3],
    limits: Limits,
    offset: usize,
    seed: u64,
}

fn rest() -> impl Strategy<Value = Rest> {
    let activation = prop_oneof![2 => Just(0_usize), 1 => 0..ACTIVATIONS.len()];
    let wide = prop_oneof![4 => 1..12_usize, 2 => 12..40_usize, 1 => 60..72_usize];
    let groups = prop_oneof![2 => Just(1_usize), 1 => 2..8_usize];
    let limits =
        prop_oneof![4 => Just(Limits::Device), 1 => Just(Limits::Tight), 1 => Just(Limits::Short)];
    let shape = (
        prop::sample::select(FAMILIES.map(|(_, family)| family).to_vec()),
        1..6_usize,
        groups,
        1..12_usize,
        wide,
        1..6_usize,
    );
    let winograd =
        prop_oneof![8 => Just(None), 1 => Just(Some(Winograd::F2)), 1 => Just(Some(Winograd::F4))];
    let options = (
        prop::bool::weighted(0.2),
        winograd,
        any::<prop::sample::Index>(),
        activation,
        any::<[bool; 3]>(),
    );
    let storage = (
        prop::array::uniform2(prop::bool::weighted(0.25)),
        elems(),
        limits,
        0..10_usize,
        1..1_000_000_u64,
    );
    (shape, options, storage).prop_map(
        |(
            (family, batch, groups, c_in, c_out, kernels),
            (is_transposed, winograd, conv, activation, extras),
            (layouts, elems, limits, offset, seed),
        )| Rest {
            family,
            batch,
            groups,
            channels: [c_in, c_out],
            kernels,
            is_transposed,
            winograd,
            conv,
            activation,
            extras,
            layouts,
            elems,
            limits,
            offset,
            seed,
        },
    )
}

fn elems() -> impl Strategy<Value = [Elem; 3]> {
    let tensor =
        || prop_oneof![3 => Just(Elem::F32), 1 => Just(Elem::F16Storage), 1 => Just(Elem::F16)];
    let bank = prop_oneof![
        2 => Just(Elem::F32),
        1 => Just(Elem::F16Storage),
        1 => Just(Elem::Bf16Storage),
    ];
    prop_oneof![
        3 => Just([Elem::F32; 3]),
        1 => (tensor(), tensor(), bank).prop_map(|(input, output, bank)| [input, output, bank]),
    ]
}

/// Problems of every kind. What a kind of layer cannot have is left out.
pub fn specs() -> impl Strategy<Value = Spec> {
    let axes = prop_oneof![
        1 => prop::collection::vec(axis(), 1),
        5 => prop::collection::vec(axis(), 2),
        1 => prop::collection::vec(axis(), 3),
    ];
    (axes, rest()).prop_filter_map("is no problem", |(axes, rest)| spec(axes, rest))
}

fn spec(axes: Vec<Axis>, rest: Rest) -> Option<Spec> {
    // Minimal filtering takes kernels from a bank in f32.
    let can_filter =
        matches!(rest.family, Family::Static | Family::Bank | Family::DyCnn | Family::CondConv);
    let winograd =
        rest.winograd.filter(|_| can_filter && !rest.is_transposed && rest.elems[2] == Elem::F32);
    let axes = fitted(axes, rest.family, winograd.is_some());
    let groups = rest.groups;
    // Many groups of many channels would be more than the reference can do.
    let per_group = |channels: usize| channels.div_ceil(groups).max(1) * groups;
    let c_in = if rest.channels[0] == 1 { groups } else { per_group(rest.channels[0]) };
    let channels = [c_in, per_group(rest.channels[1])];
    let (groups, channels) = match rest.family {
        Family::Op(Op::Concat) => (1, [c_in, c_in + rest.channels[1]]),
        Family::Op(Op::Gru) if groups > 2 => (1, channels),
        family if family.has_channel_groups() => (channels[1], [channels[1]; 2]),
        _ => (groups, channels),
    };
    let list = |of: fn(&Axis) -> usize| axes.iter().map(of).collect::<Vec<_>>();
    let mut spec =
        Spec::new(rest.family, rest.batch, channels, &list(|a| a.input), &list(|a| a.kernel));
    spec.stride = list(|a| a.stride);
    spec.dilation = list(|a| a.dilation);
    spec.padding = axes.iter().map(|a| a.padding).collect();
    spec.groups = groups;
    spec.kernels = if rest.family.has_one_kernel() { 1 } else { rest.kernels };
    let is_modulated = matches!(rest.family, Family::Modulated | Family::Styled);
    let may_transpose = is_modulated
        || !rest.family.is_chain()
            && !rest.family.has_no_kernel()
            && rest.family != Family::Warehouse;
    if rest.is_transposed && may_transpose {
        // Output padding is smaller than stride or dilation.
        spec.transposed = Some(list(|a| a.output_padding.min(a.stride.max(a.dilation) - 1)));
    }
    let [bias, affine, residual] = rest.extras;
    spec.bias = bias && rest.family.takes_bias();
    spec.affine = affine && rest.family.takes_affine();
    if rest.family.takes_activation() {
        spec.activation = ACTIVATIONS[rest.activation].1;
    }
    if rest.family.takes_residual() {
        spec.residual = residual;
        spec.elems = rest.elems;
        spec.layouts = rest
            .layouts
            .map(|last| if last { Layout::ChannelsLast } else { Layout::ChannelsFirst });
    }
    if let Family::Op(Op::Resample(Sampling::Nearest | Sampling::Linear)) = rest.family {
        spec.transposed = Some(vec![0; axes.len()]);
    }
    if !rest.family.is_chain() && !rest.family.has_no_kernel() {
        spec.limits = rest.limits;
    }
    if rest.family == Family::Warehouse {
        spec.elems[2] = Elem::F32;
    }
    spec.offset = rest.offset;
    spec.seed = rest.seed;
    spec.winograd = winograd;
    let all = [&[Algorithm::Auto], &choices(&spec)[..]].concat();
    if rest.family.takes_options() {
        spec.conv = all[rest.conv.index(all.len())];
    }
    is_possible(&spec).then_some(spec)
}

/// Axes as a kind of layer needs them.
fn fitted(mut axes: Vec<Axis>, family: Family, is_filtered: bool) -> Vec<Axis> {
    let has_two = family.is_chain() || is_filtered || family == Family::Op(Op::GateAxes);
    let first = axes[0];
    if has_two && axes.len() != 2 {
        axes.resize(2, first);
    }
    if family == Family::Op(Op::Gru) {
        axes.truncate(1);
    }
    for axis in &mut axes {
        if is_filtered {
            [axis.kernel, axis.stride, axis.dilation] = [3, 1, 1];
        }
        if family == Family::PixelMix {
            axis.stride = 1;
        }
        if family == Family::Dcd {
            // Some pool to 2 x 2.
            axis.input = axis.input.max(2);
        }
        if matches!(family, Family::PixelMix | Family::Dcd) {
            // Its output has the size of the input, or of every so manieth of it.
            let reach = axis.dilation * (axis.kernel - 1);
            axis.padding = [reach / 2, reach.div_ceil(2)];
        }
        if family == Family::Fdy {
            axis.dilation = 1;
        }
        if let Family::Pool(_) = family {
            // Every window covers an input.
            axis.dilation = 1;
            axis.padding = axis.padding.map(|side| side.min(axis.kernel - 1));
        }
        if let Family::Op(op) = family {
            fit_to(op, axis);
        }
    }
    axes
}

/// An axis as a layer that convolves nothing needs it.
fn fit_to(op: Op, axis: &mut Axis) {
    let (padding, factor) = (axis.padding, axis.stride);
    ([axis.kernel, axis.stride, axis.dilation], axis.padding) = ([1; 3], [0; 2]);
    match op {
        Op::Resample(Sampling::Nearest | Sampling::Linear) => {
            [axis.kernel, axis.stride] = [factor; 2];
        }
        Op::Resample(Sampling::Reflection) => {
            axis.padding = padding.map(|side| side.min(axis.input - 1));
        }
        Op::Resample(Sampling::Edge) => axis.padding = padding,
        Op::WeightedMean => axis.kernel = axis.input,
        _ => {}
    }
}

fn is_possible(spec: &Spec) -> bool {
    let Ok(g) = spec.geometry() else { return false };
    let Ok(output) = g.output_size(spec.input3()) else { return false };
    let mixed = if spec.family.mixes_positions() { spec.kernels } else { 1 };
    let outputs = spec.batch * output.iter().product::<usize>();
    let fits_map = match spec.family {
        Family::Map(dynconv::problem::MapAxis::One(axis)) => axis + spec.input.len() >= 3,
        _ => true,
    };
    fits_map && outputs * g.weights() * mixed <= LARGEST && outputs * g.c_out <= 50_000
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngSeed, TestRunner};

    use super::*;

    fn drawn(count: usize) -> Vec<Spec> {
        let mut runner =
            TestRunner::new(Config { rng_seed: RngSeed::Fixed(5), ..Config::default() });
        (0..count).map(|_| specs().new_tree(&mut runner).expect("draws").current()).collect()
    }

    #[test]
    fn every_option_is_drawn() {
        let all = drawn(6000);
        let distinct =
            |of: &dyn Fn(&Spec) -> String| all.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!(distinct(&|s| format!("{:?}", s.family)), FAMILIES.len());
        // Some kernels take little of what is drawn.
        let rare = drawn(200_000);
        let missing = Algorithm::ALL
            .iter()
            .copied()
            .filter(|conv| !rare.iter().any(|spec| spec.conv == *conv));
        // It splits more channels than are drawn; the catalogue has it.
        assert_eq!(missing.collect::<Vec<_>>(), [Algorithm::SplitK]);
        assert_eq!(distinct(&|s| format!("{:?}", s.activation)), ACTIVATIONS.len());
        assert_eq!(distinct(&|s| format!("{:?}", s.limits)), 3);
        assert_eq!(distinct(&|s| format!("{:?}", s.elems[2])), 3);
        assert_eq!(distinct(&|s| format!("{}", s.input.len())), 3);
        assert_eq!(distinct(&|s| format!("{:?}", s.layouts)), 4);
        assert_eq!(distinct(&|s| format!("{}", s.transposed.is_some())), 2);
        assert_eq!(distinct(&|s| format!("{:?}", s.winograd)), 3);
    }

    #[test]
    fn what_is_drawn_can_be_said_and_read() {
        for spec in drawn(300) {
            assert_eq!(spec.to_string().parse::<Spec>().expect("parses"), spec);
        }
    }
}
