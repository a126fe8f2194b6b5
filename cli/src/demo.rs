//! `dynconv demo`: a trained ODConv network on real images, checked against two references.

mod ready;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, Table};
use dynconv::layers::AnyLayer;
use dynconv::reference::narrow;
use dynconv::{BatchNorm, Checkpoint, Context, Tensor};
use dynconv_nets::Network;
use dynconv_suite::variants::noop;
use memmap2::Mmap;
use ready::{Mix, Ready};
use serde::Deserialize;

use crate::dataset::Dataset;
use crate::map::map;
use crate::progress::Progress;
use crate::report::{LayerAttention, LayerRow, Report, Sample};
use crate::target::Target;
use crate::{AdapterArgs, JsonArgs, Usage, adapter, is_no_adapter, stop};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    json: JsonArgs,
    /// Images that run together
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Classify only the first images of the test set
    #[arg(long, value_name = "COUNT")]
    images: Option<usize>,
    /// Where to write the report
    #[arg(long, value_name = "FILE", default_value = "dynconv-demo.html")]
    report: PathBuf,
    /// Network of the same form to run instead of the built-in one (safetensors)
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Reference logits of that network (safetensors)
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Images to classify instead of the built-in ones (IDX, gzip)
    #[arg(long, value_name = "FILE")]
    image_file: Option<PathBuf>,
    /// Classes of those images (IDX, gzip)
    #[arg(long, value_name = "FILE")]
    label_file: Option<PathBuf>,
}

const NAMES: [&str; CLASSES] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// Classes, and height and width of an image.
const CLASSES: usize = 10;
const SIDE: usize = 28;

/// Images whose two best reference logits lie closer than this may fall to either class.
const AMBIGUOUS: f32 = 1e-3;
/// Largest difference of a logit from the float64 reference that the demo accepts.
const LOGIT_TOLERANCE: f64 = 2e-4;
/// Images that the CPU reference classifies too.
const CPU_SAMPLE: usize = 64;
/// Images that the CPU reference takes together.
const CPU_BATCH: usize = 64;
/// Images shown in the report: right ones and wrong ones.
const SHOWN: [usize; 2] = [16, 16];

/// What the checkpoint says of itself.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Config {
    temperature: f32,
    mean: f32,
    std: f32,
    /// Of all batch norms.
    #[serde(default = "pytorch")]
    epsilon: f64,
}

fn pytorch() -> f64 {
    BatchNorm::EPSILON_PYTORCH
}

impl Config {
    fn of(checkpoint: &Checkpoint<'_>) -> Result<Self> {
        let config = checkpoint.metadata("config").context("checkpoint: no metadata \"config\"")?;
        let config: Self =
            serde_json::from_str(config).context("checkpoint: metadata \"config\"")?;
        ensure!(
            config.std > 0.0 && config.mean.is_finite(),
            "checkpoint: mean and std of the pixels are unusable"
        );
        Ok(config)
    }

    /// The checkpoint's network.
    fn network(self, context: &Context, checkpoint: &Checkpoint<'_>) -> Result<Network> {
        let options = dynconv_nets::Options {
            temperature: Some(self.temperature),
            epsilon: Some(self.epsilon),
            attention_epsilon: self.epsilon,
            ..dynconv_nets::Options::default()
        };
        let network = dynconv_nets::plain(context, checkpoint, &options)?;
        let output = network.output_shape(&[1, 1, SIDE, SIDE])?;
        ensure!(output == [1, CLASSES], "fc.weight: expected {CLASSES} classes, found {output:?}");
        Ok(network.keep_attention())
    }

    /// Normalised pixels.
    fn preprocess(self, pixels: &[u8]) -> Vec<f32> {
        pixels.iter().map(|&p| (f32::from(p) / 255.0 - self.mean) / self.std).collect()
    }
}

/// What came out of a run, on whatever it ran.
#[derive(Debug, Default)]
struct Run {
    adapter: String,
    driver: String,
    logits: Vec<f64>,
    /// Images that ran together; 0 where they ran one by one, on the CPU.
    batch: usize,
    seconds: f64,
    layers: Vec<LayerRow>,
    attention: Vec<Mix>,
    max_cpu_error: Option<f64>,
}

/// The run held against labels and reference.
#[derive(Debug)]
struct Outcome {
    predicted: Vec<usize>,
    correct: usize,
    reference_correct: usize,
    class_mismatches: usize,
    ambiguous: usize,
    max_logit_error: f64,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    stop::listen()?;
    Usage::unless(options.batch > 0, || "--batch: expected at least 1, found 0".into())?;
    let model =
        file(options.model.as_deref(), include_bytes!("../../assets/od_fashion.safetensors"))?;
    let reference = file(
        options.reference.as_deref(),
        include_bytes!("../../assets/od_fashion_logits.safetensors"),
    )?;
    let images = file(
        options.image_file.as_deref(),
        include_bytes!("../../assets/t10k-images-idx3-ubyte.gz"),
    )?;
    let labels = file(
        options.label_file.as_deref(),
        include_bytes!("../../assets/t10k-labels-idx1-ubyte.gz"),
    )?;

    // Errors name the file that was given, or what is built in.
    let of = |path: &Option<PathBuf>| {
        path.as_ref().map_or("built in".into(), |path| path.display().to_string())
    };
    let of_model = || of(&options.model);
    let model = Checkpoint::new(&model).with_context(of_model)?;
    let config = Config::of(&model).with_context(of_model)?;
    let mut data = Dataset::load(
        &images,
        &labels,
        SIDE,
        CLASSES,
        [of(&options.image_file), of(&options.label_file)],
    )?;
    let reference = Checkpoint::new(&reference)
        .and_then(|file| file.tensor("logits", &[data.len(), CLASSES]))
        .with_context(|| format!("{}: reference logits", of(&options.reference)))?;
    if let Some(count) = options.images {
        let is_possible = (1..=data.len()).contains(&count);
        Usage::unless(is_possible, || {
            format!("--images: expected 1 to {}, found {count}", data.len())
        })?;
        data.truncate(count);
    }

    let (json_target, target) = (options.json.open()?, Target::open(Some(&options.report))?);
    let context = context(options)?;
    // The CPU reference takes its weights from memory that no device holds.
    let network = |context: &Context| config.network(context, &model).with_context(of_model);
    let run = match context {
        Some(context) => on_gpu(&context, &network(&context)?, config, &data, options.batch)?,
        None => {
            let host = noop();
            on_cpu(&host, &network(&host)?, config, &data)?
        }
    };
    if stop::is_asked() {
        let count = run.logits.len() / CLASSES;
        println!("stopped after {count} of {} images", data.len());
        data.truncate(count);
    }
    let outcome = evaluate(&run, &data, &reference[..data.len() * CLASSES]);
    json_target.write_json(&json(&run, &outcome, data.len()))?;
    if data.len() == 0 {
        return Ok(stop::status(false));
    }
    print(&run, &outcome, data.len());
    target.write(&report(&run, &outcome, &data)?)?;
    println!("report: {}", options.report.display());

    ensure!(
        outcome.class_mismatches == 0,
        "{} images got another class than by the reference",
        outcome.class_mismatches
    );
    ensure!(
        outcome.max_logit_error <= LOGIT_TOLERANCE,
        "a logit differs from the reference by {:.2e}, more than {LOGIT_TOLERANCE:.0e}",
        outcome.max_logit_error
    );
    Ok(stop::status(true))
}

/// A file of the caller's, mapped, or a built-in one.
enum File {
    BuiltIn(&'static [u8]),
    Mapped(Mmap),
}

impl std::ops::Deref for File {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::BuiltIn(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

fn file(path: Option<&Path>, built_in: &'static [u8]) -> Result<File> {
    path.map_or(Ok(File::BuiltIn(built_in)), |path| Ok(File::Mapped(map(path)?)))
}

/// The adapter asked for, or `None` where there is none at all.
fn context(options: &Options) -> Result<Option<Context>> {
    match options.adapter.context() {
        Ok(context) => {
            println!("adapter: {}\ndriver: {}", context.caps().name, context.caps().driver);
            Ok(Some(context))
        }
        Err(error) if is_no_adapter(&error) && options.adapter.adapter.is_none() => {
            println!("no Vulkan, Metal or DX12 adapter found: running on the CPU reference");
            if let Some(advice) = adapter::advice() {
                println!("{advice}");
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn on_gpu(
    context: &Context,
    network: &Network,
    config: Config,
    data: &Dataset,
    batch: usize,
) -> Result<Run> {
    let mut run = Run {
        adapter: context.caps().name.clone(),
        driver: context.caps().driver.clone(),
        ..Default::default()
    };
    let batch = batch.min(data.len());
    let mut ready = Ready::new(context, network, batch)?;
    let (layers, flops): (Vec<LayerRow>, Vec<u64>) = ready.layers()?.into_iter().unzip();
    run.layers = layers;
    let mut layer_ms = vec![Vec::new(); run.layers.len()];
    run.batch = batch;
    let progress = Progress::new(Some(data.len()), "images");
    for first in (0..data.len()).step_by(batch) {
        if stop::is_asked() {
            break;
        }
        let count = batch.min(data.len() - first);
        if count != ready.batch {
            ready = Ready::new(context, network, count)?;
        }
        let images =
            config.preprocess(&data.pixels[first * SIDE * SIDE..(first + count) * SIDE * SIDE]);
        let started = Instant::now();
        ready.submit(context, &images)?;
        let logits = ready.read_logits(context)?;
        run.seconds += started.elapsed().as_secs_f64();
        run.logits.extend(logits.into_iter().map(f64::from));

        collect_attention(&mut run.attention, ready.read_attention(context)?);
        if let Some(times) = ready.read_times(context)?.filter(|_| count == batch) {
            layer_ms.iter_mut().zip(times).for_each(|(all, ms)| all.push(ms));
        }
        progress.inc(count);
    }
    progress.finish();
    for ((row, flops), ms) in run.layers.iter_mut().zip(flops).zip(layer_ms) {
        row.gpu_ms = median(ms);
        row.gflops = row.gpu_ms.map(|ms| flops as f64 / ms * 1e-6);
    }
    if stop::is_asked() {
        return Ok(run);
    }
    let sample = CPU_SAMPLE.min(data.len());
    let images = config.preprocess(&data.pixels[..sample * SIDE * SIDE]);
    let cpu = reference(context, network, &images)?;
    run.max_cpu_error = Some(max_difference(&run.logits[..cpu.len()], cpu.iter().copied()));
    Ok(run)
}

/// Logits of some images by the CPU reference.
fn reference(context: &Context, network: &Network, images: &[f32]) -> Result<Vec<f64>> {
    let count = images.len() / (SIDE * SIDE);
    let images = Tensor::upload(context, &[count, 1, SIDE, SIDE], images)?;
    Ok(network.reference(&images, &[], None)?)
}

fn on_cpu(context: &Context, network: &Network, config: Config, data: &Dataset) -> Result<Run> {
    let mut run = Run { adapter: "the CPU reference".into(), ..Default::default() };
    let progress = Progress::new(Some(data.len()), "images");
    let started = Instant::now();
    for pixels in data.pixels.chunks(CPU_BATCH * SIDE * SIDE) {
        if stop::is_asked() {
            break;
        }
        run.logits.extend(reference(context, network, &config.preprocess(pixels))?);
        progress.inc(pixels.len() / (SIDE * SIDE));
    }
    run.seconds = started.elapsed().as_secs_f64();
    progress.finish();
    Ok(run)
}

fn collect_attention(all: &mut Vec<Mix>, batch: Vec<Mix>) {
    if all.is_empty() {
        *all = batch;
        return;
    }
    for (layer, more) in all.iter_mut().zip(batch) {
        layer.rows.extend(more.rows);
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// NaN counts as infinitely far.
fn max_difference(values: &[f64], reference: impl Iterator<Item = f64>) -> f64 {
    let far = |d: f64| if d.is_nan() { f64::INFINITY } else { d };
    values.iter().zip(reference).map(|(a, b)| far((a - b).abs())).fold(0.0, f64::max)
}

/// Index of the largest value.
fn best<T: PartialOrd>(values: &[T]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Whether the two largest values lie within [`AMBIGUOUS`].
fn is_ambiguous(logits: &[f32]) -> bool {
    let top = best(logits);
    logits.iter().enumerate().any(|(i, &v)| i != top && logits[top] - v < AMBIGUOUS)
}

fn evaluate(run: &Run, data: &Dataset, reference: &[f32]) -> Outcome {
    let predicted: Vec<usize> = run.logits.chunks_exact(CLASSES).map(best).collect();
    let expected: Vec<usize> = reference.chunks_exact(CLASSES).map(best).collect();
    let unclear: Vec<bool> = reference.chunks_exact(CLASSES).map(is_ambiguous).collect();
    let hits = |classes: &[usize]| {
        classes.iter().zip(&data.labels).filter(|&(&c, &label)| c == usize::from(label)).count()
    };
    Outcome {
        correct: hits(&predicted),
        reference_correct: hits(&expected),
        class_mismatches: (0..data.len())
            .filter(|&i| predicted[i] != expected[i] && !unclear[i])
            .count(),
        ambiguous: unclear.iter().filter(|&&u| u).count(),
        max_logit_error: max_difference(&run.logits, reference.iter().copied().map(f64::from)),
        predicted,
    }
}

fn print(run: &Run, outcome: &Outcome, total: usize) {
    let percent = |correct: usize| 100.0 * correct as f64 / total as f64;
    println!(
        "accuracy: {:.2} % ({} of {total}); float64 reference: {:.2} % ({})",
        percent(outcome.correct),
        outcome.correct,
        percent(outcome.reference_correct),
        outcome.reference_correct,
    );
    println!(
        "class differs from the reference: {} images \
         (and {} whose two best reference logits lie within {AMBIGUOUS:.0e})",
        outcome.class_mismatches, outcome.ambiguous
    );
    println!("max |logit - reference logit|: {:.2e} over {total} images", outcome.max_logit_error);
    if let Some(error) = run.max_cpu_error {
        println!("max |GPU - CPU reference|: {error:.2e} over {} images", CPU_SAMPLE.min(total));
    }
    println!("images per second: {:.0}", total as f64 / run.seconds);
    if !run.layers.is_empty() {
        println!("{}", table(&run.layers));
    }
}

fn table(rows: &[LayerRow]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["layer", "shape", "kernels", "GPU ms a batch", "GFLOP/s"]);
    let number = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.2}"));
    for row in rows {
        table.add_row([
            row.name.clone(),
            row.shape.clone(),
            row.kernel.clone(),
            number(row.gpu_ms),
            number(row.gflops),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn json(run: &Run, outcome: &Outcome, total: usize) -> serde_json::Value {
    let layer = |row: &LayerRow| {
        serde_json::json!({
            "name": row.name, "shape": row.shape, "kernel": row.kernel, "gpu_ms": row.gpu_ms,
            "gflops": row.gflops,
        })
    };
    serde_json::json!({
        "adapter": run.adapter,
        "driver": run.driver,
        "batch": run.batch,
        "stopped": stop::is_asked(),
        "total": total,
        "correct": outcome.correct,
        "reference_correct": outcome.reference_correct,
        "class_mismatches": outcome.class_mismatches,
        "ambiguous": outcome.ambiguous,
        "max_logit_error": outcome.max_logit_error,
        "max_cpu_error": run.max_cpu_error,
        "images_per_second": total as f64 / run.seconds,
        "layers": run.layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

fn report(run: &Run, outcome: &Outcome, data: &Dataset) -> Result<String> {
    let mut confusion = vec![vec![0; CLASSES]; CLASSES];
    for (&predicted, &label) in outcome.predicted.iter().zip(&data.labels) {
        confusion[usize::from(label)][predicted] += 1;
    }
    let attention: Vec<LayerAttention> = run
        .attention
        .iter()
        .map(|mix| LayerAttention {
            layer: mix.layer.clone(),
            mean: mean_by_class(&mix.rows, &data.labels),
        })
        .collect();
    let report = Report {
        adapter: &run.adapter,
        driver: &run.driver,
        total: data.len(),
        batch: run.batch,
        correct: outcome.correct,
        reference_correct: outcome.reference_correct,
        class_mismatches: outcome.class_mismatches,
        ambiguous: outcome.ambiguous,
        max_logit_error: outcome.max_logit_error,
        max_cpu_error: run.max_cpu_error,
        cpu_sample: CPU_SAMPLE.min(data.len()),
        images_per_second: data.len() as f64 / run.seconds,
        classes: &NAMES,
        layers: &run.layers,
        samples: &samples(run, outcome, data),
        confusion: &confusion,
        attention: &attention,
    };
    Ok(report.to_html()?)
}

/// The first wrong and the first right images, no class more often than its share.
fn samples<'a>(run: &Run, outcome: &Outcome, data: &'a Dataset) -> Vec<Sample<'a>> {
    let mut samples = Vec::new();
    for (right, shown) in [false, true].into_iter().zip(SHOWN) {
        let mut of_class = [0; CLASSES];
        let fits = |&index: &usize| {
            let truth = usize::from(data.labels[index]);
            let fits = (outcome.predicted[index] == truth) == right
                && of_class[truth] < shown.div_ceil(CLASSES);
            of_class[truth] += usize::from(fits);
            fits
        };
        samples.extend((0..data.len()).filter(fits).take(shown).map(|index| Sample {
            index,
            pixels: data.image(index),
            truth: data.labels[index].into(),
            predicted: outcome.predicted[index],
            confidence: confidence(&run.logits[index * CLASSES..(index + 1) * CLASSES]),
        }));
    }
    samples
}

/// Softmax of the largest logit.
fn confidence(logits: &[f64]) -> f32 {
    let largest = logits[best(logits)];
    let share = 1.0 / logits.iter().map(|v| (v - largest).exp()).sum::<f64>();
    narrow(&[share])[0]
}

fn mean_by_class(rows: &[Vec<f32>], labels: &[u8]) -> Vec<Vec<f64>> {
    let kernels = rows.first().map_or(0, Vec::len);
    let mut sums = vec![vec![0.0; kernels]; CLASSES];
    let mut counts = [0; CLASSES];
    for (row, &label) in rows.iter().zip(labels) {
        counts[usize::from(label)] += 1;
        sums[usize::from(label)].iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    for (row, count) in sums.iter_mut().zip(counts) {
        row.iter_mut().for_each(|sum| *sum /= f64::from(count));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mismatches_leave_ambiguous_images_out() {
        let mut reference = vec![0.0_f32; 3 * CLASSES];
        reference[0] = 1.0;
        reference[CLASSES + 1] = 1.0;
        reference[2 * CLASSES + 1] = 1.0;
        reference[2 * CLASSES + 2] = 0.9995;
        let mut run = Run {
            logits: reference.iter().copied().map(f64::from).collect(),
            ..Default::default()
        };
        run.logits[CLASSES + 7] = 2.0;
        run.logits[2 * CLASSES + 2] = 2.0;
        let data = Dataset { pixels: vec![0; 3 * SIDE * SIDE], labels: vec![0, 1, 5], side: SIDE };
        let outcome = evaluate(&run, &data, &reference);
        assert_eq!(outcome.predicted, [0, 7, 2]);
        assert_eq!((outcome.correct, outcome.reference_correct), (1, 2));
        assert_eq!((outcome.class_mismatches, outcome.ambiguous), (1, 1));
        assert!((outcome.max_logit_error - 2.0).abs() < 1e-9);
        run.logits[3] = f64::NAN;
        assert_eq!(evaluate(&run, &data, &reference).max_logit_error, f64::INFINITY);
    }
}
