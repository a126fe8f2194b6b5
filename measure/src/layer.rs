//! One layer, measured in turns with what it is held against.

use std::ops::ControlFlow;
use std::time::Instant;

use dynconv::Algorithm;
use dynconv::device::Step;
use dynconv::kernels::Kernel;
use dynconv::program::Plan;
use dynconv::{Caps, Context, Elem, Error as LibraryError, wgpu};
use dynconv_suite::data::{Data, Numbers};
use dynconv_suite::run::{Fault, Prepared, problem_on};
use dynconv_suite::spec::{Family, Spec};

use crate::contest::{Clock, Contender, Work, take_turns};
use crate::error::{Error, Result};
use crate::groups::Groups;
use crate::peak::{Gauge, Peak};
use crate::results::{Refusal, Row};
use crate::shapes::Shape;
use crate::verify::{Judge, Verified};

/// What to measure and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Kind of layer: attention given, DY-CNN or ODConv.
    pub family: Family,
    /// Element type of input and output; banks of layers in f16 are in f16 too.
    pub elem: Elem,
    /// Convolution kernels that are compared.
    pub kernels: Vec<Algorithm>,
    /// Samples of each of those that take turns.
    pub samples: usize,
    /// Whether the batch as groups takes turns with them, which takes most of the time where
    /// groups are slow.
    pub groups: bool,
    /// Everything once, to see that it works.
    pub quick: bool,
}

/// A shape and a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The shape; its own batch does not count.
    pub shape: Shape,
    /// Samples.
    pub batch: usize,
}

/// What became of a layer and a kernel.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was measured.
    Measured(Box<Row>),
    /// It was not.
    NotMeasured(Refusal),
}

impl Case {
    fn spec(&self, options: &Options) -> Spec {
        let bank = match options.elem {
            Elem::F32 => Elem::F32,
            _ => Elem::F16Storage,
        };
        Spec {
            family: options.family,
            batch: self.batch,
            elems: [options.elem, options.elem, bank],
            ..self.shape.spec.clone()
        }
    }
}

/// A layer that runs and is right.
struct Entry {
    conv: Algorithm,
    spec: Spec,
    prepared: Prepared,
    plan: Plan,
    verified: Verified,
    first_use_ms: f64,
}

/// All that takes turns, each of it checked.
struct Ready {
    flat: Entry,
    entries: Vec<Entry>,
    groups: Option<Groups>,
    without_groups: Option<String>,
    not_measured: Vec<Refusal>,
    compared: String,
}

/// Measures a layer with each kernel that `options` names, beside our own static convolution and
/// the batch as groups. `progress` is told what is being done, and may end it. What is refused or
/// wrong is an [`Outcome`].
///
/// # Errors
/// [`Error::Device`] if the device fails, [`Error::Stopped`] if `progress` wants no more.
pub fn measure(
    context: &Context,
    peak: &Peak,
    case: &Case,
    options: &Options,
    progress: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Vec<Outcome>> {
    let progress = &mut |what: &str| match progress(what) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    };
    let ready = match make_ready(context, case, options, progress) {
        Ok(ready) => ready,
        Err(error) => return Ok(vec![Outcome::NotMeasured(refusal(case, "all", &error)?)]),
    };
    let rows = race(context, peak, case, options, &ready, progress)?;
    let refused = ready.not_measured.into_iter().map(Outcome::NotMeasured);
    Ok(rows.into_iter().map(|row| Outcome::Measured(Box::new(row))).chain(refused).collect())
}

/// Tells what is being done, and fails if there is to be no more.
type Progress<'a> = dyn FnMut(&str) -> Result<()> + 'a;

fn make_ready(
    context: &Context,
    case: &Case,
    options: &Options,
    progress: &mut Progress<'_>,
) -> Result<Ready> {
    let spec = case.spec(options);
    // What the device has no room for is refused before there are numbers for it.
    plan(context, &spec)?;
    let data = Data::new(&spec, Numbers::Floats)?;
    let (flat_spec, flat_data) = static_twin(&spec)?;
    progress("static")?;
    let mut judge = Judge::new(&flat_spec, &flat_data, flops(&flat_spec)?, options.quick);
    let flat = prepare(context, &flat_spec, &flat_data, &mut judge)?;

    let mut judge = Judge::new(&spec, &data, flops(&spec)?, options.quick);
    // Larger errors have a bound of their own.
    let filtered = Spec { conv: Algorithm::Conv3x3WinogradSimd8, ..spec.clone() };
    let mut judge_of_filtered = Judge::new(&filtered, &data, flops(&spec)?, options.quick);
    let mut not_measured = Vec::new();
    let mut entries = Vec::new();
    for &conv in &options.kernels {
        progress(conv.name())?;
        let judge = if conv.sums_plainly() { &mut judge } else { &mut judge_of_filtered };
        match prepare(context, &Spec { conv, ..spec.clone() }, &data, judge) {
            Ok(entry) => entries.push(entry),
            Err(error) => not_measured.push(refusal(case, conv.name(), &error)?),
        }
    }
    let mut without_groups = None;
    let groups = if options.groups {
        progress("groups")?;
        match groups(context, &spec, &data, &mut judge) {
            Ok(groups) => Some(groups),
            Err(error) => {
                let refusal = refusal(case, "groups", &error)?;
                without_groups = Some(refusal.reason.clone());
                not_measured.extend(Some(refusal).filter(|refusal| refusal.is_wrong));
                None
            }
        }
    } else {
        None
    };
    Ok(Ready { flat, entries, groups, without_groups, not_measured, compared: judge.compares() })
}

/// Times all in turns; a row for each kernel.
fn race(
    context: &Context,
    peak: &Peak,
    case: &Case,
    options: &Options,
    ready: &Ready,
    progress: &mut Progress<'_>,
) -> Result<Vec<Row>> {
    let clock = Clock::new(context)?;
    let attention =
        ready.entries.first().map(|entry| attention_steps(&entry.prepared)).unwrap_or_default();
    let layer = |entry: &'_ Entry| -> Work<'_> {
        let bound = entry.prepared.bound.clone();
        Box::new(move |pass| bound.record_in(pass))
    };
    let work = Gauge::new(context)?;
    let mut gauge = Contender::new(Box::new(|pass| work.record_in(pass)));
    let mut flat = Contender::new(layer(&ready.flat));
    let mut groups =
        ready.groups.as_ref().map(|groups| Contender::new(Box::new(|pass| groups.record_in(pass))));
    let mut branch = (!attention.is_empty()).then(|| {
        Contender::new(Box::new(|pass| attention.iter().for_each(|step| step.record_in(pass))))
    });
    let mut turns: Vec<Contender<'_>> =
        ready.entries.iter().map(|entry| Contender::new(layer(entry))).collect();
    let mut all: Vec<_> = [&mut gauge, &mut flat]
        .into_iter()
        .chain(&mut groups)
        .chain(&mut branch)
        .chain(&mut turns)
        .collect();
    take_turns(&clock, &mut all, options.samples, options.quick, &mut || progress("timing"))?;

    let beside = Beside {
        ready,
        gauge: &gauge,
        flat: &flat,
        groups: groups.as_ref(),
        attention: branch.as_ref(),
    };
    let rows = ready.entries.iter().zip(&turns).map(|(entry, turn)| {
        let host_record_us = clock.record_us(turn.work(), options.quick);
        Row { host_record_us, ..beside.row(case, entry, turn, peak) }
    });
    Ok(rows.collect())
}

fn elem_name(elem: Elem) -> &'static str {
    match elem {
        Elem::F16 => "f16",
        Elem::F16Storage => "f16-storage",
        _ => "f32",
    }
}

/// The static convolution of the same shape by the plain sum, with numbers of its own.
fn static_twin(spec: &Spec) -> Result<(Spec, Data)> {
    let flat = Spec {
        family: Family::Static,
        kernels: 1,
        winograd: None,
        conv: Algorithm::Auto,
        ..spec.clone()
    };
    let data = Data::new(&flat, Numbers::Floats)?;
    Ok((flat, data))
}

fn flops(spec: &Spec) -> Result<u64> {
    let g = spec.geometry()?;
    Ok(g.flops(spec.batch, spec.input3(), g.output_size(spec.input3())?))
}

fn plan(context: &Context, spec: &Spec) -> Result<Plan> {
    let several = || LibraryError::Unsupported {
        what: spec.to_string(),
        because: "it is several plans".into(),
    };
    Ok(Plan::new(&problem_on(spec, context.caps())?.ok_or_else(several)?, context.caps())?)
}

/// Compiles and checks a layer.
fn prepare(context: &Context, spec: &Spec, data: &Data, judge: &mut Judge<'_>) -> Result<Entry> {
    let plan = plan(context, spec)?;
    let first_use_ms = first_use_ms(context, spec, data)?;
    let prepared = Prepared::new(context, spec, data)?;
    let verified = judge.check(plan.conv_kernel().name(), &prepared.run()?)?;
    Ok(Entry { conv: spec.conv, spec: spec.clone(), prepared, plan, verified, first_use_ms })
}

/// What the first use of a layer takes longer than the fastest of some more, on one sample, without
/// pipelines of this program: compiling. Drivers do some of it when a pipeline is made, some when
/// it runs first; one that keeps shaders on disk may skip it.
fn first_use_ms(context: &Context, spec: &Spec, data: &Data) -> Result<f64> {
    let (single, data) = (spec.single(), data.sample(spec, 0));
    let fresh = context.clone().with_shaders(dynconv::kernels::Variant::source);
    let use_once = || -> Result<f64> {
        let start = Instant::now();
        Prepared::new(&fresh, &single, &data)?.run()?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let first = use_once()?;
    let later = use_once()?.min(use_once()?);
    Ok((first - later).max(0.0))
}

fn groups(context: &Context, spec: &Spec, data: &Data, judge: &mut Judge<'_>) -> Result<Groups> {
    // As on a software adapter without lanes, where kernels lie as they are published, and have all
    // gains in them.
    let device_type = wgpu::DeviceType::Cpu;
    let plain =
        context.clone().with_caps(Caps { device_type, subgroups: false, ..context.caps().clone() });
    let spec = &Spec { winograd: None, conv: Algorithm::ConvDirect, ..spec.clone() };
    let direct = Prepared::new(&plain, spec, data)?;
    let groups = Groups::bind(context, spec, data, &direct)?;
    judge.check("the batch as groups", &groups.run(context)?)?;
    Ok(groups)
}

/// The steps that compute the attention.
fn attention_steps(prepared: &Prepared) -> Vec<Step> {
    let is_attention = |step: &&Step| {
        matches!(step.dispatch().variant.kernel, Kernel::AveragePool | Kernel::AttentionMlp)
    };
    prepared.bound.steps().iter().filter(is_attention).cloned().collect()
}

/// What cannot be measured because the library refuses it or because it is wrong; other errors end
/// the run.
fn refusal(case: &Case, strategy: &str, error: &Error) -> Result<Refusal> {
    let is_wrong = match error {
        Error::Fault(Fault::Refused(_)) => false,
        Error::Fault(Fault::Wrong(_) | Fault::Failed(_)) => true,
        Error::Stopped => return Err(Error::Stopped),
        other => return Err(Error::Device(other.to_string())),
    };
    let reason = error.to_string();
    Ok(Refusal {
        shape: case.shape.name.clone(),
        batch: case.batch,
        strategy: strategy.into(),
        reason,
        is_wrong,
    })
}

/// What a layer is held against.
struct Beside<'a, 'b> {
    ready: &'a Ready,
    gauge: &'a Contender<'b>,
    flat: &'a Contender<'b>,
    groups: Option<&'a Contender<'b>>,
    attention: Option<&'a Contender<'b>>,
}

impl Beside<'_, '_> {
    fn row(&self, case: &Case, entry: &Entry, turn: &Contender<'_>, peak: &Peak) -> Row {
        let time = turn.spread();
        let gauge = self.gauge.spread();
        let (flat, groups) = (self.flat.spread(), self.groups.map(Contender::spread));
        let flops = entry.plan.flops();
        let moved_bytes = moved_bytes(entry);
        let per_second = |count: u64| count as f64 / time.median * 1e-6;
        Row {
            shape: case.shape.name.clone(),
            problem: entry.spec.to_string(),
            batch: case.batch,
            strategy: entry.conv.name().into(),
            kernel: kernel_names(&entry.prepared),
            elem: elem_name(entry.spec.elems[0]).into(),
            median_ms: time.median,
            min_ms: time.min,
            max_ms: time.max,
            wall_ms: turn.wall(),
            repeats: turn.repeats(),
            flops,
            gflops: per_second(flops),
            moved_bytes,
            gbps: per_second(moved_bytes),
            peak_percent: 100.0 * per_second(flops) / peak.gflops,
            copy_percent: 100.0 * per_second(moved_bytes) / peak.copy_gbps,
            static_kernel: kernel_names(&self.ready.flat.prepared),
            static_median_ms: flat.median,
            static_min_ms: flat.min,
            static_max_ms: flat.max,
            static_wall_ms: self.flat.wall(),
            ratio_to_static: turn.ratio(self.flat),
            groups_median_ms: groups.map(|spread| spread.median),
            groups_min_ms: groups.map(|spread| spread.min),
            groups_max_ms: groups.map(|spread| spread.max),
            ratio_to_groups: self.groups.map(|groups| turn.ratio(groups)),
            without_groups: self.ready.without_groups.clone(),
            attention_ms: self.attention.map(|attention| attention.spread().median),
            gauge_min_ms: gauge.min,
            gauge_max_ms: gauge.max,
            host_record_us: 0.0,
            first_use_ms: entry.first_use_ms,
            scratch_bytes: entry.plan.scratch_bytes(),
            memory_bytes: moved_bytes + entry.plan.scratch_bytes(),
            verified_error: entry.verified.error,
            verified_share_of_bound: entry.verified.of_bound,
            verified_what: self.ready.compared.clone(),
        }
    }
}

/// Bytes that have to be read and written once: input, bank, attention that is given, output.
fn moved_bytes(entry: &Entry) -> u64 {
    let (spec, problem) = (&entry.spec, entry.plan.problem());
    let g = &problem.geometry;
    let all = |sizes: [usize; 3], channels: usize| {
        (sizes.iter().product::<usize>() * channels * spec.batch) as u64
    };
    let attention =
        if spec.family == Family::Bank { 4 * (spec.batch * g.kernels) as u64 } else { 0 };
    all(problem.input, g.c_in) * spec.elems[0].bytes()
        + all(entry.plan.output(), g.c_out) * spec.elems[1].bytes()
        + (g.kernels * g.weights()) as u64 * spec.elems[2].bytes()
        + attention
}

/// The kernels that run, each once.
fn kernel_names(prepared: &Prepared) -> String {
    let mut names: Vec<&str> = Vec::new();
    for step in prepared.bound.steps() {
        let name = step.dispatch().variant.kernel.name();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" + ")
}
