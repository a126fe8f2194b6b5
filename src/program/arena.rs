//! Scratch memory: values that do not live at the same time share it.

use std::ops::RangeInclusive;

use super::{Memory, Program};
use crate::caps::Caps;
use crate::kernels::Value;

/// Where the scratch values of a program lie: in few buffers, those that live at the same time
/// apart.
///
/// WebGPU lets no dispatch read from a buffer that it writes to, however far apart. So values that
/// one step reads and writes lie in different buffers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arena {
    buffers: Vec<u64>,
    places: Vec<Place>,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The value.
    pub value: Value,
    /// Number of its buffer.
    pub buffer: usize,
    /// First byte, aligned for a binding.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A value to place.
struct Item {
    value: Value,
    bytes: u64,
    life: RangeInclusive<usize>,
}

impl Arena {
    /// Places the largest values first, each where the buffers grow least.
    pub(crate) fn new(program: &Program, caps: &Caps) -> Self {
        let lives = program.lifetimes();
        let scratch = program.values.iter().filter(|info| info.memory != Memory::External);
        let item = |info: &super::ValueInfo| {
            let life = lives[info.value.index()].clone()?;
            // A binding that is read in pairs holds one at least.
            Some(Item { value: info.value, bytes: info.bytes().max(8), life })
        };
        let mut items: Vec<Item> = scratch.filter_map(item).collect();
        items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
        let apart = apart(program);
        let alignment = u64::from(caps.storage_alignment.max(4));
        let mut arena = Self::default();
        let mut lived: Vec<RangeInclusive<usize>> = Vec::new();
        for Item { value, bytes, life } in items {
            let grown = |buffer: usize, size: u64| {
                let beside = arena.places.iter().zip(&lived).filter(|(p, _)| p.buffer == buffer);
                let is_apart = |other: Value| {
                    apart.contains(&(value.index(), other.index()))
                        || apart.contains(&(other.index(), value.index()))
                };
                if beside.clone().any(|(place, _)| is_apart(place.value)) {
                    return None;
                }
                let taken =
                    beside.filter(|(_, other)| overlap(other, &life)).map(|(place, _)| place);
                let offset = first_gap(taken, bytes, alignment);
                let end = size.max(offset.saturating_add(bytes));
                (end <= caps.max_buffer).then_some((end - size, buffer, offset))
            };
            let sizes = arena.buffers.iter().enumerate();
            let best = sizes.filter_map(|(buffer, &size)| grown(buffer, size)).min();
            // A new buffer where all that there are would have to grow by more.
            let (growth, buffer, offset) = best
                .filter(|(growth, ..)| *growth <= bytes)
                .unwrap_or((bytes, arena.buffers.len(), 0));
            if buffer == arena.buffers.len() {
                arena.buffers.push(0);
            }
            arena.buffers[buffer] += growth;
            arena.places.push(Place { value, buffer, offset, bytes });
            lived.push(life);
        }
        arena
    }

    /// Bytes of each buffer.
    #[must_use]
    pub fn buffers(&self) -> &[u64] {
        &self.buffers
    }

    /// Where each value lies that a step names.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Bytes of all buffers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// Pairs that one step reads and writes, by their places in the program.
fn apart(program: &Program) -> std::collections::HashSet<(usize, usize)> {
    let mut apart = std::collections::HashSet::new();
    for step in program.steps() {
        let written = step.variant.kernel.def().storage;
        let bound = || step.slices.iter().zip(written);
        for (write, _) in bound().filter(|(_, is_written)| **is_written) {
            for (read, _) in bound().filter(|(_, is_written)| !**is_written) {
                apart.insert((write.value.index(), read.value.index()));
            }
        }
    }
    apart
}

fn overlap(a: &RangeInclusive<usize>, b: &RangeInclusive<usize>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

fn aligned(offset: u64, alignment: u64) -> u64 {
    offset.checked_next_multiple_of(alignment).unwrap_or(u64::MAX)
}

/// The lowest aligned offset of `bytes` free bytes among places that are taken.
fn first_gap<'a>(taken: impl Iterator<Item = &'a Place>, bytes: u64, alignment: u64) -> u64 {
    let mut taken: Vec<_> = taken.map(|place| (place.offset, place.bytes)).collect();
    taken.sort_unstable();
    let mut offset = 0_u64;
    for (start, len) in taken {
        if offset.saturating_add(bytes) <= start {
            break;
        }
        offset = offset.max(aligned(start.saturating_add(len), alignment));
    }
    offset
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::elem::Elem;
    use crate::kernels::{Const, Dispatch, Kernel, Slice, Variant};

    /// A step that reads some values and writes one.
    fn step(read: &[Value], written: Value) -> Dispatch {
        // The first of these reads one value, the second three.
        let kernel = if read.len() == 1 { Kernel::AveragePool } else { Kernel::Aggregate };
        let slice = |&value: &Value| Slice { value, start: 0, len: 1 };
        let reads = kernel.def().storage.len() - 1;
        let slices = read.iter().cycle().take(reads).chain([&written]).map(slice).collect();
        let consts = vec![("WORKGROUP", Const::U32(1))];
        Dispatch {
            variant: Variant { kernel, elems: Vec::new(), consts },
            params: Vec::new(),
            slices,
            workgroups: 1,
            grid: [1; 3],
            workgroup_size: 1,
            workgroup_memory: 0,
        }
    }

    /// A program whose n-th step writes a value of `sizes[n]` elements from earlier ones, and which
    /// keeps some.
    fn program(sizes: &[usize], reads: &[Vec<usize>], kept: &[bool]) -> Program {
        let mut program = Program::default();
        let x = program.add(Value::new("input"), &[64], Elem::F32, Memory::External);
        let mut values = vec![x];
        for ((&size, reads), &kept) in sizes.iter().zip(reads).zip(kept) {
            let value = program.add(Value::new("value"), &[size], Elem::F32, Memory::Scratch);
            let read: Vec<Value> = reads.iter().map(|read| values[read % values.len()]).collect();
            program.push(step(&read, value));
            if kept {
                program.keep(value);
            }
            values.push(value);
        }
        program
    }

    fn caps(max_buffer: u64) -> Caps {
        Caps { max_buffer, ..Caps::webgpu_default() }
    }

    /// A value that something wrote over before its last reader, or before the end if it is kept.
    /// Found by running the steps on memory in which every word holds the value last written there.
    fn lost(
        program: &Program,
        arena: &Arena,
        mut kept: impl Iterator<Item = Value>,
    ) -> Option<Value> {
        let words = |bytes: u64| usize::try_from(bytes).expect("fits").div_ceil(4);
        let mut memory: Vec<Vec<Option<Value>>> =
            arena.buffers().iter().map(|&bytes| vec![None; words(bytes)]).collect();
        let range = |value: Value| {
            let place = arena.places().iter().find(|place| place.value == value)?;
            Some((place.buffer, words(place.offset)..words(place.offset + place.bytes)))
        };
        let is_whole = |memory: &[Vec<Option<Value>>], value: Value| {
            range(value).is_none_or(|(buffer, words)| {
                memory[buffer][words].iter().all(|&word| word == Some(value))
            })
        };
        for step in program.steps() {
            let (written, read) = step.slices.split_last().expect("binds");
            if let Some(slice) = read.iter().find(|slice| !is_whole(&memory, slice.value)) {
                return Some(slice.value);
            }
            let (buffer, words) = range(written.value).expect("is scratch");
            memory[buffer][words].fill(Some(written.value));
        }
        kept.find(|&value| !is_whole(&memory, value))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_lives_together_lies_apart(
            sizes in prop::collection::vec(1_usize..2000, 1..20),
            reads in prop::collection::vec(prop::collection::vec(0_usize..20, 1..3), 20),
            kept in prop::collection::vec(prop::bool::weighted(0.1), 20),
            max_buffer in prop::sample::select(vec![8000_u64, 20_000, 1 << 20]),
        ) {
            let program = program(&sizes, &reads, &kept);
            let caps = caps(max_buffer);
            let arena = program.arena(&caps);
            let lives = program.lifetimes();
            let life = |place: &Place| lives[place.value.index()].clone().expect("lives");
            prop_assert_eq!(arena.places().len(), sizes.len());
            for (i, a) in arena.places().iter().enumerate() {
                prop_assert!(a.offset.is_multiple_of(u64::from(caps.storage_alignment)));
                prop_assert!(a.offset + a.bytes <= arena.buffers()[a.buffer]);
                let info = program.info(a.value).expect("is of this program");
                prop_assert!(a.bytes >= info.bytes());
                for b in &arena.places()[..i] {
                    let share = a.buffer == b.buffer
                        && a.offset < b.offset + b.bytes
                        && b.offset < a.offset + a.bytes;
                    prop_assert!(!share || !overlap(&life(a), &life(b)), "{a:?} {b:?}");
                }
            }
            let place = |value: Value| arena.places().iter().find(|place| place.value == value);
            for step in program.steps() {
                let [read @ .., written] = &step.slices[..] else { continue };
                let written = place(written.value).expect("is scratch").buffer;
                for read in read.iter().filter_map(|slice| place(slice.value)) {
                    prop_assert_ne!(read.buffer, written);
                }
            }
            let made = program.values.iter().skip(1).map(|info| info.value);
            let kept = made.zip(&kept).filter(|(_, kept)| **kept).map(|(value, _)| value);
            prop_assert_eq!(lost(&program, &arena, kept), None);
            prop_assert!(arena.buffers().iter().all(|&bytes| bytes <= max_buffer));
            let alignment = u64::from(caps.storage_alignment);
            let all = arena.places().iter().map(|place| place.bytes.next_multiple_of(alignment));
            prop_assert!(arena.bytes() <= all.sum::<u64>());
        }
    }

    #[test]
    fn a_chain_takes_two_buffers_in_turns() {
        let reads: Vec<Vec<usize>> = (0..20).map(|step| vec![step]).collect();
        let program = program(&[1000; 20], &reads, &[false; 20]);
        assert_eq!(program.arena(&caps(1 << 20)).buffers(), [4000, 4000]);
    }

    #[test]
    fn what_is_kept_is_not_written_over() {
        let reads: Vec<Vec<usize>> = (0..20).map(|step| vec![step]).collect();
        let kept: Vec<bool> = (0..20).map(|step| step == 3).collect();
        let program = program(&[1024; 20], &reads, &kept);
        assert_eq!(program.arena(&caps(1 << 20)).bytes(), 3 * 4096);
    }
}
