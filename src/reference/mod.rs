//! The CPU side: what every kernel computes, in readable f64.
//!
//! One file a kernel, under the kernel's name. The convolutions are so many formulations of the
//! same sum (taps outermost, matrix product, channels outermost, blocks of channels, one channel,
//! plain product, outer products, minimal filtering), so that they also check each other. [`layer`]
//! chains them as the GPU does.

/// Declares each kernel's twin.
macro_rules! twins {
    (steps { $($step:ident $step_stem:ident $step_doc:literal;)* }
     convolutions { $($conv:ident $stem:ident $doc:literal;)* }) => {
        $(#[doc = $step_doc] pub mod $step_stem;)*
        $(#[doc = $doc] pub mod $stem;)*
    };
}

registry!(twins);

use crate::problem::winograd::twice;
use crate::problem::{
    Activation, AttentionRow, AttentionSource, Branch, Epilogue, Geometry, Layout, MapAxis, Mixing,
    Problem, Winograd,
};
use crate::registry::registry;
use attention_mlp::Mlp;

/// Operands of a convolution kernel; layouts as in `shaders/lib/conv.wgsl`.
#[derive(Clone, Copy, Debug)]
pub struct Conv<'a> {
    /// Channels, kernel, stride, padding, dilation, groups.
    pub geometry: &'a Geometry,
    /// Samples.
    pub batch: usize,
    /// Input depth, height, width.
    pub input: [usize; 3],
    /// Output depth, height, width.
    pub output: [usize; 3],
    /// Activations.
    pub x: &'a [f64],
    /// Kernels and biases, a row a sample or one row for all.
    pub rows: &'a [f64],
    /// Elements from one sample's row to the next; 0 when all share one.
    pub row_stride: usize,
    /// Whether rows end in a bias.
    pub has_bias: bool,
    /// Attention rows, and where the gains lie in them.
    pub gains: Option<(&'a [f64], AttentionRow)>,
    /// Scale and shift `[2, channels out]`.
    pub affine: Option<&'a [f64]>,
    /// Added before the activation, lying as the output.
    pub residual: Option<&'a [f64]>,
    /// What follows last.
    pub activation: Activation,
    /// Layouts of input and output.
    pub layouts: [Layout; 2],
}

impl Conv<'_> {
    /// Channels of one group: in and out.
    fn group_channels(&self) -> [usize; 2] {
        [self.geometry.c_in / self.geometry.groups, self.geometry.c_out / self.geometry.groups]
    }

    fn positions(&self) -> usize {
        self.output.iter().product()
    }

    /// Input position that an output reads through a tap, if it is not in the padding.
    fn tap(&self, axis: usize, out: usize, tap: usize) -> Option<usize> {
        let g = self.geometry;
        if g.transposed {
            let shifted = (out + g.padding[axis][0]).checked_sub(tap * g.dilation[axis])?;
            let whole = shifted.is_multiple_of(g.stride[axis]).then_some(shifted / g.stride[axis]);
            return whole.filter(|&position| position < self.input[axis]);
        }
        let padded = out * g.stride[axis] + tap * g.dilation[axis];
        padded.checked_sub(g.padding[axis][0]).filter(|&position| position < self.input[axis])
    }

    /// Output depth, row and column of a position.
    fn place(&self, position: usize) -> [usize; 3] {
        let [_, height, width] = self.output;
        [position / (height * width), position / width % height, position % width]
    }

    /// Inputs of sample b from a channel on.
    fn inputs(&self, b: usize, channel: usize) -> Inputs<'_> {
        let size = self.input.iter().product();
        let element = |channel, position| {
            element(self.layouts[0], [b, channel, position], self.geometry.c_in, size)
        };
        let first = element(channel, 0);
        let gains = match self.gains {
            Some((gains, AttentionRow { stride, channel: Some(start), .. })) => {
                Some(&gains[b * stride + start + channel..])
            }
            _ => None,
        };
        let steps = [element(channel + 1, 0) - first, element(channel, 1) - first];
        Inputs { x: &self.x[first..], steps, gains }
    }

    /// `c[b, channel] * x[b, channel, z, row, column]`
    fn input_at(&self, b: usize, channel: usize, [z, row, column]: [usize; 3]) -> f64 {
        self.inputs(b, channel).at(0, (z * self.input[1] + row) * self.input[2] + column)
    }

    /// The input at a row and column of the padded map, 0 in the padding and past it.
    fn padded(&self, b: usize, channel: usize, [row, column]: [usize; 2]) -> f64 {
        let inside = |axis: usize, place: usize| {
            place
                .checked_sub(self.geometry.padding[axis][0])
                .filter(|&place| place < self.input[axis])
        };
        match (inside(1, row), inside(2, column)) {
            (Some(row), Some(column)) => self.input_at(b, channel, [0, row, column]),
            _ => 0.0,
        }
    }

    /// Weights of an output channel in sample b's row, `[channels in / groups, taps]`.
    fn weights(&self, b: usize, channel: usize) -> &[f64] {
        let reduction = self.group_channels()[0] * self.geometry.taps();
        &self.rows[b * self.row_stride + channel * reduction..][..reduction]
    }

    fn weight_at(&self, b: usize, channel: usize, reduction: usize) -> f64 {
        self.weights(b, channel)[reduction]
    }

    /// What follows the sum; `place` is the output's element.
    fn finish(&self, b: usize, channel: usize, place: usize, sum: f64) -> f64 {
        let mut value = sum;
        if let Some((gains, AttentionRow { stride, filter: Some(start), .. })) = self.gains {
            value *= gains[b * stride + start + channel];
        }
        if self.has_bias {
            value += self.rows[b * self.row_stride + self.geometry.weights() + channel];
        }
        if let Some(affine) = self.affine {
            value = value * affine[channel] + affine[self.geometry.c_out + channel];
        }
        if let Some(residual) = self.residual {
            value += residual[place];
        }
        activate(self.activation, value)
    }

    /// The output, its elements computed one by one by `sum`.
    fn collect(&self, sum: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
        let mut y = vec![0.0; self.batch * self.geometry.c_out * self.positions()];
        for b in 0..self.batch {
            for channel in 0..self.geometry.c_out {
                for p in 0..self.positions() {
                    let place = element(
                        self.layouts[1],
                        [b, channel, p],
                        self.geometry.c_out,
                        self.positions(),
                    );
                    y[place] = self.finish(b, channel, place, sum(b, channel, p));
                }
            }
        }
        y
    }
}

/// Inputs of a sample from some channel on.
struct Inputs<'a> {
    x: &'a [f64],
    /// Elements from one channel to the next, and from one position to the next.
    steps: [usize; 2],
    gains: Option<&'a [f64]>,
}

impl Inputs<'_> {
    /// An input times its channel's gain.
    fn at(&self, channel: usize, position: usize) -> f64 {
        let value = self.x[channel * self.steps[0] + position * self.steps[1]];
        self.gains.map_or(value, |gains| value * gains[channel])
    }
}

/// Element of a tensor at (sample, channel, position).
pub(crate) fn element(
    layout: Layout,
    [b, channel, position]: [usize; 3],
    channels: usize,
    size: usize,
) -> usize {
    match layout {
        Layout::ChannelsFirst => (b * channels + channel) * size + position,
        Layout::ChannelsLast => (b * size + position) * channels + channel,
    }
}

/// `max(x, 0)`, NaN for NaN.
pub(crate) fn relu(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// An activation as its formula reads; NaN for NaN.
#[must_use]
pub fn activate(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::None => x,
        Activation::Relu => relu(x),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::LeakyRelu { slope } => {
            if x >= 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        Activation::StarRelu { scale, bias } => {
            f64::from(scale) * relu(x).powi(2) + f64::from(bias)
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
    }
}

/// Weights of a layer in f64.
#[derive(Clone, Debug, Default)]
pub struct LayerWeights {
    /// Kernel bank, its kernels `[channels out, channels in / groups, taps]`.
    pub bank: Vec<f64>,
    /// Bias bank.
    pub bias: Option<Vec<f64>>,
    /// Attention branch.
    pub mlp: Option<Mlp>,
    /// Scale and shift `[2, channels out]`.
    pub affine: Option<Vec<f64>>,
    /// Added before the activation.
    pub residual: Option<Vec<f64>>,
}

/// What a layer computes.
#[derive(Clone, Debug)]
pub struct LayerOutput {
    /// Attention rows; empty for a static convolution.
    pub attention: Vec<f64>,
    /// Output.
    pub y: Vec<f64>,
}

/// A whole layer: attention, aggregation, convolution, bias, epilogue. `given` is what the caller
/// gives: attention rows, a map of mixing weights, or each sample's kernel and bias.
///
/// # Panics
/// If a slice is shorter than the problem says; the reference checks nothing.
#[must_use]
pub fn layer(problem: &Problem, weights: &LayerWeights, x: &[f64], given: &[f64]) -> LayerOutput {
    layer_by(conv_direct::conv_direct, problem, weights, x, given)
}

/// [`layer`], whose convolution is computed by `convolve`; a map's by [`layer`] itself.
///
/// # Panics
/// As [`layer`].
#[must_use]
pub fn layer_by(
    convolve: impl Fn(&Conv<'_>) -> Vec<f64>,
    problem: &Problem,
    weights: &LayerWeights,
    x: &[f64],
    given: &[f64],
) -> LayerOutput {
    let problem = &Problem { geometry: problem.geometry.at(problem.input), ..*problem };
    let g = &problem.geometry;
    let row = problem.attention_row();
    let attention = match (&weights.mlp, problem.attention) {
        (Some(mlp), AttentionSource::Branch(Branch { context: Some(_), .. })) => {
            attention_mlp::attention_mlp(mlp, given, problem.batch)
        }
        (Some(mlp), AttentionSource::Branch(_)) => {
            let inner = if problem.layouts[0] == Layout::ChannelsLast { g.c_in } else { 1 };
            let means = average_pool::average_pool(x, problem.batch * g.c_in / inner, inner);
            attention_mlp::attention_mlp(mlp, &means, problem.batch)
        }
        _ => given.to_vec(),
    };
    if let AttentionSource::Map(axis) = problem.attention {
        return LayerOutput { y: mixed(problem, weights, x, given, axis), attention };
    }
    let bias = weights.bias.as_deref();
    let shared = problem.shares_kernel();
    let rows = match problem.attention {
        AttentionSource::SampleWeights => given.to_vec(),
        AttentionSource::Branch(Branch { mixing: Mixing::Cells(cells), .. }) => {
            aggregate::assemble(g, cells, &weights.bank, bias, &attention, problem.batch)
        }
        _ if shared => [&weights.bank, bias.unwrap_or(&[])].concat(),
        _ => aggregate::aggregate(g, &weights.bank, bias, &attention, row, problem.batch),
    };
    let conv = Conv {
        geometry: g,
        batch: problem.batch,
        input: problem.input,
        output: g.output_size(problem.input).expect("the problem was planned"),
        x,
        rows: &rows,
        row_stride: if shared { 0 } else { rows.len() / problem.batch },
        has_bias: problem.has_bias,
        gains: shared.then_some((attention.as_slice(), row)),
        affine: weights.affine.as_deref(),
        residual: weights.residual.as_deref(),
        activation: problem.epilogue.activation,
        layouts: problem.layouts,
    };
    LayerOutput { y: convolve(&conv), attention }
}

/// Minimal filtering: tiles of the input, their products with the kernels in the same domain, and
/// the outputs of these, by matrices that stand for `G`, `B'` and `A'`. With these it is the
/// convolution; with their magnitudes, and those of all operands, what its rounding errors are
/// relative to.
#[must_use]
pub fn filtered(conv: &Conv<'_>, winograd: Winograd, [g, b, a]: &[Vec<Vec<f64>>; 3]) -> Vec<f64> {
    let geometry = Geometry { winograd: Some(winograd), ..*conv.geometry };
    let tiles = winograd.tiles(conv.output);
    let weights = geometry.weights();
    let pairs = weights / geometry.taps();
    let mut rows = Vec::new();
    for row in
        conv.rows.chunks_exact(if conv.row_stride == 0 { conv.rows.len() } else { conv.row_stride })
    {
        let taken: Vec<Vec<f64>> =
            row[..weights].chunks_exact(9).map(|kernel| twice(g, kernel)).collect();
        rows.extend((0..winograd.numbers() * pairs).map(|i| taken[i % pairs][i / pairs]));
    }
    let products = conv_pointwise::conv_pointwise(&Conv {
        geometry: &geometry.summed(),
        input: tiles,
        output: tiles,
        x: &winograd_input::winograd_input(conv, winograd, b),
        rows: &rows,
        row_stride: if conv.row_stride == 0 { 0 } else { rows.len() / conv.batch },
        has_bias: false,
        gains: None,
        affine: None,
        residual: None,
        activation: Activation::None,
        layouts: [Layout::ChannelsFirst; 2],
        ..*conv
    });
    winograd_output::winograd_output(conv, winograd, a, &products)
}

/// K whole convolutions, mixed at every position: what the published code does, with K times the
/// output in memory.
fn mixed(
    problem: &Problem,
    weights: &LayerWeights,
    x: &[f64],
    map: &[f64],
    axis: MapAxis,
) -> Vec<f64> {
    let g = &problem.geometry;
    let output = g.output_size(problem.input).expect("the problem was planned");
    let positions: usize = output.iter().product();
    let size = problem.map_size(output);
    let mut y = vec![0.0; problem.batch * g.c_out * positions];
    for k in 0..g.kernels {
        let one = LayerWeights {
            bank: weights.bank[k * g.weights()..(k + 1) * g.weights()].to_vec(),
            bias: weights.bias.as_ref().map(|bias| bias[k * g.c_out..(k + 1) * g.c_out].to_vec()),
            ..Default::default()
        };
        let fixed = Problem {
            geometry: Geometry { kernels: 1, ..*g },
            attention: AttentionSource::Static,
            epilogue: Epilogue::default(),
            layouts: [problem.layouts[0], Layout::ChannelsFirst],
            ..*problem
        };
        for (i, value) in layer(&fixed, &one, x, &[]).y.into_iter().enumerate() {
            let (b, p) = (i / (g.c_out * positions), i % positions);
            y[i] += map[(b * g.kernels + k) * size + map_place(axis, output, p)] * value;
        }
    }
    let mut finished = vec![0.0; y.len()];
    for (i, value) in y.into_iter().enumerate() {
        let (b, channel, p) = (i / (g.c_out * positions), i / positions % g.c_out, i % positions);
        let place = element(problem.layouts[1], [b, channel, p], g.c_out, positions);
        let affine =
            weights.affine.as_ref().map_or((1.0, 0.0), |a| (a[channel], a[g.c_out + channel]));
        let residual = weights.residual.as_ref().map_or(0.0, |r| r[place]);
        finished[place] =
            activate(problem.epilogue.activation, value * affine.0 + affine.1 + residual);
    }
    finished
}

/// Where in a map the mixing weights of an output position stand.
pub(crate) fn map_place(axis: MapAxis, output: [usize; 3], position: usize) -> usize {
    match axis {
        MapAxis::All => position,
        MapAxis::One(0) => position / (output[1] * output[2]),
        MapAxis::One(1) => position / output[2] % output[1],
        MapAxis::One(_) => position % output[2],
    }
}

/// f64 values rounded to f32.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "rounding is what it is for")]
pub fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// f32 values in f64.
#[must_use]
pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}
