//! Host side of `shaders/conv_patch.wgsl`: 3 x 3 taps with stride 1, patches spread over the lanes
//! of a subgroup.

use super::conv::{CONV, ConvTask, FINISH, SLOTS};
use super::conv_lanes::LANES;
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs, X_WIDTH};
use crate::caps::Caps;
use crate::desc::BLOCK;
use crate::error::{Error, Result};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_patch",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH,
        LANES,
        PATCH_SUMS,
        PATCH_LANES,
        PATCH,
        ("conv_patch.wgsl", include_str!("../../shaders/conv_patch.wgsl")),
    ],
    // As every convolution, then the rows once more.
    storage: &[false, false, false, false, false, true, false],
    lanes: true,
    matrices: false,
};

/// The tile of outputs, what the lanes of a subgroup read for it, and the inputs of a tile with
/// stride 1.
pub(super) const PATCH_SUMS: (&str, &str) =
    ("common/patch_sums.wgsl", include_str!("../../shaders/common/patch_sums.wgsl"));
pub(super) const PATCH_LANES: (&str, &str) =
    ("common/patch_lanes.wgsl", include_str!("../../shaders/common/patch_lanes.wgsl"));
pub(super) const PATCH: (&str, &str) =
    ("common/patch.wgsl", include_str!("../../shaders/common/patch.wgsl"));

/// Rows and columns of a tile.
pub(crate) const TILE: [usize; 2] = [7, 4];

/// Tiles of these rows and columns in an output map.
pub(super) fn tiles([_, height, width]: [usize; 3], tile: [usize; 2]) -> usize {
    height.div_ceil(tile[0]) * width.div_ceil(tile[1])
}

/// Trips of an invocation's loops: over the channels, then over its outputs, with a trip for each
/// bias.
pub(crate) fn trips(task: &ConvTask<'_>, tile: [usize; 2]) -> u64 {
    let outputs = 2 * (tile[0] * (1 + 3 * tile[1]) + 1 + tile[0]);
    (task.channels.len() + 1 + outputs) as u64
}

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_patch")?;
    if !task.geometry.is_plain_3x3() {
        return Err(Error::Unsupported {
            what: "conv_patch".into(),
            because: "it needs two axes, a 3 x 3 kernel, stride 1 and no dilation".into(),
        });
    }
    by_lanes(Kernel::ConvPatch, task, TILE, caps)
}

/// The dispatch of a kernel for lanes, a workgroup for a tile of 16 output channels.
pub(super) fn by_lanes(
    kernel: Kernel,
    task: &ConvTask<'_>,
    tile: [usize; 2],
    caps: &Caps,
) -> Result<Dispatch> {
    let [_, c_out] = task.group_channels();
    let workgroups =
        task.batch * task.geometry.groups * tiles(task.output, tile) * c_out.div_ceil(BLOCK);
    let consts = [("WORKGROUP", 8), (X_WIDTH, task.pairs())];
    task.dispatch(kernel, &consts, workgroups, Needs::trips(trips(task, tile)), caps)
}
