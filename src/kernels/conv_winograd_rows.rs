//! Host side of `shaders/conv_winograd_rows.wgsl`: 3 x 3 taps with stride 1 by minimal filtering
//! along the rows, patches spread over the lanes of a subgroup.

use super::conv::{CONV, ConvTask, FINISH, SLOTS};
use super::conv_lanes::LANES;
use super::conv_patch::{PATCH_LANES, by_lanes};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS};
use crate::caps::Caps;
use crate::error::{Error, Result};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_winograd_rows",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH,
        LANES,
        PATCH_LANES,
        ("conv_winograd_rows.wgsl", include_str!("../../shaders/conv_winograd_rows.wgsl")),
    ],
    // As every convolution, then the rows once more.
    storage: &[false, false, false, false, false, true, false],
    lanes: true,
    matrices: false,
};

/// Rows and columns of a tile.
pub(crate) const TILE: [usize; 2] = [7, 8];

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_winograd_rows")?;
    if !task.geometry.is_plain_3x3() {
        return Err(Error::Unsupported {
            what: "conv_winograd_rows".into(),
            because: "it needs two axes, a 3 x 3 kernel, stride 1 and no dilation".into(),
        });
    }
    by_lanes(Kernel::ConvWinogradRows, task, TILE, caps)
}
