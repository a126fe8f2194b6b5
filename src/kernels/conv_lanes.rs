//! Host side of `shaders/conv_lanes.wgsl`: implicit GEMM in registers, inputs spread over the lanes
//! of a subgroup.

use super::conv::{CONV, ConvTask, FINISH, SLOTS};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs};
use crate::caps::Caps;
use crate::desc::BLOCK;
use crate::error::Result;

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_lanes",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH,
        LANES,
        ("conv_lanes.wgsl", include_str!("../../shaders/conv_lanes.wgsl")),
    ],
    // As every convolution, then the rows once more.
    storage: &[false, false, false, false, false, true, false],
    lanes: true,
    matrices: false,
};

pub(super) const LANES: (&str, &str) =
    ("common/lanes.wgsl", include_str!("../../shaders/common/lanes.wgsl"));

/// Positions of a run: the lanes of a subgroup.
const RUN: usize = 8;

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    let runs = runs(task.positions());
    let [_, c_out] = task.group_channels();
    let tiles = task.positions().div_ceil(RUN * runs) * c_out.div_ceil(BLOCK);
    let workgroups = task.batch * task.geometry.groups * tiles;
    let consts = [("WORKGROUP", 8), ("RUNS", u32::try_from(runs).unwrap_or(1))];
    task.dispatch(Kernel::ConvLanes, &consts, workgroups, Needs::trips(task.trips(32)), caps)
}

/// Runs of a tile. More than two are a tenth faster, and take three times as long to compile.
fn runs(positions: usize) -> usize {
    if positions <= RUN { 1 } else { 2 }
}
