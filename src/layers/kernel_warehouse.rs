//! KernelWarehouse: kernels assembled from cells that layers share.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::{Layer, one_kernel, transposed_with_bias};
use crate::device::{Context, Tensor, lock};
use crate::elem::Elem;
use crate::error::{Error, Result, check_finite, check_len};
use crate::layers::{BatchNorm, Linear, od_conv};
use crate::problem::{AttentionSource, Branch, Cells, ConvDesc, Geometry, Mixing, Parts};
use crate::program::Weights;
use crate::reference::attention_mlp::{Head, Mlp};
use crate::reference::{LayerWeights, widen};

/// Kind of layer: KernelWarehouse, at inference.
///
/// ```text
/// a   = relu(batch_norm(fc1 * mean(x_b)))                   fc1 [A, channels in]
/// l   = fc2 * a + fc2_bias, in runs of n + 1                a run for each of the kernel's m
///                                                           cells; the last logit is a zero cell
/// att = l / (sum |l| + 1e-3), last one of each run dropped  signed, no softmax
/// cell (q * GO + og) * GI + ig of the kernel = sum_n att[that run, n] * warehouse_n
/// y_b = conv(x_b, kernel) + bias                            the bias is not mixed
/// ```
///
/// q counts places of cells among the taps, og and ig among output channels and input channels of a
/// group. Source: Li and Yao, "KernelWarehouse: Rethinking the Design of Dynamic Convolution", ICML
/// 2024, and its published code (OSVAI/KernelWarehouse), at the inference state, in which the
/// mixing with the initial assignment has gone.
#[derive(Clone, Copy, Debug)]
pub struct KernelWarehouse;

/// The cells, on the device. Several layers are made from one warehouse and share its memory.
#[derive(Clone)]
pub struct Warehouse {
    context: Context,
    cells: Cells,
    /// What the tensor holds, for the reference.
    values: Arc<Mutex<Vec<f32>>>,
    tensor: Tensor,
}

impl fmt::Debug for Warehouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Warehouse of {:?}, {}", self.cells, self.tensor.home())
    }
}

impl Warehouse {
    /// Uploads `values [count, channels out, channels in, taps]` of the cells.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN, [`Error::OutOfMemory`].
    pub fn new(context: &Context, cells: Cells, values: &[f32]) -> Result<Self> {
        check_cells(cells, values)?;
        let tensor = Tensor::filled(context, "cells", &[values.len()], values, Elem::F32)?;
        Ok(Self {
            context: context.clone(),
            cells,
            values: Arc::new(Mutex::new(values.to_vec())),
            tensor,
        })
    }

    /// New values of the cells, for all layers of the warehouse: see
    /// [Changing weights](Layer#changing-weights).
    ///
    /// # Errors
    /// As [`Warehouse::new`]. Nothing is changed then.
    pub fn set(&self, values: &[f32]) -> Result<()> {
        check_cells(self.cells, values)?;
        let mut held = lock(&self.values);
        self.tensor.write(&self.context, values)?;
        held.copy_from_slice(values);
        Ok(())
    }

    /// Sizes of the cells.
    #[must_use]
    pub fn cells(&self) -> Cells {
        self.cells
    }

    pub(super) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Refuses a warehouse of another device, and cells that do not tile a layer's kernel.
    pub(super) fn check_tiles(&self, context: &Context, g: &Geometry) -> Result<()> {
        if g.bank != Elem::F32 {
            return Err(Error::Unsupported {
                what: format!("a warehouse in {:?}", g.bank),
                because: "its cells are kept in f32".into(),
            });
        }
        context.home().check("warehouse", self.tensor.home())?;
        let cells = self.cells;
        let sizes = [
            ("cells: output channels", cells.c_out, g.c_out),
            ("cells: input channels", cells.c_in, g.c_in / g.groups),
            ("cells: taps", cells.taps, g.taps()),
        ];
        for (what, cell, whole) in sizes {
            let fits = cell > 0
                && whole.is_multiple_of(cell)
                && (what != "cells: taps" || cell == 1 || cell == whole);
            if !fits {
                return Err(Error::Shape {
                    what: what.into(),
                    expected: format!("a divisor of the layer's {whole}"),
                    found: cell.to_string(),
                });
            }
        }
        Ok(())
    }
}

fn check_cells(cells: Cells, values: &[f32]) -> Result<()> {
    if cells.count == 0 || cells.elements() == 0 {
        return Err(Error::Shape {
            what: "cells".into(),
            expected: "at least 1, of at least 1 element".into(),
            found: format!("{} of {} elements", cells.count, cells.elements()),
        });
    }
    check_len("cells", values, cells.count.saturating_mul(cells.elements()))?;
    check_finite("cells", values)
}

/// Weights of one layer, rows outermost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelWarehouseWeights {
    /// Hidden layer `[A, channels in]`, published as `fc1`.
    pub hidden: Vec<f32>,
    /// Batch norm of the hidden layer.
    pub norm: BatchNorm,
    /// Head, `m * (n + 1)` outputs, published as `fc2`.
    pub head: Linear,
    /// Bias of the convolution `[channels out]`.
    pub bias: Option<Vec<f32>>,
}

impl KernelWarehouseWeights {
    fn branch(&self, cells: Cells) -> Branch {
        let parts = Parts { mix: true, ..Parts::default() };
        Branch {
            context: None,
            hidden: Some(self.norm.weight.len()),
            parts,
            mixing: Mixing::Cells(cells),
        }
    }

    /// Weights of the attention.
    fn attention(&self, g: &Geometry, cells: Cells) -> Result<Weights<Vec<f32>>> {
        let hidden = self.norm.weight.len();
        if hidden == 0 {
            let what = "hidden units of the attention".into();
            return Err(Error::Shape { what, expected: "at least 1".into(), found: "0".into() });
        }
        let logits = cells.per_kernel(g).saturating_mul(cells.count.saturating_add(1));
        check_len("fc2 weight", &self.head.weight, logits.saturating_mul(hidden))?;
        check_len("fc2 bias", &self.head.bias, logits)?;
        check_finite("fc2 weight", &self.head.weight)?;
        check_finite("fc2 bias", &self.head.bias)?;
        Ok(Weights {
            hidden: Some(od_conv::folded_hidden(g.c_in, &self.hidden, &self.norm)?),
            heads: Some(transposed_with_bias(&self.head.weight, hidden, &self.head.bias)),
            ..Weights::default()
        })
    }

    /// The same weights for [`reference::layer`](crate::reference::layer).
    #[must_use]
    pub fn reference(&self, warehouse: &Warehouse) -> LayerWeights {
        let mlp = Mlp {
            hidden: widen(&self.hidden),
            hidden_bias: None,
            norm: Some(self.norm.reference()),
            heads: widen(&self.head.weight),
            head_bias: widen(&self.head.bias),
            sigmoids: 0,
            head: Head::Signed { cells: warehouse.cells.count },
            temperature: 1.0,
        };
        LayerWeights {
            bank: widen(&lock(&warehouse.values)),
            bias: self.bias.as_deref().map(widen),
            mlp: Some(mlp),
            ..Default::default()
        }
    }
}

impl<const D: usize> Layer<D, KernelWarehouse> {
    /// A layer that assembles its kernels from `warehouse`. The description has one kernel.
    ///
    /// # Errors
    /// [`Error::Shape`] if the cells do not tile the kernel or the sizes do not fit,
    /// [`Error::Value`] for NaN, [`Error::OtherDevice`] if the warehouse is of another device.
    pub fn new(
        context: &Context,
        desc: &ConvDesc<D>,
        weights: &KernelWarehouseWeights,
        warehouse: &Warehouse,
    ) -> Result<Self> {
        let g = desc.geometry()?;
        one_kernel("a KernelWarehouse layer", &g)?;
        warehouse.check_tiles(context, &g)?;
        let cells = warehouse.cells;
        let own = weights.attention(&g, cells)?;
        let attention = AttentionSource::Branch(weights.branch(cells));
        let mut layer = Self::empty(context, desc, attention, weights.bias.is_some())?;
        layer.weights.bank = Some(warehouse.tensor.clone());
        let bias = layer.bias_bank(weights.bias.as_deref())?;
        layer.fix(Weights { bias, temperature: Some(vec![1.0]), ..own })?;
        Ok(layer)
    }

    /// New weights of the same shapes: see [Changing weights](Layer#changing-weights). The cells
    /// are changed by [`Warehouse::set`].
    ///
    /// # Errors
    /// [`Error::Shape`] if they have other shapes, [`Error::Value`] for NaN. Nothing is changed
    /// then.
    pub fn set_weights(&self, weights: &KernelWarehouseWeights) -> Result<()> {
        let AttentionSource::Branch(Branch { mixing: Mixing::Cells(cells), .. }) = self.attention
        else {
            unreachable!("a KernelWarehouse layer is made with cells")
        };
        self.check_branch(&weights.branch(cells))?;
        let attention = weights.attention(&self.geometry, cells)?;
        self.replace(Weights { bias: self.bias_bank(weights.bias.as_deref())?, ..attention })
    }
}
