//! Holds problems to laws.

use std::time::{Duration, Instant};

use dynconv::{Caps, Context, Error};

use crate::laws::{LAWS, Law};
use crate::run::{Fault, Prepared};
use crate::spec::{Spec, SpecError};
use crate::variants::{noop, with_lanes, with_matrices};

/// What came of one law on one problem.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The problem.
    pub spec: Spec,
    /// The law.
    pub law: &'static Law,
    /// Kernels that the problem runs, in order.
    pub kernels: Vec<&'static str>,
    /// The verdict.
    pub verdict: Verdict,
    /// How long it took.
    pub time: Duration,
}

/// Whether a problem keeps a law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Kept,
    /// The library refuses the problem on this device, for this reason.
    Refused(String),
    /// It does not, or something broke: what was found.
    Broken(String),
}

impl Verdict {
    fn of(result: Result<(), Fault>) -> Self {
        match result {
            Ok(()) => Self::Kept,
            Err(Fault::Refused(error)) => Self::Refused(error.to_string()),
            Err(fault) => Self::Broken(fault.to_string()),
        }
    }
}

/// A device with everything that a kernel could need, which computes nothing.
fn ideal() -> Context {
    let context = noop();
    let (lanes, matrices) = (with_lanes(), with_matrices(16).matrices);
    let Caps { device_type, subgroups, subgroup_size, int64, .. } = lanes;
    let caps = context.caps().clone();
    context.with_caps(Caps {
        device_type,
        subgroups,
        subgroup_size,
        int64,
        matrices,
        f16: true,
        ..caps
    })
}

/// Refuses a problem that no device could compute, with what is impossible about it, and one that
/// is too large for this host.
///
/// # Errors
/// As [`Spec::check`].
pub fn possible(spec: &Spec) -> Result<(), SpecError> {
    spec.check()?;
    match Prepared::with_integers(&ideal(), &spec.single()) {
        // Devices differ in limits.
        Ok(_)
        | Err(
            Fault::Refused(Error::Limit { .. } | Error::MissingFeature { .. }) | Fault::Wrong(_),
        ) => Ok(()),
        Err(Fault::Refused(error) | Fault::Failed(error)) => Err(SpecError::Impossible(error)),
    }
}

/// Kernels that a problem runs, each once; none if it cannot be bound.
#[must_use]
pub fn kernels(context: &Context, spec: &Spec) -> Vec<&'static str> {
    let Ok(prepared) = Prepared::with_integers(context, spec) else { return Vec::new() };
    let mut names = Vec::new();
    for name in prepared.bound.steps().iter().map(|step| step.dispatch().variant.kernel.name()) {
        // A batch in parts runs them again and again.
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Laws that say something about a problem.
pub fn laws_of(spec: &Spec) -> impl Iterator<Item = &'static Law> {
    LAWS.iter().filter(|law| (law.applies)(spec))
}

/// Holds a problem to each of these laws that says something about it.
pub fn check(
    context: &Context,
    spec: &Spec,
    laws: &[&'static Law],
) -> impl Iterator<Item = Outcome> {
    let kernels = kernels(context, spec);
    let laws: Vec<&'static Law> =
        laws_of(spec).filter(|law| laws.iter().any(|one| one.name == law.name)).collect();
    laws.into_iter().map(move |law| {
        let start = Instant::now();
        let verdict = Verdict::of(law.check(context, spec));
        Outcome {
            spec: spec.clone(),
            law,
            kernels: kernels.clone(),
            verdict,
            time: start.elapsed(),
        }
    })
}

/// The first law that a problem does not keep, and what was found; the number of laws tried. Once
/// `is_stopped`, no more are tried.
#[must_use]
pub fn first_broken(
    context: &Context,
    spec: &Spec,
    is_stopped: &dyn Fn() -> bool,
) -> (Option<(&'static Law, String)>, usize) {
    let mut tried = 0;
    for law in laws_of(spec).take_while(|_| !is_stopped()) {
        tried += 1;
        if let Verdict::Broken(found) = Verdict::of(law.check(context, spec)) {
            return (Some((law, found)), tried);
        }
    }
    (None, tried)
}

/// A context of the same device and caps that has compiled nothing yet: a long run must not keep
/// every pipeline.
#[must_use]
pub fn fresh(context: &Context) -> Context {
    Context::from_wgpu(context.device().clone(), context.queue().clone())
        .with_caps(context.caps().clone())
}

/// Whether the library runs this problem at all on this device.
#[must_use]
pub fn is_refused(context: &Context, spec: &Spec) -> bool {
    matches!(Prepared::with_integers(context, spec), Err(Fault::Refused(_)))
}
