//! Host side of `shaders/conv_pointwise_lanes.wgsl`: 1 x 1 taps as a matrix product, weights spread over the lanes of a subgroup.

use super::conv::{CONV, ConvTask, Layout, SLOTS};
use super::{Const, DISPATCH, Dispatch, Kernel, KernelDef, Needs};
use crate::caps::Caps;
use crate::desc::{BLOCK, Geometry, WeightOrder};
use crate::elem::Elem;
use crate::error::{Error, Result};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_pointwise_lanes",
    slots: SLOTS,
    parts: &[DISPATCH, CONV, ("conv_pointwise_lanes.wgsl", include_str!("../../shaders/conv_pointwise_lanes.wgsl"))],
    // As every convolution, then rows and input once more.
    storage: &[false, false, false, false, false, true, false, false],
    lanes: true,
    matrices: false,
};

/// Positions of a workgroup.
const POSITIONS: usize = 32;

/// Whether this kernel can compute a convolution.
pub(crate) fn can_compute(geometry: &Geometry, order: WeightOrder, input: Layout) -> bool {
    geometry.is_pointwise() && order == WeightOrder::Blocked && input == Layout::ChannelsFirst
}

/// Trips of an invocation's loops, which go over 64 outputs.
pub(crate) fn trips(task: &ConvTask<'_>) -> u64 {
    task.trips(64)
}

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_pointwise_lanes")?;
    if !can_compute(task.geometry, task.order, task.layouts[0]) {
        return Err(Error::Unsupported {
            what: "conv_pointwise_lanes".into(),
            because: "it needs a 1 x 1 kernel, stride 1, no padding, channels first and weights in blocks".into(),
        });
    }
    let [_, c_out] = task.group_channels();
    let workgroups = task.batch * task.geometry.groups * task.positions().div_ceil(POSITIONS) * c_out.div_ceil(BLOCK);
    let is_even = task.positions().is_multiple_of(2) && task.elems[0] == Elem::F32;
    let mut dispatch =
        task.dispatch(Kernel::ConvPointwiseLanes, &[("WORKGROUP", 8)], workgroups, Needs::trips(trips(task)), caps)?;
    dispatch.variant.consts.push((X_PAIRS, Const::Bool(is_even)));
    Ok(dispatch)
}

/// Whether inputs are read in pairs. An input that begins at an odd element cannot be, which shows when it is bound.
pub(crate) const X_PAIRS: &str = "X_PAIRS";
