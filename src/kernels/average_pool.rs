//! Host side of `shaders/average_pool.wgsl`: global average pooling.

use super::conv::DISPATCH;
use super::{Const, Dispatch, Kernel, KernelDef, Operand, Slice, Variant, elements};
use crate::caps::Caps;
use crate::error::{Result, index32};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "average_pool",
    parts: &[DISPATCH, ("average_pool.wgsl", include_str!("../../shaders/average_pool.wgsl"))],
    storage: &[false, true],
};

/// Mirrors `PoolParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct PoolParams {
    x_base: u32,
    means_base: u32,
    planes: u32,
    size: u32,
}

/// Trips of the inner loop: far below 65,535, and short enough that its sum loses little.
const CHUNK: u32 = 1024;

/// Means of `planes` planes of `size` elements, the first of which is plane `first` of `input`.
pub(crate) fn dispatch([input, output]: [Slice; 2], planes: usize, size: usize, caps: &Caps) -> Result<Dispatch> {
    elements(input.operand, planes.saturating_mul(size))?;
    // Maps of a few dozen positions would leave most of a larger workgroup idle.
    let workgroup = if size <= 256 { 32 } else { 128 };
    let consts = vec![("WORKGROUP", Const::U32(workgroup)), ("CHUNK", Const::U32(CHUNK))];
    let params =
        PoolParams { planes: index32("planes", planes)?, size: index32("positions", size)?, ..Default::default() };
    Dispatch::new(
        Variant { kernel: Kernel::AveragePool, consts },
        bytemuck::bytes_of(&params),
        vec![input, output],
        planes as u64,
        4 * workgroup,
        caps,
    )
}

/// Slices of a layer's input and its means, for `batch` samples from `first` on.
pub(crate) fn layer_slices(channels: usize, size: usize, first: usize, batch: usize) -> [Slice; 2] {
    let plane_run = (channels * size) as u64;
    [
        Slice { operand: Operand::Input, start: first as u64 * plane_run, len: batch as u64 * plane_run },
        Slice { operand: Operand::Means, start: 0, len: (batch * channels) as u64 },
    ]
}
