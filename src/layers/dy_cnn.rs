//! DY-CNN: dynamic convolution with its own attention.

use super::{Layer, checked_temperature, transposed_with_bias};
use crate::device::Context;
use crate::error::{Error, Result, check_finite, check_len};
use crate::problem::{AttentionSource, Branch, ConvDesc, Geometry, Mixing, Parts};
use crate::program::Weights;
use crate::reference::attention_mlp::{Head, Mlp};
use crate::reference::{LayerWeights, widen};

/// Kind of layer: dynamic convolution of DY-CNN.
///
/// ```text
/// h     = relu(fc1 * mean(x_b) + fc1_bias)              fc1 [A, channels in]
/// alpha = softmax((fc2 * h + fc2_bias) / temperature)   fc2 [K, A]
/// y_b   = conv(x_b, sum_k alpha_k * bank_k) + sum_k alpha_k * bias_k
/// ```
///
/// Source: Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020,
/// section 3; names and details as in the PyTorch port kaijieshi7/Dynamic-convolution-Pytorch. The
/// hidden width A follows from `fc1`.
#[derive(Clone, Copy, Debug)]
pub struct DyCnn;

/// Weights of a DY-CNN layer, rows outermost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DyCnnWeights {
    /// Kernel bank `[K, channels out, channels in / groups, kernel..]`.
    pub bank: Vec<f32>,
    /// Bias bank `[K, channels out]`.
    pub bias: Option<Vec<f32>>,
    /// Hidden layer `[A, channels in]`, published as `fc1`.
    pub hidden: Vec<f32>,
    /// Bias of the hidden layer `[A]`, which only the earliest checkpoints have.
    pub hidden_bias: Option<Vec<f32>>,
    /// Head `[K, A]`, published as `fc2`.
    pub head: Vec<f32>,
    /// Bias of the head `[K]`.
    pub head_bias: Option<Vec<f32>>,
}

/// The temperature schedule that DY-CNN is trained with: it falls by 3 an epoch until it is 1.
///
/// Source: kaijieshi7/Dynamic-convolution-Pytorch, whose constructor asks for `start % 3 == 1` (34
/// by default). A checkpoint does not hold the temperature: a network trained for 11 epochs or more
/// has 1.
///
/// ```
/// let schedule = dynconv::layers::TemperatureSchedule::new(34)?;
/// assert_eq!([0, 1, 10, 11, 90].map(|epoch| schedule.after(epoch)), [34.0, 31.0, 4.0, 1.0, 1.0]);
/// # Ok::<(), dynconv::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemperatureSchedule {
    start: u16,
}

impl TemperatureSchedule {
    /// Starts at `start`.
    ///
    /// # Errors
    /// [`Error::Value`] unless `start` is 1 more than a multiple of 3.
    pub fn new(start: u16) -> Result<Self> {
        if start % 3 == 1 {
            return Ok(Self { start });
        }
        Err(Error::Value {
            what: "start of the temperature schedule".into(),
            needed: "1 more than a multiple of 3".into(),
            found: start.to_string(),
        })
    }

    /// Temperature after this many epochs.
    #[must_use]
    pub fn after(&self, epochs: u16) -> f32 {
        f32::from(self.start.saturating_sub(epochs.saturating_mul(3)).max(1))
    }
}

impl DyCnnWeights {
    /// The attention branch that these weights make: mixing weights only.
    #[must_use]
    pub fn branch(&self, geometry: &Geometry) -> Branch {
        let hidden = Some(self.hidden.len() / geometry.c_in);
        let parts = Parts { mix: true, ..Parts::default() };
        Branch { context: None, hidden, parts, mixing: Mixing::Softmax }
    }

    /// The same weights for [`reference::layer`](crate::reference::layer).
    #[must_use]
    pub fn reference(&self, geometry: &Geometry, temperature: f32) -> LayerWeights {
        let kernels = geometry.kernels;
        let mlp = Mlp {
            hidden: widen(&self.hidden),
            hidden_bias: self.hidden_bias.as_deref().map(widen),
            norm: None,
            heads: widen(&self.head),
            head_bias: self.head_bias.as_deref().map_or_else(|| vec![0.0; kernels], widen),
            sigmoids: 0,
            head: Head::Softmax { kernels },
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

impl DyCnnWeights {
    /// Weights of the attention.
    fn attention(&self, g: &Geometry) -> Result<Weights<Vec<f32>>> {
        let hidden = self.hidden.len() / g.c_in;
        if hidden == 0 || hidden * g.c_in != self.hidden.len() {
            return Err(Error::Shape {
                what: "fc1".into(),
                expected: format!("a multiple of {} elements", g.c_in),
                found: self.hidden.len().to_string(),
            });
        }
        // Bounds K before anything is made of it.
        check_len("fc2", &self.head, g.kernels.saturating_mul(hidden))?;
        let or_zeros =
            |bias: &Option<Vec<f32>>, len: usize| bias.clone().unwrap_or_else(|| vec![0.0; len]);
        let fc1_bias = or_zeros(&self.hidden_bias, hidden);
        let fc2_bias = or_zeros(&self.head_bias, g.kernels);
        check_len("fc1 bias", &fc1_bias, hidden)?;
        check_len("fc2 bias", &fc2_bias, g.kernels)?;
        let parts = [
            ("fc1", &self.hidden),
            ("fc1 bias", &fc1_bias),
            ("fc2", &self.head),
            ("fc2 bias", &fc2_bias),
        ];
        for (what, values) in parts {
            check_finite(what, values)?;
        }
        Ok(Weights {
            hidden: Some(transposed_with_bias(&self.hidden, g.c_in, &fc1_bias)),
            heads: Some(transposed_with_bias(&self.head, hidden, &fc2_bias)),
            ..Weights::default()
        })
    }
}

impl<const D: usize> Layer<D, DyCnn> {
    /// A DY-CNN layer. The temperature divides the logits; checkpoints do not hold it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN or a temperature that is
    /// not above 0.
    pub fn new(
        context: &Context,
        desc: &ConvDesc<D>,
        weights: &DyCnnWeights,
        temperature: f32,
    ) -> Result<Self> {
        let g = desc.geometry()?;
        let temperature = checked_temperature(temperature)?;
        let own = weights.attention(&g)?;
        let attention = AttentionSource::Branch(weights.branch(&g));
        let mut layer =
            Self::create(context, desc, attention, &weights.bank, weights.bias.as_deref())?;
        layer.fix(Weights { temperature: Some(vec![temperature]), ..own })?;
        Ok(layer)
    }

    /// New weights of the same shapes: see [Changing weights](Layer#changing-weights).
    ///
    /// # Errors
    /// [`Error::Shape`] if they have other shapes, [`Error::Value`] for NaN. Nothing is changed
    /// then.
    pub fn set_weights(&self, weights: &DyCnnWeights) -> Result<()> {
        let attention = weights.attention(&self.geometry)?;
        self.check_branch(&weights.branch(&self.geometry))?;
        self.replace(attention.or(self.banks(&weights.bank, weights.bias.as_deref())?))
    }
}
