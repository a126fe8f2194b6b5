//! `dynconv bench`: how fast layers are, beside what.

mod net;
mod plot;
mod random;
mod report;
pub(crate) mod table;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use chrono::Utc;
use clap::Args;
use dynconv::Algorithm;
use dynconv_measure::{Case, Error, Outcome, Peak, Results, Shape, Verdict, load, measure};
use dynconv_suite::spec::Family;

use crate::progress::Progress;
use crate::say::warn;
use crate::target::Target;
use crate::verify::ElemArg;
use crate::{AdapterArgs, JsonArgs, Usage, adapter_line, stop};

/// Which shapes.
#[derive(Debug, Args)]
pub(crate) struct ShapeArgs {
    /// Shapes: built-in sets (peers, resnet18, mobilenetv2, dycnn, odconv, winograd, corners,
    /// smoke) or files of the same form
    #[arg(value_name = "SET|FILE", default_value = "peers")]
    shapes: Vec<String>,
    /// Only shapes of these names
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
}

impl ShapeArgs {
    /// The shapes of sets and files, or those of them that `only` names.
    pub(crate) fn load(&self) -> anyhow::Result<Vec<Shape>> {
        let mut shapes: Vec<Shape> = Vec::new();
        for set in &self.shapes {
            let found = load(set).map_err(|error| match error {
                // A set or file that is not there is no wrong line.
                Error::NoSuchSet { .. } => anyhow::Error::from(error),
                error => Usage(error.to_string()).into(),
            });
            shapes.extend(found?);
        }
        if let Some(name) =
            self.only.iter().find(|name| !shapes.iter().any(|shape| shape.name == **name))
        {
            let names: Vec<&str> = shapes.iter().map(|shape| shape.name.as_str()).collect();
            return Err(Usage(format!(
                "--only {name}: there is no such shape; there are {}",
                names.join(", ")
            ))
            .into());
        }
        shapes.retain(|shape| self.only.is_empty() || self.only.contains(&shape.name));
        Ok(shapes)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    shapes: ShapeArgs,
    /// A whole network of published size with random weights, in place of shapes
    #[arg(long, value_enum, value_name = "NAME", conflicts_with_all = ["shapes", "only", "kernel",
        "family", "elem", "without_groups", "quick", "compare", "report"])]
    net: Option<net::Net>,
    /// Height and width of the network's input
    #[arg(long, value_name = "SIDE", default_value_t = 224, requires = "net")]
    size: usize,
    /// Convolution kernels to compare: auto, direct, tiled, ..., or all
    #[arg(
        long,
        visible_alias = "strategy",
        value_name = "ID",
        value_delimiter = ',',
        default_value = "auto"
    )]
    kernel: Vec<String>,
    /// Batches, in place of those of the shapes
    #[arg(long, value_name = "N", value_delimiter = ',')]
    batch: Vec<usize>,
    /// Kind of layer
    #[arg(long, value_enum, default_value_t = FamilyArg::Given)]
    family: FamilyArg,
    /// Element type of input and output; with f16, banks are in f16 too
    #[arg(long, value_enum, default_value_t = ElemArg::F32)]
    elem: ElemArg,
    /// Samples of every time
    #[arg(long, value_name = "N", default_value_t = 9)]
    samples: usize,
    /// Leave out the batch as groups, which takes most of the time
    #[arg(long)]
    without_groups: bool,
    /// Everything once: to see that it works, not how fast it is
    #[arg(long, conflicts_with = "samples")]
    quick: bool,
    /// Hold the times against these older results, and fail if a layer has become slower
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Write a page with plots to this file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FamilyArg {
    /// Attention given by the caller: aggregation and convolution alone
    Given,
    /// DY-CNN, with its attention branch
    Dycnn,
    /// ODConv, with its attention branch
    Odconv,
}

impl FamilyArg {
    fn family(self) -> Family {
        match self {
            Self::Given => Family::Bank,
            Self::Dycnn => Family::DyCnn,
            Self::Odconv => Family::OdConv,
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(net) = options.net {
        let batches = if options.batch.is_empty() { &[1][..] } else { &options.batch };
        let (size, samples, adapter) = (options.size, options.samples, &options.adapter);
        let json = options.json.open()?;
        return net::run(net::How { net, batches, size, samples, adapter, json });
    }
    let cases = cases(options)?;
    let kernels = kernels(&options.kernel)?;
    Usage::unless(options.samples > 0, || "--samples: expected at least 1, found 0".into())?;
    // Files first: one that is none should not be found out after an hour.
    let old = options.compare.as_deref().map(Results::read).transpose()?;
    let (json, report) = (options.json.open()?, Target::open(options.report.as_deref())?);

    stop::listen()?;
    let context = options.adapter.context()?;
    println!("{}", adapter_line(context.caps()));
    if !context.caps().timestamps {
        println!(
            "no timestamps on this adapter: times are the host's, submission and wait included"
        );
    }
    let peak = Peak::measure(&context, options.quick)?;
    println!("measured peak {:.1} GFLOP/s, copy {:.1} GB/s", peak.gflops, peak.copy_gbps);

    let samples = if options.quick { 1 } else { options.samples };
    let how = dynconv_measure::Options {
        family: options.family.family(),
        elem: options.elem.elem(),
        kernels,
        samples,
        groups: !options.without_groups,
        quick: options.quick,
    };
    let mut results = Results::new(&context, &peak, samples, options.quick);
    let old = old.as_ref().zip(options.compare.as_ref().map(|path| path.display().to_string()));
    if let Some((old, file)) = &old {
        // Results of another adapter are found out before the run.
        results.compare(old, file)?;
    }
    results.date = Utc::now().format("%Y-%m-%d %H:%M").to_string();
    results.command = std::env::args()
        .skip(1)
        .fold("dynconv".into(), |line, word| format!("{line} {}", quoted(&word)));
    let progress = Progress::new(Some(cases.len()), "layers");
    for case in &cases {
        let about = format!("{} batch {}", case.shape.name, case.batch);
        let outcomes = measure(&context, &peak, case, &how, &mut |step| {
            progress.set_message(format!("{about}: {step}"));
            if stop::is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let outcomes = match outcomes {
            Err(Error::Stopped) => break,
            outcomes => outcomes.with_context(|| about.clone())?,
        };
        for outcome in outcomes {
            match outcome {
                Outcome::Measured(row) => results.rows.push(*row),
                Outcome::NotMeasured(refusal) => results.not_measured.push(refusal),
            }
        }
        progress.inc(1);
    }
    progress.finish();
    results.stopped = stop::is_asked();

    println!("{}", table::table(&results));
    print!("{}", table::notes(&results));
    if results.stopped {
        println!("stopped: not all of {} layers were measured", cases.len());
    }
    json.write_json(&results)?;
    report.write(&report::page(&results))?;
    if !results.stopped {
        ensure_measured(options, &results)?;
    }
    let is_slower = match &old {
        Some((old, file)) if !results.rows.is_empty() => compare(&results, old, file)?,
        _ => false,
    };
    let is_wrong = results.not_measured.iter().any(|refusal| refusal.is_wrong);
    Ok(stop::status(!is_slower && !is_wrong))
}

/// A word of a command line as a shell takes it.
fn quoted(word: &str) -> String {
    if word.chars().any(|c| c.is_whitespace() || "\"'$&|;<>()*?".contains(c)) {
        format!("{word:?}")
    } else {
        word.into()
    }
}

/// Refuses results without a number, and those without one of a kernel that was asked for by its
/// name.
fn ensure_measured(options: &Options, results: &Results) -> anyhow::Result<()> {
    let is_named = |kernel: &str| options.kernel.iter().any(|name| name == kernel);
    if let Some(refusal) =
        results.not_measured.iter().find(|refusal| !refusal.is_wrong && is_named(&refusal.strategy))
    {
        let dynconv_measure::Refusal { shape, batch, strategy, reason, .. } = refusal;
        anyhow::bail!("--kernel {strategy}: not measured on {shape} batch {batch}: {reason}");
    }
    anyhow::ensure!(!results.rows.is_empty(), "nothing was measured, for the reasons above");
    Ok(())
}

/// Prints what changed, and tells whether something has become slower.
fn compare(results: &Results, old: &Results, file: &str) -> anyhow::Result<bool> {
    let comparison = results.compare(old, file)?;
    anyhow::ensure!(
        !comparison.changes.is_empty(),
        "{file}: none of these layers and kernels are in it"
    );
    println!("{}", table::comparison(&comparison));
    let count = |verdict| comparison.count(verdict);
    let (slower, faster) = (count(Verdict::Slower), count(Verdict::Faster));
    println!(
        "against {file}: {slower} slower, {faster} faster, {} within the noise, \
         {} with too few samples, {} not in it",
        count(Verdict::Same),
        count(Verdict::Unknown),
        comparison.without_old
    );
    if slower > 0 {
        warn(format_args!(
            "error: {slower} of {} layers are slower than in {file}\n",
            comparison.changes.len()
        ));
    }
    Ok(slower > 0)
}

/// Every shape with every batch.
fn cases(options: &Options) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for shape in options.shapes.load()? {
        let batches =
            if options.batch.is_empty() { vec![shape.spec.batch] } else { options.batch.clone() };
        for batch in batches {
            shape
                .with_batch(batch)
                .map_err(|error| Usage(format!("{} batch {batch}: {error}", shape.name)))?;
            cases.push(Case { shape: shape.clone(), batch });
        }
    }
    Ok(cases)
}

/// Convolution kernels by their names.
fn kernels(names: &[String]) -> Result<Vec<Algorithm>, Usage> {
    let mut kernels = Vec::new();
    for name in names {
        let before = kernels.len();
        kernels.extend(
            Algorithm::ALL.iter().copied().filter(|choice| choice.name() == name || name == "all"),
        );
        Usage::unless(kernels.len() > before, || {
            format!("--kernel {name}: expected all, {}", Algorithm::names())
        })?;
    }
    let mut distinct = Vec::new();
    kernels.retain(|kernel| {
        !distinct.contains(kernel) && {
            distinct.push(*kernel);
            true
        }
    });
    Ok(kernels)
}
