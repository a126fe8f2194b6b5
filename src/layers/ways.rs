//! The ways to use a layer, alike for every kind.

use std::fmt;

use crate::device::{Bound, Context, Tensor};
#[cfg(not(target_arch = "wasm32"))]
use crate::elem::Elem;
use crate::error::{Error, Result};

/// A layer of any kind, so that layers of several kinds stand in one list.
///
/// ```
/// # use dynconv::{Result, Tensor, layers::AnyLayer};
/// # fn f(layers: &[Box<dyn AnyLayer>], x: &Tensor) -> Result<()> {
/// let mut x = x.clone();
/// for layer in layers {
///     x = layer.forward_any(&x, None)?;
/// }
/// # Ok(())
/// # }
/// ```
pub trait AnyLayer: fmt::Debug + wgpu::WasmNotSendSync {
    /// The context that the layer was made with.
    fn context(&self) -> &Context;

    /// Name and shape of what the layer is given beside an input of this shape: attention, a map, a
    /// style or kernels. `None` for layers that need nothing but their input.
    ///
    /// # Errors
    /// [`Error::Shape`] if the input does not fit the layer.
    fn given(&self, input: &[usize]) -> Result<Option<(&'static str, Vec<usize>)>> {
        self.output_shape(input).map(|_| None)
    }

    /// Shape of the output for an input of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the input does not fit the layer.
    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>>;

    /// Binds input, what the layer is given, maybe a residual, and output.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`], [`Error::AliasedBuffers`], the planner's errors
    /// ([`Plan::new`](crate::plan::Plan::new)), [`Error::OutOfMemory`].
    fn bind_any(
        &self,
        x: &Tensor,
        given: Option<&Tensor>,
        residual: Option<&Tensor>,
        y: &Tensor,
    ) -> Result<Bound>;

    /// Computes the layer into a new tensor of the input's element type, and submits the work.
    ///
    /// # Errors
    /// As [`AnyLayer::bind_any`].
    fn forward_any(&self, x: &Tensor, given: Option<&Tensor>) -> Result<Tensor> {
        let shape = self.output_shape(x.shape())?;
        let y = Tensor::new(self.context(), "output", &shape, x.elem())?;
        self.forward_any_into(x, given, &y)?;
        Ok(y)
    }

    /// The same into a tensor that there is.
    ///
    /// # Errors
    /// As [`AnyLayer::bind_any`].
    fn forward_any_into(&self, x: &Tensor, given: Option<&Tensor>, y: &Tensor) -> Result<()> {
        let bound = self.bind_any(x, given, None, y)?;
        let record = |encoder: &mut wgpu::CommandEncoder| bound.record(encoder);
        self.context().submit("the work of a layer", record).map(drop)
    }
}

/// Refuses another number or shape of what a layer is given.
pub(super) fn check_given(layer: &dyn AnyLayer, x: &Tensor, given: Option<&Tensor>) -> Result<()> {
    match (layer.given(x.shape())?, given) {
        (None, None) => Ok(()),
        (Some((name, shape)), Some(given)) => {
            if given.shape() != shape {
                return Err(Error::shape(name, &shape, given.shape()));
            }
            layer.context().home().check(name, given.home())
        }
        (None, Some(given)) => Err(Error::Value {
            what: "tensor beside the input".into(),
            needed: "none, since the layer computes its attention itself".into(),
            found: format!("{:?}", given.shape()),
        }),
        (Some((name, shape)), None) => Err(Error::Value {
            what: name.into(),
            needed: format!("a tensor {shape:?}"),
            found: "none".into(),
        }),
    }
}

/// Runs a layer on host data.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn run(
    layer: &dyn AnyLayer,
    shape: &[usize],
    x: &[f32],
    given: Option<&[f32]>,
) -> Result<Vec<f32>> {
    let context = layer.context();
    let given = match (layer.given(shape)?, given) {
        (Some((name, shape)), Some(values)) => {
            Some(Tensor::filled(context, name, &shape, values, Elem::F32)?)
        }
        _ => None,
    };
    let x = Tensor::filled(context, "input", shape, x, Elem::F32)?;
    layer.forward_any(&x, given.as_ref())?.read_blocking(context)
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
            /// ([`Plan::new`](crate::plan::Plan::new)),
            /// [`OutOfMemory`](crate::Error::OutOfMemory).
            pub fn bind(&self, x: &Tensor $(, $given: &Tensor)?, y: &Tensor) -> Result<Bound> {
                self.bind_any(x, [$($given)?].first().copied(), None, y)
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
                self.bind_any(x, [$($given)?].first().copied(), Some(residual), y)
            }

            /// Computes the layer into a new tensor of the input's element type, and submits the
            /// work.
            ///
            /// # Errors
            /// As [`bind`](Self::bind).
            pub fn forward(&self, x: &Tensor $(, $given: &Tensor)?) -> Result<Tensor> {
                self.forward_any(x, [$($given)?].first().copied())
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
                self.forward_any_into(x, [$($given)?].first().copied(), y)
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
                crate::layers::ways::run(self, &shape, x, [$($given)?].first().copied())
            }
        }
    };
}
pub(super) use ways;
