//! Nothing is timed before its result was held against the f64 reference.

use dynconv_suite::data::Data;
use dynconv_suite::run::Output;
use dynconv_suite::spec::Spec;
use dynconv_suite::truth::{Truth, attention, attention_tolerance, truth};

use crate::error::{Error, Result};

/// Past this many multiply-adds a sample, one sample has to do: the reference is one thread in f64.
const MOST_PRODUCTS: u64 = 150_000_000;

/// How far a result is from the reference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verified {
    /// The largest difference, relative to the largest output.
    pub error: f64,
    /// The largest difference relative to the error bound of that very output; 1 would be on the
    /// edge.
    pub of_bound: f64,
}

/// Knows what a problem must give, for some samples of its batch; all their outputs are compared.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    spec: &'a Spec,
    data: &'a Data,
    samples: Vec<usize>,
    /// For each of the samples, the attention that the device had computed and the truth that
    /// follows from it.
    known: Vec<Option<(Vec<f32>, Truth)>>,
}

impl<'a> Judge<'a> {
    /// A judge of the first and the last sample of the batch, or of the last alone if they are
    /// large or it has to be quick.
    pub(crate) fn new(spec: &'a Spec, data: &'a Data, flops: u64, quick: bool) -> Self {
        let last = spec.batch - 1;
        let is_large = flops / 2 / spec.batch as u64 > MOST_PRODUCTS;
        let samples = if is_large || quick || last == 0 { vec![last] } else { vec![0, last] };
        let known = samples.iter().map(|_| None).collect();
        Self { spec, data, samples, known }
    }

    /// What is compared, in words.
    pub(crate) fn compares(&self) -> String {
        let samples =
            self.samples.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        format!("all outputs of sample {samples} of {}", self.spec.batch)
    }

    /// Compares a result.
    ///
    /// # Errors
    /// A wrong result, named `what`, with the output that is farthest from its bound.
    pub(crate) fn check(&mut self, what: &str, found: &Output) -> Result<Verified> {
        let mut all = Verified { error: 0.0, of_bound: 0.0 };
        for (place, &sample) in self.samples.iter().enumerate() {
            let rows = found
                .attention
                .as_deref()
                .map_or(&[][..], |rows| part(rows, self.spec.batch, sample));
            if self.known[place].as_ref().is_none_or(|(known, _)| known != rows) {
                self.known[place] = Some((rows.to_vec(), self.truth(sample, rows)?));
            }
            let Some((_, truth)) = &self.known[place] else { continue };
            let one = compare(truth, part(&found.y, self.spec.batch, sample));
            // A comparison with what is not a number is false.
            if !matches!(one.of_bound, 0.0..=1.0) {
                let Verified { error, of_bound } = one;
                return Err(Error::wrong(format!(
                    "{what} of {}: sample {sample} is off by {error:.1e} of the largest output, \
                     {of_bound:.1} times the bound",
                    self.spec
                )));
            }
            all = Verified {
                error: all.error.max(one.error),
                of_bound: all.of_bound.max(one.of_bound),
            };
        }
        Ok(all)
    }

    /// The truth of one sample. Attention that the device computed is checked, and then given: its
    /// rounding is its own.
    fn truth(&self, sample: usize, rows: &[f32]) -> Result<Truth> {
        let (spec, data) = (self.spec.single(), self.data.sample(self.spec, sample));
        if rows.is_empty() {
            return Ok(truth(&spec, &data, None)?);
        }
        let expected = attention(&spec, &data)?.unwrap_or_default();
        let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        let error =
            expected.iter().zip(rows).map(|(&a, &b)| (a - f64::from(b)).abs()).fold(0.0, worst);
        // A comparison with what is not a number is false.
        let is_right =
            expected.len() == rows.len() && error <= attention_tolerance(&spec) * largest;
        if !is_right {
            return Err(Error::wrong(format!(
                "attention of {spec}: sample {sample} is off by {error:.1e}"
            )));
        }
        Ok(truth(&spec, &data, Some(rows))?)
    }
}

/// The larger; what is not a number is the largest.
fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn part(values: &[f32], batch: usize, sample: usize) -> &[f32] {
    let len = values.len() / batch;
    &values[sample * len..(sample + 1) * len]
}

fn compare(truth: &Truth, found: &[f32]) -> Verified {
    if found.len() != truth.y.len() {
        return Verified { error: f64::INFINITY, of_bound: f64::INFINITY };
    }
    let largest = truth.y.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let errors = || truth.y.iter().zip(found).map(|(&y, &found)| (y - f64::from(found)).abs());
    Verified {
        error: errors().fold(0.0, worst) / largest,
        of_bound: errors()
            .zip(&truth.tolerance)
            .map(|(error, bound)| error / bound)
            .fold(0.0, worst),
    }
}

#[cfg(test)]
mod tests {
    use dynconv::reference::narrow;
    use dynconv_suite::data::Numbers;

    use super::*;

    #[test]
    fn one_wrong_output_is_found() {
        let spec: Spec =
            "bank batch=3 channels=2x3 input=4x5 kernel=3x3 kernels=2".parse().expect("parses");
        let data = Data::new(&spec, Numbers::Floats).expect("is possible");
        let y = narrow(&truth(&spec, &data, None).expect("is possible").y);
        let mut judge = Judge::new(&spec, &data, 1000, false);
        assert_eq!(judge.compares(), "all outputs of sample 0 and 2 of 3");
        let verified =
            judge.check("it", &Output { y: y.clone(), attention: None }).expect("is right");
        assert!(verified.error < 1e-6 && verified.of_bound < 1.0, "{verified:?}");
        for wrong in [f32::NAN, y[y.len() - 1] + 1e-3] {
            let mut y = y.clone();
            *y.last_mut().expect("has outputs") = wrong;
            let error = judge
                .check("it", &Output { y, attention: None })
                .expect_err("is wrong")
                .to_string();
            assert!(error.contains("sample 2 is off by "), "{error}");
        }
    }
}
