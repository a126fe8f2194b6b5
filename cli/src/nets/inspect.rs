//! `dynconv inspect`: what network a checkpoint is, what runs, and what memory it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use comfy_table::Table;
use dynconv::layers::AnyLayer;
use dynconv::program::{Memory, Program, ValueInfo};
use dynconv::{Caps, Checkpoint};
use dynconv_nets::{Family, Network};
use dynconv_suite::variants::noop;
use safetensors::SafeTensors;

use super::weights::{self, Untold};
use crate::Usage;
use crate::bench::table::plain;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The checkpoint: safetensors, or a file of PyTorch
    #[arg(value_name = "WEIGHTS")]
    weights: PathBuf,
    #[command(flatten)]
    untold: Untold,
    /// Samples that run together
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Height and width of the input: 28 for a plain network, else 224, if not given
    #[arg(long)]
    size: Option<usize>,
    /// Seconds of a clip, for networks of sounds
    #[arg(long, default_value_t = 10)]
    seconds: usize,
    /// Print every step, and from where to where each value lives
    #[arg(long)]
    steps: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let size = options.size.unwrap_or(1);
    let counts = [("--batch", options.batch), ("--size", size), ("--seconds", options.seconds)];
    for (option, count) in counts {
        Usage::unless(count > 0, || format!("{option}: expected at least 1, found 0"))?;
    }
    let path = &options.weights;
    let bytes = weights::read(path)?;
    let (checkpoint, family) = weights::open(path, &bytes)?;
    // What can be told of a network that cannot be loaded comes first.
    println!("network: {family}");
    for line in dynamic(&checkpoint) {
        println!("dynamic: {line}");
    }
    println!("parameters: {}", grouped(parameters(&checkpoint)));
    println!("file: {}", stored(bytes.as_ref())?);

    // Plans need no adapter: one of no limits stands in for all.
    let caps = noop().caps().clone();
    let most = 1 << 40;
    let context = noop().with_caps(Caps { max_storage_binding: most, max_buffer: most, ..caps });
    let network = weights::network(&context, (path, &checkpoint, family), options.untold)?;
    println!("not in the file: {}", untold(options.untold, family, &checkpoint));
    let input = input(options, family, &checkpoint)?;
    let program = network.plan(&input)?;
    let output = network.output_shape(&input)?;
    println!("classes: {}", output.last().copied().unwrap_or(0));
    println!("runs: {input:?} -> {output:?}, {} dispatches", program.steps().len());
    for (what, bytes) in memory(&program, context.caps()) {
        println!("{what}: {:.2} MB", bytes as f64 / 1e6);
    }
    println!("{}", stages(&checkpoint, &network, &input)?);
    if options.steps {
        print!("{program}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Shape of the network's input.
fn input(options: &Options, family: Family, checkpoint: &Checkpoint<'_>) -> Result<Vec<usize>> {
    let mut input = match super::tag::front_end(family) {
        Some(front_end) => {
            let rate = usize::try_from(front_end.sample_rate())?;
            front_end.input_shape(front_end.frames(options.seconds.saturating_mul(rate))?)
        }
        None => {
            let is_plain = family == Family::Plain;
            let size = options.size.unwrap_or(if is_plain { 28 } else { 224 });
            let channels = checkpoint.shape("conv1.weight").filter(|_| is_plain);
            let channels = channels.and_then(|shape| shape.get(1)).copied().unwrap_or(3);
            vec![1, channels, size, size]
        }
    };
    input[0] = options.batch;
    Ok(input)
}

/// What training gathers beside the parameters.
const BUFFERS: [&str; 3] = ["running_mean", "running_var", "num_batches_tracked"];

/// Numbers that were trained, without buffers.
fn parameters(checkpoint: &Checkpoint<'_>) -> usize {
    let is_buffer = |key: &str| BUFFERS.iter().any(|name| key.ends_with(name));
    let shapes = checkpoint.keys().filter(|key| !is_buffer(key)).filter_map(|key| {
        let shape = checkpoint.shape(key)?;
        Some(shape.iter().fold(1_usize, |len, &size| len.saturating_mul(size)))
    });
    shapes.fold(0, usize::saturating_add)
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for three in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(three.iter().map(|&digit| char::from(digit)));
    }
    text
}

/// Element types of the tensors, and their bytes.
fn stored(bytes: &[u8]) -> Result<String> {
    let mut kinds: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for (_, view) in SafeTensors::deserialize(bytes)?.iter() {
        let [count, len] = kinds.entry(format!("{:?}", view.dtype())).or_default();
        *count += 1;
        *len += view.data().len();
    }
    let kind = |(kind, [count, len]): (String, [usize; 2])| {
        format!("{count} tensors in {kind}, {:.2} MB", len as f64 / 1e6)
    };
    Ok(kinds.into_iter().map(kind).collect::<Vec<_>>().join("; "))
}

/// The kind of a dynamic convolution, by a key that no other has, and its kernels.
fn kind(checkpoint: &Checkpoint<'_>, key: &str) -> Option<(&'static str, Option<usize>)> {
    let has = |key: String| checkpoint.contains(&key);
    let first = |key: &str| checkpoint.shape(key)?.first().copied();
    let bank = |prefix: &str| first(&format!("{prefix}weight"));
    if let Some(prefix) = key.strip_suffix("attention.fc.weight") {
        return Some(("ODConv", bank(prefix)));
    }
    if let Some(prefix) = key.strip_suffix("attention.fc1.weight") {
        if has(format!("{prefix}weight")) {
            return Some(("DY-CNN", bank(prefix)));
        }
        return Some(("KernelWarehouse", None));
    }
    if key.ends_with("kernels_weights") {
        return Some(("DY-CNN", first(key)));
    }
    if let Some(prefix) = key.strip_suffix("residuals.0.weight") {
        let shape = checkpoint.shape(&format!("{prefix}weight"))?;
        return Some(("DyMN's", shape.get(2).copied()));
    }
    if let Some(prefix) = key.strip_suffix("attention.conv1d1.weight") {
        return Some(("frequency-dynamic", bank(prefix)));
    }
    key.ends_with("routing_fn.weight").then(|| ("CondConv", first(key)))
}

/// A line for each kind of dynamic convolution.
fn dynamic(checkpoint: &Checkpoint<'_>) -> Vec<String> {
    let mut kinds = BTreeMap::<_, usize>::new();
    for kind in checkpoint.keys().filter_map(|key| kind(checkpoint, key)) {
        *kinds.entry(kind).or_default() += 1;
    }
    let mut lines = Vec::new();
    for ((kind, kernels), count) in kinds {
        // One routing serves the three convolutions of a block.
        let what = if kind == "CondConv" { "blocks" } else { "convolutions" };
        let kernels = kernels.map(|kernels| format!(", K = {kernels}")).unwrap_or_default();
        lines.push(format!("{kind} in {count} {what}{kernels}"));
    }
    let cells = (0..).map_while(|number| {
        let shape = checkpoint.shape(&format!("warehouse_manager.weights.{number}"))?;
        shape.first().map(usize::to_string)
    });
    let cells: Vec<String> = cells.collect();
    if !cells.is_empty() {
        lines.push(format!("{} warehouses of {} cells", cells.len(), cells.join(", ")));
    }
    lines
}

/// What was taken for what no checkpoint holds, and the options that say another.
fn untold(given: Untold, family: Family, checkpoint: &Checkpoint<'_>) -> String {
    let said = |option: &str, value: Option<String>| match value {
        Some(value) => format!("{option} {value}"),
        None => format!("{option} as published"),
    };
    let kinds = checkpoint.keys().filter_map(|key| kind(checkpoint, key));
    let kinds: BTreeSet<&str> = kinds.map(|(kind, _)| kind).collect();
    let mut parts = vec![said("--epsilon", given.epsilon.map(|value| value.to_string()))];
    if kinds.contains("ODConv") || kinds.contains("DY-CNN") {
        parts.push(said("--temperature", given.temperature.map(|value| value.to_string())));
    }
    if family == Family::MobileNetV3Small {
        parts.push(said("--stem-stride", given.stem_stride.map(|value| value.to_string())));
    }
    parts.join(", ")
}

fn memory(program: &Program, caps: &Caps) -> [(&'static str, u64); 3] {
    let bytes_of = |is_external: bool| -> u64 {
        let values = program.values().iter();
        let values = values.filter(|info| (info.memory == Memory::External) == is_external);
        values.map(ValueInfo::bytes).sum()
    };
    [
        ("memory of weights, input and output", bytes_of(true)),
        ("memory of all that is made in between", program.arena(caps).bytes()),
        ("the same without sharing", bytes_of(false)),
    ]
}

/// Depth and width: blocks of each stage, and what it makes.
fn stages(checkpoint: &Checkpoint<'_>, network: &Network, input: &[usize]) -> Result<Table> {
    let mut table = plain(&["stage", "blocks", "channels", "map"], 1);
    for stage in network.stages() {
        let shape = network.until(stage)?.output_shape(input)?;
        let [_, channels, ref map @ ..] = shape[..] else { continue };
        let map: Vec<String> = map.iter().map(usize::to_string).collect();
        let blocks = match blocks(checkpoint, stage) {
            0 => "-".into(),
            count => count.to_string(),
        };
        table.add_row([stage.to_owned(), blocks, channels.to_string(), map.join(" x ")]);
    }
    Ok(table)
}

/// Blocks of a stage: numbers behind its name that have layers of their own.
fn blocks(checkpoint: &Checkpoint<'_>, stage: &str) -> usize {
    let number = |key: &str| -> Option<usize> {
        let (number, inside) = key.strip_prefix(stage)?.strip_prefix('.')?.split_once('.')?;
        number.parse().ok().filter(|_| inside.contains('.'))
    };
    checkpoint.keys().filter_map(number).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_stand_apart() {
        let all = [0, 12, 123, 1234, 123_456, 90_670_000].map(grouped);
        assert_eq!(all, ["0", "12", "123", "1,234", "123,456", "90,670,000"]);
    }
}
