//! `dynconv classify`, `inspect` and `convert`: whole networks, from their checkpoints.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use dynconv::layers::AnyLayer;
use dynconv::program::Memory;
use dynconv::{Caps, Checkpoint};
use dynconv_nets::{Family, Options as NetOptions, PytorchFile, load};
use dynconv_suite::variants::noop;
use image::RgbImage;
use image::imageops::{self, FilterType};

use crate::map::map;
use crate::say::warn;
use crate::{AdapterArgs, Usage};

/// A checkpoint, and what it does not tell.
#[derive(Debug, Args)]
struct Weights {
    /// The checkpoint: safetensors, or a file of PyTorch
    #[arg(value_name = "WEIGHTS")]
    file: PathBuf,
    /// What divides the logits of the attention; published networks of ODConv have 1
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Epsilon of all batch norms, where it is not the published one
    #[arg(long, value_name = "E")]
    epsilon: Option<f64>,
    /// Stride of a MobileNetV3's first convolution and block
    #[arg(long, value_name = "STRIDE")]
    stem_stride: Option<usize>,
}

/// Bytes of a safetensors file: mapped, or made of a PyTorch file.
enum Bytes {
    Mapped(memmap2::Mmap),
    Made(Vec<u8>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Made(bytes) => bytes,
        }
    }
}

impl Weights {
    /// Reads the file, by what its name ends in.
    fn read(&self) -> Result<Bytes> {
        let path = &self.file;
        if path.extension().is_some_and(|ending| ending == "safetensors") {
            return Ok(Bytes::Mapped(map(path)?));
        }
        Ok(Bytes::Made(pytorch(path)?.safetensors))
    }

    fn options(&self) -> NetOptions {
        let Self { temperature, epsilon, stem_stride, .. } = *self;
        let published = NetOptions::default().attention_epsilon;
        let attention_epsilon = epsilon.unwrap_or(published);
        NetOptions { temperature, epsilon, attention_epsilon, stem_stride }
    }
}

/// Reads a PyTorch file, and says what was left out of it.
fn pytorch(path: &Path) -> Result<PytorchFile> {
    let file =
        PytorchFile::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if let Some(place) = file.under {
        warn(format_args!("read {place} of {}\n", path.display()));
    }
    for object in &file.skipped {
        warn(format_args!("left out {object}, which is no tensor\n"));
    }
    Ok(file)
}

#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// A file of PyTorch: .pth, .pt, .pth.tar
    #[arg(value_name = "WEIGHTS")]
    file: PathBuf,
    /// The safetensors file to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

pub(crate) fn convert(options: &Convert) -> Result<ExitCode> {
    let file = pytorch(&options.file)?;
    let count = Checkpoint::new(&file.safetensors)?.keys().count();
    let out = options.out.display();
    std::fs::write(&options.out, &file.safetensors)
        .with_context(|| format!("cannot write {out}"))?;
    println!("{count} tensors, {} bytes: {out}", file.safetensors.len());
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    weights: Weights,
    /// Samples that run together
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Height and width of the input
    #[arg(long, default_value_t = 224)]
    size: usize,
    /// Print every step, and from where to where each value lives
    #[arg(long)]
    steps: bool,
}

pub(crate) fn inspect(options: &Inspect) -> Result<ExitCode> {
    let bytes = options.weights.read()?;
    let checkpoint = Checkpoint::new(bytes.as_ref())?;
    let family = Family::detect(&checkpoint)?;
    // Plans need no adapter: one of no limits stands in for all.
    let caps = noop().caps().clone();
    let most = 1 << 40;
    let context = noop().with_caps(Caps { max_storage_binding: most, max_buffer: most, ..caps });
    let network = load(&context, &checkpoint, &options.weights.options())?;
    let input = [options.batch, 3, options.size, options.size];
    let program = network.plan(&input)?;
    let output = network.output_shape(&input)?;
    println!("{family}: {input:?} -> {output:?}, {} dispatches", program.steps().len());
    println!("stages: {}", network.stages().collect::<Vec<_>>().join(", "));
    let bytes_of = |memory: &dyn Fn(Memory) -> bool| -> u64 {
        let values = program.values().iter().filter(|info| memory(info.memory));
        values.map(dynconv::program::ValueInfo::bytes).sum()
    };
    let scratch = bytes_of(&|memory| memory != Memory::External);
    let arena = program.arena(context.caps());
    for (what, bytes) in [
        ("weights, input and output", bytes_of(&|memory| memory == Memory::External)),
        ("all that is made in between", arena.bytes()),
        ("the same without sharing", scratch),
    ] {
        println!("{what:<28}{:>9.2} MB", bytes as f64 / 1e6);
    }
    if options.steps {
        print!("{program}");
    }
    Ok(ExitCode::SUCCESS)
}

/// How photos are made smaller; both look at every pixel.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Filter {
    Bilinear,
    Bicubic,
}

#[derive(Debug, Args)]
pub(crate) struct Classify {
    #[command(flatten)]
    weights: Weights,
    /// The photos, PNG or JPEG
    #[arg(value_name = "PHOTO", required = true)]
    photos: Vec<PathBuf>,
    /// Labels, one a line, in the order of the classes
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Classes to print of each photo
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// What the shorter side is resized to
    #[arg(long, default_value_t = 256)]
    resize: u32,
    /// Side of the square that is cut out of the middle
    #[arg(long, default_value_t = 224)]
    size: u32,
    /// How to resize
    #[arg(long, value_enum, default_value_t = Filter::Bilinear)]
    filter: Filter,
    /// Mean of red, green and blue that the network was trained with
    #[arg(long, value_delimiter = ',', default_values_t = [0.485, 0.456, 0.406])]
    mean: Vec<f32>,
    /// Their standard deviations
    #[arg(long, value_delimiter = ',', default_values_t = [0.229, 0.224, 0.225])]
    std: Vec<f32>,
    #[command(flatten)]
    adapter: AdapterArgs,
}

/// The longer side of a photo, once resized.
const LONGEST: u32 = 1 << 14;

/// Photos of a batch.
const AT_ONCE: usize = 8;

pub(crate) fn classify(options: &Classify) -> Result<ExitCode> {
    let usage = |is_right: bool, text: &str| Usage::unless(is_right, || text.into());
    usage(
        options.mean.len() == 3 && options.std.len() == 3,
        "--mean and --std take three numbers",
    )?;
    usage(options.std.iter().all(|&std| std > 0.0), "--std takes numbers above 0")?;
    usage(options.size > 0 && options.size <= options.resize, "--size is at most --resize")?;
    let bytes = options.weights.read()?;
    let checkpoint = Checkpoint::new(bytes.as_ref())?;
    let context = options.adapter.context()?;
    let network = load(&context, &checkpoint, &options.weights.options())?;
    let side = options.size as usize;
    let classes = network.output_shape(&[1, 3, side, side])?.iter().product();
    let labels = labels(options.labels.as_deref(), classes)?;
    for photos in options.photos.chunks(AT_ONCE) {
        let pixels = photos.iter().map(|photo| pixels(options, photo));
        let pixels = pixels.collect::<Result<Vec<_>>>()?.concat();
        let logits = network.run(&[photos.len(), 3, side, side], &pixels)?;
        for (photo, logits) in photos.iter().zip(logits.chunks_exact(classes)) {
            println!("{}", photo.display());
            for (class, share) in best(logits).into_iter().take(options.top) {
                println!("  {:5.1} %  {}", 100.0 * share, labels[class]);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A photo as the network wants it: the shorter side resized, the middle cut out, normalised.
fn pixels(options: &Classify, photo: &Path) -> Result<Vec<f32>> {
    let image = image::ImageReader::open(photo)
        .and_then(image::ImageReader::with_guessed_format)
        .with_context(|| format!("cannot read {}", photo.display()))?;
    let image = image.decode().with_context(|| format!("{} is no photo", photo.display()))?;
    let image = image.to_rgb8();
    let square = middle(&image, options)?;
    let normalised = |channel: usize| {
        let (mean, std) = (options.mean[channel], options.std[channel]);
        square.pixels().map(move |pixel| (f32::from(pixel.0[channel]) / 255.0 - mean) / std)
    };
    Ok((0..3).flat_map(normalised).collect())
}

fn middle(image: &RgbImage, options: &Classify) -> Result<RgbImage> {
    let (width, height) = image.dimensions();
    ensure!(width > 0 && height > 0, "a photo without pixels");
    let shorter = u64::from(width.min(height));
    // Down to whole pixels, as torchvision has it.
    let scaled = |side: u32| u32::try_from(u64::from(side) * u64::from(options.resize) / shorter);
    let (width, height) = (scaled(width)?, scaled(height)?);
    ensure!(
        width.max(height) <= LONGEST,
        "{width} x {height} once resized, and at most {LONGEST} are"
    );
    let filter = match options.filter {
        Filter::Bilinear => FilterType::Triangle,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    let resized = imageops::resize(image, width, height, filter);
    let side = options.size;
    // Halves to the even number, as torchvision has it.
    let [left, top] = [width, height].map(|whole| {
        let rest = whole - side;
        (rest + rest / 2 % 2) / 2
    });
    Ok(imageops::crop_imm(&resized, left, top, side, side).to_image())
}

fn labels(file: Option<&Path>, classes: usize) -> Result<Vec<String>> {
    let Some(file) = file else { return Ok((0..classes).map(|i| format!("class {i}")).collect()) };
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let labels: Vec<String> = text.lines().map(str::to_owned).collect();
    let count = labels.len();
    ensure!(count == classes, "{name} has {count} labels, and the network {classes} classes");
    Ok(labels)
}

/// Classes by their probability, which is the softmax of the logits, the most likely first.
fn best(logits: &[f32]) -> Vec<(usize, f64)> {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b.into()));
    let powers: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let mut all: Vec<(usize, f64)> =
        powers.into_iter().map(|power| power / sum).enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_logit_comes_first_and_shares_add_up() {
        let all = best(&[1.0, 3.0, -1000.0, 2.0]);
        assert_eq!(all.iter().map(|(class, _)| *class).collect::<Vec<_>>(), [1, 3, 0, 2]);
        assert!((all.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(best(&[f32::MAX, -f32::MAX])[0].1 == 1.0);
    }
}
