//! Several pieces of work, timed in turns.

use std::time::Instant;

use dynconv::device::PassTimer;
use dynconv::{Context, wgpu};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A sample lasts at least this long: work that is shorter runs several times in one pass.
/// Timestamps of some devices tick once a microsecond or slower, and a pass has a beginning and an
/// end.
const SAMPLE_MS: f64 = 2.0;
/// How often work runs in one sample at most, so that recording stays cheap.
const MOST_REPEATS: u32 = 1000;
/// How often recording is timed.
const RECORDINGS: usize = 50;

/// Median, smallest and largest of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of the samples are not above it.
    pub median: f64,
    /// The smallest sample.
    pub min: f64,
    /// The largest sample.
    pub max: f64,
}

impl Spread {
    /// Of samples in any order; not a number where there are none.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        let fold = |pick: fn(f64, f64) -> f64| samples.iter().copied().fold(f64::NAN, pick);
        Self { median: median(samples), min: fold(f64::min), max: fold(f64::max) }
    }
}

/// The middle of some numbers, or of the two in the middle; not a number where there are none.
#[must_use]
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// Records work into a compute pass.
pub(crate) type Work<'a> = Box<dyn Fn(&mut wgpu::ComputePass<'_>) + 'a>;

/// How long work took, once, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    /// By the device's clock, if it has timestamps.
    pub gpu: Option<f64>,
    /// From recording to the end of the wait.
    pub wall: f64,
}

impl Time {
    /// The device's clock, or the host's where it has none.
    pub(crate) fn best(self) -> f64 {
        self.gpu.unwrap_or(self.wall)
    }
}

/// Times passes on one device.
#[derive(Debug)]
pub(crate) struct Clock<'a> {
    context: &'a Context,
    timer: Option<PassTimer>,
}

impl<'a> Clock<'a> {
    pub(crate) fn new(context: &'a Context) -> Result<Self> {
        Ok(Self { context, timer: PassTimer::new(context, 1)? })
    }

    /// Runs work several times in one pass; the time is that of one of them.
    pub(crate) fn time(&self, work: &Work<'_>, repeats: u32) -> Result<Time> {
        let start = Instant::now();
        let mut encoder = self
            .context
            .device()
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let timestamp_writes = self.timer.as_ref().map(|timer| timer.writes(0));
            let descriptor =
                wgpu::ComputePassDescriptor { label: Some("measured"), timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            (0..repeats).for_each(|_| work(&mut pass));
        }
        if let Some(timer) = &self.timer {
            timer.resolve(&mut encoder);
        }
        self.context.queue().submit([encoder.finish()]);
        self.context.wait()?;
        let each = |ms: f64| ms / f64::from(repeats);
        let wall = each(start.elapsed().as_secs_f64() * 1e3);
        let gpu = match &self.timer {
            None => None,
            // A clock that stands still has timed nothing, and a pass takes no longer than the wait
            // for it.
            Some(timer) => {
                let is_possible = |ms: &f64| *ms > 0.0 && each(*ms) <= wall;
                timer.read(self.context)?.first().copied().filter(is_possible).map(each)
            }
        };
        Ok(Time { gpu, wall })
    }

    /// How often work has to run for a sample to be long enough, found on a device that has warmed
    /// up.
    pub(crate) fn repeats(&self, work: &Work<'_>) -> Result<u32> {
        self.time(work, 1)?;
        let mut repeats = 1;
        loop {
            let sample = self.time(work, repeats)?.best() * f64::from(repeats);
            if sample >= SAMPLE_MS || repeats == MOST_REPEATS {
                return Ok(repeats);
            }
            // At least twice as often, at most what is missing and a tenth more.
            let missing = (1.1 * SAMPLE_MS / sample.max(SAMPLE_MS / 1e3)).ceil().max(2.0);
            // Far below 2^32: a sample is at least a thousandth of what is wanted.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 2 and 1,100"
            )]
            let factor = missing as u32;
            repeats = (repeats * factor).min(MOST_REPEATS);
        }
    }

    /// Microseconds that the host takes to record work into a command buffer of its own: encoder,
    /// pass, dispatches, end. It is not submitted.
    pub(crate) fn record_us(&self, work: &Work<'_>, quick: bool) -> f64 {
        let record = || {
            let start = Instant::now();
            let mut encoder = self
                .context
                .device()
                .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            work(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
            let buffer = encoder.finish();
            let time = start.elapsed();
            drop(buffer);
            time.as_secs_f64() * 1e6
        };
        let times: Vec<f64> = (0..if quick { 3 } else { RECORDINGS }).map(|_| record()).collect();
        median(&times)
    }
}

/// One of those that take turns.
pub(crate) struct Contender<'a> {
    work: Work<'a>,
    repeats: u32,
    times: Vec<Time>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(work: Work<'a>) -> Self {
        Self { work, repeats: 1, times: Vec::new() }
    }

    pub(crate) fn work(&self) -> &Work<'a> {
        &self.work
    }

    pub(crate) fn repeats(&self) -> u32 {
        self.repeats
    }

    /// Milliseconds by the device's clock, or the host's where it has none.
    pub(crate) fn spread(&self) -> Spread {
        Spread::of(&self.times.iter().map(|time| time.best()).collect::<Vec<_>>())
    }

    /// Milliseconds by the host's clock.
    pub(crate) fn wall(&self) -> f64 {
        median(&self.times.iter().map(|time| time.wall).collect::<Vec<_>>())
    }

    /// How much longer than another it took, in the middle of all rounds: what slows the machine
    /// for a while slows both.
    pub(crate) fn ratio(&self, other: &Self) -> f64 {
        let ratios = self.times.iter().zip(&other.times).map(|(a, b)| a.best() / b.best());
        median(&ratios.collect::<Vec<_>>())
    }
}

/// Times all contenders in turns, `samples` times each. Every other round goes backwards, so that
/// none always follows the same. `look_up` is called before each, and ends it all if it fails.
pub(crate) fn take_turns(
    clock: &Clock<'_>,
    contenders: &mut [&mut Contender<'_>],
    samples: usize,
    quick: bool,
    look_up: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    for contender in contenders.iter_mut().filter(|_| !quick) {
        look_up()?;
        contender.repeats = clock.repeats(&contender.work)?;
    }
    for round in 0..samples {
        let count = contenders.len();
        for turn in 0..count {
            look_up()?;
            let contender = &mut contenders[if round % 2 == 0 { turn } else { count - 1 - turn }];
            let time = clock.time(&contender.work, contender.repeats)?;
            contender.times.push(time);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn ratios_are_those_of_each_round() {
        let contender = |times: &[f64]| {
            let times = times.iter().map(|&wall| Time { gpu: None, wall }).collect();
            Contender { work: Box::new(|_| {}), repeats: 1, times }
        };
        // The machine was three times slower in the second round, which the ratio does not show.
        assert_eq!(contender(&[2.0, 6.0, 2.0]).ratio(&contender(&[1.0, 3.0, 1.0])), 2.0);
    }
}
