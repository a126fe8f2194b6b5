//! What rounding costs a network, from its own formulas: what its outputs are held to.

use anyhow::Result;
use dynconv::device::Builder;
use dynconv::layers::{AnyLayer, Io};
use dynconv::{Elem, Tensor};
use dynconv_nets::Network;

/// What f32 costs PyTorch in the worst of the golden networks, of the largest value.
const COST: f64 = 1.8e-5;

/// Outputs of a network in f64, by its formulas alone.
pub(crate) struct Truth {
    pub(crate) outputs: Vec<f64>,
    /// The same, every value rounded as tensors of its element type are.
    pub(crate) rounded: Vec<f64>,
}

impl Truth {
    pub(crate) fn of(network: &Network, x: &Tensor) -> Result<Self> {
        let mut builder = Builder::new(network.context());
        let input = builder.tensor("input", x);
        let shape = network.output_shape(x.shape())?;
        let y = builder.external("output", &shape, network.output_elem(x.elem()));
        builder.layer_into(network, Io::new(input, y))?;
        Ok(Self { outputs: builder.reference(y)?, rounded: builder.rounded_reference(y)? })
    }

    /// The same after what follows the network.
    pub(crate) fn map(self, finished: impl Fn(Vec<f64>) -> Vec<f64>) -> Self {
        Self { outputs: finished(self.outputs), rounded: finished(self.rounded) }
    }

    /// Largest error that rounding explains, of the largest value, in tensors of this element type.
    pub(crate) fn tolerance(&self, elem: Elem) -> f64 {
        tolerance(elem, error(&self.rounded, &self.outputs))
    }
}

/// Largest error that rounding explains, of the largest value, where storing what each operation
/// computes costs `stored`.
///
/// * f32: sums cost more. PyTorch's error in the golden networks is 6 to 18 times `stored`: ten
///   times that, and at least ten times [`COST`].
/// * f16: sums are in f32, so that storing is all. A device rounds other numbers than the
///   reference, in the same way: four times as much.
fn tolerance(elem: Elem, stored: f64) -> f64 {
    match elem {
        Elem::F32 => (10.0 * COST).max(100.0 * stored),
        _ => 4.0 * stored,
    }
}

/// Largest error, relative to the largest value; NaN is infinite.
pub(crate) fn error(found: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let errors = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / largest);
    errors.fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
}
