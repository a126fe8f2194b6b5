//! Host side of `shaders/conv_direct.wgsl`: one output per invocation.

use super::conv::{Accepts, ConvKernel, ConvTask, PLAIN};
use super::{Dispatch, Kernel, KernelDef, Resources};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::{AttentionSource, Problem, product};

pub(crate) const DEF: KernelDef = PLAIN;

const WORKGROUP: u32 = 64;

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, _problem: &Problem, _output: [usize; 3]) -> Accepts {
        Ok(())
    }

    fn suits(&self, problem: &Problem, output: [usize; 3], _caps: &Caps) -> Option<String> {
        let (g, positions) = (&problem.geometry, product(&output));
        let c_out = g.c_out / g.groups;
        let is_small = c_out < 8 || positions < 8;
        (is_small && !matches!(problem.attention, AttentionSource::Map(_)))
            .then(|| format!("{c_out} channels x {positions} positions do not fill a tile"))
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let outputs = task.batch * task.geometry.c_out * task.positions();
        let workgroups = outputs.div_ceil(WORKGROUP as usize);
        let resources = Resources::iterations(task.iterations(1));
        task.dispatch(Kernel::ConvDirect, &[("WORKGROUP", WORKGROUP)], workgroups, resources, caps)
    }
}
