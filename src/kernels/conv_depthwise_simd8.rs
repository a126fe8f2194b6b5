//! Host side of `shaders/conv_depthwise_simd8.wgsl`: one input channel per group, 3 x 3 taps with
//! stride 1, rows spread over the lanes of a subgroup.

use super::conv::{Accepts, ConvKernel, ConvTask, PLAIN, is_depthwise, needs, width, without_map};
use super::{Dispatch, Kernel, KernelDef, Resources, X_WIDTH, Y_WIDTH};
use crate::caps::Caps;
use crate::error::{Result, index32};
use crate::problem::{Geometry, Problem};

pub(crate) const DEF: KernelDef = KernelDef { lanes: true, ..PLAIN };

/// Lines of a workgroup: eight subgroups of eight, as workgroups of one cost more to start.
const WORKGROUP: u32 = 64;

/// Lines of an output channel: its rows, and one for each side without padding.
fn lines(geometry: &Geometry, output: [usize; 3]) -> usize {
    let [_, [above, below], _] = geometry.padding;
    output[1] + usize::from(above == 0) + usize::from(below == 0)
}

/// Iterations of an invocation's loop over eight outputs at a time: their stores, and loops over
/// their biases.
fn iterations(output: [usize; 3]) -> u64 {
    (output[2].div_ceil(8) * (1 + 2 * 5 + 2 * 8) + 1) as u64
}

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        let g = &problem.geometry;
        // Lines of at most two channels meet in a subgroup, so a channel has seven.
        let is_able = g.c_in == g.groups && g.is_plain_3x3() && lines(g, output) >= 7;
        let what = "one input channel a group, two axes, a 3 x 3 kernel, stride 1, no dilation, \
                    and maps of seven rows";
        needs(is_able, what)
    }

    fn suits(&self, problem: &Problem, output: [usize; 3], caps: &Caps) -> Option<String> {
        let suits = is_depthwise(&problem.geometry)
            && caps.has_lanes()
            // Narrower maps fit a tile of conv_depthwise_3x3, and leave most of eight outputs empty
            // here.
            && output[2] > 4
            && iterations(output) <= u64::from(caps.max_loop_iterations);
        suits.then(|| {
            "one input channel a group, 3 x 3 with stride 1, on a software adapter with lanes"
                .into()
        })
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let lines = task.batch * task.geometry.c_out * lines(task.geometry, task.output);
        let y_width = width(task.output[2], task.elems[1], task.layouts[1]);
        let [_, multiplier] = task.group_channels();
        let consts = [
            ("WORKGROUP", WORKGROUP),
            ("MULTIPLIER", index32("output channels", multiplier)?),
            (X_WIDTH, task.pairs()),
            (Y_WIDTH, y_width),
        ];
        let workgroups = lines.div_ceil(WORKGROUP as usize);
        let resources = Resources::iterations(iterations(task.output));
        task.dispatch(Kernel::ConvDepthwiseSimd8, &consts, workgroups, resources, caps)
    }
}
