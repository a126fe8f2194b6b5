//! A problem's run as plain data, and what it must give: what browsers, an interpreter and whoever
//! gets a report are held to.

use std::borrow::Cow;

use dynconv::Algorithm;
use dynconv::{Activation, Context, Elem};
use serde::{Deserialize, Serialize};

use crate::cases::is_filtered;
use crate::catalogue::LineError;
use crate::data::{Data, Numbers};
use crate::laws::{Law, elsewhere};
use crate::replay::{RecordError, Replay, ReplayError, numbers_in_base64};
use crate::run::{Fault, Prepared};
use crate::spec::Spec;
use crate::strain::strained;
use crate::truth::{self, attention_tolerance};

/// Why a problem cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// A line of the catalogue.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The library.
    #[error("{spec}: {fault}")]
    Fault {
        /// The problem.
        spec: Box<Spec>,
        /// What was wrong.
        fault: Fault,
    },
    /// The recording.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl RecordedError {
    pub(crate) fn of(spec: &Spec, fault: Fault) -> Self {
        Self::Fault { spec: Box::new(spec.clone()), fault }
    }
}

/// A run, and what it must give.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// Name in messages.
    pub name: String,
    /// What to do.
    pub replay: Replay,
    /// Value of every element of the output.
    #[serde(with = "numbers_in_base64")]
    pub expected: Vec<f64>,
    /// How far each element may be off; 0 asks for the very bits of the expected value.
    #[serde(with = "numbers_in_base64")]
    pub tolerance: Vec<f64>,
}

impl Recorded {
    /// A problem as it runs on a device like this one, which computes nothing: integers, to the
    /// bit, where they stay exact, otherwise fractions within their bound.
    pub(crate) fn on(context: &Context, spec: &Spec) -> Result<Self, RecordedError> {
        let (data, is_exact) = drawn(spec)?;
        Self::with(context, spec, &data, is_exact)
    }

    /// The same on fractions.
    pub(crate) fn with_fractions(context: &Context, spec: &Spec) -> Result<Self, RecordedError> {
        let data = Data::new(spec, Numbers::Floats)
            .map_err(|error| RecordedError::of(spec, error.into()))?;
        Self::with(context, spec, &data, false)
    }

    /// Whether a kernel of the problem may drop a NaN: in an activation, a hidden layer, an output
    /// in f16.
    fn may_drop_nan(spec: &Spec) -> bool {
        !is_filtered(spec)
            && (spec.activation != Activation::None
                || spec.family.has_branch()
                || spec.elems[1] != Elem::F32)
    }

    /// The same on fractions, with a NaN in the input; nothing where no kernel may drop a NaN.
    pub(crate) fn with_nan(context: &Context, spec: &Spec) -> Result<Option<Self>, RecordedError> {
        if !Self::may_drop_nan(spec) {
            return Ok(None);
        }
        let mut data = Data::new(spec, Numbers::Floats)
            .map_err(|error| RecordedError::of(spec, error.into()))?;
        let middle = data.x.len() / 2;
        if let Some(x) = data.x.get_mut(middle) {
            *x = f32::NAN;
        }
        let recorded = Self::with(context, spec, &data, false)?;
        Ok(Some(Self { name: format!("{spec} with NaN in the input"), ..recorded }))
    }

    /// The same on extreme numbers, if there are such for it.
    pub(crate) fn strained(context: &Context, spec: &Spec) -> Result<Vec<Self>, RecordedError> {
        let all = strained(spec).map_err(|error| RecordedError::of(spec, error.into()))?;
        let recorded = |(what, data): (&str, Data)| {
            Ok(Self {
                name: format!("{spec} with {what}"),
                ..Self::with(context, spec, &data, false)?
            })
        };
        all.into_iter().map(recorded).collect()
    }

    /// The same with these data. No adapter is needed: the noop device keeps buffers and computes
    /// nothing.
    pub(crate) fn with(
        context: &Context,
        spec: &Spec,
        data: &Data,
        is_exact: bool,
    ) -> Result<Self, RecordedError> {
        Self::prepared(context, spec, data, is_exact).map(|(recorded, _)| recorded)
    }

    /// The same with all operands at the end of larger buffers.
    pub(crate) fn elsewhere(context: &Context, spec: &Spec) -> Result<Self, RecordedError> {
        let (data, is_exact) = drawn(spec)?;
        let (recorded, prepared) = Self::prepared(context, spec, &data, is_exact)?;
        let replay = elsewhere(&prepared.bound, &recorded.replay, 0);
        Ok(Self { name: format!("{spec} with every operand moved"), replay, ..recorded })
    }

    fn prepared(
        context: &Context,
        spec: &Spec,
        data: &Data,
        is_exact: bool,
    ) -> Result<(Self, Prepared), RecordedError> {
        let fault = |fault| RecordedError::of(spec, fault);
        let prepared = Prepared::new(context, spec, data).map_err(fault)?;
        let (expected, tolerance) =
            expectation(spec, data, is_exact).map_err(|error| fault(error.into()))?;
        let replay = Replay::record(context, &prepared.bound, prepared.output())?;
        Ok((Self { name: spec.to_string(), replay, expected, tolerance }, prepared))
    }

    /// Runs it on a device: what is wrong with the output, if anything.
    ///
    /// # Errors
    /// [`ReplayError`] where nothing can be run.
    pub fn run(&self, context: &Context) -> Result<Option<String>, ReplayError> {
        let buffers = self.replay.run(context)?;
        Ok(self.first_wrong(self.replay.output_of(&buffers)))
    }

    /// The first element of an output that is wrong.
    #[must_use]
    pub fn first_wrong(&self, bytes: &[u8]) -> Option<String> {
        let found = self.replay.output.values(bytes);
        let len = self.expected.len();
        // An odd number of halves is followed by one that means nothing.
        let padding = usize::from(self.replay.output.is_half && len % 2 == 1);
        if found.len() != len + padding || self.tolerance.len() != len {
            let tolerances = self.tolerance.len();
            return Some(format!(
                "{} elements, expected {len} ({tolerances} tolerances)",
                found.len()
            ));
        }
        let elements = found.iter().zip(&self.expected).zip(&self.tolerance);
        let wrong = elements.enumerate().find(|(_, ((found, expected), tolerance))| {
            // NaN is within nothing but NaN.
            let is_right = match **tolerance {
                _ if expected.is_nan() => found.is_nan(),
                0.0 => found.to_bits() == expected.to_bits(),
                // No bound holds for an infinity, nor for what an activation makes of one.
                tolerance if !tolerance.is_finite() => *found == *expected,
                tolerance => (*found - *expected).abs() <= tolerance,
            };
            !is_right
        });
        wrong.map(|(i, ((found, expected), tolerance))| {
            format!("element {i} of {len} is {found}, expected {expected} within {tolerance:e}")
        })
    }
}

/// Integers where sums of them stay exact, which is said too; otherwise fractions.
fn drawn(spec: &Spec) -> Result<(Data, bool), RecordedError> {
    let is_exact = Law::find("exact").is_some_and(|law| (law.applies)(spec));
    let numbers = if is_exact { Numbers::Integers } else { Numbers::Floats };
    let data = Data::new(spec, numbers).map_err(|error| RecordedError::of(spec, error.into()))?;
    Ok((data, is_exact))
}

/// Expected values and tolerances. Attention that the browser computes is not read back, so its own
/// tolerance adds to the output's.
fn expectation(spec: &Spec, data: &Data, is_exact: bool) -> dynconv::Result<(Vec<f64>, Vec<f64>)> {
    let attention = truth::attention(spec, data)?.map(|values| dynconv::reference::narrow(&values));
    let rounds = spec.conv == Algorithm::ConvGemmCoopmat && spec.elems[0] != Elem::F32;
    let data =
        if rounds { Cow::Owned(data.clone().with_f16_weights()) } else { Cow::Borrowed(data) };
    let truth = truth::truth(spec, &data, attention.as_deref())?;
    let truth = if rounds { truth.in_halves(spec) } else { truth };
    if is_exact {
        let exact = vec![0.0; truth.y.len()];
        return Ok((truth.y, exact));
    }
    let largest = truth.y.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let of_attention = if attention.is_some() { attention_tolerance(spec) * largest } else { 0.0 };
    let tolerance = truth.tolerance.iter().map(|tolerance| tolerance + of_attention).collect();
    Ok((truth.y, tolerance))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::replay::Output;

    pub(crate) fn case(expected: &[f64], tolerance: &[f64], is_half: bool) -> Recorded {
        let output = Output { buffer: 0, offset: 0, size: 8, is_half };
        let replay = Replay { modules: vec![], buffers: vec![], dispatches: vec![], output };
        Recorded {
            name: "two".into(),
            replay,
            expected: expected.into(),
            tolerance: tolerance.into(),
        }
    }

    pub(crate) fn words(values: [f32; 2]) -> Vec<u8> {
        values.map(f32::to_le_bytes).concat()
    }

    #[test]
    fn exact_cases_are_held_to_the_bit() {
        let exact = case(&[1.0, 0.0], &[0.0; 2], false);
        assert_eq!(exact.first_wrong(&words([1.0, 0.0])), None);
        for (values, message) in [
            ([1.0, -0.0], "element 1 of 2 is -0, expected 0 within 0e0"),
            ([1.000_000_1, 0.0], "element 0 of 2 is 1.0000001192092896, expected 1 within 0e0"),
            ([1.0, f32::NAN], "element 1 of 2 is NaN, expected 0 within 0e0"),
        ] {
            assert_eq!(exact.first_wrong(&words(values)).as_deref(), Some(message));
        }
    }

    #[test]
    fn tolerances_are_inclusive_and_nan_is_within_none() {
        let close = case(&[1.0, 2.0], &[0.5, 0.25], false);
        assert_eq!(close.first_wrong(&words([1.5, 1.75])), None);
        assert!(close.first_wrong(&words([1.5, 1.625])).is_some());
        assert!(close.first_wrong(&words([f32::NAN, 2.0])).is_some());
        assert!(close.first_wrong(&words([f32::INFINITY, 2.0])).is_some());
    }

    #[test]
    fn infinities_must_come_out_as_they_are() {
        let infinite = case(&[f64::NEG_INFINITY, 0.0], &[f64::INFINITY, f64::NAN], false);
        assert_eq!(infinite.first_wrong(&words([f32::NEG_INFINITY, 0.0])), None);
        for values in [[f32::INFINITY, 0.0], [1.0, 0.0], [f32::NAN, 0.0], [f32::NEG_INFINITY, 1.0]]
        {
            assert!(infinite.first_wrong(&words(values)).is_some(), "{values:?}");
        }
    }

    #[test]
    fn results_of_another_length_are_wrong() {
        let exact = case(&[1.0, 0.0], &[0.0; 2], false);
        assert_eq!(
            exact.first_wrong(&[]).as_deref(),
            Some("0 elements, expected 2 (2 tolerances)")
        );
        assert!(case(&[1.0, 0.0], &[], false).first_wrong(&words([1.0, 0.0])).is_some());
        // Three halves take two words.
        let halves = [0x00, 0x3c, 0x00, 0x40, 0x00, 0x42, 0xff, 0xff];
        assert_eq!(case(&[1.0, 2.0, 3.0], &[0.0; 3], true).first_wrong(&halves), None);
        assert!(case(&[1.0, 2.0], &[0.0; 2], true).first_wrong(&halves).is_some());
    }
}
