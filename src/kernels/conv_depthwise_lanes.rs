//! Host side of `shaders/conv_depthwise_lanes.wgsl`: one input channel per group, 3 x 3 taps with
//! stride 1, rows spread over the lanes of a subgroup.

use super::conv::{CONV, ConvTask, FINISH_FOUR, SLOTS, STORAGE, width};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs, X_WIDTH, Y_WIDTH};
use crate::caps::Caps;
use crate::desc::Geometry;
use crate::error::{Error, Result, index32};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_depthwise_lanes",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH_FOUR,
        ("conv_depthwise_lanes.wgsl", include_str!("../../shaders/conv_depthwise_lanes.wgsl")),
    ],
    storage: STORAGE,
    lanes: true,
    matrices: false,
};

/// Lines of a workgroup: eight subgroups of eight, as workgroups of one cost more to start.
const WORKGROUP: u32 = 64;

/// Whether this kernel can compute a convolution. Lines of at most two channels meet in a subgroup,
/// so a channel has seven.
pub(crate) fn can_compute(geometry: &Geometry, output: [usize; 3]) -> bool {
    geometry.c_in == geometry.groups && geometry.is_plain_3x3() && lines(geometry, output) >= 7
}

/// Lines of an output channel: its rows, and one for each side without padding.
fn lines(geometry: &Geometry, output: [usize; 3]) -> usize {
    let [_, [above, below], _] = geometry.padding;
    output[1] + usize::from(above == 0) + usize::from(below == 0)
}

/// Trips of an invocation's loop over eight outputs at a time: their stores, and loops over their
/// biases.
pub(crate) fn trips(output: [usize; 3]) -> u64 {
    (output[2].div_ceil(8) * (1 + 2 * 5 + 2 * 8) + 1) as u64
}

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_depthwise_lanes")?;
    let geometry = task.geometry;
    if !can_compute(geometry, task.output) {
        return Err(Error::Unsupported {
            what: "conv_depthwise_lanes".into(),
            because: "it needs one input channel a group, two axes, a 3 x 3 kernel, stride 1, no \
                      dilation, and maps of seven rows"
                .into(),
        });
    }
    let workgroups =
        (task.batch * geometry.c_out * lines(geometry, task.output)).div_ceil(WORKGROUP as usize);
    let y_width = width(task.output[2], task.elems[1], task.layouts[1]);
    let [_, multiplier] = task.group_channels();
    let multiplier = index32("output channels", multiplier)?;
    let consts = [
        ("WORKGROUP", WORKGROUP),
        ("MULTIPLIER", multiplier),
        (X_WIDTH, task.pairs()),
        (Y_WIDTH, y_width),
    ];
    task.dispatch(
        Kernel::ConvDepthwiseLanes,
        &consts,
        workgroups,
        Needs::trips(trips(task.output)),
        caps,
    )
}
