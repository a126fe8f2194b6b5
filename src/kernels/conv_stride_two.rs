//! Host side of `shaders/conv_stride_two.wgsl`: 3 x 3 taps with stride 2, patches spread over the
//! lanes of a subgroup.

use super::conv::{CONV, ConvTask, FINISH, SLOTS};
use super::conv_lanes::LANES;
use super::conv_patch::{PATCH_LANES, PATCH_SUMS, TILE, by_lanes};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS};
use crate::caps::Caps;
use crate::error::{Error, Result};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_stride_two",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH,
        LANES,
        PATCH_SUMS,
        PATCH_LANES,
        ("conv_stride_two.wgsl", include_str!("../../shaders/conv_stride_two.wgsl")),
    ],
    // As every convolution, then the rows once more.
    storage: &[false, false, false, false, false, true, false],
    lanes: true,
    matrices: false,
};

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_stride_two")?;
    if !task.geometry.is_strided_3x3() {
        return Err(Error::Unsupported {
            what: "conv_stride_two".into(),
            because: "it needs two axes, a 3 x 3 kernel, stride 2 on both and no dilation".into(),
        });
    }
    by_lanes(Kernel::ConvStrideTwo, task, TILE, caps)
}
