//! The kernels: one WGSL file each in `shaders/`, and beside it here what the host must know to
//! start it.
//!
//! A kernel's text is never rewritten. What varies between its variants are module constants that
//! [`Variant::source`] joins in front of the file; everything that changes with the input's size
//! goes in its parameter block.

pub(crate) mod aggregate;
pub(crate) mod aggregate_wide;
pub(crate) mod attention_mlp;
pub(crate) mod average_pool;
pub(crate) mod channel_softmax;
pub(crate) mod conv;
pub(crate) mod conv_block;
pub(crate) mod conv_depthwise;
pub(crate) mod conv_depthwise_lanes;
pub(crate) mod conv_depthwise_patch;
pub(crate) mod conv_direct;
pub(crate) mod conv_lanes;
pub(crate) mod conv_matrix;
pub(crate) mod conv_patch;
pub(crate) mod conv_pointwise;
pub(crate) mod conv_pointwise_lanes;
pub(crate) mod conv_register;
pub(crate) mod conv_row;
pub(crate) mod conv_stride_two;
pub(crate) mod conv_tiled;
pub(crate) mod conv_winograd_rows;
pub(crate) mod demodulate;
pub(crate) mod sum_parts;
pub(crate) mod winograd_input;
pub(crate) mod winograd_output;

use std::fmt::{self, Write as _};

use crate::caps::Caps;
use crate::elem::Elem;
use crate::error::{Error, Result, Unit, index32};

/// Numbering of workgroups, part of every kernel.
const DISPATCH: (&str, &str) =
    ("common/dispatch.wgsl", include_str!("../../shaders/common/dispatch.wgsl"));

/// Numbers that are not finite, and functions that keep them so.
const NUMBERS: (&str, &str) =
    ("common/numbers.wgsl", include_str!("../../shaders/common/numbers.wgsl"));

/// A kernel, named after its file in `shaders/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Mean over all positions, or over one axis.
    AveragePool,
    /// Fully connected attention branch: maybe a hidden layer, then sigmoid, softmax or signed
    /// heads.
    AttentionMlp,
    /// Mixes each sample's kernel from the bank.
    Aggregate,
    /// Mixes each sample's kernel in blocks, by wide loads.
    AggregateWide,
    /// One output per invocation.
    ConvDirect,
    /// Implicit GEMM in workgroup memory.
    ConvTiled,
    /// Implicit GEMM in large tiles.
    ConvBlock,
    /// Implicit GEMM in cooperative matrices.
    ConvMatrix,
    /// One input channel per group.
    ConvDepthwise,
    /// One input channel per group, 3 x 3 taps with stride 1.
    ConvDepthwisePatch,
    /// One input channel per group, 3 x 3 taps with stride 1, rows spread over the lanes of a
    /// subgroup.
    ConvDepthwiseLanes,
    /// 1 x 1 taps as a matrix product in registers.
    ConvPointwise,
    /// 1 x 1 taps as a matrix product, weights spread over the lanes of a subgroup.
    ConvPointwiseLanes,
    /// Implicit GEMM in registers.
    ConvRegister,
    /// Implicit GEMM in registers, inputs spread over the lanes of a subgroup.
    ConvLanes,
    /// 3 x 3 taps with stride 1, patches spread over the lanes of a subgroup.
    ConvPatch,
    /// 3 x 3 taps with stride 2, patches spread over the lanes of a subgroup.
    ConvStrideTwo,
    /// 3 x 3 taps with stride 1 by minimal filtering along the rows, patches spread over the lanes
    /// of a subgroup.
    ConvWinogradRows,
    /// Wide rows of taps, runs of inputs spread over the lanes of a subgroup.
    ConvRow,
    /// Softmax over the channels at every position.
    ChannelSoftmax,
    /// Gains of a modulated convolution.
    Demodulate,
    /// Takes tiles of inputs to the domain of Winograd's minimal filtering.
    WinogradInput,
    /// Brings tiles of products back.
    WinogradOutput,
    /// Adds up the parts of a convolution, and finishes it.
    SumParts,
}

/// An operand of a layer, bound by one or more kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operand {
    /// Layer input `[batch, channels in, spatial..]`.
    Input,
    /// Kernel bank `[K, channels out, channels in / groups, kernel..]`.
    Bank,
    /// Bias bank `[K, channels out]`.
    BiasBank,
    /// Channel means of the input `[batch, channels in]` (scratch).
    Means,
    /// Hidden layer of the attention branch, transposed, then its bias.
    HiddenWeights,
    /// Heads of the attention branch, transposed, then their bias.
    HeadWeights,
    /// What divides the logits of the attention `[1]`.
    Temperature,
    /// Attention rows `[batch, gains and mixing weights]`, or a map of mixing weights `[batch, K,
    /// positions or size of an axis]`.
    Attention,
    /// Each sample's kernel and bias `[batch, row]` (scratch), or one row shared by all samples.
    Rows,
    /// Sums over some of the input channels each `[parts, batch, channels out, positions]`
    /// (scratch).
    Partials,
    /// Scale and shift `[2, channels out]`.
    Affine,
    /// Tiles of the input for minimal filtering `[batch, numbers, channels in, tiles]` (scratch).
    TileInputs,
    /// Their products with the kernels `[batch, numbers, channels out, tiles]` (scratch).
    TileProducts,
    /// Added to the output before the activation, of the output's shape.
    Residual,
    /// Layer output `[batch, channels out, spatial..]`.
    Output,
}

impl Operand {
    /// Whether it is written and read within a part of the batch, and need not hold the whole
    /// batch.
    pub(crate) fn begins_anew(self) -> bool {
        matches!(self, Self::Rows | Self::Partials | Self::TileInputs | Self::TileProducts)
    }

    /// Name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Bank => "kernel bank",
            Self::BiasBank => "bias bank",
            Self::Means => "channel means",
            Self::HiddenWeights => "hidden weights of the attention",
            Self::HeadWeights => "head weights of the attention",
            Self::Temperature => "temperature",
            Self::Attention => "attention",
            Self::Rows => "per-sample kernels",
            Self::Partials => "partial sums",
            Self::Affine => "scale and shift",
            Self::TileInputs => "tiles of the input",
            Self::TileProducts => "tiles of products",
            Self::Residual => "residual",
            Self::Output => "output",
        }
    }
}

/// A binding whose element type varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Input of a convolution or pooling.
    X,
    /// Output of a convolution, and the residual that lies as it.
    Y,
    /// Kernel bank.
    Bank,
}

impl Slot {
    /// The constant that says how many elements one load or store takes, in kernels that take
    /// several.
    fn width(self) -> Option<&'static str> {
        match self {
            Self::X => Some(X_WIDTH),
            Self::Y => Some(Y_WIDTH),
            Self::Bank => None,
        }
    }

    /// The files that declare the slot's bindings in an element type, and load or store `width`
    /// elements at once, where the kernel does. Banks are read alike whether or not shaders
    /// know f16.
    fn files(self, elem: Elem, width: Option<u32>) -> Vec<(&'static str, &'static str)> {
        macro_rules! file {
            ($name:literal) => {
                ($name, include_str!(concat!("../../shaders/", $name)))
            };
        }
        let declared = match (self, elem, width) {
            (Self::X, Elem::F16, _) => file!("elem/x_f16.wgsl"),
            (Self::X, Elem::F16Storage, _) => file!("elem/x_f16_storage.wgsl"),
            (Self::X, _, Some(4)) => file!("elem/x_f32_fours.wgsl"),
            (Self::X, _, Some(2)) => file!("elem/x_f32_pairs.wgsl"),
            (Self::X, ..) => file!("elem/x_f32.wgsl"),
            (Self::Y, Elem::F16, _) => file!("elem/y_f16.wgsl"),
            (Self::Y, Elem::F16Storage, _) => file!("elem/y_f16_storage.wgsl"),
            (Self::Y, _, Some(4)) => file!("elem/y_f32_fours.wgsl"),
            (Self::Y, _, Some(2)) => file!("elem/y_f32_pairs.wgsl"),
            (Self::Y, ..) => file!("elem/y_f32.wgsl"),
            (Self::Bank, Elem::F16 | Elem::F16Storage, _) => file!("elem/bank_f16_storage.wgsl"),
            (Self::Bank, Elem::Bf16Storage, _) => file!("elem/bank_bf16_storage.wgsl"),
            (Self::Bank, Elem::F32, _) => file!("elem/bank_f32.wgsl"),
        };
        let one_by_one = match (self, width) {
            (Self::X, Some(1)) => Some(file!("elem/x_each.wgsl")),
            (Self::Y, Some(1)) => Some(file!("elem/y_each.wgsl")),
            _ => None,
        };
        [declared].into_iter().chain(one_by_one).collect()
    }
}

/// Elements of the input that one load takes, and of the output that one store takes: constants of
/// kernels that take several.
pub(crate) const X_WIDTH: &str = "X_WIDTH";
pub(crate) const Y_WIDTH: &str = "Y_WIDTH";

/// What the host knows of a kernel without running it.
#[derive(Debug)]
pub struct KernelDef {
    /// Stem of the kernel's files, and name of the shader's entry point.
    pub name: &'static str,
    /// Bindings whose element type varies: the file of `shaders/elem/` that declares each is
    /// joined before the parts.
    pub slots: &'static [Slot],
    /// Files joined after the constants: name and text.
    pub parts: &'static [(&'static str, &'static str)],
    /// Storage bindings from 1 on, in order; `true` for the one that is written. Binding 0 is the
    /// parameter block, whose first words are the base element of each of these.
    pub storage: &'static [bool],
    /// Whether it needs subgroups of eight and 64-bit integers ([`Caps::has_lanes`]).
    pub lanes: bool,
    /// Whether it needs cooperative matrices ([`Caps::matrices`]) and subgroup operations.
    pub matrices: bool,
}

impl Kernel {
    /// All kernels.
    pub const ALL: [Self; 24] = [
        Self::AveragePool,
        Self::AttentionMlp,
        Self::Aggregate,
        Self::AggregateWide,
        Self::ConvDirect,
        Self::ConvTiled,
        Self::ConvBlock,
        Self::ConvMatrix,
        Self::ConvDepthwise,
        Self::ConvDepthwisePatch,
        Self::ConvDepthwiseLanes,
        Self::ConvPointwise,
        Self::ConvPointwiseLanes,
        Self::ConvRegister,
        Self::ConvLanes,
        Self::ConvPatch,
        Self::ConvStrideTwo,
        Self::ConvWinogradRows,
        Self::ConvRow,
        Self::ChannelSoftmax,
        Self::Demodulate,
        Self::WinogradInput,
        Self::WinogradOutput,
        Self::SumParts,
    ];

    /// The kernel's definition.
    #[must_use]
    pub fn def(self) -> &'static KernelDef {
        match self {
            Self::AveragePool => &average_pool::DEF,
            Self::AttentionMlp => &attention_mlp::DEF,
            Self::Aggregate => &aggregate::DEF,
            Self::AggregateWide => &aggregate_wide::DEF,
            Self::ConvDirect => &conv_direct::DEF,
            Self::ConvTiled => &conv_tiled::DEF,
            Self::ConvBlock => &conv_block::DEF,
            Self::ConvMatrix => &conv_matrix::DEF,
            Self::ConvDepthwise => &conv_depthwise::DEF,
            Self::ConvDepthwisePatch => &conv_depthwise_patch::DEF,
            Self::ConvDepthwiseLanes => &conv_depthwise_lanes::DEF,
            Self::ConvPointwise => &conv_pointwise::DEF,
            Self::ConvPointwiseLanes => &conv_pointwise_lanes::DEF,
            Self::ConvRegister => &conv_register::DEF,
            Self::ConvLanes => &conv_lanes::DEF,
            Self::ConvPatch => &conv_patch::DEF,
            Self::ConvStrideTwo => &conv_stride_two::DEF,
            Self::ConvWinogradRows => &conv_winograd_rows::DEF,
            Self::ConvRow => &conv_row::DEF,
            Self::ChannelSoftmax => &channel_softmax::DEF,
            Self::Demodulate => &demodulate::DEF,
            Self::WinogradInput => &winograd_input::DEF,
            Self::WinogradOutput => &winograd_output::DEF,
            Self::SumParts => &sum_parts::DEF,
        }
    }

    /// All files of `shaders/` that variants of it are joined from: name and text.
    pub(crate) fn files(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let def = self.def();
        let elems = [Elem::F32, Elem::F16, Elem::F16Storage, Elem::Bf16Storage];
        let widths = [None, Some(1), Some(2), Some(4)];
        let each = elems.into_iter().flat_map(move |elem| widths.map(|width| (elem, width)));
        let slots = def
            .slots
            .iter()
            .flat_map(move |slot| each.clone().flat_map(|(elem, width)| slot.files(elem, width)));
        slots.chain(def.parts.iter().copied())
    }

    /// Refuses a kernel that needs lanes on a device that has none.
    pub(crate) fn check_lanes(self, caps: &Caps) -> Result<()> {
        if self.def().lanes && !caps.has_lanes() {
            let feature = "SUBGROUP and SHADER_INT64 on a software adapter with subgroups of 8";
            return Err(Error::MissingFeature { feature, needed_for: self.name().into() });
        }
        Ok(())
    }

    /// Stem of the kernel's files.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.def().name
    }
}

/// Value of a module constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Const {
    /// `u32`
    U32(u32),
    /// `bool`
    Bool(bool),
    /// The name of a type.
    Type(&'static str),
}

/// A kernel with values for its module constants: what one pipeline is compiled from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The kernel.
    pub kernel: Kernel,
    /// Element type of each of the kernel's slots.
    pub elems: Vec<Elem>,
    /// Constants by name, in the order written.
    pub consts: Vec<(&'static str, Const)>,
}

impl Variant {
    /// The complete WGSL text.
    #[must_use]
    pub fn source(&self) -> String {
        let mut text = String::new();
        if self.knows_f16() {
            text.push_str("enable f16;\n");
        }
        if self.kernel.def().matrices {
            text.push_str("enable wgpu_cooperative_matrix;\n");
        }
        for (name, value) in &self.consts {
            // Writing to a String cannot fail.
            let _ = match value {
                Const::U32(v) => writeln!(text, "const {name}: u32 = {v}u;"),
                Const::Bool(v) => writeln!(text, "const {name}: bool = {v};"),
                Const::Type(v) => writeln!(text, "alias {name} = {v};"),
            };
        }
        for (file, part) in self.files() {
            let _ = writeln!(text, "\n// ---- shaders/{file}\n{part}");
        }
        text
    }

    /// Whether the text has f16, for which a device must have `SHADER_F16`.
    #[must_use]
    pub fn knows_f16(&self) -> bool {
        self.elems.contains(&Elem::F16)
            || self.consts.iter().any(|(_, value)| *value == Const::Type("f16"))
    }

    /// The files of `shaders/` that the text is joined from, in order: name and text.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let def = self.kernel.def();
        let slots = def.slots.iter().zip(&self.elems);
        let width = |slot: &Slot| slot.width().and_then(|name| self.find(name));
        slots
            .flat_map(move |(slot, &elem)| slot.files(elem, width(slot)))
            .chain(def.parts.iter().copied())
    }

    /// Label of the pipeline: the kernel and its constants.
    #[must_use]
    pub fn label(&self) -> String {
        let mut label = format!("dynconv.{}", self.kernel.name());
        for elem in &self.elems {
            let _ = write!(label, ".{elem:?}");
        }
        for (name, value) in &self.consts {
            let _ = match value {
                Const::U32(v) => write!(label, " {name}={v}"),
                Const::Bool(v) => write!(label, " {name}={}", u8::from(*v)),
                Const::Type(v) => write!(label, " {name}={v}"),
            };
        }
        label
    }

    /// For an operand that begins at element `base` of its binding: as many elements at once, by
    /// the constant of that name, as divide it.
    pub(crate) fn narrow(&mut self, name: &str, base: u32) {
        for (constant, value) in &mut self.consts {
            if let Const::U32(width) = value
                && *constant == name
            {
                while !base.is_multiple_of(*width) {
                    *width /= 2;
                }
            }
        }
    }

    /// Value of a `u32` constant; 0 if the variant has none of that name.
    pub(crate) fn number(&self, name: &str) -> u32 {
        self.find(name).unwrap_or(0)
    }

    /// Value of a `u32` constant, if the variant has one of that name.
    fn find(&self, name: &str) -> Option<u32> {
        self.consts.iter().find_map(|(n, v)| match v {
            Const::U32(v) if *n == name => Some(*v),
            _ => None,
        })
    }
}

/// A range of an operand that a dispatch binds, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The operand.
    pub operand: Operand,
    /// First element.
    pub start: u64,
    /// Elements.
    pub len: u64,
}

impl Slice {
    /// `batch` samples of `sample` elements each, from sample `first` on; the count is checked to
    /// fit the 32 bits of shader indices.
    pub(crate) fn samples(
        operand: Operand,
        sample: usize,
        first: usize,
        batch: usize,
    ) -> Result<Self> {
        let len = elements(operand, batch.saturating_mul(sample))?;
        Ok(Self { operand, start: (first as u64).saturating_mul(sample as u64), len })
    }

    /// The first `len` elements.
    pub(crate) fn whole(operand: Operand, len: usize) -> Result<Self> {
        Self::samples(operand, len, 0, 1)
    }
}

/// One dispatch of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// What to compile.
    pub variant: Variant,
    /// Parameter block. Its first words, one a storage binding, hold the base elements and are
    /// filled in when the operands are bound.
    pub params: Vec<u8>,
    /// What the storage bindings take.
    pub slices: Vec<Slice>,
    /// Workgroups that have work.
    pub workgroups: u32,
    /// Workgroups started per dimension; their product is at least `workgroups`.
    pub grid: [u32; 3],
    /// Invocations of a workgroup.
    pub workgroup_size: u32,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u32,
}

/// What a workgroup needs beside invocations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Workgroup memory, bytes.
    pub memory: u32,
    /// Loop trips of one invocation, all loops together, at most.
    pub trips: u64,
}

impl Needs {
    pub(crate) fn trips(trips: u64) -> Self {
        Self { memory: 0, trips }
    }
}

/// The smallest workgroup from `smallest` on whose invocations keep the driver's loop limit, and
/// their trips; the largest possible if none does.
pub(crate) fn workgroup_within(
    smallest: u32,
    trips: impl Fn(u32) -> u64,
    caps: &Caps,
) -> (u32, u64) {
    let mut workgroup = smallest;
    while trips(workgroup) > u64::from(caps.max_loop_trips)
        && 2 * workgroup <= caps.max_invocations.min(1024)
    {
        workgroup *= 2;
    }
    (workgroup, trips(workgroup))
}

/// Slack of a binding: its offset is rounded down to the device's alignment.
pub(crate) fn binding_limit(caps: &Caps) -> u64 {
    caps.max_storage_binding.saturating_sub(u64::from(caps.storage_alignment))
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.grid;
        write!(
            f,
            "{:<15} {} workgroups ({x} x {y} x {z}) of {}, {} B of workgroup memory",
            self.variant.kernel.name(),
            self.workgroups,
            self.workgroup_size,
            self.workgroup_memory,
        )
    }
}

impl Dispatch {
    /// Checks everything that the device limits, since wgpu does not check all of it.
    pub(crate) fn new(
        variant: Variant,
        params: &[u8],
        slices: Vec<Slice>,
        workgroups: u64,
        needs: Needs,
        caps: &Caps,
    ) -> Result<Self> {
        let name = variant.kernel.name();
        if variant.elems.contains(&Elem::F16) && !caps.f16 {
            return Err(Error::MissingFeature {
                feature: "SHADER_F16",
                needed_for: format!("{name} with Elem::F16"),
            });
        }
        variant.kernel.check_lanes(caps)?;
        let slots = variant.kernel.def().slots.iter().zip(&variant.elems);
        if slots.into_iter().any(|(slot, elem)| *slot != Slot::Bank && *elem == Elem::Bf16Storage) {
            return Err(Error::Unsupported {
                what: "an input or output in Elem::Bf16Storage".into(),
                because: "only kernel banks are stored so".into(),
            });
        }
        let workgroup_size = variant.number("WORKGROUP");
        let limit =
            |limit, what: String, unit, needed: u64, available: u64, remedy: &str| match needed
                > available
            {
                true => Err(Error::Limit {
                    limit,
                    unit,
                    what,
                    needed,
                    available,
                    remedy: remedy.into(),
                }),
                false => Ok(()),
            };
        limit(
            "max_compute_invocations_per_workgroup",
            format!("a workgroup of {name}"),
            Unit::Invocations,
            u64::from(workgroup_size),
            u64::from(caps.max_invocations.min(caps.max_workgroup_size)),
            "request the device with a larger limit",
        )?;
        limit(
            "max_compute_workgroup_storage_size",
            format!("workgroup memory of {name}"),
            Unit::Bytes,
            u64::from(needs.memory),
            u64::from(caps.max_workgroup_memory),
            "request the device with a larger limit",
        )?;
        limit(
            "the number of loop trips that this driver carries out",
            format!("an invocation of {name}"),
            Unit::Trips,
            needs.trips,
            u64::from(caps.max_loop_trips),
            "use a newer driver",
        )?;
        limit(
            "max_storage_buffers_per_shader_stage",
            name.into(),
            Unit::Bindings,
            slices.len() as u64,
            u64::from(caps.max_storage_buffers),
            "request the device with a larger limit",
        )?;
        for slice in &slices {
            limit(
                "max_storage_buffer_binding_size",
                format!("{} of {name}", slice.operand.name()),
                Unit::Bytes,
                slice.len * 4,
                binding_limit(caps),
                "request the device with a larger limit, or use a smaller batch",
            )?;
        }
        let workgroups = u32::try_from(workgroups).map_err(|_| Error::Overflow {
            what: format!("number of workgroups of {name}"),
            value: workgroups.into(),
            limit: u32::MAX.into(),
        })?;
        let grid = fold(workgroups, caps.max_workgroups).ok_or_else(|| Error::Limit {
            limit: "max_compute_workgroups_per_dimension",
            unit: Unit::Workgroups,
            what: format!("dispatch of {name}"),
            needed: workgroups.into(),
            available: u64::from(caps.max_workgroups).pow(3),
            remedy: "use a smaller batch".into(),
        })?;
        // Kernels number invocations in 32 bits.
        let invocations =
            grid.iter().map(|&n| u128::from(n)).product::<u128>() * u128::from(workgroup_size);
        if invocations > u128::from(u32::MAX) {
            return Err(Error::Overflow {
                what: format!("number of invocations of {name}"),
                value: invocations,
                limit: u32::MAX.into(),
            });
        }
        Ok(Self {
            variant,
            params: params.to_vec(),
            slices,
            workgroups,
            grid,
            workgroup_size,
            workgroup_memory: needs.memory,
        })
    }
}

/// The smallest near-even grid of at most `max` workgroups a dimension that holds `workgroups`.
pub(crate) fn fold(workgroups: u32, max: u32) -> Option<[u32; 3]> {
    let max = max.max(1);
    let z = workgroups.div_ceil(max).div_ceil(max).max(1);
    let plane = workgroups.div_ceil(z);
    let y = plane.div_ceil(max).max(1);
    let x = plane.div_ceil(y).max(1);
    (x <= max && y <= max && z <= max).then_some([x, y, z])
}

/// Element count of a run of samples, checked to fit the 32 bits of shader indices.
pub(crate) fn elements(what: Operand, count: usize) -> Result<u64> {
    index32(&format!("elements of the {}", what.name()), count).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_takes_as_many_elements_as_divide_where_they_begin() {
        let widths = |base| {
            let consts = vec![(X_WIDTH, Const::U32(4)), (Y_WIDTH, Const::U32(2))];
            let mut variant =
                Variant { kernel: Kernel::ConvPointwiseLanes, elems: vec![Elem::F32; 2], consts };
            variant.narrow(X_WIDTH, base);
            [X_WIDTH, Y_WIDTH].map(|name| variant.number(name))
        };
        assert_eq!([0, 4, 6, 7, 8].map(widths), [[4, 2], [4, 2], [2, 2], [1, 2], [4, 2]]);
    }

    #[test]
    fn folding_covers_every_workgroup_within_the_limit() {
        for n in [1, 2, 7, 65_535, 65_536, 65_537, 131_071, 10_000_019, u32::MAX] {
            let [x, y, z] = fold(n, 65_535).expect("fits");
            let total = u64::from(x) * u64::from(y) * u64::from(z);
            assert!(total >= u64::from(n), "{n}: {total}");
            assert!(x <= 65_535 && y <= 65_535 && z <= 65_535, "{n}");
            // At most one row a plane is surplus.
            assert!(
                total - u64::from(n) <= u64::from(y) * u64::from(z) + u64::from(z),
                "{n}: {total}"
            );
        }
        assert_eq!(fold(8, 2), Some([2, 2, 2]));
        assert_eq!(fold(9, 2), None);
    }
}
