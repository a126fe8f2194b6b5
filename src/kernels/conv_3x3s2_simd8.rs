//! Host side of `shaders/conv_3x3s2_simd8.wgsl`: 3 x 3 taps with stride 2, patches spread over the
//! lanes of a subgroup.

use super::conv::{Accepts, ConvKernel, ConvTask, SIMD8, fills_eight, needs, without_map};
use super::conv_3x3_simd8::{TILE, iterations, launch};
use super::{Dispatch, Kernel, KernelDef};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::Problem;

pub(crate) const DEF: KernelDef = SIMD8;

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, _output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        let what = "two axes, a 3 x 3 kernel, stride 2 on both and no dilation";
        needs(problem.geometry.is_strided_3x3(), what)
    }

    fn suits(&self, problem: &Problem, output: [usize; 3], caps: &Caps) -> Option<String> {
        (caps.has_lanes() && fills_eight(&problem.geometry, output))
            .then(|| "3 x 3 with stride 2 on a software adapter with lanes".into())
    }

    fn iterations(&self, task: &ConvTask<'_>, _caps: &Caps) -> u64 {
        iterations(task, TILE)
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        launch(Kernel::Conv3x3s2Simd8, task, TILE, caps)
    }
}
