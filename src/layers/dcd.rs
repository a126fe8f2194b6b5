//! Dynamic channel fusion by matrix decomposition (DCD).

use super::{
    AnyLayer, BatchNorm, Given, Io, Layer, PerSample, Static, WindowPool, narrowed_scale_shift,
    ways, write_all,
};
use crate::device::{Bound, Builder, Context, Tensor};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::Value;
use crate::kernels::average_pool::Pool;
use crate::problem::{Activation, AttentionSource, ConvDesc, Layout, Parts, Pooling};
use crate::program::Weights;

/// Dynamic convolution by matrix decomposition: a static convolution whose channels are scaled,
/// beside a path through a few channels that are mixed by a matrix of the sample's own.
///
/// ```text
/// u      = squeeze * pooled(x)            pooled: 1 x 1 or 2 x 2 means, channel-major
/// u      = u . hs(gate * u)               hs(t) = min(max(t + 3, 0), 6) / 3
/// Phi    = reshape(phi * u, L, L)
/// lambda = hs(scale * u)
/// z      = batch_norm1(q * x)             1 x 1, channels in -> L, with the stride of the layer
/// y      = lambda . conv(x, weight) + p * (z + batch_norm2(Phi z))
/// ```
///
/// Source: Li et al., "Revisiting Dynamic Convolution via Matrix Decomposition", ICLR 2021, and its
/// published code (liyunsheng13/dcd). Every step is a convolution of this library: Phi is a
/// per-sample 1 x 1 kernel, lambda a filter gain, the gate a channel gain.
#[derive(Clone, Debug)]
pub struct Dcd2d {
    context: Context,
    c_in: usize,
    latent: usize,
    /// Means along each axis of the pooled input: 1 or 2.
    pooled: usize,
    squeeze: Layer<2, Static>,
    gate: Layer<2, Static>,
    phi: Layer<2, Given>,
    lambda: Layer<2, Given>,
    pub(super) conv: Layer<2, Given>,
    q: Layer<2, Static>,
    fuse: Layer<2, PerSample>,
    pub(super) p: Layer<2, Static>,
}

/// Weights of a DCD layer, rows outermost, under their published names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DcdWeights {
    /// `conv.weight [channels out, channels in, kernel..]`
    pub conv: Vec<f32>,
    /// `q.weight [L, channels in]`
    pub q: Vec<f32>,
    /// `p.weight [channels out, L]`
    pub p: Vec<f32>,
    /// Batch norm of L channels, published as `bn1`.
    pub norm1: BatchNorm,
    /// Batch norm of L channels, published as `bn2`.
    pub norm2: BatchNorm,
    /// `fc.0.weight [S, channels in]` for a 1 x 1 pool, `[S, 4 * channels in]` for a 2 x 2 one.
    pub squeeze: Vec<f32>,
    /// `fc.1.fc.0.weight [S, S]`
    pub gate: Vec<f32>,
    /// `fc_phi.weight [L * L, S]`
    pub phi: Vec<f32>,
    /// `fc_scale.weight [channels out, S]`
    pub scale: Vec<f32>,
}

impl Dcd2d {
    /// The description is that of the static convolution: one group, one kernel.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN.
    pub fn new(context: &Context, desc: &ConvDesc<2>, weights: &DcdWeights) -> Result<Self> {
        let g = desc.geometry()?;
        let latent = weights.norm1.weight.len();
        let squeezed = weights.gate.len().isqrt();
        let pooled = match weights.squeeze.len().checked_div(squeezed * g.c_in) {
            Some(1) => 1,
            Some(4) => 2,
            _ => {
                return Err(Error::Shape {
                    what: "fc.0.weight".into(),
                    expected: format!("{squeezed} rows of {} or {} elements", g.c_in, 4 * g.c_in),
                    found: format!("{} elements", weights.squeeze.len()),
                });
            }
        };
        let fixed = |c_in, c_out, kernel: &[f32]| {
            Layer::<2, Static>::new(context, &ConvDesc::new(c_in, c_out, [1, 1]), kernel, None)
        };
        let gained = |desc: &ConvDesc<2>, parts, kernel: &[f32]| {
            Layer::<2, Given>::create(context, desc, AttentionSource::Given(parts), kernel, None)
        };
        let by_channel = Parts { channel: true, ..Parts::default() };
        let by_filter = Parts { filter: true, ..Parts::default() };
        let (scale1, shift1) = narrowed_scale_shift(&weights.norm1)?;
        let (scale2, shift2) = narrowed_scale_shift(&weights.norm2)?;
        let strided = ConvDesc::new(g.c_in, latent, [1, 1]).stride([g.stride[1], g.stride[2]]);
        Ok(Self {
            context: context.clone(),
            c_in: g.c_in,
            latent,
            pooled,
            squeeze: fixed(pooled * pooled * g.c_in, squeezed, &weights.squeeze)?,
            gate: fixed(squeezed, squeezed, &weights.gate)?.activation(Activation::HardSigmoid),
            phi: gained(
                &ConvDesc::new(squeezed, latent * latent, [1, 1]),
                by_channel,
                &doubled(&weights.phi),
            )?,
            lambda: gained(
                &ConvDesc::new(squeezed, g.c_out, [1, 1]),
                by_channel,
                &doubled(&weights.scale),
            )?
            .activation(Activation::HardSigmoid),
            conv: gained(desc, by_filter, &doubled(&weights.conv))?,
            q: Layer::<2, Static>::new(context, &strided, &weights.q, None)?
                .scale_shift(&scale1, &shift1)?,
            fuse: Layer::<2, PerSample>::new(context, &ConvDesc::new(latent, latent, [1, 1]))?
                .scale_shift(&scale2, &shift2)?,
            p: fixed(latent, g.c_out, &weights.p)?,
        })
    }

    /// As [`Layer::layouts`].
    #[must_use]
    pub fn layouts(mut self, input: Layout, output: Layout) -> Self {
        self.conv = self.conv.layouts(input, output);
        self.q = self.q.layouts(input, Layout::ChannelsFirst);
        self.p = self.p.layouts(Layout::ChannelsFirst, output);
        self
    }

    /// New weights of the same shapes: see [Changing weights](Layer#changing-weights).
    ///
    /// # Errors
    /// [`Error::Shape`] if they have other shapes, [`Error::Value`] for NaN. Nothing is changed
    /// then.
    pub fn set_weights(&self, weights: &DcdWeights) -> Result<()> {
        let affine = |norm| -> Result<_> {
            let (scale, shift) = narrowed_scale_shift(norm)?;
            Ok(Weights { affine: Some([scale, shift].concat()), ..Weights::default() })
        };
        let fixed = |layer: &Layer<2, Static>, kernel: &[f32]| layer.banks(kernel, None);
        let gained = |layer: &Layer<2, Given>, kernel: &[f32]| layer.banks(&doubled(kernel), None);
        let q = affine(&weights.norm1)?.or(fixed(&self.q, &weights.q)?);
        let mut values = self.squeeze.replacing(fixed(&self.squeeze, &weights.squeeze)?)?;
        values.extend(self.gate.replacing(fixed(&self.gate, &weights.gate)?)?);
        values.extend(self.phi.replacing(gained(&self.phi, &weights.phi)?)?);
        values.extend(self.lambda.replacing(gained(&self.lambda, &weights.scale)?)?);
        values.extend(self.conv.replacing(gained(&self.conv, &weights.conv)?)?);
        values.extend(self.q.replacing(q)?);
        values.extend(self.fuse.replacing(affine(&weights.norm2)?)?);
        values.extend(self.p.replacing(fixed(&self.p, &weights.p)?)?);
        write_all(&self.context, values)
    }

    /// Adds means of the input as `[batch, channels, 1, 1]`.
    fn push_pool(&self, builder: &mut Builder, x: Value) -> Result<Value> {
        let shape = builder.info(x)?.shape.clone();
        let layout = self.conv.layouts[0];
        let [batch, _, height, width] = layout.sizes(&shape);
        let channels = self.pooled * self.pooled * self.c_in;
        let means = builder.scratch("channel means", &[batch, channels, 1, 1], Elem::F32);
        if self.pooled == 1 {
            Pool::global(self.c_in, height * width, layout).push(builder, [x, means], batch)?;
            return Ok(means);
        }
        // Two windows an axis; those of an odd one share its middle.
        let window = [height.div_ceil(2), width.div_ceil(2)];
        let step = [height / 2, width / 2];
        let desc = ConvDesc::new(self.c_in, self.c_in, window).stride(step).groups(self.c_in);
        let mean = WindowPool::<2>::new(&self.context, &desc, Pooling::Mean)?;
        mean.layouts(layout, Layout::ChannelsFirst).lower(builder, Io::new(x, means))?;
        Ok(means)
    }
}

impl AnyLayer for Dcd2d {
    fn context(&self) -> &Context {
        &self.context
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let shape = self.conv.output_shape(input)?;
        let [_, _, height, width] = self.conv.layouts[0].sizes(input);
        if height.min(width) < self.pooled {
            return Err(Error::Shape {
                what: "input of a layer that pools to 2 x 2".into(),
                expected: "2 x 2 at least".into(),
                found: format!("{height} x {width}"),
            });
        }
        let size = |shape: &[usize], layout: Layout| layout.sizes(shape);
        let narrow = size(&self.q.output_shape(input)?, Layout::ChannelsFirst);
        let found = size(&shape, self.conv.layouts[1]);
        if found[2..] != narrow[2..] {
            let what = "output size of a DCD layer's static convolution";
            return Err(Error::shape(what, &narrow[2..], &found[2..]));
        }
        Ok(shape)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        let Io { x, y, .. } = io;
        let input = builder.info(x)?.shape.clone();
        let (shape, elem) = (self.conv.output_shape(&input)?, builder.info(y)?.elem);
        let [batch, c_out, height, width] = self.conv.layouts[1].sizes(&shape);
        let mut vector = |name, len| builder.scratch(name, &[batch, len, 1, 1], Elem::F32);
        let squeezed = self.squeeze.geometry.c_out;
        let [u, gate] = ["squeezed means", "gate"].map(|name| vector(name, squeezed));
        let phi = vector("matrix of the sample", self.latent * self.latent);
        let lambda = vector("gains of the channels", c_out);
        let path = [batch, self.latent, height, width];
        let [z, fused] = ["narrow path", "fused narrow path"]
            .map(|name| builder.scratch(name, &path, Elem::F32));
        // What is added to the output has its element type.
        let r = builder.scratch("static path", &shape, elem);

        let means = self.push_pool(builder, x)?;
        self.squeeze.lower_conv(builder, Io::new(means, u))?;
        self.gate.lower_conv(builder, Io::new(u, gate))?;
        self.phi.lower_conv(builder, Io::new(u, phi).given(&[gate]))?;
        self.lambda.lower_conv(builder, Io::new(u, lambda).given(&[gate]))?;
        self.conv.lower_conv(builder, Io { y: r, ..io }.given(&[lambda]))?;
        self.q.lower_conv(builder, Io::new(x, z))?;
        self.fuse.lower_conv(builder, Io::new(z, fused).given(&[phi]).adding(z))?;
        self.p.lower_conv(builder, Io::new(fused, y).adding(r))
    }
}
ways!([] Dcd2d, 2);

/// The factor 2 of hs (0 to 2) over the hard sigmoid (0 to 1) goes into the weights behind it.
fn doubled(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| 2.0 * v).collect()
}
