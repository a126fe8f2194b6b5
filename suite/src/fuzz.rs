//! Draws problems as long as one likes, and makes each failure small.

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

/// Draws problems that follow from `seed` and holds each to every law that says something about it. `before` sees each problem before
/// it runs, `report` the tally after it and the failure if there is one.
pub fn fuzz(
    context: &Context,
    seed: u64,
    until: Until,
    mut before: impl FnMut(&Spec),
    mut report: impl FnMut(Tally, Option<&Failure>),
) -> Tally {
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() });
    let strategy = specs();
    let mut tally = Tally::default();
    let start = Instant::now();
    let is_over = |tally: &Tally| match until {
        Until::Elapsed(time) => start.elapsed() >= time,
        Until::Problems(count) => tally.problems >= count,
    };
    while !is_over(&tally) {
        // The strategy gives up only if nearly nothing it draws is a problem; then there is nothing to run.
        let Ok(mut tree) = strategy.new_tree(&mut runner) else { break };
        let drawn = tree.current();
        before(&drawn);
        let context = fresh(context);
        tally.problems += 1;
        let (broken, tried) = if is_refused(&context, &drawn) {
            tally.refused += 1;
            (None, 0)
        } else {
            first_broken(&context, &drawn)
        };
        tally.checks += tried;
        let failure = broken.map(|(law, found)| shrink(&context, &mut tree, &drawn, law, found));
        tally.failures += usize::from(failure.is_some());
        report(tally, failure.as_ref());
    }
    tally
}

/// The smallest problem on the way down that breaks any law.
fn shrink(
    context: &Context,
    tree: &mut dyn ValueTree<Value = Spec>,
    drawn: &Spec,
    law: &'static Law,
    found: String,
) -> Failure {
    let mut best = Failure { spec: drawn.clone(), drawn: drawn.clone(), law, found };
    let mut may_go_on = tree.simplify();
    for _ in 0..SHRINKS {
        if !may_go_on {
            break;
        }
        let spec = tree.current();
        may_go_on = match first_broken(&fresh(context), &spec).0 {
            Some((law, found)) => {
                best = Failure { spec, law, found, ..best };
                tree.simplify()
            }
            None => tree.complicate(),
        };
    }
    best
}
