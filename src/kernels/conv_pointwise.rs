//! Host side of `shaders/conv_pointwise.wgsl`: 1 x 1 taps as a matrix product in registers.

use super::conv::{CONV, ConvTask, DISPATCH, STORAGE};
use super::{Dispatch, Kernel, KernelDef};
use crate::caps::Caps;
use crate::error::{Error, Result};

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_pointwise",
    parts: &[DISPATCH, CONV, ("conv_pointwise.wgsl", include_str!("../../shaders/conv_pointwise.wgsl"))],
    storage: STORAGE,
};

/// Output channels of one workgroup, and runs of positions.
const CHANNELS: usize = 8;
const RUNS: usize = 4;

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    if !task.geometry.is_pointwise() {
        return Err(Error::Unsupported {
            what: "conv_pointwise".into(),
            because: "it needs a 1 x 1 kernel, stride 1 and no padding".into(),
        });
    }
    // Small maps get small workgroups, so that few lanes lie past the map.
    let workgroup = [64, 32, 16].into_iter().find(|w| w * RUNS <= task.positions().next_multiple_of(32)).unwrap_or(8);
    let [_, c_out] = task.group_channels();
    let tiles = task.positions().div_ceil(workgroup * RUNS) * c_out.div_ceil(CHANNELS);
    let workgroups = task.batch * task.geometry.groups * tiles;
    let consts = [("WORKGROUP", u32::try_from(workgroup).unwrap_or(8))];
    task.dispatch(Kernel::ConvPointwise, &consts, workgroups, 0, caps)
}
