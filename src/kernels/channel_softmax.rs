//! Host side of `shaders/channel_softmax.wgsl`: softmax over the channels at every position.

use super::{Const, Dispatch, Kernel, KernelDef, Operand, Resources, Slice, Variant, elements};
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

/// Input and output are `[batch, channels, size]`.
pub(crate) fn dispatch([batch, channels, size]: [usize; 3], caps: &Caps) -> Result<Dispatch> {
    let len = elements(Operand::Input, batch.saturating_mul(channels).saturating_mul(size))?;
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
    let slices = [(Operand::Input, len), (Operand::Output, len), (Operand::Temperature, 1)]
        .map(|(operand, len)| Slice { operand, start: 0, len });
    let workgroups = (batch * size).div_ceil(WORKGROUP as usize) as u64;
    Dispatch::new(
        variant,
        bytemuck::bytes_of(&params),
        slices.to_vec(),
        workgroups,
        Resources::iterations(3 * (channels as u64 + 1)),
        caps,
    )
}
