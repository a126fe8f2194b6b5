//! Host side of `shaders/conv_direct.wgsl`: one output per invocation.

use super::conv::{CONV, ConvTask, FINISH, SLOTS, STORAGE};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs};
use crate::caps::Caps;
use crate::error::Result;

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_direct",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH,
        ("conv_direct.wgsl", include_str!("../../shaders/conv_direct.wgsl")),
    ],
    storage: STORAGE,
    lanes: false,
    matrices: false,
};

const WORKGROUP: u32 = 64;

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    let outputs = task.batch * task.geometry.c_out * task.positions();
    let workgroups = outputs.div_ceil(WORKGROUP as usize);
    task.dispatch(
        Kernel::ConvDirect,
        &[("WORKGROUP", WORKGROUP)],
        workgroups,
        Needs::trips(task.trips(1)),
        caps,
    )
}
