//! Results for programs, and what changed between two of them.

use std::fmt;
use std::path::Path;

use dynconv::Context;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::peak::Peak;

/// Version of the format; it changes when a field changes its meaning.
pub const VERSION: u32 = 1;

/// The fewest samples whose spread says anything.
pub const ENOUGH: usize = 5;

/// A run of the benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the library.
    pub dynconv: String,
    /// Name of the adapter.
    pub adapter: String,
    /// Its driver.
    pub driver: String,
    /// Vulkan, Metal, Dx12 or Gl.
    pub backend: String,
    /// Whether times are the device's; otherwise they are the host's, submission and wait
    /// included.
    pub timestamps: bool,
    /// Measured multiply-adds in f32, 10^9 operations a second.
    pub peak_gflops: f64,
    /// Measured copy, bytes read and written, 10^9 a second.
    pub copy_gbps: f64,
    /// Samples of every time.
    pub samples: usize,
    /// Whether everything ran just once.
    pub quick: bool,
    /// When it began, in UTC; empty where older results do not say.
    #[serde(default)]
    pub date: String,
    /// The command line; empty where older results do not say.
    #[serde(default)]
    pub command: String,
    /// Whether it was stopped before its end.
    #[serde(default)]
    pub stopped: bool,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What was not.
    pub not_measured: Vec<Refusal>,
}

/// A layer with one convolution kernel. Times are of one run of the layer; median, smallest and
/// largest of the samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the shape.
    pub shape: String,
    /// The whole problem, as `dynconv check --case` takes it.
    pub problem: String,
    /// Samples of the batch.
    pub batch: usize,
    /// The convolution kernel asked for; `auto` leaves it to the planner.
    pub strategy: String,
    /// The kernels that ran, in order.
    pub kernel: String,
    /// Element type of input and output.
    pub elem: String,
    /// Median, ms.
    pub median_ms: f64,
    /// Smallest, ms.
    pub min_ms: f64,
    /// Largest, ms.
    pub max_ms: f64,
    /// Median by the host's clock, submission and wait included, ms.
    pub wall_ms: f64,
    /// Runs of one sample.
    pub repeats: u32,
    /// Operations of the static convolution.
    pub flops: u64,
    /// 10^9 of them a second.
    pub gflops: f64,
    /// Bytes of input, bank, given attention and output, once each.
    pub moved_bytes: u64,
    /// 10^9 of them a second.
    pub gbps: f64,
    /// Share of the measured peak.
    pub peak_percent: f64,
    /// Share of the measured copy.
    pub copy_percent: f64,
    /// Kernel of our static convolution.
    pub static_kernel: String,
    /// Our static convolution of the same shape, median, ms.
    pub static_median_ms: f64,
    /// Smallest, ms.
    pub static_min_ms: f64,
    /// Largest, ms.
    pub static_max_ms: f64,
    /// Median by the host's clock, ms.
    pub static_wall_ms: f64,
    /// How many times longer than the static convolution, median of the rounds.
    pub ratio_to_static: f64,
    /// The batch as groups, aggregation included, median, ms.
    pub groups_median_ms: Option<f64>,
    /// Smallest, ms.
    pub groups_min_ms: Option<f64>,
    /// Largest, ms.
    pub groups_max_ms: Option<f64>,
    /// How many times longer than the batch as groups, median of the rounds.
    pub ratio_to_groups: Option<f64>,
    /// Why there is no such form.
    pub without_groups: Option<String>,
    /// Pooling and attention branch alone, median, ms.
    pub attention_ms: Option<f64>,
    /// A fixed piece of work that took turns with the layer: smallest, ms. It tells how fast the
    /// machine itself was.
    pub gauge_min_ms: f64,
    /// Largest, ms.
    pub gauge_max_ms: f64,
    /// Host time to record the layer into a command buffer, median, microseconds.
    pub host_record_us: f64,
    /// What the first use takes longer than the second, ms: compiling.
    pub first_use_ms: f64,
    /// Bytes that the layer needs beside weights, input and output.
    pub scratch_bytes: u64,
    /// All bytes on the device: input, output, bank, given attention, scratch.
    pub memory_bytes: u64,
    /// Largest difference from the f64 reference, relative to the largest output.
    pub verified_error: f64,
    /// Largest difference relative to the derived bound of that output: up to 1.
    pub verified_share_of_bound: f64,
    /// What was compared.
    pub verified_what: String,
}

/// What was not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Name of the shape.
    pub shape: String,
    /// Samples of the batch.
    pub batch: usize,
    /// The convolution kernel asked for, or `groups`.
    pub strategy: String,
    /// Why.
    pub reason: String,
    /// Whether it failed or gave a wrong result, and was not merely refused.
    pub is_wrong: bool,
}

impl Results {
    /// Results without rows.
    #[must_use]
    pub fn new(context: &Context, peak: &Peak, samples: usize, quick: bool) -> Self {
        let caps = context.caps();
        Self {
            version: VERSION,
            dynconv: env!("CARGO_PKG_VERSION").into(),
            adapter: caps.name.clone(),
            driver: caps.driver.clone(),
            backend: format!("{:?}", caps.backend),
            timestamps: caps.timestamps,
            peak_gflops: peak.gflops,
            copy_gbps: peak.copy_gbps,
            samples,
            quick,
            date: String::new(),
            command: String::new(),
            stopped: false,
            rows: Vec::new(),
            not_measured: Vec::new(),
        }
    }

    /// Reads results from a file.
    ///
    /// # Errors
    /// [`Error::NoResults`] if there are none in it.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |error: String| Error::NoResults { file: path.display().to_string(), error };
        let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    /// Reads results from JSON.
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn parse(text: &[u8]) -> std::result::Result<Self, String> {
        let value: serde_json::Value =
            serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if value["version"] != VERSION {
            let found = &value["version"];
            return Err(format!("expected results of version {VERSION}, found version {found}"));
        }
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    /// Holds these results against older ones of the same adapter; `file` is where those came from.
    ///
    /// # Errors
    /// [`Error::Incomparable`] if the adapter or the clock is another.
    pub fn compare(&self, old: &Self, file: &str) -> Result<Comparison> {
        let clock = |is_device: bool| if is_device { "the device" } else { "the host" }.to_string();
        let same = [
            ("adapter", self.adapter.clone(), old.adapter.clone()),
            ("driver", self.driver.clone(), old.driver.clone()),
            ("times by the clock of", clock(self.timestamps), clock(old.timestamps)),
        ];
        for (what, expected, found) in same {
            if expected != found {
                return Err(Error::Incomparable { file: file.into(), what, expected, found });
            }
        }
        let is_enough = self.samples.min(old.samples) >= ENOUGH && !self.quick && !old.quick;
        let is_same = |a: &Row, b: &Row| {
            (&a.shape, &a.problem, &a.strategy) == (&b.shape, &b.problem, &b.strategy)
        };
        let change = |row: &Row| {
            let before = old.rows.iter().find(|before| is_same(before, row))?;
            let verdict = if is_enough { judge(before, row) } else { Verdict::Unknown };
            Some(Change {
                shape: row.shape.clone(),
                batch: row.batch,
                strategy: row.strategy.clone(),
                before_ms: before.median_ms,
                after_ms: row.median_ms,
                verdict,
            })
        };
        let changes: Vec<Change> = self.rows.iter().filter_map(change).collect();
        Ok(Comparison { without_old: self.rows.len() - changes.len(), changes })
    }
}

/// Whether the spreads of a row's times lie apart, by more than the machine itself may have
/// drifted.
fn judge(before: &Row, now: &Row) -> Verdict {
    let slowed = (now.gauge_max_ms / before.gauge_min_ms).max(1.0);
    let sped_up = (before.gauge_max_ms / now.gauge_min_ms).max(1.0);
    if now.min_ms > before.max_ms * slowed {
        Verdict::Slower
    } else if now.max_ms * sped_up < before.min_ms {
        Verdict::Faster
    } else {
        Verdict::Same
    }
}

/// What changed between two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Rows that both runs have.
    pub changes: Vec<Change>,
    /// Rows that the older run does not have.
    pub without_old: usize,
}

impl Comparison {
    /// How many rows have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.changes.iter().filter(|change| change.verdict == verdict).count()
    }
}

/// One row then and now.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Name of the shape.
    pub shape: String,
    /// Samples of the batch.
    pub batch: usize,
    /// The convolution kernel asked for.
    pub strategy: String,
    /// Median then, ms.
    pub before_ms: f64,
    /// Median now, ms.
    pub after_ms: f64,
    /// What it means.
    pub verdict: Verdict,
}

/// Whether a difference is more than noise. Spreads are all samples of a run; they are widened by
/// as much as the machine itself may have drifted, by the extremes of a fixed piece of work that
/// took turns with the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Even the fastest sample is slower than the slowest was.
    Slower,
    /// Even the slowest sample is faster than the fastest was.
    Faster,
    /// The spreads overlap.
    Same,
    /// One of the runs has too few samples to tell.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slower => "slower",
            Self::Faster => "faster",
            Self::Same => "within the noise",
            Self::Unknown => "too few samples to tell",
        })
    }
}
