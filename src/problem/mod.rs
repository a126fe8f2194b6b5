//! What is computed: a layer, its input, and where its attention comes from. Knows no kernel.

mod algorithm;
mod attention;
mod epilogue;
mod geometry;
pub(crate) mod winograd;

use crate::elem::Elem;
use crate::error::{Error, Result};

pub use algorithm::Algorithm;
pub use attention::{AttentionRow, AttentionSource, Branch, Cells, MapAxis, Mixing, Parts};
pub use epilogue::{Activation, Epilogue, Layout, Pooling, Sampling};
pub(crate) use geometry::{BLOCK, pad_axes};
pub use geometry::{ConvDesc, Geometry, WeightOrder};
pub use winograd::Winograd;

/// All that decides a plan, beside the caps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    /// Channels, kernel, stride, padding, dilation, groups, K.
    pub geometry: Geometry,
    /// Samples; of none there is nothing to run.
    pub batch: usize,
    /// Input depth, height and width.
    pub input: [usize; 3],
    /// Where the attention comes from.
    pub attention: AttentionSource,
    /// Whether there is a bias bank.
    pub has_bias: bool,
    /// What follows the sum.
    pub epilogue: Epilogue,
    /// Layouts of input and output.
    pub layouts: [Layout; 2],
    /// Element types of input and output; a residual has the output's.
    pub elems: [Elem; 2],
    /// Which convolution kernel runs.
    pub algorithm: Algorithm,
    /// Order of the weights in bank and rows.
    pub order: WeightOrder,
}

impl Problem {
    /// A problem without attention, bias or epilogue, channels first, the kernel left to the
    /// planner.
    #[must_use]
    pub fn new(geometry: Geometry, batch: usize, input: [usize; 3]) -> Self {
        Self {
            geometry,
            batch,
            input,
            attention: AttentionSource::Static,
            has_bias: false,
            epilogue: Epilogue::default(),
            layouts: [Layout::default(); 2],
            elems: [Elem::F32; 2],
            algorithm: Algorithm::default(),
            order: WeightOrder::default(),
        }
    }

    /// Attention row of this problem: gains, then mixing weights.
    #[must_use]
    pub fn attention_row(&self) -> AttentionRow {
        match self.attention {
            AttentionSource::Static | AttentionSource::Map(_) | AttentionSource::SampleWeights => {
                AttentionRow::default()
            }
            AttentionSource::Given(parts) => {
                AttentionRow::new(&self.geometry, parts, self.geometry.kernels)
            }
            AttentionSource::Branch(Branch { parts, mixing: Mixing::Cells(cells), .. }) => {
                AttentionRow::new(
                    &self.geometry,
                    parts,
                    cells.per_kernel(&self.geometry) * cells.count,
                )
            }
            AttentionSource::Branch(branch) => {
                AttentionRow::new(&self.geometry, branch.parts, self.geometry.kernels)
            }
        }
    }

    /// Whether all samples share one kernel: nothing of the attention goes into it, so the gains
    /// that are left are applied by the convolution and no kernel is built per sample.
    #[must_use]
    pub fn shares_kernel(&self) -> bool {
        let row = self.attention_row();
        row.mix.is_none()
            && row.spatial.is_none()
            && self.attention != AttentionSource::SampleWeights
    }

    /// The convolution that sums, and its output: this one, or the products of minimal filtering.
    pub(crate) fn summed(&self, output: [usize; 3]) -> (Self, [usize; 3]) {
        let Some(winograd) = self.geometry.winograd else { return (*self, output) };
        let tiles = winograd.tiles(output);
        let problem = Self {
            geometry: self.geometry.summed(),
            input: tiles,
            layouts: [Layout::ChannelsFirst; 2],
            elems: [Elem::F32; 2],
            ..*self
        };
        (problem, tiles)
    }

    /// Elements of one sample's map of mixing weights.
    #[must_use]
    pub fn map_size(&self, output: [usize; 3]) -> usize {
        match self.attention {
            AttentionSource::Map(MapAxis::All) => product(&output),
            AttentionSource::Map(MapAxis::One(axis)) => output[axis],
            _ => 0,
        }
    }

    /// Elements of a sample's kernel and bias; a map mixes a whole bank of them.
    #[must_use]
    pub fn row(&self) -> usize {
        match self.attention {
            AttentionSource::Map(_) => {
                let bias = if self.has_bias { self.geometry.c_out } else { 0 };
                self.geometry.kernels * (self.geometry.kernel_len(self.order) + bias)
            }
            _ => self.geometry.row(self.order, self.has_bias),
        }
    }
}

/// Refuses what no plan could be made of.
pub(crate) fn check(problem: &Problem) -> Result<()> {
    let hidden = match problem.attention {
        AttentionSource::Branch(branch) => branch.hidden.unwrap_or(1),
        _ => 1,
    };
    let cell = match problem.attention {
        AttentionSource::Branch(Branch { mixing: Mixing::Cells(cells), .. }) => {
            cells.count.min(cells.elements())
        }
        _ => 1,
    };
    for (what, count) in [("hidden units", hidden), ("cells", cell)] {
        if count == 0 {
            return Err(Error::Shape {
                what: what.into(),
                expected: "at least 1".into(),
                found: "0".into(),
            });
        }
    }
    if let AttentionSource::Map(MapAxis::One(axis @ 3..)) = problem.attention {
        return Err(Error::Shape {
            what: "axis of the map".into(),
            expected: "0 to 2".into(),
            found: axis.to_string(),
        });
    }
    if problem.geometry.winograd.is_some() {
        if problem.attention != AttentionSource::Static && !problem.attention.has_bank() {
            winograd::refuse("it needs kernels from a bank, the same at every position")?;
        }
        if problem.attention_row().spatial.is_some() {
            winograd::refuse("gains of the taps do not commute with it")?;
        }
    }
    problem.geometry.check()
}

/// Product that stops at the largest number.
pub(crate) fn product(factors: &[usize]) -> usize {
    factors.iter().fold(1, |product, &n| product.saturating_mul(n))
}
