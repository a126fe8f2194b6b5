//! Host side of `shaders/resample.wgsl`: maps enlarged, with a border, or inside larger tensors.

use super::conv::{ConvTask, ConvValues, PLAIN};
use super::{Const, Dispatch, Kernel, KernelDef, Resources, Slice};
use crate::caps::Caps;
use crate::error::{Result, index32};
use crate::problem::{Layout, Problem, Sampling, product};

pub(crate) const DEF: KernelDef = PLAIN;

/// Invocations of a workgroup, an output each.
const WORKGROUP: u32 = 64;

/// Samples `x` of some samples of the batch, from the first one given on, into the channels of `y`
/// from `channel` on. The problem has one group; its padding is the border before the map.
pub(crate) fn dispatch(
    (first, problem): (usize, Problem),
    output: [usize; 3],
    (sampling, channel): (Sampling, usize),
    values: ConvValues,
    caps: &Caps,
) -> Result<Dispatch> {
    let task = ConvTask::of_channels(&problem, first, output, values);
    // Places are counted in parts of twice the output's size.
    for (input, output) in problem.input.into_iter().zip(output) {
        let places = product(&[2, input, output.saturating_add(1)]);
        index32("places along an axis", places.saturating_add(output))?;
    }
    let mut slices = task.slices()?;
    // Channels before the first are left out of the binding.
    let step = match problem.layouts[1] {
        Layout::ChannelsFirst => product(&output),
        Layout::ChannelsLast => 1,
    };
    let before = channel.saturating_mul(step) as u64;
    let y = &mut slices[5];
    *y = Slice { start: y.start + before, len: y.len - before, ..*y };
    let rule = match sampling {
        Sampling::Nearest => 0,
        Sampling::Linear => 1,
        Sampling::Reflection => 2,
        Sampling::Edge => 3,
    };
    let consts = [("WORKGROUP", Const::U32(WORKGROUP)), ("RULE", Const::U32(rule))];
    let outputs = product(&[problem.batch, problem.geometry.c_in, product(&output)]);
    let workgroups = outputs.div_ceil(WORKGROUP as usize);
    let resources = Resources::iterations(16);
    task.dispatch_of(Kernel::Resample, &consts, workgroups, resources, slices, caps)
}
