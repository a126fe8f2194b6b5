//! The same dispatches with every operand somewhere else: scratch memory and weights too, which the
//! library itself always puts at the beginning of a buffer.

use dynconv::Bound;
use dynconv::device::Step;
use dynconv::kernels::Const;

use super::{Trial, same_bits};
use crate::data::Numbers;
use crate::replay::Replay;
use crate::run::{Fault, Prepared};

/// Words behind every operand, inside its binding.
const BEHIND: usize = 67;
/// A NaN: whoever reads it shows it.
const POISON: u32 = 0x7fc0_dead;

pub(super) fn moved(trial: &Trial<'_>) -> Result<(), Fault> {
    let data = trial.data(Numbers::Floats)?;
    let expected = trial.y(&data)?;
    let prepared = Prepared::new(trial.context, trial.spec, &data)?;
    let (context, steps) = (prepared.context(), prepared.bound.steps());
    let wrong =
        |error: &dyn std::fmt::Display| Fault::Wrong(format!("with every operand moved: {error}"));
    let replay = Replay::record(context, &prepared.bound, prepared.output())
        .map_err(|error| wrong(&error))?;
    let moved = elsewhere(&prepared.bound, &replay, BEHIND);
    let of_module = |module| {
        replay.dispatches.iter().position(|dispatch| dispatch.module == module).unwrap_or(0)
    };
    let pipelines: Vec<_> = (0..replay.modules.len())
        .map(|module| steps[of_module(module)].pipeline().clone())
        .collect();
    let buffers = moved.run_with(context, &pipelines).map_err(|error| wrong(&error))?;

    let y = dynconv::reference::narrow(&moved.output.values(moved.output_of(&buffers)));
    same_bits("with every operand moved", &y[..expected.len()], &expected)?;
    let before: Vec<&[u8]> = moved.buffers.iter().map(|buffer| &buffer.bytes[..]).collect();
    let after: Vec<&[u8]> = buffers.iter().map(|bytes| &bytes[..]).collect();
    if guards(steps, &moved, &before) != guards(steps, &moved, &after) {
        return Err(Fault::Wrong("something was written beside the operands of a dispatch".into()));
    }
    Ok(())
}

/// A run of `bound` with all operands in the middle of larger buffers, or at the end where there
/// are no words `behind`. Each binding begins where it did and reaches as far past its operand as
/// the buffer does; the operand's base, a word of the parameters, grows by what the operand moved.
pub(crate) fn elsewhere(bound: &Bound, replay: &Replay, behind: usize) -> Replay {
    let steps = bound.steps();
    let mut moved = replay.clone();
    let shifts = shifts(steps, replay);
    for (buffer, shift) in moved.buffers.iter_mut().zip(&shifts) {
        if let Some(shift) = shift {
            let poison = |words| POISON.to_le_bytes().repeat(words);
            buffer.bytes =
                [poison(*shift), std::mem::take(&mut buffer.bytes), poison(behind)].concat();
        }
    }
    for (step, dispatch) in steps.iter().zip(&mut moved.dispatches) {
        let [params, operands @ ..] = &mut dispatch.bindings[..] else { continue };
        let words = moved.buffers[params.buffer].bytes.chunks_exact_mut(4);
        for ((tensor, binding), word) in step.tensors().iter().zip(operands).zip(words) {
            let shift = 4 * shifts[binding.buffer].unwrap_or(0) as u64;
            let base = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let elements = u32::try_from(shift / tensor.elem().bytes()).unwrap_or(0);
            word.copy_from_slice(&(base + elements).to_le_bytes());
            binding.size += shift + 4 * behind as u64;
        }
    }
    moved.output.offset += 4 * shifts[moved.output.buffer].unwrap_or(0) as u64;
    moved
}

/// Words that each buffer moves by; none for parameters. Odd, but for the library's own weights,
/// which kernels may load eight at a time.
fn shifts(steps: &[Step], replay: &Replay) -> Vec<Option<usize>> {
    // Nor may an input or output of which several elements are loaded or stored at once, which was
    // decided when it was bound.
    let is_wide = |(name, value): &(&str, Const)| {
        ["X_WIDTH", "Y_WIDTH"].contains(name) && *value != Const::U32(1)
    };
    let is_wide = steps.iter().any(|step| step.dispatch().variant.consts.iter().any(is_wide));
    let mut shifts = vec![None; replay.buffers.len()];
    for (step, dispatch) in steps.iter().zip(&replay.dispatches) {
        for (slice, binding) in step.dispatch().slices.iter().zip(&dispatch.bindings[1..]) {
            let weights = ["kernel bank", "kernel", "per-sample kernels"];
            let is_weights = weights.contains(&slice.value.name());
            let shift = if is_wide || is_weights { 8 } else { 7 };
            shifts[binding.buffer] = shifts[binding.buffer].max(Some(shift));
        }
    }
    shifts
}

/// All that no dispatch may write: what lies in front of and behind each operand that one writes,
/// and the rest whole.
fn guards(steps: &[Step], moved: &Replay, buffers: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut guards: Vec<Vec<u8>> = buffers.iter().map(|bytes| bytes.to_vec()).collect();
    for (step, dispatch) in steps.iter().zip(&moved.dispatches) {
        let written = step.dispatch().variant.kernel.def().storage;
        let bound = dispatch.bindings[1..].iter().zip(step.bindings());
        for ((binding, (_, range)), _) in bound.zip(written).filter(|(_, is_written)| **is_written)
        {
            let len = range.end - range.start;
            let shift = binding.size - len - 4 * BEHIND as u64;
            let byte = |byte: u64| usize::try_from(byte + shift).unwrap_or(usize::MAX);
            let written = byte(binding.offset)..byte(binding.offset + len);
            guards[binding.buffer][written].fill(0);
        }
    }
    guards
}
