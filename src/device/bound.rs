//! Dispatches bound to their tensors, ready to be recorded.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::device::{Context, Tensor};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::{Dispatch, Slice, Value, X_WIDTH, Y_WIDTH};
use crate::program::{Memory, Program};

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
    program: Arc<Program>,
    /// The memory of each value that has any.
    tensors: Vec<Option<Tensor>>,
    steps: Vec<Step>,
    output: (Value, Tensor),
    attention: Option<Value>,
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
            .field("output", self.output())
            .field("attention", &self.attention())
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

    /// What each storage binding takes a slice of.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The same step on the new tensors of its values.
    fn rebound(&self, context: &Context, new: &[Option<Tensor>]) -> Result<Self> {
        let values = self.dispatch.slices.iter().map(|slice| slice.value);
        let tensors = values
            .zip(&self.tensors)
            .map(|(value, old)| new[value.index()].clone().unwrap_or_else(|| old.clone()));
        let tensors: Vec<Tensor> = tensors.collect();
        if tensors.iter().zip(&self.tensors).all(|(new, old)| new.is_same(old)) {
            return Ok(self.clone());
        }
        let placed = Placed::new(context, Dispatch::clone(&self.dispatch), tensors);
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
    /// Binds a program to the tensors of its external values, and to scratch memory of its own.
    /// For an empty output nothing runs.
    pub(crate) fn new(
        context: &Context,
        program: Program,
        mut tensors: Vec<Option<Tensor>>,
        output: (Value, Tensor),
        attention: Option<Value>,
    ) -> Result<Self> {
        tensors.resize(program.values().len(), None);
        check_homes(context, &program, &tensors)?;
        check_aliases(&program, &tensors)?;
        let is_empty = output.1.is_empty();
        if !is_empty {
            program.check_written()?;
            add_scratch(context, &program, &mut tensors)?;
        }
        if let Some(attention) = attention.filter(|value| tensors[value.index()].is_none()) {
            let info = program.info(attention)?;
            let tensor = Tensor::new(context, attention.name(), &info.shape, info.elem)?;
            tensors[attention.index()] = Some(tensor);
        }
        let place = |dispatch: &Dispatch| {
            let tensor = |slice: &Slice| {
                let tensor = tensors[slice.value.index()].clone();
                tensor.map_or_else(|| Err(program.info(slice.value)?.is_missing()), Ok)
            };
            let tensors = dispatch.slices.iter().map(tensor).collect::<Result<_>>()?;
            Ok(Placed::new(context, dispatch.clone(), tensors))
        };
        let dispatches = program.steps().iter().filter(|_| !is_empty);
        let placed = dispatches.map(place).collect::<Result<Vec<_>>>()?;
        let steps = if placed.is_empty() { Vec::new() } else { steps(context, placed)? };
        Ok(Self {
            context: context.clone(),
            program: Arc::new(program),
            tensors,
            steps,
            output,
            attention,
        })
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
        let mut tensors = self.tensors.clone();
        for (bound, other) in replaced {
            for value in self.replaceable(bound, other)? {
                tensors[value.index()] = Some((*other).clone());
            }
        }
        check_aliases(&self.program, &tensors)?;
        let steps = self.steps.iter().map(|step| step.rebound(&self.context, &tensors));
        let steps = self
            .context
            .scoped("the bindings of other tensors", || steps.collect::<Result<Vec<_>>>())??;
        let (value, output) = &self.output;
        let output = tensors[value.index()].as_ref().unwrap_or(output);
        Ok(Self { output: (*value, output.clone()), tensors, steps, ..self.clone() })
    }

    /// The values that are bound to a tensor, which another may take the place of.
    fn replaceable(&self, bound: &Tensor, other: &Tensor) -> Result<Vec<Value>> {
        let externals: Vec<_> = externals(&self.program, &self.tensors).collect();
        let same = externals.iter().filter(|(_, tensor)| tensor.is_same(bound));
        let values: Vec<Value> = same.map(|(value, _)| *value).collect();
        let Some(name) = values.first().map(|value| value.name()) else {
            return Err(Error::Value {
                what: "tensor to replace".into(),
                needed: "one that is bound".into(),
                found: format!("another one, {bound:?}"),
            });
        };
        if externals.iter().any(|(_, one)| one.overlaps(bound) && !one.is_same(bound)) {
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
        Ok(values)
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
        &self.output.1
    }

    /// Attention rows `[batch, row]` of the last recording that ran; see
    /// [`Problem::attention_row`](crate::problem::Problem::attention_row) for what stands where.
    /// `None` for a static convolution, and for programs of several layers.
    #[must_use]
    pub fn attention(&self) -> Option<&Tensor> {
        self.attention.and_then(|value| self.tensors[value.index()].as_ref())
    }

    /// A value that outlives a run: one of the caller's tensors, or scratch memory that is kept
    /// ([`Builder::keep`](crate::device::Builder::keep)).
    #[must_use]
    pub fn kept(&self, value: Value) -> Option<&Tensor> {
        let info = self.program.info(value).ok()?;
        self.tensors[value.index()].as_ref().filter(|_| info.memory != Memory::Scratch)
    }

    /// Values and steps.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Values that are scratch memory, and where they lie.
    pub fn scratch(&self) -> impl Iterator<Item = (Value, &Tensor)> {
        held(&self.program, &self.tensors)
            .filter(|(memory, ..)| *memory != Memory::External)
            .map(|(_, value, tensor)| (value, tensor))
    }

    /// What runs, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Values that have memory.
fn held<'a>(
    program: &'a Program,
    tensors: &'a [Option<Tensor>],
) -> impl Iterator<Item = (Memory, Value, &'a Tensor)> {
    let both = program.values().iter().zip(tensors);
    both.filter_map(|(info, tensor)| Some((info.memory, info.value, tensor.as_ref()?)))
}

/// Values that are tensors of the caller's.
fn externals<'a>(
    program: &'a Program,
    tensors: &'a [Option<Tensor>],
) -> impl Iterator<Item = (Value, &'a Tensor)> {
    let external =
        |(memory, value, tensor)| (memory == Memory::External).then_some((value, tensor));
    held(program, tensors).filter_map(external)
}

/// Makes scratch memory.
fn add_scratch(context: &Context, program: &Program, tensors: &mut [Option<Tensor>]) -> Result<()> {
    let arena = program.arena(context.caps());
    let make = |&bytes: &u64| Tensor::memory(context, "scratch memory", bytes);
    let buffers = arena.buffers().iter().map(make).collect::<Result<Vec<_>>>()?;
    for place in arena.places() {
        let info = program.info(place.value)?;
        let buffer = &buffers[place.buffer];
        tensors[place.value.index()] =
            Some(Tensor::within(context, buffer, place.offset, &info.shape, info.elem));
    }
    Ok(())
}

/// Refuses tensors of another device.
fn check_homes(context: &Context, program: &Program, tensors: &[Option<Tensor>]) -> Result<()> {
    let mut all = externals(program, tensors);
    all.try_for_each(|(value, tensor)| context.home().check(value.name(), tensor.home()))
}

pub(crate) fn check_elem(what: &str, found: Elem, expected: Elem) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let what = format!("element type of the {what}");
    Err(Error::Shape { what, expected: format!("{expected:?}"), found: format!("{found:?}") })
}

/// Refuses a tensor that is written and shares its buffer with another of the caller's, and one
/// that lies in scratch memory. WebGPU forbids the first within a dispatch, even in ranges that do
/// not meet. Here both are refused for a whole program, so that what is refused does not depend on
/// the kernels that were chosen.
fn check_aliases(program: &Program, tensors: &[Option<Tensor>]) -> Result<()> {
    let mut is_written = vec![false; tensors.len()];
    for step in program.steps() {
        let storage = step.variant.kernel.def().storage;
        for (slice, written) in step.slices.iter().zip(storage) {
            is_written[slice.value.index()] |= written;
        }
    }
    let all: Vec<_> = externals(program, tensors).collect();
    let scratch = || held(program, tensors).filter(|(memory, ..)| *memory != Memory::External);
    for (value, tensor) in &all {
        if let Some((_, own, _)) = scratch().find(|(.., own)| own.buffer() == tensor.buffer()) {
            let [output, input] = [own, *value].map(Value::name);
            return Err(Error::AliasedBuffers { output, input });
        }
    }
    for (output, written) in all.iter().filter(|(value, _)| is_written[value.index()]) {
        let shares = |(value, tensor): &&(Value, &Tensor)| {
            value != output && tensor.buffer() == written.buffer()
        };
        if let Some((input, _)) = all.iter().find(shares) {
            let [output, input] = [output, input].map(|value| value.name());
            return Err(Error::AliasedBuffers { output, input });
        }
    }
    Ok(())
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
    /// Rounds offsets down to the device's alignment; what that leaves over are the base elements,
    /// the first words of the parameters.
    fn new(context: &Context, mut dispatch: Dispatch, tensors: Vec<Tensor>) -> Self {
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
