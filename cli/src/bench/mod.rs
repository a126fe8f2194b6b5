//! `dynconv bench`: how fast layers are, beside what.

mod plot;
mod report;
pub(crate) mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use dynconv::plan::ConvChoice;
use dynconv_measure::{Case, Outcome, Peak, Results, Shape, Verdict, load, measure};
use dynconv_suite::spec::Family;
use indicatif::{ProgressBar, ProgressStyle};

use crate::verify::ElemArg;
use crate::{AdapterArgs, JsonArgs, adapter_line};

/// Which shapes.
#[derive(Debug, Args)]
pub(crate) struct ShapeArgs {
    /// Shapes: built-in sets (peers, resnet18, mobilenetv2, dycnn, odconv, winograd, corners, smoke) or files of the same form
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
            shapes.extend(load(set)?);
        }
        if let Some(name) = self.only.iter().find(|name| !shapes.iter().any(|shape| shape.name == **name)) {
            let names: Vec<&str> = shapes.iter().map(|shape| shape.name.as_str()).collect();
            anyhow::bail!("--only {name}: there is no such shape; there are {}", names.join(", "));
        }
        shapes.retain(|shape| self.only.is_empty() || self.only.contains(&shape.name));
        Ok(shapes)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    shapes: ShapeArgs,
    /// Convolution kernels to compare: auto, direct, tiled, ..., or all
    #[arg(long, visible_alias = "strategy", value_name = "ID", value_delimiter = ',', default_value = "auto")]
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
    let cases = cases(options)?;
    let kernels = kernels(&options.kernel)?;
    anyhow::ensure!(options.samples > 0, "--samples: expected at least 1, found 0");
    // Read first: a file that is none should not be found out after an hour.
    let old = options.compare.as_deref().map(Results::read).transpose()?;

    let context = options.adapter.context()?;
    println!("{}", adapter_line(context.caps()));
    if !context.caps().timestamps {
        println!("no timestamps on this adapter: times are the host's, submission and wait included");
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
    let bar = progress_bar(cases.len());
    for case in &cases {
        let about = format!("{} batch {}", case.shape.name, case.batch);
        let outcomes = measure(&context, &peak, case, &how, &mut |step| bar.set_message(format!("{about}: {step}")))
            .with_context(|| about.clone())?;
        for outcome in outcomes {
            match outcome {
                Outcome::Measured(row) => results.rows.push(*row),
                Outcome::NotMeasured(refusal) => results.not_measured.push(refusal),
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();

    println!("{}", table::table(&results));
    print!("{}", table::notes(&results));
    options.json.write(&results)?;
    if let Some(path) = &options.report {
        std::fs::write(path, report::page(&results)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let is_slower = match (&old, &options.compare) {
        (Some(old), Some(path)) => compare(&results, old, &path.display().to_string())?,
        _ => false,
    };
    let is_wrong = results.not_measured.iter().any(|refusal| refusal.is_wrong);
    Ok(if is_slower || is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints what changed, and tells whether something has become slower.
fn compare(results: &Results, old: &Results, file: &str) -> anyhow::Result<bool> {
    let comparison = results.compare(old, file)?;
    anyhow::ensure!(!comparison.changes.is_empty(), "{file}: none of these layers and kernels are in it");
    println!("{}", table::comparison(&comparison));
    let count = |verdict| comparison.count(verdict);
    let (slower, faster) = (count(Verdict::Slower), count(Verdict::Faster));
    println!(
        "against {file}: {slower} slower, {faster} faster, {} within the noise, {} with too few samples, {} not in it",
        count(Verdict::Same),
        count(Verdict::Unknown),
        comparison.without_old
    );
    if slower > 0 {
        eprintln!("error: {slower} of {} layers are slower than in {file}", comparison.changes.len());
    }
    Ok(slower > 0)
}

/// Every shape with every batch.
fn cases(options: &Options) -> anyhow::Result<Vec<Case>> {
    let shapes = options.shapes.load()?;
    anyhow::ensure!(!options.batch.contains(&0), "--batch: expected at least 1, found 0");
    let batches = |shape: &Shape| if options.batch.is_empty() { vec![shape.spec.batch] } else { options.batch.clone() };
    let cases = |shape: Shape| batches(&shape).into_iter().map(move |batch| Case { shape: shape.clone(), batch });
    Ok(shapes.into_iter().flat_map(cases).collect())
}

/// Convolution kernels by their names.
fn kernels(names: &[String]) -> anyhow::Result<Vec<ConvChoice>> {
    let mut kernels = Vec::new();
    for name in names {
        let before = kernels.len();
        kernels.extend(ConvChoice::ALL.into_iter().filter(|choice| choice.name() == name || name == "all"));
        if kernels.len() == before {
            anyhow::bail!("--kernel {name}: expected all, {}", ConvChoice::ALL.map(ConvChoice::name).join(", "));
        }
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

pub(crate) fn progress_bar(cases: usize) -> ProgressBar {
    let bar = ProgressBar::new(cases as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}, {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
