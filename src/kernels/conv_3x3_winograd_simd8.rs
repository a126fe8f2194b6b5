//! Host side of `shaders/conv_3x3_winograd_simd8.wgsl`: 3 x 3 taps with stride 1 by minimal
//! filtering along the rows, patches spread over the lanes of a subgroup.

use super::conv::{Accepts, ConvKernel, ConvTask, SIMD8, needs, without_map};
use super::conv_3x3_simd8::{iterations, launch};
use super::{Dispatch, Kernel, KernelDef};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::Problem;

pub(crate) const DEF: KernelDef = SIMD8;

/// Rows and columns of a tile.
pub(crate) const TILE: [usize; 2] = [7, 8];

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, _output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        let what = "two axes, a 3 x 3 kernel, stride 1 and no dilation";
        needs(problem.geometry.is_plain_3x3(), what)
    }

    fn suits(&self, _problem: &Problem, _output: [usize; 3], _caps: &Caps) -> Option<String> {
        // Its errors are larger: it is for its user to choose.
        None
    }

    fn iterations(&self, task: &ConvTask<'_>, _caps: &Caps) -> u64 {
        iterations(task, TILE)
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        launch(Kernel::Conv3x3WinogradSimd8, task, TILE, caps)
    }

    fn sums_plainly(&self) -> bool {
        false
    }
}
