//! Host side of `shaders/sum_parts.wgsl`: adds up what the parts of a convolution left, and
//! finishes it.

use super::conv::{CONV, ConvTask, FINISH, STORAGE, X_F32};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs, Slot};
use crate::caps::Caps;
use crate::error::Result;

pub(crate) const DEF: KernelDef = KernelDef {
    name: "sum_parts",
    // Partial sums take the place of x.
    slots: &[Slot::Y],
    parts: &[
        DISPATCH,
        X_F32,
        NUMBERS,
        CONV,
        FINISH,
        ("sum_parts.wgsl", include_str!("../../shaders/sum_parts.wgsl")),
    ],
    storage: STORAGE,
    lanes: false,
    matrices: false,
};

/// Invocations of a workgroup, an output each.
const WORKGROUP: u32 = 64;

/// `task` is [`ConvTask::total`].
pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    let outputs = task.batch * task.geometry.c_out * task.positions();
    let workgroups = outputs.div_ceil(WORKGROUP as usize);
    // The parts, the bias, and the trips that end a loop.
    let needs = Needs::trips(task.parts() as u64 + 3);
    task.dispatch(Kernel::SumParts, &[("WORKGROUP", WORKGROUP)], workgroups, needs, caps)
}
