//! Programs on the host: operation after operation in f64, by the reference.

use super::operation::{OfChannels, What};
use super::plan::mlp;
use super::{Memory, Program, Weights};
use crate::error::{Error, Result};
use crate::kernels::attention_mlp::{Head as KernelHead, Mlp as KernelMlp, MlpValues};
use crate::kernels::conv::ConvValues;
use crate::kernels::{Value, gate};
use crate::problem::{AttentionSource, Branch, Geometry, MapAxis, Mixing, Problem, product};
use crate::reference::attention_mlp::{Head, Mlp, attention_mlp};
use crate::reference::gate::Gates;
use crate::reference::{
    self, Conv, LayerWeights, average_pool, channel_softmax, demodulate, gru, layer_norm, narrow,
    resample, weighted_mean, widen, window_pool,
};

/// Values of a program while it runs on the host.
pub(super) struct Host<'a> {
    program: &'a Program,
    external: &'a mut dyn FnMut(Value) -> Result<Vec<f64>>,
    held: Vec<Option<Vec<f64>>>,
    is_rounded: bool,
}

impl Program {
    /// The program in f64 on the host: every operation by its formula, with no step of a device,
    /// no arena and no chunk. `external` gives the values that come from outside, weights included;
    /// the result is `output`.
    ///
    /// # Errors
    /// Those of `external`; [`Error::Unsupported`] for minimal filtering, whose kernels are kept
    /// in another form; [`Error::Value`] if no operation computes the output.
    pub fn reference(
        &self,
        output: Value,
        mut external: impl FnMut(Value) -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        self.evaluate(output, false, &mut external)
    }

    /// The same, every value rounded to its element type once it is computed. How far this is from
    /// [`Program::reference`] is what storing values costs, whatever computes them.
    ///
    /// # Errors
    /// As [`Program::reference`].
    pub fn rounded_reference(
        &self,
        output: Value,
        mut external: impl FnMut(Value) -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        self.evaluate(output, true, &mut external)
    }

    fn evaluate(
        &self,
        output: Value,
        is_rounded: bool,
        external: &mut dyn FnMut(Value) -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        let held = vec![None; self.values.len()];
        let mut host = Host { program: self, external, held, is_rounded };
        let lives = self.lifetimes();
        for operation in &self.operations {
            host.run(&operation.what)?;
            for (held, life) in host.held.iter_mut().zip(&lives) {
                let is_over = life.as_ref().is_some_and(|life| *life.end() < operation.steps.end);
                if is_over && operation.output().index() != output.index() {
                    *held = None;
                }
            }
        }
        let computed = host.held.get_mut(output.index()).and_then(Option::take);
        computed.ok_or_else(|| Error::Value {
            what: "output of the reference".into(),
            needed: "a value that an operation computes".into(),
            found: output.name().into(),
        })
    }
}

impl Host<'_> {
    fn read(&mut self, value: Value) -> Result<Vec<f64>> {
        let info = self.program.info(value)?;
        match &self.held[value.index()] {
            Some(held) => Ok(held.clone()),
            None if info.memory == Memory::External => (self.external)(value),
            None => Err(info.is_missing()),
        }
    }

    fn read_some(&mut self, value: Option<Value>) -> Result<Option<Vec<f64>>> {
        value.map(|value| self.read(value)).transpose()
    }

    fn write(&mut self, value: Value, elements: Vec<f64>) {
        let elements = match self.is_rounded {
            true => {
                let elem = self.program.values[value.index()].elem;
                let stored = elem.encode(&narrow(&elements));
                widen(&elem.decode(&stored, elements.len()))
            }
            false => elements,
        };
        self.held[value.index()] = Some(elements);
    }

    fn run(&mut self, what: &What) -> Result<()> {
        match what {
            What::Conv { problem, operands, attention } => {
                let mut weights = self.layer_weights(problem, operands.weights)?;
                weights.residual = self.read_some(operands.residual)?;
                let x = self.read(operands.x)?;
                let given = self.read_some(operands.given)?.unwrap_or_default();
                let made = reference::layer(problem, &weights, &x, &given);
                if let Some(attention) = attention.filter(|own| Some(*own) != operands.given) {
                    self.write(attention, made.attention);
                }
                self.write(operands.y, made.y);
            }
            What::Channels { problem, output, of, values } => {
                let y = self.of_channels(problem, *output, *of, values)?;
                self.write(values.y, y);
            }
            What::Mean { pool, x, y } => {
                let x = self.read(*x)?;
                let [size, inner] = pool.sizes();
                let outer = x.len() / (size * inner).max(1);
                self.write(*y, average_pool::average_pool(&x, outer, inner));
            }
            What::Attention { mlp, values } => {
                let MlpValues { means, hidden, heads, temperature, attention } = *values;
                let weights = Weights {
                    hidden,
                    heads: Some(heads),
                    temperature: Some(temperature),
                    ..Weights::default()
                };
                let branch = self.branch(mlp, weights)?;
                let means = self.read(means)?;
                let batch = means.len() / mlp.channels;
                self.write(attention, attention_mlp(&branch, &means, batch));
            }
            What::Softmax { sizes: [_, channels, size], values: [logits, y, temperature] } => {
                let (logits, temperature) = (self.read(*logits)?, self.read(*temperature)?);
                let y_values =
                    channel_softmax::channel_softmax(&logits, *channels, *size, temperature[0]);
                self.write(*y, y_values);
            }
            What::WeightedMean { size, least, values: [x, weights, y] } => {
                let (x, weights) = (self.read(*x)?, self.read(*weights)?);
                let means = weighted_mean::weighted_mean(&x, &weights, *size, (*least).into());
                self.write(*y, means);
            }
            What::Gru { recurrence, values: [projections, weights, states] } => {
                let (projections, packed) = (self.read(*projections)?, self.read(*weights)?);
                let own = recurrence.hidden;
                let (mut weights, mut bias) = (Vec::new(), Vec::new());
                for direction in packed.chunks_exact(3 * own * (own + 1)) {
                    let (rows, of_rows) = rows(direction, own);
                    weights.extend(rows);
                    bias.extend(of_rows);
                }
                let recurrence = gru::Recurrence {
                    directions: recurrence.directions,
                    hidden: own,
                    steps: recurrence.steps,
                    weights: &weights,
                    bias: &bias,
                };
                self.write(*states, gru::gru(&recurrence, &projections));
            }
            What::Demodulate { geometry, demodulate, values: [style, norms, gains] } => {
                let (style, norms) = (self.read(*style)?, self.read(*norms)?);
                // The norm of some taps stands for them.
                let summed = Geometry { kernel: [1; 3], ..**geometry };
                let all = match demodulate {
                    true => demodulate::demodulate(&summed, &norms, &style),
                    false => style,
                };
                self.write(*gains, all);
            }
        }
        Ok(())
    }

    /// Weights of a convolution as the reference takes them.
    fn layer_weights(&mut self, problem: &Problem, of: Weights<Value>) -> Result<LayerWeights> {
        let g = &problem.geometry;
        if g.winograd.is_some() {
            return Err(Error::Unsupported {
                what: "the reference of minimal filtering".into(),
                because: "its kernels are kept in another form".into(),
            });
        }
        let mut weights = LayerWeights { affine: self.read_some(of.affine)?, ..Default::default() };
        let bank = self.read_some(of.bank)?;
        let bias = self.read_some(of.bias)?;
        let is_cells = matches!(
            problem.attention,
            AttentionSource::Branch(Branch { mixing: Mixing::Cells(_), .. })
        );
        (weights.bank, weights.bias) = match (self.read_some(of.shared)?, bank) {
            (Some(row), _) => {
                let (kernels, rest) = row.split_at(g.kernels * g.kernel_len(problem.order));
                let bias = problem.has_bias.then(|| rest[..g.kernels * g.c_out].to_vec());
                (g.plain(kernels, problem.order), bias)
            }
            (None, Some(cells)) if is_cells => (cells, bias),
            (None, Some(bank)) => (g.plain(&bank, problem.order), bias),
            (None, None) => (Vec::new(), bias),
        };
        if let AttentionSource::Branch(branch) = &problem.attention {
            weights.mlp = Some(self.branch(&mlp(problem, branch), of)?);
        }
        Ok(weights)
    }

    /// An attention branch as the reference takes it.
    fn branch(&mut self, mlp: &KernelMlp, of: Weights<Value>) -> Result<Mlp> {
        let hidden = self.read_some(of.hidden)?.map(|packed| rows(&packed, mlp.channels));
        let (hidden, hidden_bias) = hidden.unzip();
        let packed = self.read_some(of.heads)?.unwrap_or_default();
        let (heads, head_bias) = rows(&packed, mlp.hidden.unwrap_or(mlp.channels));
        let temperature = self.read_some(of.temperature)?;
        let (mixed, head) = match mlp.head {
            KernelHead::Sigmoid => (0, Head::Sigmoid),
            KernelHead::Softmax { kernels } => (kernels, Head::Softmax { kernels }),
            KernelHead::Signed { runs, kernels } => {
                (runs * kernels, Head::Signed { cells: kernels })
            }
        };
        Ok(Mlp {
            hidden: hidden.unwrap_or_default(),
            hidden_bias,
            norm: None,
            heads,
            head_bias,
            sigmoids: mlp.outputs - mixed,
            head,
            temperature: temperature.map_or(1.0, |temperature| temperature[0]),
        })
    }

    fn of_channels(
        &mut self,
        problem: &Problem,
        output: [usize; 3],
        of: OfChannels,
        values: &ConvValues,
    ) -> Result<Vec<f64>> {
        let x = self.read(values.x)?;
        let affine = self.read_some(values.affine)?;
        let residual = self.read_some(values.residual)?;
        let conv = Conv {
            geometry: &problem.geometry,
            batch: problem.batch,
            input: problem.input,
            output,
            x: &x,
            rows: &[],
            row_stride: 0,
            has_bias: false,
            gains: None,
            affine: affine.as_deref(),
            residual: residual.as_deref(),
            activation: problem.epilogue.activation,
            layouts: problem.layouts,
        };
        Ok(match of {
            OfChannels::Gate(gains) => self.gated(&conv, gains)?,
            OfChannels::LayerNorm(epsilon) => layer_norm::layer_norm(&conv, epsilon.into()),
            OfChannels::Pool(pooling) => window_pool::window_pool(&conv, pooling),
            OfChannels::Resample(sampling) => resample::resample(&conv, sampling),
            OfChannels::Part(first) => self.part(problem, first, values.y, &x)?,
        })
    }

    fn gated(&mut self, conv: &Conv<'_>, gains: gate::Gains) -> Result<Vec<f64>> {
        let coefficients = self.read_some(gains.coefficients)?;
        let first = self.read_some(gains.first.map(|(value, _)| value))?;
        let second = self.read_some(gains.second.map(|(value, _)| value))?;
        let mut gates = Gates { coefficients: coefficients.as_deref(), ..Gates::default() };
        match (&first, gains.first.map(|(_, map)| map)) {
            (Some(first), Some(None)) => gates.of_channels = Some(first),
            (Some(first), Some(Some(MapAxis::All))) => gates.of_positions = Some(first),
            (Some(first), Some(Some(MapAxis::One(axis)))) => gates.along[0] = Some((first, axis)),
            _ => {}
        }
        if let (Some(second), Some((_, axis))) = (&second, gains.second) {
            gates.along[1] = Some((second, axis));
        }
        Ok(reference::gate::gate(conv, gates))
    }

    /// A part of a concatenation in its place, beside those that are there.
    fn part(&mut self, problem: &Problem, first: usize, y: Value, x: &[f64]) -> Result<Vec<f64>> {
        let Geometry { c_in, c_out, .. } = problem.geometry;
        let size = product(&problem.input);
        let len = self.program.info(y)?.len();
        let mut whole = self.held[y.index()].take().unwrap_or_else(|| vec![0.0; len]);
        let samples = whole.chunks_exact_mut(c_out * size).zip(x.chunks_exact(c_in * size));
        for (whole, part) in samples {
            whole[first * size..][..part.len()].copy_from_slice(part);
        }
        Ok(whole)
    }
}

/// A matrix `[rows, columns]` and a bias of its rows, packed for the kernels: transposed, the bias
/// behind.
fn rows(packed: &[f64], columns: usize) -> (Vec<f64>, Vec<f64>) {
    let count = packed.len() / (columns + 1);
    let (transposed, bias) = packed.split_at(count * columns);
    let rows = (0..count).flat_map(|row| transposed[row..].iter().step_by(count).copied());
    (rows.collect(), bias.to_vec())
}
