//! What to compile, and the problems of the quick catalogue, recorded.

use std::collections::HashSet;

use dynconv::plan::ConvChoice;
use dynconv::{Activation, Caps, Context, Elem, Error};

use super::{WebCase, WebModule};
use crate::cases::sums_plainly;
use crate::catalogue::{self, LineError};
use crate::data::{Data, Numbers};
use crate::laws::Law;
use crate::replay::{Module, RecordError, Replay};
use crate::run::{Fault, Prepared};
use crate::spec::{Limits, Spec};
use crate::truth::{self, attention_tolerance};
use crate::variants::{elem_variants, noop, variants};

/// Why a case cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
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

/// All variants. Those become pipelines that have an element type, or a value of a constant, that no earlier one of the kernel has:
/// every line of every kernel goes through the back end. With `in_full` all of them do.
#[must_use]
pub fn all_modules(in_full: bool) -> Vec<WebModule> {
    let mut seen = HashSet::new();
    let all = variants().into_iter().chain(elem_variants()).map(|dispatch| dispatch.variant);
    all.map(|variant| {
        let mut is_new = seen.insert((variant.kernel, variant.elems.clone(), None));
        for value in &variant.consts {
            is_new |= seen.insert((variant.kernel, vec![], Some(*value)));
        }
        WebModule { module: Module::from(&variant), has_pipeline: in_full || is_new }
    })
    .collect()
}

/// The problems of the quick catalogue: integers, to the bit, where they stay exact, otherwise fractions within their bound; and once more, with
/// a NaN in the input, where something may drop it: an activation, a hidden layer, an output in f16. Those that ask for a kernel that no browser
/// can run are left out.
///
/// # Errors
/// [`CaseError`] if one cannot be recorded.
pub fn all_cases() -> Result<Vec<WebCase>, CaseError> {
    // What a browser's device is not told of, its recording cannot keep to.
    let specs = catalogue::problems(false)?.into_iter().filter(|spec| spec.limits != Limits::Tight);
    let cases = specs.flat_map(|spec| {
        let with_nan = may_drop_nan(&spec).then(|| case_with_nan(&spec));
        [case(&spec)].into_iter().chain(with_nan)
    });
    let needs_more = |case: &Result<WebCase, CaseError>| {
        matches!(case, Err(CaseError::Fault { fault: Fault::Refused(Error::MissingFeature { .. }), .. }))
    };
    cases.filter(|case| !needs_more(case)).collect()
}

fn may_drop_nan(spec: &Spec) -> bool {
    // Minimal filtering spreads a NaN over a tile.
    let is_filtered = spec.winograd.is_some() || !sums_plainly(spec.conv);
    !is_filtered && (spec.activation != Activation::None || spec.family.has_branch() || spec.elems[1] != Elem::F32)
}

fn case(spec: &Spec) -> Result<WebCase, CaseError> {
    case_on(&browsers(), spec)
}

/// What every browser has, on a device that computes nothing.
fn browsers() -> Context {
    noop().with_caps(Caps { f16: true, ..Caps::webgpu_default() })
}

/// A problem as it runs on a device like this one, which computes nothing.
pub(crate) fn case_on(context: &Context, spec: &Spec) -> Result<WebCase, CaseError> {
    let is_exact = Law::find("exact").is_some_and(|law| (law.applies)(spec));
    let numbers = if is_exact { Numbers::Integers } else { Numbers::Floats };
    let data = Data::new(spec, numbers).map_err(|error| fault(spec, error.into()))?;
    recorded(context, spec, spec.to_string(), &data, is_exact)
}

fn case_with_nan(spec: &Spec) -> Result<WebCase, CaseError> {
    let mut data = Data::new(spec, Numbers::Floats).map_err(|error| fault(spec, error.into()))?;
    let middle = data.x.len() / 2;
    data.x[middle] = f32::NAN;
    recorded(&browsers(), spec, format!("{spec} with NaN in the input"), &data, false)
}

fn fault(spec: &Spec, fault: Fault) -> CaseError {
    CaseError::Fault { spec: Box::new(spec.clone()), fault }
}

/// No adapter is needed to record: the noop device keeps buffers and computes nothing.
fn recorded(context: &Context, spec: &Spec, name: String, data: &Data, is_exact: bool) -> Result<WebCase, CaseError> {
    let prepared = Prepared::new(context, spec, data).map_err(|error| fault(spec, error))?;
    let (expected, tolerance) = expectation(spec, data, is_exact).map_err(|error| fault(spec, error.into()))?;
    let replay = Replay::record(context, &prepared.bound, prepared.output())?;
    Ok(WebCase { name, replay, expected, tolerance })
}

/// Expected values and tolerances. Attention that the browser computes is not read back, so its own tolerance adds to the output's.
fn expectation(spec: &Spec, data: &Data, is_exact: bool) -> dynconv::Result<(Vec<f64>, Vec<f64>)> {
    let attention = truth::attention(spec, data)?.map(|values| dynconv::reference::narrow(&values));
    let truth = truth::truth(spec, data, attention.as_deref())?;
    let rounds = spec.conv == ConvChoice::Matrix && spec.elems[0] != Elem::F32;
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
mod tests {
    use super::*;
    use crate::replay::Output;

    #[test]
    fn every_variant_is_compiled_and_every_constant_reaches_the_back_end() {
        let modules = all_modules(false);
        let pipelines = modules.iter().filter(|shader| shader.has_pipeline).count();
        assert!(modules.len() > 500 && pipelines > 50 && pipelines < modules.len() / 2);
        assert!(all_modules(true).iter().all(|shader| shader.has_pipeline));
    }

    #[test]
    fn all_cases_are_recorded_with_an_expectation_for_every_element() {
        let cases = all_cases().expect("records");
        assert!(cases.len() > 50, "{}", cases.len());
        let with_nan = cases.iter().filter(|case| case.expected.iter().any(|value| value.is_nan()));
        assert!(with_nan.count() > 20);
        for WebCase { name, replay, expected, tolerance } in &cases {
            let Output { size, is_half, .. } = replay.output;
            let bytes = if is_half { 2 } else { 4 };
            assert_eq!((expected.len() as u64 * bytes).next_multiple_of(4), size, "{name}");
            assert_eq!(expected.len(), tolerance.len(), "{name}");
            assert!(expected.iter().any(|value| *value != 0.0), "{name} expects nothing but zeros");
        }
    }
}
