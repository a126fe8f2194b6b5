//! `dynconv verify`: layers against golden vectors.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use dynconv::{
    BatchNorm, Bound, Checkpoint, CondConv, Context, ConvDesc, DyCnn, Elem, FdyConv2d, KernelWarehouse, Layer,
    ModulatedConv2d, Od, OwnAttention, PixelMix2d, Tensor, Warehouse, wgpu,
};
use serde::Deserialize;

use crate::AdapterArgs;
use crate::map::map;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Golden vectors: safetensors files, or folders of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Element type of inputs and outputs
    #[arg(long, value_enum, default_value_t = ElemArg::F32)]
    elem: ElemArg,
    #[command(flatten)]
    adapter: AdapterArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum ElemArg {
    /// Single precision
    F32,
    /// Half precision in pairs, on every device
    F16Storage,
    /// Half precision in shaders
    F16,
}

impl ElemArg {
    pub(crate) fn elem(self) -> Elem {
        match self {
            Self::F32 => Elem::F32,
            Self::F16Storage => Elem::F16Storage,
            Self::F16 => Elem::F16,
        }
    }
}

/// Largest accepted `max |y_gpu - y| / max |y|` in f32: sums of a few thousand products, rounded at 2^-24 each.
const TOLERANCE: f64 = 1e-5;
/// The same in f16. Input and output are rounded once each, by at most 2^-11 of their size, as a GPU may round to either side. The
/// input's part grows to 2^-11 * sum |w| |x| in a sum, which for sums that cancel is several times the largest output, and comes once more
/// through the attention: 10 * 2^-11 in all.
const TOLERANCE_F16: f64 = 10.0 / 2048.0;

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
    #[serde(default = "zeros")]
    output_padding: Axes,
    groups: Option<usize>,
    /// Where the weights are stored flat.
    kernel_size: Option<Axes>,
    out_channels: Option<usize>,
    #[serde(default)]
    demodulate: bool,
}

fn zeros() -> Axes {
    Axes::All(0)
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
    let tolerance = if options.elem.elem() == Elem::F32 { TOLERANCE } else { TOLERANCE_F16 };
    let mut failed = 0;
    for file in &files {
        let name = name(file);
        match case(&context, file, options.elem.elem()) {
            Ok(Verdict { kind, kernel, error }) => {
                // NaN compares false, so it fails.
                let passed = error <= tolerance;
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

fn case(context: &Context, file: &Path, elem: Elem) -> Result<Verdict> {
    let bytes = map(file)?;
    let vectors = Checkpoint::new(&bytes)?;
    let config = vectors.metadata("config").context("no metadata \"config\"")?;
    let config: Config = serde_json::from_str(config).context("metadata \"config\"")?;
    let bound = match (config.kind.as_str(), config.dims) {
        ("pixelmix" | "fdyconv" | "modulated", 2) => planar(context, &vectors, &config, elem),
        (_, 1) => layer::<1>(context, &vectors, &config, elem),
        (_, 2) => layer::<2>(context, &vectors, &config, elem),
        (_, 3) => layer::<3>(context, &vectors, &config, elem),
        (_, dims) => bail!("expected 1 to 3 dims, found {dims}"),
    }?;
    compare(context, &vectors, config.kind, &bound)
}

impl Config {
    /// Adds what no checkpoint holds.
    fn geometry<const D: usize>(&self, desc: ConvDesc<D>) -> Result<ConvDesc<D>> {
        let desc = desc.stride(self.stride.get().context("stride")?);
        let desc = desc.padding(self.padding.get().context("padding")?);
        let desc = desc.dilation(self.dilation.get().context("dilation")?);
        Ok(if self.transposed { desc.transposed(self.output_padding.get().context("output_padding")?) } else { desc })
    }

    /// The description of a layer whose weights are stored flat.
    fn flat<const D: usize>(&self, vectors: &Checkpoint<'_>) -> Result<ConvDesc<D>> {
        let kernel = self.kernel_size.as_ref().context("no kernel_size")?.get()?;
        let c_out = self.out_channels.context("no out_channels")?;
        let &[_, c_in, ..] = vectors.shape("x").context("no tensor x")? else { bail!("x has no channels") };
        self.geometry(ConvDesc::new(c_in, c_out, kernel).groups(self.groups.unwrap_or(1)))
    }
}

fn layer<const D: usize>(context: &Context, vectors: &Checkpoint<'_>, config: &Config, elem: Elem) -> Result<Bound> {
    let x = input(context, vectors, elem)?;
    match config.kind.as_str() {
        "dyconv" => {
            let (desc, weights) = match config.transposed {
                false => vectors.dy_cnn::<D>("param.")?,
                true => vectors.dy_cnn_transposed::<D>("param.", config.groups.unwrap_or(1))?,
            };
            bind(context, &Layer::<D, DyCnn>::new(context, &config.geometry(desc)?, &weights, config.temperature)?, &x)
        }
        "odconv" => {
            let (desc, weights) = vectors.od_conv::<D>("param.", BatchNorm::EPSILON_PYTORCH)?;
            bind(context, &Layer::<D, Od>::new(context, &config.geometry(desc)?, &weights, config.temperature)?, &x)
        }
        "condconv" => {
            let desc = config.flat::<D>(vectors)?;
            let (desc, weights) = vectors.cond_conv("param.", "param.routing_fn.", &desc)?;
            bind(context, &Layer::<D, CondConv>::new(context, &desc, &weights)?, &x)
        }
        "kernelwarehouse" => {
            let desc = config.flat::<D>(vectors)?;
            let (cells, values) = vectors.warehouse("param.cells")?;
            let vectors = vectors.clone().without(|key| key == "param.cells");
            let weights = vectors.kernel_warehouse("param.", &desc, cells, BatchNorm::EPSILON_PYTORCH)?;
            let warehouse = Warehouse::new(context, cells, &values)?;
            bind(context, &Layer::<D, KernelWarehouse>::new(context, &desc, &weights, &warehouse)?, &x)
        }
        kind => bail!("unknown kind \"{kind}\" with {D} dims"),
    }
}

/// Kinds that have two dimensions only.
fn planar(context: &Context, vectors: &Checkpoint<'_>, config: &Config, elem: Elem) -> Result<Bound> {
    let x = input(context, vectors, elem)?;
    let y = Tensor::zeros_in(context, vectors.shape("y").context("no tensor y")?, elem)?;
    Ok(match config.kind.as_str() {
        "pixelmix" => {
            let (desc, weights) = vectors.pixel_mix("param.")?;
            PixelMix2d::new(context, &config.geometry(desc)?, &weights, config.temperature)?.bind(&x, &y)?
        }
        "fdyconv" => {
            let (desc, weights) = vectors.fdy("param.", BatchNorm::EPSILON_PYTORCH)?;
            FdyConv2d::new(context, &config.geometry(desc)?, &weights, config.temperature)?.bind(&x, &y)?
        }
        _ => {
            let &[c_out, c_in, height, width] = vectors.shape("param.weight").context("no tensor param.weight")? else {
                bail!("param.weight: expected [channels out, channels in, height, width]");
            };
            let weight = vectors.tensor("param.weight", &[c_out, c_in, height, width])?;
            let desc = config.geometry(ConvDesc::new(c_in, c_out, [height, width]))?;
            let style = vectors.tensor("style", &[x.shape()[0], c_in])?;
            let style = Tensor::upload(context, &[x.shape()[0], c_in], &style)?;
            ModulatedConv2d::new(context, &desc, &weight, config.demodulate)?.bind(&x, &style, &y)?
        }
    })
}

fn input(context: &Context, vectors: &Checkpoint<'_>, elem: Elem) -> Result<Tensor> {
    let shape = vectors.shape("x").context("no tensor x")?;
    Ok(Tensor::upload_in(context, shape, &vectors.tensor("x", shape)?, elem)?)
}

fn bind<const D: usize, A: OwnAttention>(context: &Context, layer: &Layer<D, A>, x: &Tensor) -> Result<Bound> {
    let y = Tensor::zeros_in(context, &layer.output_shape(x.shape())?, x.elem())?;
    Ok(layer.bind(x, &y)?)
}

fn compare(context: &Context, vectors: &Checkpoint<'_>, kind: String, bound: &Bound) -> Result<Verdict> {
    let expected = vectors.tensor("y", bound.output().shape())?;
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    bound.record(&mut encoder);
    context.queue().submit([encoder.finish()]);
    let y = bound.output().read_blocking(context)?;

    let kernel = bound.steps().last().map_or("", |step| step.dispatch().variant.kernel.name());
    let difference = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).abs();
    // f64::max would drop a NaN.
    let worst = y.iter().zip(&expected).map(difference).fold(0.0, |a: f64, b| if b.is_nan() || b > a { b } else { a });
    let largest = expected.iter().fold(0.0_f64, |a, &b| a.max(f64::from(b).abs()));
    Ok(Verdict { kind, kernel, error: worst / largest })
}
