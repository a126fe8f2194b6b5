//! `dynconv fuzz`: draws problems as long as one likes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dynconv_suite::fuzz::{Failure, Tally, Until, fuzz};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::jobs::JobsArgs;
use crate::progress::Progress;
use crate::target::Target;
use crate::{AdapterArgs, JsonArgs, Usage, adapter_json, adapter_line, stop};

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
    /// Print each problem before it runs: with --jobs 1 the last one is what hangs or crashes the
    /// driver
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    jobs: JobsArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
    /// Also write the results to this file as JUnit XML; `-` as with --json
    #[arg(long, value_name = "FILE|-")]
    junit: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let minutes = options.minutes;
    Usage::unless((0.0..1e6).contains(&minutes), || {
        format!("--minutes {minutes}: needs a number from 0 to a million")
    })?;
    let (json, junit) = (options.json.open()?, Target::open(options.junit.as_deref())?);
    stop::listen()?;
    let contexts =
        options.jobs.contexts(&options.adapter, options.problems.unwrap_or(usize::MAX))?;
    let caps = contexts[0].caps();
    println!("{}; seed {}", adapter_line(caps), options.seed);
    let until = match options.problems {
        Some(count) => Until::Problems(count),
        None => Until::Elapsed(Duration::from_secs_f64(minutes * 60.0)),
    };
    let progress = Progress::new(None, "problems");
    let mut failures = Vec::new();
    let trace = |spec: &dynconv_suite::spec::Spec| {
        if options.trace {
            println!("{spec}");
        }
    };
    let tally = fuzz(&contexts, options.seed, until, stop::is_asked, trace, |tally, failure| {
        progress.set_message(summary(&tally));
        if let Some(failure) = failure {
            progress.suspend(|| print_failure(failure));
            failures.push(failure.clone());
        }
    });
    progress.finish();
    println!("{}{}", if stop::is_asked() { "stopped: " } else { "" }, summary(&tally));
    let written = json.write_json(&serde_json::json!({
        "adapter": adapter_json(caps),
        "seed": options.seed,
        "stopped": stop::is_asked(),
        "problems": tally.problems,
        "checks": tally.checks,
        "refused": tally.refused,
        "failures": failures.iter().map(|f| serde_json::json!({
            "law": f.law.name, "problem": f.spec.to_string(), "drawn": f.drawn.to_string(),
            "found": f.found,
        })).collect::<Vec<_>>(),
    }));
    let suite = format!("{} ({}), seed {}", caps.name, caps.driver, options.seed);
    junit.write(&report(suite, &tally, &failures).to_string()?)?;
    written?;
    if !stop::is_asked() {
        anyhow::ensure!(tally.checks > 0, "nothing was checked: {}", summary(&tally));
    }
    Ok(stop::status(failures.is_empty()))
}

/// Each failure is a case; so is all that held.
fn report(suite: String, tally: &Tally, failures: &[Failure]) -> Report {
    let mut suite = TestSuite::new(suite);
    let held = if tally.checks > 0 { TestCaseStatus::success() } else { TestCaseStatus::skipped() };
    suite.add_test_case(TestCase::new(summary(tally), held));
    for failure in failures {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(failure.found.clone());
        let mut case = TestCase::new(failure.spec.to_string(), status);
        case.set_classname(failure.law.name);
        suite.add_test_case(case);
    }
    let mut report = Report::new("dynconv fuzz");
    report.add_test_suite(suite);
    report
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
