//! What the convolution kernels share on the host: the parameter block and constants of `shaders/common/conv.wgsl`.

use super::{Const, Dispatch, Kernel, Operand, Slice, Variant, elements};
use crate::caps::Caps;
use crate::desc::Geometry;
use crate::error::{Result, index32};

pub(crate) const DISPATCH: (&str, &str) = ("common/dispatch.wgsl", include_str!("../../shaders/common/dispatch.wgsl"));
pub(crate) const CONV: (&str, &str) = ("common/conv.wgsl", include_str!("../../shaders/common/conv.wgsl"));
/// Bindings of every convolution kernel: x, rows, gains, affine, y.
pub(crate) const STORAGE: &[bool] = &[false, false, false, false, true];

/// Mirrors `ConvParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct ConvParams {
    x_base: u32,
    rows_base: u32,
    gains_base: u32,
    affine_base: u32,
    y_base: u32,
    batch: u32,
    groups: u32,
    c_in: u32,
    c_out: u32,
    in_d: u32,
    in_h: u32,
    in_w: u32,
    out_d: u32,
    out_h: u32,
    out_w: u32,
    pad_d: u32,
    pad_h: u32,
    pad_w: u32,
    row_stride: u32,
    bias_offset: u32,
    gain_stride: u32,
    channel_gain_offset: u32,
    filter_gain_offset: u32,
    workgroups: u32,
}

/// What follows a convolution's sum, in the same dispatch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
}

impl Activation {
    fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Relu => 1,
        }
    }
}

/// A convolution of some samples of the batch, by whichever kernel.
#[derive(Clone, Debug)]
pub(crate) struct ConvTask<'a> {
    pub geometry: &'a Geometry,
    pub input: [usize; 3],
    pub output: [usize; 3],
    /// First sample and number of samples.
    pub first: usize,
    pub batch: usize,
    /// Whether all samples share row 0.
    pub shared: bool,
    pub has_bias: bool,
    /// Elements of an attention row, and where in it the gains that the convolution applies begin.
    pub gain_stride: usize,
    pub channel_gain: Option<usize>,
    pub filter_gain: Option<usize>,
    pub has_affine: bool,
    pub activation: Activation,
}

impl ConvTask<'_> {
    pub(crate) fn positions(&self) -> usize {
        self.output.iter().product()
    }

    /// Channels of one group: in and out.
    pub(crate) fn group_channels(&self) -> [usize; 2] {
        [self.geometry.c_in / self.geometry.groups, self.geometry.c_out / self.geometry.groups]
    }

    /// Elements of a row: the kernel, then the bias.
    pub(crate) fn row(&self) -> usize {
        self.geometry.weights() + if self.has_bias { self.geometry.c_out } else { 0 }
    }

    /// The dispatch of `kernel` with constants of its own beside the shared ones.
    pub(crate) fn dispatch(
        &self,
        kernel: Kernel,
        own_consts: &[(&'static str, u32)],
        workgroups: usize,
        workgroup_memory: u32,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let variant = Variant { kernel, consts: self.consts(own_consts)? };
        let params = self.params(workgroups)?;
        Dispatch::new(variant, bytemuck::bytes_of(&params), self.slices()?, workgroups as u64, workgroup_memory, caps)
    }

    fn consts(&self, own: &[(&'static str, u32)]) -> Result<Vec<(&'static str, Const)>> {
        let g = self.geometry;
        let axes = [
            (["KERNEL_D", "KERNEL_H", "KERNEL_W"], g.kernel),
            (["STRIDE_D", "STRIDE_H", "STRIDE_W"], g.stride),
            (["DILATION_D", "DILATION_H", "DILATION_W"], g.dilation),
        ];
        let mut consts: Vec<_> = own.iter().map(|&(name, value)| (name, Const::U32(value))).collect();
        for (names, values) in axes {
            for (name, value) in names.into_iter().zip(values) {
                consts.push((name, Const::U32(index32(name, value)?)));
            }
        }
        consts.push(("HAS_BIAS", Const::Bool(self.has_bias)));
        consts.push(("CHANNEL_GAIN", Const::Bool(self.channel_gain.is_some())));
        consts.push(("FILTER_GAIN", Const::Bool(self.filter_gain.is_some())));
        consts.push(("HAS_AFFINE", Const::Bool(self.has_affine)));
        consts.push(("ACTIVATION", Const::U32(self.activation.number())));
        Ok(consts)
    }

    fn params(&self, workgroups: usize) -> Result<ConvParams> {
        let g = self.geometry;
        let [c_in, c_out] = self.group_channels();
        let n = |what: &str, value: usize| index32(what, value);
        // A position may lie as far as this from 0 before it wraps; see tap_position in the shader.
        for axis in 0..3 {
            let reach = self.output[axis] * g.stride[axis] + g.kernel[axis] * g.dilation[axis] + 3 * g.stride[axis];
            n("reach of the kernel", reach + g.padding[axis][0] + self.input[axis])?;
        }
        Ok(ConvParams {
            batch: n("batch", self.batch)?,
            groups: n("groups", g.groups)?,
            c_in: n("input channels", c_in)?,
            c_out: n("output channels", c_out)?,
            in_d: n("input depth", self.input[0])?,
            in_h: n("input height", self.input[1])?,
            in_w: n("input width", self.input[2])?,
            out_d: n("output depth", self.output[0])?,
            out_h: n("output height", self.output[1])?,
            out_w: n("output width", self.output[2])?,
            pad_d: n("padding", g.padding[0][0])?,
            pad_h: n("padding", g.padding[1][0])?,
            pad_w: n("padding", g.padding[2][0])?,
            row_stride: if self.shared { 0 } else { n("kernel row", self.row())? },
            bias_offset: n("kernel row", g.weights())?,
            gain_stride: n("attention row", self.gain_stride)?,
            channel_gain_offset: n("attention row", self.channel_gain.unwrap_or(0))?,
            filter_gain_offset: n("attention row", self.filter_gain.unwrap_or(0))?,
            workgroups: n("workgroups", workgroups)?,
            ..Default::default()
        })
    }

    fn slices(&self) -> Result<Vec<Slice>> {
        let g = self.geometry;
        let of_samples = |operand, sample: usize| -> Result<Slice> {
            elements(operand, self.batch.saturating_mul(sample))?;
            Ok(Slice { operand, start: (self.first * sample) as u64, len: (self.batch * sample) as u64 })
        };
        let input = of_samples(Operand::Input, g.c_in * self.input.iter().product::<usize>())?;
        let rows = if self.shared { 1 } else { self.batch };
        // Per-sample rows are scratch and begin anew with every part of the batch.
        let rows =
            Slice { operand: Operand::Rows, start: 0, len: elements(Operand::Rows, rows.saturating_mul(self.row()))? };
        let has_gain = self.channel_gain.is_some() || self.filter_gain.is_some();
        let gains = if has_gain { of_samples(Operand::Attention, self.gain_stride)? } else { UNUSED };
        let affine = Slice { operand: Operand::Affine, start: 0, len: 2 * g.c_out as u64 };
        let output = of_samples(Operand::Output, g.c_out * self.positions())?;
        Ok(vec![input, rows, gains, if self.has_affine { affine } else { UNUSED }, output])
    }
}

/// Bound where a variant never reads: WebGPU wants something in every binding.
const UNUSED: Slice = Slice { operand: Operand::Input, start: 0, len: 1 };
