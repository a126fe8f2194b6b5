//! Host side of `shaders/sum_slices.wgsl`: adds up what the slices of a sum left, and
//! finishes it.

use super::conv::{ConvTask, PLAIN};
use super::{Dispatch, Kernel, KernelDef, Resources, Slot};
use crate::caps::Caps;
use crate::error::Result;

pub(crate) const DEF: KernelDef = KernelDef {
    // Partial sums take the place of x.
    slots: &[Slot::Y],
    ..PLAIN
};

/// Invocations of a workgroup, an output each.
const WORKGROUP: u32 = 64;

/// `task` is [`ConvTask::total`].
pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    let outputs = task.batch * task.geometry.c_out * task.positions();
    let workgroups = outputs.div_ceil(WORKGROUP as usize);
    // The slices, the bias, and the iterations that end a loop.
    let resources = Resources::iterations(task.slice_count() as u64 + 3);
    task.dispatch(Kernel::SumSlices, &[("WORKGROUP", WORKGROUP)], workgroups, resources, caps)
}
