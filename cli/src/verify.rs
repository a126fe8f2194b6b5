//! `dynconv verify`: layers against golden vectors.

mod config;
mod judge;
mod network;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use dynconv::layers::{
    AnyLayer, CondConv, DyCnn, Given, KernelWarehouse, Map, Od, OwnAttention, PerSample, Static,
};
use dynconv::problem::Layout;
use dynconv::problem::MapAxis;
use dynconv::reference::narrow;
use dynconv::{
    Activation, Bound, Checkpoint, Context, ConvDesc, Dcd2d, Elem, FdyConv2d, Layer,
    ModulatedConv2d, PixelMix2d, Tensor, Warehouse, wgpu,
};

use crate::map::map;
use crate::{AdapterArgs, stop};
use config::{Affine, Config};
use judge::{Judgement, below_f16, judge, past_f16};

/// Kinds of layer that a config may name.
const KINDS: [&str; 12] = [
    "dyconv",
    "odconv",
    "condconv",
    "kernelwarehouse",
    "static",
    "bank",
    "map",
    "persample",
    "pixelmix",
    "fdyconv",
    "modulated",
    "dcd",
];

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

/// What became of a case.
#[derive(Debug)]
enum Outcome {
    Run {
        kind: String,
        /// The convolution's.
        kernel: &'static str,
        judgement: Judgement,
    },
    /// A whole network.
    Network(network::Found),
    /// Cannot be run so, and why: neither passed nor failed.
    NotRun(String),
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let files = files(&options.paths)?;
    stop::listen()?;
    let context = options.adapter.context()?;
    println!("adapter: {} ({})", context.caps().name, context.caps().driver);
    let width = files.iter().map(|file| name(file).len()).max().unwrap_or(0);
    let elem = options.elem.elem();
    let [mut passed, mut failed, mut not_run] = [0; 3];
    for file in &files {
        if stop::is_asked() {
            println!("stopped after {} of {} cases", passed + failed + not_run, files.len());
            break;
        }
        let name = name(file);
        match case(&context, file, elem) {
            Ok(Outcome::Run { kind, kernel, judgement }) => {
                let is_right = judgement.is_right(elem);
                *if is_right { &mut passed } else { &mut failed } += 1;
                let word = if is_right { "PASS" } else { "FAIL" };
                let line = format!("{name:width$}  {kind:15}  {kernel:20}");
                match judgement {
                    Judgement::Error(error) => println!("{line}  {error:9.2e}  {word}"),
                    Judgement::Wrong { element, found, expected } => {
                        println!(
                            "{line}             {word}: y element {element} is {found}, \
                             expected {expected}"
                        );
                    }
                }
            }
            Ok(Outcome::Network(found)) => {
                let is_right = found.error <= found.tolerance;
                *if is_right { &mut passed } else { &mut failed } += 1;
                let word = if is_right { "PASS" } else { "FAIL" };
                let network::Found { family, held, error, at, tolerance } = found;
                println!(
                    "{name:width$}  {:28}  {held} stages  {error:9.2e} of {tolerance:.1e} at {at}  \
                     {word}",
                    family.to_string()
                );
            }
            Ok(Outcome::NotRun(why)) => {
                not_run += 1;
                println!("{name:width$}  not run: {why}");
            }
            Err(error) => {
                failed += 1;
                println!("{name:width$}  FAIL: {error:#}");
            }
        }
    }
    let not_run = if not_run == 0 { String::new() } else { format!(", {not_run} not run") };
    println!("{passed} passed, {failed} failed{not_run}");
    ensure!(
        passed + failed > 0 || stop::is_asked(),
        "no case could be run, so nothing is verified"
    );
    Ok(stop::status(failed == 0))
}

fn name(file: &Path) -> String {
    let name =
        file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    if network::weights(file).is_some() { name.trim_end_matches(".io").into() } else { name }
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
        // Weights of networks belong to the files of their outputs.
        let weights: BTreeSet<PathBuf> =
            found.iter().filter_map(|file| network::weights(file)).collect();
        found.retain(|file| !weights.contains(file));
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

fn case(context: &Context, file: &Path, elem: Elem) -> Result<Outcome> {
    if network::weights(file).is_some() {
        return match network::verify(context, file, elem) {
            Ok(found) => Ok(Outcome::Network(found)),
            // Some layers have their tensors in f32 alone.
            Err(error) if elem != Elem::F32 && is_of_elem(&error) => {
                Ok(Outcome::NotRun(format!("{error:#}")))
            }
            Err(error) => Err(error),
        };
    }
    let bytes = map(file)?;
    let vectors = Checkpoint::new(&bytes)?;
    let config = Config::read(&vectors)?;
    if config.uses_batch_statistics() {
        return Ok(Outcome::NotRun(
            "its batch norms use the statistics of the batch (mode \"train\")".into(),
        ));
    }
    if let Some(why) = not_in(elem, &vectors)? {
        return Ok(Outcome::NotRun(why));
    }
    let dims = config.dims(&vectors)?;
    let kind = config.kind.clone();
    let layer_keys = layer_keys(&vectors, &config);
    let expected = vectors.values("y")?;
    if expected.is_empty() {
        return Ok(Outcome::NotRun("y is empty".into()));
    }
    let case = Case {
        context,
        layer: vectors.clone().without(|key| !layer_keys.contains(key)),
        vectors,
        config,
        elem,
    };
    let bound = match dims {
        1 => case.layer::<1>(),
        2 => case.planar().unwrap_or_else(|| case.layer::<2>()),
        3 => case.layer::<3>(),
        _ => bail!("expected 1 to 3 spatial axes, found {dims}"),
    }?;
    let shape = case.vectors.shape("y").unwrap_or_default();
    ensure!(
        shape == bound.output().shape(),
        "y: expected {:?}, found {shape:?}",
        bound.output().shape()
    );
    let y = compute(context, &bound)?;
    let kernel = bound.steps().last().map_or("", |step| step.dispatch().variant.kernel.name());
    Ok(Outcome::Run { kind, kernel, judgement: judge(&y, &expected, elem) })
}

/// Whether a layer has refused tensors of another element type.
fn is_of_elem(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(dynconv::Error::Shape { what, .. }) => what.starts_with("element type of"),
        Some(dynconv::Error::Unsupported { .. }) => true,
        _ => false,
    }
}

/// Why a case cannot be computed with inputs and outputs of this element type.
fn not_in(elem: Elem, vectors: &Checkpoint<'_>) -> Result<Option<String>> {
    if elem == Elem::F32 {
        return Ok(None);
    }
    for key in ["x", "residual", "y"] {
        if !vectors.contains(key) {
            continue;
        }
        let values = vectors.values(key)?;
        if let Some(value) = past_f16(&values) {
            return Ok(Some(format!(
                "{key} has {value:e}, which is past the largest number of f16, 65504"
            )));
        }
        if let Some(value) = below_f16(&values) {
            return Ok(Some(format!(
                "{key} is at most {value:e}, below the smallest normal number of f16, 6.1e-5"
            )));
        }
    }
    Ok(None)
}

/// Keys of what the layer itself reads: parameters without those of what follows the sum, and
/// without the cells.
fn layer_keys(vectors: &Checkpoint<'_>, config: &Config) -> BTreeSet<String> {
    let is_elsewhere = |key: &str| match config.epilogue.affine {
        Affine::None => false,
        Affine::ScaleShift => key == "param.scale" || key == "param.shift",
        Affine::Bn => key.starts_with("param.bn."),
    };
    let is_layer =
        |key: &&str| key.starts_with("param.") && *key != "param.cells" && !is_elsewhere(key);
    vectors.keys().filter(is_layer).map(str::to_owned).collect()
}

/// What a layer is made of, and for what element type.
struct Case<'a> {
    context: &'a Context,
    vectors: Checkpoint<'a>,
    /// The layer's parameters alone.
    layer: Checkpoint<'a>,
    config: Config,
    elem: Elem,
}

/// Puts behind a layer's sum what the config says.
macro_rules! finished {
    ($case:expr, $layer:expr, $channels:expr) => {{
        let (case, layer, channels): (&Case<'_>, _, usize) = ($case, $layer, $channels);
        let layer = match case.config.epilogue.affine {
            Affine::None => layer,
            Affine::Bn => layer.batch_norm(&case.vectors.batch_norm(
                "param.bn.",
                channels,
                case.config.epsilon(),
            )?)?,
            Affine::ScaleShift => {
                let [scale, shift] =
                    ["param.scale", "param.shift"].map(|key| case.vectors.tensor(key, &[channels]));
                layer.scale_shift(&scale?, &shift?)?
            }
        };
        layer.activation(case.config.activation()?)
    }};
}

impl Case<'_> {
    /// A tensor of the file, whatever its values are.
    fn tensor(&self, key: &str, elem: Elem) -> Result<Tensor> {
        let shape = self.vectors.shape(key).with_context(|| format!("no tensor {key}"))?;
        Ok(Tensor::upload_in(self.context, shape, &narrow(&self.vectors.values(key)?), elem)?)
    }

    fn layer<const D: usize>(&self) -> Result<Bound> {
        let (context, config, weights) = (self.context, &self.config, &self.layer);
        match config.kind.as_str() {
            "dyconv" => {
                let (desc, weights) = match config.transposed {
                    false => weights.dy_cnn::<D>("param.")?,
                    true => weights.dy_cnn_transposed::<D>("param.", config.groups.unwrap_or(1))?,
                };
                let desc = config.geometry(desc)?;
                self.bind(Layer::<D, DyCnn>::new(context, &desc, &weights, config.temperature)?)
            }
            "odconv" => {
                ensure!(!config.transposed, "a transposed ODConv layer cannot be read from a file");
                let (desc, weights) = weights.od_conv::<D>("param.", config.epsilon())?;
                let desc = config.geometry(desc)?;
                self.bind(Layer::<D, Od>::new(context, &desc, &weights, config.temperature)?)
            }
            "condconv" => {
                let (desc, weights) =
                    weights.cond_conv("param.", "param.routing_fn.", &self.flat::<D>()?)?;
                self.bind(Layer::<D, CondConv>::new(context, &config.geometry(desc)?, &weights)?)
            }
            "kernelwarehouse" => {
                let desc = config.geometry(self.flat::<D>()?)?;
                let (cells, values) = self.vectors.warehouse("param.cells")?;
                let weights = weights.kernel_warehouse("param.", &desc, cells, config.epsilon())?;
                let warehouse = Warehouse::new(context, cells, &values)?;
                self.bind(Layer::<D, KernelWarehouse>::new(context, &desc, &weights, &warehouse)?)
            }
            "static" => {
                let (desc, kernel) = self.kernel::<D>()?;
                let bias = self.bias(&[desc.geometry()?.c_out])?;
                self.bind(Layer::<D, Static>::new(context, &desc, &kernel, bias.as_deref())?)
            }
            "bank" => {
                let (desc, bank, bias) = self.bank::<D>()?;
                let layer = Layer::<D, Given>::new(context, &desc, &bank, bias.as_deref())?;
                let attention = self.tensor("attention", Elem::F32)?;
                self.bind_given(&self.laid_out(layer)?, &[&attention])
            }
            "map" => {
                let (desc, bank, bias) = self.bank::<D>()?;
                let map = self.tensor("map", Elem::F32)?;
                ensure!(
                    map.shape().len() == D + 2,
                    "map: expected a weight at every position of the output"
                );
                let layer =
                    Layer::<D, Map>::new(context, &desc, &bank, bias.as_deref(), MapAxis::All)?;
                self.bind_given(&self.laid_out(layer)?, &[&map])
            }
            "persample" => {
                let (desc, kernels) = self.per_sample::<D>()?;
                let layer = self.laid_out(Layer::<D, PerSample>::new(context, &desc)?)?;
                self.bind_given(&layer, &[&kernels])
            }
            kind => bail!(
                "unknown kind \"{kind}\" with {D} spatial axes; there are {}",
                KINDS.join(", ")
            ),
        }
    }

    /// A layer of a kind that has two axes only, and takes channels first.
    fn planar(&self) -> Option<Result<Bound>> {
        let is_planar =
            ["pixelmix", "fdyconv", "modulated", "dcd"].contains(&self.config.kind.as_str());
        is_planar.then(|| self.planar_layer())
    }

    fn planar_layer(&self) -> Result<Bound> {
        let (context, config, weights) = (self.context, &self.config, &self.layer);
        ensure!(
            config.layouts() == [Layout::ChannelsFirst; 2],
            "kind {} takes channels first",
            config.kind
        );
        match config.kind.as_str() {
            "pixelmix" => {
                let (desc, weights) = weights.pixel_mix("param.")?;
                let desc = config.geometry(desc)?;
                let layer = PixelMix2d::new(context, &desc, &weights, config.temperature)?;
                self.bind_given(&finished!(self, layer, desc.geometry()?.c_out), &[])
            }
            "fdyconv" => {
                let (desc, weights) = weights.fdy("param.", config.epsilon())?;
                let desc = config.geometry(desc)?;
                let layer = FdyConv2d::new(context, &desc, &weights, config.temperature)?;
                self.bind_given(&finished!(self, layer, desc.geometry()?.c_out), &[])
            }
            "dcd" => {
                ensure!(
                    config.epilogue.affine == Affine::None
                        && config.activation()? == Activation::None,
                    "nothing can follow the sum of kind dcd"
                );
                let (desc, weights) = weights.dcd("param.", config.epsilon())?;
                self.bind_given(&Dcd2d::new(context, &config.geometry(desc)?, &weights)?, &[])
            }
            _ => {
                ensure!(
                    !weights.contains("param.bias"),
                    "param.bias: kind modulated has no use for it"
                );
                let (desc, weight) = self.kernel::<2>()?;
                let layer = ModulatedConv2d::new(context, &desc, &weight, config.demodulate)?;
                let style = self.tensor("style", Elem::F32)?;
                self.bind_given(&finished!(self, layer, desc.geometry()?.c_out), &[&style])
            }
        }
    }

    /// The description of a layer whose weights are stored flat, without what no checkpoint holds.
    fn flat<const D: usize>(&self) -> Result<ConvDesc<D>> {
        let (kernel, c_out) = self.config.flat()?;
        let c_in = self.config.c_in(&self.vectors)?;
        Ok(ConvDesc::new(c_in, c_out, kernel).groups(self.config.groups.unwrap_or(1)))
    }

    /// Channels, groups and taps from the shape of one kernel:
    /// `[channels out, channels in / groups, taps..]`, transposed
    /// `[channels in, channels out / groups, taps..]`.
    fn desc<const D: usize>(&self, key: &str, shape: &[usize]) -> Result<ConvDesc<D>> {
        let c_in = self.config.c_in(&self.vectors)?;
        let wanted = || {
            format!("{key}: expected two counts of channels and {D} kernel sizes, found {shape:?}")
        };
        let [first, second, kernel @ ..] = shape else { bail!(wanted()) };
        let kernel: [usize; D] = kernel.try_into().map_err(|_| anyhow::anyhow!(wanted()))?;
        let (c_out, groups) = match self.config.transposed {
            true => (
                second.saturating_mul(self.config.groups.unwrap_or(1)),
                self.config.groups.unwrap_or(1),
            ),
            false => {
                ensure!(
                    *second > 0 && c_in.is_multiple_of(*second),
                    "{key}: {second} channels a group do not divide the {c_in} channels of x"
                );
                (*first, c_in / second)
            }
        };
        Ok(ConvDesc::new(c_in, c_out, kernel).groups(groups))
    }

    /// One kernel for all samples: in full, or flat.
    fn kernel<const D: usize>(&self) -> Result<(ConvDesc<D>, Vec<f32>)> {
        let key = "param.weight";
        let shape = self.layer.shape(key).context("no tensor param.weight")?;
        let desc = if shape.len() == D + 2 { self.desc(key, shape)? } else { self.flat()? };
        let desc = self.config.geometry(desc)?;
        let values = self.layer.tensor(key, shape)?;
        self.only(&[key, "param.bias"])?;
        Ok((desc, values))
    }

    /// A bank and its bias.
    fn bank<const D: usize>(&self) -> Result<(ConvDesc<D>, Vec<f32>, Option<Vec<f32>>)> {
        let key = "param.weight";
        let [kernels, shape @ ..] = self.layer.shape(key).context("no tensor param.weight")? else {
            bail!("{key}: expected a bank of kernels, found a number")
        };
        let desc = self.config.geometry(self.desc::<D>(key, shape)?.kernels(*kernels))?;
        let bank = self.layer.tensor(key, &[&[*kernels], shape].concat())?;
        let bias = self.bias(&[*kernels, desc.geometry()?.c_out])?;
        self.only(&[key, "param.bias"])?;
        Ok((desc, bank, bias))
    }

    fn bias(&self, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let key = "param.bias";
        Ok(self.layer.contains(key).then(|| self.layer.tensor(key, shape)).transpose()?)
    }

    /// A kernel a sample, under `kernels` or `param.weight`: in full, flat, or for a single sample
    /// without the axis of samples.
    fn per_sample<const D: usize>(&self) -> Result<(ConvDesc<D>, Tensor)> {
        ensure!(
            !self.config.transposed,
            "transposed kernels of each sample's own cannot be read from a file"
        );
        let key = if self.vectors.contains("kernels") { "kernels" } else { "param.weight" };
        let shape = self.vectors.shape(key).context("no tensor kernels or param.weight")?;
        let batch = self.vectors.shape("x").and_then(<[usize]>::first).copied().unwrap_or(0);
        let desc = match shape.len() {
            rank if rank == D + 3 => self.desc(key, &shape[1..])?,
            rank if rank == D + 2 && batch == 1 => self.desc(key, shape)?,
            _ => self.flat()?,
        };
        let desc = self.config.geometry(desc)?;
        self.only(&["param.weight"])?;
        let kernels = self.tensor(key, Elem::F32)?;
        let weights = desc.geometry()?.weights();
        let rows = kernels
            .reshape(&[batch, weights])
            .with_context(|| format!("{key}: {shape:?} for {batch} samples"))?;
        Ok((desc, rows))
    }

    /// Refuses parameters that a layer has no use for.
    fn only(&self, known: &[&str]) -> Result<()> {
        match self.layer.keys().find(|key| !known.contains(key)) {
            None => Ok(()),
            Some(key) => bail!("{key}: kind {} has no use for it", self.config.kind),
        }
    }

    fn laid_out<const D: usize, A>(&self, layer: Layer<D, A>) -> Result<Layer<D, A>> {
        let [input, output] = self.config.layouts();
        let layer = layer.layouts(input, output);
        let channels = match output {
            Layout::ChannelsFirst => self.vectors.shape("y").and_then(|shape| shape.get(1)),
            Layout::ChannelsLast => self.vectors.shape("y").and_then(<[usize]>::last),
        };
        Ok(finished!(self, layer, channels.copied().context("no tensor y")?))
    }

    fn bind<const D: usize, A: OwnAttention>(&self, layer: Layer<D, A>) -> Result<Bound> {
        self.bind_given(&self.laid_out(layer)?, &[])
    }

    /// Binds a layer to what stands in the file, and to an output.
    fn bind_given(&self, layer: &dyn AnyLayer, given: &[&Tensor]) -> Result<Bound> {
        let x = self.tensor("x", self.elem)?;
        let residual = self
            .config
            .epilogue
            .residual
            .then(|| self.tensor("residual", self.elem))
            .transpose()?;
        let y = Tensor::zeros_in(self.context, &layer.output_shape(x.shape())?, self.elem)?;
        Ok(layer.bind_any(&x, given, residual.as_ref(), &y)?)
    }
}

fn compute(context: &Context, bound: &Bound) -> Result<Vec<f32>> {
    let mut encoder =
        context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    bound.record(&mut encoder);
    context.queue().submit([encoder.finish()]);
    Ok(bound.output().read_blocking(context)?)
}
