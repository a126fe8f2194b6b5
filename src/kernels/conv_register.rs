//! Host side of `shaders/conv_register.wgsl`: implicit GEMM in registers, for adapters on which
//! workgroup memory is slow.

use super::conv::{CONV, ConvTask, FINISH, SLOTS, STORAGE};
use super::{DISPATCH, Dispatch, Kernel, KernelDef, NUMBERS, Needs};
use crate::caps::Caps;
use crate::error::Result;

pub(crate) const DEF: KernelDef = KernelDef {
    name: "conv_register",
    slots: SLOTS,
    parts: &[
        DISPATCH,
        NUMBERS,
        CONV,
        FINISH,
        SOURCE,
        REGISTER_TILE,
        ("conv_register.wgsl", include_str!("../../shaders/conv_register.wgsl")),
    ],
    storage: STORAGE,
    lanes: false,
    matrices: false,
};

pub(super) const REGISTER_TILE: (&str, &str) =
    ("common/register_tile.wgsl", include_str!("../../shaders/common/register_tile.wgsl"));

pub(super) const SOURCE: (&str, &str) =
    ("common/source.wgsl", include_str!("../../shaders/common/source.wgsl"));

/// Output channels of one workgroup, and runs of positions.
const CHANNELS: usize = 8;
const RUNS: usize = 4;

/// Invocations of a workgroup: small maps get small workgroups, so that few lanes lie past the map.
pub(crate) fn workgroup(positions: usize) -> u32 {
    match positions {
        0..=32 => 8,
        33..=64 => 16,
        65..=128 => 32,
        _ => 64,
    }
}

/// Workgroups of a kernel that gives each invocation `CHANNELS` channels and `RUNS` positions.
pub(crate) fn workgroups(task: &ConvTask<'_>, workgroup: u32) -> usize {
    let [_, c_out] = task.group_channels();
    let tiles = task.positions().div_ceil(workgroup as usize * RUNS) * c_out.div_ceil(CHANNELS);
    task.batch * task.geometry.groups * tiles
}

/// Loop trips of an invocation: the sum, the stores, and the bits of four positions.
pub(crate) fn trips(task: &ConvTask<'_>) -> u64 {
    let bits = 4 * (task.geometry.kernel.iter().sum::<usize>() + 3) as u64;
    task.trips(32).saturating_add(bits)
}

pub(crate) fn dispatch(task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
    let workgroup = workgroup(task.positions());
    task.dispatch(
        Kernel::ConvRegister,
        &[("WORKGROUP", workgroup), ("PADDED", task.is_padded().into())],
        workgroups(task, workgroup),
        Needs::trips(trips(task)),
        caps,
    )
}
