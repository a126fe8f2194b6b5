//! Integer data: every partial sum is exact in f32, so that any order of summation gives the same
//! bits as the reference. This finds every index error, with no tolerance.

use dynconv::Algorithm;
use dynconv::layers::{Given, Map, Static};
use dynconv::problem::Layout;
use dynconv::problem::MapAxis;
use dynconv::reference::{self, LayerWeights, narrow, widen};
use dynconv::{
    Activation, BankConv2d, Bound, Context, ConvDesc, DynConv2d, Error, Layer, StaticConv2d, Tensor,
};
use dynconv_suite::truth::bank_rows;

use crate::common::{
    ACTIVATIONS, Case, Noise, assert_same_bits, cases_1d, cases_2d, cases_3d, context,
    limited_context, run, transposed_1d, transposed_2d, transposed_3d, upload, weights,
};

/// Attention in quarters, which are exact too.
fn quarters(noise: &mut Noise, len: usize) -> Vec<f32> {
    noise.integers(len, 4).into_iter().map(|v| v / 4.0).collect()
}

/// The truth rounded to f32, which changes nothing as long as every partial sum is exact.
fn exactly(truth: &[f64]) -> Vec<f32> {
    let largest = truth.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    assert!(
        largest > 0.0 && largest < f64::from(1 << 22),
        "the data must be exact and not nothing: {largest}"
    );
    narrow(truth)
}

/// The case's share of the kernels gives the reference's bits.
fn check<const D: usize>(context: &Context, case: &Case<D>) {
    check_with(context, case, &[false, true]);
}

/// The case's share of the kernels gives the reference's bits, without or with what can follow the
/// sum.
fn check_with<const D: usize>(context: &Context, case: &Case<D>, epilogues: &[bool]) {
    let mut noise = Noise::new(10);
    let x = noise.integers(case.input_len(), 4);
    let bank = noise.integers(case.kernels() * case.weights(), 3);
    let bias = noise.integers(case.kernels() * case.c_out(), 9);
    let attention = quarters(&mut noise, case.batch * case.kernels());
    let scale: Vec<f32> = noise.integers(case.c_out(), 2).iter().map(|v| v + 3.0).collect();
    let shift = noise.integers(case.c_out(), 5);
    for choice in case.common_choices() {
        for &epilogue in epilogues {
            let mut layer =
                Layer::<D, Given>::new(context, &case.desc, &bank, epilogue.then_some(&bias))
                    .expect("valid");
            let mut weights =
                LayerWeights { bank: bank_rows(&case.geometry(), &bank), ..Default::default() };
            if epilogue {
                layer =
                    layer.scale_shift(&scale, &shift).expect("valid").activation(Activation::Relu);
                weights.bias = Some(widen(&bias));
                weights.affine = Some([widen(&scale), widen(&shift)].concat());
            }
            let layer = layer.algorithm(choice);
            let plan = layer.plan(case.batch, case.size).expect("plans");
            let truth = exactly(
                &reference::layer(plan.problem(), &weights, &widen(&x), &widen(&attention)).y,
            );
            let y = layer.run(case.batch, case.size, &x, &attention).expect("runs");
            assert_same_bits(&format!("{case:?} {choice:?} epilogue {epilogue}"), &y, &truth);
        }
    }
}

#[test]
fn two_dimensions() {
    cases_2d().iter().for_each(|case| check(context(), case));
}

#[test]
fn one_and_three_dimensions() {
    cases_1d().iter().for_each(|case| check(context(), case));
    cases_3d().iter().for_each(|case| check(context(), case));
}

#[test]
fn transposed_convolutions() {
    transposed_1d().iter().for_each(|case| check_with(context(), case, &[true]));
    transposed_2d().iter().for_each(|case| check_with(context(), case, &[true]));
    transposed_3d().iter().for_each(|case| check_with(context(), case, &[true]));
}

/// `<conv(x), y> == <x, transposed conv(y)>`, both with the very same kernel data, exactly.
fn check_adjoint<const D: usize>(case: &Case<D>) {
    let case = case.single();
    let g = case.geometry();
    let of_axis = |values: [usize; 3]| -> [usize; D] { std::array::from_fn(|i| values[3 - D + i]) };
    let size = case.desc.output_size(case.size).expect("fits");
    // Input positions past the last window are the output padding of the way back.
    let extra = std::array::from_fn(|i| {
        let axis = 3 - D + i;
        let reach = (size[i] - 1) * g.stride[axis] + g.dilation[axis] * (g.kernel[axis] - 1) + 1;
        case.size[i] + g.padding[axis].iter().sum::<usize>() - reach
    });
    let back = ConvDesc::new(g.c_out, g.c_in, of_axis(g.kernel))
        .stride(of_axis(g.stride))
        .dilation(of_axis(g.dilation))
        .padding_sides(std::array::from_fn(|i| g.padding[3 - D + i]))
        .groups(g.groups)
        .transposed(extra);
    let back = Case { desc: back, batch: case.batch, size };
    assert_eq!(back.output_shape(), case.input_shape(), "{case:?}");

    let mut noise = Noise::new(13);
    let kernel = noise.integers(g.weights(), 3);
    let [x, y] = [case.input_len(), back.input_len()].map(|len| noise.integers(len, 4));
    let inner =
        |a: &[f32], b: &[f32]| -> f64 { widen(a).iter().zip(widen(b)).map(|(a, b)| a * b).sum() };
    let layer = |case: &Case<D>| {
        Layer::<D, Static>::new(context(), &case.desc, &kernel, None).expect("valid")
    };
    let there = inner(&layer(&case).run(case.batch, case.size, &x).expect("runs"), &y);
    for choice in back.common_choices() {
        let returned = layer(&back).algorithm(choice).run(back.batch, back.size, &y).expect("runs");
        assert_eq!(inner(&x, &returned), there, "{back:?} {choice:?}");
    }
}

#[test]
fn transposed_convolutions_are_adjoint() {
    cases_1d().iter().for_each(check_adjoint);
    cases_2d().iter().for_each(check_adjoint);
    cases_3d().iter().for_each(check_adjoint);
}

#[test]
fn same_padding_is_the_explicit_one() {
    let mut noise = Noise::new(14);
    for stride in 1..=3 {
        let descs = [
            ConvDesc::new(3, 9, [4, 3]).stride([stride; 2]).dilation([1, 2]),
            ConvDesc::new(4, 8, [2, 5]).stride([stride; 2]).groups(4),
            ConvDesc::new(3, 9, [1, 1]).stride([stride; 2]),
        ];
        for (desc, size) in
            descs.into_iter().flat_map(|desc| [[5, 8], [6, 7], [9, 10], [1, 2]].map(|s| (desc, s)))
        {
            let same = Case { desc: desc.padding_same(), batch: 2, size };
            let g = same.geometry();
            let sides = [1, 2].map(|axis| {
                let reach = (size[axis - 1].div_ceil(stride) - 1) * stride
                    + g.dilation[axis] * (g.kernel[axis] - 1)
                    + 1;
                let zeros = reach.saturating_sub(size[axis - 1]);
                [zeros / 2, zeros - zeros / 2]
            });
            let explicit = Case { desc: desc.padding_sides(sides), ..same };
            assert_eq!(
                same.desc.output_size(size).expect("fits"),
                size.map(|n| n.div_ceil(stride)),
                "{same:?}"
            );
            let x = noise.integers(same.input_len(), 4);
            let kernel = noise.integers(same.weights(), 3);
            for choice in explicit.common_choices() {
                let [found, expected] = [&same, &explicit].map(|case| {
                    let layer =
                        StaticConv2d::new(context(), &case.desc, &kernel, None).expect("valid");
                    layer.algorithm(choice).run(case.batch, size, &x).expect("runs")
                });
                assert_same_bits(&format!("{same:?} {choice:?}"), &found, &expected);
            }
        }
    }
}

const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

/// `[batch, channels, size]` in a layout.
fn arranged(layout: Layout, values: &[f32], [batch, channels]: [usize; 2]) -> Vec<f32> {
    let size = values.len() / (batch * channels);
    match layout {
        Layout::ChannelsFirst => values.to_vec(),
        Layout::ChannelsLast => (0..values.len())
            .map(|i| {
                values
                    [(i / (channels * size) * channels + i % channels) * size + i / channels % size]
            })
            .collect(),
    }
}

/// Shape of a tensor of a layout, from channels first.
fn arranged_shape(layout: Layout, shape: &[usize]) -> Vec<usize> {
    match layout {
        Layout::ChannelsFirst => shape.to_vec(),
        Layout::ChannelsLast => [&shape[..1], &shape[2..], &shape[1..2]].concat(),
    }
}

/// All four combinations of layouts give the same numbers, permuted. `bind` binds input, residual
/// and output.
fn check_layouts(
    what: &str,
    case: &Case<2>,
    bind: impl Fn([Layout; 2], [&Tensor; 3]) -> dynconv::Result<Bound>,
) {
    let mut noise = Noise::new(15);
    let [inputs, outputs] = [[case.batch, case.geometry().c_in], [case.batch, case.c_out()]];
    let x = noise.floats(case.input_len());
    let residual = noise.floats(case.output_shape().iter().product());
    let compute = |[input, output]: [Layout; 2]| {
        let [x_shape, y_shape] = [(input, case.input_shape()), (output, case.output_shape())]
            .map(|(layout, s)| arranged_shape(layout, &s));
        let x = upload(context(), &x_shape, &arranged(input, &x, inputs));
        let residual = upload(context(), &y_shape, &arranged(output, &residual, outputs));
        let y = Tensor::zeros(context(), &y_shape).expect("fits");
        run(context(), &bind([input, output], [&x, &residual, &y]).expect("binds"))
    };
    let first = compute([Layout::ChannelsFirst; 2]);
    for layouts in LAYOUTS.iter().flat_map(|&input| LAYOUTS.map(|output| [input, output])) {
        assert_same_bits(
            &format!("{what} {layouts:?}"),
            &compute(layouts),
            &arranged(layouts[1], &first, outputs),
        );
    }
}

#[test]
fn layouts_permute_and_change_no_bit() {
    for case in [cases_2d()[1], cases_2d()[9], cases_2d()[14], transposed_2d()[1]] {
        let g = case.geometry();
        let mut noise = Noise::new(16);
        let bank = noise.floats(g.kernels * g.weights());
        let attention =
            upload(context(), &[case.batch, g.kernels], &noise.floats(case.batch * g.kernels));
        let fixed = StaticConv2d::new(context(), &case.desc.kernels(1), &bank[..g.weights()], None)
            .expect("valid");
        let given = BankConv2d::new(context(), &case.desc, &bank, None).expect("valid");
        let own = weights::dy_cnn(&mut noise, &g, [false, true]);
        let own = DynConv2d::new(context(), &case.desc, &own, 4.0).expect("valid");
        for choice in case.common_choices() {
            let name = |kind| format!("{kind} {case:?} {choice:?}");
            let of = |[i, o]: [Layout; 2]| own.clone().algorithm(choice).layouts(i, o);
            check_layouts(&name("static"), &case, |[i, o], [x, _, y]| {
                fixed.clone().algorithm(choice).layouts(i, o).bind(x, y)
            });
            check_layouts(&name("given"), &case, |[i, o], [x, _, y]| {
                given.clone().algorithm(choice).layouts(i, o).bind(x, &attention, y)
            });
            check_layouts(&name("DY-CNN"), &case, |layouts, [x, _, y]| of(layouts).bind(x, y));
            // All kernels share their epilogue.
            if choice == Algorithm::ConvDirect {
                let add =
                    |layouts, [x, residual, y]: [&Tensor; 3]| of(layouts).bind_add(x, residual, y);
                check_layouts(&name("residual"), &case, add);
            }
        }
    }
}

/// A residual of its own for every output, and all else that can follow the sum.
fn check_residual(context: &Context, case: &Case<2>) {
    let mut noise = Noise::new(17);
    let kernel = noise.integers(case.weights(), 3);
    let bias = noise.integers(case.c_out(), 9);
    let [scale, shift] = [1, 5].map(|limit| noise.integers(case.c_out(), limit));
    let x = noise.integers(case.input_len(), 4);
    let residual = noise.integers(case.output_shape().iter().product(), 99);
    let layer = StaticConv2d::new(context, &case.desc, &kernel, Some(&bias)).expect("valid");
    let layer = layer.scale_shift(&scale, &shift).expect("valid").activation(Activation::Relu);
    let weights = LayerWeights {
        bank: widen(&kernel),
        bias: Some(widen(&bias)),
        affine: Some([widen(&scale), widen(&shift)].concat()),
        residual: Some(widen(&residual)),
        ..Default::default()
    };
    let plan = layer.plan(case.batch, case.size).expect("plans");
    let truth = exactly(&reference::layer(plan.problem(), &weights, &widen(&x), &[]).y);
    let x = upload(context, &case.input_shape(), &x);
    let residual = upload(context, &case.output_shape(), &residual);
    let y = Tensor::zeros(context, &case.output_shape()).expect("fits");
    for choice in case.common_choices() {
        let bound = layer.clone().algorithm(choice).bind_add(&x, &residual, &y).expect("binds");
        assert_same_bits(&format!("{case:?} {choice:?}"), &run(context, &bound), &truth);
    }
}

#[test]
fn a_residual_is_added_before_the_activation() {
    for case in [cases_2d()[1], cases_2d()[9], cases_2d()[13], cases_2d()[10]] {
        check_residual(context(), &case.single());
    }
}

#[test]
fn every_activation_follows_its_formula() {
    let x: Vec<f32> = (-2048_i16..=2048).map(|i| f32::from(i) / 256.0).collect();
    for activation in ACTIVATIONS {
        let layer = StaticConv2d::new(context(), &ConvDesc::new(1, 1, [1, 1]), &[1.0], None)
            .expect("valid");
        // All kernels share their epilogue; this one compiles fastest.
        let layer = layer.algorithm(Algorithm::ConvDirect);
        let y = layer.activation(activation).run(1, [1, x.len()], &x).expect("runs");
        for (&x, &y) in x.iter().zip(&y) {
            let truth = reference::activate(activation, x.into());
            // Near 0 the absolute figure decides (erf is good to 1.5e-7, and 1 + erf and 2 sigmoid
            // - 1 cancel), above 4 the relative one: a handful of roundings of the
            // value itself.
            let allowed = 2e-6_f64.max(4.0 * f64::from(f32::EPSILON) * truth.abs());
            let error = (f64::from(y) - truth).abs();
            assert!(error <= allowed, "{activation:?} of {x} is {y}, off by {error:e}");
        }
    }
}

/// Kernels that mix by a map give the reference's bits; the others say that they cannot.
fn check_map<const D: usize>(case: &Case<D>, axis: MapAxis, has_bias: bool) {
    let g = case.geometry();
    let mut noise = Noise::new(18);
    let x = noise.integers(case.input_len(), 4);
    let bank = noise.integers(g.kernels * g.weights(), 3);
    let bias = has_bias.then(|| noise.integers(g.kernels * g.c_out, 9));
    let size = case.desc.output_size(case.size).expect("fits");
    let places = match axis {
        MapAxis::All => size.to_vec(),
        MapAxis::One(axis) => vec![size[axis + D - 3]],
    };
    let map_shape = [&[case.batch, g.kernels], &places[..]].concat();
    let map = quarters(&mut noise, map_shape.iter().product());
    let weights = LayerWeights {
        bank: bank_rows(&case.geometry(), &bank),
        bias: bias.as_deref().map(widen),
        ..Default::default()
    };
    let layer =
        Layer::<D, Map>::new(context(), &case.desc, &bank, bias.as_deref(), axis).expect("valid");
    let layer = layer.activation(Activation::Relu);
    let plan = layer.plan(case.batch, case.size).expect("plans");
    let truth = exactly(&reference::layer(plan.problem(), &weights, &widen(&x), &widen(&map)).y);
    let x = upload(context(), &case.input_shape(), &x);
    let map = upload(context(), &map_shape, &map);
    let y = Tensor::zeros(context(), &case.output_shape()).expect("fits");
    for choice in case.common_choices() {
        let bound = layer.clone().algorithm(choice).bind(&x, &map, &y);
        let what = format!("{case:?} {axis:?} {choice:?}");
        if matches!(
            choice,
            Algorithm::ConvGemmShared
                | Algorithm::ConvDepthwise
                | Algorithm::ConvDepthwise3x3
                | Algorithm::ConvDepthwiseSimd8
                | Algorithm::ConvPointwise
                | Algorithm::Conv3x3Simd8
                | Algorithm::Conv3x3s2Simd8
                | Algorithm::ConvStripSimd8
        ) {
            let error = bound.expect_err(&what);
            assert!(matches!(error, Error::Unsupported { .. }), "{what}: {error}");
        } else {
            assert_same_bits(&what, &run(context(), &bound.expect("binds")), &truth);
        }
    }
}

#[test]
fn maps_mix_at_every_position() {
    for axis in [MapAxis::All, MapAxis::One(1), MapAxis::One(2)] {
        check_map(&cases_2d()[12], axis, true);
    }
    // Strides, pointwise, depthwise, more channels than a tile. A bias makes these variants slow to
    // compile, so one case has it.
    [5, 8, 13, 16].iter().for_each(|&i| check_map(&cases_2d()[i], MapAxis::All, false));
    check_map(&transposed_2d()[1], MapAxis::All, false);
    check_map(&cases_1d()[0], MapAxis::One(2), false);
    check_map(&cases_3d()[2], MapAxis::One(0), false);
}

#[test]
fn dispatches_folded_over_three_dimensions() {
    let context = limited_context(|limits| limits.max_compute_workgroups_per_dimension = 8);
    for case in [cases_2d()[0], cases_2d()[12], cases_2d()[13]] {
        let layer = Layer::<2, Given>::new(
            &context,
            &case.desc,
            &vec![0.0; case.kernels() * case.weights()],
            None,
        );
        let plan = layer
            .expect("valid")
            .algorithm(Algorithm::ConvDirect)
            .plan(case.batch, case.size)
            .expect("plans");
        assert!(plan.dispatches().iter().any(|d| d.grid[1] > 1), "{plan}");
        check(&context, &case);
    }
    let wide = Case {
        desc: ConvDesc::new(2, 9, [3, 3]).kernels(2).padding([1, 1]),
        batch: 3,
        size: [17, 31],
    };
    check(&context, &wide);
}

#[test]
fn batches_split_to_fit_the_binding_limit() {
    // Offsets of the parts are multiples of nothing, so bindings begin before their part.
    let context = limited_context(|limits| limits.max_storage_buffer_binding_size = 4096);
    let case = Case {
        desc: ConvDesc::new(5, 7, [3, 3]).kernels(2).padding([1, 1]),
        batch: 11,
        size: [5, 7],
    };
    let layer = Layer::<2, Given>::new(
        &context,
        &case.desc,
        &vec![0.0; case.kernels() * case.weights()],
        None,
    );
    let plan = layer.expect("valid").plan(case.batch, case.size).expect("plans");
    assert!(plan.samples_per_chunk() < 4 && plan.dispatches().len() > 6, "{plan}");
    check(&context, &case);
    check_residual(&context, &case.single());
}

#[test]
fn more_than_65535_workgroups() {
    // One output per invocation, 64 per workgroup: 65,600 workgroups and a few outputs.
    let context = context();
    let desc = ConvDesc::new(1, 1, [1, 1]);
    let size = [2050, 2050];
    let mut noise = Noise::new(3);
    let x = noise.integers(size[0] * size[1], 100);
    let layer = Layer::<2, Static>::new(context, &desc, &[3.0], Some(&[1.0]))
        .expect("valid")
        .algorithm(Algorithm::ConvDirect);
    let plan = layer.plan(1, size).expect("plans");
    assert!(plan.dispatches()[0].workgroups > 65_535, "{plan}");
    let y = layer.run(1, size, &x).expect("runs");
    let truth: Vec<f32> = x.iter().map(|v| 3.0 * v + 1.0).collect();
    assert_same_bits("pixels", &y, &truth);
}

#[test]
fn pooling_past_65535_trips() {
    // Some drivers end loops after 65,535 iterations: with one workgroup of 128 that is 8.4 million
    // elements.
    let context = context();
    let size = [3000, 2900];
    let x = vec![1.0; size[0] * size[1]];
    let input = upload(context, &[1, 1, size[0], size[1]], &x);
    let mean = Tensor::zeros(context, &[1, 1, 1, 1]).expect("fits");
    let bound = dynconv::layers::global_average_pool(context, &input, &mean).expect("binds");
    assert_same_bits("mean", &run(context, &bound), &[1.0]);
}
