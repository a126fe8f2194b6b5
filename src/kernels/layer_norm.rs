//! Host side of `shaders/layer_norm.wgsl`: layer norm over the channels.

use super::conv::{ConvTask, ConvValues, PLAIN};
use super::{Const, Dispatch, Kernel, KernelDef, Resources};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::{Problem, product};

pub(crate) const DEF: KernelDef = PLAIN;

/// Invocations of a workgroup, a position each.
const WORKGROUP: u32 = 64;

/// Normalises some samples, from the first one given on.
pub(crate) fn dispatch(
    (first, problem): (usize, Problem),
    epsilon: f32,
    values: ConvValues,
    caps: &Caps,
) -> Result<Dispatch> {
    let task = ConvTask::of_channels(&problem, first, problem.input, values);
    let consts = [("WORKGROUP", Const::U32(WORKGROUP)), ("EPSILON", Const::U32(epsilon.to_bits()))];
    let positions = product(&[problem.batch, product(&problem.input)]);
    let workgroups = positions.div_ceil(WORKGROUP as usize);
    // Three loops that read each channel, and one that stores it.
    let iterations = 4 * (problem.geometry.c_in as u64 + 4);
    let resources = Resources::iterations(iterations);
    task.dispatch_of(Kernel::LayerNorm, &consts, workgroups, resources, task.slices()?, caps)
}
