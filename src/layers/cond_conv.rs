//! CondConv: conditionally parameterised convolution.

use std::fmt;

use super::{Layer, transposed_with_bias};
use crate::device::{Bound, Builder, Context, Tensor, check_elem};
use crate::elem::Elem;
use crate::error::{Error, Result, check_finite, check_len};
use crate::kernels::attention_mlp::{Head as KernelHead, Mlp as KernelMlp, MlpValues};
use crate::kernels::average_pool::Pool;
use crate::problem::{AttentionSource, Branch, ConvDesc, Geometry, Layout, Mixing, Parts};
use crate::program::{Weights, What};
use crate::reference::attention_mlp::{Head, Mlp};
use crate::reference::{LayerWeights, widen};

/// Kind of layer: CondConv.
///
/// ```text
/// r   = sigmoid(routing * mean(x_b) + routing_bias)       routing [E, channels in]; not
///                                                         normalised: r sums to anything up to E
/// y_b = conv(x_b, sum_e r_e * experts_e) + sum_e r_e * bias_e
/// ```
///
/// Source: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient
/// Inference", NeurIPS 2019; names as in timm, whose flat weight storage `[E, channels out *
/// channels in / groups * taps]` is the bank. Where one routing vector serves several convolutions
/// of a block, compute it with [`Routing`] and give it to [`BankConv2d`](super::BankConv2d) layers.
/// Padding "SAME" is [`ConvDesc::padding_same`].
#[derive(Clone, Copy, Debug)]
pub struct CondConv;

/// Weights of a CondConv layer, rows outermost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CondConvWeights {
    /// Kernel bank, the experts `[E, channels out, channels in / groups, kernel..]`.
    pub bank: Vec<f32>,
    /// Bias of the experts `[E, channels out]`.
    pub bias: Option<Vec<f32>>,
    /// Head, published as the routing `[E, channels in]`.
    pub head: Vec<f32>,
    /// Bias of the head `[E]`.
    pub head_bias: Vec<f32>,
}

impl CondConvWeights {
    /// The attention branch that these weights make: no hidden layer, a sigmoid an expert.
    #[must_use]
    pub fn branch(&self) -> Branch {
        let parts = Parts { mix: true, ..Parts::default() };
        Branch { context: None, hidden: None, parts, mixing: Mixing::Sigmoid }
    }

    /// The same weights for [`reference::layer`](crate::reference::layer).
    #[must_use]
    pub fn reference(&self, geometry: &Geometry) -> LayerWeights {
        let mlp = Mlp {
            hidden: Vec::new(),
            hidden_bias: None,
            norm: None,
            heads: widen(&self.head),
            head_bias: widen(&self.head_bias),
            sigmoids: geometry.kernels,
            head: Head::Sigmoid,
            temperature: 1.0,
        };
        LayerWeights {
            bank: widen(&geometry.bank_rows(&self.bank)),
            bias: self.bias.as_deref().map(widen),
            mlp: Some(mlp),
            ..Default::default()
        }
    }
}

/// Routing weights as the kernel wants them.
fn packed_routing(
    routing: &[f32],
    bias: &[f32],
    channels: usize,
    experts: usize,
) -> Result<Vec<f32>> {
    check_len("routing", routing, experts * channels)?;
    check_len("routing bias", bias, experts)?;
    check_finite("routing", routing)?;
    check_finite("routing bias", bias)?;
    Ok(transposed_with_bias(routing, channels, bias))
}

impl<const D: usize> Layer<D, CondConv> {
    /// A CondConv layer; the experts are the description's kernels.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN.
    pub fn new(context: &Context, desc: &ConvDesc<D>, weights: &CondConvWeights) -> Result<Self> {
        let g = desc.geometry()?;
        let heads = packed_routing(&weights.head, &weights.head_bias, g.c_in, g.kernels)?;
        let attention = AttentionSource::Branch(weights.branch());
        let mut layer =
            Self::create(context, desc, attention, &weights.bank, weights.bias.as_deref())?;
        let temperature = Some(vec![1.0]);
        layer.fix(Weights { heads: Some(heads), temperature, ..Weights::default() })?;
        Ok(layer)
    }

    /// New weights of the same shapes: see [Changing weights](Layer#changing-weights).
    ///
    /// # Errors
    /// [`Error::Shape`] if they have other shapes, [`Error::Value`] for NaN. Nothing is changed
    /// then.
    pub fn set_weights(&self, weights: &CondConvWeights) -> Result<()> {
        let g = &self.geometry;
        let heads = packed_routing(&weights.head, &weights.head_bias, g.c_in, g.kernels)?;
        let banks = self.banks(&weights.bank, weights.bias.as_deref())?;
        self.replace(Weights { heads: Some(heads), ..banks })
    }
}

/// The routing of a CondConv block by itself: `sigmoid(routing * mean(x) + bias)`, for several
/// convolutions that share it.
#[derive(Clone)]
pub struct Routing {
    context: Context,
    heads: Tensor,
    temperature: Tensor,
    channels: usize,
    experts: usize,
}

impl fmt::Debug for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Routing from {} channels to {} experts, {}",
            self.channels,
            self.experts,
            self.context.home()
        )
    }
}

impl Routing {
    /// `routing [E, channels]`, `bias [E]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN.
    pub fn new(context: &Context, channels: usize, routing: &[f32], bias: &[f32]) -> Result<Self> {
        let experts = bias.len();
        if channels == 0 || experts == 0 {
            return Err(Error::Shape {
                what: "routing".into(),
                expected: "at least 1 channel and 1 expert".into(),
                found: format!("{channels} channels and {experts} experts"),
            });
        }
        let packed = packed_routing(routing, bias, channels, experts)?;
        let heads = Tensor::filled(context, "routing", &[packed.len()], &packed, Elem::F32)?;
        let temperature = Tensor::filled(context, "temperature", &[1], &[1.0], Elem::F32)?;
        Ok(Self { context: context.clone(), heads, temperature, channels, experts })
    }

    /// New weights of the same shapes: see [Changing weights](Layer#changing-weights).
    ///
    /// # Errors
    /// As [`Routing::new`]. Nothing is changed then.
    pub fn set_weights(&self, routing: &[f32], bias: &[f32]) -> Result<()> {
        self.heads
            .write(&self.context, &packed_routing(routing, bias, self.channels, self.experts)?)
    }

    /// Binds the block's input `[batch, channels, spatial..]` and the routing vector `[batch, E]`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`], [`Error::AliasedBuffers`], [`Error::Limit`],
    /// [`Error::OutOfMemory`].
    pub fn bind(&self, x: &Tensor, routing: &Tensor) -> Result<Bound> {
        let [batch, channels, spatial @ ..] = x.shape() else {
            return Err(Error::shape("input", &[0, self.channels], x.shape()));
        };
        if *channels != self.channels {
            return Err(Error::shape("channels of the input", &[self.channels], &[*channels]));
        }
        if routing.shape() != [*batch, self.experts] {
            return Err(Error::shape("routing", &[*batch, self.experts], routing.shape()));
        }
        let mlp = KernelMlp {
            channels: self.channels,
            hidden: None,
            outputs: self.experts,
            head: KernelHead::Sigmoid,
        };
        let mut builder = Builder::new(&self.context);
        let input = builder.tensor("input", x);
        let values = MlpValues {
            means: builder.scratch("channel means", &[*batch, *channels], Elem::F32),
            hidden: None,
            heads: builder.tensor("routing weights", &self.heads),
            temperature: builder.tensor("temperature", &self.temperature),
            attention: builder.tensor("routing", routing),
        };
        check_elem("routing", routing.elem(), Elem::F32)?;
        let pool = Pool::global(*channels, spatial.iter().product(), Layout::ChannelsFirst);
        pool.push(&mut builder, [input, values.means], *batch)?;
        let step = mlp.dispatch(values, 0, *batch, self.context.caps())?;
        builder.push(What::Attention { mlp, values }, [step]);
        builder.bind(values.attention)
    }
}
