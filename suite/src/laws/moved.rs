//! The same dispatches with every operand somewhere else: scratch memory and weights too, which the library itself always puts at the
//! beginning of a buffer.

use dynconv::{Const, Context, Elem, Operand, Slot, Step, Tensor, wgpu};
use wgpu::BufferUsages;

use super::{Trial, same_bits};
use crate::data::Numbers;
use crate::run::{Fault, Prepared};

/// Words that everything moves by: odd, but for the library's own weights, which kernels may load eight at a time.
fn shift(steps: &[Step], buffer: &wgpu::Buffer) -> u64 {
    let operands = steps.iter().flat_map(|step| step.dispatch().slices.iter().zip(step.bindings()));
    let of_weights = |operand| matches!(operand, Operand::Rows | Operand::Bank);
    let mut own = operands.filter(|(slice, (bound, _))| bound == buffer && of_weights(slice.operand));
    // Nor may an input or output of which several elements are loaded or stored at once, which was decided when it was bound.
    let is_wide = |(name, value): &(&str, Const)| ["X_WIDTH", "Y_WIDTH"].contains(name) && *value != Const::U32(1);
    let is_wide = steps.iter().any(|step| step.dispatch().variant.consts.iter().any(is_wide));
    if own.next().is_some() || is_wide { 8 } else { 7 }
}

/// Words behind every operand, inside its binding.
const BEHIND: u64 = 67;
/// A NaN: whoever reads it shows it.
const POISON: u32 = 0x7fc0_dead;

/// A buffer that has moved.
struct Moved {
    from: wgpu::Buffer,
    to: wgpu::Buffer,
    /// Words that it moved by.
    shift: u64,
}

pub(super) fn moved(trial: &Trial<'_>) -> Result<(), Fault> {
    let data = trial.data(Numbers::Floats)?;
    let expected = trial.y(&data)?;
    let prepared = Prepared::new(trial.context, trial.spec, &data)?;
    let context = prepared.context();
    let buffers = move_all(context, prepared.bound.steps())?;
    let before = guards(context, &prepared, &buffers)?;
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for step in prepared.bound.steps() {
            let [x, y, z] = step.dispatch().grid;
            pass.set_pipeline(step.pipeline());
            pass.set_bind_group(0, &bind(context, step, &buffers), &[]);
            pass.dispatch_workgroups(x, y, z);
        }
    }
    context.queue().submit([encoder.finish()]);

    let output = prepared.output();
    let moved = find(&buffers, output.buffer());
    let place = output.range().start + 4 * moved.shift;
    let y = Tensor::wrap_in(context, &moved.to, place, output.shape(), output.elem())?.read_blocking(context)?;
    same_bits("with every operand moved", &y, &expected)?;
    if guards(context, &prepared, &buffers)? != before {
        return Err(Fault::Wrong("something was written beside the operands of a dispatch".into()));
    }
    Ok(())
}

fn find<'a>(buffers: &'a [Moved], from: &wgpu::Buffer) -> &'a Moved {
    let moved = buffers.iter().find(|moved| moved.from == *from);
    moved.unwrap_or_else(|| unreachable!("every buffer that is bound was moved"))
}

/// Copies every buffer that is bound into the middle of a larger one.
fn move_all(context: &Context, steps: &[Step]) -> Result<Vec<Moved>, Fault> {
    let mut buffers: Vec<Moved> = Vec::new();
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for (from, _) in steps.iter().flat_map(Step::bindings) {
        if buffers.iter().any(|moved| moved.from == *from) {
            continue;
        }
        let shift = shift(steps, from);
        let size = from.size() + 4 * (shift + BEHIND);
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: Some("moved"), size, usage, mapped_at_creation: false };
        let to = context.device().create_buffer(&descriptor);
        let words = usize::try_from(size / 4).unwrap_or(usize::MAX);
        let poison: Vec<u8> = std::iter::repeat_n(POISON.to_le_bytes(), words).flatten().collect();
        context.queue().write_buffer(&to, 0, &poison);
        encoder.copy_buffer_to_buffer(from, 0, &to, 4 * shift, from.size());
        buffers.push(Moved { from: from.clone(), to, shift });
    }
    context.queue().submit([encoder.finish()]);
    Ok(buffers)
}

/// Element type of an operand in a dispatch.
fn elem(step: &Step, operand: Operand) -> Elem {
    let slot = match operand {
        Operand::Input => Slot::X,
        Operand::Output | Operand::Residual => Slot::Y,
        Operand::Bank => Slot::Bank,
        _ => return Elem::F32,
    };
    let variant = &step.dispatch().variant;
    let elems = variant.kernel.def().slots.iter().zip(&variant.elems);
    elems.into_iter().find(|(own, _)| **own == slot).map_or(Elem::F32, |(_, elem)| *elem)
}

/// The bindings of a dispatch where its operands are now. Each begins where it did, reaches as far past its operand as the buffer does,
/// and its base, a word of the parameters, grows by the shift.
fn bind(context: &Context, step: &Step, buffers: &[Moved]) -> wgpu::BindGroup {
    let mut params = step.dispatch().params.clone();
    let bound = step.dispatch().slices.iter().zip(step.bindings());
    for ((slice, (from, _)), word) in bound.zip(params.chunks_exact_mut(4)) {
        let base = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let shift = 4 * find(buffers, from).shift / elem(step, slice.operand).bytes();
        word.copy_from_slice(&(base + u32::try_from(shift).unwrap_or(0)).to_le_bytes());
    }
    let uniform = context.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("moved parameters"),
        size: params.len() as u64,
        usage: BufferUsages::UNIFORM | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    context.queue().write_buffer(&uniform, 0, &params);
    let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() }];
    for (binding, (from, range)) in (1..).zip(step.bindings()) {
        let Moved { to: buffer, shift, .. } = find(buffers, from);
        let size = std::num::NonZeroU64::new(range.end - range.start + 4 * (shift + BEHIND));
        let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: range.start, size });
        entries.push(wgpu::BindGroupEntry { binding, resource });
    }
    context.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("moved"),
        layout: &step.pipeline().get_bind_group_layout(0),
        entries: &entries,
    })
}

/// Words of the moved buffers that no dispatch may write.
fn guards(context: &Context, prepared: &Prepared, buffers: &[Moved]) -> Result<Vec<u32>, Fault> {
    let mut guards = Vec::new();
    for Moved { from, to, shift } in buffers {
        let words = usize::try_from(to.size() / 4).unwrap_or(usize::MAX);
        let mut all = Tensor::wrap(context, to, 0, &[words])?.read_blocking(context)?;
        for (step, (buffer, range)) in
            prepared.bound.steps().iter().flat_map(|s| s.bindings().iter().map(move |b| (s, b)))
        {
            if buffer == from && writes(step, buffer) {
                let word = |byte: u64| usize::try_from(byte / 4 + shift).unwrap_or(usize::MAX);
                all[word(range.start)..word(range.end)].fill(0.0);
            }
        }
        guards.extend(all.into_iter().map(f32::to_bits));
    }
    Ok(guards)
}

/// Whether a dispatch writes a buffer.
fn writes(step: &Step, buffer: &wgpu::Buffer) -> bool {
    let written = step.dispatch().variant.kernel.def().storage;
    step.bindings().iter().zip(written).any(|((own, _), written)| *written && own == buffer)
}
