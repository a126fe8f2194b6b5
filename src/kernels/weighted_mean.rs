//! Host side of `shaders/weighted_mean.wgsl`: weighted means over the positions.

use super::{Const, Dispatch, Kernel, KernelDef, Resources, Slice, Value, Variant};
use crate::caps::Caps;
use crate::error::{Result, index32};

pub(crate) const DEF: KernelDef =
    KernelDef { slots: &[], storage: &[false, false, true], lanes: false, matrices: false };

/// Mirrors `MeanParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct MeanParams {
    x_base: u32,
    weights_base: u32,
    means_base: u32,
    planes: u32,
    size: u32,
    least: f32,
}

const WORKGROUP: u32 = 64;

/// From `x` and weights `[batch, channels, size]` to means `[batch, channels]`; weights count as
/// `least` at least.
pub(crate) fn dispatch(
    [x, weights, means]: [Value; 3],
    [batch, channels, size]: [usize; 3],
    least: f32,
    caps: &Caps,
) -> Result<Dispatch> {
    let sample = channels.saturating_mul(size);
    let slices = vec![
        Slice::samples(x, sample, 0, batch)?,
        Slice::samples(weights, sample, 0, batch)?,
        Slice::samples(means, channels, 0, batch)?,
    ];
    let planes = batch.saturating_mul(channels);
    let params = MeanParams {
        planes: index32("planes", planes)?,
        size: index32("positions", size)?,
        least,
        ..Default::default()
    };
    let consts = vec![("WORKGROUP", Const::U32(WORKGROUP))];
    let variant = Variant { kernel: Kernel::WeightedMean, elems: Vec::new(), consts };
    Dispatch::new(
        variant,
        bytemuck::bytes_of(&params),
        slices,
        planes.div_ceil(WORKGROUP as usize) as u64,
        Resources::iterations(size as u64 + 1),
        caps,
    )
}
