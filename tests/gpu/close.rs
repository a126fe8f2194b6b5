//! Random data against f64, within derived bounds.
//!
//! A sum of m products in f32, in any order, is off by at most `gamma_m * sum |a_i| |b_i|` with
//! `gamma_m = m u / (1 - m u)`, `u = 2^-24` (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.1).
//! Nested sums add up: a convolution of aggregated kernels has m = K + channels * taps + 2, the bias included.

use dynconv::reference::{self, Conv, LayerWeights, conv_direct, widen};
use dynconv::{
    Activation, AttentionRow, BatchNorm, DyCnn, DyCnnWeights, Given, Layer, Linear, Od, OdWeights, Tensor, wgpu,
};

use crate::common::{Case, Noise, cases_1d, cases_2d, cases_3d, context, upload};

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
    for choice in case.choices() {
        let layer = layer.clone().kernel(choice);
        let plan = layer.plan(case.batch, case.size).expect("plans");
        let problem = plan.problem();
        let weights = LayerWeights { bank: widen(&bank), bias: Some(widen(&bias)), ..Default::default() };
        let truth = reference::layer(problem, &weights, &widen(&x), &widen(&attention)).y;

        let magnitudes = |values: &[f32]| -> Vec<f64> { values.iter().map(|v| f64::from(v.abs())).collect() };
        let g = problem.geometry;
        let row = AttentionRow { stride: g.kernels, mix: Some(0), ..Default::default() };
        let (bank, bias) = (magnitudes(&bank), magnitudes(&bias));
        let rows = reference::aggregate::aggregate(&g, &bank, Some(&bias), &magnitudes(&attention), row, case.batch);
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
            activation: Activation::None,
        };
        let bound = conv_direct::magnitude(&conv);
        let factor = gamma(g.kernels + g.c_in / g.groups * g.taps() + 2);

        let y = layer.run(case.batch, case.size, &x, &attention).expect("runs");
        for (i, ((&y, truth), bound)) in y.iter().zip(&truth).zip(&bound).enumerate() {
            let error = (f64::from(y) - truth).abs();
            assert!(
                error <= factor * bound,
                "{case:?} {choice:?} element {i}: {y} is off by {error:e}, bound {:e}",
                factor * bound
            );
        }
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

/// Whole layers, attention included: exp and the sums before it have no bound as tidy as the one above, so the figure is the
/// one that golden vectors are held to.
const LAYER_TOLERANCE: f64 = 1e-5;

#[test]
fn dy_cnn_layers_follow_the_reference() {
    for (i, case) in cases_2d().iter().enumerate() {
        let mut noise = Noise::new(100 + i as u64);
        let g = case.desc.geometry().expect("valid");
        let hidden = g.c_in / 4 + 1;
        let weights = DyCnnWeights {
            bank: noise.floats(g.kernels * g.weights()),
            bias: (i % 2 == 0).then(|| noise.floats(g.kernels * g.c_out)),
            fc1: noise.floats(hidden * g.c_in),
            fc2: noise.floats(g.kernels * hidden),
            fc2_bias: (i % 3 == 0).then(|| noise.floats(g.kernels)),
        };
        let temperature = [1.0, 4.0, 34.0][i % 3];
        let x = noise.floats(case.input_len());
        let layer = Layer::<2, DyCnn>::new(context(), &case.desc, &weights, temperature).expect("valid");
        let plan = layer.plan(case.batch, case.size).expect("plans");
        let truth = reference::layer(plan.problem(), &weights.reference(&g, temperature), &widen(&x), &[]);
        let y = layer.run(case.batch, case.size, &x).expect("runs");
        let error = relative_error(&y, &truth.y);
        assert!(error <= LAYER_TOLERANCE, "{case:?}: {error:e}");
    }
}

/// Weights of an ODConv layer with the heads that the published code gives it.
fn od_weights(noise: &mut Noise, g: &dynconv::Geometry) -> OdWeights {
    let hidden = (g.c_in / 16).max(16);
    let heads = dynconv::published_heads(g);
    let mut linear = |present: bool, outputs: usize| {
        present.then(|| Linear { weight: noise.floats(outputs * hidden), bias: noise.floats(outputs) })
    };
    let [channel_fc, filter_fc, spatial_fc, kernel_fc] =
        [(heads[0], g.c_in), (heads[1], g.c_out), (heads[2], g.taps()), (heads[3], g.kernels)]
            .map(|(p, n)| linear(p, n));
    OdWeights {
        bank: noise.floats(g.kernels * g.weights()),
        fc: noise.floats(hidden * g.c_in),
        bn: BatchNorm {
            weight: noise.floats(hidden),
            bias: noise.floats(hidden),
            mean: noise.floats(hidden),
            var: noise.floats(hidden).iter().map(|v| v.abs() + 0.5).collect(),
            epsilon: 1e-5,
        },
        channel_fc,
        filter_fc,
        spatial_fc,
        kernel_fc,
    }
}

#[test]
fn od_conv_layers_follow_the_reference() {
    let mut all = cases_2d();
    // The shared-kernel path: a single tap and a single kernel, by every convolution kernel that can.
    let single = |i: usize| Case { desc: all[i].desc.kernels(1), ..all[i] };
    let singles = [single(8), single(9), single(10)];
    all.extend(singles);
    for (i, case) in all.iter().enumerate() {
        let mut noise = Noise::new(200 + i as u64);
        let g = case.desc.geometry().expect("valid");
        let weights = od_weights(&mut noise, &g);
        let temperature = [1.0, 30.0][i % 2];
        let x = noise.floats(case.input_len());
        let layer = Layer::<2, Od>::new(context(), &case.desc, &weights, temperature).expect("valid");
        for choice in case.choices() {
            let layer = layer.clone().kernel(choice);
            let plan = layer.plan(case.batch, case.size).expect("plans");
            let truth = reference::layer(plan.problem(), &weights.reference(&g, temperature), &widen(&x), &[]);
            let y = layer.run(case.batch, case.size, &x).expect("runs");
            let error = relative_error(&y, &truth.y);
            assert!(error <= LAYER_TOLERANCE, "{case:?} {choice:?}: {error:e}");
        }
    }
}

#[test]
fn attention_rows_can_be_read() {
    let case = cases_2d()[1];
    let mut noise = Noise::new(300);
    let g = case.desc.geometry().expect("valid");
    let weights = od_weights(&mut noise, &g);
    let layer = Layer::<2, Od>::new(context(), &case.desc, &weights, 1.0).expect("valid");
    let x = upload(context(), &case.input_shape(), &noise.floats(case.input_len()));
    let y = Tensor::zeros(context(), &layer.output_shape(x.shape()).expect("fits")).expect("fits");
    let bound = layer.bind(&x, &y).expect("binds");
    let mut encoder = context().device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    bound.record(&mut encoder);
    context().queue().submit([encoder.finish()]);
    let attention = bound.attention().expect("computes its own").read_blocking(context()).expect("reads");

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
    let mut weights = od_weights(&mut noise, &g);
    for head in [&mut weights.channel_fc, &mut weights.spatial_fc, &mut weights.kernel_fc] {
        let head = head.as_mut().expect("is there");
        head.bias.iter_mut().enumerate().for_each(|(i, b)| *b = if i == 0 { 3000.0 } else { -3000.0 });
    }
    let x = noise.floats(case.input_len());
    let layer = Layer::<2, Od>::new(context(), &case.desc, &weights, 1.0).expect("valid");
    let y = layer.run(case.batch, case.size, &x).expect("runs");
    let plan = layer.plan(case.batch, case.size).expect("plans");
    let truth = reference::layer(plan.problem(), &weights.reference(&g, 1.0), &widen(&x), &[]).y;
    let error = relative_error(&y, &truth);
    assert!(error <= LAYER_TOLERANCE, "{error:e}");
}
