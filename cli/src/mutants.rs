//! `dynconv mutants`: plants faults in the shaders and counts how many the laws find.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::Utc;
use clap::Args;
use dynconv_suite::catalogue;
use dynconv_suite::interpreter::Interpreter;
use dynconv_suite::mutants::{Fate, Mutant, all, explained, sample};
use serde::{Deserialize, Serialize};
use wait_timeout::ChildExt as _;

use crate::jobs::each;
use crate::progress::Progress;
use crate::target::Target;
use crate::{AdapterArgs, Usage, adapter_line, stop};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many mutants, drawn evenly from all shaders; all there are if there are fewer
    #[arg(long, value_name = "N", default_value_t = 240)]
    sample: usize,
    /// Seed of the drawing
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only the interpreter of `sanitize` judges, which takes a second a mutant and no adapter
    #[arg(long)]
    without_laws: bool,
    /// Only the laws judge, on the adapter
    #[arg(long, conflicts_with = "without_laws")]
    without_interpreter: bool,
    /// Only mutants of this file of `shaders/`; may be given again
    #[arg(long, value_name = "FILE")]
    file: Vec<String>,
    /// Processes at a time
    #[arg(long, value_name = "N", default_value = "2")]
    jobs: NonZeroUsize,
    /// Seconds after which a mutant counts as hanging, and killed
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Also write the table to this file as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Do not try again what this file says was killed, and write it anew: for a run in several
    /// parts, or after a change to a few shaders
    #[arg(long, value_name = "FILE", conflicts_with = "only")]
    known: Option<PathBuf>,
    /// Hold this mutant alone to the laws, in this process
    #[arg(long, value_name = "NUMBER", conflicts_with = "without_laws")]
    only: Option<usize>,
    #[command(flatten)]
    adapter: AdapterArgs,
}

/// The part that must be killed of all mutants without an explanation: a single survivor in a
/// sample of eighty fails.
const NEEDED: f64 = 0.99;

/// Exit statuses by which a process that tried a mutant tells its fate; `--help` names them. A
/// crash or a signal is a kill too.
const SURVIVED: u8 = 0;
const KILLED: u8 = 10;
const STILLBORN: u8 = 11;
const NOT_RUN: u8 = 12;

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mutants = all();
    if let Some(number) = options.only {
        return one(options, &mutants, number);
    }
    let chosen = chosen(options, &mutants)?;
    let mut known = known(options.known.as_deref())?;
    let [markdown, to_know] =
        [&options.markdown, &options.known].map(|path| Target::open(path.as_deref()));
    let (markdown, to_know) = (markdown?, to_know?);
    stop::listen()?;
    let judges = judges(options)?;
    let header = format!("{}, {}", judges.join(" and "), Utc::now().format("%Y-%m-%d"));
    let count = chosen.len();
    let (settled, chosen): (Vec<usize>, Vec<usize>) =
        chosen.into_iter().partition(|&number| known.contains_key(&mutants[number].name()));
    let mut fates: Fates =
        settled.into_iter().map(|number| (number, known[&mutants[number].name()])).collect();
    fates.extend(try_all(options, &mutants, chosen)?);
    fates.sort_unstable_by_key(|(number, _)| *number);
    let killed = fates.iter().filter(|(_, told)| !matches!(told, Told::Survived | Told::NotRun));
    known.extend(killed.map(|(number, told)| (mutants[*number].name(), *told)));
    to_know.write_json(&known)?;
    let table = Table::new(&mutants, &fates);
    let text = table.markdown(&header, &mutants);
    println!("{text}");
    markdown.write(&text)?;
    if stop::is_asked() {
        println!("stopped after {} of {count} mutants", fates.len());
    } else {
        anyhow::ensure!(
            table.is_any_run(),
            "no mutant was run: none compiles, or none is in a shader that this device runs"
        );
    }
    Ok(stop::status(table.rate() >= NEEDED))
}

fn chosen(options: &Options, mutants: &[Mutant]) -> Result<Vec<usize>, Usage> {
    Usage::unless(options.sample > 0, || "--sample: expected at least 1, found 0".into())?;
    for file in &options.file {
        Usage::unless(mutants.iter().any(|mutant| mutant.file == file), || {
            format!("no shader file \"{file}\"")
        })?;
    }
    let is_asked = |mutant: &Mutant| {
        options.file.is_empty() || options.file.iter().any(|file| file == mutant.file)
    };
    Ok(sample(mutants, is_asked, options.sample, options.seed))
}

/// Who judges, as a table says it.
fn judges(options: &Options) -> anyhow::Result<Vec<String>> {
    let mut judges = Vec::new();
    if !options.without_interpreter {
        judges.push("in the interpreter".to_owned());
    }
    if !options.without_laws {
        judges.push(format!("by the laws on {}", adapter_line(options.adapter.context()?.caps())));
    }
    Ok(judges)
}

/// A child's part: one mutant, its fate as the exit status.
fn one(options: &Options, mutants: &[Mutant], number: usize) -> anyhow::Result<ExitCode> {
    let wrong = || Usage(format!("--only {number}: the last mutant is {}", mutants.len() - 1));
    let mutant = mutants.get(number).ok_or_else(wrong)?;
    println!(
        "{}:{} {}\n  - {}\n  + {}",
        mutant.file,
        mutant.line,
        mutant.slip,
        mutant.original.trim(),
        mutant.mutated.trim()
    );
    // A shader may hang, and nobody may be left who waits for it.
    let limit = Duration::from_secs(options.timeout.saturating_add(5));
    thread::spawn(move || {
        thread::sleep(limit);
        process::exit(LATE);
    });
    let context = options.adapter.context()?;
    let status = match mutant.by_laws(&context, &catalogue::problems(true)?) {
        Fate::Survived => {
            println!("survived");
            SURVIVED
        }
        Fate::Killed(law, spec, found) => {
            println!("killed by {law}: {spec}\n  {found}");
            KILLED
        }
        Fate::Stillborn(message) => {
            println!("does not compile: {message}");
            STILLBORN
        }
        Fate::NotRun => {
            println!("not run on this device");
            NOT_RUN
        }
    };
    Ok(ExitCode::from(status))
}

/// Fates by the names of mutants, from a file that need not be there.
fn known(path: Option<&Path>) -> anyhow::Result<BTreeMap<String, Told>> {
    let Some(path) = path.filter(|path| path.exists()) else { return Ok(BTreeMap::new()) };
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Told {
    /// The interpreter found the fault.
    Seen,
    /// A law broke.
    Killed,
    /// The shader was still running when its time was over.
    Hung,
    Stillborn,
    Survived,
    NotRun,
}

impl From<Fate> for Told {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Killed(..) => Self::Seen,
            Fate::Stillborn(_) => Self::Stillborn,
            Fate::Survived => Self::Survived,
            Fate::NotRun => Self::NotRun,
        }
    }
}

/// First in the interpreter; what survives there is held to the laws, each mutant in a process of
/// its own: it may hang or crash the driver.
fn try_all(options: &Options, mutants: &[Mutant], chosen: Vec<usize>) -> anyhow::Result<Fates> {
    let workers = vec![(); options.jobs.get()];
    let (mut fates, left) = match options.without_interpreter {
        true => (Vec::new(), chosen.into_iter().map(|number| (number, Told::NotRun)).collect()),
        false => in_interpreter(&workers, mutants, chosen)?,
    };
    if options.without_laws {
        fates.extend(left);
    } else {
        fates.extend(by_laws(options, &workers, left)?);
    }
    Ok(fates)
}

/// Numbers of mutants, and what became of them.
type Fates = Vec<(usize, Told)>;

/// What the interpreter says of these mutants, and what is left of them.
fn in_interpreter(
    workers: &[()],
    mutants: &[Mutant],
    chosen: Vec<usize>,
) -> anyhow::Result<(Fates, Fates)> {
    let interpreter = Interpreter::new()?;
    let progress = Progress::new(Some(chosen.len()), "mutants in the interpreter");
    let fates = each(workers, chosen, |(), number| {
        let told = Told::from(interpreter.fate(&mutants[number]));
        progress.inc(1);
        ControlFlow::Continue((number, told))
    });
    progress.finish();
    Ok(fates.into_iter().partition(|(_, told)| matches!(told, Told::Seen | Told::Stillborn)))
}

/// What the laws say of these mutants; where they do not run one, it remains what it was.
fn by_laws(options: &Options, workers: &[()], left: Fates) -> anyhow::Result<Fates> {
    let progress = Progress::new(Some(left.len()), "mutants held to the laws");
    let fates =
        each(workers, left, |(), (number, before)| match try_one(options, number, &progress) {
            Ok(Some(told)) => {
                let told = if told == Told::NotRun { before } else { told };
                if told == Told::Survived {
                    progress.suspend(|| println!("survivor: {number}"));
                }
                progress.inc(1);
                ControlFlow::Continue(Ok(Some((number, told))))
            }
            Ok(None) => ControlFlow::Break(Ok(None)),
            Err(error) => ControlFlow::Break(Err(error)),
        });
    progress.finish();
    fates.into_iter().filter_map(Result::transpose).collect()
}

/// The exit status of a child that is late, which counts as hung.
const LATE: i32 = 14;

/// How often a process is looked after.
const LOOK: Duration = Duration::from_millis(100);

/// What became of a mutant; nothing if the run was stopped meanwhile.
fn try_one(options: &Options, number: usize, progress: &Progress) -> anyhow::Result<Option<Told>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["mutants", "--only", &number.to_string()]);
    if let Some(adapter) = &options.adapter.adapter {
        command.args(["--adapter", adapter]);
    }
    if options.adapter.matrices {
        command.arg("--matrices");
    }
    // Ctrl-C is for this process alone: a mutant that it ended would count as killed.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let start = Instant::now();
    let status = loop {
        let status = child.wait_timeout(LOOK)?;
        progress.look();
        let is_late = start.elapsed() >= Duration::from_secs(options.timeout);
        if status.is_some() || is_late || stop::is_asked() {
            break status;
        }
    };
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    if stop::is_asked() {
        return Ok(None);
    }
    let Some(status) = status else { return Ok(Some(Told::Hung)) };
    Ok(Some(match status.code() {
        Some(LATE) => Told::Hung,
        Some(code) if code == i32::from(SURVIVED) => Told::Survived,
        Some(code) if code == i32::from(STILLBORN) => Told::Stillborn,
        Some(code) if code == i32::from(NOT_RUN) => Told::NotRun,
        Some(1..=3) => anyhow::bail!(
            "mutant {number} could not be tried: run `dynconv mutants --only {number}`"
        ),
        _ => Told::Killed,
    }))
}

/// In the interpreter, by a law, hung, survived and explained, survived, not compiled, not run.
const COLUMNS: usize = 7;

/// Fates by file.
struct Table {
    rows: BTreeMap<&'static str, [usize; COLUMNS]>,
    /// Survivors and their explanations.
    survivors: Vec<(usize, Option<&'static str>)>,
}

impl Table {
    fn new(mutants: &[Mutant], fates: &[(usize, Told)]) -> Self {
        let mut table = Self { rows: BTreeMap::new(), survivors: Vec::new() };
        for &(number, fate) in fates {
            let explanation = explained(&mutants[number]);
            let column = match (fate, explanation) {
                (Told::Seen, _) => 0,
                (Told::Killed, _) => 1,
                (Told::Hung, _) => 2,
                (Told::Survived, Some(_)) => 3,
                (Told::Survived, None) => 4,
                (Told::Stillborn, _) => 5,
                (Told::NotRun, _) => 6,
            };
            table.rows.entry(mutants[number].file).or_default()[column] += 1;
            if fate == Told::Survived {
                table.survivors.push((number, explanation));
            }
        }
        table
    }

    fn sums(&self) -> [usize; COLUMNS] {
        self.rows.values().fold([0; COLUMNS], |sums, row| std::array::from_fn(|i| sums[i] + row[i]))
    }

    /// Mutants killed, and mutants that could be: those that survive for a reason do not count.
    fn killed(&self) -> [usize; 2] {
        let [seen, killed, hung, _, survived, ..] = self.sums();
        [seen + killed + hung, seen + killed + hung + survived]
    }

    /// Whether any mutant was judged.
    fn is_any_run(&self) -> bool {
        self.sums()[..5].iter().sum::<usize>() > 0
    }

    /// Part killed of those that could be.
    fn rate(&self) -> f64 {
        let [killed, all] = self.killed();
        if all == 0 { 0.0 } else { killed as f64 / all as f64 }
    }

    fn markdown(&self, header: &str, mutants: &[Mutant]) -> String {
        let mut text = String::from("# Mutants\n\n");
        let [killed, all] = self.killed();
        let [.., alike, _, stillborn, not_run] = self.sums();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "`dynconv mutants` {header}: {} of {} mutants tried.\n\n\
             {killed} of {all} killed, {:.1} %; {alike} more survived for a reason that is given \
             below; {stillborn} do not compile and {not_run} run on no such device, and are not \
             counted.\n",
            self.rows.values().flatten().sum::<usize>(),
            mutants.len(),
            100.0 * self.rate(),
        );
        text.push_str(
            "| file | interpreter | laws | hung | survived, explained | \
             survived | not compiled | not run |\n",
        );
        text.push_str("|---|---|---|---|---|---|---|---|\n");
        for (file, row) in &self.rows {
            let cells: String = row.iter().map(|count| format!(" {count} |")).collect();
            let _ = writeln!(text, "| {file} |{cells}");
        }
        text.push_str("\n## Survivors\n\n");
        for &(number, explanation) in &self.survivors {
            let Mutant { file, line, original, mutated, .. } = &mutants[number];
            let (original, mutated) = (original.trim(), mutated.trim());
            let reason = explanation.unwrap_or("NOT EXPLAINED");
            let _ = writeln!(
                text,
                "* {number}, {file}:{line}: `{original}` becomes `{mutated}`: {reason}"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_that_were_not_run_prove_nothing() {
        let mutants = all();
        let is_any_run = |fates: &[Told]| {
            let fates: Vec<_> = fates.iter().map(|fate| (0, *fate)).collect();
            Table::new(&mutants, &fates).is_any_run()
        };
        assert!(!is_any_run(&[Told::NotRun, Told::Stillborn]));
        assert!(
            [Told::Seen, Told::Killed, Told::Hung, Told::Survived]
                .iter()
                .all(|fate| is_any_run(&[Told::NotRun, *fate]))
        );
    }
}
