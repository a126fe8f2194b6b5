//! What the parts of a program compute, whatever steps compute it.

use std::fmt;
use std::ops::Range;

use super::Operands;
use crate::kernels::Value;
use crate::kernels::attention_mlp::{Mlp, MlpValues};
use crate::kernels::average_pool::Pool;
use crate::kernels::conv::ConvValues;
use crate::kernels::gate::Gains;
use crate::kernels::gru::Recurrence;
use crate::problem::{AttentionSource, Branch, Geometry, Mixing, Pooling, Problem, Sampling};

/// A part of a program: what some of its steps compute together.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    pub(super) steps: Range<usize>,
    pub(super) what: What,
}

/// What an operation computes, and on which values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// A convolution, and the attention that it computes.
    Conv { problem: Box<Problem>, operands: Operands<Value>, attention: Option<Value> },
    /// Each channel from itself.
    Channels { problem: Box<Problem>, output: [usize; 3], of: OfChannels, values: ConvValues },
    /// Means over an axis: of `x`, into `y`.
    Mean { pool: Pool, x: Value, y: Value },
    /// An attention branch.
    Attention { mlp: Mlp, values: MlpValues },
    /// Softmax over the channels `[batch, channels, size]`: logits, output, temperature.
    Softmax { sizes: [usize; 3], values: [Value; 3] },
    /// Means over `size` elements, none of which weighs less than `least`: input, weights, output.
    WeightedMean { size: usize, least: f32, values: [Value; 3] },
    /// Recurrent units: projections of the inputs, weights, states.
    Gru { recurrence: Recurrence, values: [Value; 3] },
    /// Gains of a style: style, norms of the weights, gains.
    Demodulate { geometry: Box<Geometry>, demodulate: bool, values: [Value; 3] },
}

/// What becomes of each channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum OfChannels {
    Gate(Gains),
    /// Layer norm with this epsilon.
    LayerNorm(f32),
    Pool(Pooling),
    Resample(Sampling),
    /// It becomes the channel of a larger output that stands so many behind.
    Part(usize),
}

impl Operation {
    /// Numbers of its steps.
    #[must_use]
    pub fn steps(&self) -> Range<usize> {
        self.steps.clone()
    }

    /// What is convolved, if it is a convolution.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match &self.what {
            What::Conv { problem, .. } => Some(problem),
            _ => None,
        }
    }

    /// Attention rows that it computes or is given, if it is a convolution.
    #[must_use]
    pub fn attention(&self) -> Option<Value> {
        match &self.what {
            What::Conv { attention, .. } => *attention,
            _ => None,
        }
    }

    /// Its input.
    #[must_use]
    pub fn input(&self) -> Value {
        match &self.what {
            What::Conv { operands, .. } => operands.x,
            What::Channels { values, .. } => values.x,
            What::Mean { x, .. } => *x,
            What::Attention { values, .. } => values.means,
            What::Softmax { values: [x, ..], .. }
            | What::WeightedMean { values: [x, ..], .. }
            | What::Gru { values: [x, ..], .. }
            | What::Demodulate { values: [x, ..], .. } => *x,
        }
    }

    /// Its output.
    #[must_use]
    pub fn output(&self) -> Value {
        match &self.what {
            What::Conv { operands, .. } => operands.y,
            What::Channels { values, .. } => values.y,
            What::Mean { y, .. } | What::Softmax { values: [_, y, _], .. } => *y,
            What::Attention { values, .. } => values.attention,
            What::WeightedMean { values: [.., y], .. }
            | What::Gru { values: [.., y], .. }
            | What::Demodulate { values: [.., y], .. } => *y,
        }
    }
}

/// What it is, in a few words.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.what {
            What::Conv { problem, .. } => match problem.attention {
                AttentionSource::Static => "convolution",
                AttentionSource::Given(_) => "convolution, attention given",
                AttentionSource::Map(_) => "convolution by a map",
                AttentionSource::SampleWeights => "convolution, kernels given",
                AttentionSource::Branch(Branch { mixing: Mixing::Cells(_), .. }) => {
                    "convolution of a warehouse"
                }
                AttentionSource::Branch(_) => "dynamic convolution",
            },
            What::Channels { of, .. } => match of {
                OfChannels::Gate(_) => "gate",
                OfChannels::LayerNorm(_) => "layer norm",
                OfChannels::Pool(_) => "pool",
                OfChannels::Resample(_) => "resampling",
                OfChannels::Part(_) => "concatenation",
            },
            What::Mean { .. } => "mean",
            What::Attention { .. } => "attention",
            What::Softmax { .. } => "softmax",
            What::WeightedMean { .. } => "weighted mean",
            What::Gru { .. } => "recurrent units",
            What::Demodulate { .. } => "demodulation",
        })
    }
}
