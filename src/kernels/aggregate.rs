//! Host side of `shaders/aggregate.wgsl`: each sample's kernel and bias from the bank.

use super::{Const, Dispatch, Kernel, KernelDef, Resources, Slice, Slot, Value, Variant};
use crate::caps::Caps;
use crate::error::{Result, index32};
use crate::problem::{AttentionRow, BLOCK, Cells, Problem, WeightOrder};

pub(crate) const DEF: KernelDef = KernelDef {
    slots: &[Slot::Bank],
    storage: &[false, false, false, true],
    lanes: false,
    matrices: false,
};

/// Mirrors `AggregateParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct AggregateParams {
    bank_base: u32,
    bias_base: u32,
    attention_base: u32,
    sample_weights_base: u32,
    batch: u32,
    groups: u32,
    c_in: u32,
    c_out: u32,
    weights: u32,
    sample_stride: u32,
    attention_stride: u32,
    mix_offset: u32,
    channel_gain_offset: u32,
    filter_gain_offset: u32,
    spatial_gain_offset: u32,
    workgroups: u32,
}

const WORKGROUP: u32 = 64;
/// Samples of one invocation.
const SAMPLES: usize = 4;

/// What is mixed, by what, and where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MixValues {
    pub bank: Value,
    pub bias: Option<Value>,
    pub attention: Option<Value>,
    /// Each sample's kernel and bias `[batch, row]`.
    pub sample_weights: Value,
}

impl MixValues {
    /// Their slices for `batch` samples from `first` on: `bank` elements of the bank, `bias` of the
    /// biases, rows of attention and of weights.
    pub(super) fn slices(
        self,
        [bank, bias]: [usize; 2],
        [attention, row]: [usize; 2],
        first: usize,
        batch: usize,
    ) -> Result<Vec<Slice>> {
        let bank = Slice::whole(self.bank, bank)?;
        let bias = self.bias.map(|value| Slice::whole(value, bias)).transpose()?;
        let attention = self
            .attention
            .filter(|_| attention > 0)
            .map(|value| Slice::samples(value, attention, first, batch));
        let sample_weights = Slice::samples(self.sample_weights, row, first, batch)?;
        let or_unused = |slice: Option<Slice>| slice.unwrap_or(bank.stand_in());
        Ok(vec![bank, or_unused(bias), or_unused(attention.transpose()?), sample_weights])
    }
}

/// Weights of `batch` samples from `first` on.
pub(crate) fn dispatch(
    values: MixValues,
    problem: &Problem,
    attention: AttentionRow,
    cells: Option<Cells>,
    first: usize,
    batch: usize,
    caps: &Caps,
) -> Result<Dispatch> {
    let Problem { geometry, has_bias, order, .. } = problem;
    let (has_bias, order) = (*has_bias, *order);
    let weights = geometry.kernel_len(order);
    let row = geometry.row(order, has_bias);
    let block = if order == WeightOrder::Blocked { BLOCK } else { 1 };
    let (mixed, kernel) =
        cells.map_or((geometry.kernels, weights), |cells| (cells.count, cells.elements()));
    let held = [mixed.saturating_mul(kernel), geometry.kernels * geometry.c_out];
    let slices = values.slices(held, [attention.stride, row], first, batch)?;

    let n = |value: usize| index32("attention row", value);
    let workgroups = row.div_ceil(WORKGROUP as usize) * batch.div_ceil(SAMPLES);
    let params = AggregateParams {
        batch: index32("batch", batch)?,
        groups: index32("groups", geometry.groups)?,
        c_in: index32("input channels", geometry.c_in / geometry.groups)?,
        c_out: index32("output channels", geometry.c_out / geometry.groups)?,
        weights: index32("kernel", weights)?,
        sample_stride: index32("kernel row", row)?,
        attention_stride: n(attention.stride)?,
        mix_offset: n(attention.mix.unwrap_or(0))?,
        channel_gain_offset: n(attention.channel.unwrap_or(0))?,
        filter_gain_offset: n(attention.filter.unwrap_or(0))?,
        spatial_gain_offset: n(attention.spatial.unwrap_or(0))?,
        workgroups: index32("workgroups", workgroups)?,
        ..Default::default()
    };
    let consts = vec![
        ("WORKGROUP", Const::U32(WORKGROUP)),
        ("KERNELS", Const::U32(index32("kernels", mixed)?)),
        ("TAPS", Const::U32(index32("taps", geometry.taps())?)),
        ("BLOCK", Const::U32(index32("block", block)?)),
        ("HAS_MIX", Const::Bool(attention.mix.is_some())),
        ("HAS_BIAS", Const::Bool(has_bias)),
        ("SPATIAL_GAIN", Const::Bool(attention.spatial.is_some())),
        ("CHANNEL_GAIN", Const::Bool(attention.channel.is_some())),
        ("FILTER_GAIN", Const::Bool(attention.filter.is_some())),
        ("CELLS", Const::Bool(cells.is_some())),
        ("CELL_OUT", Const::U32(index32("cell", cells.map_or(1, |c| c.c_out))?)),
        ("CELL_IN", Const::U32(index32("cell", cells.map_or(1, |c| c.c_in))?)),
        ("CELL_TAPS", Const::U32(index32("cell", cells.map_or(1, |c| c.taps))?)),
    ];
    let variant = Variant { kernel: Kernel::Aggregate, elems: vec![geometry.bank], consts };
    Dispatch::new(
        variant,
        bytemuck::bytes_of(&params),
        slices,
        workgroups as u64,
        Resources::iterations(2 * (mixed as u64 + 1)),
        caps,
    )
}
