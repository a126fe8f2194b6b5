//! `dynconv mutants`: plants faults in the shaders and counts how many the laws find.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use dynconv_suite::catalogue;
use dynconv_suite::mutants::{Fate, Mutant, all, explained, sample};
use indicatif::{ProgressBar, ProgressStyle};
use wait_timeout::ChildExt as _;

use crate::jobs::each;
use crate::{AdapterArgs, adapter_line};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many mutants, taken evenly from all shaders; all there are if there are fewer
    #[arg(long, value_name = "N", default_value_t = 240)]
    sample: usize,
    /// Only mutants of this file of `shaders/`; may be given again
    #[arg(long, value_name = "FILE")]
    file: Vec<String>,
    /// Processes at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Seconds after which a mutant counts as hanging, and killed
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Also write the table to this file as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Try this mutant alone, in this process
    #[arg(long, value_name = "NUMBER")]
    only: Option<usize>,
    #[command(flatten)]
    adapter: AdapterArgs,
}

/// Survivors that are not explained may be this part of all, so that a new one does not go unnoticed for long.
const NEEDED: f64 = 0.97;

/// Exit statuses by which a process that tried a mutant tells its fate. A crash or a signal is a kill too.
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
    let fates = try_all(options, &chosen)?;
    let table = Table::new(&mutants, &fates);
    let text = table.markdown(&header(options)?, &mutants);
    println!("{text}");
    if let Some(path) = &options.markdown {
        std::fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if table.rate() >= NEEDED { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(options: &Options, mutants: &[Mutant]) -> anyhow::Result<Vec<usize>> {
    if options.file.is_empty() {
        return Ok(sample(mutants, options.sample));
    }
    for file in &options.file {
        anyhow::ensure!(mutants.iter().any(|mutant| mutant.file == file), "no shader file \"{file}\"");
    }
    let is_asked = |number: &usize| options.file.iter().any(|file| file == mutants[*number].file);
    let of_file: Vec<usize> = (0..mutants.len()).filter(is_asked).collect();
    let count = options.sample.min(of_file.len());
    Ok((0..count).map(|i| of_file[i * of_file.len() / count]).collect())
}

fn header(options: &Options) -> anyhow::Result<String> {
    Ok(adapter_line(options.adapter.context()?.caps()))
}

/// A child's part: one mutant, its fate as the exit status.
fn one(options: &Options, mutants: &[Mutant], number: usize) -> anyhow::Result<ExitCode> {
    let mutant = mutants.get(number).with_context(|| format!("no mutant {number}; there are {}", mutants.len()))?;
    println!(
        "{}:{} {}\n  - {}\n  + {}",
        mutant.file,
        mutant.line,
        mutant.slip,
        mutant.original.trim(),
        mutant.mutated.trim()
    );
    let context = options.adapter.context()?;
    let status = match mutant.fate(&context, &catalogue::problems(true)?) {
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

/// What a process of its own said of a mutant: the shader may hang or crash the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Killed,
    Hung,
    Stillborn,
    Survived,
    NotRun,
}

fn try_all(options: &Options, chosen: &[usize]) -> anyhow::Result<Vec<(usize, Told)>> {
    let bar = ProgressBar::new(chosen.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} mutants, {elapsed} {msg}")?);
    let fates = each(&vec![(); options.jobs.max(1)], chosen.to_vec(), |(), number| match try_one(options, number) {
        Ok(fate) => {
            if fate == Told::Survived {
                bar.suspend(|| println!("survivor: {number}"));
            }
            bar.inc(1);
            ControlFlow::Continue(Ok((number, fate)))
        }
        Err(error) => ControlFlow::Break(Err(error)),
    });
    bar.finish_and_clear();
    fates.into_iter().collect()
}

fn try_one(options: &Options, number: usize) -> anyhow::Result<Told> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["mutants", "--only", &number.to_string()]);
    if let Some(adapter) = &options.adapter.adapter {
        command.args(["--adapter", adapter]);
    }
    if options.adapter.matrices {
        command.arg("--matrices");
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let Some(status) = child.wait_timeout(Duration::from_secs(options.timeout))? else {
        child.kill()?;
        child.wait()?;
        return Ok(Told::Hung);
    };
    Ok(match status.code() {
        Some(code) if code == i32::from(SURVIVED) => Told::Survived,
        Some(code) if code == i32::from(STILLBORN) => Told::Stillborn,
        Some(code) if code == i32::from(NOT_RUN) => Told::NotRun,
        Some(1 | 2) => anyhow::bail!("mutant {number} could not be tried: run `dynconv mutants --only {number}`"),
        _ => Told::Killed,
    })
}

/// Fates by file.
struct Table {
    rows: BTreeMap<&'static str, [usize; 6]>,
    /// Survivors and their explanations.
    survivors: Vec<(usize, Option<&'static str>)>,
}

impl Table {
    fn new(mutants: &[Mutant], fates: &[(usize, Told)]) -> Self {
        let mut table = Self { rows: BTreeMap::new(), survivors: Vec::new() };
        for &(number, fate) in fates {
            let explanation = explained(&mutants[number]);
            let column = match (fate, explanation) {
                (Told::Killed, _) => 0,
                (Told::Hung, _) => 1,
                (Told::Survived, Some(_)) => 2,
                (Told::Survived, None) => 3,
                (Told::Stillborn, _) => 4,
                (Told::NotRun, _) => 5,
            };
            table.rows.entry(mutants[number].file).or_default()[column] += 1;
            if fate == Told::Survived {
                table.survivors.push((number, explanation));
            }
        }
        table
    }

    fn sums(&self) -> [usize; 6] {
        self.rows.values().fold([0; 6], |sums, row| std::array::from_fn(|i| sums[i] + row[i]))
    }

    /// Part killed of those that live and could be killed.
    fn rate(&self) -> f64 {
        let [killed, hung, _, survived, ..] = self.sums();
        let lived = killed + hung + survived;
        if lived == 0 { 0.0 } else { (killed + hung) as f64 / lived as f64 }
    }

    fn markdown(&self, header: &str, mutants: &[Mutant]) -> String {
        let mut text = String::from("# Mutants\n\n");
        let [killed, hung, alike, survived, stillborn, not_run] = self.sums();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "`dynconv mutants` on {header}: {} of {} mutants killed, {:.1} %; {alike} more survived for a reason that is given \
             below; {stillborn} do not compile and {not_run} run on no such device, and are not counted.\n",
            killed + hung,
            killed + hung + survived,
            100.0 * self.rate(),
        );
        text.push_str("| file | killed | of these hung | survived, explained | survived | not compiled | not run |\n|---|---|---|---|---|---|---|\n");
        for (file, [killed, hung, alike, survived, stillborn, not_run]) in &self.rows {
            let _ = writeln!(
                text,
                "| {file} | {} | {hung} | {alike} | {survived} | {stillborn} | {not_run} |",
                killed + hung
            );
        }
        text.push_str("\n## Survivors\n\n");
        for &(number, explanation) in &self.survivors {
            let Mutant { file, line, original, mutated, .. } = &mutants[number];
            let (original, mutated) = (original.trim(), mutated.trim());
            let reason = explanation.unwrap_or("NOT EXPLAINED");
            let _ = writeln!(text, "* {number}, {file}:{line}: `{original}` becomes `{mutated}`: {reason}");
        }
        text
    }
}
