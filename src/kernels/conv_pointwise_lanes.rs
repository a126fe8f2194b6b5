//! Host side of `shaders/conv_pointwise_lanes.wgsl`: 1 x 1 taps as a matrix product, weights spread
//! over the lanes of a subgroup.

use super::conv::{CONV, ConvTask, FINISH_FOUR, Layout, SLOTS, width};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs, X_WIDTH, Y_WIDTH};
use crate::caps::Caps;
use crate::desc::{BLOCK, Geometry, WeightOrder};
use crate::error::{Error, Result};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_pointwise_lanes",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH_FOUR,
        ("conv_pointwise_lanes.wgsl", include_str!("../../shaders/conv_pointwise_lanes.wgsl")),
    ],
    // As every convolution, then the rows once more.
    storage: &[false, false, false, false, false, true, false],
    lanes: true,
    matrices: false,
};

/// Positions of half a workgroup's tile, or of the whole tile of a workgroup that has but one.
const HALF: usize = 32;

/// Halves of a tile: two compute eight positions in the time that two tiles take for seven, where
/// not too many lie past the map. A rule that looks at the map alone.
fn halves(positions: usize) -> u32 {
    let [single, double] = [1, 2].map(|halves| positions.div_ceil(halves * HALF) * halves);
    if 7 * double <= 8 * single { 2 } else { 1 }
}

/// Whether this kernel can compute a convolution.
pub(crate) fn can_compute(geometry: &Geometry, order: WeightOrder, input: Layout) -> bool {
    geometry.is_pointwise() && order == WeightOrder::Blocked && input == Layout::ChannelsFirst
}

/// Whether it is faster than `conv_lanes`, which takes positions in smaller pieces: at least two
/// thirds of the lanes have positions, and a load takes two of them or more, as it does where their
/// number is even.
pub(crate) fn pays(positions: usize) -> bool {
    positions.is_multiple_of(2) && 3 * positions >= 2 * positions.next_multiple_of(HALF)
}

/// Trips of an invocation's loops, which go over 128 outputs.
pub(crate) fn trips(task: &ConvTask<'_>) -> u64 {
    task.trips(128)
}

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_pointwise_lanes")?;
    if !can_compute(task.geometry, task.order, task.layouts[0]) {
        return Err(Error::Unsupported {
            what: "conv_pointwise_lanes".into(),
            because: "it needs a 1 x 1 kernel, stride 1, no padding, \
                      channels first and weights in blocks"
                .into(),
        });
    }
    let [_, c_out] = task.group_channels();
    let halves = halves(task.positions());
    let tiles = task.positions().div_ceil(halves as usize * HALF) * c_out.div_ceil(BLOCK);
    let workgroups = task.batch * task.geometry.groups * tiles;
    let [x_width, y_width] =
        [0, 1].map(|i| width(task.positions(), task.elems[i], task.layouts[i]));
    let consts = [("WORKGROUP", 8), ("HALVES", halves), (X_WIDTH, x_width), (Y_WIDTH, y_width)];
    task.dispatch(Kernel::ConvPointwiseLanes, &consts, workgroups, Needs::trips(trips(task)), caps)
}
