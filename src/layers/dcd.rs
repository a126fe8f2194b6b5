//! Dynamic channel fusion by matrix decomposition (DCD).

use super::{
    AnyLayer, BatchNorm, Given, Layer, PerSample, Static, check_given, global_average_pool,
    narrowed_scale_shift, ways, write_all,
};
use crate::device::{Bound, Context, Tensor};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::Operand;
use crate::problem::{Activation, AttentionSource, ConvDesc, Parts};

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
    conv: Layer<2, Given>,
    q: Layer<2, Static>,
    fuse: Layer<2, PerSample>,
    p: Layer<2, Static>,
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

    /// New weights of the same shapes: see [Changing weights](Layer#changing-weights).
    ///
    /// # Errors
    /// [`Error::Shape`] if they have other shapes, [`Error::Value`] for NaN. Nothing is changed
    /// then.
    pub fn set_weights(&self, weights: &DcdWeights) -> Result<()> {
        let affine = |norm| -> Result<_> {
            let (scale, shift) = narrowed_scale_shift(norm)?;
            Ok((Operand::Affine, [scale, shift].concat()))
        };
        let fixed = |layer: &Layer<2, Static>, kernel: &[f32]| layer.banks(kernel, None);
        let gained = |layer: &Layer<2, Given>, kernel: &[f32]| layer.banks(&doubled(kernel), None);
        let mut q = fixed(&self.q, &weights.q)?;
        q.push(affine(&weights.norm1)?);
        let mut values = self.squeeze.replacing(fixed(&self.squeeze, &weights.squeeze)?)?;
        values.extend(self.gate.replacing(fixed(&self.gate, &weights.gate)?)?);
        values.extend(self.phi.replacing(gained(&self.phi, &weights.phi)?)?);
        values.extend(self.lambda.replacing(gained(&self.lambda, &weights.scale)?)?);
        values.extend(self.conv.replacing(gained(&self.conv, &weights.conv)?)?);
        values.extend(self.q.replacing(q)?);
        values.extend(self.fuse.replacing(vec![affine(&weights.norm2)?])?);
        values.extend(self.p.replacing(fixed(&self.p, &weights.p)?)?);
        write_all(&self.context, values)
    }

    /// Means of the input as `[batch, channels, 1, 1]`.
    fn pool(&self, x: &Tensor) -> Result<(Bound, Tensor)> {
        let [batch, height, width] = [0, 2, 3].map(|axis| x.shape()[axis]);
        let channels = self.pooled * self.pooled * self.c_in;
        let what = Operand::Means.name();
        if self.pooled == 1 {
            let means = Tensor::new(&self.context, what, &[batch, channels, 1, 1], Elem::F32)?;
            return Ok((global_average_pool(&self.context, x, &means)?, means));
        }
        // Two windows an axis; those of an odd one share its middle.
        let window = [height.div_ceil(2), width.div_ceil(2)];
        let step = [height / 2, width / 2];
        let desc = ConvDesc::new(self.c_in, self.c_in, window).stride(step).groups(self.c_in);
        let taps = window[0] * window[1];
        let mean = Layer::<2, Static>::new(
            &self.context,
            &desc,
            &vec![1.0 / taps as f32; self.c_in * taps],
            None,
        )?;
        let means = Tensor::new(&self.context, what, &[batch, self.c_in, 2, 2], Elem::F32)?;
        let bound = mean.bind(x, &means)?;
        Ok((bound, means.reshape(&[batch, channels, 1, 1])?))
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn input_shape(&self, batch: usize, input: [usize; 2]) -> Vec<usize> {
        self.q.input_shape(batch, input)
    }
}

impl AnyLayer for Dcd2d {
    fn context(&self) -> &Context {
        &self.context
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let shape = self.conv.output_shape(input)?;
        match input[2..].iter().min() {
            Some(&least) if least < self.pooled => Err(Error::Shape {
                what: "input of a layer that pools to 2 x 2".into(),
                expected: "2 x 2 at least".into(),
                found: format!("{} x {}", input[2], input[3]),
            }),
            _ => Ok(shape),
        }
    }

    fn bind_any(
        &self,
        x: &Tensor,
        given: Option<&Tensor>,
        residual: Option<&Tensor>,
        y: &Tensor,
    ) -> Result<Bound> {
        check_given(self, x, given)?;
        let shape = self.output_shape(x.shape())?;
        let batch = shape[0];
        let zeros =
            |shape: &[usize]| Tensor::new(&self.context, "intermediate result", shape, Elem::F32);
        let vector = |layer: &Layer<2, Static>| zeros(&[batch, layer.geometry.c_out, 1, 1]);
        let given = |layer: &Layer<2, Given>, x: &Tensor, gains: &Tensor, y: &Tensor| {
            let gains = gains.reshape(&gains.shape()[..2])?;
            layer.bind_any(x, Some(&gains), None, y)
        };

        let (pool, means) = self.pool(x)?;
        let (u, gate) = (vector(&self.squeeze)?, vector(&self.gate)?);
        let phi = zeros(&[batch, self.latent * self.latent, 1, 1])?;
        let lambda = zeros(&[batch, shape[1], 1, 1])?;
        // What is added to the output has its element type.
        let r = Tensor::new(&self.context, "intermediate result", &shape, y.elem())?;
        let path = [batch, self.latent, shape[2], shape[3]];
        let (z, fused) = (zeros(&path)?, zeros(&path)?);
        let kernels = phi.reshape(&[batch, self.latent * self.latent])?;
        Ok(Bound::chain(vec![
            pool,
            self.squeeze.bind(&means, &u)?,
            self.gate.bind(&u, &gate)?,
            given(&self.phi, &u, &gate, &phi)?,
            given(&self.lambda, &u, &gate, &lambda)?,
            self.conv.bind_any(x, Some(&lambda.reshape(&shape[..2])?), residual, &r)?,
            self.q.bind(x, &z)?,
            self.fuse.bind_add(&z, &kernels, &z, &fused)?,
            self.p.bind_add(&fused, &r, y)?,
        ]))
    }
}
ways!([] Dcd2d, 2);

/// The factor 2 of hs (0 to 2) over the hard sigmoid (0 to 1) goes into the weights behind it.
fn doubled(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| 2.0 * v).collect()
}
