//! `dynconv check`: holds an adapter and its driver to the laws of the correctness suite.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Cell, CellAlignment, Color, Table};
use dynconv::kernels::Kernel;
use dynconv::{Caps, Context};
use dynconv_suite::catalogue::{self, LineError};
use dynconv_suite::check::{Outcome, Verdict, check, kernels, possible};
use dynconv_suite::expect::{Expectation, KNOWN, Standing, judge, parse};
use dynconv_suite::laws::{LAWS, Law};
use dynconv_suite::report::{Broken, Report};
use dynconv_suite::spec::{Spec, SpecError};
use dynconv_suite::variants::noop_like;
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use crate::jobs::{JobsArgs, each};
use crate::progress::Progress;
use crate::target::Target;
use crate::{AdapterArgs, JsonArgs, Usage, adapter_json, adapter_line, stop};

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
    #[arg(long, exclusive = true)]
    laws: bool,
    #[command(flatten)]
    jobs: JobsArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
    /// Also write the results to this file as JUnit XML; `-` as with --json
    #[arg(long, value_name = "FILE|-")]
    junit: Option<PathBuf>,
    /// Also write what a driver's developer needs of the failures to this file, for `dynconv
    /// replay`; `-` as with --json
    #[arg(long, value_name = "FILE|-")]
    report: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.laws {
        LAWS.iter().for_each(|law| println!("{:<17} {}", law.name, law.says));
        return Ok(ExitCode::SUCCESS);
    }
    let laws = laws(&options.law)?;
    let problems = problems(options)?;
    let named = if options.case.is_empty() { Vec::new() } else { problems.clone() };
    let known = parse(KNOWN)?;
    let (json, junit) = (options.json.open()?, Target::open(options.junit.as_deref())?);
    let report = Target::open(options.report.as_deref())?;
    stop::listen()?;
    let contexts = options.jobs.contexts(&options.adapter, problems.len())?;
    print_header(contexts[0].caps());
    let run = Run::new(options, &contexts, &laws, &known, problems);
    for table in run.tables(usize::from(Table::new().width().unwrap_or(WIDTH))) {
        println!("{table}");
    }
    run.print_notes();
    run.print_summary();
    let written = json.write_json(&run.json());
    junit.write(&run.junit().to_string()?)?;
    if options.report.is_some() {
        // The device of a failure may be lost.
        report.write_json(&run.report(&options.adapter.context()?))?;
    }
    written?;
    let is_broken = run.count(|s| s == Standing::Broken) > 0;
    if !is_broken && !stop::is_asked() {
        run.ensure_checked(&named)?;
    }
    Ok(stop::status(!is_broken))
}

/// The laws of these names; all if there are none.
fn laws(names: &[String]) -> Result<Vec<&'static Law>, Usage> {
    if names.is_empty() {
        return Ok(LAWS.iter().collect());
    }
    let unknown = |name| {
        Usage(format!("no law \"{name}\"; there are {}", LAWS.map(|law| law.name).join(", ")))
    };
    names.iter().map(|name| Law::find(name).ok_or_else(|| unknown(name))).collect()
}

fn problems(options: &Options) -> anyhow::Result<Vec<Spec>> {
    if let Some(name) = &options.kernel {
        let all: Vec<&str> = Kernel::names().collect();
        Usage::unless(all.contains(&name.as_str()), || {
            format!("no kernel \"{name}\"; there are {}", all.join(", "))
        })?;
    }
    if !options.case.is_empty() {
        return Ok(options.case.iter().map(|line| problem(line)).collect::<Result<_, _>>()?);
    }
    if let Some(path) = &options.cases {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let located =
            |LineError { line, error }| Usage(format!("{}:{line}: {error}", path.display()));
        return Ok(catalogue::parse(&text).map_err(located)?);
    }
    Ok(catalogue::problems(options.full)?)
}

/// A problem of the command line.
pub(crate) fn problem(line: &str) -> Result<Spec, Usage> {
    let spec: Result<Spec, SpecError> = line.parse();
    let spec = spec.and_then(|spec| possible(&spec).map(|()| spec));
    spec.map_err(|error| Usage(format!("--case \"{line}\": {error}")))
}

fn print_header(caps: &Caps) {
    println!("{}", adapter_line(caps));
    println!(
        "{} invocations and {} KiB of workgroup memory a workgroup, {} storage buffers, bindings \
         of {} MiB, subgroups of {} to {}, f16 {}",
        caps.max_invocations,
        caps.max_workgroup_memory >> 10,
        caps.max_storage_buffers,
        caps.max_storage_binding >> 20,
        caps.subgroup_size[0],
        caps.subgroup_size[1],
        if caps.f16 { "yes" } else { "no" },
    );
}

/// Columns of a terminal that cannot be asked.
const WIDTH: u16 = 80;

/// Laws that run other convolution kernels beside the problem's own: if they break, they say
/// nothing of which.
const RUN_OTHERS: [&str; 3] = ["kernels", "blocks", "adjoint"];

/// All that came of a run.
struct Run<'a> {
    caps: Caps,
    outcomes: Vec<(Outcome, Standing<'a>)>,
    /// Problems that were to be run.
    asked: usize,
    /// Problems that were run.
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
        let asked = problems.len();
        let progress = Progress::new(Some(asked), "problems");
        let outcomes = each(contexts, problems, |context, spec| {
            let mut outcomes = Vec::new();
            for outcome in check(context, &spec, laws) {
                let standing = judge(known, &caps, &outcome);
                if standing == Standing::Broken {
                    progress.suspend(|| print_failure(&outcome));
                }
                outcomes.push((outcome, standing));
                if stop::is_asked() || (options.fail_fast && standing == Standing::Broken) {
                    return ControlFlow::Break(outcomes);
                }
            }
            progress.inc(1);
            ControlFlow::Continue(outcomes)
        });
        progress.finish();
        let problems = outcomes.len();
        let outcomes = outcomes.into_iter().flatten().collect();
        Self { caps, outcomes, asked, problems, seconds: start.elapsed().as_secs_f64() }
    }

    /// Refuses a run that says nothing: none of its checks was run, or none of those of a problem
    /// that was asked for by name. A problem that runs no kernel on this device keeps the law of
    /// empty sizes all the same.
    fn ensure_checked(&self, named: &[Spec]) -> anyhow::Result<()> {
        anyhow::ensure!(self.asked > 0, "no problem was run: nothing matches these options");
        let is_run = |(outcome, standing): &(Outcome, Standing<'_>)| {
            *standing != Standing::NotRun && !outcome.kernels.is_empty()
        };
        let is_checked =
            |spec: &Spec| self.outcomes.iter().any(|all| is_run(all) && all.0.spec == *spec);
        if let Some(spec) = named.iter().find(|spec| !is_checked(spec)) {
            let is_refused = |standing: Standing<'_>| standing == Standing::NotRun;
            let refused =
                self.outcomes.iter().find(|(outcome, s)| is_refused(*s) && outcome.spec == *spec);
            let why = refused
                .map_or("none of these laws says anything about it", |(outcome, standing)| {
                    words(outcome, *standing).1
                });
            anyhow::bail!("nothing was checked of \"{spec}\": {why}");
        }
        anyhow::ensure!(
            !self.outcomes.is_empty(),
            "nothing was checked: these laws say nothing about these problems"
        );
        anyhow::ensure!(
            self.outcomes.iter().any(is_run),
            "nothing was checked: every problem was refused, for the reasons above"
        );
        Ok(())
    }

    fn count(&self, of: impl Fn(Standing<'_>) -> bool) -> usize {
        self.outcomes.iter().filter(|(_, standing)| of(*standing)).count()
    }

    /// Checks by kernel and law, of those that were run: how many there are, and how many of them
    /// are broken. As many tables as `width` takes.
    fn tables(&self, width: usize) -> Vec<Table> {
        let has = |is_it: &dyn Fn(&Outcome) -> bool| {
            self.outcomes
                .iter()
                .any(|(outcome, standing)| *standing != Standing::NotRun && is_it(outcome))
        };
        let ran = |kernel: &&str| has(&|outcome| outcome.kernels.contains(kernel));
        let kernels: Vec<&str> = Kernel::names().filter(ran).collect();
        let mut laws: Vec<&str> = LAWS
            .map(|law| law.name)
            .into_iter()
            .filter(|law| has(&|o| o.law.name == *law))
            .collect();
        let mut tables = Vec::new();
        while !laws.is_empty() && !kernels.is_empty() {
            let table = |count: usize| self.table(&kernels, &laws[..count]);
            let fits = |count: &usize| {
                table(*count).force_no_tty().lines().all(|line| line.chars().count() <= width)
            };
            let count = (2..=laws.len()).take_while(fits).last().unwrap_or(1);
            tables.push(table(count));
            laws.drain(..count);
        }
        tables
    }

    /// A row a kernel, a column a law.
    fn table(&self, kernels: &[&str], laws: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
        let heads = laws.iter().map(|law| law.replace('-', "-\n"));
        table.set_header(std::iter::once("kernel".to_string()).chain(heads));
        for kernel in kernels {
            let cells = laws.iter().map(|law| self.cell(kernel, law));
            table.add_row(std::iter::once(Cell::new(kernel)).chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 0));
        }
        table
    }

    fn cell(&self, kernel: &str, law: &str) -> Cell {
        let of_cell = |(outcome, _): &&(Outcome, Standing<'_>)| {
            outcome.law.name == law && outcome.kernels.contains(&kernel)
        };
        let run: Vec<_> =
            self.outcomes.iter().filter(of_cell).filter(|(_, s)| *s != Standing::NotRun).collect();
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
                (Standing::Known(known), _) => {
                    format!("known fault of this driver: {}", known.reason)
                }
                (Standing::Mended(known), _) => {
                    format!(
                        "UNEXPECTED PASS, the expectation can go: {} ({})",
                        known.reason, outcome.spec
                    )
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

    /// Kernels that every broken check runs, and of these the ones of which the largest share of
    /// checks is broken: several that always run together cannot be told apart. If two faults
    /// have nothing in common, all kernels are compared.
    fn suspects(&self) -> Vec<(&'static str, usize, usize)> {
        let counts =
            |(outcome, _): &&(Outcome, Standing<'_>)| !RUN_OTHERS.contains(&outcome.law.name);
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
        for kernel in Kernel::names() {
            let runs = |outcome: &Outcome| outcome.kernels.contains(&kernel);
            let bad = broken.iter().filter(|outcome| runs(outcome)).count();
            let all =
                self.outcomes.iter().filter(counts).filter(|(outcome, _)| runs(outcome)).count();
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
        if stop::is_asked() {
            println!("stopped after {} of {} problems", self.problems, self.asked);
        }
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
                    "problem": outcome.spec.to_string(), "law": outcome.law.name,
                    "kernels": outcome.kernels, "verdict": verdict, "found": found,
                    "seconds": outcome.time.as_secs_f64(),
                })
            })
            .collect();
        serde_json::json!({
            "adapter": adapter_json(&self.caps),
            "stopped": stop::is_asked(), "problems": self.problems, "seconds": self.seconds,
            "checks": rows,
        })
    }

    fn report(&self, context: &Context) -> Report {
        let broken = self.outcomes.iter().filter(|(_, standing)| *standing == Standing::Broken);
        let report = Report::new(context, &broken.map(|(outcome, _)| outcome).collect::<Vec<_>>());
        let count =
            |of: fn(&Broken) -> bool| report.problems.iter().filter(|broken| of(broken)).count();
        println!(
            "report: {} broken problems, {} of them recorded; \
             {} of these runs are wrong by themselves",
            report.problems.len(),
            count(|broken| broken.run.is_some()),
            count(|broken| broken.found.is_some()),
        );
        report
    }

    fn junit(&self) -> quick_junit::Report {
        let mut report = quick_junit::Report::new("dynconv check");
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A run in which every kernel kept every law but one, and one problem was refused.
    fn run() -> Run<'static> {
        let spec: Spec = "static batch=1 channels=1x1 input=5 kernel=1".parse().expect("parses");
        let outcome = |law, kernel: Kernel, verdict| Outcome {
            spec: spec.clone(),
            law,
            kernels: vec![kernel.name()],
            verdict,
            time: Duration::ZERO,
        };
        let each = |law| Kernel::ALL.iter().map(move |kernel| outcome(law, *kernel, Verdict::Kept));
        let mut outcomes: Vec<_> =
            LAWS.iter().flat_map(each).map(|outcome| (outcome, Standing::Fine)).collect();
        let broken = outcome(&LAWS[18], Kernel::ALL[3], Verdict::Broken("it".into()));
        outcomes.push((broken, Standing::Broken));
        Run { caps: Caps::webgpu_default(), outcomes, asked: 1, problems: 1, seconds: 0.0 }
    }

    #[test]
    fn tables_fit_the_terminal() {
        for (width, count) in [(80, 4), (120, 2), (200, 1), (30, LAWS.len())] {
            let tables = run().tables(width);
            assert_eq!(tables.len(), count, "{width}: {}", tables[0]);
            let mut lines = tables.iter().flat_map(|table| table.lines().collect::<Vec<_>>());
            assert!(width == 30 || lines.all(|line| line.chars().count() <= width), "{width}");
            let heads: String = tables.iter().map(|table| table.to_string()).collect();
            assert!(heads.contains("1/2 BAD") && heads.contains("conv_depthwise_strip"), "{heads}");
        }
    }

    #[test]
    fn tables_have_what_ran() {
        let mut run = run();
        run.outcomes
            .retain(|(outcome, _)| outcome.kernels == ["aggregate"] && outcome.law.name == "exact");
        let text = run.tables(80)[0].to_string();
        assert!(
            text.contains("aggregate") && text.contains("exact") && !text.contains("conv_"),
            "{text}"
        );
        run.outcomes[0].1 = Standing::NotRun;
        assert!(run.tables(80).is_empty());
        let refused = run.ensure_checked(&[]).expect_err("says nothing").to_string();
        assert!(refused.starts_with("nothing was checked: every problem was refused"), "{refused}");
    }
}
