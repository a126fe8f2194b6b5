//! The ways to use a layer, alike for every kind.

use std::fmt;

use crate::device::{Bound, Builder, Context, Tensor};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::Value;
use crate::program::Program;

/// A layer of any kind, so that layers of several kinds stand in one list.
///
/// ```
/// # use dynconv::{Result, Tensor, layers::AnyLayer};
/// # fn f(layers: &[Box<dyn AnyLayer>], x: &Tensor) -> Result<()> {
/// let mut x = x.clone();
/// for layer in layers {
///     x = layer.forward_any(&x, &[])?;
/// }
/// # Ok(())
/// # }
/// ```
pub trait AnyLayer: fmt::Debug + wgpu::WasmNotSendSync {
    /// The context that the layer was made with.
    fn context(&self) -> &Context;

    /// Names and shapes of what the layer is given beside an input of this shape, in order:
    /// attention, a map, a style, kernels, gains. None for layers that need nothing but their
    /// input.
    ///
    /// # Errors
    /// [`Error::Shape`] if the input does not fit the layer.
    fn given(&self, input: &[usize]) -> Result<Vec<(&'static str, Vec<usize>)>> {
        self.output_shape(input).map(|_| Vec::new())
    }

    /// Shape of the output for an input of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the input does not fit the layer.
    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>>;

    /// Element type of an output for an input of this one: the same, unless a layer says otherwise.
    fn output_elem(&self, input: Elem) -> Elem {
        input
    }

    /// Adds the layer's steps to a program, and gives the attention, if the layer has any. It is
    /// called by [`Builder::layer`] and [`Builder::layer_into`], which check shapes first.
    ///
    /// # Errors
    /// The planner's errors ([`Plan::new`](crate::program::Plan::new)), [`Error::Shape`].
    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>>;

    /// Binds input, what the layer is given, maybe a residual, and output.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`], [`Error::AliasedBuffers`], the planner's errors
    /// ([`Plan::new`](crate::program::Plan::new)), [`Error::OutOfMemory`].
    fn bind_any(
        &self,
        x: &Tensor,
        given: &[&Tensor],
        residual: Option<&Tensor>,
        y: &Tensor,
    ) -> Result<Bound> {
        let mut builder = Builder::new(self.context());
        let y = builder.tensor("output", y);
        let attention = bound_to(&mut builder, self, x, given, residual, y)?;
        builder.bind_with(y, attention)
    }

    /// What the output should be, in f64: computed on the host, operation after operation by its
    /// formula, from the same input and from the layer's weights as they are on the device. It is
    /// slow, about a second for 10^8 products.
    ///
    /// # Errors
    /// As [`AnyLayer::bind_any`]; those of [`Tensor::read`]; [`Error::Unsupported`] for minimal
    /// filtering.
    #[cfg(not(target_arch = "wasm32"))]
    fn reference(
        &self,
        x: &Tensor,
        given: &[&Tensor],
        residual: Option<&Tensor>,
    ) -> Result<Vec<f64>> {
        let mut builder = Builder::new(self.context());
        let shape = self.output_shape(x.shape())?;
        let elem = residual.map_or_else(|| self.output_elem(x.elem()), Tensor::elem);
        let y = builder.external("output", &shape, elem);
        bound_to(&mut builder, self, x, given, residual, y)?;
        builder.reference(y)
    }

    /// What would run for an input of this shape and element type.
    ///
    /// # Errors
    /// As [`AnyLayer::bind_any`].
    fn program(&self, input: &[usize], elem: Elem) -> Result<Program> {
        let mut builder = Builder::new(self.context());
        let shape = self.output_shape(input)?;
        let y = builder.external("output", &shape, self.output_elem(elem));
        let x = builder.external("input", input, elem);
        let given = self.given(input)?.into_iter();
        let given = given.map(|(name, shape)| builder.external(name, &shape, Elem::F32));
        let given: Vec<Value> = given.collect();
        add(&mut builder, self, Io::new(x, y).given(&given))?;
        Ok(builder.program().clone())
    }

    /// Computes the layer into a new tensor, and submits the work.
    ///
    /// # Errors
    /// As [`AnyLayer::bind_any`].
    fn forward_any(&self, x: &Tensor, given: &[&Tensor]) -> Result<Tensor> {
        let shape = self.output_shape(x.shape())?;
        let y = Tensor::new(self.context(), "output", &shape, self.output_elem(x.elem()))?;
        self.forward_any_into(x, given, &y)?;
        Ok(y)
    }

    /// The same into a tensor that there is.
    ///
    /// # Errors
    /// As [`AnyLayer::bind_any`].
    fn forward_any_into(&self, x: &Tensor, given: &[&Tensor], y: &Tensor) -> Result<()> {
        let bound = self.bind_any(x, given, None, y)?;
        let record = |encoder: &mut wgpu::CommandEncoder| bound.record(encoder);
        self.context().submit("the work of a layer", record).map(drop)
    }
}

/// What a layer reads and writes in a program.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    /// Input.
    pub x: Value,
    /// What [`AnyLayer::given`] names.
    pub given: &'a [Value],
    /// Added to the output before the activation, of the output's shape.
    pub residual: Option<Value>,
    /// Output.
    pub y: Value,
}

impl<'a> Io<'a> {
    /// Input and output.
    #[must_use]
    pub fn new(x: Value, y: Value) -> Self {
        Self { x, given: &[], residual: None, y }
    }

    /// The same with what the layer is given.
    #[must_use]
    pub fn given<'b>(self, given: &'b [Value]) -> Io<'b> {
        let Self { x, residual, y, .. } = self;
        Io { x, given, residual, y }
    }

    /// The same with a residual.
    #[must_use]
    pub fn adding(self, residual: Value) -> Self {
        Self { residual: Some(residual), ..self }
    }

    /// All that the layer is given.
    pub(crate) fn all_given<const N: usize>(self) -> Result<[Value; N]> {
        <[Value; N]>::try_from(self.given).map_err(|_| Error::Value {
            what: "what the layer is given".into(),
            needed: N.to_string(),
            found: self.given.len().to_string(),
        })
    }
}

impl Builder {
    /// Adds a layer that writes to new scratch memory. `given` is what
    /// [`AnyLayer::given`] names.
    ///
    /// # Errors
    /// As [`AnyLayer::lower`].
    pub fn layer(&mut self, layer: &dyn AnyLayer, x: Value, given: &[Value]) -> Result<Value> {
        let input = self.info(x)?;
        let (shape, elem) = (layer.output_shape(&input.shape)?, layer.output_elem(input.elem));
        let y = self.scratch("intermediate result", &shape, elem);
        self.layer_into(layer, Io::new(x, y).given(given))?;
        Ok(y)
    }

    /// Adds a layer that writes to a value that there is, maybe after adding a residual.
    ///
    /// # Errors
    /// As [`AnyLayer::lower`]; [`Error::AliasedBuffers`] for an output that the layer reads.
    pub fn layer_into(&mut self, layer: &dyn AnyLayer, io: Io<'_>) -> Result<()> {
        add(self, layer, io).map(drop)
    }
}

/// Adds a layer that reads tensors, and gives the attention, if the layer has any.
fn bound_to<L: AnyLayer + ?Sized>(
    builder: &mut Builder,
    layer: &L,
    x: &Tensor,
    given: &[&Tensor],
    residual: Option<&Tensor>,
    y: Value,
) -> Result<Option<Value>> {
    let names = layer.given(x.shape())?;
    let x = builder.tensor("input", x);
    let mut names = names.into_iter().map(|(name, _)| name);
    let named = |given| builder.tensor(names.next().unwrap_or("given"), given);
    let given: Vec<Value> = given.iter().copied().map(named).collect();
    let residual = residual.map(|residual| builder.tensor("residual", residual));
    add(builder, layer, Io { x, given: &given, residual, y })
}

/// Adds a layer whose operands have the right shapes.
fn add<L: AnyLayer + ?Sized>(
    builder: &mut Builder,
    layer: &L,
    io: Io<'_>,
) -> Result<Option<Value>> {
    let Io { x, given, residual, y } = io;
    let input = builder.info(x)?.shape.clone();
    check_given(&layer.given(&input)?, builder, given)?;
    let shape = layer.output_shape(&input)?;
    for value in [Some(y), residual].into_iter().flatten() {
        let found = &builder.info(value)?.shape;
        if !is_same(found, &shape) {
            return Err(Error::shape(value.name(), &shape, found));
        }
    }
    let read = [x].into_iter().chain(given.iter().copied()).chain(residual);
    if let Some(input) = read.into_iter().find(|value| *value == y) {
        return Err(Error::AliasedBuffers { output: y.name(), input: input.name() });
    }
    layer.lower(builder, io)
}

/// Whether two shapes are the same but for trailing ones: `[batch, channels]` is a map of one
/// position.
fn is_same(a: &[usize], b: &[usize]) -> bool {
    let trimmed = |shape: &[usize]| shape.iter().rposition(|&n| n != 1).map_or(0, |last| last + 1);
    a[..trimmed(a)] == b[..trimmed(b)]
}

/// Refuses another number or shape of what a layer is given.
fn check_given(
    needed: &[(&'static str, Vec<usize>)],
    builder: &Builder,
    given: &[Value],
) -> Result<()> {
    for ((name, shape), given) in needed.iter().zip(given) {
        let found = &builder.info(*given)?.shape;
        if !is_same(found, shape) {
            return Err(Error::shape(*name, shape, found));
        }
    }
    if let Some((name, shape)) = needed.get(given.len()) {
        return Err(Error::Value {
            what: (*name).into(),
            needed: format!("a tensor {shape:?}"),
            found: "none".into(),
        });
    }
    let Some(extra) = given.get(needed.len()) else { return Ok(()) };
    Err(Error::Value {
        what: "tensor beside the input".into(),
        needed: match needed.len() {
            0 => "none, since the layer needs nothing but its input".into(),
            count => format!("{count} and no more"),
        },
        found: format!("{:?}", builder.info(*extra)?.shape),
    })
}

/// Runs a layer on host data.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn run(
    layer: &dyn AnyLayer,
    shape: &[usize],
    x: &[f32],
    given: &[&[f32]],
) -> Result<Vec<f32>> {
    let context = layer.context();
    let needed = layer.given(shape)?;
    let given = needed
        .iter()
        .zip(given)
        .map(|((name, shape), values)| Tensor::filled(context, name, shape, values, Elem::F32));
    let given = given.collect::<Result<Vec<_>>>()?;
    let given: Vec<&Tensor> = given.iter().collect();
    let x = Tensor::filled(context, "input", shape, x, Elem::F32)?;
    layer.forward_any(&x, &given)?.read_blocking(context)
}

/// The ways with names of their own, for a kind of layer over `$axes` axes that is given `$given`
/// beside its input, or nothing.
macro_rules! ways {
    ([$($generics:tt)*] $layer:ty, $axes:expr $(, $given:ident)?) => {
        impl<$($generics)*> $layer {
            /// Binds input, what the layer is given beside it, and output: everything is checked,
            /// compiled and allocated here, and nothing when it is recorded.
            ///
            /// # Errors
            /// [`Error::Shape`](crate::Error::Shape), [`OtherDevice`](crate::Error::OtherDevice),
            /// [`AliasedBuffers`](crate::Error::AliasedBuffers), the planner's errors
            /// ([`Plan::new`](crate::program::Plan::new)),
            /// [`OutOfMemory`](crate::Error::OutOfMemory).
            pub fn bind(&self, x: &Tensor $(, $given: &Tensor)?, y: &Tensor) -> Result<Bound> {
                self.bind_any(x, &[$($given)?], None, y)
            }

            /// As [`bind`](Self::bind), and adds `residual`, a tensor like the output, before the
            /// activation.
            ///
            /// # Errors
            /// As [`bind`](Self::bind).
            pub fn bind_add(
                &self,
                x: &Tensor,
                $($given: &Tensor,)?
                residual: &Tensor,
                y: &Tensor,
            ) -> Result<Bound> {
                self.bind_any(x, &[$($given)?], Some(residual), y)
            }

            /// Computes the layer into a new tensor of the input's element type, and submits the
            /// work.
            ///
            /// # Errors
            /// As [`bind`](Self::bind).
            pub fn forward(&self, x: &Tensor $(, $given: &Tensor)?) -> Result<Tensor> {
                self.forward_any(x, &[$($given)?])
            }

            /// Computes the layer into `y`, and submits the work.
            ///
            /// # Errors
            /// As [`bind`](Self::bind).
            pub fn forward_into(
                &self,
                x: &Tensor,
                $($given: &Tensor,)?
                y: &Tensor,
            ) -> Result<()> {
                self.forward_any_into(x, &[$($given)?], y)
            }

            /// Computes the layer on host data, `[batch, channels in, input..]` or with the
            /// channels last, and waits for the result.
            ///
            /// # Errors
            /// As [`bind`](Self::bind), and [`Error::DeviceLost`](crate::Error::DeviceLost).
            #[cfg(not(target_arch = "wasm32"))]
            pub fn run(
                &self,
                batch: usize,
                input: [usize; $axes],
                x: &[f32],
                $($given: &[f32],)?
            ) -> Result<Vec<f32>> {
                let shape = self.input_shape(batch, input);
                crate::layers::ways::run(self, &shape, x, &[$($given)?])
            }
        }
    };
}
pub(super) use ways;
