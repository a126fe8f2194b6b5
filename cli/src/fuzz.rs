//! `dynconv fuzz`: draws problems as long as one likes.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dynconv_suite::fuzz::{Failure, Tally, Until, fuzz};
use indicatif::ProgressBar;

use crate::jobs::JobsArgs;
use crate::{AdapterArgs, JsonArgs, adapter_json, adapter_line};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long to go on
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    minutes: f64,
    /// Stop after this many problems instead
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    problems: Option<usize>,
    /// Where the problems follow from: the same seed draws the same ones
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Print each problem before it runs: with --jobs 1 the last one is what hangs or crashes the driver
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    jobs: JobsArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        options.minutes.is_finite() && (0.0..1e6).contains(&options.minutes),
        "--minutes {}: needs a number from 0 to a million",
        options.minutes
    );
    let contexts = options.jobs.contexts(&options.adapter, options.problems.unwrap_or(usize::MAX))?;
    let caps = contexts[0].caps();
    println!("{}; seed {}", adapter_line(caps), options.seed);
    let until = match options.problems {
        Some(count) => Until::Problems(count),
        None => Until::Elapsed(Duration::from_secs_f64(options.minutes * 60.0)),
    };
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut failures = Vec::new();
    let trace = |spec: &dynconv_suite::spec::Spec| {
        if options.trace {
            println!("{spec}");
        }
    };
    let tally = fuzz(&contexts, options.seed, until, trace, |tally, failure| {
        bar.set_message(summary(&tally));
        if let Some(failure) = failure {
            bar.suspend(|| print_failure(failure));
            failures.push(failure.clone());
        }
    });
    bar.finish_and_clear();
    println!("{}", summary(&tally));
    options.json.write(&serde_json::json!({
        "adapter": adapter_json(caps),
        "seed": options.seed,
        "problems": tally.problems,
        "checks": tally.checks,
        "refused": tally.refused,
        "failures": failures.iter().map(|f| serde_json::json!({
            "law": f.law.name, "problem": f.spec.to_string(), "drawn": f.drawn.to_string(), "found": f.found,
        })).collect::<Vec<_>>(),
    }))?;
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(tally: &Tally) -> String {
    let Tally { problems, checks, refused, failures } = tally;
    format!("{problems} problems, {checks} checks, {refused} refused, {failures} failures")
}

fn print_failure(failure: &Failure) {
    println!("FAILED {}: {}", failure.law.name, failure.law.says);
    println!("  {}", failure.found);
    println!("  drawn:     {}", failure.drawn);
    println!("  reproduce: dynconv check --law {} --case \"{}\"", failure.law.name, failure.spec);
}
