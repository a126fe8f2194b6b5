//! Laws that every problem must keep, on every device.
//!
//! Each law runs a problem and its relatives and compares results with the reference or with each
//! other. Most compare bits: where numbers are small integers, every order of summation gives the
//! same; where two runs differ only in what must not matter, rounding is the same too.

mod batch;
mod extremes;
mod moved;
mod structure;
mod sums;
mod truth;

pub(crate) use moved::elsewhere;
pub use structure::choices;

use dynconv::Algorithm;
use dynconv::problem::Pooling;
use dynconv::{Context, Elem, Winograd};

use crate::data::{Data, Numbers};
use crate::run::{self, Fault, Output};
use crate::spec::{Family, Limits, Spec};

/// A law.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// Its name, one word.
    pub name: &'static str,
    /// What it says.
    pub says: &'static str,
    /// Whether it says anything about a problem.
    pub applies: fn(&Spec) -> bool,
    check: fn(&Trial<'_>) -> Result<(), Fault>,
}

/// All laws, the cheapest first.
pub const LAWS: [Law; 22] = [
    Law {
        name: "exact",
        says: "integers give the reference's bits",
        applies: is_exact,
        check: truth::exact,
    },
    Law {
        name: "bound",
        says: "fractions stay within the derived bound of f64",
        applies: |_| true,
        check: truth::bound,
    },
    Law {
        name: "attention",
        says: "the attention is the reference's",
        applies: |spec| spec.family.has_branch(),
        check: truth::attention,
    },
    Law {
        name: "twin",
        says: "the error is at most twice that of a plain sum in f32",
        applies: truth::has_twin,
        check: truth::twin,
    },
    Law {
        name: "repeat",
        says: "the same run again gives the same bits",
        applies: |_| true,
        check: batch::repeat,
    },
    Law {
        name: "moved",
        says: "operands may lie anywhere, and nothing beside them is read or written",
        applies: |_| true,
        check: moved::moved,
    },
    Law {
        name: "independent",
        says: "changing one sample leaves the bits of the others",
        applies: |spec| spec.batch > 1,
        check: batch::independent,
    },
    Law {
        name: "permute",
        says: "samples in another order give the same bits in that order",
        applies: |spec| spec.batch > 1,
        check: batch::permute,
    },
    Law {
        name: "split",
        says: "a batch gives the bits of its samples one by one",
        applies: |spec| spec.batch > 1,
        check: batch::split,
    },
    Law {
        name: "one-hot",
        says: "one-hot attention is the static convolution",
        applies: mixes,
        check: sums::one_hot,
    },
    Law {
        name: "uniform",
        says: "even attention is the static convolution with the mean kernel",
        applies: |spec| mixes(spec) && is_exact(spec) && spec.kernels.is_power_of_two(),
        check: sums::uniform,
    },
    Law {
        name: "linear-x",
        says: "linear in the input",
        applies: is_linear,
        check: sums::linear_in_input,
    },
    Law {
        name: "linear-bank",
        says: "linear in the kernels",
        applies: |spec| is_linear(spec) && spec.family != Family::PerSample,
        check: sums::linear_in_bank,
    },
    Law {
        name: "linear-attention",
        says: "linear in what the caller mixes or gives",
        applies: |spec| is_linear(spec) && spec.family != Family::Static,
        check: sums::linear_in_given,
    },
    Law {
        name: "translate",
        says: "a shifted input gives a shifted interior",
        applies: structure::can_translate,
        check: structure::translate,
    },
    Law {
        name: "blocks",
        says: "groups are a block-diagonal dense convolution",
        applies: structure::has_blocks,
        check: structure::blocks,
    },
    Law {
        name: "kernels",
        says: "all convolution kernels give the same bits on integers",
        applies: structure::has_choices,
        check: structure::kernels,
    },
    Law {
        name: "adjoint",
        says: "<A x, y> = <x, transposed A y>",
        applies: structure::has_adjoint,
        check: structure::adjoint,
    },
    Law {
        name: "not-finite",
        says: "NaN and infinities come out where the formula has them, and nowhere else",
        applies: |_| true,
        check: extremes::not_finite,
    },
    Law {
        name: "scaled",
        says: "styles and weights times powers of two give the same bits, demodulated",
        applies: extremes::is_demodulated,
        check: extremes::scaled,
    },
    Law {
        name: "cold",
        says: "large logits at a low temperature make gains of 0 or 1, the largest takes its \
               kernel alone, and no output is NaN",
        applies: extremes::has_softmax,
        check: extremes::cold,
    },
    Law {
        name: "empty",
        says: "an empty batch gives an empty output; an empty axis, channel or bank is refused, \
               and named",
        applies: |_| true,
        check: structure::empty,
    },
];

impl Law {
    /// The law of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        LAWS.iter().find(|law| law.name == name)
    }

    /// Whether a problem keeps the law.
    ///
    /// # Errors
    /// [`Fault`] if it does not, or cannot run.
    pub fn check(&self, context: &Context, spec: &Spec) -> Result<(), Fault> {
        (self.check)(&Trial { context, spec })
    }
}

/// A problem on a device.
struct Trial<'a> {
    context: &'a Context,
    spec: &'a Spec,
}

impl Trial<'_> {
    fn data(&self, numbers: Numbers) -> Result<Data, Fault> {
        Ok(Data::new(self.spec, numbers)?)
    }

    fn run(&self, spec: &Spec, data: &Data) -> Result<Output, Fault> {
        run::run(self.context, spec, data)
    }

    fn y(&self, data: &Data) -> Result<Vec<f32>, Fault> {
        Ok(self.run(self.spec, data)?.y)
    }
}

/// The first place where two results differ in a bit other than the sign of a zero, which WGSL lets
/// implementations ignore (section 15.7.2, "Differences from IEEE-754").
fn same_bits(what: &str, found: &[f32], expected: &[f32]) -> Result<(), Fault> {
    if found.len() != expected.len() {
        return Err(Fault::Wrong(format!(
            "{what}: {} elements, expected {}",
            found.len(),
            expected.len()
        )));
    }
    let wrong: Vec<usize> =
        (0..found.len()).filter(|&i| bits(found[i]) != bits(expected[i])).collect();
    match wrong.first() {
        None => Ok(()),
        Some(&i) => Err(Fault::Wrong(format!(
            "{what}: element {i} is {}, expected {} ({} of {} elements differ)",
            found[i],
            expected[i],
            wrong.len(),
            found.len()
        ))),
    }
}

/// The bits of a number; of a zero, those of the positive one.
fn bits(value: f32) -> u32 {
    if value == 0.0 { 0 } else { value.to_bits() }
}

/// Whether the caller mixes a bank.
fn mixes(spec: &Spec) -> bool {
    matches!(spec.family, Family::Bank | Family::Map(_)) && (is_exact(spec) || keeps_order(spec))
}

/// Whether relatives of a problem sum in the same order: neither the planner's choice nor the parts
/// of a sum differ.
fn keeps_order(spec: &Spec) -> bool {
    spec.conv != Algorithm::Auto && spec.limits != Limits::Short
}

/// Largest magnitude that integer data can reach before the activation.
fn largest_integer(spec: &Spec) -> usize {
    if spec.family.has_no_kernel() {
        // Two lines of integers up to 4 and 2, times two gains, and a residual.
        return 64;
    }
    let mixing = if spec.family.has_bank() { 2 * spec.kernels } else { 1 };
    let weight = if spec.family == Family::PerSample { 2 } else { 3 };
    let taps: usize = spec.kernel.iter().product();
    let sum = 4 * weight * mixing * (spec.channels[0] / spec.groups.max(1)) * taps;
    // Tiles of inputs are up to 4 times as large, kernels 9 quarters, outputs 9 times; and
    // everything counts in quarters.
    let sum = if spec.winograd.is_some() { 36 * sum } else { sum };
    let biased = sum + if spec.bias { 9 * mixing } else { 0 };
    let scaled = if spec.affine { 2 * biased + 5 } else { biased };
    scaled + if spec.residual { 9 } else { 0 }
}

/// Whether integer data stays exact to the end, with room for the sum of two such problems.
fn is_exact(spec: &Spec) -> bool {
    let largest = largest_integer(spec);
    let squared = matches!(spec.activation, dynconv::Activation::StarRelu { .. });
    // Two binary places are for quarters: of a slope, of even attention.
    let room = match spec.elems[1] {
        Elem::F32 => 1 << 20,
        _ => 1 << 7,
    };
    // Its kernels are thirds and more.
    let is_thirds = spec.winograd == Some(Winograd::F4) || !spec.conv.sums_plainly();
    let is_mean = match spec.family {
        Family::Pool(pooling) => pooling != Pooling::Max,
        Family::Op(op) => !op.is_exact(),
        _ => false,
    };
    !is_thirds
        && !is_mean
        && spec.family.is_given()
        && spec.is_exact()
        && largest < room
        && (!squared || largest * largest < room)
}

/// Whether sums of outputs are outputs of sums, exactly.
fn is_linear(spec: &Spec) -> bool {
    is_exact(spec) && !spec.family.has_no_kernel() && spec.is_linear() && spec.elems[1] == Elem::F32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_differ_but_for_the_sign_of_a_zero() {
        assert!(same_bits("y", &[0.0, -1.0, f32::NAN], &[-0.0, -1.0, f32::NAN]).is_ok());
        let message = |found: &[f32], expected: &[f32]| {
            same_bits("y", found, expected).expect_err("differ").to_string()
        };
        assert_eq!(
            message(&[1.0, 2.0], &[1.0, 2.000_000_2]),
            "y: element 1 is 2, expected 2.0000002 (1 of 2 elements differ)"
        );
        assert_eq!(
            message(&[f32::NAN], &[0.0]),
            "y: element 0 is NaN, expected 0 (1 of 1 elements differ)"
        );
        assert_eq!(message(&[1.0], &[]), "y: 1 elements, expected 0");
    }
}
