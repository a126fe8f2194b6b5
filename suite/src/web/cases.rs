//! What to compile, and the problems of the quick catalogue, recorded.

use std::collections::HashSet;

use dynconv::{Caps, Context, Error};

use super::WebModule;
use crate::catalogue;
use crate::recorded::{Recorded, RecordedError};
use crate::replay::Module;
use crate::run::Fault;
use crate::spec::Limits;
use crate::variants::{elem_variants, noop, variants};

/// All variants. Those become pipelines that have an element type, or a value of a constant, that
/// no earlier one of the kernel has: every line of every kernel goes through the back end. With
/// `in_full` all of them do.
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

/// The problems of the quick catalogue: integers, to the bit, where they stay exact, otherwise
/// fractions within their bound; and once more, with a NaN in the input, where something may drop
/// it: an activation, a hidden layer, an output in f16. Those that ask for a kernel that no browser
/// can run are left out.
///
/// # Errors
/// [`RecordedError`] if one cannot be recorded.
pub fn all_cases() -> Result<Vec<Recorded>, RecordedError> {
    // What a browser's device is not told of, its recording cannot keep to.
    let specs = catalogue::problems(false)?.into_iter().filter(|spec| spec.limits != Limits::Tight);
    let cases = specs.flat_map(|spec| {
        let with_nan = Recorded::with_nan(&browsers(), &spec).transpose();
        [Recorded::on(&browsers(), &spec)].into_iter().chain(with_nan)
    });
    let needs_more = |case: &Result<Recorded, RecordedError>| {
        matches!(
            case,
            Err(RecordedError::Fault { fault: Fault::Refused(Error::MissingFeature { .. }), .. })
        )
    };
    cases.filter(|case| !needs_more(case)).collect()
}

/// What every browser has, on a device that computes nothing.
fn browsers() -> Context {
    noop().with_caps(Caps { f16: true, ..Caps::webgpu_default() })
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
        for Recorded { name, replay, expected, tolerance } in &cases {
            let Output { size, is_half, .. } = replay.output;
            let bytes = if is_half { 2 } else { 4 };
            assert_eq!((expected.len() as u64 * bytes).next_multiple_of(4), size, "{name}");
            assert_eq!(expected.len(), tolerance.len(), "{name}");
            assert!(expected.iter().any(|value| *value != 0.0), "{name} expects nothing but zeros");
        }
    }
}
