//! Layer norm over the channels.

use super::{AnyLayer, Io, Layer, Static};
use crate::device::{Builder, Context};
use crate::error::{Error, Result};
use crate::kernels::Value;
use crate::problem::ConvDesc;
use crate::program::OfChannels;

/// Layer norm over the channels at every position, of maps over `D` axes.
///
/// ```text
/// y[b, c, p] = act( weight[c] * (x[b, c, p] - mean[b, p]) / sqrt(variance[b, p] + epsilon)
///                   + bias[c] + residual[b, c, p] )
/// ```
///
/// Mean and variance are over the channels, the variance with all of them in the divisor. Source:
/// Ba et al., "Layer Normalization", 2016; over channels as in ConvNeXt (Liu et al., CVPR 2022).
#[derive(Clone, Debug)]
pub struct LayerNorm<const D: usize> {
    pub(super) layer: Layer<D, Static>,
    epsilon: f32,
}

impl<const D: usize> LayerNorm<D> {
    /// `weight` and `bias [channels]`; PyTorch's epsilon is 1e-5, that of ConvNeXt 1e-6.
    ///
    /// # Errors
    /// [`Error::Shape`] unless both have the same number of elements, [`Error::Value`] for NaN or
    /// an epsilon that is not a normal number above 0.
    pub fn new(context: &Context, weight: &[f32], bias: &[f32], epsilon: f32) -> Result<Self> {
        if !(epsilon.is_normal() && epsilon > 0.0) {
            return Err(Error::Value {
                what: "epsilon of a layer norm".into(),
                needed: "a normal number above 0".into(),
                found: epsilon.to_string(),
            });
        }
        let channels = weight.len();
        let desc = ConvDesc::new(channels, channels, [1; D]).groups(channels);
        let layer = Layer::of_channels(context, &desc)?.scale_shift(weight, bias)?;
        Ok(Self { layer, epsilon })
    }
}

impl<const D: usize> AnyLayer for LayerNorm<D> {
    fn context(&self) -> &Context {
        &self.layer.context
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.layer.output_shape(input)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        self.layer.lower_channels(builder, io, OfChannels::LayerNorm(self.epsilon))
    }
}
