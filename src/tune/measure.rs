//! Runs and times what can compute a problem.

use std::time::Instant;

use super::verify::Yardstick;
use crate::device::{Bound, Context, PassTimer};
use crate::error::{Error, Result};
use crate::problem::{Algorithm, Problem};
use crate::program::Plan;
use crate::tuning::{Key, Outcome, Trial, Tuned, candidates, measured};

/// A sample lasts at least this long: work that is shorter runs several times in one pass.
const SAMPLE_MS: f64 = 1.0;
/// How often work runs in one sample at most.
const MOST_REPEATS: f64 = 1000.0;
/// Samples of each kernel, of which the fastest counts: what else runs on the machine only ever
/// makes them slower.
const SAMPLES: usize = 5;
/// Kernels whose first sample is so much slower than the best are not timed further.
const HOPELESS: f64 = 1.5;

/// Measures which convolution kernel computes a problem the fastest. Its own choice of a kernel,
/// its attention branch and what follows its sum do not matter; its batch is what is measured, and
/// what comes of it holds for every batch.
///
/// It makes operands of its own, submits work to the context's queue and waits for it, for as long
/// as the slowest kernel takes some times over; a context that is used meanwhile makes the times
/// worthless. Before it is timed, every kernel's result is held against that of `conv_direct`, for
/// the first and the last sample, which in turn is held against the f64 reference in as many
/// outputs as can be computed at once; a kernel that is wrong or refused says so in its [`Trial`].
///
/// # Errors
/// The planner's errors ([`Plan::new`]) if not even the planner's own choice is possible,
/// [`Error::Wrong`] if the device cannot be trusted with `conv_direct`, [`Error::OutOfMemory`],
/// [`Error::DeviceLost`].
pub fn tune(context: &Context, problem: &Problem) -> Result<Tuned> {
    if problem.batch == 0 {
        let expected = "at least 1, since nothing of an empty one can be measured".into();
        return Err(Error::Shape { what: "batch".into(), expected, found: "0".into() });
    }
    let problem = &measured(problem);
    let planned = Plan::new(problem, context.caps())?;
    let yardstick = Yardstick::new(context, problem)?;
    let clock = Clock { context, timer: PassTimer::new(context, 1)? };
    let mut tried = Vec::new();
    for choice in std::iter::once(Algorithm::Auto).chain(candidates(problem, context.caps())) {
        let best = tried
            .iter()
            .filter_map(|(trial, _): &(Trial, _)| trial.ms())
            .fold(f64::INFINITY, f64::min);
        let plan = match choice {
            Algorithm::Auto => planned.clone(),
            algorithm => Plan::new(&Problem { algorithm, ..*problem }, context.caps())?,
        };
        let kernel = plan.conv_kernel();
        let (outcome, work) = attempt(&clock, &yardstick, plan, best)?;
        tried.push((Trial { choice, kernel, outcome }, work));
    }
    race(&clock, &mut tried)?;
    Ok(Tuned { key: Key::of(problem), trials: tried.into_iter().map(|(trial, _)| trial).collect() })
}

/// What is recorded for a sample, and how often.
struct Work {
    bound: Bound,
    repeats: u32,
}

/// Checks and times one kernel. What it was bound to comes back where it was timed to the end.
fn attempt(
    clock: &Clock<'_>,
    yardstick: &Yardstick,
    plan: Plan,
    best: f64,
) -> Result<(Outcome, Option<Work>)> {
    let bound = match yardstick.bind(clock.context, plan) {
        Ok(bound) => bound,
        // A device that is gone or full is no matter of this kernel.
        Err(error @ (Error::DeviceLost { .. } | Error::OutOfMemory { .. })) => return Err(error),
        Err(error) => return Ok((Outcome::Failed(error), None)),
    };
    match yardstick.check(clock.context, &bound) {
        Ok(()) => {}
        Err(error @ Error::Wrong { .. }) => return Ok((Outcome::Wrong(error), None)),
        Err(error) => return Err(error),
    }
    let once = clock.time(&Work { bound: bound.clone(), repeats: 1 })?;
    // Between 1 and 1000.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was cut to that of a u32"
    )]
    let repeats = (SAMPLE_MS / once).ceil().clamp(1.0, MOST_REPEATS) as u32;
    let work = Work { bound, repeats };
    let mut ms = if repeats == 1 { once } else { clock.time(&work)? };
    if ms > HOPELESS * best {
        return Ok((Outcome::Stopped(ms), None));
    }
    for _ in 1..SAMPLES {
        ms = ms.min(clock.time(&work)?);
    }
    Ok((Outcome::Timed(ms), Some(work)))
}

/// Times the planner's choice and the fastest in turns, so that what slows the machine for a while
/// does not decide between them.
fn race(clock: &Clock<'_>, tried: &mut [(Trial, Option<Work>)]) -> Result<()> {
    let ms = |(trial, _): &(Trial, Option<Work>)| trial.ms().unwrap_or(f64::INFINITY);
    let Some(fastest) = (0..tried.len()).min_by(|&a, &b| ms(&tried[a]).total_cmp(&ms(&tried[b])))
    else {
        return Ok(());
    };
    for turn in 0..2 * SAMPLES {
        let (trial, work) = &mut tried[if turn % 2 == 0 { 0 } else { fastest }];
        if let (Outcome::Timed(ms), Some(work)) = (&mut trial.outcome, work) {
            *ms = ms.min(clock.time(work)?);
        }
    }
    Ok(())
}

/// Times passes.
struct Clock<'a> {
    context: &'a Context,
    timer: Option<PassTimer>,
}

impl Clock<'_> {
    /// Milliseconds of one recording: by the device's clock, or by the host's, from submission to
    /// the end of the wait, where it has none.
    fn time(&self, work: &Work) -> Result<f64> {
        let commands = self.context.scoped("a measurement", || self.record(work))?;
        let start = Instant::now();
        self.context.scoped("a measurement", || self.context.queue().submit([commands]))?;
        self.context.wait()?;
        let wall = start.elapsed().as_secs_f64() * 1e3;
        let stamps = self.timer.as_ref().map(|timer| timer.read(self.context)).transpose()?;
        // A clock that stands still has timed nothing, and a pass takes no longer than the wait for
        // it.
        let is_possible = |ms: &f64| *ms > 0.0 && *ms <= wall;
        let ms =
            stamps.and_then(|stamps| stamps.first().copied()).filter(is_possible).unwrap_or(wall);
        Ok(ms / f64::from(work.repeats))
    }

    fn record(&self, work: &Work) -> wgpu::CommandBuffer {
        let mut encoder = self
            .context
            .device()
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let timestamp_writes = self.timer.as_ref().map(|timer| timer.writes(0));
            let descriptor = wgpu::ComputePassDescriptor { label: Some("tuned"), timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            (0..work.repeats).for_each(|_| work.bound.record_in(&mut pass));
        }
        if let Some(timer) = &self.timer {
            timer.resolve(&mut encoder);
        }
        encoder.finish()
    }
}
