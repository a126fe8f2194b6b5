//! What no problem on a line says: whole ranges of numbers, sizes past 65,535, layers beside
//! others. All else about sums is a law of the suite.

use dynconv::layers::{Routing, Static};
use dynconv::problem::{Geometry, Problem};
use dynconv::reference::{self, LayerWeights, widen};
use dynconv::{
    Algorithm, BankConv2d, CondConv2d, CondConvWeights, ConvDesc, Elem, Layer, PixelMix2d,
    StaticConv2d, Tensor,
};

use crate::common::{
    ACTIVATIONS, Case, Noise, assert_same_bits, cases_2d, context, read, run, upload, weights,
};

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
            for choice in [Algorithm::Auto, Algorithm::ConvDirect, Algorithm::ConvTiled] {
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

#[test]
fn every_f16_survives_a_round_trip() {
    // All 65,536 patterns but the not-a-numbers, through upload, an identity convolution and
    // readback.
    let values: Vec<f32> = (0..=u16::MAX)
        .map(|bits| half::f16::from_bits(bits).to_f32())
        .filter(|v| v.is_finite())
        .collect();
    let desc = ConvDesc::new(1, 1, [1, 1]);
    let layer = StaticConv2d::new(context(), &desc, &[1.0], None).expect("valid");
    for elem in [Elem::F16Storage, Elem::F16] {
        let x =
            Tensor::upload_in(context(), &[1, 1, 1, values.len()], &values, elem).expect("uploads");
        let y = layer.forward(&x).expect("runs").read_blocking(context()).expect("reads");
        for (y, x) in y.iter().zip(&values) {
            // Subnormal halves may be flushed to zero; the sign of zero may be lost.
            assert!(y == x || (x.abs() < 6.2e-5 && *y == 0.0), "{elem:?}: {x} came back as {y}");
        }
    }
}

#[test]
fn f16_stores_saturate() {
    let desc = ConvDesc::new(1, 1, [1, 1]);
    let layer = StaticConv2d::new(context(), &desc, &[40_000.0], None).expect("valid");
    for elem in [Elem::F16Storage, Elem::F16] {
        let x =
            Tensor::upload_in(context(), &[1, 1, 1, 3], &[3.0, -3.0, 1.0], elem).expect("uploads");
        let y = layer.forward(&x).expect("runs").read_blocking(context()).expect("reads");
        assert_same_bits(&format!("{elem:?}"), &y, &[65_504.0, -65_504.0, 40_000.0]);
    }
}

#[test]
fn a_modulated_convolution_takes_styles_that_f16_weights_would_not() {
    // Weights times styles of 60,000 overflow f16; the published remedy divides both by their
    // largest. Here the product is never stored, and demodulation brings the sum back before it
    // is.
    let desc = ConvDesc::new(6, 5, [3, 3]).padding([1, 1]);
    let mut noise = Noise::new(65);
    let kernel: Vec<f32> = noise.floats(5 * 6 * 9).iter().map(|v| 8.0 * v).collect();
    let style: Vec<f32> = noise.floats(2 * 6).iter().map(|v| 60_000.0 * (v + 1.5)).collect();
    let values = noise.floats(2 * 6 * 7 * 7);
    let layer = dynconv::ModulatedConv2d::new(context(), &desc, &kernel, true).expect("valid");
    let style = upload(context(), &[2, 6], &style);
    let run = |elem| {
        let x = Tensor::upload_in(context(), &[2, 6, 7, 7], &values, elem).expect("uploads");
        layer.forward(&x, &style).expect("runs").read_blocking(context()).expect("reads")
    };
    let truth = run(Elem::F32);
    let largest = truth.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    assert!(largest > 0.1 && largest < 100.0, "{largest}");
    for elem in [Elem::F16Storage, Elem::F16] {
        for (y, t) in run(elem).iter().zip(&truth) {
            assert!((y - t).abs() <= 5e-3 * largest, "{elem:?}: {y} is not {t}");
        }
    }
}

const U: f64 = 1.0 / (1 << 24) as f64;

/// A sum of m products in f32, in any order, is off by at most `gamma_m * sum |a_i| |b_i|` (Higham,
/// "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.1).
fn gamma(m: usize) -> f64 {
    let mu = m as f64 * U;
    mu / (1.0 - mu)
}

/// Every element within `factor` times its own bound.
fn assert_within(what: &str, y: &[f32], truth: &[f64], factor: f64, bound: &[f64]) {
    assert_eq!(y.len(), truth.len(), "{what}: lengths");
    for (i, ((&y, truth), bound)) in y.iter().zip(truth).zip(bound).enumerate() {
        let (error, bound) = ((f64::from(y) - truth).abs(), factor * bound);
        assert!(error <= bound, "{what} element {i}: {y} is off by {error:e}, bound {bound:e}");
    }
}

#[test]
fn one_routing_for_two_bank_convolutions_is_two_cond_convs() {
    let mut noise = Noise::new(410);
    for case in [cases_2d()[1], cases_2d()[9], cases_2d()[13]] {
        let g = case.geometry();
        let first = weights::cond_conv(&mut noise, &g, true);
        let second = CondConvWeights { bank: noise.floats(first.bank.len()), ..first.clone() };
        let x = upload(context(), &case.input_shape(), &noise.floats(case.input_len()));
        let vector = Tensor::zeros(context(), &[case.batch, g.kernels]).expect("fits");
        let routing =
            Routing::new(context(), g.c_in, &first.head, &first.head_bias).expect("valid");
        run(context(), &routing.bind(&x, &vector).expect("binds"));
        for weights in [first, second] {
            let bank =
                BankConv2d::new(context(), &case.desc, &weights.bank, weights.bias.as_deref());
            let shared = bank.expect("valid").forward(&x, &vector).expect("runs");
            let whole = CondConv2d::new(context(), &case.desc, &weights)
                .expect("valid")
                .forward(&x)
                .expect("runs");
            assert_same_bits(
                &format!("{case:?}"),
                &read(context(), &shared),
                &read(context(), &whole),
            );
        }
    }
}

/// A convolution by the reference; `given` is what [`reference::layer`] takes by that name.
fn convolved(
    problem: &Problem,
    bank: &[f32],
    bias: Option<&[f32]>,
    x: &[f64],
    given: &[f64],
) -> Vec<f64> {
    let weights = LayerWeights { bank: widen(bank), bias: bias.map(widen), ..Default::default() };
    reference::layer(&Problem { has_bias: bias.is_some(), ..*problem }, &weights, x, given).y
}

/// Kernels that mix by a map.
const MIXING: [Algorithm; 4] =
    [Algorithm::Auto, Algorithm::ConvDirect, Algorithm::ConvTiled, Algorithm::ConvGemmRegister];

/// Shapes whose output has the input's size, as a pixel mixture needs.
fn pixel_cases() -> Vec<Case<2>> {
    let desc = |c_in, c_out, kernel| ConvDesc::<2>::new(c_in, c_out, kernel);
    let case =
        |desc: ConvDesc<2>, kernels, batch, size| Case { desc: desc.kernels(kernels), batch, size };
    vec![
        case(desc(3, 5, [3, 3]).padding([1, 1]), 4, 2, [7, 9]),
        case(desc(5, 18, [1, 3]).padding([0, 1]), 3, 3, [4, 11]),
        case(desc(4, 6, [5, 2]).padding_sides([[2, 2], [0, 1]]).groups(2), 2, 2, [6, 5]),
        case(desc(6, 12, [3, 3]).dilation([2, 3]).padding([2, 3]).groups(6), 5, 1, [8, 9]),
        case(desc(7, 67, [1, 1]), 2, 2, [9, 13]),
        case(desc(3, 4, [4, 3]).padding_same(), 3, 2, [5, 6]),
    ]
}

/// The snippet of the overview articles: a softmax over K at every pixel, and K times the same
/// convolution.
#[test]
fn the_overview_snippet_is_the_plain_convolution() {
    for (i, case) in pixel_cases().iter().step_by(2).enumerate() {
        let mut noise = Noise::new(520 + i as u64);
        let case = &Case { desc: case.desc.kernels(4), ..*case };
        let g = case.geometry();
        let mut weights = weights::pixel_mix(&mut noise, &g, true);
        let mut repeat = |len: usize, integers: bool| {
            let one = if integers { noise.integers(len, 3) } else { noise.floats(len) };
            one.repeat(g.kernels)
        };
        // Equal logits weigh each kernel with exactly 1/4: the bits of the plain convolution.
        weights.bank = repeat(g.weights(), true);
        weights.bias = Some(repeat(g.c_out, true));
        weights.head.weight.fill(0.0);
        weights.head.bias.fill(0.5);
        let even = weights.clone();
        // Any logits: the weights sum to 1 but for rounding.
        weights.bank = repeat(g.weights(), false);
        weights.bias = Some(repeat(g.c_out, false));
        weights.head = weights::pixel_mix(&mut noise, &g, true).head;

        for (weights, x) in [
            (&even, noise.integers(case.input_len(), 4)),
            (&weights, noise.floats(case.input_len())),
        ] {
            let kernel = &weights.bank[..g.weights()];
            let bias = weights.bias.as_ref().map(|bias| &bias[..g.c_out]);
            let problem = Problem::new(Geometry { kernels: 1, ..g }, case.batch, case.input());
            let truth = convolved(&problem, kernel, bias, &widen(&x), &[]);
            let magnitudes =
                |values: &[f32]| -> Vec<f32> { values.iter().map(|v| v.abs()).collect() };
            let [x_size, kernel_size] = [magnitudes(&x), magnitudes(kernel)];
            let bias_size = bias.map(magnitudes);
            let bound =
                convolved(&problem, &kernel_size, bias_size.as_deref(), &widen(&x_size), &[]);
            // A sum of K times as many terms, two products each, and K biases. The weights sum to 1
            // but for their own sum of K terms and a quotient, which WGSL gives to 2.5
            // ulp; exp, however inexact, is the same number in both.
            let terms = g.c_in / g.groups * g.taps();
            let factor = if weights == &even {
                0.0
            } else {
                gamma(g.kernels * terms + 2 + g.kernels + g.kernels + 5)
            };

            let layer = PixelMix2d::new(context(), &case.desc, weights, 1.0).expect("valid");
            let x = upload(context(), &case.input_shape(), &x);
            for choice in MIXING {
                let y =
                    read(context(), &layer.clone().algorithm(choice).forward(&x).expect("runs"));
                assert_within(&format!("{case:?} {choice:?}"), &y, &truth, factor, &bound);
            }
        }
    }
}
