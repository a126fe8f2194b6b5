//! Convolution with a kernel of its own for each sample, given by the caller.

use super::{Layer, one_kernel};
use crate::device::{Bound, Context, Tensor};
use crate::error::{Error, Result};
use crate::kernels::Operand;
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
    /// [`Error::Shape`] if the description is not valid.
    pub fn new(context: &Context, desc: &ConvDesc<D>) -> Result<Self> {
        one_kernel("a layer of per-sample kernels", &desc.geometry()?)?;
        Self::empty(context, desc, AttentionSource::Rows, false)
    }

    fn check_kernels(&self, x: &Tensor, kernels: &Tensor) -> Result<()> {
        let expected = [self.split_shape(x.shape())?.0, self.geometry.weights()];
        if kernels.shape() == expected {
            return Ok(());
        }
        Err(Error::shape("kernels", &expected, kernels.shape()))
    }

    /// Binds input, kernels and output.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::AliasedBuffers`], the planner's errors, [`Error::OutOfMemory`].
    pub fn bind(&self, x: &Tensor, kernels: &Tensor, y: &Tensor) -> Result<Bound> {
        self.check_kernels(x, kernels)?;
        self.bind_operands(x, y, &[(Operand::Rows, kernels)])
    }

    /// As [`Layer::bind`], and adds `residual`, a tensor like the output, before the activation.
    ///
    /// # Errors
    /// As [`Layer::bind`].
    pub fn bind_add(
        &self,
        x: &Tensor,
        kernels: &Tensor,
        residual: &Tensor,
        y: &Tensor,
    ) -> Result<Bound> {
        self.check_kernels(x, kernels)?;
        self.bind_operands(x, y, &[(Operand::Rows, kernels), (Operand::Residual, residual)])
    }
}
