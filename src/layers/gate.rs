//! Gates: gains of elements, and dynamic ReLU.

use super::{AnyLayer, Io, Layer, Static};
use crate::device::{Builder, Context, check_elem};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::Value;
use crate::kernels::gate::{self, COEFFICIENTS};
use crate::problem::{ConvDesc, Layout, MapAxis};
use crate::program::OfChannels;

/// Which elements of a map share a gain. Axes are 0 to 2: depth, height, width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gains {
    /// There are none.
    None,
    /// Those of a channel: gains `[batch, channels]`, as of squeeze and excitation.
    Channels,
    /// None: gains `[batch, channels, spatial..]`, the channels first whatever the layout is.
    Positions,
    /// Those of a channel and a place along an axis: gains `[batch, channels, size of the axis]`.
    Axis(usize),
    /// Two gains, one along each axis.
    Axes([usize; 2]),
}

/// Gates over `D` axes: `y = act(r(x) * gains + residual)`.
///
/// `r` is the identity, or with [`Gate::dynamic_relu`] the larger of two lines. Without gains the
/// layer adds two maps. What it is given comes in this order: coefficients, gains, second gains.
#[derive(Clone, Debug)]
pub struct Gate<const D: usize> {
    pub(super) layer: Layer<D, Static>,
    gains: Gains,
    is_dynamic: bool,
}

impl<const D: usize> Gate<D> {
    /// For maps of so many channels.
    ///
    /// # Errors
    /// [`Error::Shape`] for an axis that there is not, or the same twice.
    pub fn new(context: &Context, channels: usize, gains: Gains) -> Result<Self> {
        let axes = match gains {
            Gains::Axis(axis) => vec![axis],
            Gains::Axes([first, second]) => vec![first, second],
            _ => Vec::new(),
        };
        let is_there = |axis: &usize| (3 - D..3).contains(axis);
        if !axes.iter().all(is_there) || axes.len() == 2 && axes[0] == axes[1] {
            return Err(Error::Shape {
                what: "axes of the gains".into(),
                expected: format!("{} to 2, each once", 3 - D),
                found: format!("{axes:?}"),
            });
        }
        let desc = ConvDesc::new(channels, channels, [1; D]).groups(channels);
        Ok(Self { layer: Layer::of_channels(context, &desc)?, gains, is_dynamic: false })
    }

    /// With a dynamic ReLU before the gains: `r(v) = max(a1 v + b1, a2 v + b2)` with coefficients
    /// `[batch, channels * 4]`, for each channel a1, a2, b1, b2. Source: Chen et al., "Dynamic
    /// ReLU", ECCV 2020, variant B.
    #[must_use]
    pub fn dynamic_relu(self) -> Self {
        Self { is_dynamic: true, ..self }
    }
}

impl<const D: usize> AnyLayer for Gate<D> {
    fn context(&self) -> &Context {
        &self.layer.context
    }

    fn given(&self, input: &[usize]) -> Result<Vec<(&'static str, Vec<usize>)>> {
        let (batch, size) = self.layer.split_shape(input)?;
        let channels = self.layer.geometry.c_in;
        let mut given = Vec::new();
        if self.is_dynamic {
            given.push(("coefficients", vec![batch, channels.saturating_mul(COEFFICIENTS)]));
        }
        let along = |axis: usize| vec![batch, channels, size[axis]];
        match self.gains {
            Gains::None => {}
            Gains::Channels => given.push(("gains", vec![batch, channels])),
            Gains::Positions => {
                let shape = Layout::ChannelsFirst.shape(batch, channels, &size[3 - D..]);
                given.push(("gains", shape));
            }
            Gains::Axis(axis) => given.push(("gains", along(axis))),
            Gains::Axes([first, second]) => {
                given.extend([("gains", along(first)), ("second gains", along(second))]);
            }
        }
        Ok(given)
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.layer.output_shape(input)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        for value in io.given {
            check_elem(value.name(), builder.info(*value)?.elem, Elem::F32)?;
        }
        let mut given = io.given.iter().copied();
        let coefficients = if self.is_dynamic { given.next() } else { None };
        let map = match self.gains {
            Gains::None | Gains::Channels => None,
            Gains::Positions => Some(MapAxis::All),
            Gains::Axis(axis) | Gains::Axes([axis, _]) => Some(MapAxis::One(axis)),
        };
        let first = given.next().map(|value| (value, map));
        let second = match self.gains {
            Gains::Axes([_, axis]) => given.next().map(|value| (value, axis)),
            _ => None,
        };
        let gains = gate::Gains { coefficients, first, second };
        self.layer.lower_channels(builder, io, OfChannels::Gate(gains))
    }
}
