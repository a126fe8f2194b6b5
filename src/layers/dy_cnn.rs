//! DY-CNN: dynamic convolution with its own attention.

use super::{Layer, check_temperature, transposed_with_bias};
use crate::context::Context;
use crate::desc::ConvDesc;
use crate::error::{Error, Result, check_finite, check_len};
use crate::kernels::Operand;
use crate::plan::{AttentionSource, Branch};

/// Kind of layer: dynamic convolution of DY-CNN.
///
/// ```text
/// h     = relu(fc1 * mean(x_b))                         fc1 [A, channels in]
/// alpha = softmax((fc2 * h + fc2_bias) / temperature)   fc2 [K, A]
/// y_b   = conv(x_b, sum_k alpha_k * bank_k) + sum_k alpha_k * bias_k
/// ```
///
/// Source: Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020, section 3; names and
/// details as in the PyTorch port kaijieshi7/Dynamic-convolution-Pytorch. The hidden width A follows from `fc1`.
#[derive(Clone, Copy, Debug)]
pub struct DyCnn;

/// Weights of a DY-CNN layer, rows outermost.
#[derive(Clone, Copy, Debug)]
pub struct DyCnnWeights<'a> {
    /// Kernel bank `[K, channels out, channels in / groups, kernel..]`.
    pub bank: &'a [f32],
    /// Bias bank `[K, channels out]`.
    pub bias: Option<&'a [f32]>,
    /// Hidden layer `[A, channels in]`.
    pub fc1: &'a [f32],
    /// Head `[K, A]`.
    pub fc2: &'a [f32],
    /// Bias of the head `[K]`.
    pub fc2_bias: Option<&'a [f32]>,
}

impl<const D: usize> Layer<D, DyCnn> {
    /// A DY-CNN layer. The temperature divides the logits; checkpoints do not hold it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN or a temperature that is not above 0.
    pub fn new(context: &Context, desc: &ConvDesc<D>, weights: &DyCnnWeights<'_>, temperature: f32) -> Result<Self> {
        let g = desc.geometry()?;
        check_temperature(temperature)?;
        let hidden = weights.fc1.len() / g.c_in;
        if hidden == 0 || hidden * g.c_in != weights.fc1.len() {
            return Err(Error::Shape {
                what: "fc1".into(),
                expected: format!("a multiple of {} elements", g.c_in),
                found: weights.fc1.len().to_string(),
            });
        }
        let zeros = vec![0.0; g.kernels];
        let fc2_bias = weights.fc2_bias.unwrap_or(&zeros);
        check_len("fc2", weights.fc2, g.kernels * hidden)?;
        check_len("fc2 bias", fc2_bias, g.kernels)?;
        for (what, values) in [("fc1", weights.fc1), ("fc2", weights.fc2), ("fc2 bias", fc2_bias)] {
            check_finite(what, values)?;
        }

        let branch = Branch { hidden, temperature, channel: false, filter: false, spatial: false, mix: true };
        let mut layer = Self::create(context, desc, AttentionSource::Branch(branch), weights.bank, weights.bias)?;
        layer.fix(Operand::HiddenWeights, &transposed_with_bias(weights.fc1, g.c_in, &vec![0.0; hidden]))?;
        layer.fix(Operand::HeadWeights, &transposed_with_bias(weights.fc2, hidden, fc2_bias))?;
        Ok(layer)
    }
}
