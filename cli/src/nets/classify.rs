//! `dynconv classify`: photos through a network of the user's own checkpoint.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use dynconv::Tensor;
use dynconv::layers::AnyLayer;
use dynconv::reference::widen;
use dynconv_nets::{Family, Network};

use super::answers::{self, Answer, Labels};
use super::photo;
use super::preparation::{Preparation, PreparationArgs};
use super::weights::{self, Untold};
use crate::progress::Progress;
use crate::rounding::{Truth, error};
use crate::say::warn;
use crate::target::Target;
use crate::{AdapterArgs, Usage, adapter_line, stop};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Photos, PNG or JPEG, and folders of them
    #[arg(value_name = "PHOTO", required = true)]
    photos: Vec<PathBuf>,
    /// The network's checkpoint: safetensors, or a file of PyTorch
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Refuse a checkpoint of any other network
    #[arg(long, value_enum, value_name = "NAME")]
    net: Option<Wanted>,
    /// Labels, one a line, in the order of the classes
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Classes to print of each photo
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Photos that run together
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Also write the classes to this file, a line of JSON a photo; `-` is standard output, and all
    /// else then goes to standard error
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Also compute the first photo in float64 on the host, and fail if the network differs
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    untold: Untold,
    #[command(flatten)]
    preparation: PreparationArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
}

/// Families by the names that users give.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wanted {
    #[value(name = "resnet")]
    ResNet,
    #[value(name = "mobilenet-v2")]
    MobileNetV2,
    #[value(name = "mobilenet-v3-small")]
    MobileNetV3Small,
    #[value(name = "efficientnet-cc")]
    EfficientNetCc,
    #[value(name = "vgg")]
    Vgg,
    #[value(name = "convnext")]
    ConvNext,
}

impl Wanted {
    fn family(self) -> Family {
        match self {
            Self::ResNet => Family::ResNet,
            Self::MobileNetV2 => Family::MobileNetV2,
            Self::MobileNetV3Small => Family::MobileNetV3Small,
            Self::EfficientNetCc => Family::EfficientNetCc,
            Self::Vgg => Family::Vgg,
            Self::ConvNext => Family::ConvNext,
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    for (option, count) in [("--batch", options.batch), ("--top", options.top)] {
        Usage::unless(count > 0, || format!("{option}: expected at least 1, found 0"))?;
    }
    options.preparation.check()?;
    let photos = photos(&options.photos)?;
    let labels = options.labels.as_deref().map(answers::read_labels).transpose()?;
    let path = &options.weights;
    let bytes = weights::read(path)?;
    let (checkpoint, family) = weights::open(path, &bytes)?;
    if let Some(wanted) = options.net.map(Wanted::family) {
        let name = path.display();
        ensure!(wanted == family, "{name}: expected {wanted}, as --net says, found {family}");
    }
    let preparation = options.preparation.of(family, &checkpoint)?;
    let json = Target::open(options.json.as_deref())?;
    let context = options.adapter.context()?;
    let network = weights::network(&context, (path, &checkpoint, family), options.untold)?;
    let side = preparation.side();
    let classes = network.output_shape(&[1, 3, side, side])?.iter().product();
    let labels = Labels::of(labels, options.labels.as_deref(), classes)?;
    println!("network: {family}, {classes} classes");
    println!("adapter: {}", adapter_line(context.caps()));
    println!("photos: {preparation}");
    stop::listen()?;

    let mut answers: Vec<(&Path, Answer)> = Vec::new();
    let has_bar = photos.len() > options.batch;
    let progress = Progress::new(has_bar.then_some(photos.len()), "photos");
    progress.set_message("compiling for the first photos");
    for some in photos.chunks(options.batch) {
        if stop::is_asked() {
            break;
        }
        for (photo, answer) in classify(&network, &preparation, some, classes)? {
            if let Err(error) = &answer {
                progress.suspend(|| warn(format_args!("error: {error:#}\n")));
            }
            answers.push((photo, answer));
        }
        if has_bar {
            progress.set_message("");
            progress.inc(some.len());
        }
    }
    progress.finish();

    let count = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
    if count > 0 {
        println!("{}", answers::table("photo", &answers, options.top, &labels));
    }
    if count < photos.len() {
        println!("{count} of {} photos were classified", photos.len());
    }
    json.write(&answers::lines(&answers, options.top, &labels))?;
    if options.check && !stop::is_asked() {
        check(&network, &preparation, &photos)?;
    }
    Ok(stop::status(count == photos.len()))
}

/// Holds the first photo that can be read against the network's reference.
fn check(network: &Network, preparation: &Preparation, photos: &[PathBuf]) -> Result<()> {
    let read = |photo: &PathBuf| Some((photo.clone(), photo::read(photo).ok()?));
    let (photo, image) = photos.iter().find_map(read).context("no photo to check")?;
    let photo = photo.display();
    let progress = Progress::new(None, "photos");
    progress.set_message("computing one in float64");
    let side = preparation.side();
    let x = Tensor::upload(network.context(), &[1, 3, side, side], &preparation.apply(&image)?)?;
    let logits = network.forward(&x)?.read_blocking(network.context())?;
    let truth = Truth::of(network, &x)?;
    progress.finish();
    let tolerance = truth.tolerance(x.elem());
    let error = error(&widen(&logits), &truth.outputs);
    println!("check: {photo}: {error:.1e} of the largest logit from float64");
    ensure!(error <= tolerance, "{photo}: expected at most {tolerance:.1e} from float64");
    Ok(())
}

/// What is a photo by its name.
const ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Files left out of a folder to name.
const NAMES: usize = 3;

/// The photos themselves, and those of folders, by name.
fn photos(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut photos = Vec::new();
    for path in paths {
        if !path.is_dir() {
            photos.push(path.clone());
            continue;
        }
        let folder = path.display();
        let entries = path.read_dir().with_context(|| format!("cannot read {folder}"))?;
        let files: Result<Vec<PathBuf>, _> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut files = files.with_context(|| format!("cannot read {folder}"))?;
        files.sort();
        let is_photo = |path: &PathBuf| {
            let is =
                |ending: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
            ENDINGS.into_iter().any(is) && !path.is_dir()
        };
        let (some, others): (Vec<_>, Vec<_>) = files.into_iter().partition(is_photo);
        ensure!(!some.is_empty(), "{folder}: no PNG or JPEG in this folder");
        if !others.is_empty() {
            let names = others.iter().take(NAMES).filter_map(|path| path.file_name());
            let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
            let more = if others.len() > NAMES { ", .." } else { "" };
            warn(format_args!(
                "left out {} of {folder}, by their names no PNG or JPEG: {}{more}\n",
                others.len(),
                names.join(", ")
            ));
        }
        photos.extend(some);
    }
    Ok(photos)
}

/// Runs photos together, without those that cannot be read.
fn classify<'p>(
    network: &Network,
    preparation: &Preparation,
    photos: &'p [PathBuf],
    classes: usize,
) -> Result<Vec<(&'p Path, Answer)>> {
    let prepared = |photo: &PathBuf| {
        let image = photo::read(photo)?;
        preparation.apply(&image).with_context(|| photo.display().to_string())
    };
    let mut pixels = Vec::new();
    let mut is_read = Vec::new();
    for photo in photos {
        is_read.push(prepared(photo).map(|numbers| pixels.extend(numbers)));
    }
    let count = is_read.iter().filter(|read| read.is_ok()).count();
    let side = preparation.side();
    let logits = match count {
        0 => Vec::new(),
        _ => network.run(&[count, 3, side, side], &pixels)?,
    };
    let mut samples = logits.chunks_exact(classes);
    let answers = photos.iter().zip(is_read).map(|(photo, read)| {
        let answer = read.and_then(|()| {
            let logits = samples.next().context("the network gave fewer samples than it got")?;
            let is_finite = logits.iter().all(|logit| logit.is_finite());
            ensure!(is_finite, "{}: the network's output is not finite", photo.display());
            Ok(answers::by_probability(softmax(logits)))
        });
        (photo.as_path(), answer)
    });
    Ok(answers.collect())
}

/// Probabilities of classes of which one is right.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b.into()));
    let powers: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up() {
        let all = softmax(&[1.0, 3.0, -1000.0, 2.0]);
        assert!((all.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(softmax(&[f32::MAX, -f32::MAX])[0] == 1.0);
    }
}
