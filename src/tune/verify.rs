//! A kernel is right before it is fast.

use crate::device::{Bound, Builder, Context, Tensor};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::problem::{Activation, Algorithm, AttentionSource, Geometry, Layout, Problem};
use crate::program::{Operands, Plan, Weights};
use crate::reference::{self, Conv, aggregate, conv_direct, widen};

/// Operands of a problem on the host, those of several samples one after another. All are multiples
/// of 1/64 of at most 1, which every element type holds exactly.
#[derive(Clone, Debug)]
struct Numbers {
    x: Vec<f32>,
    /// Kernels in plain order, one after another, where samples share them.
    bank: Vec<f32>,
    bias: Vec<f32>,
    /// Attention rows, maps, or each sample's kernel and bias.
    given: Vec<f32>,
}

/// Pseudo-random numbers, the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn numbers(&mut self, len: usize) -> Vec<f32> {
        // Below 129, exactly.
        (0..len).map(|_| (self.next() % 129) as f32 / 64.0 - 1.0).collect()
    }
}

impl Numbers {
    fn new(problem: &Problem, output: [usize; 3]) -> Self {
        let g = &problem.geometry;
        let mut noise = Noise(1);
        let has_bank = problem.attention != AttentionSource::SampleWeights;
        let bias = if problem.has_bias { g.kernels * g.c_out } else { 0 };
        let given = match problem.attention {
            AttentionSource::SampleWeights => g.weights() + bias,
            AttentionSource::Map(_) => g.kernels * problem.map_size(output),
            _ => problem.attention_row().stride,
        };
        Self {
            x: noise.numbers(problem.batch * g.c_in * problem.input.iter().product::<usize>()),
            bank: noise.numbers(if has_bank { g.kernels * g.weights() } else { 0 }),
            bias: noise.numbers(if has_bank { bias } else { 0 }),
            given: noise.numbers(problem.batch * given),
        }
    }

    /// Those of some samples of a batch.
    fn samples(&self, batch: usize, samples: &[usize]) -> Self {
        let pick = |all: &[f32]| -> Vec<f32> {
            let len = all.len() / batch;
            samples
                .iter()
                .flat_map(|sample| &all[sample * len..(sample + 1) * len])
                .copied()
                .collect()
        };
        Self { x: pick(&self.x), given: pick(&self.given), ..self.clone() }
    }

    fn magnitudes(&self) -> Self {
        let all = |values: &[f32]| values.iter().map(|value| value.abs()).collect();
        Self {
            x: all(&self.x),
            bank: all(&self.bank),
            bias: all(&self.bias),
            given: all(&self.given),
        }
    }

    /// Kernels and then biases as a row: a bank, or what a caller gives for one sample.
    fn row(problem: &Problem, kernels: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut row = problem.geometry.in_order(kernels.to_vec(), problem.order);
        row.extend(bias);
        row.resize(problem.row(), 0.0);
        row
    }

    fn upload(
        &self,
        context: &Context,
        problem: &Problem,
        output: [usize; 3],
    ) -> Result<Operands<Tensor>> {
        let g = &problem.geometry;
        let tensor =
            |values: &[f32], elem| Tensor::upload_in(context, &[values.len()], values, elem);
        let in_f32 = |values: &[f32]| -> Result<Option<Tensor>> {
            if values.is_empty() { Ok(None) } else { tensor(values, Elem::F32).map(Some) }
        };
        let y = problem.batch * g.c_out * output.iter().product::<usize>();
        let mut operands = Operands {
            x: tensor(&self.x, problem.elems[0])?,
            given: None,
            residual: None,
            weights: Weights::default(),
            y: Tensor::zeros_in(context, &[y], problem.elems[1])?,
        };
        if problem.attention == AttentionSource::SampleWeights {
            let given = self.given.chunks_exact(self.given.len() / problem.batch);
            let rows: Vec<f32> = given
                .flat_map(|row| Self::row(problem, &row[..g.weights()], &row[g.weights()..]))
                .collect();
            operands.given = in_f32(&rows)?;
            return Ok(operands);
        }
        operands.given = in_f32(&self.given)?;
        if problem.shares_kernel() {
            operands.weights.shared = in_f32(&Self::row(problem, &self.bank, &self.bias))?;
        } else {
            let bank = g.in_order(self.bank.clone(), problem.order);
            operands.weights.bank = Some(tensor(&bank, g.bank)?);
            operands.weights.bias = in_f32(&self.bias)?;
        }
        Ok(operands)
    }
}

/// Binds a plan to tensors.
fn bind_plan(context: &Context, plan: Plan, operands: &Operands<Tensor>) -> Result<Bound> {
    let mut builder = Builder::new(context);
    let mut add = |name: &'static str, tensor: &Tensor| builder.tensor(name, tensor);
    let operands = Operands {
        x: add("input", &operands.x),
        given: operands.given.as_ref().map(|given| add("given", given)),
        residual: None,
        weights: operands.weights.as_ref().map(|name, tensor| Ok(add(name, tensor)))?,
        y: add("output", &operands.y),
    };
    builder.push_plan(plan, &operands)?;
    builder.bind(operands.y)
}

/// What a problem must give, for the first and the last sample of its batch, and how far each
/// output may be from that.
pub(super) struct Yardstick {
    operands: Operands<Tensor>,
    samples: Vec<usize>,
    y: Vec<f32>,
    tolerance: Vec<f64>,
}

impl Yardstick {
    /// Computes it with `conv_direct` in f32, and holds that against the f64 reference.
    pub(super) fn new(context: &Context, problem: &Problem) -> Result<Self> {
        let output = problem.geometry.output_size(problem.input)?;
        let numbers = Numbers::new(problem, output);
        let operands = numbers.upload(context, problem, output)?;
        let last = problem.batch - 1;
        let samples = if last == 0 { vec![0] } else { vec![0, last] };
        let few = Problem {
            batch: samples.len(),
            elems: [Elem::F32; 2],
            algorithm: Algorithm::ConvDirect,
            ..*problem
        };
        let exact = numbers.samples(problem.batch, &samples);
        let compute = |numbers: &Numbers| {
            let operands = numbers.upload(context, &few, output)?;
            run(context, &bind_plan(context, Plan::new(&few, context.caps())?, &operands)?)
        };
        let y = compute(&exact)?;
        // The same sums without a sign: what the rounding error of any order of summation grows
        // with.
        let magnitude = compute(&exact.magnitudes())?;
        let tolerance: Vec<f64> =
            magnitude.iter().map(|&sum| bound(problem) * f64::from(sum)).collect();
        check_some(&few, &exact, output, &y, &tolerance)?;
        Ok(Self { operands, samples, y, tolerance })
    }

    /// Binds a plan of the problem to the same operands.
    pub(super) fn bind(&self, context: &Context, plan: Plan) -> Result<Bound> {
        bind_plan(context, plan, &self.operands)
    }

    /// Runs it, and compares every output of the first and the last sample.
    ///
    /// # Errors
    /// [`Error::Wrong`] for the first output that is too far from what it must be.
    pub(super) fn check(&self, context: &Context, bound: &Bound) -> Result<()> {
        let elem = bound.output().elem();
        // What a kernel leaves out must not be there from the one before it.
        bound.output().write(context, &vec![f32::NAN; bound.output().len()])?;
        let found = run(context, bound)?;
        let sample = self.y.len() / self.samples.len();
        let places = self.samples.iter().flat_map(|first| first * sample..(first + 1) * sample);
        let kernel = bound.steps().last().map_or("", |step| step.dispatch().variant.kernel.name());
        for ((output, &expected), &tolerance) in places.zip(&self.y).zip(&self.tolerance) {
            let expected = f64::from(expected);
            check(kernel, output, found[output], expected, tolerance + rounding(elem, expected))?;
        }
        Ok(())
    }
}

/// Half a unit in the last place of what is stored, and as much again for sums that round to the
/// other side.
fn rounding(elem: Elem, value: f64) -> f64 {
    if elem == Elem::F32 { 0.0 } else { value.abs() * 2.0_f64.powi(-10) + 2.0_f64.powi(-24) }
}

/// What two sums of the same terms in any orders may differ by, relative to the sum of their
/// magnitudes: each is off by as many roundings as it has terms, mixing and gains included (Higham,
/// "Accuracy and Stability of Numerical Algorithms", 2002, section 4.2).
fn bound(problem: &Problem) -> f64 {
    let g = &problem.geometry;
    let products = g.c_in / g.groups * g.taps();
    let terms = match problem.attention {
        AttentionSource::Map(_) => products.saturating_mul(g.kernels),
        _ => products.saturating_add(g.kernels),
    };
    let terms = terms.saturating_add(8);
    let roundings = terms as f64 * 2.0_f64.powi(-24);
    2.0 * roundings / (1.0 - roundings.min(0.5))
}

fn check(kernel: &str, output: usize, found: f32, expected: f64, tolerance: f64) -> Result<()> {
    let found = f64::from(found);
    // A comparison with what is not a number is false.
    if (found - expected).abs() <= tolerance {
        return Ok(());
    }
    Err(Error::Wrong { kernel: kernel.into(), output, found, expected, tolerance })
}

fn run(context: &Context, bound: &Bound) -> Result<Vec<f32>> {
    context.submit("a kernel under test", |encoder| bound.record(encoder))?;
    bound.output().read_blocking(context)
}

/// Multiply-adds of the reference, and outputs that it computes at least.
const FEW_PRODUCTS: usize = 1 << 21;
const FEW_OUTPUTS: usize = 64;

/// Compares some outputs of each sample with the reference: the first, the last, and others
/// anywhere.
fn check_some(
    problem: &Problem,
    numbers: &Numbers,
    output: [usize; 3],
    y: &[f32],
    tolerance: &[f64],
) -> Result<()> {
    let g = &problem.geometry;
    let positions = output.iter().product::<usize>();
    let outputs = g.c_out * positions;
    let products = (g.c_in / g.groups * g.taps()).saturating_mul(g.kernels);
    let count = (FEW_PRODUCTS / products).max(FEW_OUTPUTS).min(outputs);
    let mut noise = Noise(2);
    for sample in 0..problem.batch {
        let truth = Truth::new(problem, &numbers.samples(problem.batch, &[sample]), output);
        for turn in 0..count {
            let (channel, position) = match turn {
                0 => (0, 0),
                1 => (g.c_out - 1, positions - 1),
                _ => (below(&mut noise, g.c_out), below(&mut noise, positions)),
            };
            let place = reference::element(
                problem.layouts[1],
                [sample, channel, position],
                g.c_out,
                positions,
            );
            check("conv_direct", place, y[place], truth.at(channel, position), tolerance[place])?;
        }
    }
    Ok(())
}

fn below(noise: &mut Noise, limit: usize) -> usize {
    usize::try_from(noise.next()).unwrap_or(0) % limit
}

/// One sample in f64: kernels that are convolved with, and where there is a map, what each counts
/// at every position.
struct Truth<'a> {
    problem: &'a Problem,
    output: [usize; 3],
    x: Vec<f64>,
    given: Vec<f64>,
    rows: Vec<f64>,
}

impl<'a> Truth<'a> {
    fn new(problem: &'a Problem, sample: &Numbers, output: [usize; 3]) -> Self {
        let g = &problem.geometry;
        let [x, bank, bias, given] =
            [&sample.x, &sample.bank, &sample.bias, &sample.given].map(|v| widen(v));
        let rows = match problem.attention {
            AttentionSource::SampleWeights => given.clone(),
            _ if problem.shares_kernel() => {
                let biases =
                    |k: usize| bias.get(k * g.c_out..(k + 1) * g.c_out).unwrap_or_default();
                bank.chunks_exact(g.weights())
                    .enumerate()
                    .flat_map(|(k, kernel)| [kernel, biases(k)].concat())
                    .collect()
            }
            _ => {
                let bias = problem.has_bias.then_some(&bias[..]);
                aggregate::aggregate(g, &bank, bias, &given, problem.attention_row(), 1)
            }
        };
        Self { problem, output, x, given, rows }
    }

    fn at(&self, channel: usize, position: usize) -> f64 {
        let g = &self.problem.geometry;
        let row = g.weights() + if self.problem.has_bias { g.c_out } else { 0 };
        let size = self.problem.map_size(self.output);
        let kernels = self.rows.chunks_exact(row).enumerate();
        kernels
            .map(|(k, row)| {
                self.share(k, size, position) * self.convolved(g, row, channel, position)
            })
            .sum()
    }

    /// What a kernel counts at a position.
    fn share(&self, kernel: usize, size: usize, position: usize) -> f64 {
        match self.problem.attention {
            AttentionSource::Map(axis) => {
                self.given[kernel * size + reference::map_place(axis, self.output, position)]
            }
            _ => 1.0,
        }
    }

    fn convolved(&self, geometry: &Geometry, row: &[f64], channel: usize, position: usize) -> f64 {
        let is_shared = self.problem.shares_kernel() && !self.given.is_empty();
        let conv = Conv {
            geometry,
            batch: 1,
            input: self.problem.input,
            output: self.output,
            x: &self.x,
            rows: row,
            row_stride: 0,
            has_bias: self.problem.has_bias,
            gains: is_shared.then_some((&self.given, self.problem.attention_row())),
            affine: None,
            residual: None,
            activation: Activation::None,
            layouts: [self.problem.layouts[0], Layout::ChannelsFirst],
        };
        conv_direct::output_at(&conv, 0, channel, position)
    }
}
