//! Host side of `shaders/conv_gemm_register.wgsl`: implicit GEMM in registers, for adapters on
//! which workgroup memory is slow.

use super::conv::{Accepts, ConvKernel, ConvTask, PLAIN};
use super::{Dispatch, Kernel, KernelDef, Resources};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::{AttentionSource, Problem};

pub(crate) const DEF: KernelDef = PLAIN;

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

/// Loop iterations of an invocation: the sum, the stores, and the bits of four positions.
pub(crate) fn iterations(task: &ConvTask<'_>) -> u64 {
    let bits = 4 * (task.geometry.kernel.iter().sum::<usize>() + 3) as u64;
    task.iterations(32).saturating_add(bits)
}

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, _problem: &Problem, _output: [usize; 3]) -> Accepts {
        Ok(())
    }

    fn suits(&self, problem: &Problem, _output: [usize; 3], caps: &Caps) -> Option<String> {
        let is_mixed = matches!(problem.attention, AttentionSource::Map(_));
        let why = match (is_mixed, caps.is_software(), caps.is_mobile()) {
            (true, true, _) => "mixes at every position, on a software adapter",
            (true, _, true) => "mixes at every position, on a mobile GPU",
            (false, true, _) => {
                "a software adapter: workgroup memory and barriers cost more than they save"
            }
            (false, _, true) => {
                "a mobile GPU: its caches do for weights what workgroup memory would"
            }
            (_, false, false) => return None,
        };
        Some(why.into())
    }

    fn iterations(&self, task: &ConvTask<'_>, _caps: &Caps) -> u64 {
        iterations(task)
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let workgroup = workgroup(task.positions());
        let consts = [("WORKGROUP", workgroup), ("PADDED", task.is_padded().into())];
        let workgroups = workgroups(task, workgroup);
        let resources = Resources::iterations(iterations(task));
        task.dispatch(Kernel::ConvGemmRegister, &consts, workgroups, resources, caps)
    }
}
