//! The numbers of a problem, all of them following from its seed.

use dynconv::problem::MapAxis;
use dynconv::problem::{Cells, Geometry};
use dynconv::{
    CondConvWeights, DcdWeights, DyCnnWeights, Elem, FdyWeights, KernelWarehouseWeights, Linear,
    OdWeights, PixelMixWeights,
};

use crate::noise::Noise;
use crate::spec::{Family, Spec};
use crate::weights;

/// What the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Small integers: sums of them are exact in f32, in any order.
    Integers,
    /// Fractions in [-1, 1).
    Floats,
}

/// Operands of a layer on the host. What an element type cannot hold is rounded to it already.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Input.
    pub x: Vec<f32>,
    /// What the caller gives beside: attention, map, kernels or style; empty where there is
    /// nothing.
    pub given: Vec<f32>,
    /// Kernel bank in the published order; cells of a warehouse; empty where the caller gives
    /// kernels.
    pub bank: Vec<f32>,
    /// Bias bank.
    pub bias: Option<Vec<f32>>,
    /// Scale and shift.
    pub affine: Option<[Vec<f32>; 2]>,
    /// Residual.
    pub residual: Option<Vec<f32>>,
    /// Divides the logits.
    pub temperature: f32,
    /// Multiplies what makes the logits.
    pub heads: f32,
}

impl Data {
    /// No numbers, for those who look at a problem's sizes alone.
    #[must_use]
    pub fn none() -> Self {
        Self {
            x: vec![],
            given: vec![],
            bank: vec![],
            bias: None,
            affine: None,
            residual: None,
            temperature: 1.0,
            heads: 1.0,
        }
    }

    /// The numbers of a problem.
    ///
    /// # Errors
    /// As [`Spec::geometry`], and as [`output_size`](dynconv::problem::Geometry::output_size).
    pub fn new(spec: &Spec, numbers: Numbers) -> dynconv::Result<Self> {
        let g = spec.geometry()?;
        let output = g.output_size(spec.input3())?;
        let mut noise = Noise::new(spec.seed);
        let mut take = |len: usize, limit: i32| match numbers {
            Numbers::Integers => noise.integers(len, limit),
            Numbers::Floats => noise.floats(len),
        };
        let bank = match spec.family {
            Family::PerSample | Family::Pool(_) | Family::Op(_) => 0,
            Family::Warehouse => {
                let cells = cells(spec, &g);
                cells.count * cells.elements()
            }
            _ => g.kernels * g.weights(),
        };
        let biases = if spec.family == Family::Warehouse { g.c_out } else { g.kernels * g.c_out };
        let outputs = spec.batch * g.c_out * output.iter().product::<usize>();
        let mut data = Self {
            x: take(spec.batch * g.c_in * spec.input.iter().product::<usize>(), 4),
            given: take(spec.batch * given_len(spec, &g, output)?, 2),
            bank: take(bank, 3),
            bias: spec.bias.then(|| take(biases, 9)),
            affine: spec.affine.then(|| [take(g.c_out, 2), take(g.c_out, 5)]),
            residual: spec.residual.then(|| take(outputs, 9)),
            temperature: Self::temperature(spec),
            heads: 1.0,
        };
        data.round(spec);
        Ok(data)
    }

    /// Rounds every operand to its element type.
    fn round(&mut self, spec: &Spec) {
        let [input, output, bank] = spec.elems;
        round(&mut self.x, input);
        round(&mut self.bank, bank);
        if let Some(residual) = &mut self.residual {
            round(residual, output);
        }
    }

    /// What the caller gives, and the bank, times these powers of two.
    #[must_use]
    pub(crate) fn scaled(mut self, given: i32, bank: i32) -> Self {
        self.given.iter_mut().for_each(|value| *value *= 2.0_f32.powi(given));
        self.bank.iter_mut().for_each(|value| *value *= 2.0_f32.powi(bank));
        self
    }

    /// With weights as matrices of f16 hold them: larger ones count as the largest.
    #[must_use]
    pub(crate) fn with_f16_weights(mut self) -> Self {
        self.bank.iter_mut().for_each(|weight| *weight = weight.clamp(-65_504.0, 65_504.0));
        self
    }

    /// Sample `b` alone.
    #[must_use]
    pub fn sample(&self, spec: &Spec, b: usize) -> Self {
        let part = |values: &[f32]| {
            let len = values.len() / spec.batch;
            values[b * len..(b + 1) * len].to_vec()
        };
        Self {
            x: part(&self.x),
            given: part(&self.given),
            residual: self.residual.as_deref().map(part),
            ..self.clone()
        }
    }
}

/// Elements of what the caller gives for one sample.
fn given_len(spec: &Spec, g: &Geometry, output: [usize; 3]) -> dynconv::Result<usize> {
    Ok(match spec.family {
        Family::Bank => g.kernels,
        Family::Map(MapAxis::All) => g.kernels * output.iter().product::<usize>(),
        Family::Map(MapAxis::One(axis)) => g.kernels * output[axis.min(2)],
        Family::PerSample => g.weights(),
        Family::Modulated | Family::Styled => g.c_in,
        Family::Contextual => CONTEXT,
        Family::Op(_) => {
            let given = given_shapes(spec)?;
            given.iter().map(|(_, shape)| shape[1..].iter().product::<usize>()).sum()
        }
        _ => 0,
    })
}

/// Width of the context of the suite's layers.
pub(crate) const CONTEXT: usize = 7;

/// Names and shapes of what a layer that convolves nothing is given, in order.
pub(crate) fn given_shapes(spec: &Spec) -> dynconv::Result<Vec<(&'static str, Vec<usize>)>> {
    let Family::Op(op) = spec.family else { return Ok(Vec::new()) };
    let (layer, shape) = op.planned(spec)?;
    layer.given(&shape)
}

/// Rounds to what an element type can hold.
pub fn round(values: &mut [f32], elem: Elem) {
    for value in values {
        *value = match elem {
            Elem::F16 | Elem::F16Storage => half::f16::from_f32(*value).to_f32(),
            Elem::Bf16Storage => half::bf16::from_f32(*value).to_f32(),
            _ => *value,
        };
    }
}

/// Cells of a warehouse that fit a layer: the seed decides how large they are.
#[must_use]
pub fn cells(spec: &Spec, g: &Geometry) -> Cells {
    let divisor = |whole: usize, pick: u64| {
        let divisors: Vec<usize> = (1..=whole).filter(|n| whole.is_multiple_of(*n)).collect();
        divisors[usize::try_from(pick % divisors.len() as u64).unwrap_or(0)]
    };
    let taps = if spec.seed.is_multiple_of(2) { g.taps() } else { 1 };
    Cells {
        count: spec.kernels,
        c_out: divisor(g.c_out, spec.seed / 2),
        c_in: divisor(g.c_in / g.groups, spec.seed / 3),
        taps,
    }
}

/// Weights of the branches that layers compute their attention with. Banks and biases are those of
/// the data.
impl Data {
    fn branch_noise(spec: &Spec) -> Noise {
        Noise::new(spec.seed ^ 0x5bd1_e995)
    }

    /// Divides the logits. The last makes them so large that a softmax which does not subtract the
    /// largest overflows.
    #[must_use]
    pub fn temperature(spec: &Spec) -> f32 {
        [1.0, 4.0, 0.5, 0.002][usize::try_from(spec.seed % 4).unwrap_or(0)]
    }

    fn multiply(&self, values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value *= self.heads);
    }

    fn multiply_head(&self, head: &mut Linear) {
        self.multiply(&mut head.weight);
        self.multiply(&mut head.bias);
    }

    /// DY-CNN.
    #[must_use]
    pub fn dy_cnn(&self, spec: &Spec, g: &Geometry) -> DyCnnWeights {
        let mut weights =
            weights::dy_cnn(&mut Self::branch_noise(spec), g, [false, spec.seed.is_multiple_of(2)]);
        self.multiply(&mut weights.head);
        weights.head_bias.iter_mut().for_each(|bias| self.multiply(bias));
        DyCnnWeights { bank: self.bank.clone(), bias: self.bias.clone(), ..weights }
    }

    /// ODConv, for some seeds without the gains of channels.
    #[must_use]
    pub fn od_conv(&self, spec: &Spec, g: &Geometry) -> OdWeights {
        let mut weights = weights::od_conv(&mut Self::branch_noise(spec), g);
        // Published layers have these; others need not.
        if spec.seed % 50 == 49 {
            weights.channel_head = None;
        }
        let heads = [
            &mut weights.channel_head,
            &mut weights.filter_head,
            &mut weights.tap_head,
            &mut weights.kernel_head,
        ];
        heads.into_iter().flatten().for_each(|head| self.multiply_head(head));
        OdWeights { bank: self.bank.clone(), ..weights }
    }

    /// The head on a context.
    #[must_use]
    pub fn context_head(&self, spec: &Spec, g: &Geometry) -> Linear {
        let noise = &mut Self::branch_noise(spec);
        let mut head =
            Linear { weight: noise.floats(g.kernels * CONTEXT), bias: noise.floats(g.kernels) };
        self.multiply_head(&mut head);
        head
    }

    /// CondConv.
    #[must_use]
    pub fn cond_conv(&self, spec: &Spec, g: &Geometry) -> CondConvWeights {
        let weights = weights::cond_conv(&mut Self::branch_noise(spec), g, false);
        CondConvWeights { bank: self.bank.clone(), bias: self.bias.clone(), ..weights }
    }

    /// KernelWarehouse.
    #[must_use]
    pub fn warehouse(&self, spec: &Spec, g: &Geometry) -> KernelWarehouseWeights {
        let mut weights =
            weights::kernel_warehouse(&mut Self::branch_noise(spec), g, cells(spec, g), false);
        self.multiply_head(&mut weights.head);
        KernelWarehouseWeights { bias: self.bias.clone(), ..weights }
    }

    /// Pixel mixture.
    #[must_use]
    pub fn pixel_mix(&self, spec: &Spec, g: &Geometry) -> PixelMixWeights {
        let mut weights = weights::pixel_mix(&mut Self::branch_noise(spec), g, false);
        self.multiply_head(&mut weights.head);
        PixelMixWeights { bank: self.bank.clone(), bias: self.bias.clone(), ..weights }
    }

    /// Dynamic channel fusion; its bank is the static kernel. The seed decides how it pools.
    #[must_use]
    pub fn dcd(&self, spec: &Spec, g: &Geometry) -> DcdWeights {
        let cells = if spec.seed.is_multiple_of(2) { 1 } else { 2 };
        let weights = weights::dcd(&mut Self::branch_noise(spec), g, cells);
        DcdWeights { conv: self.bank.clone(), ..weights }
    }

    /// Frequency dynamic convolution.
    #[must_use]
    pub fn fdy(&self, spec: &Spec, g: &Geometry) -> FdyWeights {
        let mut weights = weights::fdy(&mut Self::branch_noise(spec), g, false);
        self.multiply_head(&mut weights.head);
        FdyWeights { bank: self.bank.clone(), bias: self.bias.clone(), ..weights }
    }
}
