//! Everything that reads a user's file, as a function of any bytes: what it makes of them does not
//! matter, but it may not panic, and may hold no more memory than [`Target::most_memory`] says.
//!
//! The fuzzer is in `fuzz/`, a package of its own since it needs a nightly compiler and a C++
//! compiler. In this folder:
//!
//! ```sh
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run -s none safetensors corpus/safetensors -- -runs=10000000 -max_len=1200
//! ```
//!
//! Without the bound on their length inputs grow, and ten times fewer are read in a second. What
//! the last runs gave is in `tests/LONG.md`.
//!
//! `corpus/` has small files from which each target starts, and what once went wrong;
//! `tests/corpus.rs` reads all of it, and pieces of it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use dynconv::layers::DyCnn;
use dynconv::tune::Tuning;
use dynconv::{
    BatchNorm, Checkpoint, CondConv2d, Context, ConvDesc, Dcd2d, DynConv2d, FdyConv2d,
    KernelWarehouse2d, Layer, OdConv2d, PixelMix2d, Result, Warehouse, wgpu,
};
use dynconv_measure::Results;
use dynconv_suite::expect;
use dynconv_suite::report::Report;
use dynconv_suite::spec::Spec;
use dynconv_suite::variants::noop;

/// A reader of files.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Its folder in `corpus/`.
    pub corpus: &'static str,
    /// Bytes that a device may take for itself meanwhile.
    own: usize,
    /// Reads a file.
    pub read: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target { name: "safetensors", corpus: "safetensors", own: 0, read: safetensors },
    Target { name: "layers", corpus: "safetensors", own: 16 << 20, read: layers },
    Target { name: "tuning", corpus: "tuning", own: 0, read: tuning },
    Target { name: "problems", corpus: "problems", own: 0, read: problems },
    Target { name: "shapes", corpus: "shapes", own: 0, read: shapes_of_benchmarks },
    Target { name: "results", corpus: "results", own: 0, read: results },
    Target { name: "reports", corpus: "reports", own: 0, read: reports },
];

impl Target {
    /// Bytes that reading a file of `len` bytes may hold at a time, the file not counted: values in
    /// f64 take eight times the room of a byte of a checkpoint, lists grow by doubling, and
    /// messages name what they are about.
    #[must_use]
    pub const fn most_memory(&self, len: usize) -> usize {
        self.own + 64 * len + (64 << 10)
    }
}

/// Makes what all files share, so that none of them is charged with it.
pub fn prepare() {
    LazyLock::force(&DEVICE);
}

/// A device that computes nothing.
static DEVICE: LazyLock<Context> = LazyLock::new(noop);

/// A checkpoint: every tensor, and every reader of layers under every prefix that its keys have.
fn safetensors(bytes: &[u8]) {
    let Ok(checkpoint) = Checkpoint::new(bytes) else { return };
    let keys: Vec<&str> = checkpoint.keys().collect();
    for key in &keys {
        let _ = checkpoint.values(key);
        let _ = checkpoint.tensor(key, &[1]);
    }
    for prefix in prefixes(&checkpoint) {
        let _ = checkpoint.batch_norm(prefix, 3, EPSILON);
        let _ = checkpoint.dy_cnn::<1>(prefix);
        let _ = checkpoint.dy_cnn_transposed::<2>(prefix, 1);
        let _ = checkpoint.od_conv::<2>(prefix, EPSILON);
        let _ = checkpoint.od_conv::<3>(prefix, EPSILON);
        let _ = checkpoint.pixel_mix(prefix);
        let _ = checkpoint.fdy(prefix, EPSILON);
        let _ = checkpoint.dcd(prefix, EPSILON);
        let _ = checkpoint.cond_conv(prefix, "routing_fn.", &described());
        if let Ok((cells, _)) = checkpoint.warehouse(&format!("{prefix}weight")) {
            let _ = checkpoint.kernel_warehouse(prefix, &described(), cells, EPSILON);
        }
    }
}

const EPSILON: f64 = BatchNorm::EPSILON_PYTORCH;
/// What layers are of which a file does not say what they are.
fn described() -> ConvDesc<2> {
    ConvDesc::new(2, 3, [3, 1])
}

/// Beginnings of the keys of layers.
fn prefixes<'c>(checkpoint: &'c Checkpoint<'_>) -> BTreeSet<&'c str> {
    checkpoint.keys().map(|key| &key[..key.rfind("weight").unwrap_or(0)]).collect()
}

/// The layers of a checkpoint, made on a device.
fn layers(bytes: &[u8]) {
    let Ok(checkpoint) = Checkpoint::new(bytes) else { return };
    for prefix in prefixes(&checkpoint) {
        let _ = layer_of_one_bank(&checkpoint, prefix);
        let _ = layer_of_a_family(&checkpoint, prefix);
        let _ = described_layer(&checkpoint, prefix);
    }
    // What is uploaded is kept until something is submitted, and buffers are freed when a device is
    // looked after.
    DEVICE.queue().submit([]);
    let _ = DEVICE.device().poll(wgpu::PollType::Poll);
}

fn layer_of_one_bank(checkpoint: &Checkpoint<'_>, prefix: &str) -> Result<()> {
    if let Ok((desc, weights)) = checkpoint.dy_cnn::<1>(prefix) {
        Layer::<1, DyCnn>::new(&DEVICE, &desc, &weights, 1.0)?;
    }
    if let Ok((desc, weights)) = checkpoint.dy_cnn::<2>(prefix) {
        DynConv2d::new(&DEVICE, &desc, &weights, 1.0)?;
    }
    if let Ok((desc, weights)) = checkpoint.dy_cnn_transposed::<2>(prefix, 1) {
        DynConv2d::new(&DEVICE, &desc, &weights, 1.0)?;
    }
    let (desc, weights) = checkpoint.od_conv::<2>(prefix, EPSILON)?;
    OdConv2d::new(&DEVICE, &desc, &weights, 1.0).map(drop)
}

fn layer_of_a_family(checkpoint: &Checkpoint<'_>, prefix: &str) -> Result<()> {
    if let Ok((desc, weights)) = checkpoint.pixel_mix(prefix) {
        PixelMix2d::new(&DEVICE, &desc, &weights, 1.0)?;
    }
    if let Ok((desc, weights)) = checkpoint.fdy(prefix, EPSILON) {
        FdyConv2d::new(&DEVICE, &desc, &weights, 31.0)?;
    }
    let (desc, weights) = checkpoint.dcd(prefix, EPSILON)?;
    Dcd2d::new(&DEVICE, &desc, &weights).map(drop)
}

/// Layers of which the caller says what they are.
fn described_layer(checkpoint: &Checkpoint<'_>, prefix: &str) -> Result<()> {
    if let Ok((desc, weights)) = checkpoint.cond_conv(prefix, "routing_fn.", &described()) {
        CondConv2d::new(&DEVICE, &desc, &weights)?;
    }
    let (cells, values) = checkpoint.warehouse(&format!("{prefix}weight"))?;
    let warehouse = Warehouse::new(&DEVICE, cells, &values)?;
    let weights = checkpoint.kernel_warehouse(prefix, &described(), cells, EPSILON)?;
    KernelWarehouse2d::new(&DEVICE, &described(), &weights, &warehouse).map(drop)
}

/// A tuning table, which is written as it was read.
fn tuning(bytes: &[u8]) {
    let Some(table) = text(bytes).and_then(|text| text.parse::<Tuning>().ok()) else { return };
    assert_eq!(table.to_string().parse::<Tuning>().ok().as_ref(), Some(&table), "{table}");
}

/// Lines of problems, each of which is said as it was read, and lines of expectations.
fn problems(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let _ = expect::parse(text);
    for line in text.lines() {
        let Ok(spec) = line.parse::<Spec>() else { continue };
        assert_eq!(spec.to_string().parse().ok().as_ref(), Some(&spec), "{spec}");
        let _ = spec.check();
    }
}

/// Shapes of the benchmark.
fn shapes_of_benchmarks(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    for shape in dynconv_measure::parse("a file", text).unwrap_or_default() {
        let _ = shape.with_batch(3);
    }
}

/// Results of the benchmark, which change nothing when they are held against themselves.
fn results(bytes: &[u8]) {
    let Ok(results) = Results::parse(bytes) else { return };
    let compared = results.compare(&results, "a file");
    assert!(compared.is_ok(), "{compared:?}");
}

/// A report of `dynconv check`, whose runs refer to what there is or are refused.
fn reports(bytes: &[u8]) {
    let Some(report) = text(bytes).and_then(|text| Report::parse(text).ok()) else { return };
    let _ = report.device.subgroup_size();
    for run in report.problems.into_iter().filter_map(|broken| broken.run) {
        if run.replay.check().is_ok() {
            let buffers: Vec<Vec<u8>> =
                run.replay.buffers.iter().map(|buffer| buffer.bytes.clone()).collect();
            let _ = run.first_wrong(run.replay.output_of(&buffers));
        }
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
