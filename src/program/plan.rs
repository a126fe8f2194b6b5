//! The planner: problem and caps in, a program out, and why it is this one.

use std::fmt;
use std::ops::Range;

use super::choose;
use super::strips::{self, Strip, strips};
use super::{Memory, Operands, Program, Weights};
use crate::caps::{Caps, Missing};
use crate::elem::Elem;
use crate::error::{Error, Result, Unit};
use crate::kernels::aggregate::MixValues;
use crate::kernels::attention_mlp::{Head, Mlp, MlpValues};
use crate::kernels::average_pool::Pool;
use crate::kernels::conv::{ConvKernel, ConvTask, ConvValues, Mix, SplitTask, Stage};
use crate::kernels::{
    Dispatch, Kernel, Value, aggregate, aggregate_wide, sum_slices, value_limit, winograd_input,
    winograd_output,
};
use crate::problem::{
    self, Algorithm, AttentionRow, AttentionSource, Branch, Geometry, Layout, Mixing, Problem,
    WeightOrder, Winograd, product,
};

/// What will run, in order, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    problem: Problem,
    output: [usize; 3],
    chunk: usize,
    program: Program,
    operands: Operands<Value>,
    scratch: Scratch,
    scratch_bytes: u64,
    conv: Kernel,
    /// Whether samples of one position each run as one row of positions.
    is_row: bool,
    /// Strips of a sample that is too large for a binding; else none.
    strips: Vec<Strip>,
    /// Input channels of each slice, where the sum is split among workgroups.
    split: Option<usize>,
    why: String,
    missing: Vec<Missing>,
}

/// Scratch memory of a plan, as far as it needs each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Scratch {
    /// Channel means of the input `[batch, channels in]`.
    means: Option<Value>,
    /// The same over parts of a sample that is too large for a binding `[parts, channels in]`.
    parts: Option<Value>,
    /// Attention rows that a branch computes `[batch, gains and mixing weights]`.
    attention: Option<Value>,
    /// Each sample's kernel and bias `[batch, row]`.
    sample_weights: Option<Value>,
    /// Sums over some of the input channels each `[slices, batch, channels out, positions]`.
    partials: Option<Value>,
    /// Tiles of the input for minimal filtering `[batch, numbers, channels in, tiles]`, and their
    /// products with the kernels.
    tiles: Option<[Value; 2]>,
}

impl Plan {
    /// Plans a layer. The plan of an empty batch has no dispatches.
    ///
    /// # Errors
    /// [`Error::Shape`] for a kernel that does not fit, [`Error::Limit`] where even one sample
    /// passes a limit of the device, [`Error::Overflow`], [`Error::Unsupported`] if the chosen
    /// kernel cannot compute this.
    pub fn new(problem: &Problem, caps: &Caps) -> Result<Self> {
        problem::check(problem)?;
        let problem = &Problem { geometry: problem.geometry.at(problem.input), ..*problem };
        let is_map = matches!(problem.attention, AttentionSource::Map(_));
        if problem.shares_kernel() && problem.geometry.kernels != 1 && !is_map {
            return Err(Error::Shape {
                what: "kernels in the bank without mixing weights".into(),
                expected: "1".into(),
                found: problem.geometry.kernels.to_string(),
            });
        }
        let output = problem.geometry.output_size(problem.input)?;
        let is_row = is_row(problem, caps);
        let (summed, map) = if is_row { row(problem) } else { problem.summed(output) };
        let (conv, why) = choose::choose(&summed, map, caps);
        // What a device cannot run at all is said before what a kernel cannot compute.
        conv.check_lanes(caps)?;
        conv.accepts(&summed, map)?;
        let why = match problem.geometry.winograd {
            Some(winograd) => format!("products of minimal filtering, {winograd}; {why}"),
            None if is_row => format!("{why}; samples are the positions of one row"),
            None => why,
        };
        let mut program = Program::default();
        let operands = operands(&mut program, problem, output);
        let mut plan = Self {
            problem: *problem,
            output,
            chunk: problem.batch,
            program,
            operands,
            scratch: Scratch::default(),
            scratch_bytes: 0,
            conv,
            is_row,
            strips: strips(problem, output, caps).unwrap_or_default(),
            split: None,
            why,
            missing: Vec::new(),
        };
        plan.split = if plan.strips.is_empty() { plan.split(caps)? } else { None };
        let stores = !problem.shares_kernel() && plan.mix().is_none();
        let weights = if stores { problem.row() } else { 0 };
        let sums = product(&[plan.slices(), summed.geometry.c_out, product(&map)]);
        plan.chunk = plan.fitting_samples([weights, sums], caps)?;
        plan.add_scratch(weights, sums, caps);
        for first in (0..problem.batch).step_by(plan.chunk) {
            plan.push_chunk(first, plan.chunk.min(problem.batch - first), caps)?;
        }
        if problem.batch == 0 {
            // What is refused for one sample is refused for none, which is all that there is to
            // find out.
            plan.push_chunk(0, 1, caps)?;
            plan.program.steps.clear();
        }
        plan.scratch_bytes = plan.program.arena(caps).bytes();
        plan.missing = plan.missing_of(caps);
        Ok(plan)
    }

    /// Scratch memory, for as many elements a sample of stored kernels and of partial sums.
    fn add_scratch(&mut self, weights: usize, sums: usize, caps: &Caps) {
        let parts = self.parts(caps).unwrap_or(1);
        let Self { problem, chunk, program, scratch, .. } = self;
        let mut add = |name: &'static str, sample: &[usize]| {
            let value = Value::new(name).chunked();
            let shape = [&[*chunk], sample].concat();
            program.add(value, &shape, Elem::F32, Memory::Scratch)
        };
        let g = &problem.geometry;
        if matches!(problem.attention, AttentionSource::Branch(Branch { context: None, .. })) {
            scratch.means = Some(add("channel means", &[g.c_in]));
        }
        if weights > 0 && problem.attention != AttentionSource::SampleWeights {
            scratch.sample_weights = Some(add("per-sample kernels", &[weights]));
        }
        if sums > 0 {
            scratch.partials = Some(add("partial sums", &[sums]));
        }
        if g.winograd.is_some() {
            let (summed, tiles) = problem.summed(self.output);
            let Geometry { c_in, c_out, .. } = summed.geometry;
            scratch.tiles = Some([
                add("tiles of the input", &[c_in, product(&tiles)]),
                add("tiles of products", &[c_out, product(&tiles)]),
            ]);
        }
        if scratch.means.is_some() && parts > 1 {
            let value = Value::new("means of the parts");
            let shape = [parts, problem.geometry.c_in];
            scratch.parts = Some(program.add(value, &shape, Elem::F32, Memory::Scratch));
        }
        if matches!(problem.attention, AttentionSource::Branch(_)) {
            // Attention is there to be read afterwards, that of the whole batch.
            let shape = [problem.batch, problem.attention_row().stride];
            let value = Value::new("attention");
            scratch.attention = Some(program.add(value, &shape, Elem::F32, Memory::Kept));
        }
    }

    /// What of the device is missing, if other variants would run with it.
    fn missing_of(&self, caps: &Caps) -> Vec<Missing> {
        let missing = caps.missing();
        if missing.is_empty() {
            return missing;
        }
        let variants =
            |plan: &Self| plan.dispatches().iter().map(|d| d.variant.clone()).collect::<Vec<_>>();
        match Self::new(&self.problem, &caps.fuller()) {
            Ok(fuller) if variants(&fuller) != variants(self) => missing,
            _ => Vec::new(),
        }
    }

    /// The same plan for another reason.
    pub(crate) fn because(self, why: &str) -> Self {
        Self { why: why.into(), ..self }
    }

    /// Attention and convolution of `batch` samples from `first` on.
    fn push_chunk(&mut self, first: usize, batch: usize, caps: &Caps) -> Result<()> {
        let problem = self.problem;
        let geometry = &problem.geometry;
        let row = problem.attention_row();
        if let AttentionSource::Branch(branch) = problem.attention {
            self.push_attention(&branch, first, batch, caps)?;
        }
        let shared = problem.shares_kernel();
        // Weights in blocks take no gains of channels and filters, which would be a load each: the
        // convolution applies them, channel gains to the input as it is loaded, filter
        // gains to the sum. Those of minimal filtering take none either.
        let leaves_gains =
            shared || problem.order == WeightOrder::Blocked || geometry.winograd.is_some();
        let mix = self.mix();
        if let Some(sample_weights) = self.scratch.sample_weights {
            self.push_mixed(sample_weights, leaves_gains, [first, batch], caps)?;
        }
        let map_size = problem.map_size(self.output);
        let task = ConvTask {
            channels: 0..geometry.c_in / geometry.groups,
            stage: Stage::Whole,
            geometry,
            input: problem.input,
            output: self.output,
            first,
            batch,
            shared,
            row: problem.row(),
            order: problem.order,
            has_bias: problem.has_bias,
            map: match problem.attention {
                AttentionSource::Map(axis) => Some(axis),
                _ => None,
            },
            gain_stride: if map_size > 0 { geometry.kernels * map_size } else { row.stride },
            // Kernels that the convolution mixes are not stored with their gains either.
            channel_gain: row.channel.filter(|_| leaves_gains || mix.is_some()),
            filter_gain: row.filter.filter(|_| leaves_gains || mix.is_some()),
            mix,
            epilogue: problem.epilogue,
            values: self.conv_values(),
            layouts: problem.layouts,
            elems: problem.elems,
            places: None,
        };
        match geometry.winograd {
            Some(winograd) => self.push_filtered(task, winograd, caps),
            None if self.is_row => self.push_row(task, caps),
            None if self.strips.is_empty() => self.push_sum(task, caps),
            None => self.push_strips(&task, caps),
        }
    }

    /// The convolution of one sample in strips.
    fn push_strips(&mut self, task: &ConvTask<'_>, caps: &Caps) -> Result<()> {
        let Problem { geometry: g, input, .. } = self.problem;
        let samples = [(input, g.c_in), (self.output, g.c_out)]
            .map(|(size, channels)| task.first * product(&size) * channels);
        for Strip { geometry, input, output, first } in self.strips.clone() {
            let places = Some([samples[0] + first[0], samples[1] + first[1]]);
            let geometry = &geometry;
            self.push_sum(ConvTask { geometry, input, output, places, ..task.clone() }, caps)?;
        }
        Ok(())
    }

    /// Parts that a sample is averaged in; `None` if no number of them fits.
    fn parts(&self, caps: &Caps) -> Option<usize> {
        let Problem { geometry, input, layouts, .. } = &self.problem;
        match layouts[0] {
            Layout::ChannelsLast => strips::parts(product(input), geometry.c_in, caps),
            Layout::ChannelsFirst => Some(1),
        }
    }

    /// The convolution of one row, whose positions are the samples.
    fn push_row(&mut self, task: ConvTask<'_>, caps: &Caps) -> Result<()> {
        let (Problem { input, layouts, .. }, output) = row(&self.problem);
        self.push_sum(ConvTask { batch: 1, input, output, layouts, ..task }, caps)
    }

    /// Pooling, and the attention branch.
    fn push_attention(
        &mut self,
        branch: &Branch,
        first: usize,
        batch: usize,
        caps: &Caps,
    ) -> Result<()> {
        let Problem { input, layouts, elems, .. } = self.problem;
        let mlp = mlp(&self.problem, branch);
        let (Scratch { means, attention, .. }, weights) = (self.scratch, self.operands.weights);
        let values = MlpValues {
            means: means.or(self.operands.given).expect("a branch has means or is given a context"),
            hidden: weights.hidden,
            heads: weights.heads.expect("a branch has heads"),
            temperature: weights.temperature.expect("a branch has a temperature"),
            attention: attention.expect("a branch computes attention"),
        };
        if branch.context.is_none() {
            let (x, size) = (self.operands.x, product(&input));
            match (self.scratch.parts, self.parts(caps)) {
                (Some(parts), Some(count)) => {
                    // Parts of equal size: the mean of their means is that of all.
                    let of_part = Pool::global(mlp.channels, size / count, layouts[0]);
                    for part in 0..count {
                        let numbers = [first * count + part, part];
                        let pooled = [x, parts];
                        let step = of_part.dispatch_from(pooled, elems[0], numbers, 1, caps)?;
                        self.program.push(step);
                    }
                    let (all, pooled) = (Pool::axis(1, count, mlp.channels), [parts, values.means]);
                    let step = all.dispatch_from(pooled, Elem::F32, [0, first], 1, caps)?;
                    self.program.push(step);
                }
                _ => {
                    let pool = Pool::global(mlp.channels, size, layouts[0]);
                    let step = pool.dispatch([x, values.means], elems[0], first, batch, caps)?;
                    self.program.push(step);
                }
            }
        }
        self.program.push(mlp.dispatch(values, first, batch, caps)?);
        Ok(())
    }

    /// Each sample's kernel.
    fn push_mixed(
        &mut self,
        sample_weights: Value,
        leaves_gains: bool,
        [first, batch]: [usize; 2],
        caps: &Caps,
    ) -> Result<()> {
        let problem = &self.problem;
        let row = problem.attention_row();
        let values = MixValues {
            bank: self.operands.weights.bank.expect("what is mixed is a bank"),
            bias: self.operands.weights.bias,
            attention: self.attention(),
            sample_weights,
        };
        let cells = match problem.attention {
            AttentionSource::Branch(Branch { mixing: Mixing::Cells(cells), .. }) => Some(cells),
            _ => None,
        };
        self.program.push(match aggregate_wide::can_compute(problem, caps) {
            true => aggregate_wide::dispatch(values, problem, row, first, batch, caps)?,
            false => {
                let folded = match leaves_gains {
                    true => AttentionRow { channel: None, filter: None, ..row },
                    false => row,
                };
                aggregate::dispatch(values, problem, folded, cells, first, batch, caps)?
            }
        });
        Ok(())
    }

    /// What the convolution reads and writes.
    fn conv_values(&self) -> ConvValues {
        let Operands { x, given, residual, weights, y } = self.operands;
        let given_weights = match self.problem.attention {
            AttentionSource::SampleWeights => given,
            _ => None,
        };
        let kernels = [given_weights, weights.shared, self.scratch.sample_weights, weights.bank];
        ConvValues {
            x,
            weights: kernels.into_iter().flatten().next().expect("a convolution has weights"),
            gains: self.attention(),
            affine: weights.affine,
            residual,
            partials: self.scratch.partials,
            y,
        }
    }

    /// Tiles of the input, their products with the kernels, and the outputs that these make.
    fn push_filtered(&mut self, task: ConvTask<'_>, winograd: Winograd, caps: &Caps) -> Result<()> {
        let [inputs, products] = self.scratch.tiles.expect("minimal filtering has tiles");
        self.program.push(winograd_input::dispatch(&task, inputs, winograd, caps)?);
        let (summed, tiles) = self.problem.summed(self.output);
        let sums = ConvTask {
            channels: 0..summed.geometry.c_in / summed.geometry.groups,
            geometry: &summed.geometry,
            input: tiles,
            output: tiles,
            values: ConvValues { x: inputs, y: products, ..task.values },
            ..task.begun().ended()
        };
        self.push_sum(sums, caps)?;
        self.program.push(winograd_output::dispatch(&task, products, winograd, caps)?);
        Ok(())
    }

    /// The convolution, over as many ranges of the input channels as the driver needs.
    fn push_sum(&mut self, mut task: ConvTask<'_>, caps: &Caps) -> Result<()> {
        if let Some(channels) = self.split {
            self.program.push(convolution(self.conv).launch(&task.in_slices(channels), caps)?);
            self.program.push(sum_slices::dispatch(&task.total(channels), caps)?);
            return Ok(());
        }
        let ranges = self.channel_ranges(&task, caps);
        if ranges.len() > 1 && task.elems[1] != Elem::F32 {
            return Err(Error::Unsupported {
                what: format!("an output of {:?}", task.elems[1]),
                because: "the sum takes several dispatches on this driver, \
                          and would be rounded after each"
                    .into(),
            });
        }
        for channels in ranges {
            task.channels = channels;
            self.program.push(convolution(self.conv).launch(&task, caps)?);
        }
        Ok(())
    }

    /// How the convolution mixes each sample's kernel itself, where it can and where that pays.
    fn mix(&self) -> Option<Mix> {
        let (Problem { geometry, attention, has_bias, .. }, map) =
            &self.problem.summed(self.output);
        let row = self.problem.attention_row();
        let pays = convolution(self.conv).mixes(geometry, product(map));
        let weights = row.mix.filter(|_| attention.has_bank() && pays && !has_bias)?;
        Some(Mix { weights, spatial: row.spatial })
    }

    /// How the sum is split among workgroups, if it is: where that is asked for, or else where one
    /// sample would leave a GPU's cores idle.
    fn split(&self, caps: &Caps) -> Result<Option<usize>> {
        let (Problem { geometry, algorithm, .. }, map) = &self.problem.summed(self.output);
        let is_asked = *algorithm == Algorithm::SplitK;
        if *algorithm != Algorithm::Auto && !is_asked {
            return Ok(None);
        }
        let task = SplitTask {
            geometry,
            positions: product(map),
            least: if is_asked { 2 } else { 1 },
            mixes: self.mix().is_some(),
        };
        match convolution(self.conv).slices(task, caps) {
            None if is_asked => Err(self.conv.too_few_to_split(geometry)),
            slices => Ok(slices),
        }
    }

    /// Slices of the sum, each of which is stored; 0 where it is not split.
    fn slices(&self) -> usize {
        let summed = self.problem.geometry.summed();
        self.split.map_or(0, |channels| (summed.c_in / summed.groups).div_ceil(channels))
    }

    /// Input channels of a group in as few ranges as the driver's loop limit allows, of which a
    /// dispatch sums over one.
    fn channel_ranges(&self, task: &ConvTask<'_>, caps: &Caps) -> Vec<Range<usize>> {
        let channels = task.channels.end;
        let fits = |ranges: usize| {
            let task = ConvTask { channels: 0..channels.div_ceil(ranges), ..task.clone() };
            let iterations = convolution(self.conv).iterations(&task, caps);
            iterations <= u64::from(caps.max_loop_iterations)
        };
        let mut ranges = 1;
        while ranges < channels && !fits(ranges) {
            ranges *= 2;
        }
        let range = channels.div_ceil(ranges);
        (0..channels).step_by(range).map(|first| first..channels.min(first + range)).collect()
    }

    /// Samples whose operands each fit one binding and one 32-bit index, at least 1; `scratch` is
    /// how many elements of stored kernels and of partial sums each has.
    fn fitting_samples(&self, scratch: [usize; 2], caps: &Caps) -> Result<usize> {
        let Self { problem, output, strips, .. } = self;
        let (g, output) = (&problem.geometry, *output);
        let map = problem.map_size(output).saturating_mul(g.kernels);
        let attention = problem.attention_row().stride.saturating_add(map);
        let context = match problem.attention {
            AttentionSource::Branch(Branch { context: Some(width), .. }) => width,
            _ => 0,
        };
        let (summed, tiles) = problem.summed(output);
        let of_tiles = |channels: usize| {
            if g.winograd.is_some() { product(&tiles).saturating_mul(channels) } else { 0 }
        };
        let sample = [(problem.input, g.c_in), (output, g.c_out)]
            .map(|(size, channels)| product(&size).saturating_mul(channels));
        let is_averaged =
            matches!(problem.attention, AttentionSource::Branch(Branch { context: None, .. }));
        let in_strips = !strips.is_empty() && (!is_averaged || self.parts(caps).is_some());
        let bound = if in_strips { strips::largest(strips) } else { sample };
        let per_sample = [
            ("input", bound[0]),
            ("per-sample kernels", scratch[0]),
            ("partial sums", scratch[1]),
            ("attention", attention),
            ("context", context),
            ("tiles of the input", of_tiles(summed.geometry.c_in)),
            ("tiles of products", of_tiles(summed.geometry.c_out)),
            ("output", bound[1]),
        ];
        let available = value_limit(caps);
        let batch = problem.batch.max(1);
        let mut chunk = if in_strips { 1 } else { batch };
        for (name, elements) in per_sample {
            let bytes = (elements as u64).saturating_mul(4);
            if bytes > available {
                return Err(Error::Limit {
                    limit: "max_storage_buffer_binding_size",
                    unit: Unit::Bytes,
                    what: format!("the {name} of one sample"),
                    needed: bytes,
                    available,
                    remedy: "request the device with a larger limit, or use a smaller layer, \
                             or channels last, of which strips can run one after another"
                        .into(),
                });
            }
            let fit = available.checked_div(bytes).unwrap_or(u64::MAX);
            chunk = chunk.min(usize::try_from(fit).unwrap_or(usize::MAX));
        }
        let whole = [("input", sample[0]), ("attention", attention), ("output", sample[1])];
        for (name, elements) in whole {
            let needed = (elements as u64).saturating_mul(4).saturating_mul(problem.batch as u64);
            if needed > caps.max_buffer {
                return Err(Error::Limit {
                    limit: "max_buffer_size",
                    unit: Unit::Bytes,
                    what: format!("the {name} of the batch"),
                    needed,
                    available: caps.max_buffer,
                    remedy: "use a smaller batch".into(),
                });
            }
        }
        // Even chunks, so that the last is not a sliver.
        Ok(batch.div_ceil(batch.div_ceil(chunk)))
    }

    /// The problem planned.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Output depth, height and width.
    #[must_use]
    pub fn output(&self) -> [usize; 3] {
        self.output
    }

    /// Dispatches in order.
    #[must_use]
    pub fn dispatches(&self) -> &[Dispatch] {
        self.program.steps()
    }

    /// The dispatches alone.
    #[must_use]
    pub fn into_dispatches(self) -> Vec<Dispatch> {
        self.program.steps
    }

    pub(crate) fn into_program(self) -> Program {
        self.program
    }

    /// What runs, and on which values.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The values that the program has from outside.
    #[must_use]
    pub fn operands(&self) -> &Operands<Value> {
        &self.operands
    }

    /// Attention rows or a map, computed or given.
    #[must_use]
    pub fn attention(&self) -> Option<Value> {
        let gives_attention = self.problem.attention != AttentionSource::SampleWeights;
        self.scratch.attention.or(self.operands.given.filter(|_| gives_attention))
    }

    /// The convolution kernel chosen.
    #[must_use]
    pub fn conv_kernel(&self) -> Kernel {
        self.conv
    }

    /// Features and limits that the device was made without, and with which other kernels would
    /// run, which are faster: see [`Caps::missing`].
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Samples that run together; a batch whose values pass the binding limit runs in chunks, one
    /// after another.
    #[must_use]
    pub fn samples_per_chunk(&self) -> usize {
        self.chunk
    }

    /// Bytes of scratch memory: see [`Arena`](super::Arena).
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes
    }

    /// Multiplications and additions of the static convolution of this shape.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.problem.geometry.flops(self.problem.batch, self.problem.input, self.output)
    }
}

/// The attention branch of a problem.
pub(super) fn mlp(problem: &Problem, branch: &Branch) -> Mlp {
    let geometry = &problem.geometry;
    Mlp {
        channels: branch.context.unwrap_or(geometry.c_in),
        hidden: branch.hidden,
        outputs: problem.attention_row().stride,
        head: match branch.mixing {
            Mixing::Softmax if branch.parts.mix => Head::Softmax { kernels: geometry.kernels },
            Mixing::Cells(cells) => {
                Head::Signed { runs: cells.per_kernel(geometry), kernels: cells.count }
            }
            _ => Head::Sigmoid,
        },
    }
}

/// Whether all samples can run as one row: a fully connected layer, whose weights are then read
/// once for all of them, in tiles that are full. Measured on software adapters with lanes alone.
fn is_row(problem: &Problem, caps: &Caps) -> bool {
    let Geometry { c_in, c_out, .. } = problem.geometry;
    let bytes = product(&[4, problem.batch, c_in.max(c_out)]) as u64;
    caps.has_lanes()
        && problem.attention == AttentionSource::Static
        && problem.algorithm == Algorithm::Auto
        && problem.geometry.is_pointwise()
        && problem.input == [1; 3]
        && problem.batch > 0
        && bytes <= value_limit(caps)
}

/// The samples of a problem as the positions of one, channels last: `[batch, channels]` in memory
/// as before. And its output.
fn row(problem: &Problem) -> (Problem, [usize; 3]) {
    let input = [1, 1, problem.batch];
    let layouts = [Layout::ChannelsLast; 2];
    (Problem { batch: 1, input, layouts, ..*problem }, input)
}

/// How the kernel of a plan convolves.
fn convolution(kernel: Kernel) -> &'static dyn ConvKernel {
    kernel.convolution().expect("a plan's convolution is one")
}

/// The values that a layer has from outside.
fn operands(program: &mut Program, problem: &Problem, output: [usize; 3]) -> Operands<Value> {
    let g = &problem.geometry;
    let mut add = |name: &'static str, shape: &[usize], elem: Elem| {
        program.add(Value::new(name), shape, elem, Memory::External)
    };
    let [x_elem, y_elem] = problem.elems;
    let shapes =
        [(0, g.c_in, problem.input), (1, g.c_out, output)].map(|(side, channels, size)| {
            let size = &size[3 - g.axes..];
            problem.layouts[side].shape(problem.batch, channels, size)
        });
    let x = add("input", &shapes[0], x_elem);
    let mut in_f32 = |name, shape: &[usize]| Some(add(name, shape, Elem::F32));
    let given = match problem.attention {
        AttentionSource::Given(_) => {
            in_f32("attention", &[problem.batch, problem.attention_row().stride])
        }
        AttentionSource::Map(_) => {
            in_f32("attention", &[problem.batch, g.kernels, problem.map_size(output)])
        }
        AttentionSource::SampleWeights => {
            in_f32("per-sample kernels", &[problem.batch, problem.row()])
        }
        AttentionSource::Branch(Branch { context: Some(width), .. }) => {
            in_f32("context", &[problem.batch, width])
        }
        AttentionSource::Static | AttentionSource::Branch(_) => None,
    };
    let mut weights = Weights::default();
    if problem.epilogue.affine {
        weights.affine = in_f32("scale and shift", &[2, g.c_out]);
    }
    if let AttentionSource::Branch(branch) = problem.attention {
        let inputs = branch.context.unwrap_or(g.c_in);
        let width = branch.hidden.unwrap_or(inputs);
        let hidden = branch.hidden.map(|hidden| [inputs + 1, hidden]);
        weights.hidden = hidden.and_then(|s| in_f32("hidden weights of the attention", &s));
        let logits = match branch.mixing {
            // Each run has a zero cell, whose attention is dropped.
            Mixing::Cells(cells) => cells.per_kernel(g) * (cells.count + 1),
            _ => problem.attention_row().stride,
        };
        weights.heads = in_f32("head weights of the attention", &[width + 1, logits]);
        weights.temperature = in_f32("temperature", &[1]);
    }
    if problem.attention == AttentionSource::SampleWeights {
        // Each sample's kernel was given.
    } else if problem.shares_kernel() {
        weights.shared = in_f32("kernel", &[problem.row()]);
    } else {
        if problem.has_bias {
            weights.bias = in_f32("bias bank", &[g.kernels, g.c_out]);
        }
        let bank = match problem.attention {
            AttentionSource::Branch(Branch { mixing: Mixing::Cells(cells), .. }) => {
                [cells.count, cells.elements()]
            }
            _ => [g.kernels, g.kernel_len(problem.order)],
        };
        weights.bank = Some(add("kernel bank", &bank, g.bank));
    }
    let residual = problem.epilogue.residual.then(|| add("residual", &shapes[1], y_elem));
    let y = add("output", &shapes[1], y_elem);
    Operands { x, given, residual, weights, y }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let g = &self.problem.geometry;
        let axes = |v: [usize; 3]| {
            let sizes: Vec<String> = v[3 - g.axes..].iter().map(ToString::to_string).collect();
            sizes.join("x")
        };
        writeln!(
            f,
            "{} -> {} channels, kernel {}, stride {}, groups {}, K {}, batch {}: {} -> {}",
            g.c_in,
            g.c_out,
            axes(g.kernel),
            axes(g.stride),
            g.groups,
            g.kernels,
            self.problem.batch,
            axes(self.problem.input),
            axes(self.output),
        )?;
        writeln!(f, "{} because: {}", self.conv.name(), self.why)?;
        if !self.missing.is_empty() {
            let names: Vec<&str> = self.missing.iter().map(|missing| missing.name).collect();
            writeln!(
                f,
                "slower than need be, if the adapter has {}: without, there are no {} \
                 (Context::device_descriptor asks for them)",
                names.join(" and "),
                self.missing[0].needed_for,
            )?;
        }
        if self.mix().is_some() {
            writeln!(
                f,
                "kernels are mixed as they are loaded: too few positions to store them for"
            )?;
        }
        if let Some(channels) = self.split {
            let slices = self.slices();
            write!(f, "sums are split in {slices} slices of {channels} input channels: ")?;
            match self.problem.algorithm {
                Algorithm::SplitK => writeln!(f, "asked for")?,
                _ => writeln!(f, "a sample has too few tiles for every core")?,
            }
        }
        if self.chunk < self.problem.batch {
            writeln!(
                f,
                "in chunks of {} samples, so that every value fits one binding",
                self.chunk
            )?;
        }
        for dispatch in self.dispatches() {
            writeln!(f, "  {dispatch}")?;
        }
        write!(f, "scratch memory {} B", self.scratch_bytes())
    }
}
