//! Host side of `shaders/conv_pointwise_simd8.wgsl`: 1 x 1 taps as a matrix product, weights spread
//! over the lanes of a subgroup.

use super::conv::{Accepts, ConvKernel, ConvTask, SIMD8, needs, width, without_map};
use super::{Dispatch, Kernel, KernelDef, Resources, X_WIDTH, Y_WIDTH};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::{BLOCK, Layout, Problem, WeightOrder, product};

pub(crate) const DEF: KernelDef = SIMD8;

/// Positions of half a workgroup's tile, or of the whole tile of a workgroup that has but one.
const HALF: usize = 32;

/// Halves of a tile: two compute eight positions in the time that two tiles take for seven, where
/// not too many lie past the map. A rule that looks at the map alone.
fn halves(positions: usize) -> u32 {
    let [single, double] = [1, 2].map(|halves| positions.div_ceil(halves * HALF) * halves);
    if 7 * double <= 8 * single { 2 } else { 1 }
}

/// Whether it is faster than `conv_gemm_simd8`, which takes positions in smaller pieces: at least
/// two thirds of the lanes have positions, and a load takes two of them or more, as it does where
/// their number is even.
fn pays(positions: usize) -> bool {
    positions.is_multiple_of(2) && 3 * positions >= 2 * positions.next_multiple_of(HALF)
}

/// Iterations of an invocation's loops, which go over 128 outputs.
fn iterations(task: &ConvTask<'_>) -> u64 {
    task.iterations(128)
}

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, _output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        let is_able = problem.geometry.is_pointwise()
            && problem.order == WeightOrder::Blocked
            && problem.layouts[0] == Layout::ChannelsFirst;
        let what = "a 1 x 1 kernel, stride 1, no padding, channels first and weights in blocks";
        needs(is_able, what)
    }

    fn suits(&self, _problem: &Problem, output: [usize; 3], caps: &Caps) -> Option<String> {
        (caps.has_lanes() && pays(product(&output))).then(|| {
            "1 x 1, stride 1, no padding, on a software adapter with lanes, positions in pairs"
                .into()
        })
    }

    fn iterations(&self, task: &ConvTask<'_>, _caps: &Caps) -> u64 {
        iterations(task)
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let [_, c_out] = task.group_channels();
        let halves = halves(task.positions());
        let tiles = task.positions().div_ceil(halves as usize * HALF) * c_out.div_ceil(BLOCK);
        let workgroups = task.batch * task.geometry.groups * tiles;
        let [x_width, y_width] =
            [0, 1].map(|i| width(task.positions(), task.elems[i], task.layouts[i]));
        let consts = [("WORKGROUP", 8), ("HALVES", halves), (X_WIDTH, x_width), (Y_WIDTH, y_width)];
        let resources = Resources::iterations(iterations(task));
        task.dispatch(Kernel::ConvPointwiseSimd8, &consts, workgroups, resources, caps)
    }
}
