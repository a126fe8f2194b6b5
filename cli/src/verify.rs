//! `dynconv verify`: layers against golden vectors.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use dynconv::{Checkpoint, Context, ConvDesc, DyCnn, Layer, Od};
use serde::Deserialize;

use crate::AdapterArgs;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Golden vectors: safetensors files, or folders of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    adapter: AdapterArgs,
}

/// Largest accepted `max |y_gpu - y| / max |y|`: sums of a few thousand f32 products, rounded at 2^-24 each.
const TOLERANCE: f64 = 1e-5;

/// The `config` of a golden file.
#[derive(Debug, Deserialize)]
struct Config {
    kind: String,
    dims: usize,
    #[serde(default = "one")]
    temperature: f32,
    stride: Axes,
    padding: Axes,
    dilation: Axes,
    #[serde(default)]
    transposed: bool,
}

fn one() -> f32 {
    1.0
}

/// One number for all axes, or one an axis.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Axes {
    All(usize),
    Each(Vec<usize>),
}

impl Axes {
    fn get<const D: usize>(&self) -> Result<[usize; D]> {
        match self {
            Self::All(n) => Ok([*n; D]),
            Self::Each(values) => match values.as_slice().try_into() {
                Ok(values) => Ok(values),
                Err(_) => bail!("expected {D} numbers, one an axis, found {values:?}"),
            },
        }
    }
}

/// What a case gave.
#[derive(Debug)]
struct Verdict {
    kind: String,
    kernel: &'static str,
    error: f64,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let files = files(&options.paths)?;
    let context = options.adapter.context()?;
    println!("adapter: {} ({})", context.caps().name, context.caps().driver);
    let width = files.iter().map(|file| name(file).len()).max().unwrap_or(0);
    let mut failed = 0;
    for file in &files {
        let name = name(file);
        match case(&context, file) {
            Ok(Verdict { kind, kernel, error }) => {
                // NaN compares false, so it fails.
                let passed = error <= TOLERANCE;
                failed += usize::from(!passed);
                let word = if passed { "PASS" } else { "FAIL" };
                println!("{name:width$}  {kind:10}  {kernel:15}  {error:9.2e}  {word}");
            }
            Err(error) => {
                failed += 1;
                println!("{name:width$}  FAIL: {error:#}");
            }
        }
    }
    println!("{} passed, {failed} failed", files.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn name(file: &Path) -> String {
    file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// The files themselves, and the safetensors files of folders, sorted.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let shown = path.display();
        if !path.is_dir() {
            ensure!(path.exists(), "{shown}: no such file or folder");
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).with_context(|| format!("cannot read {shown}"))? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "safetensors") {
                found.push(file);
            }
        }
        ensure!(!found.is_empty(), "{shown}: no .safetensors file in this folder");
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

fn case(context: &Context, file: &Path) -> Result<Verdict> {
    let bytes = std::fs::read(file)?;
    let vectors = Checkpoint::new(&bytes)?;
    let config = vectors.metadata("config").context("no metadata \"config\"")?;
    let config: Config = serde_json::from_str(config).context("metadata \"config\"")?;
    match config.dims {
        1 => layer::<1>(context, &vectors, config),
        2 => layer::<2>(context, &vectors, config),
        3 => layer::<3>(context, &vectors, config),
        dims => bail!("expected 1 to 3 dims, found {dims}"),
    }
}

fn layer<const D: usize>(context: &Context, vectors: &Checkpoint<'_>, config: Config) -> Result<Verdict> {
    ensure!(!config.transposed, "transposed convolution is not supported");
    let geometry = |desc: ConvDesc<D>| -> Result<ConvDesc<D>> {
        let desc = desc.stride(config.stride.get().context("stride")?);
        let desc = desc.padding(config.padding.get().context("padding")?);
        Ok(desc.dilation(config.dilation.get().context("dilation")?))
    };
    match config.kind.as_str() {
        "dyconv" => {
            let (desc, weights) = vectors.dy_cnn::<D>("param.")?;
            let layer = Layer::<D, DyCnn>::new(context, &geometry(desc)?, &weights, config.temperature)?;
            compare(vectors, config.kind, &layer)
        }
        "odconv" => {
            let (desc, weights) = vectors.od_conv::<D>("param.")?;
            let layer = Layer::<D, Od>::new(context, &geometry(desc)?, &weights, config.temperature)?;
            compare(vectors, config.kind, &layer)
        }
        kind => bail!("unknown kind \"{kind}\""),
    }
}

fn compare<const D: usize, A: dynconv::OwnAttention>(
    vectors: &Checkpoint<'_>,
    kind: String,
    layer: &Layer<D, A>,
) -> Result<Verdict> {
    let shape = vectors.shape("x").context("no tensor x")?.to_vec();
    let x = vectors.tensor("x", &shape)?;
    let expected = vectors.tensor("y", &layer.output_shape(&shape)?)?;
    // The output shape was found, so the input has D spatial sizes.
    let input: [usize; D] = shape[2..].try_into()?;
    let y = layer.run(shape[0], input, &x)?;
    let kernel = layer.plan(shape[0], input)?.conv_kernel().name();
    let difference = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).abs();
    // f64::max would drop a NaN.
    let worst = y.iter().zip(&expected).map(difference).fold(0.0, |a: f64, b| if b.is_nan() || b > a { b } else { a });
    let largest = expected.iter().fold(0.0_f64, |a, &b| a.max(f64::from(b).abs()));
    Ok(Verdict { kind, kernel, error: worst / largest })
}
