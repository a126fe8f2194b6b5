//! What was measured to be the fastest, as plain data: tables of choices by the problems that they
//! hold for, and what is worth measuring. `crate::tune` measures.

mod key;
mod table;

pub use key::Key;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use key::measured;
pub use table::Tuning;

use crate::caps::Caps;
use crate::error::Error;
use crate::kernels::{Kernel, shader_files};
use crate::problem::{Algorithm, Problem};
use crate::program::Plan;

/// What came of measuring one problem.
#[derive(Debug)]
pub struct Tuned {
    /// What was measured, and what it holds for.
    pub key: Key,
    /// The planner's own choice first, as [`Algorithm::Auto`], then all others that were tried.
    pub trials: Vec<Trial>,
}

/// What became of one kernel.
#[derive(Debug)]
pub struct Trial {
    /// What was asked of the planner.
    pub choice: Algorithm,
    /// The convolution kernel that ran.
    pub kernel: Kernel,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a kernel that was tried.
#[derive(Debug)]
pub enum Outcome {
    /// It is right, and the fastest of some runs took as many milliseconds.
    Timed(f64),
    /// It is right, and its first run was so slow that no more were made.
    Stopped(f64),
    /// It computes something else: the error says what. It cannot be chosen.
    Wrong(Error),
    /// It was refused when it was compiled or bound: a defect of the library or of the driver. It
    /// cannot be chosen.
    Failed(Error),
}

/// How much faster than the planner's own choice another has to be: less than this may be chance.
const GAIN: f64 = 0.97;

impl Tuned {
    /// The fastest kernel that is right: the planner's own choice unless another is faster by more
    /// than 3 %.
    #[must_use]
    pub fn choice(&self) -> Algorithm {
        let best = self
            .best()
            .filter(|(_, ms)| self.planned_ms().is_none_or(|planned| *ms < GAIN * planned));
        best.map_or(Algorithm::Auto, |(trial, _)| trial.choice)
    }

    /// The fastest kernel that is right, and its milliseconds; none if none is right.
    #[must_use]
    pub fn best(&self) -> Option<(&Trial, f64)> {
        let timed = self.trials.iter().filter_map(|trial| Some((trial, trial.ms()?)));
        timed.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Milliseconds of the planner's own choice, if it is right.
    #[must_use]
    pub fn planned_ms(&self) -> Option<f64> {
        self.trials.iter().find(|trial| trial.choice == Algorithm::Auto)?.ms()
    }
}

impl Trial {
    /// Milliseconds, if they were measured to the end.
    #[must_use]
    pub fn ms(&self) -> Option<f64> {
        match self.outcome {
            Outcome::Timed(ms) => Some(ms),
            _ => None,
        }
    }
}

/// Multiply-adds a sample, 2 operations each, up to which one output an invocation may be the
/// fastest that there is.
const FEW: u64 = 1 << 21;

/// What is worth measuring beside the planner's own choice: every kernel that can compute the
/// problem on such a device, and whose plan is another. What computes with larger errors is for its
/// user to choose. Two kinds that are slower by far are left out: `conv_direct` on all but tiny
/// problems, and on software adapters what uses workgroup memory. Pure, like the planner.
#[must_use]
pub fn candidates(problem: &Problem, caps: &Caps) -> Vec<Algorithm> {
    let plan = |algorithm| Plan::new(&Problem { algorithm, ..*problem }, caps);
    let Ok(planned) = plan(Algorithm::Auto) else { return Vec::new() };
    let is_tiny = planned.flops() <= FEW.saturating_mul(problem.batch as u64);
    let has_memory = !caps.is_software();
    let is_worth = |plan: &Plan| {
        let shares = plan.dispatches().iter().any(|dispatch| dispatch.workgroup_memory > 0);
        plan.dispatches() != planned.dispatches()
            && (has_memory || !shares)
            && (is_tiny || plan.conv_kernel() != Kernel::ConvDirect)
    };
    let rounds_alike = Algorithm::ALL.iter().copied().filter(|choice| choice.sums_plainly());
    rounds_alike.filter(|choice| plan(*choice).is_ok_and(|plan| is_worth(&plan))).collect()
}

/// A number that changes with the crate's version and with the text of any shader: measurements of
/// other kernels are worth nothing.
#[must_use]
pub fn kernel_version() -> u64 {
    let files = shader_files().flat_map(|(name, text)| [name, text]);
    hash(std::iter::once(env!("CARGO_PKG_VERSION")).chain(files))
}

/// FNV-1a over texts and their ends: the same on every machine and with every compiler, unlike the
/// standard library's.
fn hash<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let bytes = texts.flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
