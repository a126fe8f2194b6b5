//! Host side of `shaders/conv_3x3_simd8.wgsl`: 3 x 3 taps with stride 1, patches spread over the
//! lanes of a subgroup.

use super::conv::{Accepts, ConvKernel, ConvTask, SIMD8, fills_eight, needs, without_map};
use super::{Dispatch, Kernel, KernelDef, Resources, X_WIDTH};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::{BLOCK, Problem};

pub(crate) const DEF: KernelDef = SIMD8;

/// Rows and columns of a tile.
pub(crate) const TILE: [usize; 2] = [7, 4];

/// Tiles of these rows and columns in an output map.
pub(super) fn tiles([_, height, width]: [usize; 3], tile: [usize; 2]) -> usize {
    height.div_ceil(tile[0]) * width.div_ceil(tile[1])
}

/// Iterations of an invocation's loops: over the channels, then over its outputs, with an iteration
/// for each bias.
pub(crate) fn iterations(task: &ConvTask<'_>, tile: [usize; 2]) -> u64 {
    let outputs = 2 * (tile[0] * (1 + 3 * tile[1]) + 1 + tile[0]);
    (task.channels.len() + 1 + outputs) as u64
}

/// The dispatch of a kernel for lanes, a workgroup for a tile of 16 output channels.
pub(super) fn launch(
    kernel: Kernel,
    task: &ConvTask<'_>,
    tile: [usize; 2],
    caps: &Caps,
) -> Result<Dispatch> {
    let [_, c_out] = task.group_channels();
    let workgroups =
        task.batch * task.geometry.groups * tiles(task.output, tile) * c_out.div_ceil(BLOCK);
    let consts = [("WORKGROUP", 8), (X_WIDTH, task.pairs())];
    task.dispatch(kernel, &consts, workgroups, Resources::iterations(iterations(task, tile)), caps)
}

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, _output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        let what = "two axes, a 3 x 3 kernel, stride 1 and no dilation";
        needs(problem.geometry.is_plain_3x3(), what)
    }

    fn suits(&self, problem: &Problem, output: [usize; 3], caps: &Caps) -> Option<String> {
        (caps.has_lanes() && fills_eight(&problem.geometry, output))
            .then(|| "3 x 3 with stride 1 on a software adapter with lanes".into())
    }

    fn iterations(&self, task: &ConvTask<'_>, _caps: &Caps) -> u64 {
        iterations(task, TILE)
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        launch(Kernel::Conv3x3Simd8, task, TILE, caps)
    }
}
