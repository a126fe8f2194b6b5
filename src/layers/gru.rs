//! Gated recurrent units.

use super::pool::refuse_residual;
use super::{AnyLayer, Io, Layer, Static};
use crate::device::{Builder, Context, Tensor, check_elem};
use crate::elem::Elem;
use crate::error::{Error, Result, check_finite, check_len};
use crate::kernels::Value;
use crate::kernels::gru::Recurrence;
use crate::problem::ConvDesc;
use crate::program::What;

/// A layer of gated recurrent units, in one direction or in both.
///
/// ```text
/// r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
/// z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
/// n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
/// h = (1 - z) * n + z * h                          0 before the first step
/// ```
///
/// Input `[batch, channels, steps]` and output `[batch, directions * hidden, steps]` are f32, both
/// maybe with axes of size 1 behind; the second direction goes from the last step to the first.
/// Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014, in
/// the form of cuDNN and PyTorch.
#[derive(Clone, Debug)]
pub struct Gru {
    context: Context,
    projection: Layer<1, Static>,
    weights: Tensor,
    directions: usize,
    hidden: usize,
}

/// Weights of one direction, as PyTorch has them: rows of r, z and n one behind the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GruWeights {
    /// Of the input `[3 * hidden, channels]`, published as `weight_ih_l0`.
    pub input: Vec<f32>,
    /// Of the state `[3 * hidden, hidden]`, published as `weight_hh_l0`.
    pub state: Vec<f32>,
    /// `[3 * hidden]`, published as `bias_ih_l0`.
    pub input_bias: Vec<f32>,
    /// `[3 * hidden]`, published as `bias_hh_l0`.
    pub state_bias: Vec<f32>,
}

impl Gru {
    /// From the weights of one or two directions.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, [`Error::Value`] for NaN or infinity.
    pub fn new(
        context: &Context,
        channels: usize,
        hidden: usize,
        directions: &[GruWeights],
    ) -> Result<Self> {
        if hidden == 0 || !matches!(directions.len(), 1 | 2) {
            return Err(Error::Shape {
                what: "recurrent layer".into(),
                expected: "at least 1 hidden unit, in 1 or 2 directions".into(),
                found: format!("{hidden} in {}", directions.len()),
            });
        }
        let rows = hidden.saturating_mul(3);
        let mut packed = Vec::new();
        for one in directions {
            for (what, values, len) in [
                ("weights of the input", &one.input, rows.saturating_mul(channels)),
                ("weights of the state", &one.state, rows.saturating_mul(hidden)),
                ("bias of the input", &one.input_bias, rows),
                ("bias of the state", &one.state_bias, rows),
            ] {
                check_len(what, values, len)?;
                check_finite(what, values)?;
            }
            for unit in 0..hidden {
                packed.extend((0..rows).map(|row| one.state[row * hidden + unit]));
            }
            packed.extend(&one.state_bias);
        }
        let joined = |of: fn(&GruWeights) -> &[f32]| directions.iter().flat_map(of).copied();
        let input: Vec<f32> = joined(|one| &one.input).collect();
        let bias: Vec<f32> = joined(|one| &one.input_bias).collect();
        let desc = ConvDesc::new(channels, rows.saturating_mul(directions.len()), [1]);
        Ok(Self {
            context: context.clone(),
            projection: Layer::<1, Static>::new(context, &desc, &input, Some(&bias))?,
            weights: Tensor::filled(context, "state weights", &[packed.len()], &packed, Elem::F32)?,
            directions: directions.len(),
            hidden,
        })
    }

    /// Batch and steps of an input.
    fn sizes(&self, input: &[usize]) -> Result<[usize; 2]> {
        let channels = self.projection.geometry.c_in;
        match input {
            [batch, found, steps, ones @ ..]
                if *found == channels && *steps > 0 && ones.iter().all(|&size| size == 1) =>
            {
                Ok([*batch, *steps])
            }
            _ => Err(Error::Shape {
                what: "input of a recurrent layer".into(),
                expected: format!("[batch, {channels}, steps, ones..]"),
                found: format!("{input:?}"),
            }),
        }
    }
}

impl AnyLayer for Gru {
    fn context(&self) -> &Context {
        &self.context
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.sizes(input)?;
        let mut shape = input.to_vec();
        shape[1] = self.directions * self.hidden;
        Ok(shape)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        refuse_residual(io, "a recurrent layer")?;
        for value in [io.x, io.y] {
            check_elem(value.name(), builder.info(value)?.elem, Elem::F32)?;
        }
        let [batch, steps] = self.sizes(&builder.info(io.x)?.shape)?;
        let shape = [batch, self.projection.geometry.c_out, steps];
        let projections = builder.scratch("projections of the input", &shape, Elem::F32);
        // The input may have axes of size 1 behind.
        let problem = self.projection.problem(batch, [1, 1, steps]);
        self.projection.lower_problem(builder, &problem, Io::new(io.x, projections))?;
        let weights = builder.tensor("state weights", &self.weights);
        let Self { directions, hidden, .. } = *self;
        let recurrence = Recurrence { directions, hidden, steps };
        let values = [projections, weights, io.y];
        let steps = recurrence.dispatches(values, (0, batch), builder.caps())?;
        builder.push(What::Gru { recurrence, values }, steps);
        Ok(None)
    }
}
