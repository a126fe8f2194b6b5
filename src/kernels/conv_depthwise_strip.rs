//! Host side of `shaders/conv_depthwise_strip.wgsl`: one input channel per group, up to 7 x 7 taps
//! with strides of 1 and 2, each strip of eight columns row by row.

use super::conv::{Accepts, ConvKernel, ConvTask, PLAIN, is_depthwise, needs, width, without_map};
use super::{Dispatch, Kernel, KernelDef, Resources, X_WIDTH, Y_WIDTH};
use crate::caps::Caps;
use crate::error::Result;
use crate::problem::{Geometry, Problem};

pub(crate) const DEF: KernelDef = PLAIN;

/// Strips of a workgroup.
const WORKGROUP: u32 = 32;

/// Columns of outputs of a strip.
const COLUMNS: usize = 8;

/// Iterations of an invocation's loop over rows: their stores, and loops over their biases.
fn iterations(output: [usize; 3]) -> u64 {
    (output[1] * (1 + 2 * (5 + 8)) + 9) as u64
}

/// Whether lines of inputs and of taps are as the shader has them.
fn is_able(g: &Geometry) -> bool {
    let is_small = |axis: usize| {
        g.stride[axis] <= 2 && g.kernel[axis] <= 7 && g.kernel[axis] >= g.stride[axis]
    };
    let is_flat = g.kernel[0] == 1 && g.stride[0] == 1 && g.padding[0] == [0; 2];
    g.c_in == g.groups
        && is_flat
        && !g.transposed
        && g.dilation == [1; 3]
        && is_small(1)
        && is_small(2)
}

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        let what = "one input channel a group, two axes, up to 7 x 7 taps, strides of 1 or 2 that \
                    are no larger than the kernel, and no dilation";
        needs(is_able(&problem.geometry) && output[0] == 1, what)
    }

    fn suits(&self, problem: &Problem, output: [usize; 3], caps: &Caps) -> Option<String> {
        let suits = is_depthwise(&problem.geometry)
            && caps.is_software()
            && iterations(output) <= u64::from(caps.max_loop_iterations);
        suits.then(|| {
            "one input channel a group, up to 7 x 7 with stride 1 or 2, on a software adapter"
                .into()
        })
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let strips = task.batch * task.geometry.c_out * task.output[2].div_ceil(COLUMNS);
        let widest = if caps.int64 { 4 } else { 1 };
        let x_width = width(task.input[2], task.elems[0], task.layouts[0]).min(widest).min(2);
        let y_width = width(task.output[2], task.elems[1], task.layouts[1]).min(widest);
        let is_odd = task.geometry.padding[2][0] % 2 == 1;
        let consts = [
            ("WORKGROUP", WORKGROUP),
            ("SHIFT", u32::from(x_width == 2 && is_odd)),
            (X_WIDTH, x_width),
            (Y_WIDTH, y_width),
        ];
        let workgroups = strips.div_ceil(WORKGROUP as usize);
        let resources = Resources::iterations(iterations(task.output));
        task.dispatch(Kernel::ConvDepthwiseStrip, &consts, workgroups, resources, caps)
    }
}
