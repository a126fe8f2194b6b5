//! Draws problems as long as one likes, and makes each failure small.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dynconv::Context;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::check::{first_broken, fresh, is_refused};
use crate::draw::specs;
use crate::laws::Law;
use crate::spec::Spec;

/// A problem that breaks a law, made as small as it goes.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The smallest problem found.
    pub spec: Spec,
    /// The problem drawn.
    pub drawn: Spec,
    /// The law.
    pub law: &'static Law,
    /// What was found.
    pub found: String,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Problems drawn and run.
    pub problems: usize,
    /// Laws held to them.
    pub checks: usize,
    /// Problems that the library refuses on this device.
    pub refused: usize,
    /// Problems that broke a law.
    pub failures: usize,
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self {
            problems: self.problems + other.problems,
            checks: self.checks + other.checks,
            refused: self.refused + other.refused,
            failures: self.failures + other.failures,
        }
    }
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After this many problems.
    Problems(usize),
}

/// Attempts to make a failing problem smaller.
const SHRINKS: usize = 60;

/// Draws problems that follow from `seed` and holds each to every law that says something about it,
/// as many at a time as there are contexts. `before` sees each problem before it runs, `report` the
/// tally after it and the failure if there is one. Once `is_stopped`, no more problems are run, and
/// none is made smaller.
pub fn fuzz(
    contexts: &[Context],
    seed: u64,
    until: Until,
    is_stopped: impl Fn() -> bool + Sync,
    before: impl Fn(&Spec) + Sync,
    report: impl FnMut(Tally, Option<&Failure>) + Send,
) -> Tally {
    let start = Instant::now();
    let progress = Mutex::new((Tally::default(), report));
    let is_over = |drawn: usize| match until {
        Until::Elapsed(time) => start.elapsed() >= time,
        Until::Problems(count) => drawn >= count,
    };
    // Every job draws all problems, which costs next to nothing, and runs its share of them: the
    // same for any number of jobs.
    let job = |number: usize, context: &Context| {
        let mut runner =
            TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() });
        let strategy = specs();
        let mut drawn = 0;
        while !is_over(drawn) && !is_stopped() {
            // The strategy gives up only if nearly nothing it draws is a problem; then there is
            // nothing to run.
            let Ok(mut tree) = strategy.new_tree(&mut runner) else { break };
            if drawn % contexts.len() == number {
                before(&tree.current());
                let (tally, failure) = run(context, &mut tree, &is_stopped);
                let (all, report) = &mut *progress.lock().unwrap_or_else(PoisonError::into_inner);
                *all = all.and(tally);
                report(*all, failure.as_ref());
            }
            drawn += 1;
        }
    };
    thread::scope(|scope| {
        for (number, context) in contexts.iter().enumerate() {
            let job = &job;
            scope.spawn(move || job(number, context));
        }
    });
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).0
}

/// Runs one problem.
fn run(
    context: &Context,
    tree: &mut dyn ValueTree<Value = Spec>,
    is_stopped: &dyn Fn() -> bool,
) -> (Tally, Option<Failure>) {
    let drawn = tree.current();
    let context = fresh(context);
    if is_refused(&context, &drawn) {
        return (Tally { problems: 1, refused: 1, ..Tally::default() }, None);
    }
    let (broken, checks) = first_broken(&context, &drawn, is_stopped);
    let failure = broken.map(|(law, found)| {
        let failure = Failure { spec: drawn.clone(), drawn, law, found };
        shrink(&context, tree, failure, is_stopped)
    });
    (Tally { problems: 1, checks, failures: failure.is_some().into(), ..Tally::default() }, failure)
}

/// The smallest problem on the way down that breaks any law.
fn shrink(
    context: &Context,
    tree: &mut dyn ValueTree<Value = Spec>,
    mut best: Failure,
    is_stopped: &dyn Fn() -> bool,
) -> Failure {
    let mut may_go_on = tree.simplify();
    for _ in 0..SHRINKS {
        if !may_go_on || is_stopped() {
            break;
        }
        let spec = tree.current();
        may_go_on = match first_broken(&fresh(context), &spec, is_stopped).0 {
            Some((law, found)) => {
                best = Failure { spec, law, found, ..best };
                tree.simplify()
            }
            None => tree.complicate(),
        };
    }
    best
}
