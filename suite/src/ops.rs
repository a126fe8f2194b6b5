//! Layers that convolve nothing beside pools: gates, norms, maps at other places, recurrences.

use dynconv::device::Builder;
use dynconv::kernels::Value;
use dynconv::layers::{
    AnyLayer, Gains, Gate, Gru, GruWeights, Io, LayerNorm, Resample, WeightedMean, concatenated,
};
use dynconv::problem::{Geometry, Layout, Problem, Sampling};
use dynconv::reference::gate::{Gates, gate};
use dynconv::reference::{
    self, Conv, LayerWeights, gru, layer_norm, resample, weighted_mean, widen,
};
use dynconv::{Activation, Context};

use crate::data::Data;
use crate::noise::Noise;
use crate::spec::Spec;

/// What such a layer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A gain a channel.
    Gate,
    /// A gain for every position.
    GatePositions,
    /// A dynamic ReLU, and gains along the last two axes.
    GateAxes,
    /// Layer norm over the channels.
    LayerNorm,
    /// A larger map, or one with a border.
    Resample(Sampling),
    /// The input, and behind its channels those that are given.
    Concat,
    /// The mean over all positions, weighted.
    WeightedMean,
    /// Recurrent units in as many directions as there are groups.
    Gru,
}

/// Epsilon of the suite's layer norms.
const EPSILON: f32 = 1e-3;
/// Least weight of the suite's weighted means.
const LEAST: f32 = 0.25;

impl Op {
    /// Whether integers stay integers.
    #[must_use]
    pub fn is_exact(self) -> bool {
        match self {
            Self::Gate | Self::GatePositions | Self::GateAxes | Self::Concat => true,
            Self::Resample(sampling) => sampling != Sampling::Linear,
            Self::LayerNorm | Self::WeightedMean | Self::Gru => false,
        }
    }

    /// Whether an activation and a residual can follow, and layouts be chosen.
    #[must_use]
    pub fn takes_epilogue(self) -> bool {
        !matches!(self, Self::Concat | Self::WeightedMean | Self::Gru)
    }

    /// The layer. Its numbers are those of the data, or ones where there are none.
    ///
    /// # Errors
    /// The layer's own.
    pub fn layer<const D: usize>(
        self,
        context: &Context,
        spec: &Spec,
        data: &Data,
    ) -> dynconv::Result<Box<dyn AnyLayer>> {
        let [c_in, c_out] = spec.channels;
        let [input, output] = spec.layouts;
        let act = spec.activation;
        macro_rules! finished {
            ($layer:expr) => {
                Ok(Box::new($layer.activation(act).layouts(input, output)))
            };
        }
        match self {
            Self::Gate => finished!(Gate::<D>::new(context, c_in, Gains::Channels)?),
            Self::GatePositions => finished!(Gate::<D>::new(context, c_in, Gains::Positions)?),
            Self::GateAxes => {
                finished!(Gate::<D>::new(context, c_in, Gains::Axes(axes(spec)))?.dynamic_relu())
            }
            Self::LayerNorm => {
                let plain = || [vec![1.0; c_in], vec![0.0; c_in]];
                let [scale, shift] = data.affine.clone().unwrap_or_else(plain);
                finished!(LayerNorm::<D>::new(context, &scale, &shift, EPSILON)?)
            }
            Self::Resample(sampling @ (Sampling::Nearest | Sampling::Linear)) => {
                let factors = <[usize; D]>::try_from(&spec.stride[..]).unwrap_or([1; D]);
                finished!(Resample::enlarge(context, c_in, factors, sampling)?)
            }
            Self::Resample(sampling) => {
                let sides = <[[usize; 2]; D]>::try_from(&spec.padding[..]).unwrap_or([[0; 2]; D]);
                finished!(Resample::border(context, c_in, sides, sampling)?)
            }
            Self::Concat => Ok(Box::new(Concat { context: context.clone(), more: c_out - c_in })),
            Self::WeightedMean => Ok(Box::new(WeightedMean::new(context, LEAST)?)),
            Self::Gru => {
                let hidden = c_out / spec.groups;
                Ok(Box::new(Gru::new(context, c_in, hidden, &directions(spec))?))
            }
        }
    }

    /// The layer on no device, for those who look at its shapes alone, and the shape of its input.
    /// Neither depends on the layouts.
    ///
    /// # Errors
    /// The layer's own.
    pub(crate) fn planned(self, spec: &Spec) -> dynconv::Result<(Box<dyn AnyLayer>, Vec<usize>)> {
        let (context, none) = (crate::variants::noop(), Data::none());
        let plain = Spec { layouts: [Layout::ChannelsFirst; 2], ..spec.clone() };
        let layer = match spec.input.len() {
            1 => self.layer::<1>(&context, &plain, &none),
            2 => self.layer::<2>(&context, &plain, &none),
            _ => self.layer::<3>(&context, &plain, &none),
        };
        Ok((layer?, [&[spec.batch, spec.channels[0]], &spec.input[..]].concat()))
    }

    /// Expected outputs, and how far each may be off but for what storing it adds: channels first.
    pub(crate) fn truth(self, spec: &Spec, data: &Data, g: &Geometry) -> Expected {
        let x = widen(&data.x);
        match self {
            Self::Concat => {
                let parts = x.chunks_exact(x.len() / spec.batch);
                let given = widen(&data.given);
                let more = given.chunks((given.len() / spec.batch).max(1)).chain([&[][..]]);
                let y = parts.zip(more.cycle()).flat_map(|(a, b)| [a, b].concat()).collect();
                Expected::exact(y)
            }
            Self::WeightedMean => {
                let size = spec.input.iter().product();
                let weights = widen(&data.given);
                let mean =
                    |x: &[f64]| weighted_mean::weighted_mean(x, &weights, size, LEAST.into());
                let sizes: Vec<f64> = x.iter().map(|v| v.abs()).collect();
                let factor = crate::truth::gamma(2 * size + 6);
                let tolerance = mean(&sizes).into_iter().map(|size| factor * size).collect();
                Expected { y: mean(&x), tolerance }
            }
            Self::Gru => {
                let y = recurrence(spec, &x);
                // A few hundred operations on numbers below 1, whose errors shrink from step to
                // step: the weights of the state are small.
                let tolerance = vec![1e-5; y.len()];
                Expected { y, tolerance }
            }
            _ => self.of_channels(spec, data, g, &x),
        }
    }

    /// Layers that compute each channel from itself, before the activation and after it.
    fn of_channels(self, spec: &Spec, data: &Data, g: &Geometry, x: &[f64]) -> Expected {
        let problem = Problem::new(*g, spec.batch, spec.input3());
        let run = |x: &[f64], of: &dyn Fn(&Conv<'_>) -> Vec<f64>| {
            reference::layer_by(of, &problem, &LayerWeights::default(), x, &[]).y
        };
        let sizes: Vec<f64> = x.iter().map(|v| v.abs()).collect();
        let (before, error) = match self {
            Self::Resample(sampling) => {
                let y = run(x, &|conv| resample::resample(conv, sampling));
                // Shares are quotients and differences of numbers up to 1, and times each other:
                // off by as much for every neighbour, whatever its share.
                let of_neighbours = if sampling == Sampling::Linear { 24.0 } else { 0.0 };
                let finite = sizes.iter().filter(|size| size.is_finite());
                let largest = finite.fold(0.0_f64, |a, &b| a.max(b));
                let error = of_neighbours * crate::truth::gamma(1) * largest;
                (y, vec![error; 1])
            }
            Self::LayerNorm => {
                let y = run(x, &|conv| layer_norm::layer_norm(conv, EPSILON.into()));
                (y, norm_errors(spec, g, x))
            }
            _ => {
                let gated = |x: &[f64], given: &[f64], is_size: bool| {
                    let rows = self.gates(spec, given, is_size);
                    run(x, &|conv| gate(conv, rows.gates()))
                };
                let given = widen(&data.given);
                let given_sizes: Vec<f64> = given.iter().map(|v| v.abs()).collect();
                let factor = crate::truth::gamma(8);
                let sizes = gated(&sizes, &given_sizes, true);
                (gated(x, &given, false), sizes.into_iter().map(|size| factor * size).collect())
            }
        };
        let (mut y, mut tolerance) = (Vec::new(), Vec::new());
        let positions = before.len() / (spec.batch * g.c_out);
        for (i, &value) in before.iter().enumerate() {
            let mut error = error[i % error.len()];
            let mut value = value;
            let mut size = value.abs();
            if let Some([scale, shift]) = &data.affine {
                let [scale, shift] =
                    [scale, shift].map(|all| f64::from(all[i / positions % g.c_out]));
                (value, error) = (value * scale + shift, error * scale.abs());
                size = size * scale.abs() + shift.abs();
            }
            if let Some(residual) = &data.residual {
                value += f64::from(residual[i]);
                size += f64::from(residual[i].abs());
            }
            let is_followed = data.affine.is_some() || data.residual.is_some();
            error += if is_followed { crate::truth::gamma(4) * size } else { 0.0 };
            let out = reference::activate(spec.activation, value);
            let of_activation = match spec.activation {
                Activation::None => error,
                activation => {
                    crate::truth::slope(activation, value.abs() + error) * error
                        + crate::truth::evaluation_error(activation, value, out)
                }
            };
            y.push(out);
            // No error is large beside an infinity.
            tolerance.push(if out.is_finite() { of_activation } else { f64::INFINITY });
        }
        Expected { y, tolerance }
    }

    /// What a gate is given, as the reference takes it: rows of a sample each, in the order of the
    /// layer. With `is_size` all is positive, and the larger line is at most the sum of both.
    fn gates(self, spec: &Spec, given: &[f64], is_size: bool) -> Rows {
        let channels = spec.channels[0];
        let row = given.len() / spec.batch;
        let part = |from: usize, len: usize| -> Vec<f64> {
            given.chunks_exact(row.max(1)).flat_map(|row| row[from..from + len].to_vec()).collect()
        };
        match self {
            Self::Gate => Rows { of_channels: Some(part(0, row)), ..Rows::default() },
            Self::GatePositions => Rows { of_positions: Some(part(0, row)), ..Rows::default() },
            _ => {
                let size = spec.input3();
                let [one, other] = axes(spec);
                let mut coefficients = part(0, 4 * channels);
                if is_size {
                    for all in coefficients.as_chunks_mut::<4>().0 {
                        *all = [all[0] + all[1], 0.0, all[2] + all[3], 0.0];
                    }
                }
                let first = part(4 * channels, channels * size[one]);
                let second = part(channels * (4 + size[one]), channels * size[other]);
                let [first, second] = [(first, one), (second, other)];
                Rows {
                    coefficients: Some(coefficients),
                    along: Some([first, second]),
                    ..Rows::default()
                }
            }
        }
    }
}

/// Expected outputs, and how far each may be off.
pub(crate) struct Expected {
    pub(crate) y: Vec<f64>,
    pub(crate) tolerance: Vec<f64>,
}

impl Expected {
    fn exact(y: Vec<f64>) -> Self {
        Self { tolerance: vec![0.0; y.len()], y }
    }
}

#[derive(Default)]
struct Rows {
    coefficients: Option<Vec<f64>>,
    of_channels: Option<Vec<f64>>,
    of_positions: Option<Vec<f64>>,
    along: Option<[(Vec<f64>, usize); 2]>,
}

impl Rows {
    fn gates(&self) -> Gates<'_> {
        let along = |number: usize| {
            let (gains, axis) = &self.along.as_ref()?[number];
            Some((&gains[..], *axis))
        };
        Gates {
            coefficients: self.coefficients.as_deref(),
            of_channels: self.of_channels.as_deref(),
            of_positions: self.of_positions.as_deref(),
            along: [along(0), along(1)],
        }
    }
}

/// Axes that the gains of [`Op::GateAxes`] go along: the seed decides.
fn axes(spec: &Spec) -> [usize; 2] {
    match spec.seed % 3 {
        0 => [1, 2],
        2 if spec.input.len() == 3 => [2, 0],
        _ => [2, 1],
    }
}

/// Errors of a layer norm before scale and shift. With `d` the error of a difference from the mean:
/// that of the mean, of as many roundings as there are channels, and of the difference itself. The
/// root of the variance is off by half of what its sum is, and by (d / deviation)^2.
fn norm_errors(spec: &Spec, g: &Geometry, x: &[f64]) -> Vec<f64> {
    let channels = g.c_in;
    let positions = x.len() / (spec.batch * channels);
    let mut errors = vec![0.0; x.len()];
    let factor = crate::truth::gamma(channels + 12);
    for b in 0..spec.batch {
        for p in 0..positions {
            let at = |c: usize| (b * channels + c) * positions + p;
            let values: Vec<f64> = (0..channels).map(|c| x[at(c)]).collect();
            let mean = |of: &dyn Fn(f64) -> f64| {
                values.iter().map(|&v| of(v)).sum::<f64>() / channels as f64
            };
            let middle = mean(&|v| v);
            let variance = mean(&|v| (v - middle) * (v - middle)) + f64::from(EPSILON);
            let deviation = variance.sqrt();
            let size = mean(&f64::abs);
            for c in 0..channels {
                let d = factor * (size + values[c].abs()) / deviation;
                let y = (values[c] - middle).abs() / deviation;
                errors[at(c)] = d + y * (2.0 * factor + 2.0 * d * d);
            }
        }
    }
    errors
}

/// Weights of a recurrent layer. Those of the state are small, so that errors shrink.
fn directions(spec: &Spec) -> Vec<GruWeights> {
    let (c_in, hidden) = (spec.channels[0], spec.channels[1] / spec.groups);
    let noise = &mut Noise::new(spec.seed ^ 0x51ed_270b);
    let mut small = |len: usize, size: f32| -> Vec<f32> {
        noise.floats(len).into_iter().map(|v| v * size).collect()
    };
    let of_state = 1.0 / hidden.max(1) as f32;
    (0..spec.groups)
        .map(|_| GruWeights {
            input: small(3 * hidden * c_in, 1.0),
            state: small(3 * hidden * hidden, of_state),
            input_bias: small(3 * hidden, 1.0),
            state_bias: small(3 * hidden, 1.0),
        })
        .collect()
}

/// Recurrent units by the reference.
fn recurrence(spec: &Spec, x: &[f64]) -> Vec<f64> {
    let (c_in, hidden, steps) = (spec.channels[0], spec.channels[1] / spec.groups, spec.input[0]);
    let all = directions(spec);
    let mut projections = Vec::new();
    for sample in x.chunks_exact(c_in * steps) {
        for direction in &all {
            for row in 0..3 * hidden {
                projections.extend((0..steps).map(|step| {
                    let weights = &direction.input[row * c_in..][..c_in];
                    let products = weights.iter().enumerate();
                    let sum: f64 =
                        products.map(|(c, &w)| f64::from(w) * sample[c * steps + step]).sum();
                    sum + f64::from(direction.input_bias[row])
                }));
            }
        }
    }
    let joined = |of: fn(&GruWeights) -> &Vec<f32>| -> Vec<f64> {
        all.iter().flat_map(|one| widen(of(one))).collect()
    };
    let (weights, bias) = (joined(|one| &one.state), joined(|one| &one.state_bias));
    let directions = spec.groups;
    let recurrence = gru::Recurrence { directions, hidden, steps, weights: &weights, bias: &bias };
    gru::gru(&recurrence, &projections)
}

/// Channels of the input, and behind them `more` that are given.
#[derive(Clone, Debug)]
struct Concat {
    context: Context,
    more: usize,
}

impl AnyLayer for Concat {
    fn context(&self) -> &Context {
        &self.context
    }

    fn given(&self, input: &[usize]) -> dynconv::Result<Vec<(&'static str, Vec<usize>)>> {
        let mut shape = input.to_vec();
        shape[1] = self.more;
        Ok(if self.more == 0 { Vec::new() } else { vec![("more channels", shape)] })
    }

    fn output_shape(&self, input: &[usize]) -> dynconv::Result<Vec<usize>> {
        let given = self.given(input)?;
        let mut shapes = vec![input];
        shapes.extend(given.iter().map(|(_, shape)| &shape[..]));
        concatenated(&shapes, 1)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> dynconv::Result<Option<Value>> {
        let parts = [&[io.x], io.given].concat();
        builder.concat_into(&parts, 1, io.y).map(|()| None)
    }
}
