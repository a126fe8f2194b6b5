//! Which convolution kernel runs: asked for by name, or the planner's choice for a problem on a
//! device. A rule looks at the layer, its map and the device, never at the batch: so that an output
//! does not depend on what else is in it.

use std::fmt;
use std::str::FromStr;

use super::{AttentionSource, Problem};
use crate::caps::Caps;
use crate::desc::Geometry;
use crate::error::{Error, Result};
use crate::kernels::{Kernel, conv_block, conv_depthwise_lanes, conv_matrix, conv_pointwise_lanes};

/// Which convolution kernel runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvChoice {
    /// The planner chooses.
    #[default]
    Auto,
    /// `conv_direct`, possible for every convolution.
    Direct,
    /// `conv_tiled`, possible for every convolution.
    Tiled,
    /// `conv_block`, for convolutions that are not transposed, their kernel sizes adding up to at
    /// most 16.
    Block,
    /// `conv_block` with the sum over the input channels split among workgroups, in two parts at
    /// least, and `sum_parts`; for more than 16 input channels a group, where `conv_block` is
    /// possible.
    Split,
    /// `conv_matrix`, for every convolution without a map, on devices whose cooperative matrices
    /// were tested ([`Context::with_matrices`](crate::Context::with_matrices)). Inputs that are
    /// not in f32, and the weights beside them, are multiplied in f16.
    Matrix,
    /// `conv_register`, possible for every convolution.
    Register,
    /// `conv_lanes`, possible for every convolution on software adapters that have lanes
    /// ([`Caps::has_lanes`]).
    Lanes,
    /// `conv_patch`, for 3 x 3 kernels over two axes with stride 1, where `conv_lanes` is possible.
    Patch,
    /// `conv_stride_two`, for 3 x 3 kernels over two axes with stride 2, where `conv_lanes` is
    /// possible.
    StrideTwo,
    /// `conv_winograd_rows`, where `conv_patch` is possible: half the products by Winograd's
    /// minimal filtering along the rows, F(1 x 4, 3 x 3), and errors two to four times as
    /// large; an input that is not finite makes NaN of up to eight outputs of a row. Neither the
    /// planner nor tuning chooses it.
    WinogradRows,
    /// `conv_row`, for at most 8 taps along the width of which 16 outputs read at most 48 inputs,
    /// where `conv_lanes` is possible.
    Row,
    /// `conv_depthwise`, for one input channel a group.
    Depthwise,
    /// `conv_depthwise_patch`, for one input channel a group and 3 x 3 kernels over two axes with
    /// stride 1.
    DepthwisePatch,
    /// `conv_depthwise_lanes`, for the same where maps have at least seven rows and where
    /// `conv_lanes` is possible.
    DepthwiseLanes,
    /// `conv_pointwise`, for 1 x 1 kernels with stride 1 and no padding.
    Pointwise,
    /// `conv_pointwise_lanes`, for the same with channels first and weights in blocks, where
    /// `conv_lanes` is possible.
    PointwiseLanes,
}

impl ConvChoice {
    /// All choices.
    pub const ALL: [Self; 17] = [
        Self::Auto,
        Self::Direct,
        Self::Tiled,
        Self::Block,
        Self::Split,
        Self::Matrix,
        Self::Register,
        Self::Lanes,
        Self::Patch,
        Self::StrideTwo,
        Self::WinogradRows,
        Self::Row,
        Self::Depthwise,
        Self::DepthwisePatch,
        Self::DepthwiseLanes,
        Self::Pointwise,
        Self::PointwiseLanes,
    ];

    /// The kernel that it asks for.
    fn kernel(self) -> Option<Kernel> {
        Some(match self {
            Self::Auto => return None,
            Self::Direct => Kernel::ConvDirect,
            Self::Tiled => Kernel::ConvTiled,
            Self::Block | Self::Split => Kernel::ConvBlock,
            Self::Matrix => Kernel::ConvMatrix,
            Self::Register => Kernel::ConvRegister,
            Self::Lanes => Kernel::ConvLanes,
            Self::Patch => Kernel::ConvPatch,
            Self::StrideTwo => Kernel::ConvStrideTwo,
            Self::WinogradRows => Kernel::ConvWinogradRows,
            Self::Row => Kernel::ConvRow,
            Self::Depthwise => Kernel::ConvDepthwise,
            Self::DepthwisePatch => Kernel::ConvDepthwisePatch,
            Self::DepthwiseLanes => Kernel::ConvDepthwiseLanes,
            Self::Pointwise => Kernel::ConvPointwise,
            Self::PointwiseLanes => Kernel::ConvPointwiseLanes,
        })
    }

    /// Its name in arguments and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Tiled => "tiled",
            Self::Block => "block",
            Self::Split => "split",
            Self::Matrix => "matrix",
            Self::Register => "register",
            Self::Lanes => "lanes",
            Self::Patch => "patch",
            Self::StrideTwo => "stride-two",
            Self::WinogradRows => "winograd-rows",
            Self::Row => "row",
            Self::Depthwise => "depthwise",
            Self::DepthwisePatch => "depthwise-patch",
            Self::DepthwiseLanes => "depthwise-lanes",
            Self::Pointwise => "pointwise",
            Self::PointwiseLanes => "pointwise-lanes",
        }
    }
}

impl fmt::Display for ConvChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ConvChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|choice| choice.name() == name).ok_or_else(|| Error::Value {
            what: "convolution kernel".into(),
            needed: format!("one of {}", Self::ALL.map(Self::name).join(", ")),
            found: format!("\"{name}\""),
        })
    }
}

/// A kernel, and why it runs.
type Choice = (Kernel, String);

/// The kernel that a problem asks for, or else the planner's choice.
pub(super) fn choose_conv(problem: &Problem, output: [usize; 3], caps: &Caps) -> Choice {
    let g = &problem.geometry;
    if let Some(kernel) = problem.kernel.kernel() {
        return (kernel, "asked for".into());
    }
    if matches!(problem.attention, AttentionSource::Map(_)) {
        return for_map(caps);
    }
    if g.c_in == g.groups && g.groups > 1 {
        return for_depthwise(g, output, caps);
    }
    let with_lanes = if caps.has_lanes() { with_lanes(problem, output) } else { None };
    with_lanes.unwrap_or_else(|| anywhere(problem, output, caps))
}

fn for_map(caps: &Caps) -> Choice {
    let (kernel, where_it_runs) = if caps.has_lanes() {
        (Kernel::ConvLanes, ", on a software adapter with lanes")
    } else if caps.is_software() {
        (Kernel::ConvRegister, ", on a software adapter")
    } else if caps.is_mobile() {
        (Kernel::ConvRegister, ", on a mobile GPU")
    } else {
        (Kernel::ConvTiled, "")
    };
    (kernel, format!("mixes at every position{where_it_runs}"))
}

fn for_depthwise(g: &Geometry, output: [usize; 3], caps: &Caps) -> Choice {
    let fits_lanes = caps.has_lanes()
        && conv_depthwise_lanes::can_compute(g, output)
        // Narrower maps fit a tile of the other kernel, and leave most of eight outputs empty here.
        && output[2] > 4
        && conv_depthwise_lanes::trips(output) <= u64::from(caps.max_loop_trips);
    let (kernel, which) = if fits_lanes {
        (Kernel::ConvDepthwiseLanes, ", 3 x 3 with stride 1, on a software adapter with lanes")
    } else if g.is_plain_3x3() && caps.is_software() {
        (Kernel::ConvDepthwisePatch, ", 3 x 3 with stride 1, on a software adapter")
    } else {
        (Kernel::ConvDepthwise, "")
    };
    (kernel, format!("one input channel a group{which}"))
}

/// On software adapters with lanes, for what fills them.
fn with_lanes(problem: &Problem, output: [usize; 3]) -> Option<Choice> {
    let g = &problem.geometry;
    let [c_in, c_out] = [g.c_in / g.groups, g.c_out / g.groups];
    let positions: usize = output.iter().product();
    let is_filled = c_out >= 8 && positions >= 8;
    let has_wide_rows = output[2] >= 12 && g.has_short_runs() && (c_in < 4 || g.kernel[2] > 4);
    let is_pointwise = conv_pointwise_lanes::pays(positions)
        && conv_pointwise_lanes::can_compute(g, problem.order, problem.layouts[0]);
    let (kernel, why) = if is_filled && g.is_plain_3x3() {
        (Kernel::ConvPatch, "3 x 3 with stride 1 on a software adapter with lanes")
    } else if is_filled && g.is_strided_3x3() {
        (Kernel::ConvStrideTwo, "3 x 3 with stride 2 on a software adapter with lanes")
    } else if is_pointwise {
        (
            Kernel::ConvPointwiseLanes,
            "1 x 1, stride 1, no padding, on a software adapter with lanes, positions in pairs",
        )
    } else if is_filled && has_wide_rows {
        (Kernel::ConvRow, "few channels or wide rows of taps, on a software adapter with lanes")
    } else if is_filled {
        (
            Kernel::ConvLanes,
            "a software adapter with lanes: loads cost most, broadcasts next to nothing",
        )
    } else {
        return None;
    };
    Some((kernel, why.into()))
}

fn anywhere(problem: &Problem, output: [usize; 3], caps: &Caps) -> Choice {
    let g = &problem.geometry;
    let c_out = g.c_out / g.groups;
    let positions: usize = output.iter().product();
    let in_workgroup_memory = !caps.is_software() && !caps.is_mobile();
    if !caps.is_software() && conv_matrix::fills(g, positions, problem.elems[0], caps) {
        (
            Kernel::ConvMatrix,
            format!("{c_out} channels x {positions} positions fill tiles of cooperative matrices"),
        )
    } else if in_workgroup_memory && conv_block::is_filled(g, positions, caps) {
        (Kernel::ConvBlock, format!("{c_out} channels x {positions} positions fill large tiles"))
    } else if g.is_pointwise() {
        (Kernel::ConvPointwise, "1 x 1 kernel, stride 1, no padding".into())
    } else if c_out < 8 || positions < 8 {
        (Kernel::ConvDirect, format!("{c_out} channels x {positions} positions do not fill a tile"))
    } else if caps.is_software() {
        (
            Kernel::ConvRegister,
            "a software adapter: workgroup memory and barriers cost more than they save".into(),
        )
    } else if caps.is_mobile() {
        (
            Kernel::ConvRegister,
            "a mobile GPU: its caches do for weights what workgroup memory would".into(),
        )
    } else {
        (Kernel::ConvTiled, format!("{c_out} channels x {positions} positions fill tiles"))
    }
}
