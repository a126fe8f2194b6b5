//! Host side of `shaders/conv_depthwise_3x3.wgsl`: one input channel per group, 3 x 3 taps with
//! stride 1.

use super::conv::{Accepts, ConvKernel, ConvTask, PLAIN, is_depthwise, needs, without_map};
use super::conv_3x3_simd8::{TILE, tiles};
use super::{Dispatch, Kernel, KernelDef, Resources};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::Problem;

pub(crate) const DEF: KernelDef = PLAIN;

const WORKGROUP: u32 = 64;

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, _output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        let g = &problem.geometry;
        let what = "one input channel a group, two axes, a 3 x 3 kernel, stride 1 and no dilation";
        needs(g.c_in == g.groups && g.is_plain_3x3(), what)
    }

    fn suits(&self, problem: &Problem, _output: [usize; 3], caps: &Caps) -> Option<String> {
        (is_depthwise(&problem.geometry) && caps.is_software())
            .then(|| "one input channel a group, 3 x 3 with stride 1, on a software adapter".into())
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let invocations = task.batch * task.geometry.c_out * tiles(task.output, TILE);
        let workgroups = invocations.div_ceil(WORKGROUP as usize);
        let consts = [("WORKGROUP", WORKGROUP)];
        let resources = Resources::iterations(task.iterations(28));
        task.dispatch(Kernel::ConvDepthwise3x3, &consts, workgroups, resources, caps)
    }
}
