//! Which convolution kernel runs.

use crate::caps::Caps;
use crate::kernels::{CONVOLUTIONS, Convolution, Kernel};
use crate::problem::Problem;

/// The kernel that a problem asks for, or else the first that accepts the problem and suits it; and
/// why.
pub(super) fn choose(problem: &Problem, output: [usize; 3], caps: &Caps) -> (Kernel, String) {
    if let Some(kernel) = problem.algorithm.kernel() {
        return (kernel, "asked for".into());
    }
    let first = CONVOLUTIONS.iter().find_map(|Convolution { kernel, conv, .. }| {
        conv.accepts(problem, output).ok()?;
        conv.suits(problem, output, caps).map(|why| (*kernel, why))
    });
    first.expect("conv_tiled accepts every problem and suits it")
}
