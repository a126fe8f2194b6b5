//! Mutants in the interpreter, which sees what drivers hide.

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::thread;
use std::time::Instant;

use dynconv::Context;

use crate::catalogue;
use crate::mutants::{Fate, Mutant};
use crate::recorded::{Recorded, RecordedError};
use crate::sanitize::{Right, SanitizeError, device, subgroup_size};
use crate::spec::Spec;

/// Runs of the small problems: each as it is; and as many as bring each shader text with its
/// operands at the end of larger buffers, with a NaN in the input before each activation, and on
/// extreme numbers.
#[derive(Debug)]
pub struct Interpreter {
    runs: Vec<Right>,
}

/// A run, and the size of its subgroups.
type Run = (Recorded, usize);

/// A way to run a problem: as it is, moved, with a NaN, on extreme numbers; none or several runs.
type Form = fn(&Context, &Spec) -> Result<Vec<Recorded>, RecordedError>;

const FORMS: [Form; 4] = [
    |context, spec| Ok(vec![Recorded::on(context, spec)?]),
    |context, spec| Ok(vec![Recorded::elsewhere(context, spec)?]),
    |context, spec| Ok(Recorded::with_nan(context, spec)?.into_iter().collect()),
    Recorded::strained,
];

impl Interpreter {
    /// Records all runs and runs each once, which takes a processor a minute.
    ///
    /// # Errors
    /// [`SanitizeError::Case`] for a problem that cannot be recorded, [`SanitizeError::Wrong`] for
    /// a run that is at fault as it is.
    pub fn new() -> Result<Self, SanitizeError> {
        let specs = catalogue::sanitized().map_err(|error| Box::new(error.into()))?;
        Ok(Self { runs: quick_first(&recorded(&specs)?)? })
    }

    /// Runs a mutant until a fault is found.
    #[must_use]
    pub fn fate(&self, mutant: &Mutant) -> Fate {
        let mut is_run = false;
        for run in &self.runs {
            match run.first_fault(|source| mutant.apply_to(source)) {
                Ok(Some(Some(fault))) => {
                    return Fate::Killed("interpreter", run.name().to_owned(), fault);
                }
                Ok(Some(None)) => is_run = true,
                Ok(None) => {}
                Err(SanitizeError::Shader {
                    error: wgsl_sanitizer::Error::Invalid(message),
                    ..
                }) => {
                    return Fate::Stillborn(message);
                }
                // What is not interpreted is left to the laws.
                Err(_) => {}
            }
        }
        if is_run { Fate::Survived } else { Fate::NotRun }
    }
}

fn recorded(specs: &[Spec]) -> Result<Vec<Run>, SanitizeError> {
    let mut all = Vec::new();
    for (number, form) in FORMS.iter().enumerate() {
        let mut seen = HashSet::new();
        for spec in specs {
            let runs = form(&device(spec), spec).map_err(Box::new)?;
            // As it is every problem is run; otherwise those with a shader text, told by its label,
            // or an activation that none before has.
            let shaders =
                runs.iter().flat_map(|run| &run.replay.modules).map(|module| module.label.clone());
            let new = shaders
                .filter(|label| seen.insert((label.clone(), format!("{:?}", spec.activation))))
                .count();
            if number == 0 || new > 0 {
                all.extend(runs.into_iter().map(|run| (run, subgroup_size(spec))));
            }
        }
    }
    Ok(all)
}

/// All of them, those first that take the least time: most mutants need no other.
fn quick_first(all: &[Run]) -> Result<Vec<Right>, SanitizeError> {
    let timed = |(run, subgroup_size): &Run| {
        let start = Instant::now();
        let right = Right::new(run.clone(), *subgroup_size)?;
        Ok((start.elapsed(), right))
    };
    let timed = |part: &[Run]| part.iter().map(timed).collect::<Result<Vec<_>, SanitizeError>>();
    let share = all.len().div_ceil(thread::available_parallelism().map_or(1, usize::from)).max(1);
    let parts: Result<Vec<_>, _> = thread::scope(|scope| {
        let threads: Vec<_> =
            all.chunks(share).map(|part| scope.spawn(move || timed(part))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    let mut runs: Vec<_> = parts?.into_iter().flatten().collect();
    runs.sort_by_key(|(time, _)| *time);
    Ok(runs.into_iter().map(|(_, right)| right).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants;

    #[test]
    fn shaders_without_a_slip_survive_and_one_that_drivers_hide_is_killed() {
        let interpreter = Interpreter::new().expect("records");
        // The quickest of each form; that all are right is seen as they are recorded.
        let quickest =
            [" seed=", " moved", " NaN ", " styles times ", " an infinity ", " logits of 0"];
        for form in quickest {
            let run =
                interpreter.runs.iter().find(|run| run.name().contains(form)).expect("is there");
            // A change that changes nothing.
            let fault = run.first_fault(|source| format!("{source}\n")).expect("runs");
            assert_eq!(fault, Some(None), "{}", run.name());
        }
        // All lanes add, not the lower half alone: lanes that run in order give the right sum all
        // the same.
        let is_it = |mutant: &Mutant| {
            let [original, mutated] = [&mutant.original, &mutant.mutated].map(|line| line.trim());
            mutant.file == "average_pool.wgsl"
                && original == "if lane < half {"
                && mutated == "if true {"
        };
        let mutant = mutants::all().into_iter().find(is_it).expect("is there");
        let fate = interpreter.fate(&mutant);
        assert!(matches!(&fate, Fate::Killed("interpreter", ..)), "{fate:?}");
    }
}
