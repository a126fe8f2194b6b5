//! Host side of `shaders/conv_row.wgsl`: wide rows of taps, runs of inputs spread over the lanes of
//! a subgroup.

use super::conv::{CONV, ConvTask, FINISH, SLOTS};
use super::conv_lanes::LANES;
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs};
use crate::caps::Caps;
use crate::desc::BLOCK;
use crate::error::{Error, Result, index32};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_row",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH,
        LANES,
        ("conv_row.wgsl", include_str!("../../shaders/conv_row.wgsl")),
    ],
    // As every convolution, then the rows once more.
    storage: &[false, false, false, false, false, true, false],
    lanes: true,
    matrices: false,
};

/// Outputs of a workgroup, along the width.
const STRIP: usize = 16;

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_row")?;
    if !task.geometry.has_short_runs() {
        return Err(Error::Unsupported {
            what: "conv_row".into(),
            because:
                "it needs at most 8 taps along the width, of which 16 outputs read at most 48 \
                 inputs, and no transposition"
                    .into(),
        });
    }
    let [_, c_out] = task.group_channels();
    let [depth, height, width] = task.output;
    let tiles = depth * height * width.div_ceil(STRIP) * c_out.div_ceil(BLOCK);
    let workgroups = task.batch * task.geometry.groups * tiles;
    let consts = [("WORKGROUP", 8), ("SPAN", index32("span", task.geometry.run_of(STRIP))?)];
    task.dispatch(Kernel::ConvRow, &consts, workgroups, Needs::trips(task.trips(32)), caps)
}
