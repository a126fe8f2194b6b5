//! Host side of `shaders/winograd_output.wgsl`: outputs from tiles of products of minimal
//! filtering.

use super::conv::{ConvTask, PLAIN};
use super::winograd_input::WORKGROUP;
use super::{Const, Dispatch, Kernel, KernelDef, Resources, Slice, Slot, Value};
use crate::caps::Caps;
use crate::error::{Result, index32};
use crate::problem::Winograd;

pub(crate) const DEF: KernelDef = KernelDef {
    // Products take the place of x.
    slots: &[Slot::Y],
    ..PLAIN
};

/// For the convolution `task`: what follows its sum happens here.
pub(crate) fn dispatch(
    task: &ConvTask<'_>,
    products: Value,
    winograd: Winograd,
    caps: &Caps,
) -> Result<Dispatch> {
    let task = task.ended();
    let tiles = task.geometry.c_out * winograd.tiles(task.output).iter().product::<usize>();
    let sample = winograd.numbers() * tiles;
    let products = Slice::samples(products, sample, task.first, task.batch)?;
    let slices = task.slices_from(products)?;
    let consts = [("WORKGROUP", WORKGROUP), ("TILE", index32("tile", winograd.tile())?)];
    let workgroups = (task.batch * tiles).div_ceil(WORKGROUP as usize);
    // An iteration for each output and its bias, and those that end the loops.
    let outputs = winograd.tile().pow(2) as u64;
    task.dispatch_of(
        Kernel::WinogradOutput,
        &consts.map(|(name, value)| (name, Const::U32(value))),
        workgroups,
        Resources::iterations(1 + 3 * outputs),
        slices,
        caps,
    )
}
