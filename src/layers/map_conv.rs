//! Convolutions that mix their kernels anew at every position or along one axis.

use super::{
    AnyLayer, BatchNorm, Io, Layer, Linear, Map, Static, any_layer, narrowed_scale_shift, ways,
    write_all,
};
use crate::device::{Bound, Builder, Context, Tensor};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::average_pool::Pool;
use crate::kernels::{Value, channel_softmax};
use crate::problem::{Activation, AttentionSource, ConvDesc, Layout, MapAxis, product};
use crate::program::{Weights, What};

/// Pixel mixture: K convolutions, mixed at every pixel by a softmax over K.
///
/// ```text
/// a[b, k, p] = softmax_k((attention * x)[b, k, p] / temperature)
/// y[b, :, p] = sum_k a[b, k, p] * ((bank_k * x)[b, :, p] + bias_k)
/// attention: 1 x 1 convolution, channels in -> K
/// ```
///
/// This is what overview articles of dynamic convolution mean by `Y = sum_i alpha_i (K_i * X)` with
/// an attention map. Their snippet, as literally written, applies *one* shared convolution K times:
/// since the weights sum to one it equals that plain convolution, K times as slow, and its
/// attention gets no gradient. This layer has K real kernels, in one implicit matrix product with K
/// in the reduction: no K-fold output is stored. The output must have the input's size.
#[derive(Clone, Debug)]
pub struct PixelMix2d {
    context: Context,
    attention: Layer<2, Static>,
    pub(super) conv: Layer<2, Map>,
    temperature: Tensor,
}

/// Weights of a pixel mixture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PixelMixWeights {
    /// Kernel bank `[K, channels out, channels in / groups, kernel..]`.
    pub bank: Vec<f32>,
    /// Bias bank `[K, channels out]`.
    pub bias: Option<Vec<f32>>,
    /// Head: weight `[K, channels in]`, bias `[K]`.
    pub head: Linear,
}

impl PixelMix2d {
    /// A pixel mixture. The temperature divides the logits; the published snippet has 1.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN.
    pub fn new(
        context: &Context,
        desc: &ConvDesc<2>,
        weights: &PixelMixWeights,
        temperature: f32,
    ) -> Result<Self> {
        let temperature = super::checked_temperature(temperature)?;
        let g = desc.geometry()?;
        let to_logits = ConvDesc::new(g.c_in, g.kernels, [1, 1]);
        let head = &weights.head;
        let attention =
            Layer::<2, Static>::new(context, &to_logits, &head.weight, Some(&head.bias))?;
        let conv = Layer::<2, Map>::new(
            context,
            desc,
            &weights.bank,
            weights.bias.as_deref(),
            MapAxis::All,
        )?;
        let temperature = Tensor::filled(context, "temperature", &[1], &[temperature], Elem::F32)?;
        Ok(Self { context: context.clone(), attention, conv, temperature })
    }

    /// As [`Layer::layouts`].
    #[must_use]
    pub fn layouts(mut self, input: Layout, output: Layout) -> Self {
        self.attention = self.attention.layouts(input, Layout::ChannelsFirst);
        self.conv = self.conv.layouts(input, output);
        self
    }

    /// New weights of the same shapes: see [Changing weights](Layer#changing-weights).
    ///
    /// # Errors
    /// [`Error::Shape`] if they have other shapes, [`Error::Value`] for NaN. Nothing is changed
    /// then.
    pub fn set_weights(&self, weights: &PixelMixWeights) -> Result<()> {
        let head = &weights.head;
        let mut values =
            self.attention.replacing(self.attention.banks(&head.weight, Some(&head.bias))?)?;
        values
            .extend(self.conv.replacing(self.conv.banks(&weights.bank, weights.bias.as_deref())?)?);
        write_all(&self.context, values)
    }

    /// Another temperature, from the next submission on, as for [new
    /// weights](Layer#changing-weights).
    ///
    /// # Errors
    /// [`Error::Value`] for a temperature that is not above 0; nothing is changed then.
    pub fn set_temperature(&self, temperature: f32) -> Result<()> {
        let temperature = super::checked_temperature(temperature)?;
        self.temperature.write(&self.context, &[temperature])
    }
}

impl AnyLayer for PixelMix2d {
    fn context(&self) -> &Context {
        &self.context
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let output = self.conv.output_shape(input)?;
        let size = |side: usize, shape: &[usize]| self.conv.layouts[side].sizes(shape);
        let [expected, found] = [size(0, input), size(1, &output)];
        if found[2..] != expected[2..] {
            let what = "output size of a pixel mixture";
            return Err(Error::shape(what, &expected[2..], &found[2..]));
        }
        Ok(output)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        let maps = push_maps(builder, &self.attention, io.x, &self.temperature)?;
        self.conv.lower_conv(builder, io.given(&[maps]))
    }
}
ways!([] PixelMix2d, 2);

/// Frequency-dynamic convolution: K convolutions, mixed anew for every frequency, in all frames
/// alike.
///
/// ```text
/// p  = mean over the frames of x                          [batch, channels in, frequencies]
/// h  = relu(batch_norm(conv1d1 * p))                      stride and padding as the main
///                                                         convolution has along the frequencies
/// pi = softmax_k((conv1d2 * h + bias) / temperature)      [batch, K, frequencies out]
/// y[b, :, t, f] = sum_k pi[b, k, f] * ((bank_k * x)[b, :, t, f] + bias_k)
/// ```
///
/// Activations are `[batch, channels, frames, frequencies]`. Source: Nam et al., "Frequency Dynamic
/// Convolution: Frequency-Adaptive Pattern Recognition for Sound Event Detection", Interspeech
/// 2022, and its published code (frednam93/FDY-SED), whose temperature is 31 in training
/// and inference alike.
#[derive(Clone, Debug)]
pub struct FdyConv2d {
    context: Context,
    hidden: Layer<1, Static>,
    heads: Layer<1, Static>,
    pub(super) conv: Layer<2, Map>,
    temperature: Tensor,
}

/// Weights of a frequency-dynamic layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FdyWeights {
    /// Kernel bank `[K, channels out, channels in, kernel..]`.
    pub bank: Vec<f32>,
    /// Bias bank `[K, channels out]`.
    pub bias: Option<Vec<f32>>,
    /// Hidden layer of the attention `[A, channels in, taps]`, published as `conv1d1`.
    pub hidden: Vec<f32>,
    /// Batch norm of the hidden layer.
    pub norm: BatchNorm,
    /// Head: weight `[K, A]`, bias `[K]`, published as `conv1d2`.
    pub head: Linear,
}

impl FdyConv2d {
    /// The hidden layer has the taps, stride and padding that the description has along the
    /// frequencies (its last axis).
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN.
    pub fn new(
        context: &Context,
        desc: &ConvDesc<2>,
        weights: &FdyWeights,
        temperature: f32,
    ) -> Result<Self> {
        let temperature = super::checked_temperature(temperature)?;
        let g = desc.geometry()?;
        let width = weights.norm.weight.len();
        if g.transposed {
            return Err(Error::Unsupported {
                what: "a transposed frequency-dynamic convolution".into(),
                because: "its attention is not defined".into(),
            });
        }
        let along = ConvDesc::new(g.c_in, width, [g.kernel[2]]).stride([g.stride[2]]);
        let along = if g.same { along.padding_same() } else { along.padding_sides([g.padding[2]]) };
        let (scale, shift) = narrowed_scale_shift(&weights.norm)?;
        let hidden = Layer::<1, Static>::new(context, &along, &weights.hidden, None)?
            .scale_shift(&scale, &shift)?
            .activation(Activation::Relu);
        let to_logits = ConvDesc::new(width, g.kernels, [1]);
        let head = &weights.head;
        let heads = Layer::<1, Static>::new(context, &to_logits, &head.weight, Some(&head.bias))?;
        let axis = MapAxis::One(2);
        let conv =
            Layer::<2, Map>::new(context, desc, &weights.bank, weights.bias.as_deref(), axis)?;
        let temperature = Tensor::filled(context, "temperature", &[1], &[temperature], Elem::F32)?;
        Ok(Self { context: context.clone(), hidden, heads, conv, temperature })
    }

    /// As [`Layer::layouts`].
    #[must_use]
    pub fn layouts(mut self, input: Layout, output: Layout) -> Self {
        self.hidden = self.hidden.layouts(input, Layout::ChannelsFirst);
        self.conv = self.conv.layouts(input, output);
        self
    }

    /// New weights of the same shapes: see [Changing weights](Layer#changing-weights).
    ///
    /// # Errors
    /// [`Error::Shape`] if they have other shapes, [`Error::Value`] for NaN. Nothing is changed
    /// then.
    pub fn set_weights(&self, weights: &FdyWeights) -> Result<()> {
        let (scale, shift) = narrowed_scale_shift(&weights.norm)?;
        let affine = Some([scale, shift].concat());
        let hidden = Weights { affine, ..self.hidden.banks(&weights.hidden, None)? };
        let head = &weights.head;
        let mut values = self.hidden.replacing(hidden)?;
        values.extend(self.heads.replacing(self.heads.banks(&head.weight, Some(&head.bias))?)?);
        values
            .extend(self.conv.replacing(self.conv.banks(&weights.bank, weights.bias.as_deref())?)?);
        write_all(&self.context, values)
    }

    /// Another temperature, from the next submission on, as for [new
    /// weights](Layer#changing-weights).
    ///
    /// # Errors
    /// [`Error::Value`] for a temperature that is not above 0; nothing is changed then.
    pub fn set_temperature(&self, temperature: f32) -> Result<()> {
        let temperature = super::checked_temperature(temperature)?;
        self.temperature.write(&self.context, &[temperature])
    }
}

impl AnyLayer for FdyConv2d {
    fn context(&self) -> &Context {
        &self.context
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.conv.output_shape(input)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        let input = builder.info(io.x)?.shape.clone();
        let [batch, channels, frames, frequencies] = self.conv.layouts[0].sizes(&input);
        let [x_layout, _] = self.conv.layouts;
        let shape = x_layout.shape(batch, channels, &[frequencies]);
        let means = builder.scratch("means of the frames", &shape, Elem::F32);
        let pool = match x_layout {
            Layout::ChannelsFirst => Pool::axis(channels, frames, frequencies),
            Layout::ChannelsLast => Pool::axis(1, frames, frequencies * channels),
        };
        pool.push(builder, [io.x, means], batch)?;
        let shape = self.hidden.output_shape(&shape)?;
        let hidden = builder.scratch("hidden layer of the attention", &shape, Elem::F32);
        self.hidden.lower_conv(builder, Io::new(means, hidden))?;
        let maps = push_maps(builder, &self.heads, hidden, &self.temperature)?;
        self.conv.lower_conv(builder, io.given(&[maps]))
    }
}
ways!([] FdyConv2d, 2);

/// Adds maps of mixing weights: the softmax over K of what `heads` makes of `x`.
fn push_maps<const D: usize>(
    builder: &mut Builder,
    heads: &Layer<D, Static>,
    x: Value,
    temperature: &Tensor,
) -> Result<Value> {
    let shape = heads.output_shape(&builder.info(x)?.shape)?;
    let [logits, maps] = ["logits of the attention", "attention"]
        .map(|name| builder.scratch(name, &shape, Elem::F32));
    heads.lower_conv(builder, Io::new(x, logits))?;
    let temperature = builder.tensor("temperature", temperature);
    let sizes = [shape[0], shape[1], product(&shape[2..])];
    let values = [logits, maps, temperature];
    let dispatch = channel_softmax::dispatch(values, sizes, builder.caps())?;
    builder.push(What::Softmax { sizes, values }, [dispatch]);
    Ok(maps)
}

impl<const D: usize> Layer<D, Map> {
    /// A convolution with a kernel bank that is mixed at every position by a map that the caller
    /// gives: `y[b, :, p] = sum_k map[b, k, p] * ((bank_k * x)[b, :, p] + bias_k)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN.
    pub fn new(
        context: &Context,
        desc: &ConvDesc<D>,
        bank: &[f32],
        bias: Option<&[f32]>,
        axis: MapAxis,
    ) -> Result<Self> {
        if let MapAxis::One(axis @ 3..) = axis {
            let what = "axis of the map".into();
            return Err(Error::Shape { what, expected: "0 to 2".into(), found: axis.to_string() });
        }
        Self::create(context, desc, AttentionSource::Map(axis), bank, bias)
    }

    /// `[batch, K, spatial size of the output..]`, or `[batch, K, size of the axis]`.
    fn map_shape(&self, (batch, input): (usize, [usize; 3])) -> Result<Vec<usize>> {
        let (output, kernels) = (self.geometry.output_size(input)?, self.geometry.kernels);
        Ok(match self.attention {
            AttentionSource::Map(MapAxis::One(axis)) => vec![batch, kernels, output[axis]],
            _ => Layout::ChannelsFirst.shape(batch, kernels, &output[3 - D..]),
        })
    }
}

any_layer!(
    [const D: usize] Layer<D, Map>,
    |layer, input| layer.map_shape(input).map(|shape| vec![("map", shape)])
);
ways!([const D: usize] Layer<D, Map>, D, map);
