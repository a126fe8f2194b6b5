//! Host side of `shaders/conv_depthwise.wgsl`: one input channel per group.

use super::conv::{CONV, ConvTask, FINISH, SLOTS, STORAGE};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs};
use crate::caps::Caps;
use crate::error::{Error, Result};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_depthwise",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH,
        ("conv_depthwise.wgsl", include_str!("../../shaders/conv_depthwise.wgsl")),
    ],
    storage: STORAGE,
    lanes: false,
    matrices: false,
};

const WORKGROUP: u32 = 64;
/// Outputs of one invocation, along the width.
const STRIP: usize = 4;

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_depthwise")?;
    let [c_in, _] = task.group_channels();
    if c_in != 1 {
        return Err(Error::Unsupported {
            what: "conv_depthwise".into(),
            because: format!("it needs one input channel a group, here are {c_in}"),
        });
    }
    let [depth, height, width] = task.output;
    let strips = task.batch * task.geometry.c_out * depth * height * width.div_ceil(STRIP);
    let workgroups = strips.div_ceil(WORKGROUP as usize);
    task.dispatch(
        Kernel::ConvDepthwise,
        &[("WORKGROUP", WORKGROUP)],
        workgroups,
        Needs::trips(task.trips(4)),
        caps,
    )
}
