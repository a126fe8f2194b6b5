//! Dispatches bound to their tensors, ready to be recorded.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use crate::device::{Context, Tensor};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::{Dispatch, Operand, X_WIDTH, Y_WIDTH};
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
    steps: Vec<Step>,
    output: Tensor,
    attention: Option<Tensor>,
}

/// One dispatch of a [`Bound`], with all that its shader gets to see.
#[derive(Clone)]
pub struct Step {
    dispatch: Dispatch,
    bindings: Vec<(wgpu::Buffer, Range<u64>)>,
    pipeline: wgpu::ComputePipeline,
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
        let mut steps = Vec::with_capacity(dispatches.len());
        if !operands[&output].is_empty() {
            let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
            let params =
                context.buffer("parameters", dispatches.len() as u64 * PARAMS_STRIDE, usage)?;
            for (dispatch, block) in dispatches.into_iter().zip(0..) {
                steps.push(step(context, dispatch, operands, &params, block * PARAMS_STRIDE)?);
            }
        }
        let output = operands[&output].clone();
        let attention = operands.get(&Operand::Attention).cloned();
        Ok(Self { steps, output, attention })
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

/// WebGPU forbids a buffer that is read and written in one dispatch, even in ranges that do not
/// meet.
fn check_aliases(operands: &HashMap<Operand, Tensor>, output: Operand) -> Result<()> {
    let written = operands[&output].buffer();
    let shares = |(&operand, tensor): (&Operand, &Tensor)| {
        (operand != output && tensor.buffer() == written).then_some(operand)
    };
    if let Some(input) = operands.iter().filter_map(shares).map(Operand::name).min() {
        return Err(Error::AliasedBuffers { output: output.name(), input });
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

fn step(
    context: &Context,
    mut dispatch: Dispatch,
    operands: &HashMap<Operand, Tensor>,
    params: &wgpu::Buffer,
    offset: u64,
) -> Result<Step> {
    let mut bindings = Vec::with_capacity(dispatch.slices.len());
    for (slice, word) in dispatch.slices.iter().zip(dispatch.params.chunks_exact_mut(4)) {
        let tensor = &operands[&slice.operand];
        let bytes = tensor.elem().bytes();
        let start = tensor.range().start + slice.start * bytes;
        let slack = u32::try_from(start % u64::from(context.caps().storage_alignment)).unwrap_or(0);
        let aligned = start - u64::from(slack);
        // The base element: what rounding the offset down left over.
        word.copy_from_slice(&(slack / if bytes == 2 { 2 } else { 4 }).to_ne_bytes());
        // A binding that is read in pairs holds one at least.
        let least = if dispatch.variant.kernel.def().lanes { 8 } else { 4 };
        let size = (u64::from(slack) + slice.len * bytes).next_multiple_of(4).max(least);
        bindings.push((tensor.buffer().clone(), aligned..aligned + size));
    }
    narrow(&mut dispatch);
    let pipeline = context.pipeline(&dispatch.variant)?;
    // Each Bound has parameters of its own, written once: recordings cannot overwrite each other's.
    context.scoped("a write to the parameters", || {
        context.queue().write_buffer(params, offset, &dispatch.params)
    })?;
    let block = offset..offset + dispatch.params.len() as u64;
    let resources = std::iter::once((params, &block))
        .chain(bindings.iter().map(|(buffer, range)| (buffer, range)));
    let entries: Vec<_> = (0..)
        .zip(resources)
        .map(|(binding, (buffer, range))| {
            let size = std::num::NonZeroU64::new(range.end - range.start);
            let range = wgpu::BufferBinding { buffer, offset: range.start, size };
            wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(range) }
        })
        .collect();
    let name = dispatch.variant.kernel.name();
    let bind_group = context.scoped(&format!("the binding of {name}"), || {
        context.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(name),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    })?;
    Ok(Step { dispatch, bindings, pipeline, bind_group })
}
