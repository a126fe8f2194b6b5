//! Host side of `shaders/channel_softmax.wgsl`: softmax over the channels at every position.

use super::{Const, Dispatch, Kernel, KernelDef, Resources, Slice, Value, Variant};
use crate::caps::Caps;
use crate::error::{Result, index32};

pub(crate) const DEF: KernelDef =
    KernelDef { slots: &[], storage: &[false, true, false], lanes: false, matrices: false };

/// Mirrors `SoftmaxParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct SoftmaxParams {
    logits_base: u32,
    maps_base: u32,
    temperature_base: u32,
    batch: u32,
    channels: u32,
    size: u32,
}

const WORKGROUP: u32 = 64;

/// From logits `[batch, channels, size]` to maps of the same shape.
pub(crate) fn dispatch(
    [logits, maps, temperature]: [Value; 3],
    [batch, channels, size]: [usize; 3],
    caps: &Caps,
) -> Result<Dispatch> {
    let sample = channels.saturating_mul(size);
    let slices = vec![
        Slice::samples(logits, sample, 0, batch)?,
        Slice::samples(maps, sample, 0, batch)?,
        Slice::whole(temperature, 1)?,
    ];
    let params = SoftmaxParams {
        batch: index32("batch", batch)?,
        channels: index32("channels", channels)?,
        size: index32("positions", size)?,
        ..Default::default()
    };
    let variant = Variant {
        kernel: Kernel::ChannelSoftmax,
        elems: Vec::new(),
        consts: vec![("WORKGROUP", Const::U32(WORKGROUP))],
    };
    let workgroups = (batch * size).div_ceil(WORKGROUP as usize) as u64;
    Dispatch::new(
        variant,
        bytemuck::bytes_of(&params),
        slices,
        workgroups,
        Resources::iterations(3 * (channels as u64 + 1)),
        caps,
    )
}
