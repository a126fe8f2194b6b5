//! Host side of `shaders/conv_pointwise.wgsl`: 1 x 1 taps as a matrix product in registers.

use super::conv::{CONV, ConvTask, FINISH, SLOTS, STORAGE};
use super::conv_register::{self, REGISTER_TILE, SOURCE};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs};
use crate::caps::Caps;
use crate::error::{Error, Result};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_pointwise",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH,
        SOURCE,
        REGISTER_TILE,
        ("conv_pointwise.wgsl", include_str!("../../shaders/conv_pointwise.wgsl")),
    ],
    storage: STORAGE,
    lanes: false,
    matrices: false,
};

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    task.without_map("conv_pointwise")?;
    if !task.geometry.is_pointwise() {
        return Err(Error::Unsupported {
            what: "conv_pointwise".into(),
            because: "it needs a 1 x 1 kernel, stride 1 and no padding".into(),
        });
    }
    let workgroup = conv_register::workgroup(task.positions());
    let workgroups = conv_register::workgroups(task, workgroup);
    let consts = [("WORKGROUP", workgroup), ("PADDED", 0)];
    task.dispatch(
        Kernel::ConvPointwise,
        &consts,
        workgroups,
        Needs::trips(conv_register::trips(task)),
        caps,
    )
}
