//! `dynconv replay`: what `dynconv check --report` recorded, run again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use dynconv::Context;
use dynconv_suite::recorded::Recorded;
use dynconv_suite::report::{Broken, Report};
use dynconv_suite::sanitize::Subject;

use crate::{AdapterArgs, JsonArgs, adapter_json, adapter_line, stop};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What `dynconv check --report` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Run it in the interpreter of `sanitize`, to know whether the shaders themselves are right
    #[arg(long)]
    interpreter: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// What runs are repeated on.
enum Machine {
    Adapter(Box<Context>),
    Interpreter { subgroup_size: usize },
}

impl Machine {
    fn name(&self) -> String {
        match self {
            Self::Adapter(context) => adapter_line(context.caps()),
            Self::Interpreter { .. } => "the interpreter".to_owned(),
        }
    }

    /// What is wrong with a run.
    fn faults(&self, run: &Recorded) -> anyhow::Result<Vec<String>> {
        Ok(match self {
            Self::Adapter(context) => run.run(context)?.into_iter().collect(),
            Self::Interpreter { subgroup_size } => {
                Subject::recorded(run.clone(), *subgroup_size)?.faults()?
            }
        })
    }
}

/// The report in a file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Report> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Report::parse(&text).with_context(|| path.display().to_string())
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let report = read(&options.file)?;
    let json = options.json.open()?;
    stop::listen()?;
    let machine = match options.interpreter {
        false => Machine::Adapter(Box::new(options.adapter.context()?)),
        true => Machine::Interpreter { subgroup_size: report.device.subgroup_size() },
    };
    println!(
        "recorded on {} ({}), {}",
        report.device.name, report.device.driver, report.device.backend
    );
    println!("repeated on {}", machine.name());
    let mut rows = Vec::new();
    let [mut right, mut wrong] = [0, 0];
    for Broken { problem, run, found, .. } in &report.problems {
        if stop::is_asked() {
            break;
        }
        let Some(run) = run else { continue };
        let faults = machine.faults(run).with_context(|| problem.clone())?;
        let verdict = if faults.is_empty() { "right" } else { "WRONG" };
        println!("{verdict} {}", run.name);
        println!(
            "  recorded: {}",
            found.as_deref().unwrap_or("right by itself, only the laws show the fault")
        );
        faults.iter().for_each(|fault| println!("  now: {fault}"));
        *(if faults.is_empty() { &mut right } else { &mut wrong }) += 1;
        rows.push(serde_json::json!({
            "problem": problem, "run": run.name, "recorded": found, "faults": faults,
        }));
    }
    println!(
        "{} problems, {} runs: {right} right, {wrong} wrong",
        report.problems.len(),
        right + wrong
    );
    let adapter = match &machine {
        Machine::Adapter(context) => adapter_json(context.caps()),
        Machine::Interpreter { .. } => serde_json::Value::Null,
    };
    json.write_json(
        &serde_json::json!({ "adapter": adapter, "stopped": stop::is_asked(), "runs": rows }),
    )?;
    anyhow::ensure!(right + wrong > 0 || stop::is_asked(), "the report has no recorded run");
    Ok(stop::status(wrong == 0))
}
