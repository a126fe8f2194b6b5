//! Host side of `shaders/demodulate.wgsl`: gains of a modulated convolution from its styles.

use super::{Const, Dispatch, Kernel, KernelDef, Resources, Slice, Value, Variant};
use crate::caps::Caps;
use crate::error::{Result, index32};
use crate::problem::Geometry;

pub(crate) const DEF: KernelDef =
    KernelDef { slots: &[], storage: &[false, false, true], lanes: false, matrices: false };

/// Mirrors `DemodulateParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct DemodulateParams {
    style_base: u32,
    norms_base: u32,
    gains_base: u32,
    batch: u32,
    groups: u32,
    c_in: u32,
    c_out: u32,
    epsilon: f32,
}

const WORKGROUP: u32 = 64;
/// Keeps the root of an all-zero style finite; the published value.
const EPSILON: f32 = 1e-8;

/// From styles `[batch, channels in]` and norms of the weights to gains.
pub(crate) fn dispatch(
    [style, norms, gains]: [Value; 3],
    geometry: &Geometry,
    demodulate: bool,
    batch: usize,
    caps: &Caps,
) -> Result<Dispatch> {
    let row = geometry.c_in + if demodulate { geometry.c_out } else { 0 };
    let c_in = geometry.c_in / geometry.groups;
    let slices = vec![
        Slice::samples(style, geometry.c_in, 0, batch)?,
        Slice::whole(norms, geometry.c_out * c_in)?,
        Slice::samples(gains, row, 0, batch)?,
    ];
    let params = DemodulateParams {
        batch: index32("batch", batch)?,
        groups: index32("groups", geometry.groups)?,
        c_in: index32("input channels", c_in)?,
        c_out: index32("output channels", geometry.c_out / geometry.groups)?,
        epsilon: EPSILON,
        ..Default::default()
    };
    let consts =
        vec![("WORKGROUP", Const::U32(WORKGROUP)), ("DEMODULATE", Const::Bool(demodulate))];
    let variant = Variant { kernel: Kernel::Demodulate, elems: Vec::new(), consts };
    let workgroups = (batch * row).div_ceil(WORKGROUP as usize) as u64;
    Dispatch::new(
        variant,
        bytemuck::bytes_of(&params),
        slices,
        workgroups,
        Resources::iterations(3 * (c_in as u64 + 1)),
        caps,
    )
}
