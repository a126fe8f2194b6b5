//! What follows the sum of a convolution, and the order of tensors' axes.

/// What a convolution applies last, in the same dispatch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x sigmoid(x)`, also called swish.
    Silu,
    /// `x (1 + erf(x / sqrt 2)) / 2`; erf to 1.5e-7.
    Gelu,
    /// `x min(max(x + 3, 0), 6) / 6`
    HardSwish,
    /// `min(max(x + 3, 0), 6) / 6`
    HardSigmoid,
    /// `x` above 0, `slope * x` below.
    LeakyRelu {
        /// Factor below 0.
        slope: f32,
    },
    /// `scale * max(x, 0)^2 + bias` (Yu et al., "MetaFormer Baselines for Vision", 2022).
    StarRelu {
        /// Factor.
        scale: f32,
        /// Summand.
        bias: f32,
    },
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `tanh(x)`
    Tanh,
}

/// What pooling in windows makes of the inputs that a window covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The largest; a NaN is larger than any number.
    Max,
    /// The mean of those inside the map.
    Mean,
    /// The mean, the padding counted as zeros: PyTorch's default.
    MeanWithPadding,
}

/// Where an output of another size reads its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sampling {
    /// At the nearest place before it: `floor(p in / out)`.
    Nearest,
    /// Between neighbours, at `(p + 1/2) in / out - 1/2` within the map: PyTorch's bilinear with
    /// `align_corners=False`, along every axis.
    Linear,
    /// In a border, at the place that mirrors it; the edge is not repeated.
    Reflection,
    /// In a border, at the edge.
    Edge,
}

/// Order of a tensor's axes in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[batch, channels, spatial..]`
    #[default]
    ChannelsFirst,
    /// `[batch, spatial.., channels]`
    ChannelsLast,
}

impl Layout {
    /// Batch, channels and the two spatial sizes of a shape.
    pub(crate) fn sizes(self, shape: &[usize]) -> [usize; 4] {
        let mut sizes = [1; 4];
        sizes.copy_from_slice(shape);
        if self == Self::ChannelsLast {
            // Channels are the last of three then.
            sizes[1..].rotate_right(1);
        }
        sizes
    }

    /// Shape of a tensor.
    pub(crate) fn shape(self, batch: usize, channels: usize, spatial: &[usize]) -> Vec<usize> {
        match self {
            Self::ChannelsFirst => [&[batch, channels], spatial].concat(),
            Self::ChannelsLast => [&[batch], spatial, &[channels]].concat(),
        }
    }
}

/// What follows the sum of a convolution: scale and shift, residual, activation, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue {
    /// Whether a scale and shift follow.
    pub affine: bool,
    /// Whether a tensor like the output is added.
    pub residual: bool,
    /// What follows last.
    pub activation: Activation,
}
