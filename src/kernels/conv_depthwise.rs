//! Host side of `shaders/conv_depthwise.wgsl`: one input channel per group.

use super::conv::{Accepts, ConvKernel, ConvTask, PLAIN, is_depthwise, without_map};
use super::{Dispatch, Kernel, KernelDef, Resources};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::Problem;

pub(crate) const DEF: KernelDef = PLAIN;

const WORKGROUP: u32 = 64;
/// Outputs of one invocation, along the width.
const STRIP: usize = 4;

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, _output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        match problem.geometry.c_in / problem.geometry.groups {
            1 => Ok(()),
            c_in => Err(format!("it needs one input channel a group, here are {c_in}")),
        }
    }

    fn suits(&self, problem: &Problem, _output: [usize; 3], _caps: &Caps) -> Option<String> {
        is_depthwise(&problem.geometry).then(|| "one input channel a group".into())
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let [depth, height, width] = task.output;
        let strips = task.batch * task.geometry.c_out * depth * height * width.div_ceil(STRIP);
        let workgroups = strips.div_ceil(WORKGROUP as usize);
        let resources = Resources::iterations(task.iterations(4));
        task.dispatch(
            Kernel::ConvDepthwise,
            &[("WORKGROUP", WORKGROUP)],
            workgroups,
            resources,
            caps,
        )
    }
}
