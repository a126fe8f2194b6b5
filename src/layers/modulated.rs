//! Modulated convolution of StyleGAN2.

use super::{AnyLayer, Given, Io, Layer, one_kernel, ways, write_all};
use crate::device::{Bound, Builder, Context, Tensor, check_elem};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::{Value, demodulate};
use crate::problem::{AttentionSource, ConvDesc, Geometry, Layout, Parts};
use crate::program::What;
use crate::reference::narrow;

/// Modulated convolution: input channels are scaled by a style, output channels by what brings
/// their weights back to unit norm.
///
/// ```text
/// d[b, co]   = 1 / sqrt(sum_{ci, taps} (weight[co, ci, tap] * style[b, ci])^2 + 1e-8)
///              or 1, without demodulation
/// y[b, co]   = d[b, co] * sum_ci weight[co, ci] * (style[b, ci] * x[b, ci])
/// ```
///
/// All samples share one kernel: style and demodulation are the channel and filter gains of the
/// convolution. Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN",
/// CVPR 2020, section 2.2.
#[derive(Clone, Debug)]
pub struct ModulatedConv2d {
    context: Context,
    pub(super) conv: Layer<2, Given>,
    norms: Tensor,
    demodulate: bool,
}

/// Root of the sum over the taps of the squared weights, for each output channel and each of its
/// input channels.
fn norms(g: &Geometry, weight: &[f32], demodulate: bool) -> Result<Vec<f32>> {
    let norm = |taps: &[f32]| taps.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>().sqrt();
    let norms: Vec<f64> = g.bank_rows(weight).chunks_exact(g.taps()).map(norm).collect();
    match norms.iter().find(|&&norm| demodulate && norm > LARGEST_NORM) {
        None => Ok(narrow(&norms)),
        Some(norm) => Err(Error::Value {
            what: "norm of the weights between two channels".into(),
            needed: format!("at most {LARGEST_NORM:e} for demodulation"),
            found: format!("{norm:e}"),
        }),
    }
}

/// Products of larger norms with styles, of which the shader lets 2^36 pass, might overflow.
const LARGEST_NORM: f64 = (1_u64 << 60) as f64;

impl ModulatedConv2d {
    /// `weight [channels out, channels in / groups, kernel..]`, transposed `[channels in, channels
    /// out / groups, kernel..]`, as of StyleGAN2's upsampling. The description has one kernel.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN and for weights that are
    /// to be demodulated and whose norm over the taps is above 2^60.
    pub fn new(
        context: &Context,
        desc: &ConvDesc<2>,
        weight: &[f32],
        demodulate: bool,
    ) -> Result<Self> {
        let g = desc.geometry()?;
        one_kernel("a modulated convolution", &g)?;
        let parts = Parts { channel: true, filter: demodulate, ..Parts::default() };
        let conv =
            Layer::<2, Given>::create(context, desc, AttentionSource::Given(parts), weight, None)?;
        let norms = norms(&g, weight, demodulate)?;
        let norms =
            Tensor::filled(context, "norms of the weights", &[norms.len()], &norms, Elem::F32)?;
        Ok(Self { context: context.clone(), conv, norms, demodulate })
    }

    /// As [`Layer::layouts`].
    #[must_use]
    pub fn layouts(mut self, input: Layout, output: Layout) -> Self {
        self.conv = self.conv.layouts(input, output);
        self
    }

    /// A new weight of the same shape: see [Changing weights](Layer#changing-weights).
    ///
    /// # Errors
    /// [`Error::Shape`] if it has another shape, [`Error::Value`] for NaN. Nothing is changed then.
    pub fn set_weights(&self, weight: &[f32]) -> Result<()> {
        let mut values = self.conv.replacing(self.conv.banks(weight, None)?)?;
        values.push((&self.norms, norms(&self.conv.geometry, weight, self.demodulate)?));
        write_all(&self.context, values)
    }
}

impl AnyLayer for ModulatedConv2d {
    fn context(&self) -> &Context {
        &self.context
    }

    fn given(&self, input: &[usize]) -> Result<Vec<(&'static str, Vec<usize>)>> {
        let (batch, _) = self.conv.split_shape(input)?;
        Ok(vec![("style", vec![batch, self.conv.geometry.c_in])])
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.conv.output_shape(input)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        let [style] = io.all_given()?;
        let batch = builder.info(io.x)?.shape[0];
        check_elem("style", builder.info(style)?.elem, Elem::F32)?;
        let g = &self.conv.geometry;
        let row = g.c_in + if self.demodulate { g.c_out } else { 0 };
        let gains = builder.scratch("gains of the style", &[batch, row], Elem::F32);
        let norms = builder.tensor("norms of the weights", &self.norms);
        let caps = self.context.caps();
        let values = [style, norms, gains];
        let step = demodulate::dispatch(values, g, self.demodulate, batch, caps)?;
        let (geometry, demodulate) = (Box::new(*g), self.demodulate);
        builder.push(What::Demodulate { geometry, demodulate, values }, [step]);
        self.conv.lower_conv(builder, io.given(&[gains]))
    }
}
ways!([] ModulatedConv2d, 2, style);
