//! `dynconv sanitize`: the kernels in an interpreter that sees what drivers hide. No adapter is
//! needed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use dynconv_suite::catalogue;
use dynconv_suite::sanitize::{BarrierName, SanitizeError, Subject};
use dynconv_suite::spec::Spec;

use crate::check::problem;
use crate::jobs::{JobsArgs, each};
use crate::progress::Progress;
use crate::{JsonArgs, stop};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The quick problems of `check`, in place of the few small ones that reach every kernel
    #[arg(long, conflicts_with = "case")]
    full: bool,
    /// Only this problem; may be given again
    #[arg(long, value_name = "PROBLEM")]
    case: Vec<String>,
    /// Then take every barrier out in turn, and tell which of them are not missed
    #[arg(long)]
    barriers: bool,
    #[command(flatten)]
    jobs: JobsArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// What came of a problem.
struct Row {
    spec: Spec,
    kernels: Vec<String>,
    /// What is wrong, or why it was not run.
    told: Result<Vec<String>, SanitizeError>,
    barriers: BTreeMap<BarrierName, bool>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let problems = match &options.case[..] {
        [] if options.full => catalogue::problems(false)?,
        [] => catalogue::sanitized()?,
        cases => cases.iter().map(|line| problem(line)).collect::<Result<_, _>>()?,
    };
    let json = options.json.open()?;
    stop::listen()?;
    let start = Instant::now();
    let count = problems.len();
    let progress = Progress::new(Some(count), "problems");
    let rows = each(&vec![(); options.jobs.get(count)], problems, |(), spec| {
        let row = row(spec, options.barriers);
        progress.suspend(|| print(&row));
        progress.inc(1);
        ControlFlow::Continue(row)
    });
    progress.finish();
    let (faults, not_run) = (
        rows.iter().map(faults).sum::<usize>(),
        rows.iter().filter(|row| row.told.is_err()).count(),
    );
    let mut barriers: BTreeMap<&BarrierName, bool> = BTreeMap::new();
    rows.iter()
        .flat_map(|row| &row.barriers)
        .for_each(|(name, found)| *barriers.entry(name).or_default() |= found);
    let missed: Vec<_> =
        barriers.iter().filter(|(_, found)| !**found).map(|(name, _)| *name).collect();
    for BarrierName { kernel, line } in &missed {
        println!("NOT MISSED: the barrier in shaders/{kernel}.wgsl, line {line}");
    }
    if stop::is_asked() {
        println!("stopped after {} of {count} problems", rows.len());
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{} problems: {faults} faults, {not_run} not run, in {seconds:.0} s", rows.len());
    if options.barriers {
        println!(
            "{} barriers taken out in turn: {} found",
            barriers.len(),
            barriers.len() - missed.len()
        );
    }
    json.write_json(&serde_json::json!({
        "stopped": stop::is_asked(),
        "seconds": seconds,
        "problems": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "barriers": barriers.iter().map(|(name, found)| {
            serde_json::json!({ "kernel": name.kernel, "line": name.line, "found": found })
        }).collect::<Vec<_>>(),
    }))?;
    if !stop::is_asked() {
        anyhow::ensure!(not_run < rows.len(), "nothing was run, for the reasons above");
    }
    Ok(stop::status(faults == 0 && missed.is_empty() && (options.full || not_run == 0)))
}

fn row(spec: Spec, with_barriers: bool) -> Row {
    let subject = match Subject::new(&spec) {
        Ok(subject) => subject,
        Err(error) => {
            return Row { spec, kernels: Vec::new(), told: Err(error), barriers: BTreeMap::new() };
        }
    };
    let told = subject.faults();
    // A problem with faults would miss every barrier.
    let is_right = told.as_ref().is_ok_and(Vec::is_empty);
    let barriers = match with_barriers && is_right {
        true => subject.without_barriers().map(|barriers| barriers.into_iter().collect()),
        false => Ok(BTreeMap::new()),
    };
    let kernels = subject.kernels().into_iter().map(str::to_owned).collect();
    match barriers {
        Ok(barriers) => Row { spec, kernels, told, barriers },
        Err(error) => Row { spec, kernels, told: Err(error), barriers: BTreeMap::new() },
    }
}

fn faults(row: &Row) -> usize {
    row.told.as_ref().map_or(0, Vec::len)
}

fn print(row: &Row) {
    match &row.told {
        Ok(faults) => faults.iter().for_each(|fault| println!("FAULT {}\n  {fault}", row.spec)),
        // Which names the problem.
        Err(SanitizeError::Case(error)) => println!("not run: {error}"),
        Err(error) => println!("not run: {}: {error}", row.spec),
    }
}

impl Row {
    fn json(&self) -> serde_json::Value {
        let (faults, not_run) = match &self.told {
            Ok(faults) => (&faults[..], None),
            Err(error) => (&[][..], Some(error.to_string())),
        };
        serde_json::json!({
            "problem": self.spec.to_string(), "kernels": self.kernels, "faults": faults,
            "not_run": not_run,
        })
    }
}
