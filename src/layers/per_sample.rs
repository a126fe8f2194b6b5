//! Convolution with a kernel of its own for each sample, given by the caller.

use super::{AnyLayer, Io, Layer, any_layer, one_kernel, ways};
use crate::device::{Bound, Builder, Context, Tensor};
use crate::error::Result;
use crate::kernels::Value;
use crate::problem::{AttentionSource, ConvDesc};

/// Kind of layer: the caller gives each sample's kernel, computed by whatever else: `y_b =
/// conv(x_b, kernel_b)`.
///
/// Kernels are `[batch, channels out * channels in / groups * taps]`, a transposed convolution's in
/// the order of an ordinary one.
#[derive(Clone, Copy, Debug)]
pub struct PerSample;

impl<const D: usize> Layer<D, PerSample> {
    /// A layer without weights; the description has one kernel.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the description is not valid.
    pub fn new(context: &Context, desc: &ConvDesc<D>) -> Result<Self> {
        one_kernel("a layer of per-sample kernels", &desc.geometry()?)?;
        Self::empty(context, desc, AttentionSource::SampleWeights, false)
    }
}

any_layer!(
    [const D: usize] Layer<D, PerSample>,
    |layer, input| Ok(vec![("per-sample kernels", vec![input.0, layer.geometry.weights()])])
);
ways!([const D: usize] Layer<D, PerSample>, D, kernels);
