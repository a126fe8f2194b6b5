//! Host side of `shaders/attention_mlp.wgsl`: hidden layer, sigmoid heads and softmax head.

use super::conv::DISPATCH;
use super::{Const, Dispatch, Kernel, KernelDef, Operand, Slice, Variant, elements};
use crate::caps::Caps;
use crate::error::{Result, index32};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "attention_mlp",
    parts: &[DISPATCH, ("attention_mlp.wgsl", include_str!("../../shaders/attention_mlp.wgsl"))],
    storage: &[false, false, false, true],
};

/// Mirrors `MlpParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct MlpParams {
    means_base: u32,
    hidden_base: u32,
    heads_base: u32,
    attention_base: u32,
    batch: u32,
    channels: u32,
    sigmoids: u32,
    temperature: f32,
}

/// Sizes of an attention branch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MlpSizes {
    pub channels: usize,
    pub hidden: usize,
    /// Outputs that are gains, and outputs that are mixing weights.
    pub sigmoids: usize,
    pub kernels: usize,
}

const WORKGROUP: u32 = 64;

/// Attention rows of `batch` samples from `first` on; their means are scratch that begins at 0.
pub(crate) fn dispatch(sizes: MlpSizes, temperature: f32, first: usize, batch: usize, caps: &Caps) -> Result<Dispatch> {
    let MlpSizes { channels, hidden, sigmoids, kernels } = sizes;
    let outputs = sigmoids + kernels;
    let whole =
        |operand, count: usize| -> Result<Slice> { Ok(Slice { operand, start: 0, len: elements(operand, count)? }) };
    let slices = vec![
        whole(Operand::Means, batch.saturating_mul(channels))?,
        whole(Operand::HiddenWeights, (channels + 1).saturating_mul(hidden))?,
        whole(Operand::HeadWeights, (hidden + 1).saturating_mul(outputs))?,
        Slice { start: (first * outputs) as u64, ..whole(Operand::Attention, batch.saturating_mul(outputs))? },
    ];
    let hidden = index32("hidden units", hidden)?;
    let kernels = index32("kernels", kernels)?;
    let params = MlpParams {
        batch: index32("batch", batch)?,
        channels: index32("channels", channels)?,
        sigmoids: index32("gains", sigmoids)?,
        temperature,
        ..Default::default()
    };
    let consts =
        vec![("WORKGROUP", Const::U32(WORKGROUP)), ("HIDDEN", Const::U32(hidden)), ("KERNELS", Const::U32(kernels))];
    let memory = hidden.saturating_add(kernels.max(1)).saturating_mul(4);
    let variant = Variant { kernel: Kernel::AttentionMlp, consts };
    Dispatch::new(variant, bytemuck::bytes_of(&params), slices, batch as u64, memory, caps)
}
