//! Where a layer's attention comes from, and how it lies in memory.

use std::fmt;

use super::Geometry;

/// Where a layer's attention comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AttentionSource {
    /// There is none: all samples share one kernel.
    Static,
    /// The caller gives attention rows of these parts, in the order channel, filter, spatial, mix.
    Given(Parts),
    /// Computed from the layer's input.
    Branch(Branch),
    /// The caller gives a map of mixing weights: K convolutions, mixed at every position.
    Map(MapAxis),
    /// The caller gives each sample's kernel and bias.
    SampleWeights,
}

impl AttentionSource {
    /// Whether attention makes each sample's kernel from a bank, the same at every position.
    pub(crate) fn has_bank(&self) -> bool {
        match self {
            Self::Given(_) => true,
            Self::Branch(branch) => !matches!(branch.mixing, Mixing::Cells(_)),
            Self::Static | Self::Map(_) | Self::SampleWeights => false,
        }
    }
}

/// An attention branch: pooling or a given context, maybe a hidden layer, and a head for each part
/// that is not skipped. The temperature is no part of a plan: it can change between two runs of
/// one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Branch {
    /// Width of a context `[batch, width]` that the caller gives, which the branch reads instead of
    /// the channel means.
    pub context: Option<usize>,
    /// Hidden units; `None` where the heads read the channel means.
    pub hidden: Option<usize>,
    /// Heads that are there.
    pub parts: Parts,
    /// How the mixing weights come from their logits.
    pub mixing: Mixing,
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { channel, filter, spatial, mix } = self.parts;
        let heads =
            [(channel, "channels"), (filter, "filters"), (spatial, "taps"), (mix, "kernels")];
        let heads: Vec<_> =
            heads.into_iter().filter_map(|(is_there, name)| is_there.then_some(name)).collect();
        write!(f, "{} hidden units, heads for {}", self.hidden.unwrap_or(0), heads.join(", "))
    }
}

/// How mixing weights come from their logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixing {
    /// Softmax over the kernels: they sum to 1.
    Softmax,
    /// A sigmoid each: they sum to anything up to K.
    Sigmoid,
    /// Signed attention over the cells of a warehouse, for every cell of the kernel.
    Cells(Cells),
}

/// Over which positions a map of mixing weights is constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapAxis {
    /// Over none: every position has mixing weights of its own, `[batch, K, positions]`.
    All,
    /// Over all but this axis of (depth, height, width): `[batch, K, size of the axis]`.
    One(usize),
}

/// What an attention row holds; absent parts count as 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parts {
    /// Gains of the input channels (c).
    pub channel: bool,
    /// Gains of the output channels (f).
    pub filter: bool,
    /// Gains of the taps (s).
    pub spatial: bool,
    /// Mixing weights of the kernels (alpha).
    pub mix: bool,
}

/// Where in an attention row each part begins; absent parts count as 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionRow {
    /// Elements of a row.
    pub stride: usize,
    /// Gains of the input channels (c).
    pub channel: Option<usize>,
    /// Gains of the output channels (f).
    pub filter: Option<usize>,
    /// Gains of the taps (s).
    pub spatial: Option<usize>,
    /// Mixing weights of the kernels (alpha).
    pub mix: Option<usize>,
}

impl AttentionRow {
    /// The row of some parts: gains of channels, filters and taps, then `mix` mixing weights.
    #[must_use]
    pub fn new(geometry: &Geometry, parts: Parts, mix: usize) -> Self {
        let mut stride = 0;
        let mut part = |present: bool, len: usize| {
            let start = stride;
            stride += if present { len } else { 0 };
            present.then_some(start)
        };
        let channel = part(parts.channel, geometry.c_in);
        let filter = part(parts.filter, geometry.c_out);
        let spatial = part(parts.spatial, geometry.taps());
        let mix = part(parts.mix, mix);
        Self { stride, channel, filter, spatial, mix }
    }
}

/// A warehouse of small cells from which kernels are assembled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Cells in the warehouse.
    pub count: usize,
    /// Output channels of a cell; divides the layer's.
    pub c_out: usize,
    /// Input channels of a cell; divides the layer's a group.
    pub c_in: usize,
    /// Taps of a cell: 1, or all of the layer's.
    pub taps: usize,
}

impl Cells {
    /// Elements of one cell.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.c_out.saturating_mul(self.c_in).saturating_mul(self.taps)
    }

    /// Cells that make one kernel of a layer.
    #[must_use]
    pub fn per_kernel(&self, geometry: &Geometry) -> usize {
        geometry.weights() / self.elements().max(1)
    }
}
