//! `dynconv web`: the shaders in a browser, whose compiler is not ours.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dynconv_suite::web::{self, Adapter, Browser, Summary, WebError};
use indicatif::{ProgressBar, ProgressStyle};

use crate::say::warn;
use crate::{JsonArgs, replay};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What compiles and runs the shaders
    #[arg(long, value_enum, default_value_t = BrowserArg::Chromium)]
    browser: BrowserArg,
    /// The browser's program; for Dawn the folder where `npm install webgpu` was run
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Make pipelines of all shaders, not only of as many as take every constant through the back
    /// end
    #[arg(long)]
    in_full: bool,
    /// Seconds without a word from the browser after which it is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 90,
        value_parser = clap::value_parser!(u64).range(1..))]
    silence: u64,
    /// Only run what `dynconv check --report` recorded of failures
    #[arg(long, value_name = "FILE", conflicts_with = "in_full")]
    replay: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum BrowserArg {
    /// Chromium, headless
    Chromium,
    /// Node with the npm package `webgpu`
    Dawn,
}

/// How often a browser that falls silent is started.
const STARTS: usize = 3;

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    // Before the browser, which may not be there: what is wrong with the file is told on every
    // machine.
    let report = options.replay.as_deref().map(replay::read).transpose()?;
    let program = options.program.as_deref();
    let browser = match options.browser {
        BrowserArg::Chromium => Browser::chromium(program)?,
        BrowserArg::Dawn => Browser::dawn(program)?,
    };
    let json = options.json.open()?;
    let silence = Duration::from_secs(options.silence);
    let (modules, cases) = match report {
        Some(report) => {
            (Vec::new(), report.problems.into_iter().filter_map(|broken| broken.run).collect())
        }
        None => (web::all_modules(options.in_full), web::all_cases()?),
    };
    anyhow::ensure!(!cases.is_empty(), "the report has no recorded run");

    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{wide_msg}")?);
    let say = |at: &str| bar.set_message(at.to_owned());
    let run = || web::run(&browser, &modules, &cases, silence, &mut |at| say(at));
    // Chromium stops at times without a cause of ours, at another shader each time. One that a
    // shader stops falls silent at every start.
    let mut summary = run();
    for _ in 1..STARTS {
        let Err(error @ WebError::Silent { .. }) = &summary else { break };
        bar.suspend(|| warn(format_args!("{error}; starting it once more\n")));
        summary = run();
    }
    bar.finish_and_clear();
    let summary = summary?;
    print(&summary);
    json.write_json(&summary)?;
    if !summary.failures.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    // Last, since it would only hide what is wrong.
    web::check_sight(&browser, &cases[0], silence)?;
    println!("planted faults: all reported");
    Ok(ExitCode::SUCCESS)
}

fn print(summary: &Summary) {
    let Adapter { agent, vendor, architecture, device, description, is_fallback, f16 } =
        &summary.adapter;
    let names: Vec<&str> = [vendor, architecture, device, description]
        .into_iter()
        .map(String::as_str)
        .filter(|s| !s.is_empty())
        .collect();
    let kind = if *is_fallback { ", a fallback" } else { "" };
    let halves = if *f16 { "with" } else { "without" };
    println!("browser: {agent}\nadapter: {}{kind}, {halves} f16 in shaders", names.join(" "));
    println!(
        "shaders: {} compiled and {} pipelines made in {:.1} s, {} messages, {} not run",
        summary.compiled,
        summary.pipelines,
        summary.compile_ms / 1e3,
        summary.messages,
        summary.modules_not_run
    );
    println!(
        "cases: {} run in {:.1} s, {} right, {} not run",
        summary.executed,
        summary.run_ms / 1e3,
        summary.right,
        summary.cases_not_run
    );
    for failure in &summary.failures {
        println!("FAIL {}: {}", failure.name, failure.reason);
    }
}
