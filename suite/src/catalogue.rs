//! The problems that every adapter is held to, in `cases/`: one a line.

use crate::check::possible;
use crate::spec::{Spec, SpecError};

/// Problems that cover each kernel and option once.
pub const QUICK: &str = include_str!("../cases/quick.txt");
/// Problems that [`QUICK`] is extended by: combinations, and sizes past tiles and limits.
pub const FULL: &str = include_str!("../cases/full.txt");

/// Small problems for an interpreter.
pub const SANITIZED: &str = include_str!("../cases/sanitize.txt");

/// A line that is no problem.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct LineError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub error: SpecError,
}

/// The problems of a text: one a line, `#` begins a comment.
///
/// # Errors
/// [`LineError`] for the first line that is none, or an impossible one.
pub fn parse(text: &str) -> Result<Vec<Spec>, LineError> {
    let problem = |text: &str| {
        let spec = text.parse()?;
        possible(&spec)?;
        Ok(spec)
    };
    lines(text, problem)
}

/// What `read` makes of each line that says something.
fn lines(
    text: &str,
    read: impl Fn(&str) -> Result<Spec, SpecError>,
) -> Result<Vec<Spec>, LineError> {
    let lines = (1..).zip(text.lines().map(|line| line.split('#').next().unwrap_or("").trim()));
    lines
        .filter(|(_, text)| !text.is_empty())
        .map(|(line, text)| read(text).map_err(|error| LineError { line, error }))
        .collect()
}

/// The built-in problems.
///
/// # Errors
/// [`LineError`], if the files were edited badly.
pub fn problems(full: bool) -> Result<Vec<Spec>, LineError> {
    // Tests know that they are possible.
    let mut all = lines(QUICK, str::parse)?;
    if full {
        all.extend(lines(FULL, str::parse)?);
    }
    Ok(all)
}

/// The problems for the interpreter: small ones, and of the quick ones the first for each kernel
/// that none of these asks for.
///
/// # Errors
/// As [`problems`].
pub fn sanitized() -> Result<Vec<Spec>, LineError> {
    let mut all = lines(SANITIZED, str::parse)?;
    for spec in problems(false)? {
        if !all.iter().any(|one| one.conv == spec.conv) {
            all.push(spec);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use dynconv::kernels::Kernel;
    use dynconv::reference::narrow;

    use super::*;
    use crate::check::{kernels, laws_of};
    use crate::data::{Data, Numbers};
    use crate::laws::LAWS;
    use crate::run::{self, Fault};
    use crate::spec::{ACTIVATIONS, FAMILIES, Limits};
    use crate::truth;
    use crate::variants::{noop, with_lanes, with_matrices};

    /// Quick problems that ask for minimal filtering or for kernels of other devices.
    const REFUSED: usize = 33;

    #[test]
    fn the_quick_problems_reach_everything() {
        let specs = problems(false).expect("parse");
        // Some kernels run on any device, some only where subgroups have eight lanes, one only
        // where there are cooperative matrices.
        let devices = [noop(), noop().with_caps(with_lanes()), noop().with_caps(with_matrices(16))];
        let reached: HashSet<&str> =
            devices.iter().flat_map(|c| specs.iter().flat_map(|spec| kernels(c, spec))).collect();
        assert_eq!(reached.len(), Kernel::ALL.len(), "{reached:?}");
        let count =
            |of: &dyn Fn(&Spec) -> String| specs.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!(count(&|spec| format!("{:?}", spec.family)), FAMILIES.len());
        assert_eq!(count(&|spec| format!("{:?}", spec.activation)), ACTIVATIONS.len());
        assert_eq!(count(&|spec| format!("{:?}", spec.layouts)), 4);
        assert!(
            [Limits::Tight, Limits::Short]
                .iter()
                .all(|limits| specs.iter().any(|spec| spec.limits == *limits))
        );
        let laws: HashSet<&str> = specs.iter().flat_map(laws_of).map(|law| law.name).collect();
        assert_eq!(laws.len(), LAWS.len(), "{laws:?}");
    }

    #[test]
    fn layers_say_what_their_outputs_should_be() {
        let context = noop();
        let mut refused = 0;
        for spec in problems(false).expect("parse") {
            let data = Data::new(&spec, Numbers::Floats).expect("is possible");
            let said = match run::reference(&context, &spec, &data) {
                Ok(said) => said,
                // What a device without lanes or matrices cannot run, and minimal filtering.
                Err(Fault::Refused(_)) => {
                    refused += 1;
                    continue;
                }
                Err(fault) => panic!("{spec}: {fault}"),
            };
            let attention = truth::attention(&spec, &data).expect("is possible");
            let attention = attention.map(|attention| narrow(&attention));
            let truth = truth::truth(&spec, &data, attention.as_deref()).expect("is possible");
            assert_eq!(said.len(), truth.y.len(), "{spec}");
            let largest = truth.y.iter().fold(0.0_f64, |largest, y| largest.max(y.abs()));
            // The layer keeps its batch norms folded and rounded to f32.
            let of_attention = truth::attention_tolerance(&spec) * largest;
            let rows = said.iter().zip(&truth.y).zip(&truth.tolerance);
            for (i, ((said, y), tolerance)) in rows.enumerate() {
                let is_same = (said - y).abs() <= tolerance + of_attention;
                assert!(is_same, "{spec}: {i}: {said} for {y}");
            }
        }
        assert_eq!(refused, REFUSED);
    }

    #[test]
    fn all_problems_are_possible() {
        assert_eq!(parse(QUICK).expect("are possible"), problems(false).expect("parse"));
        parse(FULL).expect("are possible");
    }

    #[test]
    fn no_problem_stands_twice() {
        let specs = problems(true).expect("parse");
        let distinct: HashSet<String> = specs.iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), specs.len());
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = parse("# a comment\n\nbank batch=1").expect_err("is no problem");
        assert_eq!(error.to_string(), "line 3: the problem does not say its channels");
        let error = parse("bank batch=1 channels=4x4 input=3 kernel=3 groups=3")
            .expect_err("is impossible");
        assert_eq!(
            error.to_string(),
            "line 1: impossible: input channels: expected a multiple of 3 groups, found 4"
        );
    }
}
