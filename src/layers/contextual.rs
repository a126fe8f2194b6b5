//! Convolutions whose attention comes from a vector that the caller gives.

use super::{AnyLayer, Io, Layer, Linear, Warehouse, any_layer, checked_temperature, ways};
use crate::device::{Bound, Builder, Context, Tensor};
use crate::error::{Error, Result, check_finite, check_len};
use crate::kernels::Value;
use crate::layers::{one_kernel, transposed_with_bias};
use crate::problem::{AttentionSource, Branch, ConvDesc, Mixing, Parts};
use crate::program::Weights;

/// Kind of layer: attention heads on a context that the caller gives, `[batch, width]`.
///
/// ```text
/// alpha_b = softmax((head * context_b + bias) / temperature)
/// y_b     = conv(x_b, sum_k alpha_bk * bank_k) + sum_k alpha_bk * bias_k
/// ```
///
/// Several convolutions of a block share one context. Source: Schmid et al., "Dynamic Convolutional
/// Neural Networks as Efficient Pre-trained Audio Models", 2023 (DyMN), and its published code
/// (fschmid56/EfficientAT).
///
/// With a warehouse the kernel is assembled from its cells by signed attention, as
/// [`KernelWarehouse`](super::KernelWarehouse) has it: for variants whose hidden layer has another
/// norm than a batch norm. The context is then the hidden layer.
#[derive(Clone, Copy, Debug)]
pub struct Contextual;

/// Head weights as the kernel wants them, for so many logits, and the width of the context.
fn packed_head(head: &Linear, logits: usize) -> Result<(Vec<f32>, usize)> {
    let width = head.weight.len() / logits.max(1);
    if width == 0 {
        return Err(Error::Shape {
            what: "head weight".into(),
            expected: format!("[{logits}, width of the context]"),
            found: format!("{} elements", head.weight.len()),
        });
    }
    check_len("head weight", &head.weight, logits.saturating_mul(width))?;
    check_len("head bias", &head.bias, logits)?;
    check_finite("head weight", &head.weight)?;
    check_finite("head bias", &head.bias)?;
    Ok((transposed_with_bias(&head.weight, width, &head.bias), width))
}

/// Attention of heads on a context of this width.
fn source(width: usize, mixing: Mixing) -> AttentionSource {
    let parts = Parts { mix: true, ..Parts::default() };
    AttentionSource::Branch(Branch { context: Some(width), hidden: None, parts, mixing })
}

impl<const D: usize> Layer<D, Contextual> {
    /// `bank [K, channels out, channels in / groups, kernel..]`, `bias [K, channels out]`, a head
    /// of K outputs.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN or a temperature that is
    /// not above 0.
    pub fn new(
        context: &Context,
        desc: &ConvDesc<D>,
        bank: &[f32],
        bias: Option<&[f32]>,
        head: &Linear,
        temperature: f32,
    ) -> Result<Self> {
        let temperature = Some(vec![checked_temperature(temperature)?]);
        let (heads, width) = packed_head(head, desc.geometry()?.kernels)?;
        let attention = source(width, Mixing::Softmax);
        let mut layer = Self::create(context, desc, attention, bank, bias)?;
        layer.fix(Weights { heads: Some(heads), temperature, ..Weights::default() })?;
        Ok(layer)
    }

    /// From the cells of a warehouse: a head of `m * (n + 1)` outputs, for each of the kernel's m
    /// cells one an n-th cell of the warehouse and one for a cell of zeros; `bias [channels out]`.
    /// The description has one kernel.
    ///
    /// # Errors
    /// As [`Layer<D, KernelWarehouse>::new`](super::Layer), whose attention is another.
    pub fn of_warehouse(
        context: &Context,
        desc: &ConvDesc<D>,
        warehouse: &Warehouse,
        bias: Option<&[f32]>,
        head: &Linear,
    ) -> Result<Self> {
        let g = desc.geometry()?;
        one_kernel("a layer of a warehouse", &g)?;
        warehouse.check_tiles(context, &g)?;
        let cells = warehouse.cells();
        let logits = cells.per_kernel(&g).saturating_mul(cells.count.saturating_add(1));
        let (heads, width) = packed_head(head, logits)?;
        let attention = source(width, Mixing::Cells(cells));
        let mut layer = Self::empty(context, desc, attention, bias.is_some())?;
        layer.weights.bank = Some(warehouse.tensor().clone());
        let bias = layer.bias_bank(bias)?;
        let temperature = Some(vec![1.0]);
        layer.fix(Weights { bias, temperature, heads: Some(heads), ..Weights::default() })?;
        Ok(layer)
    }

    /// Width of the context.
    fn width(&self) -> usize {
        match self.attention {
            AttentionSource::Branch(Branch { context: Some(width), .. }) => width,
            _ => 0,
        }
    }
}

any_layer!(
    [const D: usize] Layer<D, Contextual>,
    |layer, input| Ok(vec![("context", vec![input.0, layer.width()])])
);
ways!([const D: usize] Layer<D, Contextual>, D, context);
