//! Host side of `shaders/winograd_input.wgsl`: tiles of inputs for minimal filtering.

use super::conv::{ConvTask, ConvValues, PLAIN};
use super::{Const, Dispatch, Kernel, KernelDef, Resources, Slot, Value};
use crate::caps::Caps;
use crate::error::{Result, index32};
use crate::problem::{Geometry, Winograd};

pub(crate) const DEF: KernelDef = KernelDef {
    // Tiles take the place of y.
    slots: &[Slot::X],
    ..PLAIN
};

/// Invocations of a workgroup, each with a tile of one channel.
pub(super) const WORKGROUP: u32 = 64;

/// For the convolution `task`, whose gains of channels are applied here. Each number of a tile is a
/// channel of the output, so that what is bound is what any convolution binds.
pub(crate) fn dispatch(
    task: &ConvTask<'_>,
    tiles: Value,
    winograd: Winograd,
    caps: &Caps,
) -> Result<Dispatch> {
    let g = task.geometry;
    let task = ConvTask {
        geometry: &Geometry { c_out: winograd.numbers() * g.c_in, winograd: None, ..*g },
        output: winograd.tiles(task.output),
        values: ConvValues { y: tiles, ..task.values },
        ..task.begun()
    };
    let consts = [("WORKGROUP", WORKGROUP), ("TILE", index32("tile", winograd.tile())?)];
    let workgroups = (task.batch * g.c_in * task.positions()).div_ceil(WORKGROUP as usize);
    let mut slices = task.slices()?;
    // Kernels are not read; a bank that is mixed later has another size than the numbers of the
    // tiles would give it.
    slices[1] = slices[0].stand_in();
    let consts = consts.map(|(name, value)| (name, Const::U32(value)));
    task.dispatch_of(
        Kernel::WinogradInput,
        &consts,
        workgroups,
        Resources::iterations(0),
        slices,
        caps,
    )
}
