//! What a problem must give, in f64, and how far f32 may be from it.
//!
//! A sum of m products in f32, in any order, is off by at most `gamma_m * sum |a_i| |b_i|` with
//! `gamma_m = m u / (1 - m u)`, `u = 2^-24` (Higham, "Accuracy and Stability of Numerical
//! Algorithms", 2nd ed., section 3.1). Nested sums and factors add up. The sum of magnitudes is the
//! same problem with the magnitude of every number.

use dynconv::problem::{AttentionSource, MapAxis, Parts, Problem};
use dynconv::problem::{Epilogue, Geometry, Layout, Pooling};
use dynconv::reference::attention_mlp::{Head, Mlp};
use dynconv::reference::conv_3x3_winograd_simd8::by_matrices;
use dynconv::reference::conv_direct::conv_direct;
use dynconv::reference::{
    self, Conv, LayerWeights, average_pool, channel_softmax, demodulate, widen, window_pool,
};
use dynconv::{Activation, ConvDesc, Elem, Linear, Warehouse, Winograd};

use crate::data::{Data, cells};
use crate::dcd;
use crate::ops::Expected;
use crate::run::problem;
use crate::spec::{Family, Spec};

/// Expected values, and how far each may be off.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The output.
    pub y: Vec<f64>,
    /// Largest error that rounding explains, an output.
    pub tolerance: Vec<f64>,
    /// The same sums of magnitudes, before the activation.
    magnitude: Vec<f64>,
}

impl Truth {
    /// For kernels that round both operands of every product to f16: to 2^-11 of themselves, or to
    /// 2^-25 where that is more.
    #[must_use]
    pub fn in_halves(mut self, spec: &Spec) -> Self {
        let products = spec.kernels * spec.channels[0] * spec.kernel.iter().product::<usize>();
        for (tolerance, &magnitude) in self.tolerance.iter_mut().zip(&self.magnitude) {
            // The products' other factors are around 1.
            let error = magnitude * (2.0 * HALF + HALF * HALF) + products as f64 * 2.0 * SUBNORMAL;
            *tolerance += slope(spec.activation, 2.0 * magnitude + error) * error;
        }
        self
    }
}

const HALF: f64 = 1.0 / (1 << 11) as f64;
const SUBNORMAL: f64 = 1.0 / (1 << 25) as f64;

/// Attention is a few sums, `exp` and quotients of numbers around 1: relative to the largest value
/// it is held to this. What a low temperature makes of the error of a logit counts too.
#[must_use]
pub fn attention_tolerance(spec: &Spec) -> f64 {
    let is_divided = matches!(
        spec.family,
        Family::DyCnn | Family::OdConv | Family::PixelMix | Family::Fdy | Family::Contextual
    );
    let temperature = if is_divided { f64::from(Data::temperature(spec)) } else { 1.0 };
    1e-5 / temperature.min(1.0)
}

const U: f64 = 1.0 / (1 << 24) as f64;

/// Numbers below 2^-126 may become 0 (WGSL, section 15.7.2), which no bound relative to them
/// covers: a gain of 1e-20 times another, times the input and the sums after it, which stay far
/// below 1e8.
const UNDERFLOW: f64 = 1e-30;

pub(crate) fn gamma(m: usize) -> f64 {
    let mu = m as f64 * U;
    mu / (1.0 - mu)
}

/// A published bank as rows of output channels: transposed convolutions are published `[K, channels
/// in, channels out / groups, ..]`.
#[must_use]
pub fn bank_rows(g: &Geometry, bank: &[f32]) -> Vec<f64> {
    if !g.transposed {
        return widen(bank);
    }
    let [c_in, c_out, taps] = [g.c_in / g.groups, g.c_out / g.groups, g.taps()];
    let mut rows = vec![0.0; bank.len()];
    for (i, &weight) in bank.iter().enumerate() {
        let (tap, co, ci, k) =
            (i % taps, i / taps % c_out, i / (taps * c_out) % g.c_in, i / g.weights());
        let channel = ci / c_in * c_out + co;
        rows[((k * g.c_out + channel) * c_in + ci % c_in) * taps + tap] = weight.into();
    }
    rows
}

/// Weights for the reference, without a branch.
fn plain_weights(spec: &Spec, g: &Geometry, data: &Data) -> LayerWeights {
    let bank =
        if spec.family == Family::Warehouse { widen(&data.bank) } else { bank_rows(g, &data.bank) };
    LayerWeights {
        bank,
        bias: data.bias.as_deref().map(widen),
        mlp: None,
        affine: data.affine.as_ref().map(|[scale, shift]| [widen(scale), widen(shift)].concat()),
        residual: data.residual.as_deref().map(widen),
    }
}

/// The attention that a layer must compute; `None` for those that compute none or cannot be asked.
///
/// # Errors
/// As [`Spec::geometry`].
pub fn attention(spec: &Spec, data: &Data) -> dynconv::Result<Option<Vec<f64>>> {
    let g = spec.geometry()?;
    let Some(problem) = problem(spec)? else { return Ok(None) };
    let temperature = data.temperature;
    let weights = match spec.family {
        Family::DyCnn => data.dy_cnn(spec, &g).reference(&g, temperature),
        Family::OdConv => data.od_conv(spec, &g).reference(&g, temperature),
        Family::CondConv => data.cond_conv(spec, &g).reference(&g),
        Family::Contextual => contextual(spec, data, &g),
        Family::Warehouse => {
            let warehouse = Warehouse::new(&crate::variants::noop(), cells(spec, &g), &data.bank)?;
            data.warehouse(spec, &g).reference(&warehouse)
        }
        _ => return Ok(None),
    };
    let weights = LayerWeights { mlp: weights.mlp, ..plain_weights(spec, &g, data) };
    let given = widen(&data.given);
    Ok(Some(reference::layer(&problem, &weights, &widen(&data.x), &given).attention))
}

/// Attention of a head on a context.
fn contextual(spec: &Spec, data: &Data, g: &Geometry) -> LayerWeights {
    let Linear { weight, bias } = data.context_head(spec, g);
    let mlp = Mlp {
        hidden: Vec::new(),
        hidden_bias: None,
        norm: None,
        heads: widen(&weight),
        head_bias: widen(&bias),
        sigmoids: 0,
        head: Head::Softmax { kernels: g.kernels },
        temperature: data.temperature.into(),
    };
    LayerWeights { mlp: Some(mlp), ..LayerWeights::default() }
}

/// The output, given the attention that the device computed.
///
/// # Errors
/// As [`Spec::geometry`].
pub fn truth(spec: &Spec, data: &Data, attention: Option<&[f32]>) -> dynconv::Result<Truth> {
    let g = spec.geometry()?;
    let Some(problem) = problem(spec)? else { return chain(spec, data, &g) };
    let weights = plain_weights(spec, &g, data);
    let given = widen(attention.unwrap_or(&data.given));
    let linear = Problem {
        epilogue: Epilogue { activation: Activation::None, ..problem.epilogue },
        ..problem
    };
    let before = reference::layer(&linear, &weights, &widen(&data.x), &given).y;
    let sizes = magnitudes(&weights);
    let along_rows = !spec.conv.sums_plainly();
    let matrices = |winograd: Winograd| {
        winograd.matrices().map(|matrix| matrix.iter().map(|row| size(row)).collect())
    };
    let magnitude = |conv: &Conv<'_>| match g.winograd {
        Some(winograd) => reference::filtered(conv, winograd, &matrices(winograd)),
        None if along_rows => by_matrices(conv, &matrices(Winograd::F4)),
        None => conv_direct(conv),
    };
    let magnitude =
        reference::layer_by(magnitude, &linear, &sizes, &size(&widen(&data.x)), &size(&given)).y;
    // One rounding for every product and sum on the longest way to an output: mixing, gains, the
    // sum itself (over the bank too where positions mix), bias, affine, residual.
    let mixed = if spec.family.mixes_positions() { spec.kernels } else { 1 };
    // Minimal filtering rounds a kernel once, and no number of a tile more than 3 times on each of
    // its two ways in and 4 on each out. Along the rows there is one way in and one out, but
    // kernels are taken there in f32, by no more than 4 roundings (a factor's, a product's and two
    // sums').
    let (taps, filtering) = match g.winograd {
        Some(_) => (1, 15),
        None if along_rows => (3, 11),
        None => (g.taps(), 0),
    };
    let terms = spec.kernels + (g.c_in / g.groups * taps + 2) * mixed + 12 + filtering;
    let factor = gamma(terms);
    let y: Vec<f64> = before.iter().map(|&v| reference::activate(spec.activation, v)).collect();
    let tolerance = before.iter().zip(&magnitude).zip(&y);
    let tolerance = tolerance.map(|((&v, &m), &y)| {
        let error = factor * m + UNDERFLOW;
        let of_activation = slope(spec.activation, v.abs() + error) * error
            + evaluation_error(spec.activation, v, y);
        of_activation + storing_error(spec.elems[1], y)
    });
    Ok(Truth { tolerance: tolerance.collect(), y, magnitude })
}

/// The output by a formulation of the convolution; `None` for layers of several steps, and where
/// the convolution is not summed over the input itself.
///
/// # Errors
/// As [`Spec::geometry`].
pub fn formulated(
    spec: &Spec,
    data: &Data,
    convolve: fn(&Conv<'_>) -> Vec<f64>,
) -> dynconv::Result<Option<Vec<f64>>> {
    let g = spec.geometry()?;
    if g.winograd.is_some() || spec.family.mixes_positions() {
        return Ok(None);
    }
    let weights = plain_weights(spec, &g, data);
    let (x, given) = (widen(&data.x), widen(&data.given));
    let y = |problem: Problem| reference::layer_by(convolve, &problem, &weights, &x, &given).y;
    Ok(problem(spec)?.map(y))
}

fn size(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v.abs()).collect()
}

fn magnitudes(weights: &LayerWeights) -> LayerWeights {
    LayerWeights {
        bank: size(&weights.bank),
        bias: weights.bias.as_deref().map(size),
        mlp: None,
        affine: weights.affine.as_deref().map(size),
        residual: weights.residual.as_deref().map(size),
    }
}

/// The steepest slope of an activation between -`reach` and `reach`.
pub(crate) fn slope(activation: Activation, reach: f64) -> f64 {
    match activation {
        // Steepest where the second derivative is 0.
        Activation::Silu => 1.1,
        Activation::Gelu => 1.13,
        Activation::HardSwish => 1.5,
        Activation::LeakyRelu { slope } => f64::from(slope.abs()).max(1.0),
        Activation::StarRelu { scale, .. } => 2.0 * f64::from(scale.abs()) * reach,
        _ => 1.0,
    }
}

/// What evaluating an activation in f32 adds. WGSL gives exp to 3 + 2 |x| ulp and quotients to 2.5
/// ulp (section 15.7.4, "Floating Point Accuracy"); erf is good to 1.5e-7; 1 + erf and 2 sigmoid -
/// 1 cancel.
pub(crate) fn evaluation_error(activation: Activation, v: f64, y: f64) -> f64 {
    match activation {
        Activation::None | Activation::Relu | Activation::Relu6 => 0.0,
        Activation::HardSwish | Activation::HardSigmoid | Activation::LeakyRelu { .. } => {
            8.0 * U * y.abs()
        }
        Activation::StarRelu { bias, .. } => 8.0 * U * (y.abs() + f64::from(bias.abs())),
        Activation::Gelu => 4e-7 * v.abs() + 16.0 * U * y.abs(),
        Activation::Silu | Activation::Sigmoid => (16.0 + 4.0 * v.abs()) * U * y.abs() + 1e-37,
        Activation::Tanh => 1e-6,
        _ => f64::INFINITY,
    }
}

/// What rounding to the output's element type adds; WGSL leaves the direction open.
fn storing_error(elem: Elem, y: f64) -> f64 {
    match elem {
        Elem::F16 | Elem::F16Storage => y.abs() / 1024.0 + 1.0 / f64::from(1 << 24),
        _ => 0.0,
    }
}

/// A convolution by the reference; `given` is what [`reference::layer`] takes by that name.
fn convolved(
    problem: &Problem,
    bank: Vec<f64>,
    bias: Option<&[f32]>,
    x: &[f64],
    given: &[f64],
) -> Vec<f64> {
    let weights = LayerWeights { bank, bias: bias.map(widen), ..Default::default() };
    reference::layer(&Problem { has_bias: bias.is_some(), ..*problem }, &weights, x, given).y
}

/// Layers of several steps. Their attention cannot be read back, so that its error is part of the
/// output's.
fn chain(spec: &Spec, data: &Data, g: &Geometry) -> dynconv::Result<Truth> {
    let first = [Layout::ChannelsFirst; 2];
    if spec.layouts != first {
        let output = product(g.output_size(spec.input3())?);
        let [input, y] = [(g.c_in, product(spec.input3())), (g.c_out, output)];
        let mut data = data.clone();
        if spec.layouts[0] == Layout::ChannelsLast {
            data.x = transposed(&data.x, [input.1, input.0]);
        }
        if spec.layouts[1] == Layout::ChannelsFirst {
            return chain(&Spec { layouts: first, ..spec.clone() }, &data, g);
        }
        data.residual = data.residual.map(|residual| transposed(&residual, [y.1, y.0]));
        let truth = chain(&Spec { layouts: first, ..spec.clone() }, &data, g)?;
        let last = |values: &[f64]| transposed(values, [y.0, y.1]);
        let Truth { y, tolerance, magnitude } = &truth;
        return Ok(Truth { y: last(y), tolerance: last(tolerance), magnitude: last(magnitude) });
    }
    let x = widen(&data.x);
    if let Family::Pool(pooling) = spec.family {
        return Ok(pooled(spec, data, g, pooling));
    }
    if let Family::Op(op) = spec.family {
        let Expected { y, mut tolerance } = op.truth(spec, data, g);
        for (tolerance, &y) in tolerance.iter_mut().zip(&y) {
            *tolerance += storing_error(spec.elems[1], y) + UNDERFLOW;
        }
        return Ok(Truth { tolerance, magnitude: vec![0.0; y.len()], y });
    }
    if spec.family == Family::Dcd {
        return Ok(channel_fusion(spec, data, g, &x));
    }
    let (attention, given) = match spec.family {
        Family::PixelMix => (AttentionSource::Map(MapAxis::All), pixel_maps(spec, data, g, &x)?),
        Family::Fdy => (AttentionSource::Map(MapAxis::One(2)), frequency_maps(spec, data, g, &x)?),
        _ => {
            let filter = spec.family == Family::Modulated;
            let parts = Parts { channel: true, filter, ..Parts::default() };
            let style = widen(&data.given);
            let gains = if filter {
                demodulate::demodulate(g, &bank_rows(g, &data.bank), &style)
            } else {
                style
            };
            (AttentionSource::Given(parts), gains)
        }
    };
    let epilogue =
        Epilogue { affine: spec.affine, residual: spec.residual, activation: spec.activation };
    let has_bias = spec.bias;
    let problem =
        Problem { attention, has_bias, epilogue, ..Problem::new(*g, spec.batch, spec.input3()) };
    let y = reference::layer(&problem, &plain_weights(spec, g, data), &x, &given).y;
    let largest = y.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let of_sum = attention_tolerance(spec) * largest;
    let tolerance = y.iter().map(|&y| of_sum + storing_error(spec.elems[1], y)).collect();
    Ok(Truth { tolerance, magnitude: vec![largest; y.len()], y })
}

fn product(size: [usize; 3]) -> usize {
    size.iter().product()
}

/// Samples of `rows` times `columns`, each turned.
fn transposed<T: Copy>(values: &[T], [rows, columns]: [usize; 2]) -> Vec<T> {
    let samples = values.chunks_exact(rows * columns);
    samples
        .flat_map(|sample| {
            (0..columns)
                .flat_map(move |column| (0..rows).map(move |row| sample[row * columns + column]))
        })
        .collect()
}

/// The sum of two parts, of which the convolution is stored in the output's element type before the
/// other is added.
fn channel_fusion(spec: &Spec, data: &Data, g: &Geometry, x: &[f64]) -> Truth {
    let dcd::Parts { mut convolved, mut fused } = dcd::parts(spec, g, &data.dcd(spec, g), x);
    if let Some([scale, shift]) = &data.affine {
        let positions = product(g.output_size(spec.input3()).unwrap_or_default());
        for (i, (convolved, fused)) in convolved.iter_mut().zip(&mut fused).enumerate() {
            let [scale, shift] = [scale, shift].map(|all| f64::from(all[i / positions % g.c_out]));
            *convolved *= scale;
            *fused = *fused * scale + shift;
        }
    }
    for (value, residual) in convolved.iter_mut().zip(data.residual.iter().flatten()) {
        *value += f64::from(*residual);
    }
    let largest = convolved.iter().chain(&fused).fold(0.0_f64, |a, b| a.max(b.abs()));
    let of_sum = attention_tolerance(spec) * largest;
    let stored = |value: f64| storing_error(spec.elems[1], value);
    let (mut y, mut tolerance) = (Vec::new(), Vec::new());
    for (r, fused) in convolved.iter().zip(&fused) {
        let v = r + fused;
        let value = reference::activate(spec.activation, v);
        let slope = slope(spec.activation, v.abs() + of_sum);
        let evaluated = evaluation_error(spec.activation, v, value);
        y.push(value);
        tolerance.push(slope * (of_sum + stored(*r)) + evaluated + stored(value));
    }
    Truth { tolerance, magnitude: vec![largest; y.len()], y }
}

/// Means are off by as many roundings as they have terms, and by that of the quotient; WGSL gives
/// quotients to 2.5 ulp. What is largest is exact.
fn pooled(spec: &Spec, data: &Data, g: &Geometry, pooling: Pooling) -> Truth {
    let epilogue = Epilogue { residual: spec.residual, ..Epilogue::default() };
    let problem = Problem { epilogue, ..Problem::new(*g, spec.batch, spec.input3()) };
    let by = |x: &[f64], residual: Option<Vec<f64>>| {
        let weights = LayerWeights { residual, ..LayerWeights::default() };
        let pool = |conv: &Conv<'_>| window_pool::window_pool(conv, pooling);
        reference::layer_by(pool, &problem, &weights, x, &[]).y
    };
    let size = |values: &[f32]| values.iter().map(|v| f64::from(v.abs())).collect::<Vec<_>>();
    let y = by(&widen(&data.x), data.residual.as_deref().map(widen));
    let magnitude = by(&size(&data.x), data.residual.as_deref().map(size));
    let roundings = gamma(g.taps() + 5);
    let tolerance = magnitude
        .iter()
        .zip(&y)
        .map(|(magnitude, &y)| roundings * magnitude + storing_error(spec.elems[1], y));
    Truth { tolerance: tolerance.collect(), magnitude, y }
}

fn pixel_maps(spec: &Spec, data: &Data, g: &Geometry, x: &[f64]) -> dynconv::Result<Vec<f64>> {
    let Linear { weight, bias } = data.pixel_mix(spec, g).head;
    let head = ConvDesc::new(g.c_in, g.kernels, [1, 1]).geometry()?;
    let logits = convolved(
        &Problem::new(head, spec.batch, spec.input3()),
        widen(&weight),
        Some(&bias),
        x,
        &[],
    );
    let size = spec.input.iter().product();
    Ok(channel_softmax::channel_softmax(&logits, g.kernels, size, f64::from(data.temperature)))
}

fn frequency_maps(spec: &Spec, data: &Data, g: &Geometry, x: &[f64]) -> dynconv::Result<Vec<f64>> {
    let weights = data.fdy(spec, g);
    let [_, frames, frequencies] = spec.input3();
    // Means over the frames: the axis between channels and frequencies.
    let pooled = average_pool::average_pool(x, spec.batch * g.c_in, frequencies);
    debug_assert_eq!(pooled.len() * frames, x.len());
    let bn = &weights.norm;
    let width = bn.weight.len();
    let along = ConvDesc::new(g.c_in, width, [g.kernel[2]])
        .stride([g.stride[2]])
        .padding_sides([g.padding[2]]);
    let along = Problem::new(along.geometry()?, spec.batch, [1, 1, frequencies]);
    let mut hidden = convolved(&along, widen(&weights.hidden), None, &pooled, &[]);
    let places = hidden.len() / (spec.batch * width);
    for (j, value) in hidden.iter_mut().enumerate() {
        let unit = j / places % width;
        let [weight, bias, mean, var] =
            [&bn.weight, &bn.bias, &bn.mean, &bn.var].map(|v| f64::from(v[unit]));
        *value = reference::activate(
            Activation::Relu,
            (*value - mean) / (var + bn.epsilon).sqrt() * weight + bias,
        );
    }
    let head = ConvDesc::new(width, g.kernels, [1]).geometry()?;
    let Linear { weight, bias } = weights.head;
    let logits = convolved(
        &Problem::new(head, spec.batch, [1, 1, places]),
        widen(&weight),
        Some(&bias),
        &hidden,
        &[],
    );
    Ok(channel_softmax::channel_softmax(&logits, g.kernels, places, f64::from(data.temperature)))
}
