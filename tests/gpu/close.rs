//! Random data against f64, within derived bounds.
//!
//! A sum of m products in f32, in any order, is off by at most `gamma_m * sum |a_i| |b_i|` with
//! `gamma_m = m u / (1 - m u)`, `u = 2^-24` (Higham, "Accuracy and Stability of Numerical
//! Algorithms", 2nd ed., section 3.1). Nested sums add up: a convolution of aggregated kernels has
//! m = K + channels * taps + 2, the bias included.

use dynconv::Algorithm;
use dynconv::layers::{DyCnn, Given, Od, OwnAttention, Routing};
use dynconv::problem::{AttentionRow, Cells, Geometry};
use dynconv::problem::{AttentionSource, MapAxis, Parts, Problem};
use dynconv::reference::{
    self, Conv, LayerWeights, average_pool, channel_softmax, conv_direct, demodulate, widen,
};
use dynconv::{
    Activation, BankConv2d, CondConv2d, CondConvWeights, ConvDesc, FdyConv2d, KernelWarehouse2d,
    Layer, Linear, ModulatedConv2d, PixelMix2d, Tensor, Warehouse,
};

use crate::common::{
    Case, Noise, assert_same_bits, cases_1d, cases_2d, cases_3d, context, read, run, transposed_2d,
    upload, weights,
};

const U: f64 = 1.0 / (1 << 24) as f64;

fn gamma(m: usize) -> f64 {
    let mu = m as f64 * U;
    mu / (1.0 - mu)
}

fn check_bank<const D: usize>(case: &Case<D>) {
    let mut noise = Noise::new(11);
    let x = noise.floats(case.input_len());
    let bank = noise.floats(case.kernels() * case.weights());
    let bias = noise.floats(case.kernels() * case.c_out());
    let attention = noise.floats(case.batch * case.kernels());
    let layer = Layer::<D, Given>::new(context(), &case.desc, &bank, Some(&bias)).expect("valid");
    for choice in case.common_choices() {
        let layer = layer.clone().algorithm(choice);
        let plan = layer.plan(case.batch, case.size).expect("plans");
        let problem = plan.problem();
        let weights =
            LayerWeights { bank: widen(&bank), bias: Some(widen(&bias)), ..Default::default() };
        let truth = reference::layer(problem, &weights, &widen(&x), &widen(&attention)).y;

        let magnitudes =
            |values: &[f32]| -> Vec<f64> { values.iter().map(|v| f64::from(v.abs())).collect() };
        let g = problem.geometry;
        let row = AttentionRow { stride: g.kernels, mix: Some(0), ..Default::default() };
        let (bank, bias) = (magnitudes(&bank), magnitudes(&bias));
        let rows = reference::aggregate::aggregate(
            &g,
            &bank,
            Some(&bias),
            &magnitudes(&attention),
            row,
            case.batch,
        );
        let conv = Conv {
            geometry: &g,
            batch: case.batch,
            input: problem.input,
            output: plan.output(),
            x: &magnitudes(&x),
            rows: &rows,
            row_stride: rows.len() / case.batch,
            has_bias: true,
            gains: None,
            affine: None,
            residual: None,
            activation: Activation::None,
            layouts: problem.layouts,
        };
        let bound = conv_direct::magnitude(&conv);
        let factor = gamma(g.kernels + g.c_in / g.groups * g.taps() + 2);

        let y = layer.run(case.batch, case.size, &x, &attention).expect("runs");
        assert_within(&format!("{case:?} {choice:?}"), &y, &truth, factor, &bound);
    }
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
fn bank_convolutions_stay_within_the_bound() {
    cases_2d().iter().for_each(check_bank);
    cases_1d().iter().for_each(check_bank);
    cases_3d().iter().for_each(check_bank);
}

/// `max |y - truth| / max |truth|`, NaN counting as infinite.
fn relative_error(y: &[f32], truth: &[f64]) -> f64 {
    assert_eq!(y.len(), truth.len());
    let largest = truth.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let errors = y.iter().zip(truth).map(|(&y, t)| (f64::from(y) - t).abs() / largest);
    errors.fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
}

/// Whole layers, attention included: exp and the sums before it have no bound as tidy as the one
/// above, so the figure is the one that golden vectors are held to.
const LAYER_TOLERANCE: f64 = 1e-5;

fn assert_close(what: &str, y: &[f32], truth: &[f64]) {
    let error = relative_error(y, truth);
    assert!(error <= LAYER_TOLERANCE, "{what}: {error:e}");
}

/// Holds a layer against the reference, by its share of the kernels.
fn follow<A: OwnAttention + Clone>(
    case: &Case<2>,
    layer: &Layer<2, A>,
    weights: &LayerWeights,
    x: &[f32],
) {
    for choice in case.common_choices() {
        let layer = layer.clone().algorithm(choice);
        let plan = layer.plan(case.batch, case.size).expect("plans");
        let truth = reference::layer(plan.problem(), weights, &widen(x), &[]).y;
        let y = layer.run(case.batch, case.size, x).expect("runs");
        assert_close(&format!("{case:?} {choice:?}"), &y, &truth);
    }
}

#[test]
fn dy_cnn_layers_follow_the_reference() {
    for (i, case) in cases_2d().iter().enumerate() {
        let mut noise = Noise::new(100 + i as u64);
        let g = case.geometry();
        let weights = weights::dy_cnn(&mut noise, &g, [i % 2 == 0, i % 3 == 0]);
        let temperature = [1.0, 4.0, 34.0][i % 3];
        let layer =
            Layer::<2, DyCnn>::new(context(), &case.desc, &weights, temperature).expect("valid");
        follow(case, &layer, &weights.reference(&g, temperature), &noise.floats(case.input_len()));
    }
}

#[test]
fn od_conv_layers_follow_the_reference() {
    let mut all = cases_2d();
    // The shared-kernel path: a single tap and a single kernel, by every convolution kernel that
    // can.
    all.extend([8, 9, 10].map(|i| all[i].single()));
    all.push(transposed_2d()[1]);
    for (i, case) in all.iter().enumerate() {
        let mut noise = Noise::new(200 + i as u64);
        let g = case.geometry();
        let mut weights = weights::od_conv(&mut noise, &g);
        weights.bias = (i % 2 == 0).then(|| noise.floats(g.kernels * g.c_out));
        let temperature = [1.0, 30.0][i % 2];
        let layer =
            Layer::<2, Od>::new(context(), &case.desc, &weights, temperature).expect("valid");
        follow(case, &layer, &weights.reference(&g, temperature), &noise.floats(case.input_len()));
    }
}

#[test]
fn cond_conv_layers_follow_the_reference() {
    for (i, case) in cases_2d().iter().enumerate() {
        let mut noise = Noise::new(400 + i as u64);
        let g = case.geometry();
        let weights = weights::cond_conv(&mut noise, &g, i % 2 == 0);
        let layer = CondConv2d::new(context(), &case.desc, &weights).expect("valid");
        follow(case, &layer, &weights.reference(&g), &noise.floats(case.input_len()));
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

/// Holds a layer that mixes by a map against its truth, by its share of the kernels that can.
fn mix_close(
    case: &Case<2>,
    truth: &[f64],
    forward: impl Fn(Algorithm) -> dynconv::Result<Tensor>,
) {
    for choice in MIXING {
        let y = forward(choice).expect("runs");
        assert_close(&format!("{case:?} {choice:?}"), &read(context(), &y), truth);
    }
}

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

#[test]
fn pixel_mixtures_follow_the_reference() {
    for (i, case) in pixel_cases().iter().enumerate() {
        let mut noise = Noise::new(500 + i as u64);
        let g = case.geometry();
        let weights = weights::pixel_mix(&mut noise, &g, i % 2 == 0);
        let temperature = [1.0, 0.4][i % 2];
        let x = noise.floats(case.input_len());
        let wide = widen(&x);

        let head = ConvDesc::new(g.c_in, g.kernels, [1, 1]).geometry().expect("valid");
        let to_logits = Problem::new(head, case.batch, case.input());
        let Linear { weight, bias } = &weights.head;
        let logits = convolved(&to_logits, weight, Some(bias), &wide, &[]);
        let size = case.size.iter().product();
        let maps =
            channel_softmax::channel_softmax(&logits, g.kernels, size, f64::from(temperature));
        let attention = AttentionSource::Map(MapAxis::All);
        let problem = Problem { attention, ..Problem::new(g, case.batch, case.input()) };
        let truth = convolved(&problem, &weights.bank, weights.bias.as_deref(), &wide, &maps);

        let layer = PixelMix2d::new(context(), &case.desc, &weights, temperature).expect("valid");
        let x = upload(context(), &case.input_shape(), &x);
        mix_close(case, &truth, |choice| layer.clone().algorithm(choice).forward(&x));
    }
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

/// Shapes `[frames, frequencies]`.
fn frequency_cases() -> Vec<Case<2>> {
    let desc = |c_in, c_out, kernel| ConvDesc::<2>::new(c_in, c_out, kernel);
    let case =
        |desc: ConvDesc<2>, kernels, batch, size| Case { desc: desc.kernels(kernels), batch, size };
    vec![
        case(desc(3, 5, [3, 3]).padding([1, 1]), 4, 2, [13, 9]),
        case(desc(5, 17, [3, 5]).padding_sides([[0, 1], [2, 1]]), 3, 3, [7, 11]),
        case(desc(4, 6, [2, 3]).stride([2, 2]).padding([1, 1]).groups(2), 2, 1, [9, 8]),
        case(desc(9, 66, [1, 1]), 5, 2, [300, 5]),
    ]
}

#[test]
fn frequency_dynamic_layers_follow_the_reference() {
    for (i, case) in frequency_cases().iter().enumerate() {
        let mut noise = Noise::new(600 + i as u64);
        let g = case.geometry();
        let weights = weights::fdy(&mut noise, &g, i % 2 == 0);
        let temperature = [1.0, 31.0][i % 2];
        let x = noise.floats(case.input_len());
        let wide = widen(&x);

        let [frames, frequencies] = case.size;
        let means = average_pool::average_pool(&wide, case.batch * g.c_in, frequencies);
        assert_eq!(means.len() * frames, wide.len());
        let bn = &weights.norm;
        let width = bn.weight.len();
        let along = ConvDesc::new(g.c_in, width, [g.kernel[2]])
            .stride([g.stride[2]])
            .padding_sides([g.padding[2]]);
        let along = Problem::new(along.geometry().expect("valid"), case.batch, [1, 1, frequencies]);
        let mut hidden = convolved(&along, &weights.hidden, None, &means, &[]);
        let places = hidden.len() / (case.batch * width);
        for (j, h) in hidden.iter_mut().enumerate() {
            let unit = j / places % width;
            let [weight, bias, mean, var] =
                [&bn.weight, &bn.bias, &bn.mean, &bn.var].map(|values| f64::from(values[unit]));
            *h = ((*h - mean) / (var + bn.epsilon).sqrt() * weight + bias).max(0.0);
        }
        let head = ConvDesc::new(width, g.kernels, [1]).geometry().expect("valid");
        let Linear { weight, bias } = &weights.head;
        let logits = convolved(
            &Problem::new(head, case.batch, [1, 1, places]),
            weight,
            Some(bias),
            &hidden,
            &[],
        );
        let maps =
            channel_softmax::channel_softmax(&logits, g.kernels, places, f64::from(temperature));
        let attention = AttentionSource::Map(MapAxis::One(2));
        let problem = Problem { attention, ..Problem::new(g, case.batch, case.input()) };
        let truth = convolved(&problem, &weights.bank, weights.bias.as_deref(), &wide, &maps);

        let layer = FdyConv2d::new(context(), &case.desc, &weights, temperature).expect("valid");
        let x = upload(context(), &case.input_shape(), &x);
        mix_close(case, &truth, |choice| layer.clone().algorithm(choice).forward(&x));
    }
}

#[test]
fn modulated_convolutions_follow_the_reference() {
    for (i, case) in
        [1, 4, 8, 9, 12, 13, 14].map(|i| cases_2d()[i].single()).into_iter().enumerate()
    {
        let mut noise = Noise::new(700 + i as u64);
        let g = case.geometry();
        let kernel = noise.floats(g.weights());
        let styles = noise.floats(case.batch * g.c_in);
        let x = noise.floats(case.input_len());
        for demodulate in [false, true] {
            let gains = match demodulate {
                true => demodulate::demodulate(&g, &widen(&kernel), &widen(&styles)),
                false => widen(&styles),
            };
            let attention = AttentionSource::Given(Parts {
                channel: true,
                filter: demodulate,
                ..Parts::default()
            });
            let problem = Problem { attention, ..Problem::new(g, case.batch, case.input()) };
            let truth = convolved(&problem, &kernel, None, &widen(&x), &gains);
            let layer =
                ModulatedConv2d::new(context(), &case.desc, &kernel, demodulate).expect("valid");
            let style = upload(context(), &[case.batch, g.c_in], &styles);
            let x = upload(context(), &case.input_shape(), &x);
            for choice in case.common_choices() {
                let y = layer.clone().algorithm(choice).forward(&x, &style).expect("runs");
                assert_close(
                    &format!("{case:?} {choice:?} {demodulate}"),
                    &read(context(), &y),
                    &truth,
                );
            }
        }
    }
}

#[test]
fn kernel_warehouse_layers_follow_the_reference() {
    let desc = |c_in, c_out, kernel| ConvDesc::<2>::new(c_in, c_out, kernel);
    let case = |desc, batch, size| Case { desc, batch, size };
    let cells = |count, c_out, c_in, taps| Cells { count, c_out, c_in, taps };
    // Every row is one warehouse and the layers that share it.
    let rows = [
        (
            cells(5, 4, 3, 1),
            vec![
                case(desc(6, 8, [3, 3]).padding([1, 1]), 3, [7, 6]),
                case(desc(9, 12, [1, 1]), 2, [5, 9]),
                case(desc(12, 8, [1, 3]).groups(2).stride([2, 1]), 2, [6, 7]),
            ],
        ),
        (
            cells(7, 2, 4, 9),
            vec![
                case(desc(4, 10, [3, 3]).dilation([2, 1]), 2, [9, 5]),
                case(desc(16, 6, [3, 3]).groups(2).padding([1, 0]), 5, [6, 4]),
            ],
        ),
        (
            cells(3, 1, 1, 6),
            vec![
                case(desc(5, 10, [2, 3]).groups(5), 2, [6, 7]),
                case(desc(2, 3, [3, 2]), 1, [5, 5]),
            ],
        ),
        (cells(1, 17, 5, 1), vec![case(desc(5, 17, [2, 2]), 2, [5, 6])]),
    ];
    let mut noise = Noise::new(800);
    for (i, (cells, cases)) in rows.into_iter().enumerate() {
        let values = noise.floats(cells.count * cells.elements());
        let warehouse = Warehouse::new(context(), cells, &values).expect("valid");
        for (j, case) in cases.iter().enumerate() {
            let weights =
                weights::kernel_warehouse(&mut noise, &case.geometry(), cells, (i + j) % 2 == 0);
            let layer =
                KernelWarehouse2d::new(context(), &case.desc, &weights, &warehouse).expect("valid");
            follow(case, &layer, &weights.reference(&warehouse), &noise.floats(case.input_len()));
        }
    }
}

#[test]
fn attention_rows_can_be_read() {
    let case = cases_2d()[1];
    let mut noise = Noise::new(300);
    let g = case.desc.geometry().expect("valid");
    let weights = weights::od_conv(&mut noise, &g);
    let layer = Layer::<2, Od>::new(context(), &case.desc, &weights, 1.0).expect("valid");
    let x = upload(context(), &case.input_shape(), &noise.floats(case.input_len()));
    let y = Tensor::zeros(context(), &layer.output_shape(x.shape()).expect("fits")).expect("fits");
    let bound = layer.bind(&x, &y).expect("binds");
    run(context(), &bound);
    let attention = read(context(), bound.attention().expect("computes its own"));

    let plan = layer.plan(case.batch, case.size).expect("plans");
    let x = widen(&x.read_blocking(context()).expect("reads"));
    let truth = reference::layer(plan.problem(), &weights.reference(&g, 1.0), &x, &[]).attention;
    let error = relative_error(&attention, &truth);
    assert!(error <= 1e-6, "{error:e}");
    let row = plan.problem().attention_row();
    let mix = row.mix.expect("has mixing weights");
    for sample in attention.chunks_exact(row.stride) {
        let sum: f32 = sample[mix..mix + g.kernels].iter().sum();
        approx::assert_relative_eq!(sum, 1.0, epsilon = 1e-6);
    }
}

#[test]
fn extreme_logits_saturate_and_stay_finite() {
    let case = cases_2d()[0];
    let g = case.desc.geometry().expect("valid");
    let mut noise = Noise::new(301);
    let mut weights = weights::od_conv(&mut noise, &g);
    for head in [&mut weights.channel_head, &mut weights.tap_head, &mut weights.kernel_head] {
        let head = head.as_mut().expect("is there");
        head.bias
            .iter_mut()
            .enumerate()
            .for_each(|(i, b)| *b = if i == 0 { 3000.0 } else { -3000.0 });
    }
    let x = noise.floats(case.input_len());
    let layer = Layer::<2, Od>::new(context(), &case.desc, &weights, 1.0).expect("valid");
    let y = layer.run(case.batch, case.size, &x).expect("runs");
    let plan = layer.plan(case.batch, case.size).expect("plans");
    let truth = reference::layer(plan.problem(), &weights.reference(&g, 1.0), &widen(&x), &[]).y;
    let error = relative_error(&y, &truth);
    assert!(error <= LAYER_TOLERANCE, "{error:e}");
}

#[test]
fn layers_of_several_steps_finish_as_others_do() {
    let desc = ConvDesc::new(3, 4, [3, 3]).padding([1, 1]);
    let mut noise = Noise::new(88);
    let kernel = noise.floats(4 * 3 * 9);
    let (scale, shift) = (noise.floats(4), noise.floats(4));
    let x = upload(context(), &[2, 3, 5, 6], &noise.floats(2 * 3 * 30));
    let style = upload(context(), &[2, 3], &noise.floats(6));
    let layer = ModulatedConv2d::new(context(), &desc, &kernel, true).expect("valid");
    let read = |layer: &ModulatedConv2d| {
        layer.forward(&x, &style).expect("runs").read_blocking(context()).expect("reads")
    };
    let plain = read(&layer);
    let finished =
        read(&layer.scale_shift(&scale, &shift).expect("fits").activation(Activation::Relu));
    for (i, (plain, finished)) in plain.iter().zip(&finished).enumerate() {
        let channel = i / 30 % 4;
        let expected = (plain * scale[channel] + shift[channel]).max(0.0);
        approx::assert_relative_eq!(*finished, expected, epsilon = 1e-6, max_relative = 1e-6);
    }
}
