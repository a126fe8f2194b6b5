//! Whole networks against golden outputs: `NAME.io.safetensors` beside the weights in
//! `NAME.safetensors`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use dynconv::layers::AnyLayer;
use dynconv::reference::narrow;
use dynconv::{Checkpoint, Context, Elem, Tensor};
use dynconv_nets::{Family, Network, Options, load};
use serde::Deserialize;

use crate::map::map;

/// What no checkpoint tells, in the file of outputs under `config`.
#[derive(Deserialize)]
struct Config {
    temperature: Option<f32>,
    norm_epsilon: Option<f64>,
    stem_stride: Option<usize>,
    last: Option<String>,
    outputs: Vec<String>,
}

/// How far a network is from its golden outputs, of the largest value of each.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) family: Family,
    /// Stages that were held, and the outputs.
    pub(super) held: usize,
    /// The largest error and where it is.
    pub(super) error: f64,
    pub(super) at: String,
}

/// What f32 costs PyTorch in the worst of the golden networks, of the largest value.
const COST: f64 = 1.8e-5;

/// Largest error: in f32 ten times that cost. In f16 the cost times 2^13, as activations are
/// rounded to 2^-11 of themselves in place of 2^-24; all sums are in f32 still.
pub(super) fn tolerance(elem: Elem) -> f64 {
    match elem {
        Elem::F32 => 10.0 * COST,
        _ => f64::from(1 << 13) * COST,
    }
}

/// The weights that belong to a file of outputs, if it is one.
pub(super) fn weights(file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?.strip_suffix(".io.safetensors")?;
    Some(file.with_file_name(format!("{name}.safetensors")))
}

/// Runs a network as far as each stage that the file names, and to its outputs.
pub(super) fn verify(context: &Context, outputs: &Path, elem: Elem) -> Result<Found> {
    let path = weights(outputs).context("a file of outputs")?;
    let (bytes, io) = (map(&path)?, map(outputs)?);
    let (checkpoint, io) = (Checkpoint::new(&bytes)?, Checkpoint::new(&io)?);
    let config = io.metadata("config").context("no \"config\" in the metadata")?;
    let config: Config = serde_json::from_str(config).context("metadata \"config\"")?;
    let options = Options {
        temperature: config.temperature,
        epsilon: config.norm_epsilon,
        stem_stride: config.stem_stride,
        ..Options::default()
    };
    let family = Family::detect(&checkpoint)?;
    let network = load(context, &checkpoint, &options)?;
    let shape = io.shape("input").context("no tensor input")?;
    let x = Tensor::upload_in(context, shape, &narrow(&io.values("input")?), elem)?;

    let mut found = Found { family, held: 0, error: 0.0, at: String::new() };
    let mut hold = |name: &str, values: &[f32], expected: &[f64]| -> Result<()> {
        ensure!(
            values.len() == expected.len(),
            "{name}: expected {} elements, found {}",
            expected.len(),
            values.len()
        );
        let error = error(values, expected);
        found.held += 1;
        if error > found.error || found.at.is_empty() {
            (found.error, found.at) = (error, name.into());
        }
        Ok(())
    };
    for key in io.keys().filter(|key| key.starts_with("stage.")) {
        let stage = &key["stage.".len()..];
        let values = run(context, &network.until(stage)?, &x)?;
        hold(stage, &values, &io.values(key)?)?;
    }
    for (number, name) in config.outputs.iter().enumerate() {
        let expected = io.values(name)?;
        let is_stage = network.stages().any(|stage| stage == name);
        let mut values = match is_stage {
            true => run(context, &network.until(name)?, &x)?,
            false if number == 0 => run(context, &network, &x)?,
            false => bail!("the network has no output {name}"),
        };
        if config.last.as_deref() == Some("log-softmax") {
            log_softmax(&mut values, expected.len() / shape[0].max(1));
        }
        hold(name, &values, &expected)?;
    }
    Ok(found)
}

fn run(context: &Context, network: &Network, x: &Tensor) -> Result<Vec<f32>> {
    Ok(network.forward_any(x, &[])?.read_blocking(context)?)
}

/// Largest error, relative to the largest value; NaN is infinite.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let errors = found.iter().zip(expected).map(|(&a, b)| (f64::from(a) - b).abs() / largest);
    errors.fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
}

/// What the published code makes of logits, in f32 as they are.
fn log_softmax(logits: &mut [f32], classes: usize) {
    for sample in logits.chunks_exact_mut(classes.max(1)) {
        let largest = sample.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = sample.iter().map(|logit| (logit - largest).exp()).sum();
        sample.iter_mut().for_each(|logit| *logit -= largest + sum.ln());
    }
}
