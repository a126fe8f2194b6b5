//! `dynconv check`: holds an adapter and its driver to the laws of the correctness suite.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Cell, CellAlignment, Color, Table};
use dynconv::{Caps, Context, Kernel};
use dynconv_suite::catalogue;
use dynconv_suite::check::{Outcome, Verdict, check, kernels};
use dynconv_suite::expect::{Expectation, KNOWN, Standing, judge, parse};
use dynconv_suite::laws::{LAWS, Law};
use dynconv_suite::spec::Spec;
use dynconv_suite::variants::noop_like;
use indicatif::{ProgressBar, ProgressStyle};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::jobs::{JobsArgs, each};
use crate::{AdapterArgs, JsonArgs, adapter_json, adapter_line};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Options {
    /// Each kernel and option once (the default)
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Also combinations of options, and sizes past tiles and limits
    #[arg(long)]
    full: bool,
    /// Only this problem, as a failure prints it; may be given again
    #[arg(long, value_name = "PROBLEM", conflicts_with_all = ["quick", "full", "cases"])]
    case: Vec<String>,
    /// Only the problems in this file, one a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "full"])]
    cases: Option<PathBuf>,
    /// Only this law; may be given again
    #[arg(long, value_name = "NAME")]
    law: Vec<String>,
    /// Only problems that run this kernel
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Stop at the first failure
    #[arg(long)]
    fail_fast: bool,
    /// List the laws and what they say, and run nothing
    #[arg(long)]
    laws: bool,
    #[command(flatten)]
    jobs: JobsArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
    /// Also write the results to this file as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.laws {
        LAWS.iter().for_each(|law| println!("{:<17} {}", law.name, law.says));
        return Ok(ExitCode::SUCCESS);
    }
    let laws = laws(&options.law)?;
    let problems = problems(options)?;
    let known = parse(KNOWN)?;
    let contexts = options.jobs.contexts(&options.adapter, problems.len())?;
    print_header(contexts[0].caps());
    let run = Run::new(options, &contexts, &laws, &known, problems);
    println!("{}", run.table());
    run.print_notes();
    run.print_summary();
    options.json.write(&run.json())?;
    if let Some(path) = &options.junit {
        let text = run.junit().to_string()?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    anyhow::ensure!(!run.outcomes.is_empty(), "no problem was run: nothing matches these options");
    Ok(if run.count(|s| s == Standing::Broken) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The laws of these names; all if there are none.
fn laws(names: &[String]) -> anyhow::Result<Vec<&'static Law>> {
    if names.is_empty() {
        return Ok(LAWS.iter().collect());
    }
    let all = || LAWS.map(|law| law.name).join(", ");
    names
        .iter()
        .map(|name| Law::find(name).with_context(|| format!("no law \"{name}\"; there are {}", all())))
        .collect()
}

fn problems(options: &Options) -> anyhow::Result<Vec<Spec>> {
    if let Some(name) = &options.kernel {
        let all = Kernel::ALL.map(Kernel::name);
        anyhow::ensure!(all.contains(&name.as_str()), "no kernel \"{name}\"; there are {}", all.join(", "));
    }
    if !options.case.is_empty() {
        return options.case.iter().map(|line| line.parse().with_context(|| format!("--case \"{line}\""))).collect();
    }
    if let Some(path) = &options.cases {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        return catalogue::parse(&text).with_context(|| path.display().to_string());
    }
    Ok(catalogue::problems(options.full)?)
}

fn print_header(caps: &Caps) {
    println!("{}", adapter_line(caps));
    println!(
        "{} invocations and {} KiB of workgroup memory a workgroup, {} storage buffers, bindings of {} MiB, subgroups of {} to {}, \
         f16 {}",
        caps.max_invocations,
        caps.max_workgroup_memory >> 10,
        caps.max_storage_buffers,
        caps.max_storage_binding >> 20,
        caps.subgroup_size[0],
        caps.subgroup_size[1],
        if caps.f16 { "yes" } else { "no" },
    );
}

/// Laws that run other convolution kernels beside the problem's own: if they break, they say nothing of which.
const RUN_OTHERS: [&str; 3] = ["kernels", "blocks", "adjoint"];

/// All that came of a run.
struct Run<'a> {
    caps: Caps,
    outcomes: Vec<(Outcome, Standing<'a>)>,
    problems: usize,
    seconds: f64,
}

impl<'a> Run<'a> {
    fn new(
        options: &Options,
        contexts: &[Context],
        laws: &[&'static Law],
        known: &'a [Expectation],
        mut problems: Vec<Spec>,
    ) -> Self {
        let start = Instant::now();
        let caps = contexts[0].caps().clone();
        if let Some(kernel) = &options.kernel {
            // Nothing is compiled to find out what a problem runs.
            let planned = noop_like(&contexts[0]);
            problems.retain(|spec| kernels(&planned, spec).contains(&kernel.as_str()));
        }
        let bar = ProgressBar::new(problems.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} problems, {elapsed} {msg}") {
            bar.set_style(style);
        }
        let outcomes = each(contexts, problems, |context, spec| {
            let mut outcomes = Vec::new();
            for outcome in check(context, &spec, laws) {
                let standing = judge(known, &caps, &outcome);
                if standing == Standing::Broken {
                    bar.suspend(|| print_failure(&outcome));
                }
                outcomes.push((outcome, standing));
                if options.fail_fast && standing == Standing::Broken {
                    return ControlFlow::Break(outcomes);
                }
            }
            bar.inc(1);
            ControlFlow::Continue(outcomes)
        });
        bar.finish_and_clear();
        let problems = outcomes.len();
        let outcomes = outcomes.into_iter().flatten().collect();
        Self { caps, outcomes, problems, seconds: start.elapsed().as_secs_f64() }
    }

    fn count(&self, of: impl Fn(Standing<'_>) -> bool) -> usize {
        self.outcomes.iter().filter(|(_, standing)| of(*standing)).count()
    }

    /// Checks by law and kernel: how many were run, and how many of them are broken.
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
        // Names in two lines, so that all kernels fit a terminal.
        let kernels = Kernel::ALL.map(|kernel| kernel.name().replace('_', "\n"));
        table.set_header(std::iter::once("law".to_string()).chain(kernels));
        for law in LAWS.iter().filter(|law| self.outcomes.iter().any(|(outcome, _)| outcome.law.name == law.name)) {
            let cells = Kernel::ALL.map(|kernel| self.cell(kernel.name(), law.name));
            table.add_row(std::iter::once(Cell::new(law.name)).chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
            column.set_padding((0, 1));
        }
        table
    }

    fn cell(&self, kernel: &str, law: &str) -> Cell {
        let of_cell =
            |(outcome, _): &&(Outcome, Standing<'_>)| outcome.law.name == law && outcome.kernels.contains(&kernel);
        let run: Vec<_> = self.outcomes.iter().filter(of_cell).filter(|(_, s)| *s != Standing::NotRun).collect();
        let broken = run.iter().filter(|(_, s)| *s == Standing::Broken).count();
        match (run.len(), broken) {
            (0, _) => Cell::new("-"),
            (count, 0) => Cell::new(count),
            (count, broken) => Cell::new(format!("{broken}/{count} BAD")).fg(Color::Red),
        }
    }

    /// What is neither fine nor broken, each reason once.
    fn print_notes(&self) {
        let mut notes: BTreeMap<String, usize> = BTreeMap::new();
        for (outcome, standing) in &self.outcomes {
            let note = match (standing, &outcome.verdict) {
                (Standing::NotRun, Verdict::Refused(reason)) => format!("not run: {reason}"),
                (Standing::Known(known), _) => format!("known fault of this driver: {}", known.reason),
                (Standing::Mended(known), _) => {
                    format!("UNEXPECTED PASS, the expectation can go: {} ({})", known.reason, outcome.spec)
                }
                _ => continue,
            };
            *notes.entry(note).or_default() += 1;
        }
        notes.iter().for_each(|(note, count)| println!("{count:>4} {note}"));
        for (kernel, bad, all) in self.suspects() {
            println!("suspect: {kernel}, {bad} of its {all} checks are broken");
        }
    }

    /// Kernels that every broken check runs, and of these the ones of which the largest share of checks is broken: several that always run
    /// together cannot be told apart. If two faults have nothing in common, all kernels are compared.
    fn suspects(&self) -> Vec<(&'static str, usize, usize)> {
        let counts = |(outcome, _): &&(Outcome, Standing<'_>)| !RUN_OTHERS.contains(&outcome.law.name);
        let broken: Vec<&Outcome> = self
            .outcomes
            .iter()
            .filter(counts)
            .filter(|(_, standing)| *standing == Standing::Broken)
            .map(|(outcome, _)| outcome)
            .collect();
        let in_all = |kernel: &str| broken.iter().all(|outcome| outcome.kernels.contains(&kernel));
        let has_common = Kernel::ALL.iter().any(|kernel| in_all(kernel.name()));
        let mut suspects = Vec::new();
        for kernel in Kernel::ALL.map(Kernel::name) {
            let runs = |outcome: &Outcome| outcome.kernels.contains(&kernel);
            let bad = broken.iter().filter(|outcome| runs(outcome)).count();
            let all = self.outcomes.iter().filter(counts).filter(|(outcome, _)| runs(outcome)).count();
            if bad > 0 && (in_all(kernel) || !has_common) {
                suspects.push((kernel, bad, all));
            }
        }
        let share = |&(_, bad, all): &(&str, usize, usize)| bad as f64 / all as f64;
        let largest = suspects.iter().map(share).fold(0.0, f64::max);
        suspects.retain(|suspect| share(suspect) >= largest);
        suspects
    }

    fn print_summary(&self) {
        println!(
            "{} problems, {} checks: {} kept, {} broken, {} known, {} not run, in {:.0} s",
            self.problems,
            self.outcomes.len(),
            self.count(|s| matches!(s, Standing::Fine | Standing::Mended(_))),
            self.count(|s| s == Standing::Broken),
            self.count(|s| matches!(s, Standing::Known(_))),
            self.count(|s| s == Standing::NotRun),
            self.seconds,
        );
    }

    fn json(&self) -> serde_json::Value {
        let rows: Vec<_> = self
            .outcomes
            .iter()
            .map(|(outcome, standing)| {
                let (verdict, found) = words(outcome, *standing);
                serde_json::json!({
                    "problem": outcome.spec.to_string(), "law": outcome.law.name, "kernels": outcome.kernels,
                    "verdict": verdict, "found": found, "seconds": outcome.time.as_secs_f64(),
                })
            })
            .collect();
        serde_json::json!({
            "adapter": adapter_json(&self.caps),
            "problems": self.problems, "seconds": self.seconds, "checks": rows,
        })
    }

    fn junit(&self) -> Report {
        let mut report = Report::new("dynconv check");
        let mut suite = TestSuite::new(format!("{} ({})", self.caps.name, self.caps.driver));
        for (outcome, standing) in &self.outcomes {
            let (verdict, found) = words(outcome, *standing);
            let mut status = match standing {
                Standing::Broken => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Standing::NotRun | Standing::Known(_) => TestCaseStatus::skipped(),
                Standing::Fine | Standing::Mended(_) => TestCaseStatus::success(),
            };
            if *standing != Standing::Fine {
                status.set_message(format!("{verdict}: {found}"));
            }
            let mut case = TestCase::new(outcome.spec.to_string(), status);
            case.set_classname(outcome.law.name).set_time(outcome.time);
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
        report
    }
}

/// A standing in one word, and what was found.
fn words<'a>(outcome: &'a Outcome, standing: Standing<'a>) -> (&'static str, &'a str) {
    let found = match &outcome.verdict {
        Verdict::Kept => "",
        Verdict::Refused(found) | Verdict::Broken(found) => found,
    };
    match standing {
        Standing::Fine => ("kept", found),
        Standing::Broken => ("broken", found),
        Standing::NotRun => ("not run", found),
        Standing::Known(known) => ("known", &known.reason),
        Standing::Mended(known) => ("mended", &known.reason),
    }
}

fn print_failure(outcome: &Outcome) {
    let Verdict::Broken(found) = &outcome.verdict else { return };
    println!("BROKEN {}: {}", outcome.law.name, outcome.law.says);
    println!("  {found}");
    println!("  runs {}", outcome.kernels.join(", "));
    println!("  reproduce: dynconv check --law {} --case \"{}\"", outcome.law.name, outcome.spec);
}
