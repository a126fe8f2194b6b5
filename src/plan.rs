//! The planner: problem and caps in, dispatches out. It touches no GPU object, so it can be asked what would run anywhere.

use std::fmt;

use crate::caps::Caps;
use crate::desc::Geometry;
use crate::error::{Error, Result};
use crate::kernels::aggregate::AttentionRow;
use crate::kernels::attention_mlp::MlpSizes;
use crate::kernels::conv::{Activation, ConvTask};
use crate::kernels::{
    Dispatch, Kernel, Operand, aggregate, attention_mlp, average_pool, binding_limit, conv_depthwise, conv_direct,
    conv_pointwise, conv_register, conv_tiled,
};

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
    /// `conv_register`, possible for every convolution.
    Register,
    /// `conv_depthwise`, for one input channel a group.
    Depthwise,
    /// `conv_pointwise`, for 1 x 1 kernels with stride 1 and no padding.
    Pointwise,
}

/// Where a layer's attention comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AttentionSource {
    /// There is none: all samples share one kernel.
    Static,
    /// The caller gives mixing weights `[batch, K]`.
    Given,
    /// Computed from the layer's input.
    Branch(Branch),
}

/// An attention branch: pooling, a hidden layer, and a head for each part that is not skipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Branch {
    /// Hidden units.
    pub hidden: usize,
    /// Divides every logit.
    pub temperature: f32,
    /// Whether there are gains of the input channels.
    pub channel: bool,
    /// Whether there are gains of the output channels.
    pub filter: bool,
    /// Whether there are gains of the taps.
    pub spatial: bool,
    /// Whether there are mixing weights of the kernels.
    pub mix: bool,
}

/// All that decides a plan, beside the caps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    /// Channels, kernel, stride, padding, dilation, groups, K.
    pub geometry: Geometry,
    /// Samples.
    pub batch: usize,
    /// Input depth, height and width.
    pub input: [usize; 3],
    /// Where the attention comes from.
    pub attention: AttentionSource,
    /// Whether there is a bias bank.
    pub has_bias: bool,
    /// Whether a scale and shift follow.
    pub has_affine: bool,
    /// What follows last.
    pub activation: Activation,
    /// Which convolution kernel runs.
    pub kernel: ConvChoice,
}

/// What will run, in order, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    problem: Problem,
    output: [usize; 3],
    part: usize,
    dispatches: Vec<Dispatch>,
    conv: Kernel,
    why: String,
}

impl Problem {
    /// Attention row of this problem: gains, then mixing weights.
    #[must_use]
    pub fn attention_row(&self) -> AttentionRow {
        let g = &self.geometry;
        match self.attention {
            AttentionSource::Static => AttentionRow::default(),
            AttentionSource::Given => AttentionRow { stride: g.kernels, mix: Some(0), ..Default::default() },
            AttentionSource::Branch(branch) => {
                let mut row = AttentionRow::default();
                let mut part = |present: bool, len: usize| {
                    let start = row.stride;
                    row.stride += if present { len } else { 0 };
                    present.then_some(start)
                };
                let channel = part(branch.channel, g.c_in);
                let filter = part(branch.filter, g.c_out);
                let spatial = part(branch.spatial, g.taps());
                let mix = part(branch.mix, g.kernels);
                AttentionRow { stride: row.stride, channel, filter, spatial, mix }
            }
        }
    }

    /// Whether all samples share one kernel: nothing of the attention goes into it, so the gains that are left are
    /// applied by the convolution and no kernel is built per sample.
    #[must_use]
    pub fn shares_kernel(&self) -> bool {
        let row = self.attention_row();
        row.mix.is_none() && row.spatial.is_none()
    }
}

impl Plan {
    /// Plans a layer.
    ///
    /// # Errors
    /// [`Error::Shape`] for an empty batch or a kernel that does not fit, [`Error::Limit`] where even one sample passes a
    /// limit of the device, [`Error::Overflow`], [`Error::Unsupported`] if the chosen kernel cannot compute this.
    pub fn new(problem: &Problem, caps: &Caps) -> Result<Self> {
        if problem.batch == 0 {
            return Err(Error::Shape { what: "batch".into(), expected: "at least 1".into(), found: "0".into() });
        }
        if problem.shares_kernel() && problem.geometry.kernels != 1 {
            return Err(Error::Shape {
                what: "kernels in the bank without mixing weights".into(),
                expected: "1".into(),
                found: problem.geometry.kernels.to_string(),
            });
        }
        let output = problem.geometry.output_size(problem.input)?;
        let part = samples_per_part(problem, output, caps)?;
        let (conv, why) = choose_conv(problem, output, caps);
        let mut plan = Self { problem: *problem, output, part, dispatches: Vec::new(), conv, why };
        for first in (0..problem.batch).step_by(part) {
            plan.push_part(first, part.min(problem.batch - first), caps)?;
        }
        Ok(plan)
    }

    fn push_part(&mut self, first: usize, batch: usize, caps: &Caps) -> Result<()> {
        let problem = self.problem;
        let geometry = &problem.geometry;
        let row = problem.attention_row();
        if let AttentionSource::Branch(branch) = problem.attention {
            let size = problem.input.iter().product();
            let slices = average_pool::layer_slices(geometry.c_in, size, first, batch);
            let kernels = if branch.mix { geometry.kernels } else { 0 };
            let sizes =
                MlpSizes { channels: geometry.c_in, hidden: branch.hidden, sigmoids: row.stride - kernels, kernels };
            self.dispatches.push(average_pool::dispatch(slices, batch * geometry.c_in, size, caps)?);
            self.dispatches.push(attention_mlp::dispatch(sizes, branch.temperature, first, batch, caps)?);
        }
        let shared = problem.shares_kernel();
        if !shared {
            self.dispatches.push(aggregate::dispatch(geometry, problem.has_bias, row, first, batch, caps)?);
        }
        let task = ConvTask {
            geometry,
            input: problem.input,
            output: self.output,
            first,
            batch,
            shared,
            has_bias: problem.has_bias,
            // Per-sample kernels have their gains in them already.
            gain_stride: row.stride,
            channel_gain: row.channel.filter(|_| shared),
            filter_gain: row.filter.filter(|_| shared),
            has_affine: problem.has_affine,
            activation: problem.activation,
        };
        self.dispatches.push(match self.conv {
            Kernel::ConvTiled => conv_tiled::dispatch(&task, caps)?,
            Kernel::ConvRegister => conv_register::dispatch(&task, caps)?,
            Kernel::ConvDepthwise => conv_depthwise::dispatch(&task, caps)?,
            Kernel::ConvPointwise => conv_pointwise::dispatch(&task, caps)?,
            _ => conv_direct::dispatch(&task, caps)?,
        });
        Ok(())
    }

    /// The problem planned.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Output depth, height and width.
    #[must_use]
    pub fn output(&self) -> [usize; 3] {
        self.output
    }

    /// Dispatches in order.
    #[must_use]
    pub fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }

    /// The dispatches alone.
    #[must_use]
    pub fn into_dispatches(self) -> Vec<Dispatch> {
        self.dispatches
    }

    /// The convolution kernel chosen.
    #[must_use]
    pub fn conv_kernel(&self) -> Kernel {
        self.conv
    }

    /// Samples that run together; a batch whose operands pass the binding limit runs in parts, one after another.
    #[must_use]
    pub fn samples_per_part(&self) -> usize {
        self.part
    }

    /// Elements of scratch memory that an operand needs.
    #[must_use]
    pub fn scratch(&self, operand: Operand) -> u64 {
        let slices = self.dispatches.iter().flat_map(|d| &d.slices);
        slices.filter(|s| s.operand == operand).map(|s| s.start + s.len).max().unwrap_or(0)
    }

    /// Bytes of memory that the layer allocates beside its weights, input and output.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        let rows = if self.problem.shares_kernel() { 0 } else { self.scratch(Operand::Rows) };
        let attention = match self.problem.attention {
            AttentionSource::Branch(_) => self.scratch(Operand::Attention),
            _ => 0,
        };
        4 * (rows + attention + self.scratch(Operand::Means))
    }

    /// Multiplications and additions of the static convolution of this shape.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.problem.geometry.flops(self.problem.batch, self.output)
    }
}

/// Samples whose operands each fit one binding and one 32-bit index.
fn samples_per_part(problem: &Problem, output: [usize; 3], caps: &Caps) -> Result<usize> {
    let g = &problem.geometry;
    let bias = if problem.has_bias { g.c_out } else { 0 };
    let rows = if problem.shares_kernel() { 0 } else { g.weights() + bias };
    let per_sample = [
        (Operand::Input, g.c_in * problem.input.iter().product::<usize>()),
        (Operand::Rows, rows),
        (Operand::Attention, problem.attention_row().stride),
        (Operand::Output, g.c_out * output.iter().product::<usize>()),
    ];
    // Half the range of 32-bit indices, so that no kernel's rounding up to whole tiles can pass it.
    let available = binding_limit(caps).min(1 << 33);
    let mut part = problem.batch;
    for (operand, elements) in per_sample {
        let bytes = 4 * elements as u64;
        if bytes > available {
            return Err(Error::Limit {
                limit: "max_storage_buffer_binding_size",
                what: format!("the {} of one sample", operand.name()),
                needed: bytes,
                available,
                remedy: "request the device with a larger limit, or use a smaller layer".into(),
            });
        }
        let fit = available.checked_div(bytes).unwrap_or(u64::MAX);
        part = part.min(usize::try_from(fit).unwrap_or(usize::MAX));
    }
    // Even parts, so that the last is not a sliver.
    Ok(problem.batch.div_ceil(problem.batch.div_ceil(part)))
}

fn choose_conv(problem: &Problem, output: [usize; 3], caps: &Caps) -> (Kernel, String) {
    let g = &problem.geometry;
    let [c_in, c_out] = [g.c_in / g.groups, g.c_out / g.groups];
    let positions: usize = output.iter().product();
    let asked = || "asked for".to_string();
    match problem.kernel {
        ConvChoice::Direct => (Kernel::ConvDirect, asked()),
        ConvChoice::Tiled => (Kernel::ConvTiled, asked()),
        ConvChoice::Register => (Kernel::ConvRegister, asked()),
        ConvChoice::Depthwise => (Kernel::ConvDepthwise, asked()),
        ConvChoice::Pointwise => (Kernel::ConvPointwise, asked()),
        ConvChoice::Auto if c_in == 1 && g.groups > 1 => (Kernel::ConvDepthwise, "one input channel a group".into()),
        ConvChoice::Auto if g.is_pointwise() => (Kernel::ConvPointwise, "1 x 1 kernel, stride 1, no padding".into()),
        ConvChoice::Auto if c_out < 8 || positions < 8 => {
            (Kernel::ConvDirect, format!("{c_out} channels x {positions} positions do not fill a tile"))
        }
        ConvChoice::Auto if caps.device_type == wgpu::DeviceType::Cpu => {
            (Kernel::ConvRegister, "a software adapter: workgroup memory and barriers cost more than they save".into())
        }
        ConvChoice::Auto => (Kernel::ConvTiled, format!("{c_out} channels x {positions} positions fill tiles")),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let g = &self.problem.geometry;
        let axes = |v: [usize; 3]| {
            let sizes: Vec<String> = v[3 - g.axes..].iter().map(ToString::to_string).collect();
            sizes.join("x")
        };
        writeln!(
            f,
            "{} -> {} channels, kernel {}, stride {}, groups {}, K {}, batch {}: {} -> {}",
            g.c_in,
            g.c_out,
            axes(g.kernel),
            axes(g.stride),
            g.groups,
            g.kernels,
            self.problem.batch,
            axes(self.problem.input),
            axes(self.output),
        )?;
        writeln!(f, "{} because: {}", self.conv.name(), self.why)?;
        if self.part < self.problem.batch {
            writeln!(f, "in parts of {} samples, so that every operand fits one binding", self.part)?;
        }
        for dispatch in &self.dispatches {
            let [x, y, z] = dispatch.grid;
            writeln!(
                f,
                "  {:<15} {} workgroups ({x} x {y} x {z}) of {}, {} B of workgroup memory",
                dispatch.variant.kernel.name(),
                dispatch.workgroups,
                dispatch.workgroup_size,
                dispatch.workgroup_memory,
            )?;
        }
        write!(f, "scratch memory {} B", self.scratch_bytes())
    }
}
