//! Softmax over the channels, and means that it weights.

use super::pool::refuse_residual;
use super::{AnyLayer, Io, checked_temperature};
use crate::device::{Builder, Context, Tensor, check_elem};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::{Value, channel_softmax, weighted_mean};
use crate::problem::product;
use crate::program::What;

/// Softmax over the channels at every position: `y[b, c, p] = exp(x[b, c, p] / temperature) / sum_j
/// exp(x[b, j, p] / temperature)`. Input and output are f32, `[batch, channels, spatial..]`.
#[derive(Clone, Debug)]
pub struct Softmax {
    context: Context,
    temperature: Tensor,
}

/// Batch, channels and positions of a shape.
fn sizes(shape: &[usize]) -> Result<[usize; 3]> {
    match shape {
        [batch, channels, spatial @ ..] if product(&shape[1..]) > 0 => {
            Ok([*batch, *channels, product(spatial)])
        }
        _ => Err(Error::Shape {
            what: "input".into(),
            expected: "[batch, channels, spatial..], of at least 1 element a sample".into(),
            found: format!("{shape:?}"),
        }),
    }
}

impl Softmax {
    /// With a temperature, which is 1 where none is meant.
    ///
    /// # Errors
    /// [`Error::Value`] for a temperature that is not above 0.
    pub fn new(context: &Context, temperature: f32) -> Result<Self> {
        let temperature = [checked_temperature(temperature)?];
        let temperature = Tensor::filled(context, "temperature", &[1], &temperature, Elem::F32)?;
        Ok(Self { context: context.clone(), temperature })
    }
}

impl AnyLayer for Softmax {
    fn context(&self) -> &Context {
        &self.context
    }

    fn output_elem(&self, _input: Elem) -> Elem {
        Elem::F32
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        sizes(input).map(|_| input.to_vec())
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        refuse_residual(io, "a softmax")?;
        for value in [io.x, io.y] {
            check_elem(value.name(), builder.info(value)?.elem, Elem::F32)?;
        }
        let sizes = sizes(&builder.info(io.x)?.shape)?;
        let temperature = builder.tensor("temperature", &self.temperature);
        let values = [io.x, io.y, temperature];
        let step = channel_softmax::dispatch(values, sizes, builder.caps())?;
        builder.push(What::Softmax { sizes, values }, [step]);
        Ok(None)
    }
}

/// The mean over all positions, weighted: `y[b, c] = sum_p w[b, c, p] x[b, c, p] / sum_p w[b, c,
/// p]`. Weights are given in the input's shape, and count as `least` at least. All tensors are f32;
/// the output has size 1 along every spatial axis.
#[derive(Clone, Debug)]
pub struct WeightedMean {
    context: Context,
    least: f32,
}

impl WeightedMean {
    /// `least` is above 0, so that the sum of the weights is.
    ///
    /// # Errors
    /// [`Error::Value`] for another one.
    pub fn new(context: &Context, least: f32) -> Result<Self> {
        if least.is_normal() && least > 0.0 {
            return Ok(Self { context: context.clone(), least });
        }
        Err(Error::Value {
            what: "least weight of a mean".into(),
            needed: "a normal number above 0".into(),
            found: least.to_string(),
        })
    }
}

impl AnyLayer for WeightedMean {
    fn context(&self) -> &Context {
        &self.context
    }

    fn given(&self, input: &[usize]) -> Result<Vec<(&'static str, Vec<usize>)>> {
        sizes(input).map(|_| vec![("weights", input.to_vec())])
    }

    fn output_elem(&self, _input: Elem) -> Elem {
        Elem::F32
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let [batch, channels, _] = sizes(input)?;
        Ok([&[batch, channels][..], &vec![1; input.len() - 2]].concat())
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        refuse_residual(io, "a mean")?;
        let [weights] = io.all_given()?;
        for value in [io.x, weights, io.y] {
            check_elem(value.name(), builder.info(value)?.elem, Elem::F32)?;
        }
        let sizes = sizes(&builder.info(io.x)?.shape)?;
        let values = [io.x, weights, io.y];
        let step = weighted_mean::dispatch(values, sizes, self.least, builder.caps())?;
        let (size, least) = (sizes[2], self.least);
        builder.push(What::WeightedMean { size, least, values }, [step]);
        Ok(None)
    }
}
