//! Host side of `shaders/attention_mlp.wgsl`: hidden layer and heads.

use super::{
    Const, Dispatch, Kernel, KernelDef, Resources, Slice, Value, Variant, workgroup_within,
};
use crate::caps::Caps;
use crate::error::{Result, index32};

pub(crate) const DEF: KernelDef = KernelDef {
    slots: &[],
    storage: &[false, false, false, true, false],
    lanes: false,
    matrices: false,
};

/// Mirrors `MlpParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct MlpParams {
    means_base: u32,
    hidden_base: u32,
    heads_base: u32,
    attention_base: u32,
    temperature_base: u32,
    batch: u32,
    channels: u32,
    sigmoids: u32,
    runs: u32,
}

/// What becomes of the logits after the gains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// There are none: all outputs are sigmoids.
    Sigmoid,
    /// One softmax over the kernels.
    Softmax { kernels: usize },
    /// `runs` times signed attention over `kernels` cells and a zero cell that is dropped.
    Signed { runs: usize, kernels: usize },
}

/// An attention branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mlp {
    pub channels: usize,
    /// Hidden units; `None` where the heads read the means.
    pub hidden: Option<usize>,
    /// Elements of an attention row.
    pub outputs: usize,
    pub head: Head,
}

/// What an attention branch reads and writes. Weights are transposed, their bias behind them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MlpValues {
    /// `[batch, channels]`
    pub means: Value,
    pub hidden: Option<Value>,
    pub heads: Value,
    /// What divides the logits `[1]`.
    pub temperature: Value,
    /// Rows `[batch, gains and mixing weights]`.
    pub attention: Value,
}

/// Invocations of a workgroup, unless the driver's loop limit asks for more. A sample has one
/// workgroup, and waits for memory once an iteration of its loops: GPUs, which wait long, get as
/// many invocations as WebGPU promises; processors run them one subgroup after another.
fn workgroup(caps: &Caps) -> u32 {
    if caps.is_software() { 64 } else { caps.max_invocations.min(caps.max_workgroup_size).min(256) }
}

impl Mlp {
    /// Runs, kernels a run, and logits a run.
    fn runs(&self) -> [usize; 3] {
        match self.head {
            Head::Sigmoid => [0, 0, 0],
            Head::Softmax { kernels } => [1, kernels, kernels],
            Head::Signed { runs, kernels } => [runs, kernels, kernels + 1],
        }
    }

    /// What the heads read.
    fn width(&self) -> usize {
        self.hidden.unwrap_or(self.channels)
    }

    /// Parts of a hidden unit's sum: as many as give every invocation one.
    fn slices(&self, workgroup: u32) -> usize {
        self.hidden
            .map_or(1, |hidden| (workgroup as usize / hidden.max(1)).min(self.channels).max(1))
    }

    /// Runs that a workgroup normalises at a time: as many as have a logit for each invocation, or
    /// else one.
    fn group(&self, workgroup: u32) -> usize {
        let [runs, _, run] = self.runs();
        runs.min((workgroup as usize / run.max(1)).max(1))
    }

    /// Iterations of an invocation: its hidden units, its gains, its logits and attentions of every
    /// group of runs. The iteration that ends a loop counts too.
    fn iterations(&self, workgroup: u32) -> u64 {
        let [runs, kernels, run] = self.runs();
        let sigmoids = self.outputs - runs * kernels;
        let width = self.width();
        let slices = self.slices(workgroup);
        let share = |count: usize| (count as u64).div_ceil(workgroup.into());
        let parts = share(width.saturating_mul(slices))
            .saturating_mul(self.channels.div_ceil(slices) as u64 + 2);
        let hidden = parts.saturating_add(share(width).saturating_mul(slices as u64 + 2)) + 4;
        let group = self.group(workgroup);
        let groups = runs.div_ceil(group.max(1)) as u64;
        let logits = share(sigmoids).saturating_add(groups.saturating_mul(share(group * run)));
        let normalised =
            groups.saturating_mul(3 + share(group * kernels).saturating_mul(2 * run as u64 + 3));
        hidden.saturating_add(logits.saturating_mul(width as u64 + 2)).saturating_add(normalised)
    }

    /// Attention rows of `batch` samples from `first` on.
    pub(crate) fn dispatch(
        &self,
        values: MlpValues,
        first: usize,
        batch: usize,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let [runs, kernels, run] = self.runs();
        let sigmoids = self.outputs - runs * kernels;
        let width = self.width();
        let logits = sigmoids + runs * run;
        let means = Slice::samples(values.means, self.channels, first, batch)?;
        let hidden = match (self.hidden, values.hidden) {
            (Some(hidden), Some(value)) => {
                Slice::whole(value, (self.channels + 1).saturating_mul(hidden))?
            }
            _ => means.stand_in(),
        };
        let slices = vec![
            means,
            hidden,
            Slice::whole(values.heads, (width + 1).saturating_mul(logits))?,
            Slice::samples(values.attention, self.outputs, first, batch)?,
            Slice::whole(values.temperature, 1)?,
        ];
        let (workgroup, iterations) =
            workgroup_within(workgroup(caps), |workgroup| self.iterations(workgroup), caps);
        let group = self.group(workgroup);
        let parts = self.slices(workgroup);
        let memory = width.saturating_mul(parts).max(width.saturating_add(group * run));
        let memory = index32("hidden units", memory)?.saturating_mul(4);
        let params = MlpParams {
            batch: index32("batch", batch)?,
            channels: index32("channels", self.channels)?,
            sigmoids: index32("gains", sigmoids)?,
            runs: index32("runs", runs)?,
            ..Default::default()
        };
        let consts = vec![
            ("WORKGROUP", Const::U32(workgroup)),
            ("HAS_HIDDEN", Const::Bool(self.hidden.is_some())),
            ("HIDDEN", Const::U32(index32("hidden units", width)?)),
            ("SLICES", Const::U32(index32("parts of a hidden unit", parts)?)),
            ("KERNELS", Const::U32(index32("kernels", kernels.max(1))?)),
            ("GROUP", Const::U32(index32("runs", group)?)),
            ("HEAD", Const::U32(u32::from(matches!(self.head, Head::Signed { .. })))),
        ];
        let variant = Variant { kernel: Kernel::AttentionMlp, elems: Vec::new(), consts };
        let resources = Resources { memory, iterations };
        Dispatch::new(variant, bytemuck::bytes_of(&params), slices, batch as u64, resources, caps)
    }
}
