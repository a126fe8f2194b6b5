//! Host side of `shaders/aggregate_wide.wgsl`: each sample's kernel in blocks, eight weights and
//! eight samples at a time.

use super::aggregate::MixValues;
use super::{Const, Dispatch, Kernel, KernelDef, Resources, Variant};
use crate::caps::Caps;
use crate::elem::Elem;
use crate::error::{Result, index32};
use crate::problem::{AttentionRow, Problem, WeightOrder};

pub(crate) const DEF: KernelDef =
    KernelDef { slots: &[], storage: &[false, false, false, true], lanes: true, matrices: false };

/// Mirrors `AggregateWideParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct AggregateWideParams {
    bank_base: u32,
    bias_base: u32,
    attention_base: u32,
    sample_weights_base: u32,
    batch: u32,
    c_out: u32,
    weights: u32,
    sample_stride: u32,
    attention_stride: u32,
    mix_offset: u32,
    spatial_gain_offset: u32,
    workgroups: u32,
}

/// Samples of a workgroup, and weights of an invocation at a time.
const EIGHT: usize = 8;

/// Whether this kernel can mix the weights of a problem.
pub(crate) fn can_compute(problem: &Problem, caps: &Caps) -> bool {
    caps.has_lanes() && problem.order == WeightOrder::Blocked && problem.geometry.bank == Elem::F32
}

/// Weights of `batch` samples from `first` on.
pub(crate) fn dispatch(
    values: MixValues,
    problem: &Problem,
    attention: AttentionRow,
    first: usize,
    batch: usize,
    caps: &Caps,
) -> Result<Dispatch> {
    let geometry = &problem.geometry;
    let weights = geometry.kernel_len(problem.order);
    let row = problem.row();
    let units = units(row);
    let held = [geometry.kernels.saturating_mul(weights), geometry.kernels * geometry.c_out];
    let slices = values.slices(held, [attention.stride, row], first, batch)?;
    let workgroups = row.div_ceil(EIGHT * EIGHT * units) * batch.div_ceil(EIGHT);
    let n = |value: usize| index32("attention row", value);
    let params = AggregateWideParams {
        batch: index32("batch", batch)?,
        c_out: index32("output channels", geometry.c_out)?,
        weights: index32("kernel", weights)?,
        sample_stride: index32("kernel row", row)?,
        attention_stride: n(attention.stride)?,
        mix_offset: n(attention.mix.unwrap_or(0))?,
        spatial_gain_offset: n(attention.spatial.unwrap_or(0))?,
        workgroups: index32("workgroups", workgroups)?,
        ..Default::default()
    };
    let consts = vec![
        ("WORKGROUP", Const::U32(8)),
        ("UNITS", Const::U32(index32("units", units)?)),
        ("KERNELS", Const::U32(index32("kernels", geometry.kernels)?)),
        ("TAPS", Const::U32(index32("taps", geometry.taps())?)),
        ("HAS_MIX", Const::Bool(attention.mix.is_some())),
        ("HAS_BIAS", Const::Bool(problem.has_bias)),
        ("SPATIAL_GAIN", Const::Bool(attention.spatial.is_some())),
    ];
    let variant = Variant { kernel: Kernel::AggregateWide, elems: vec![], consts };
    let iterations = geometry.kernels.div_ceil(4) * (1 + units * (2 + EIGHT)) + 1;
    Dispatch::new(
        variant,
        bytemuck::bytes_of(&params),
        slices,
        workgroups as u64,
        Resources::iterations(iterations as u64),
        caps,
    )
}

/// Pieces of a workgroup, 16 at most: many, so that the attention is loaded and a subgroup started
/// once for them, but not so many that a row has less than 64 workgroups.
fn units(row: usize) -> usize {
    (row / (64 * EIGHT * EIGHT)).clamp(1, 16)
}
