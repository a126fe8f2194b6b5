//! Pooling: over all positions, and in windows.

use super::{AnyLayer, Io, Layer, Static, ways};
use crate::caps::Caps;
use crate::device::{Bound, Builder, Context, Tensor, check_elem};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::average_pool::Pool;
use crate::kernels::conv::ConvValues;
use crate::kernels::{Value, gate, layer_norm, resample, value_limit, window_pool};
use crate::problem::{ConvDesc, Geometry, Layout, Pooling, Problem, Sampling, product};
use crate::program::{OfChannels, What};

/// Pooling in windows over `D` axes: `y[b, c, p]` is the largest, or the mean, of what the window
/// at `p` covers of `x[b, c, ..]`.
///
/// ```
/// # fn f(context: &dynconv::Context) -> dynconv::Result<()> {
/// use dynconv::ConvDesc;
/// use dynconv::layers::WindowPool;
/// use dynconv::problem::Pooling;
///
/// // The pool behind the first convolution of a ResNet.
/// let windows = ConvDesc::new(64, 64, [3, 3]).groups(64).stride([2, 2]).padding([1, 1]);
/// let pool = WindowPool::new(context, &windows, Pooling::Max)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct WindowPool<const D: usize> {
    windows: Layer<D, Static>,
    pooling: Pooling,
}

impl<const D: usize> WindowPool<D> {
    /// `windows` describes kernel size, stride, padding and dilation of a convolution with as many
    /// groups as channels in and out.
    ///
    /// # Errors
    /// [`Error::Shape`] for other groups or several kernels, [`Error::Unsupported`] if transposed.
    pub fn new(context: &Context, windows: &ConvDesc<D>, pooling: Pooling) -> Result<Self> {
        let g = windows.geometry()?;
        super::one_kernel("a pool", &g)?;
        if [g.c_out, g.groups] != [g.c_in; 2] {
            return Err(Error::shape(
                "output channels and groups of a pool",
                &[g.c_in; 2],
                &[g.c_out, g.groups],
            ));
        }
        if g.transposed || g.winograd.is_some() {
            return Err(Error::Unsupported {
                what: "a transposed or filtered pool".into(),
                because: "a window is not a sum of products".into(),
            });
        }
        Ok(Self { windows: Layer::of_channels(context, windows)?, pooling })
    }

    /// As [`Layer::layouts`].
    #[must_use]
    pub fn layouts(mut self, input: Layout, output: Layout) -> Self {
        self.windows = self.windows.layouts(input, output);
        self
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn input_shape(&self, batch: usize, input: [usize; D]) -> Vec<usize> {
        self.windows.input_shape(batch, input)
    }
}

/// Refuses windows that lie in the padding and cover nothing.
fn check_windows(g: &Geometry, input: [usize; 3], output: [usize; 3]) -> Result<()> {
    for axis in 0..3 {
        let (size, dilation) = (input[axis], g.dilation[axis]);
        let before = g.padding[axis][0];
        let end = before.saturating_add(size);
        let reach = dilation.saturating_mul(g.kernel[axis] - 1);
        // Of the taps, every `dilation`-th place, the first at or behind the edge of the map.
        let covers = |out: usize| {
            let first = out.saturating_mul(g.stride[axis]);
            let steps = before.saturating_sub(first).div_ceil(dilation);
            steps < g.kernel[axis] && first.saturating_add(steps.saturating_mul(dilation)) < end
        };
        // What lies wholly inside covers something.
        let at_edge = |out: usize| {
            let first = out.saturating_mul(g.stride[axis]);
            first < before || first.saturating_add(reach) >= end
        };
        let front = (0..output[axis]).take_while(|&out| at_edge(out));
        let back = (0..output[axis]).rev().take_while(|&out| at_edge(out));
        if let Some(out) = front.chain(back).find(|&out| !covers(out)) {
            return Err(Error::Shape {
                what: "padding of a pool".into(),
                expected: "windows that cover an input each".into(),
                found: format!("window {out} of axis {} in the padding", axis + g.axes - 3),
            });
        }
    }
    Ok(())
}

impl<const D: usize> AnyLayer for WindowPool<D> {
    fn context(&self) -> &Context {
        &self.windows.context
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let (_, size) = self.windows.split_shape(input)?;
        let g = self.windows.geometry.at(size);
        check_windows(&g, size, g.output_size(size)?)?;
        self.windows.output_shape(input)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        self.windows.lower_channels(builder, io, OfChannels::Pool(self.pooling))
    }
}
ways!([const D: usize] WindowPool<D>, D);

/// Adds what computes each channel from itself, in chunks of the batch.
pub(super) fn push_channels(
    builder: &mut Builder,
    problem: Problem,
    output: [usize; 3],
    of: OfChannels,
    values: ConvValues,
) -> Result<()> {
    let Geometry { c_in, c_out, .. } = problem.geometry;
    let sample = product(&problem.input).max(product(&output)).saturating_mul(c_in.max(c_out));
    let step = |(first, batch)| {
        let (chunk, caps) = ((first, Problem { batch, ..problem }), builder.caps());
        match of {
            OfChannels::Gate(gains) => gate::dispatch(chunk, gains, values, caps),
            OfChannels::LayerNorm(epsilon) => layer_norm::dispatch(chunk, epsilon, values, caps),
            OfChannels::Pool(pooling) => {
                window_pool::dispatch(chunk, output, pooling, values, caps)
            }
            OfChannels::Resample(sampling) => {
                resample::dispatch(chunk, output, (sampling, 0), values, caps)
            }
            OfChannels::Part(first) => {
                resample::dispatch(chunk, output, (Sampling::Nearest, first), values, caps)
            }
        }
    };
    let steps = chunks(problem.batch, sample, builder.caps()).map(step).collect::<Result<Vec<_>>>();
    builder.push(What::Channels { problem: Box::new(problem), output, of, values }, steps?);
    Ok(())
}

/// First sample and number of samples of chunks whose bindings are within the limit, if `sample` is
/// the most elements that one has.
fn chunks(
    batch: usize,
    sample: usize,
    caps: &Caps,
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let most = value_limit(caps) / 4;
    let fit = usize::try_from(most).unwrap_or(usize::MAX) / sample.max(1);
    let chunk = fit.max(1);
    (0..batch.max(1)).step_by(chunk).map(move |first| (first, chunk.min(batch.max(1) - first)))
}

impl Pool {
    /// Adds pooling of a whole batch to a program.
    pub(super) fn push(
        self,
        builder: &mut Builder,
        values: [Value; 2],
        batch: usize,
    ) -> Result<()> {
        let input = builder.info(values[0])?;
        let (elem, sample) = (input.elem, input.len() / batch.max(1));
        let steps = chunks(batch, sample, builder.caps())
            .map(|(first, batch)| self.dispatch(values, elem, first, batch, builder.caps()));
        let steps = steps.collect::<Result<Vec<_>>>()?;
        let [x, y] = values;
        builder.push(What::Mean { pool: self, x, y }, steps);
        Ok(())
    }
}

/// Refuses a residual, for layers that add none.
pub(super) fn refuse_residual(io: Io<'_>, what: &str) -> Result<()> {
    match io.residual {
        None => Ok(()),
        Some(_) => Err(Error::Unsupported {
            what: "a residual".into(),
            because: format!("{what} adds none"),
        }),
    }
}

/// The mean over all positions as a layer: `y[b, c] = mean(x[b, c, ..])`, for any number of axes.
/// `x` is `[batch, channels, spatial..]`, or with the channels last; `y` is f32 and has size 1
/// along every spatial axis.
#[derive(Clone, Debug)]
pub struct GlobalPool {
    context: Context,
    layout: Layout,
}

impl GlobalPool {
    /// Channels first.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        Self { context: context.clone(), layout: Layout::ChannelsFirst }
    }

    /// Chooses how input and output lie in memory.
    #[must_use]
    pub fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Batch, channels and positions of an input.
    fn sizes(&self, input: &[usize]) -> Result<[usize; 3]> {
        match (input, self.layout) {
            ([batch, channels, spatial @ ..], Layout::ChannelsFirst)
            | ([batch, spatial @ .., channels], Layout::ChannelsLast) => {
                Ok([*batch, *channels, product(spatial)])
            }
            _ => Err(Error::Shape {
                what: "input".into(),
                expected: "[batch, channels, spatial..]".into(),
                found: format!("{input:?}"),
            }),
        }
    }
}

impl AnyLayer for GlobalPool {
    fn context(&self) -> &Context {
        &self.context
    }

    fn output_elem(&self, _input: Elem) -> Elem {
        Elem::F32
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let [batch, channels, _] = self.sizes(input)?;
        Ok(self.layout.shape(batch, channels, &vec![1; input.len() - 2]))
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        let Io { x, y, .. } = io;
        refuse_residual(io, "the mean over all positions")?;
        check_elem("output", builder.info(y)?.elem, Elem::F32)?;
        let [batch, channels, positions] = self.sizes(&builder.info(x)?.shape)?;
        Pool::global(channels, positions, self.layout).push(builder, [x, y], batch)?;
        Ok(None)
    }
}

/// Binds the mean over all positions: `y[b, c] = mean(x[b, c, ..])`. `x` is `[batch, channels,
/// spatial..]`, `y` is `[batch, channels, 1..]` of the same rank.
///
/// # Errors
/// [`Error::Shape`], [`Error::OtherDevice`], [`Error::AliasedBuffers`], [`Error::Limit`] if a
/// tensor passes the binding limit.
pub fn global_average_pool(context: &Context, x: &Tensor, y: &Tensor) -> Result<Bound> {
    let pool = GlobalPool::new(context);
    check_elem("output", y.elem(), Elem::F32)?;
    pool.bind_any(x, &[], None, y)
}

/// The mean over one axis as a layer: from `[batch, channels, spatial..]` to `[batch, channels,
/// other axes.., 1]`, in f32.
#[derive(Clone, Debug)]
pub struct AxisPool {
    context: Context,
    axis: usize,
}

impl AxisPool {
    /// Over this axis of the input, 0 being the batch.
    ///
    /// # Errors
    /// [`Error::Shape`] for the batch.
    pub fn new(context: &Context, axis: usize) -> Result<Self> {
        match axis {
            0 => Err(Error::Shape {
                what: "axis of a mean".into(),
                expected: "1 or more".into(),
                found: "0, the batch".into(),
            }),
            _ => Ok(Self { context: context.clone(), axis }),
        }
    }
}

impl AnyLayer for AxisPool {
    fn context(&self) -> &Context {
        &self.context
    }

    fn output_elem(&self, _input: Elem) -> Elem {
        Elem::F32
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let mut shape = input.to_vec();
        match shape.get_mut(self.axis) {
            Some(size) if *size > 0 => *size = 1,
            _ => {
                return Err(Error::Shape {
                    what: "input".into(),
                    expected: format!("axis {} of at least 1 element", self.axis),
                    found: format!("{input:?}"),
                });
            }
        }
        shape[self.axis..].rotate_left(1);
        Ok(shape)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        refuse_residual(io, "the mean over an axis")?;
        check_elem("output", builder.info(io.y)?.elem, Elem::F32)?;
        let shape = builder.info(io.x)?.shape.clone();
        let outer = product(&shape[1..self.axis]);
        let inner = product(&shape[self.axis + 1..]);
        let pool = Pool::axis(outer, shape[self.axis], inner);
        pool.push(builder, [io.x, io.y], shape[0])?;
        Ok(None)
    }
}
