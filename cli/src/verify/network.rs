//! Whole networks against golden outputs: `NAME.io.safetensors` beside the weights in
//! `NAME.safetensors`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use dynconv::layers::AnyLayer;
use dynconv::reference::{narrow, widen};
use dynconv::{Checkpoint, Context, Elem, Tensor};
use dynconv_nets::{Family, Network, Options, load};
use serde::Deserialize;

use crate::map::map;
use crate::rounding::{Truth, error};

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
    /// What rounding explains.
    pub(super) tolerance: f64,
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

    let mut found = Found { family, held: 0, error: 0.0, at: String::new(), tolerance: 0.0 };
    let mut hold = |name: &str, network: &Network, last: Option<&str>| -> Result<()> {
        let key = if io.contains(name) { name.to_owned() } else { format!("stage.{name}") };
        let expected = io.values(&key)?;
        let finished = |values: Vec<f64>| match last {
            Some("log-softmax") => log_softmax(&values, expected.len() / shape[0].max(1)),
            _ => values,
        };
        let values = network.forward_any(&x, &[])?.read_blocking(context)?;
        ensure!(
            values.len() == expected.len(),
            "{name}: expected {} elements, found {}",
            expected.len(),
            values.len()
        );
        let tolerance = Truth::of(network, &x)?.map(finished).tolerance(elem);
        let error = error(&finished(widen(&values)), &expected);
        found.held += 1;
        if found.at.is_empty() || error * found.tolerance > found.error * tolerance {
            (found.error, found.tolerance, found.at) = (error, tolerance, name.into());
        }
        Ok(())
    };
    for key in io.keys().filter(|key| key.starts_with("stage.")) {
        let stage = &key["stage.".len()..];
        hold(stage, &network.until(stage)?, None)?;
    }
    for (number, name) in config.outputs.iter().enumerate() {
        let is_stage = network.stages().any(|stage| stage == name);
        match is_stage {
            true => hold(name, &network.until(name)?, config.last.as_deref())?,
            false if number == 0 => hold(name, &network, config.last.as_deref())?,
            false => bail!("the network has no output {name}"),
        }
    }
    Ok(found)
}

/// What the published code makes of logits.
fn log_softmax(logits: &[f64], classes: usize) -> Vec<f64> {
    let samples = logits.chunks_exact(classes.max(1));
    let of_sample = |sample: &[f64]| {
        let largest = sample.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = sample.iter().map(|logit| (logit - largest).exp()).sum();
        sample.iter().map(|logit| logit - largest - sum.ln()).collect::<Vec<_>>()
    };
    samples.flat_map(of_sample).collect()
}
