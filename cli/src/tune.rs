//! `dynconv tune`: which kernel is the fastest for each shape.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use comfy_table::Table;
use dynconv::problem::Problem;
use dynconv::tune::{Outcome, Trial, Tuned, Tuning, tune};
use dynconv::{Caps, Error};
use dynconv_measure::Shape;
use dynconv_suite::run::problem_on;
use dynconv_suite::spec::{Family, Spec};
use serde_json::json;

use crate::bench::ShapeArgs;
use crate::bench::table::{ms, plain};
use crate::pipelines::Pipelines;
use crate::progress::Progress;
use crate::target::Target;
use crate::verify::ElemArg;
use crate::{AdapterArgs, JsonArgs, Usage, adapter_json, adapter_line, stop};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    shapes: ShapeArgs,
    /// Samples that are measured; what comes of it holds for every batch
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Kinds of layer
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["static", "given"])]
    family: Vec<FamilyArg>,
    /// Element type of input and output; with f16, banks are in f16 too
    #[arg(long, value_enum, default_value_t = ElemArg::F32)]
    elem: ElemArg,
    /// Folder of the cache, in place of the user's own
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Measure again what the cache knows
    #[arg(long)]
    again: bool,
    /// Also write what is faster than the planner's choice to this file, in the form of the tables
    /// that come with the library
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Measure nothing: show the tables of the cache, and whether they are of this adapter and
    /// these kernels
    #[arg(long, conflicts_with_all = [
        "shapes", "only", "batch", "family", "elem", "again", "table", "json",
    ])]
    list: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FamilyArg {
    /// One kernel for all samples
    Static,
    /// A bank mixed by attention: given, or of DY-CNN or CondConv
    Given,
    /// ODConv, with all its gains
    Odconv,
    /// A kernel of its own for each sample
    PerSample,
}

impl FamilyArg {
    fn family(self) -> Family {
        match self {
            Self::Static => Family::Static,
            Self::Given => Family::Bank,
            Self::Odconv => Family::OdConv,
            Self::PerSample => Family::PerSample,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Given => "given",
            Self::Odconv => "odconv",
            Self::PerSample => "per-sample",
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let shapes = options.shapes.load()?;
    Usage::unless(options.batch > 0, || "--batch: expected at least 1, found 0".into())?;
    for shape in &shapes {
        shape
            .with_batch(options.batch)
            .map_err(|error| Usage(format!("{}: {error}", shape.name)))?;
    }
    let folder = cache_folder(options)?;
    let (json, gains) = (options.json.open()?, Target::open(options.table.as_deref())?);
    stop::listen()?;
    let context = options.adapter.context()?;
    let caps = context.caps().clone();
    println!("{}", adapter_line(&caps));
    if options.list {
        return list(&folder, &caps);
    }
    if !caps.timestamps {
        println!(
            "no timestamps on this adapter: times are the host's, submission and wait included"
        );
    }
    let pipelines = folder.join(Tuning::file_stem(&caps)).with_extension("pipelines");
    let (context, pipelines) = Pipelines::open(context, pipelines)?;
    let mut tuning = Tuning::load(&folder, &caps)?.unwrap_or_else(|| Tuning::new(&caps));

    let mut rows = Vec::new();
    let layers = shapes.len() * options.family.len();
    let progress = Progress::new(Some(layers), "layers");
    for (shape, family) in
        shapes.iter().flat_map(|shape| options.family.iter().map(move |family| (shape, *family)))
    {
        if stop::is_asked() {
            break;
        }
        progress.set_message(format!("{} {}", shape.name, family.name()));
        let problem = problem_of(shape, family, options, &caps)?;
        let became = match tuning.choice(&problem) {
            Some(choice) if !options.again => Became::Known(choice.to_string()),
            _ => match tune(&context, &problem) {
                Ok(tuned) => {
                    tuning.add(&tuned);
                    // After every shape, so that a run that is stopped has not been for nothing.
                    tuning.save(&folder, &caps)?;
                    Became::Tuned(tuned)
                }
                Err(
                    error @ (Error::Limit { .. }
                    | Error::Unsupported { .. }
                    | Error::MissingFeature { .. }),
                ) => Became::Refused(error),
                Err(error) => {
                    return Err(error).with_context(|| format!("{} {}", shape.name, family.name()));
                }
            },
        };
        rows.push(Row { shape: shape.name.clone(), family, became });
        progress.inc(1);
    }
    progress.finish();
    if let Some(pipelines) = pipelines {
        pipelines.save()?;
    }

    println!("{}", table(&rows));
    print!("{COLUMNS}{}", notes(&rows));
    if stop::is_asked() {
        println!("stopped after {} of {layers} layers", rows.len());
    }
    println!(
        "{} shapes in {}",
        tuning.choices().len(),
        folder.join(Tuning::file_stem(&caps)).display()
    );
    gains.write(&tuning.gains().to_string())?;
    let rows_json: Vec<_> = rows.iter().map(Row::json).collect();
    let adapter = adapter_json(&caps);
    json.write_json(&json!({
        "adapter": adapter, "batch": options.batch, "stopped": stop::is_asked(),
        "shapes": rows_json,
    }))?;
    if !stop::is_asked() {
        let is_refused = rows.iter().all(|row| matches!(row.became, Became::Refused(_)));
        anyhow::ensure!(
            !is_refused,
            "nothing was tuned: every layer was refused, for the reasons above"
        );
    }
    Ok(stop::status(rows.iter().all(|row| row.defects().next().is_none())))
}

/// The folder asked for, or `dynconv` where the system keeps what programs may lose.
fn cache_folder(options: &Options) -> anyhow::Result<PathBuf> {
    if let Some(folder) = &options.cache {
        return Ok(folder.clone());
    }
    let caches =
        dirs::cache_dir().context("this system has no folder for caches; name one with --cache")?;
    Ok(caches.join("dynconv"))
}

/// The problem that a layer of this shape asks the planner about.
fn problem_of(
    shape: &Shape,
    family: FamilyArg,
    options: &Options,
    caps: &Caps,
) -> anyhow::Result<Problem> {
    let elem = options.elem.elem();
    let bank = if elem == dynconv::Elem::F32 { elem } else { dynconv::Elem::F16Storage };
    let one_kernel = matches!(family, FamilyArg::Static | FamilyArg::PerSample);
    let spec = Spec {
        family: family.family(),
        batch: options.batch,
        kernels: if one_kernel { 1 } else { shape.spec.kernels },
        elems: [elem, elem, bank],
        ..shape.spec.clone()
    };
    problem_on(&spec, caps)?.context("a layer of several plans is tuned by its parts")
}

/// Every table of a folder, and what it is of.
fn list(folder: &Path, caps: &Caps) -> anyhow::Result<ExitCode> {
    let shipped = Tuning::shipped(caps)
        .map_or("none".into(), |table| format!("{} gains", table.choices().len()));
    println!("with the library, for this adapter and these kernels: {shipped}");
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", folder.display()));
        }
    };
    let is_table =
        |path: &PathBuf| path.extension().is_some_and(|extension| extension == Tuning::EXTENSION);
    let mut paths: Vec<PathBuf> =
        entries.iter().map(std::fs::DirEntry::path).filter(is_table).collect();
    paths.sort();
    for path in paths {
        let state = match Tuning::read(&path) {
            Err(error) => error.to_string(),
            Ok(table) => match table.check(caps) {
                Err(error) => format!("{}: not used: {error}", path.display()),
                Ok(()) => {
                    format!(
                        "{}: {} shapes\n{}",
                        path.display(),
                        table.choices().len(),
                        table.to_string().trim_end()
                    )
                }
            },
        };
        println!("{state}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of a shape.
enum Became {
    Tuned(Tuned),
    /// The cache has its choice.
    Known(String),
    /// Not even the planner's own choice is possible.
    Refused(Error),
}

struct Row {
    shape: String,
    family: FamilyArg,
    became: Became,
}

const HEADER: [&str; 10] = [
    "shape",
    "layer",
    "planner's",
    "fastest",
    "ms",
    "fastest\nms",
    "gain",
    "tried",
    "stopped",
    "wrong",
];

/// What the columns say.
const COLUMNS: &str = "\
planner's, ms: the kernel that the planner chooses, and its time; fastest, fastest ms: the \
kernel measured to be the fastest, and its time.
gain: the first time divided by the second. tried: kernels that were run; stopped: those of \
them whose first run was so slow that no more
were made; wrong: those that gave a wrong result or were refused by the driver.
";

impl Row {
    fn cells(&self) -> [String; 10] {
        let row = |planned: &str, fastest: &str, numbers: [String; 6]| {
            let words = [&self.shape, self.family.name(), planned, fastest].map(String::from);
            let mut cells = words.into_iter().chain(numbers);
            std::array::from_fn(|_| cells.next().unwrap_or_default())
        };
        let none = || std::array::from_fn(|_| "-".into());
        match &self.became {
            Became::Known(choice) => row("-", &format!("{choice}, as known"), none()),
            Became::Refused(_) => row("refused", "-", none()),
            Became::Tuned(tuned) => {
                let trials = &tuned.trials;
                let stopped = trials
                    .iter()
                    .filter(|trial| matches!(trial.outcome, Outcome::Stopped(_)))
                    .count();
                let time = |time: Option<f64>| time.map_or("-".into(), ms);
                let best = tuned.best();
                let gain = tuned.planned_ms().zip(best).map(|(planned, (_, best))| planned / best);
                let numbers = [
                    time(tuned.planned_ms()),
                    time(best.map(|(_, ms)| ms)),
                    gain.map_or("-".into(), |gain| format!("{gain:.2}")),
                    trials.len().to_string(),
                    stopped.to_string(),
                    self.defects().count().to_string(),
                ];
                let planned = trials.first().map_or("-", |trial| trial.kernel.name());
                row(planned, best.map_or("-", |(trial, _)| trial.kernel.name()), numbers)
            }
        }
    }

    /// Kernels that are wrong or were refused by the driver.
    fn defects(&self) -> impl Iterator<Item = (&Trial, &Error)> {
        let trials = match &self.became {
            Became::Tuned(tuned) => &tuned.trials[..],
            _ => &[],
        };
        trials.iter().filter_map(|trial| match &trial.outcome {
            Outcome::Wrong(error) | Outcome::Failed(error) => Some((trial, error)),
            _ => None,
        })
    }

    fn json(&self) -> serde_json::Value {
        let mut row = json!({ "shape": self.shape, "layer": self.family.name() });
        match &self.became {
            Became::Known(choice) => row["known"] = json!(choice),
            Became::Refused(error) => row["refused"] = json!(error.to_string()),
            Became::Tuned(tuned) => {
                row["problem"] = json!(tuned.key.to_string());
                row["choice"] = json!(tuned.choice().name());
                row["trials"] = tuned.trials.iter().map(trial_json).collect();
            }
        }
        row
    }
}

fn trial_json(trial: &Trial) -> serde_json::Value {
    let (what, ms, error) = match &trial.outcome {
        Outcome::Timed(ms) => ("timed", Some(ms), None),
        Outcome::Stopped(ms) => ("stopped", Some(ms), None),
        Outcome::Wrong(error) => ("wrong", None, Some(error.to_string())),
        Outcome::Failed(error) => ("failed", None, Some(error.to_string())),
    };
    json!({
        "choice": trial.choice.name(), "kernel": trial.kernel.name(), "outcome": what, "ms": ms,
        "error": error,
    })
}

fn table(rows: &[Row]) -> Table {
    let mut table = plain(&HEADER, 4);
    for row in rows {
        table.add_row(row.cells());
    }
    table
}

/// What is wrong, in full.
fn notes(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let about = format!("{} {}", row.shape, row.family.name());
        for (trial, error) in row.defects() {
            text += &format!("WRONG: {} on {about}: {error}\n", trial.kernel.name());
        }
        if let Became::Refused(error) = &row.became {
            text += &format!("not run: {about}: {error}\n");
        }
    }
    text
}
