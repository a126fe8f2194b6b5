//! Dispatches bound to their tensors, ready to be recorded.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::device::{Context, Tensor};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::{Dispatch, Operand, Slice, X_WIDTH, Y_WIDTH};
use crate::plan::Plan;
use crate::problem::AttentionSource;

/// A layer with everything it needs to run: pipelines, bind groups, parameters, scratch memory.
///
/// Recording allocates nothing of ours and creates no GPU object. A `Bound` may be recorded many
/// times, also twice into one encoder; recordings run one after another, as its scratch memory is
/// its own. The encoder must be of the device of the context that the layer was made with: wgpu
/// lets nobody ask an encoder whose it is, so that a mix shows when the encoder is finished at
/// best.
///
/// Of an empty batch there is nothing to run: such a `Bound` records nothing.
#[derive(Clone)]
pub struct Bound {
    context: Context,
    steps: Vec<Step>,
    output: Tensor,
    attention: Option<Tensor>,
}

/// One dispatch of a [`Bound`], with all that its shader gets to see.
#[derive(Clone)]
pub struct Step {
    dispatch: Arc<Dispatch>,
    /// What each storage binding takes a slice of.
    tensors: Vec<Tensor>,
    bindings: Vec<(wgpu::Buffer, Range<u64>)>,
    /// The parameter block, in binding 0.
    params: (wgpu::Buffer, Range<u64>),
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    bind_group: wgpu::BindGroup,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("steps", &self.steps)
            .field("output", &self.output)
            .field("attention", &self.attention)
            .finish()
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step {}", self.dispatch)
    }
}

impl Step {
    /// Variant, grid, and the parameter block as binding 0 holds it.
    #[must_use]
    pub fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    /// The compiled pipeline; its one bind group is number 0.
    #[must_use]
    pub fn pipeline(&self) -> &wgpu::ComputePipeline {
        &self.pipeline
    }

    /// Buffer and byte range of the storage bindings, from binding 1 on.
    #[must_use]
    pub fn bindings(&self) -> &[(wgpu::Buffer, Range<u64>)] {
        &self.bindings
    }

    /// What a tensor is to this step, if the step binds it.
    fn name_of(&self, tensor: &Tensor) -> Option<&'static str> {
        let mut bound = self.tensors.iter().zip(&self.dispatch.slices);
        bound.find(|(one, _)| one.is_same(tensor)).map(|(_, slice)| slice.operand.name())
    }

    /// The same step on what `new` makes of its tensors.
    fn rebound(&self, context: &Context, new: impl Fn(&Tensor) -> Tensor) -> Result<Self> {
        let tensors: Vec<Tensor> = self.tensors.iter().map(new).collect();
        if tensors.iter().zip(&self.tensors).all(|(new, old)| new.is_same(old)) {
            return Ok(self.clone());
        }
        self.check_aliases(&tensors)?;
        let placed = Placed::on(context, Dispatch::clone(&self.dispatch), tensors);
        if placed.dispatch != *self.dispatch {
            let [step] = <[Self; 1]>::try_from(steps(context, vec![placed])?)
                .unwrap_or_else(|_| unreachable!("a step is made of each dispatch"));
            return Ok(step);
        }
        let name = self.dispatch.variant.kernel.name();
        let bind_group = bind_group(context, name, &self.layout, &self.params, &placed.bindings);
        let Placed { tensors, bindings, .. } = placed;
        Ok(Self { tensors, bindings, bind_group, ..self.clone() })
    }

    /// WebGPU forbids a buffer that is read and written in one dispatch.
    fn check_aliases(&self, tensors: &[Tensor]) -> Result<()> {
        let storage = self.dispatch.variant.kernel.def().storage;
        let names = self.dispatch.slices.iter().map(|slice| slice.operand.name());
        let all = names.zip(tensors).zip(storage);
        let (written, read): (Vec<_>, Vec<_>) = all.partition(|(_, is_written)| **is_written);
        let read = || read.iter().map(|(tensor, _)| *tensor);
        written.iter().try_for_each(|(output, _)| refuse_alias(*output, read()))
    }

    /// Records this dispatch alone into the caller's compute pass: to time a part of a layer, for
    /// example.
    pub fn record_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.dispatch.grid;
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Parameter blocks lie this far apart in the uniform buffer: the largest alignment that WebGPU
/// allows a device to ask for.
const PARAMS_STRIDE: u64 = 256;

impl Bound {
    /// Binds dispatches to `operands`, of which `output` is written for the caller. For an empty
    /// output nothing runs.
    pub(crate) fn new(
        context: &Context,
        dispatches: Vec<Dispatch>,
        operands: &HashMap<Operand, Tensor>,
        output: Operand,
    ) -> Result<Self> {
        check_homes(context, operands)?;
        check_aliases(operands, output)?;
        check_elems(operands)?;
        let steps = if operands[&output].is_empty() {
            Vec::new()
        } else {
            let placed =
                dispatches.into_iter().map(|dispatch| Placed::new(context, dispatch, operands));
            steps(context, placed.collect())?
        };
        let output = operands[&output].clone();
        let attention = operands.get(&Operand::Attention).cloned();
        Ok(Self { context: context.clone(), steps, output, attention })
    }

    /// Several bindings as one, recorded in this order.
    pub(crate) fn chain(parts: Vec<Self>) -> Self {
        let mut parts = parts.into_iter();
        let mut chain = parts.next().expect("a chain has at least one part");
        for part in parts {
            chain.steps.extend(part.steps);
            chain.output = part.output;
            chain.attention = part.attention;
        }
        chain
    }

    /// The same work on other tensors: each second one takes the place of the first, which is
    /// bound. That is what a framework needs which has new buffers in every call.
    ///
    /// Pipelines, parameters and scratch memory are shared: only bind groups are new, one for each
    /// step that binds a tensor replaced. (A tensor that begins at another distance from the
    /// device's alignment takes parameters of its own, too.) Since scratch memory is shared,
    /// recordings of the two must run one after another, as those of one queue do.
    ///
    /// ```
    /// # fn f(context: &dynconv::Context, layer: &dynconv::StaticConv2d) -> dynconv::Result<()> {
    /// use dynconv::Tensor;
    ///
    /// let [x, next_x] = [(); 2].map(|()| Tensor::zeros(context, &[1, 8, 32, 32]));
    /// let [y, next_y] = [(); 2].map(|()| Tensor::zeros(context, &[1, 16, 32, 32]));
    /// let (x, next_x, y, next_y) = (x?, next_x?, y?, next_y?);
    /// let bound = layer.bind(&x, &y)?;
    /// let next = bound.rebind(&[(&x, &next_x), (&y, &next_y)])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] for a first tensor that is not bound, [`Error::Unsupported`] for one of
    /// which parts are, [`Error::Shape`] for a second one of another shape or element type,
    /// [`Error::OtherDevice`], [`Error::AliasedBuffers`], [`Error::OutOfMemory`].
    pub fn rebind(&self, replaced: &[(&Tensor, &Tensor)]) -> Result<Self> {
        for (bound, other) in replaced {
            self.check_replacement(bound, other)?;
        }
        let new = |tensor: &Tensor| {
            let pair = replaced.iter().find(|(bound, _)| bound.is_same(tensor));
            pair.map_or_else(|| tensor.clone(), |(_, other)| (*other).clone())
        };
        let steps = self.steps.iter().map(|step| step.rebound(&self.context, new));
        let steps = self
            .context
            .scoped("the bindings of other tensors", || steps.collect::<Result<Vec<_>>>())??;
        let output = new(&self.output);
        Ok(Self {
            context: self.context.clone(),
            steps,
            output,
            attention: self.attention.as_ref().map(new),
        })
    }

    fn check_replacement(&self, bound: &Tensor, other: &Tensor) -> Result<()> {
        let name = self.steps.iter().find_map(|step| step.name_of(bound));
        let is_empty = self.steps.is_empty() && self.output.is_same(bound);
        let Some(name) = name.or(is_empty.then_some(Operand::Output.name())) else {
            return Err(Error::Value {
                what: "tensor to replace".into(),
                needed: "one that is bound".into(),
                found: format!("another one, {bound:?}"),
            });
        };
        let bound_tensors = self.steps.iter().flat_map(|step| &step.tensors);
        if bound_tensors.into_iter().any(|one| one.overlaps(bound) && !one.is_same(bound)) {
            return Err(Error::Unsupported {
                what: format!("another {name}"),
                because: "a part of the one that is bound is bound on its own".into(),
            });
        }
        self.context.home().check(name, other.home())?;
        check_elem(name, other.elem(), bound.elem())?;
        if bound.shape() != other.shape() {
            return Err(Error::Shape {
                what: name.into(),
                expected: format!("{:?}", bound.shape()),
                found: format!("{:?}", other.shape()),
            });
        }
        Ok(())
    }

    /// Records the layer into a compute pass of its own.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let descriptor =
            wgpu::ComputePassDescriptor { label: Some("dynconv"), timestamp_writes: None };
        self.record_in(&mut encoder.begin_compute_pass(&descriptor));
    }

    /// Records the layer into the caller's compute pass.
    pub fn record_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        for step in &self.steps {
            step.record_in(pass);
        }
    }

    /// The tensor written.
    #[must_use]
    pub fn output(&self) -> &Tensor {
        &self.output
    }

    /// Attention rows `[batch, row]` of the last recording that ran; see
    /// [`Problem::attention_row`](crate::problem::Problem::attention_row) for what stands where.
    /// `None` for a static convolution.
    #[must_use]
    pub fn attention(&self) -> Option<&Tensor> {
        self.attention.as_ref()
    }

    /// What runs, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Binds a plan to the operands of its layer, and to scratch memory of its own.
pub(crate) fn bind_plan(
    context: &Context,
    plan: Plan,
    mut operands: HashMap<Operand, Tensor>,
) -> Result<Bound> {
    let problem = plan.problem();
    let mut scratch = |operand: Operand, shape: &[usize]| {
        Ok(operands.insert(operand, Tensor::new(context, operand.name(), shape, Elem::F32)?))
    };
    if matches!(problem.attention, AttentionSource::Branch(_)) {
        scratch(Operand::Attention, &[problem.batch, problem.attention_row().stride])?;
    }
    for (operand, elements) in
        plan.scratch().into_iter().filter(|(operand, _)| *operand != Operand::Attention)
    {
        scratch(operand, &[usize::try_from(elements).unwrap_or(usize::MAX)])?;
    }
    Bound::new(context, plan.into_dispatches(), &operands, Operand::Output)
}

/// Refuses operands of another device, naming the same one in every run.
fn check_homes(context: &Context, operands: &HashMap<Operand, Tensor>) -> Result<()> {
    let refusal = |(operand, tensor): (&Operand, &Tensor)| {
        context
            .home()
            .check(operand.name(), tensor.home())
            .err()
            .map(|error| (operand.name(), error))
    };
    operands
        .iter()
        .filter_map(refusal)
        .min_by_key(|(name, _)| *name)
        .map_or(Ok(()), |(_, error)| Err(error))
}

/// Kernels read and write f32 but for input, output, residual and bank, whose element type is part
/// of the variant.
fn check_elems(operands: &HashMap<Operand, Tensor>) -> Result<()> {
    for (&operand, tensor) in operands {
        if !matches!(operand, Operand::Input | Operand::Output | Operand::Residual | Operand::Bank)
        {
            check_elem(operand.name(), tensor.elem(), Elem::F32)?;
        }
    }
    Ok(())
}

pub(crate) fn check_elem(what: &str, found: Elem, expected: Elem) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let what = format!("element type of the {what}");
    Err(Error::Shape { what, expected: format!("{expected:?}"), found: format!("{found:?}") })
}

/// Whether the output shares a buffer with another operand.
fn check_aliases(operands: &HashMap<Operand, Tensor>, output: Operand) -> Result<()> {
    let read = operands.iter().filter(|(operand, _)| **operand != output);
    let read = read.map(|(operand, tensor)| (operand.name(), tensor));
    refuse_alias((output.name(), &operands[&output]), read)
}

/// WebGPU forbids a buffer that is read and written in one dispatch, even in ranges that do not
/// meet. Of several inputs the same is named in every run.
fn refuse_alias<'a>(
    (output, written): (&'static str, &Tensor),
    read: impl Iterator<Item = (&'static str, &'a Tensor)>,
) -> Result<()> {
    let shares = |(_, tensor): &(&str, &Tensor)| tensor.buffer() == written.buffer();
    match read.filter(shares).map(|(input, _)| input).min() {
        Some(input) => Err(Error::AliasedBuffers { output, input }),
        None => Ok(()),
    }
}

/// Loads and stores of several elements begin at multiples of them: fewer at once for an input (the
/// first operand) or output (the one that is written) that begins elsewhere.
fn narrow(dispatch: &mut Dispatch) {
    let written = dispatch.variant.kernel.def().storage;
    for ((i, word), &is_output) in dispatch.params.chunks_exact(4).enumerate().zip(written) {
        let base = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        match (i, is_output) {
            (0, _) => dispatch.variant.narrow(X_WIDTH, base),
            (_, true) => dispatch.variant.narrow(Y_WIDTH, base),
            _ => {}
        }
    }
}

/// A dispatch with the tensors that it binds, and where in their buffers.
struct Placed {
    dispatch: Dispatch,
    tensors: Vec<Tensor>,
    bindings: Vec<(wgpu::Buffer, Range<u64>)>,
}

impl Placed {
    fn new(context: &Context, dispatch: Dispatch, operands: &HashMap<Operand, Tensor>) -> Self {
        let tensors =
            dispatch.slices.iter().map(|slice| operands[&slice.operand].clone()).collect();
        Self::on(context, dispatch, tensors)
    }

    /// Rounds offsets down to the device's alignment; what that leaves over are the base elements,
    /// the first words of the parameters.
    fn on(context: &Context, mut dispatch: Dispatch, tensors: Vec<Tensor>) -> Self {
        // A binding that is read in pairs holds one at least.
        let least = if dispatch.variant.kernel.def().lanes { 8 } else { 4 };
        let alignment = u64::from(context.caps().storage_alignment);
        let words = dispatch.params.chunks_exact_mut(4);
        let place = |((slice, tensor), word): ((&Slice, &Tensor), &mut [u8])| {
            let bytes = tensor.elem().bytes();
            let start = tensor.range().start + slice.start * bytes;
            let slack = start % alignment;
            let base = u32::try_from(slack / if bytes == 2 { 2 } else { 4 }).unwrap_or(0);
            word.copy_from_slice(&base.to_ne_bytes());
            let size = (slack + slice.len * bytes).next_multiple_of(4).max(least);
            (tensor.buffer().clone(), start - slack..start - slack + size)
        };
        let bindings = dispatch.slices.iter().zip(&tensors).zip(words).map(place).collect();
        narrow(&mut dispatch);
        Self { dispatch, tensors, bindings }
    }
}

/// Makes what dispatches need, their parameters in one buffer. Each `Bound` has parameters of its
/// own, written once: recordings cannot overwrite each other's.
fn steps(context: &Context, placed: Vec<Placed>) -> Result<Vec<Step>> {
    let stride = usize::try_from(PARAMS_STRIDE).unwrap_or(usize::MAX);
    let mut blocks = vec![0; placed.len() * stride];
    for (block, one) in blocks.chunks_exact_mut(stride).zip(&placed) {
        block[..one.dispatch.params.len()].copy_from_slice(&one.dispatch.params);
    }
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let buffer = context.buffer("parameters", blocks.len() as u64, usage)?;
    context.scoped("a write to the parameters", || {
        context.queue().write_buffer(&buffer, 0, &blocks);
        // wgpu keeps what is written until something is submitted, and whoever binds without ever
        // submitting would see memory grow.
        context.queue().submit([]);
    })?;
    let step = |(placed, block): (Placed, u64)| {
        let Placed { dispatch, tensors, bindings } = placed;
        let pipeline = context.pipeline(&dispatch.variant)?;
        let first = block * PARAMS_STRIDE;
        let params = (buffer.clone(), first..first + dispatch.params.len() as u64);
        let name = dispatch.variant.kernel.name();
        let (layout, bind_group) = context.scoped(&format!("the binding of {name}"), || {
            // A lost device has no layouts.
            let layout = pipeline.get_bind_group_layout(0);
            let bind_group = bind_group(context, name, &layout, &params, &bindings);
            (layout, bind_group)
        })?;
        let dispatch = Arc::new(dispatch);
        Ok(Step { dispatch, tensors, bindings, params, pipeline, layout, bind_group })
    };
    placed.into_iter().zip(0..).map(step).collect()
}

fn bind_group(
    context: &Context,
    name: &str,
    layout: &wgpu::BindGroupLayout,
    params: &(wgpu::Buffer, Range<u64>),
    bindings: &[(wgpu::Buffer, Range<u64>)],
) -> wgpu::BindGroup {
    let resources = std::iter::once(params).chain(bindings);
    let entries: Vec<_> = (0..)
        .zip(resources)
        .map(|(binding, (buffer, range))| {
            let size = std::num::NonZeroU64::new(range.end - range.start);
            let range = wgpu::BufferBinding { buffer, offset: range.start, size };
            wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(range) }
        })
        .collect();
    let descriptor = wgpu::BindGroupDescriptor { label: Some(name), layout, entries: &entries };
    context.device().create_bind_group(&descriptor)
}
