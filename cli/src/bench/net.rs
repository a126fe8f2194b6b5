//! `dynconv bench --net`: whole networks of published sizes, and by layer, beside their static
//! twins.

use std::process::ExitCode;
use std::time::Instant;

use clap::ValueEnum;
use comfy_table::Table;
use dynconv::device::PassTimer;
use dynconv::layers::AnyLayer;
use dynconv::program::{Memory, Operation, Program, ValueInfo};
use dynconv::{Bound, Checkpoint, Context, Tensor, wgpu};
use dynconv_measure::Spread;
use dynconv_nets::{Network, Options, efficientnet_cc, load};
use dynconv_suite::noise::Noise;
use serde::Serialize;

use super::random::{self, Kind, Weights};
use super::table::plain;
use crate::target::Target;
use crate::{AdapterArgs, Usage, adapter_line, stop};

/// A network of published size, whose weights are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Net {
    #[value(name = "od_resnet18")]
    OdResnet18,
    #[value(name = "od_resnet50")]
    OdResnet50,
    #[value(name = "od_mobilenetv2")]
    OdMobilenetv2,
    #[value(name = "tf_efficientnet_cc_b0_4e")]
    EfficientnetCcB04e,
}

impl Net {
    fn weights(self, is_dynamic: bool) -> Weights {
        let kind = if is_dynamic { Kind::Od(4) } else { Kind::Static };
        match self {
            Self::OdResnet18 => random::resnet(18, kind),
            Self::OdResnet50 => random::resnet(50, kind),
            Self::OdMobilenetv2 => random::mobilenet_v2(kind),
            Self::EfficientnetCcB04e => random::efficientnet_b0(if is_dynamic { 4 } else { 0 }),
        }
    }

    fn load(self, context: &Context, is_dynamic: bool) -> anyhow::Result<Network> {
        let bytes = self.weights(is_dynamic).bytes()?;
        let checkpoint = Checkpoint::new(&bytes)?;
        let options = Options::default();
        Ok(match self {
            // Without a routing nothing tells its family.
            Self::EfficientnetCcB04e => efficientnet_cc(context, &checkpoint, &options)?,
            _ => load(context, &checkpoint, &options)?,
        })
    }
}

/// What to measure of it.
pub(super) struct How<'a> {
    pub(super) net: Net,
    pub(super) batches: &'a [usize],
    pub(super) size: usize,
    pub(super) samples: usize,
    pub(super) adapter: &'a AdapterArgs,
    pub(super) json: Target,
}

/// Figures of a network with a batch.
#[derive(Serialize)]
struct Row {
    net: Net,
    batch: usize,
    /// Milliseconds of a run, submission and wait included: least, median, most.
    ms: [f64; 3],
    /// Of its static twin, in turns with it.
    twin_ms: [f64; 3],
    images_per_second: f64,
    /// Median over the twin's median.
    over_twin: f64,
    /// Milliseconds to plan, compile and bind for the first time.
    first_use_ms: f64,
    /// Microseconds to record into an encoder.
    record_us: f64,
    dispatches: usize,
    weights_mb: f64,
    /// What is made in between, and the largest set of it that lives at once.
    arena_mb: f64,
    alive_mb: f64,
    /// By layer and by kernel, where the adapter has timestamps; the longest first.
    layers: Vec<LayerTime>,
    kernels: Vec<(&'static str, usize, f64)>,
}

/// Milliseconds of layers that are alike, and of their static twins.
#[derive(Serialize)]
struct LayerTime {
    layer: String,
    count: usize,
    kernels: String,
    ms: f64,
    twin_ms: f64,
}

/// A network bound for a batch.
struct Ready {
    bound: Bound,
    first_use_ms: f64,
}

impl Ready {
    fn new(context: &Context, network: &Network, input: &[usize]) -> anyhow::Result<Self> {
        let values = Noise::new(3).floats(input.iter().product());
        let x = Tensor::upload(context, input, &values)?;
        let y = Tensor::zeros(context, &network.output_shape(input)?)?;
        let start = Instant::now();
        let bound = network.bind(&x, &y)?;
        let first_use_ms = 1e3 * start.elapsed().as_secs_f64();
        let ready = Self { bound, first_use_ms };
        ready.time(context)?;
        let values = y.read_blocking(context)?;
        let is_alive = values.iter().all(|v| v.is_finite()) && values.iter().any(|&v| v != 0.0);
        anyhow::ensure!(is_alive, "the network's output is not finite, or zero");
        Ok(ready)
    }

    fn encoder(context: &Context) -> wgpu::CommandEncoder {
        context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    /// Milliseconds of a run.
    fn time(&self, context: &Context) -> anyhow::Result<f64> {
        let start = Instant::now();
        let mut encoder = Self::encoder(context);
        self.bound.record(&mut encoder);
        context.queue().submit([encoder.finish()]);
        context.wait()?;
        Ok(1e3 * start.elapsed().as_secs_f64())
    }

    /// Microseconds to record, the least of some.
    fn record_us(&self, context: &Context) -> f64 {
        let record = |_| {
            let mut encoder = Self::encoder(context);
            let start = Instant::now();
            self.bound.record(&mut encoder);
            1e6 * start.elapsed().as_secs_f64()
        };
        (0..20).map(record).fold(f64::INFINITY, f64::min)
    }

    /// Milliseconds of each step; none where the adapter has no timestamps.
    fn step_times(&self, context: &Context) -> anyhow::Result<Vec<f64>> {
        let mut times = Vec::new();
        // A set of queries has room for 2048 passes.
        for part in self.bound.steps().chunks(1024) {
            let Some(timer) = PassTimer::new(context, u32::try_from(part.len())?)? else {
                return Ok(Vec::new());
            };
            let mut encoder = Self::encoder(context);
            for (number, step) in (0..).zip(part) {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(timer.writes(number)),
                });
                step.record_in(&mut pass);
            }
            timer.resolve(&mut encoder);
            context.queue().submit([encoder.finish()]);
            times.extend(timer.read(context)?);
        }
        Ok(times)
    }

    fn kernel(&self, step: usize) -> &'static str {
        self.bound.steps()[step].dispatch().variant.kernel.name()
    }

    /// Milliseconds of each kernel's dispatches and how many there are, the longest first.
    fn kernels(&self, times: &[f64]) -> Vec<(&'static str, usize, f64)> {
        let mut all: Vec<(&'static str, usize, f64)> = Vec::new();
        for (step, ms) in times.iter().enumerate() {
            match all.iter_mut().find(|(name, ..)| *name == self.kernel(step)) {
                Some((_, count, sum)) => (*count, *sum) = (*count + 1, *sum + ms),
                None => all.push((self.kernel(step), 1, *ms)),
            }
        }
        all.sort_by(|a, b| b.2.total_cmp(&a.2));
        all
    }

    /// Layers that are alike together, the longest first, beside those of the twin, which has the
    /// same layers in the same order.
    fn layers(&self, times: &[f64], twin: &Self, twin_times: &[f64]) -> Vec<LayerTime> {
        let mut all: Vec<LayerTime> = Vec::new();
        let [program, other] = [self, twin].map(|ready| ready.bound.program());
        for (own, of_twin) in program.operations().iter().zip(other.operations()) {
            let sum = |times: &[f64], of: &Operation| -> f64 {
                times.get(of.steps()).map_or(0.0, |times| times.iter().sum())
            };
            let (ms, twin_ms) = (sum(times, own), sum(twin_times, of_twin));
            let (layer, kernels) = (described(program, own), own.steps().map(|i| self.kernel(i)));
            let kernels = kernels.collect::<Vec<_>>().join(" + ");
            match all.iter_mut().find(|one| one.layer == layer && one.kernels == kernels) {
                Some(one) => {
                    one.count += 1;
                    one.ms += ms;
                    one.twin_ms += twin_ms;
                }
                None => all.push(LayerTime { layer, count: 1, kernels, ms, twin_ms }),
            }
        }
        all.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        all
    }
}

/// What a layer is: `dynamic convolution 3 x 3, 64 -> 64, 56 x 56`, the map being the output's.
fn described(program: &Program, operation: &Operation) -> String {
    let shape = |value| program.info(value).map_or(&[][..], |info| &info.shape[..]);
    let [from, to] = [operation.input(), operation.output()].map(shape);
    let joined =
        |sizes: &[usize]| sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
    let taps = operation.problem().map_or(String::new(), |problem| {
        let g = &problem.geometry;
        let depthwise = if g.groups > 1 && g.groups == g.c_in { "depthwise " } else { "" };
        format!(" {depthwise}{}", joined(&g.kernel[3 - g.axes..]))
    });
    let channels = |shape: &[usize]| shape.get(1).copied().unwrap_or(1);
    let map = joined(to.get(2..).unwrap_or(&[]));
    format!("{operation}{taps}, {} -> {}, {map}", channels(from), channels(to))
}

/// Measures a network with each batch, in turns with its static twin.
pub(super) fn run(how: How<'_>) -> anyhow::Result<ExitCode> {
    let zero = how.batches.contains(&0) || how.size == 0 || how.samples == 0;
    Usage::unless(!zero, || "--batch, --size and --samples: expected at least 1, found 0".into())?;
    stop::listen()?;
    let context = how.adapter.context()?;
    println!("{}", adapter_line(context.caps()));
    let [net, twin] = [true, false].map(|is_dynamic| how.net.load(&context, is_dynamic));
    let (net, twin) = (net?, twin?);
    let mut rows = Vec::new();
    for &batch in how.batches {
        if stop::is_asked() {
            break;
        }
        let input = [batch, 3, how.size, how.size];
        let [ready, beside] = [&net, &twin].map(|net| Ready::new(&context, net, &input));
        let (ready, beside) = (ready?, beside?);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..how.samples {
            ours.push(ready.time(&context)?);
            theirs.push(beside.time(&context)?);
        }
        rows.push(row(&how, &context, batch, [&ready, &beside], [ours, theirs])?);
    }
    println!("{}", table(&rows));
    for row in rows.iter().filter(|row| !row.layers.is_empty()) {
        println!("{}", layer_table(row));
        let kernels = row.kernels.iter();
        let kernels = kernels.map(|(name, count, ms)| format!("{name} x {count}: {ms:.1} ms"));
        println!("batch {}: {}", row.batch, kernels.collect::<Vec<_>>().join(", "));
    }
    how.json.write_json(&rows)?;
    Ok(stop::status(!rows.is_empty()))
}

fn row(
    how: &How<'_>,
    context: &Context,
    batch: usize,
    [ready, twin]: [&Ready; 2],
    times: [Vec<f64>; 2],
) -> anyhow::Result<Row> {
    let (step_times, twin_step_times) = (ready.step_times(context)?, twin.step_times(context)?);
    let program = ready.bound.program();
    let of = |is_external: bool| -> u64 {
        let values = program.values().iter();
        let values = values.filter(|info| (info.memory == Memory::External) == is_external);
        values.map(ValueInfo::bytes).sum()
    };
    let [ms, twin_ms] = times.map(|times| {
        let Spread { min, median, max } = Spread::of(&times);
        [min, median, max]
    });
    Ok(Row {
        net: how.net,
        batch,
        ms,
        twin_ms,
        images_per_second: 1e3 * batch as f64 / ms[1],
        over_twin: ms[1] / twin_ms[1],
        first_use_ms: ready.first_use_ms,
        record_us: ready.record_us(context),
        dispatches: program.steps().len(),
        weights_mb: of(true) as f64 / 1e6,
        arena_mb: program.arena(context.caps()).bytes() as f64 / 1e6,
        alive_mb: program.most_alive() as f64 / 1e6,
        layers: match step_times.len() {
            0 => Vec::new(),
            _ => ready.layers(&step_times, twin, &twin_step_times),
        },
        kernels: ready.kernels(&step_times),
    })
}

fn layer_table(row: &Row) -> Table {
    let batch = format!("batch {}: layers", row.batch);
    let mut table = plain(&[&batch, "count", "ms", "twin ms", "kernels"], 1);
    for LayerTime { layer, count, kernels, ms, twin_ms } in &row.layers {
        let [ms, twin_ms] = [ms, twin_ms].map(|ms| format!("{ms:.2}"));
        table.add_row([layer.clone(), count.to_string(), ms, twin_ms, kernels.clone()]);
    }
    table
}

fn table(rows: &[Row]) -> Table {
    let columns = [
        "batch",
        "ms",
        "images/s",
        "twin ms",
        "over twin",
        "first use ms",
        "record us",
        "dispatches",
        "weights MB",
        "arena MB",
        "alive MB",
    ];
    let mut table = plain(&columns, 0);
    for row in rows {
        table.add_row([
            row.batch.to_string(),
            format!("{:.1}", row.ms[1]),
            format!("{:.2}", row.images_per_second),
            format!("{:.1}", row.twin_ms[1]),
            format!("{:.2}", row.over_twin),
            format!("{:.0}", row.first_use_ms),
            format!("{:.0}", row.record_us),
            row.dispatches.to_string(),
            format!("{:.1}", row.weights_mb),
            format!("{:.1}", row.arena_mb),
            format!("{:.1}", row.alive_mb),
        ]);
    }
    table
}
