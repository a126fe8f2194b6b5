//! Host side of `shaders/window_pool.wgsl`: the largest or the mean of what windows cover.

use super::conv::{ConvTask, ConvValues, PLAIN};
use super::{Const, Dispatch, Kernel, KernelDef, Resources};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::{Pooling, Problem, product};

pub(crate) const DEF: KernelDef = PLAIN;

/// Invocations of a workgroup, an output each.
const WORKGROUP: u32 = 64;

/// Pools what a convolution with one channel a group would read, whose kernel is the window: some
/// samples, from the first one given on.
pub(crate) fn dispatch(
    (first, problem): (usize, Problem),
    output: [usize; 3],
    pooling: Pooling,
    values: ConvValues,
    caps: &Caps,
) -> Result<Dispatch> {
    let task = ConvTask::of_channels(&problem, first, output, values);
    let outputs = product(&[task.batch, task.geometry.c_out, product(&output)]);
    let consts = [
        ("WORKGROUP", Const::U32(WORKGROUP)),
        ("LARGEST", Const::Bool(pooling == Pooling::Max)),
        ("COUNTS_PADDING", Const::Bool(pooling == Pooling::MeanWithPadding)),
    ];
    let workgroups = outputs.div_ceil(WORKGROUP as usize);
    let resources = Resources::iterations(task.iterations(1));
    task.dispatch_of(Kernel::WindowPool, &consts, workgroups, resources, task.slices()?, caps)
}
