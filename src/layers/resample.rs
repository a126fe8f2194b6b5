//! Maps enlarged, with a border, or one behind the other in a larger tensor.

use super::pool::push_channels;
use super::{AnyLayer, Io, Layer, Static};
use crate::device::{Builder, Context};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::Value;
use crate::kernels::conv::ConvValues;
use crate::problem::{ConvDesc, Problem, Sampling, product};
use crate::program::OfChannels;

/// A map over `D` axes at other places: enlarged, or with a border. Each channel is computed from
/// itself.
#[derive(Clone, Debug)]
pub struct Resample<const D: usize> {
    pub(super) layer: Layer<D, Static>,
    sampling: Sampling,
}

impl<const D: usize> Resample<D> {
    /// Enlarges every axis by a whole factor, at the nearest place or linearly between neighbours.
    ///
    /// # Errors
    /// [`Error::Shape`] for a factor of 0, [`Error::Unsupported`] for another sampling.
    pub fn enlarge(
        context: &Context,
        channels: usize,
        factors: [usize; D],
        sampling: Sampling,
    ) -> Result<Self> {
        if !matches!(sampling, Sampling::Nearest | Sampling::Linear) {
            return Err(Error::Unsupported {
                what: format!("enlarging by {sampling:?}"),
                because: "it makes borders".into(),
            });
        }
        // The sizes of a transposed convolution whose windows do not overlap.
        let desc = ConvDesc::new(channels, channels, factors).stride(factors).groups(channels);
        Self::new(context, &desc.transposed([0; D]), sampling)
    }

    /// Adds a border before and behind each axis, which mirrors the map or repeats its edge.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another sampling.
    pub fn border(
        context: &Context,
        channels: usize,
        sides: [[usize; 2]; D],
        sampling: Sampling,
    ) -> Result<Self> {
        if !matches!(sampling, Sampling::Reflection | Sampling::Edge) {
            return Err(Error::Unsupported {
                what: format!("a border by {sampling:?}"),
                because: "it enlarges".into(),
            });
        }
        let desc = ConvDesc::new(channels, channels, [1; D]).groups(channels);
        Self::new(context, &desc.padding_sides(sides), sampling)
    }

    fn new(context: &Context, desc: &ConvDesc<D>, sampling: Sampling) -> Result<Self> {
        let mut layer = Layer::of_channels(context, desc)?;
        // The kernel takes all channels as one group.
        layer.geometry.groups = 1;
        Ok(Self { layer, sampling })
    }
}

impl<const D: usize> AnyLayer for Resample<D> {
    fn context(&self) -> &Context {
        &self.layer.context
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let (_, size) = self.layer.split_shape(input)?;
        let widest = self.layer.geometry.padding.into_iter().zip(size);
        let is_within = |([before, after], size): ([usize; 2], usize)| {
            self.sampling != Sampling::Reflection || before.max(after) < size
        };
        if !widest.clone().all(is_within) {
            return Err(Error::Shape {
                what: "border that mirrors the map".into(),
                expected: format!("narrower than the map of {:?}", &size[3 - D..]),
                found: format!("{:?}", &self.layer.geometry.padding[3 - D..]),
            });
        }
        self.layer.output_shape(input)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        self.layer.lower_channels(builder, io, OfChannels::Resample(self.sampling))
    }
}

/// Shape of tensors one behind the other along an axis.
///
/// # Errors
/// [`Error::Shape`] for none, for an axis that there is not, and for shapes that differ elsewhere.
pub fn concatenated(shapes: &[&[usize]], axis: usize) -> Result<Vec<usize>> {
    let Some(first) = shapes.first().filter(|first| (1..first.len()).contains(&axis)) else {
        return Err(Error::Shape {
            what: "axis of a concatenation".into(),
            expected: format!(
                "1 to {}",
                shapes.first().map_or(1, |first| first.len().saturating_sub(1))
            ),
            found: axis.to_string(),
        });
    };
    let mut whole = first.to_vec();
    whole[axis] = 0;
    for shape in shapes {
        let mut fits = whole.clone();
        fits[axis] = shape.get(axis).copied().unwrap_or(0);
        if *shape != fits {
            return Err(Error::shape("part of a concatenation", &fits, shape));
        }
        whole[axis] = whole[axis].saturating_add(fits[axis]);
    }
    Ok(whole)
}

impl Builder {
    /// Puts values one behind the other along an axis, into a value that there is. The order of the
    /// axes in memory does not matter.
    ///
    /// # Errors
    /// As [`concatenated`], [`Error::Shape`] for other element types, [`Error::AliasedBuffers`]
    /// where `y` is a part of itself, [`Error::Limit`].
    pub fn concat_into(&mut self, parts: &[Value], axis: usize, y: Value) -> Result<()> {
        let infos =
            parts.iter().map(|&part| self.info(part).cloned()).collect::<Result<Vec<_>>>()?;
        let shapes: Vec<&[usize]> = infos.iter().map(|info| &info.shape[..]).collect();
        let whole = concatenated(&shapes, axis)?;
        let found = self.info(y)?.clone();
        if found.shape != whole {
            return Err(Error::shape(y.name(), &whole, &found.shape));
        }
        // Axes before the one that grows are the batch, those behind it positions.
        let [batch, size] = [product(&whole[..axis]), product(&whole[axis + 1..])];
        let mut channel = 0;
        for info in infos {
            if info.value == y {
                return Err(Error::AliasedBuffers { output: y.name(), input: y.name() });
            }
            if info.elem != found.elem {
                let [expected, found] = [found.elem, info.elem].map(|elem| format!("{elem:?}"));
                let what = "element type of a part".into();
                return Err(Error::Shape { what, expected, found });
            }
            let channels = info.shape[axis];
            let sizes = [batch, channels, whole[axis], size];
            self.push_part(info.value, info.elem, sizes, (channel, y))?;
            channel += channels;
        }
        Ok(())
    }

    /// Copies `part` to the channels of `y` from `first` on.
    fn push_part(
        &mut self,
        part: Value,
        elem: Elem,
        [batch, channels, whole, size]: [usize; 4],
        (first, y): (usize, Value),
    ) -> Result<()> {
        let desc = ConvDesc::new(channels, whole, [1]);
        let problem =
            Problem { elems: [elem; 2], ..Problem::new(desc.geometry()?, batch, [1, 1, size]) };
        let values = ConvValues {
            x: part,
            weights: part,
            gains: None,
            affine: None,
            residual: None,
            partials: None,
            y,
        };
        push_channels(self, problem, problem.input, OfChannels::Part(first), values)
    }
}
