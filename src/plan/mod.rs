//! The planner: problem and caps in, dispatches out. It touches no GPU object, so it can be asked
//! what would run anywhere.

mod choose;

use std::fmt;
use std::ops::Range;

use crate::caps::{Caps, Missing};
use crate::elem::Elem;
use crate::error::{Error, Result, Unit};
use crate::kernels::attention_mlp::Head;
use crate::kernels::conv::{ConvKernel, ConvTask, Mix, SplitTask, Stage};
use crate::kernels::{
    Dispatch, Kernel, Operand, Slice, aggregate, aggregate_wide, attention_mlp, average_pool,
    binding_limit, sum_slices, winograd_input, winograd_output,
};
use crate::problem::{
    self, Algorithm, AttentionRow, AttentionSource, Branch, Layout, Mixing, Problem, WeightOrder,
    Winograd, product,
};

/// What will run, in order, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    problem: Problem,
    output: [usize; 3],
    part: usize,
    dispatches: Vec<Dispatch>,
    conv: Kernel,
    /// Input channels of each part, where the sum is split among workgroups.
    split: Option<usize>,
    why: String,
    missing: Vec<Missing>,
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
        let (summed, map) = problem.summed(output);
        let (conv, why) = choose::choose(&summed, map, caps);
        // What a device cannot run at all is said before what a kernel cannot compute.
        conv.check_lanes(caps)?;
        conv.accepts(&summed, map)?;
        let why = match problem.geometry.winograd {
            Some(winograd) => format!("products of minimal filtering, {winograd}; {why}"),
            None => why,
        };
        let (part, dispatches) = (problem.batch, Vec::new());
        let missing = Vec::new();
        let mut plan =
            Self { problem: *problem, output, part, dispatches, conv, split: None, why, missing };
        plan.split = plan.split(caps)?;
        let weights =
            if problem.shares_kernel() || plan.mix().is_some() { 0 } else { problem.row() };
        let sums = product(&[plan.parts(), summed.geometry.c_out, product(&map)]);
        let part = samples_per_part(problem, output, [weights, sums], caps)?;
        plan.part = part;
        for first in (0..problem.batch).step_by(part) {
            plan.push_part(first, part.min(problem.batch - first), caps)?;
        }
        if problem.batch == 0 {
            // What is refused for one sample is refused for none, which is all that there is to
            // find out.
            plan.push_part(0, 1, caps)?;
            plan.dispatches.clear();
        }
        plan.missing = plan.missing_of(caps);
        Ok(plan)
    }

    /// What of the device is missing, if other variants would run with it.
    fn missing_of(&self, caps: &Caps) -> Vec<Missing> {
        let missing = caps.missing();
        if missing.is_empty() {
            return missing;
        }
        let variants =
            |plan: &Self| plan.dispatches.iter().map(|d| d.variant.clone()).collect::<Vec<_>>();
        match Self::new(&self.problem, &caps.fuller()) {
            Ok(fuller) if variants(&fuller) != variants(self) => missing,
            _ => Vec::new(),
        }
    }

    /// The same plan for another reason.
    pub(crate) fn because(self, why: &str) -> Self {
        Self { why: why.into(), ..self }
    }

    fn push_part(&mut self, first: usize, batch: usize, caps: &Caps) -> Result<()> {
        let problem = self.problem;
        let geometry = &problem.geometry;
        let row = problem.attention_row();
        if let AttentionSource::Branch(branch) = problem.attention {
            let size = problem.input.iter().product();
            let mlp = attention_mlp::Mlp {
                channels: geometry.c_in,
                hidden: branch.hidden,
                outputs: row.stride,
                head: match branch.mixing {
                    Mixing::Softmax if branch.parts.mix => {
                        Head::Softmax { kernels: geometry.kernels }
                    }
                    Mixing::Cells(cells) => {
                        Head::Signed { runs: cells.per_kernel(geometry), kernels: cells.count }
                    }
                    _ => Head::Sigmoid,
                },
            };
            self.dispatches.extend(attention(
                &mlp,
                size,
                (problem.layouts[0], problem.elems[0]),
                first,
                batch,
                caps,
            )?);
        }
        let shared = problem.shares_kernel();
        // Weights in blocks take no gains of channels and filters, which would be a load each: the
        // convolution applies them, channel gains to the input as it is loaded, filter
        // gains to the sum. Those of minimal filtering take none either.
        let leaves_gains =
            shared || problem.order == WeightOrder::Blocked || geometry.winograd.is_some();
        let given_weights = problem.attention == AttentionSource::SampleWeights;
        let mix = self.mix();
        if !shared && !given_weights && mix.is_none() {
            let cells = match problem.attention {
                AttentionSource::Branch(Branch { mixing: Mixing::Cells(cells), .. }) => Some(cells),
                _ => None,
            };
            self.dispatches.push(match aggregate_wide::can_compute(&problem, caps) {
                true => aggregate_wide::dispatch(&problem, row, first, batch, caps)?,
                false => {
                    let folded = if leaves_gains {
                        AttentionRow { channel: None, filter: None, ..row }
                    } else {
                        row
                    };
                    aggregate::dispatch(&problem, folded, cells, first, batch, caps)?
                }
            });
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
            // Aggregated rows are scratch and begin anew with every part of the batch.
            first_weights: if given_weights { first } else { 0 },
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
            operands: [Operand::Input, Operand::Output],
            layouts: problem.layouts,
            elems: problem.elems,
        };
        match geometry.winograd {
            Some(winograd) => self.push_filtered(task, winograd, caps),
            None => self.push_sum(task, caps),
        }
    }

    /// Tiles of the input, their products with the kernels, and the outputs that these make.
    fn push_filtered(&mut self, task: ConvTask<'_>, winograd: Winograd, caps: &Caps) -> Result<()> {
        self.dispatches.push(winograd_input::dispatch(&task, winograd, caps)?);
        let (summed, tiles) = self.problem.summed(self.output);
        let products = ConvTask {
            channels: 0..summed.geometry.c_in / summed.geometry.groups,
            geometry: &summed.geometry,
            input: tiles,
            output: tiles,
            operands: [Operand::TileInputs, Operand::TileProducts],
            ..task.begun().ended()
        };
        self.push_sum(products, caps)?;
        self.dispatches.push(winograd_output::dispatch(&task, winograd, caps)?);
        Ok(())
    }

    /// The convolution, over as many parts of the input channels as the driver needs.
    fn push_sum(&mut self, mut task: ConvTask<'_>, caps: &Caps) -> Result<()> {
        if let Some(channels) = self.split {
            self.dispatches.push(convolution(self.conv).launch(&task.in_parts(channels), caps)?);
            self.dispatches.push(sum_slices::dispatch(&task.total(channels), caps)?);
            return Ok(());
        }
        let parts = self.channel_parts(&task, caps);
        if parts.len() > 1 && task.elems[1] != Elem::F32 {
            return Err(Error::Unsupported {
                what: format!("an output of {:?}", task.elems[1]),
                because: "the sum takes several dispatches on this driver, \
                          and would be rounded after each"
                    .into(),
            });
        }
        for channels in parts {
            task.channels = channels;
            self.dispatches.push(convolution(self.conv).launch(&task, caps)?);
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

    /// Parts of the sum, each of which is stored; 0 where it is not split.
    fn parts(&self) -> usize {
        let summed = self.problem.geometry.summed();
        self.split.map_or(0, |channels| (summed.c_in / summed.groups).div_ceil(channels))
    }

    /// Input channels of a group in as few parts as the driver's loop limit allows. A dispatch sums
    /// over one part.
    fn channel_parts(&self, task: &ConvTask<'_>, caps: &Caps) -> Vec<Range<usize>> {
        let channels = task.channels.end;
        let fits = |parts: usize| {
            let task = ConvTask { channels: 0..channels.div_ceil(parts), ..task.clone() };
            let iterations = convolution(self.conv).iterations(&task, caps);
            iterations <= u64::from(caps.max_loop_iterations)
        };
        let mut parts = 1;
        while parts < channels && !fits(parts) {
            parts *= 2;
        }
        let part = channels.div_ceil(parts);
        (0..channels).step_by(part).map(|first| first..channels.min(first + part)).collect()
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
        &self.dispatches
    }

    /// The dispatches alone.
    #[must_use]
    pub fn into_dispatches(self) -> Vec<Dispatch> {
        self.dispatches
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

    /// Samples that run together; a batch whose operands pass the binding limit runs in parts, one
    /// after another.
    #[must_use]
    pub fn samples_per_part(&self) -> usize {
        self.part
    }

    /// Scratch operands and their elements: what the layer allocates beside its weights, input and
    /// output. The attention that a branch computes is one of them.
    #[must_use]
    pub fn scratch(&self) -> Vec<(Operand, u64)> {
        let is_scratch = |operand: Operand| match operand {
            Operand::Means | Operand::Partials => true,
            Operand::SampleWeights => {
                !self.problem.shares_kernel()
                    && self.problem.attention != AttentionSource::SampleWeights
            }
            Operand::Attention => matches!(self.problem.attention, AttentionSource::Branch(_)),
            Operand::TileInputs | Operand::TileProducts => true,
            _ => false,
        };
        let end = |operand: Operand| {
            let slices = self.dispatches.iter().flat_map(|d| &d.slices);
            slices.filter(|s| s.operand == operand).map(|s| s.start + s.len).max()
        };
        let operands = [
            Operand::Means,
            Operand::SampleWeights,
            Operand::Attention,
            Operand::Partials,
            Operand::TileInputs,
            Operand::TileProducts,
        ];
        let operands = operands.into_iter().filter(|&operand| is_scratch(operand));
        operands.filter_map(|operand| end(operand).map(|elements| (operand, elements))).collect()
    }

    /// Bytes of the scratch operands.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch().iter().map(|(_, elements)| 4 * elements).sum()
    }

    /// Multiplications and additions of the static convolution of this shape.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.problem.geometry.flops(self.problem.batch, self.problem.input, self.output)
    }
}

/// How the kernel of a plan convolves.
fn convolution(kernel: Kernel) -> &'static dyn ConvKernel {
    kernel.convolution().expect("a plan's convolution is one")
}

/// Samples whose operands each fit one binding and one 32-bit index, at least 1; `scratch` is how
/// many elements of stored kernels and of partial sums each has.
fn samples_per_part(
    problem: &Problem,
    output: [usize; 3],
    scratch: [usize; 2],
    caps: &Caps,
) -> Result<usize> {
    let g = &problem.geometry;
    let map = problem.map_size(output).saturating_mul(g.kernels);
    let attention = problem.attention_row().stride.saturating_add(map);
    let (summed, tiles) = problem.summed(output);
    let of_tiles = |channels: usize| {
        if g.winograd.is_some() { product(&tiles).saturating_mul(channels) } else { 0 }
    };
    let per_sample = [
        (Operand::Input, product(&problem.input).saturating_mul(g.c_in)),
        (Operand::SampleWeights, scratch[0]),
        (Operand::Partials, scratch[1]),
        (Operand::Attention, attention),
        (Operand::TileInputs, of_tiles(summed.geometry.c_in)),
        (Operand::TileProducts, of_tiles(summed.geometry.c_out)),
        (Operand::Output, product(&output).saturating_mul(g.c_out)),
    ];
    // Half the range of 32-bit indices, so that no kernel's rounding up to whole tiles can pass it.
    let available = binding_limit(caps).min(1 << 33);
    let batch = problem.batch.max(1);
    let mut part = batch;
    for (operand, elements) in per_sample {
        let bytes = (elements as u64).saturating_mul(4);
        if bytes > available {
            return Err(Error::Limit {
                limit: "max_storage_buffer_binding_size",
                unit: Unit::Bytes,
                what: format!("the {} of one sample", operand.name()),
                needed: bytes,
                available,
                remedy: "request the device with a larger limit, or use a smaller layer".into(),
            });
        }
        let fit = available.checked_div(bytes).unwrap_or(u64::MAX);
        part = part.min(usize::try_from(fit).unwrap_or(usize::MAX));
    }
    for (operand, elements) in per_sample.into_iter().filter(|(operand, _)| !operand.begins_anew())
    {
        let needed = (elements as u64).saturating_mul(4).saturating_mul(problem.batch as u64);
        if needed > caps.max_buffer {
            return Err(Error::Limit {
                limit: "max_buffer_size",
                unit: Unit::Bytes,
                what: format!("the {} of the batch", operand.name()),
                needed,
                available: caps.max_buffer,
                remedy: "use a smaller batch".into(),
            });
        }
    }
    // Even parts, so that the last is not a sliver.
    Ok(batch.div_ceil(batch.div_ceil(part)))
}

/// Pooling and attention of `batch` samples from `first` on.
pub(crate) fn attention(
    mlp: &attention_mlp::Mlp,
    size: usize,
    (layout, elem): (Layout, Elem),
    first: usize,
    batch: usize,
    caps: &Caps,
) -> Result<[Dispatch; 2]> {
    let pool = average_pool::Pool::global(mlp.channels, size, layout);
    let [x, means] = pool.slices(first, batch);
    Ok([
        pool.dispatch([x, Slice { start: 0, ..means }], batch, elem, caps)?,
        mlp.dispatch(first, batch, caps)?,
    ])
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
            let parts = self.parts();
            write!(f, "sums are split in {parts} slices of {channels} input channels: ")?;
            match self.problem.algorithm {
                Algorithm::SplitK => writeln!(f, "asked for")?,
                _ => writeln!(f, "a sample has too few tiles for every core")?,
            }
        }
        if self.part < self.problem.batch {
            writeln!(
                f,
                "in parts of {} samples, so that every operand fits one binding",
                self.part
            )?;
        }
        for dispatch in &self.dispatches {
            writeln!(f, "  {dispatch}")?;
        }
        write!(f, "scratch memory {} B", self.scratch_bytes())
    }
}
