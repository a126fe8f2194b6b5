//! Host side of `shaders/conv_pointwise.wgsl`: 1 x 1 taps as a matrix product in registers.

use super::conv::{Accepts, ConvKernel, ConvTask, PLAIN, needs, without_map};
use super::{Dispatch, Kernel, KernelDef, Resources, conv_gemm_register as register};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::Problem;

pub(crate) const DEF: KernelDef = PLAIN;

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, _output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        needs(problem.geometry.is_pointwise(), "a 1 x 1 kernel, stride 1 and no padding")
    }

    fn suits(&self, _problem: &Problem, _output: [usize; 3], _caps: &Caps) -> Option<String> {
        Some("1 x 1 kernel, stride 1, no padding".into())
    }

    fn iterations(&self, task: &ConvTask<'_>, _caps: &Caps) -> u64 {
        register::iterations(task)
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let workgroup = register::workgroup(task.positions());
        let workgroups = register::workgroups(task, workgroup);
        let consts = [("WORKGROUP", workgroup), ("PADDED", 0)];
        let resources = Resources::iterations(register::iterations(task));
        task.dispatch(Kernel::ConvPointwise, &consts, workgroups, resources, caps)
    }
}
