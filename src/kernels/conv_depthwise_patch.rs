//! Host side of `shaders/conv_depthwise_patch.wgsl`: one input channel per group, 3 x 3 taps with
//! stride 1.

use super::conv::{CONV, ConvTask, FINISH, SLOTS, STORAGE};
use super::conv_patch::{PATCH, PATCH_SUMS, TILE, tiles};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs};
use crate::caps::Caps;
use crate::error::{Error, Result};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_depthwise_patch",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH,
        PATCH_SUMS,
        PATCH,
        ("conv_depthwise_patch.wgsl", include_str!("../../shaders/conv_depthwise_patch.wgsl")),
    ],
    storage: STORAGE,
    lanes: false,
    matrices: false,
};

const WORKGROUP: u32 = 64;

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_depthwise_patch")?;
    let [c_in, _] = task.group_channels();
    if c_in != 1 || !task.geometry.is_plain_3x3() {
        return Err(Error::Unsupported {
            what: "conv_depthwise_patch".into(),
            because: "it needs one input channel a group, two axes, a 3 x 3 kernel, \
                      stride 1 and no dilation"
                .into(),
        });
    }
    let invocations = task.batch * task.geometry.c_out * tiles(task.output, TILE);
    let workgroups = invocations.div_ceil(WORKGROUP as usize);
    let consts = [("WORKGROUP", WORKGROUP)];
    task.dispatch(
        Kernel::ConvDepthwisePatch,
        &consts,
        workgroups,
        Needs::trips(task.trips(28)),
        caps,
    )
}
