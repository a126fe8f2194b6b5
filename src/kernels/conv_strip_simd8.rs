//! Host side of `shaders/conv_strip_simd8.wgsl`: wide rows of taps, runs of inputs spread over the
//! lanes of a subgroup.

use super::conv::{Accepts, ConvKernel, ConvTask, SIMD8, fills_eight, needs, without_map};
use super::{Dispatch, Kernel, KernelDef, Resources};
use crate::caps::Caps;
use crate::error::{Result, index32};
use crate::problem::{BLOCK, Geometry, Problem};

pub(crate) const DEF: KernelDef = SIMD8;

/// Outputs of a workgroup, along the width.
const STRIP: usize = 16;

/// Inputs that the outputs of a workgroup read along the width.
fn span(g: &Geometry) -> usize {
    let taps = (g.kernel[2] - 1).saturating_mul(g.dilation[2]);
    (STRIP - 1).saturating_mul(g.stride[2]).saturating_add(taps).saturating_add(1)
}

/// How the kernel convolves.
pub(crate) struct Conv;

impl ConvKernel for Conv {
    fn accepts(&self, problem: &Problem, _output: [usize; 3]) -> Accepts {
        without_map(problem)?;
        let g = &problem.geometry;
        let is_able = !g.transposed && g.kernel[2] <= 8 && span(g) <= 48;
        let what = "at most 8 taps along the width, of which 16 outputs read at most 48 inputs, \
                    and no transposition";
        needs(is_able, what)
    }

    fn suits(&self, problem: &Problem, output: [usize; 3], caps: &Caps) -> Option<String> {
        let g = &problem.geometry;
        let pays = output[2] >= 12 && (g.c_in / g.groups < 4 || g.kernel[2] > 4);
        (caps.has_lanes() && fills_eight(g, output) && pays)
            .then(|| "few channels or wide rows of taps, on a software adapter with lanes".into())
    }

    fn launch(&self, task: &ConvTask<'_>, caps: &Caps) -> Result<Dispatch> {
        let [_, c_out] = task.group_channels();
        let [depth, height, width] = task.output;
        let tiles = depth * height * width.div_ceil(STRIP) * c_out.div_ceil(BLOCK);
        let workgroups = task.batch * task.geometry.groups * tiles;
        let consts = [("WORKGROUP", 8), ("SPAN", index32("span", span(task.geometry))?)];
        let resources = Resources::iterations(task.iterations(32));
        task.dispatch(Kernel::ConvStripSimd8, &consts, workgroups, resources, caps)
    }
}
