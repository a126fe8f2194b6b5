//! Host side of `shaders/conv_gemm_simd8.wgsl`: implicit GEMM in registers, inputs spread over the
//! lanes of a subgroup.

use super::conv::{Accepts, ConvKernel, ConvTask, SIMD8};
use super::{Dispatch, Kernel, KernelDef, Resources};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::{AttentionSource, BLOCK, Problem};

pub(crate) const DEF: KernelDef = SIMD8;

/// Positions of a run: the lanes of a subgroup.
const RUN: usize = 8;

/// Runs of a tile. More than two are a tenth faster, and take three times as long to compile.
fn runs(positions: usize) -> usize {
    if positions <= RUN { 1 } else { 2 }
}

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, _problem: &Problem, _output: [usize; 3]) -> Accepts {
        Ok(())
    }

    fn suits(&self, problem: &Problem, _output: [usize; 3], caps: &Caps) -> Option<String> {
        let g = &problem.geometry;
        let why = match problem.attention {
            _ if !caps.has_lanes() => return None,
            AttentionSource::Map(_) => "mixes at every position, on a software adapter with lanes",
            // Of few positions it wastes products, which cost less than the loads of other kernels.
            _ if g.c_out / g.groups >= 8 => {
                "a software adapter with lanes: loads cost most, broadcasts next to nothing"
            }
            _ => return None,
        };
        Some(why.into())
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let runs = runs(task.positions());
        let [_, c_out] = task.group_channels();
        let tiles = task.positions().div_ceil(RUN * runs) * c_out.div_ceil(BLOCK);
        let workgroups = task.batch * task.geometry.groups * tiles;
        let consts = [("WORKGROUP", 8), ("RUNS", u32::try_from(runs).unwrap_or(1))];
        let resources = Resources::iterations(task.iterations(32));
        task.dispatch(Kernel::ConvGemmSimd8, &consts, workgroups, resources, caps)
    }
}
