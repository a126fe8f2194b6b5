//! ODConv: omni-dimensional dynamic convolution.

use super::{Layer, checked_temperature, transposed_with_bias};
use crate::device::Context;
use crate::error::{Error, Result, check_finite, check_len};
use crate::problem::{AttentionSource, Branch, ConvDesc, Geometry, Mixing, Parts};
use crate::program::Weights;
use crate::reference::attention_mlp::{Head, Mlp, Norm};
use crate::reference::{LayerWeights, narrow, widen};

/// Kind of layer: omni-dimensional dynamic convolution.
///
/// ```text
/// a = relu(batch_norm(fc * mean(x_b)))                fc [A, channels in]
/// c = sigmoid((channel_fc * a + bias) / temperature)  gains of the input channels
/// f = sigmoid((filter_fc * a + bias) / temperature)   gains of the output channels; skipped if
///                                                     groups == both channel counts
/// s = sigmoid((spatial_fc * a + bias) / temperature)  gains of the taps; skipped for a single tap
/// w = softmax((kernel_fc * a + bias) / temperature)   mixing weights; skipped for K = 1
/// y_b = f . conv(c . x_b, s . sum_k w_k * bank_k) + sum_k w_k * bias_k
/// ```
///
/// Source: Li et al., "Omni-Dimensional Dynamic Convolution", ICLR 2022, and its published code
/// (OSVAI/ODConv), in which c, f and s are shared by the K kernels and there is no bias. The bias
/// is that of forks (and of DY-CNN): mixed like the kernels, but with no gain on it. With a single
/// tap and K = 1 no kernel is built per sample: the convolution reads the one kernel and applies c
/// and f itself.
#[derive(Clone, Copy, Debug)]
pub struct Od;

/// A fully connected layer: `weight [outputs, inputs]`, `bias [outputs]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Linear {
    /// Weights, a row an output.
    pub weight: Vec<f32>,
    /// Bias.
    pub bias: Vec<f32>,
}

/// A batch norm in evaluation mode: `(x - mean) / sqrt(var + epsilon) * weight + bias`, all
/// `[channels]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    /// Scale (gamma).
    pub weight: Vec<f32>,
    /// Shift (beta).
    pub bias: Vec<f32>,
    /// Running mean.
    pub mean: Vec<f32>,
    /// Running variance.
    pub var: Vec<f32>,
    /// Added to the variance. No checkpoint holds it: [`BatchNorm::EPSILON_PYTORCH`] unless the
    /// code sets another.
    pub epsilon: f64,
}

/// Of no channels, with PyTorch's epsilon.
impl Default for BatchNorm {
    fn default() -> Self {
        let [weight, bias, mean, var] = [const { Vec::new() }; 4];
        Self { weight, bias, mean, var, epsilon: Self::EPSILON_PYTORCH }
    }
}

impl BatchNorm {
    /// What PyTorch's batch norms have unless told otherwise: ODConv, KernelWarehouse, DCD, the
    /// attention of FDY-SED.
    pub const EPSILON_PYTORCH: f64 = 1e-5;
    /// What TensorFlow's have, and much that comes from there: timm's `tf_` networks, DyMN, the
    /// norms behind layers of FDY-SED, detectors.
    pub const EPSILON_TENSORFLOW: f64 = 1e-3;

    /// No norm: adds `bias` and changes nothing else.
    #[must_use]
    pub fn only_bias(bias: Vec<f32>) -> Self {
        let [weight, mean, var] = [1.0, 0.0, 1.0].map(|value| vec![value; bias.len()]);
        Self { weight, bias, mean, var, epsilon: 0.0 }
    }

    /// The same map as a scale and a shift a channel, computed in f64.
    ///
    /// # Errors
    /// [`Error::Shape`] unless all have `channels` elements, [`Error::Value`] for NaN, a negative
    /// epsilon, or a variance that is not above `-epsilon`.
    pub fn scale_shift(&self, channels: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let parts = [
            ("batch norm weight", self.weight.as_slice()),
            ("batch norm bias", self.bias.as_slice()),
            ("batch norm mean", self.mean.as_slice()),
            ("batch norm variance", self.var.as_slice()),
        ];
        for (what, values) in parts {
            check_len(what, values, channels)?;
            check_finite(what, values)?;
        }
        if !(self.epsilon >= 0.0 && self.epsilon.is_finite()) {
            return Err(Error::Value {
                what: "batch norm epsilon".into(),
                needed: "a finite number, 0 or more".into(),
                found: self.epsilon.to_string(),
            });
        }
        if let Some(v) = self.var.iter().find(|&&v| !is_positive(f64::from(v) + self.epsilon)) {
            return Err(Error::Value {
                what: "batch norm variance".into(),
                needed: "a number above 0 with epsilon added".into(),
                found: format!("{v} and epsilon {}", self.epsilon),
            });
        }
        let scale =
            |i: usize| f64::from(self.weight[i]) / (f64::from(self.var[i]) + self.epsilon).sqrt();
        let shift = |i: usize| f64::from(self.bias[i]) - f64::from(self.mean[i]) * scale(i);
        Ok(((0..channels).map(scale).collect(), (0..channels).map(shift).collect()))
    }

    /// The same batch norm for the reference.
    pub(super) fn reference(&self) -> Norm {
        Norm {
            weight: widen(&self.weight),
            bias: widen(&self.bias),
            mean: widen(&self.mean),
            var: widen(&self.var),
            epsilon: self.epsilon,
        }
    }
}

/// Weights of an ODConv layer, rows outermost. A head that is `None` is skipped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OdWeights {
    /// Kernel bank `[K, channels out, channels in / groups, kernel..]`.
    pub bank: Vec<f32>,
    /// Bias bank `[K, channels out]`, which only forks have. The kernel attention mixes it; the
    /// filter gains do not scale it.
    pub bias: Option<Vec<f32>>,
    /// Hidden layer `[A, channels in]`, published as `fc`.
    pub hidden: Vec<f32>,
    /// Batch norm of the hidden layer, published as `bn`; [`BatchNorm::only_bias`] where there is
    /// none.
    pub norm: BatchNorm,
    /// Head of the channel attention, `channels in` outputs (`channel_fc`).
    pub channel_head: Option<Linear>,
    /// Head of the filter attention, `channels out` outputs (`filter_fc`).
    pub filter_head: Option<Linear>,
    /// Head of the spatial attention, an output a tap (`spatial_fc`).
    pub tap_head: Option<Linear>,
    /// Head of the kernel attention, K outputs (`kernel_fc`).
    pub kernel_head: Option<Linear>,
}

/// NaN is not.
fn is_positive(value: f64) -> bool {
    value > 0.0
}

/// Which heads the published code gives a layer: channel, filter, spatial, kernel.
#[must_use]
pub fn published_heads(geometry: &Geometry) -> [bool; 4] {
    let depthwise = geometry.groups == geometry.c_in && geometry.c_in == geometry.c_out;
    [true, !depthwise, geometry.taps() > 1, geometry.kernels > 1]
}

impl OdWeights {
    /// Heads that are there, in the order of an attention row.
    fn heads(&self) -> impl Iterator<Item = &Linear> {
        [&self.channel_head, &self.filter_head, &self.tap_head, &self.kernel_head]
            .into_iter()
            .flatten()
    }

    /// The attention branch that these weights make.
    #[must_use]
    pub fn branch(&self) -> Branch {
        let parts = Parts {
            channel: self.channel_head.is_some(),
            filter: self.filter_head.is_some(),
            spatial: self.tap_head.is_some(),
            mix: self.kernel_head.is_some(),
        };
        Branch {
            context: None,
            hidden: Some(self.norm.weight.len()),
            parts,
            mixing: Mixing::Softmax,
        }
    }

    /// Weights of the attention.
    fn attention(&self, g: &Geometry) -> Result<Weights<Vec<f32>>> {
        let hidden = folded_hidden(g.c_in, &self.hidden, &self.norm)?;
        let heads = Some(joined_heads(g, self)?);
        Ok(Weights { hidden: Some(hidden), heads, ..Weights::default() })
    }

    /// The same weights for [`reference::layer`](crate::reference::layer), the batch norm not
    /// folded.
    #[must_use]
    pub fn reference(&self, geometry: &Geometry, temperature: f32) -> LayerWeights {
        let kernels = if self.kernel_head.is_some() { geometry.kernels } else { 0 };
        let head_bias: Vec<f64> = self.heads().flat_map(|head| widen(&head.bias)).collect();
        let mlp = Mlp {
            hidden: widen(&self.hidden),
            hidden_bias: None,
            norm: Some(self.norm.reference()),
            heads: self.heads().flat_map(|head| widen(&head.weight)).collect(),
            sigmoids: head_bias.len() - kernels,
            head_bias,
            head: if kernels > 0 { Head::Softmax { kernels } } else { Head::Sigmoid },
            temperature: temperature.into(),
        };
        LayerWeights {
            bank: widen(&geometry.bank_rows(&self.bank)),
            bias: self.bias.as_deref().map(widen),
            mlp: Some(mlp),
            ..Default::default()
        }
    }
}

impl<const D: usize> Layer<D, Od> {
    /// An ODConv layer. The temperature divides the logits of all four heads; checkpoints do not
    /// hold it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN or a temperature that is
    /// not above 0.
    pub fn new(
        context: &Context,
        desc: &ConvDesc<D>,
        weights: &OdWeights,
        temperature: f32,
    ) -> Result<Self> {
        let g = desc.geometry()?;
        let temperature = checked_temperature(temperature)?;
        let branch = weights.branch();
        if !branch.parts.mix && g.kernels != 1 {
            return Err(Error::Shape {
                what: "kernel bank without kernel_fc".into(),
                expected: "1 kernel".into(),
                found: format!("{} kernels", g.kernels),
            });
        }
        let attention = weights.attention(&g)?;
        let mut layer = Self::create(
            context,
            desc,
            AttentionSource::Branch(branch),
            &weights.bank,
            weights.bias.as_deref(),
        )?;
        layer.fix(Weights { temperature: Some(vec![temperature]), ..attention })?;
        Ok(layer)
    }

    /// New weights of the same shapes, with the same heads: see [Changing
    /// weights](Layer#changing-weights).
    ///
    /// # Errors
    /// [`Error::Shape`] if they have other shapes, [`Error::Value`] for NaN. Nothing is changed
    /// then.
    pub fn set_weights(&self, weights: &OdWeights) -> Result<()> {
        self.check_branch(&weights.branch())?;
        let attention = weights.attention(&self.geometry)?;
        self.replace(attention.or(self.banks(&weights.bank, weights.bias.as_deref())?))
    }
}

/// Hidden layer with its batch norm folded in, as the kernel wants it.
pub(super) fn folded_hidden(c_in: usize, fc: &[f32], norm: &BatchNorm) -> Result<Vec<f32>> {
    let hidden = norm.weight.len();
    check_len("hidden layer", fc, hidden * c_in)?;
    check_finite("hidden layer", fc)?;
    let (scale, shift) = norm.scale_shift(hidden)?;
    let folded: Vec<f64> =
        fc.iter().enumerate().map(|(i, &w)| f64::from(w) * scale[i / c_in]).collect();
    let packed = transposed_with_bias(&narrow(&folded), c_in, &narrow(&shift));
    check_finite("hidden layer with its batch norm", &packed)?;
    Ok(packed)
}

/// All heads as one layer, in the order of an attention row.
fn joined_heads(g: &Geometry, weights: &OdWeights) -> Result<Vec<f32>> {
    let hidden = weights.norm.weight.len();
    let heads = [
        ("channel_fc", &weights.channel_head, g.c_in),
        ("filter_fc", &weights.filter_head, g.c_out),
        ("spatial_fc", &weights.tap_head, g.taps()),
        ("kernel_fc", &weights.kernel_head, g.kernels),
    ];
    let (mut rows, mut bias) = (Vec::new(), Vec::new());
    for (what, head, outputs) in heads {
        let Some(head) = head else { continue };
        check_len(&format!("{what} weight"), &head.weight, outputs * hidden)?;
        check_len(&format!("{what} bias"), &head.bias, outputs)?;
        check_finite(&format!("{what} weight"), &head.weight)?;
        check_finite(&format!("{what} bias"), &head.bias)?;
        rows.extend(&head.weight);
        bias.extend(&head.bias);
    }
    if hidden == 0 || bias.is_empty() {
        return Err(Error::Shape {
            what: "attention branch".into(),
            expected: "a hidden layer and at least one head".into(),
            found: format!("{hidden} hidden units, {} outputs", bias.len()),
        });
    }
    Ok(transposed_with_bias(&rows, hidden, &bias))
}
