//! Memory that invocations share, and who touched it: a race is two accesses to one number, one of
//! them a write and not both atomic, by invocations that no barrier between the two has ordered.

use naga::Span;

/// Who touches memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) workgroup: u32,
    pub(crate) lane: u32,
    /// Barriers for this memory that the workgroup has passed.
    pub(crate) epoch: u32,
    pub(crate) is_atomic: bool,
    pub(crate) span: Span,
}

impl Access {
    fn is_same_invocation(self, other: Self) -> bool {
        (self.workgroup, self.lane) == (other.workgroup, other.lane)
    }

    /// Whether nothing orders two accesses.
    fn races(self, other: Self) -> bool {
        let is_unordered = self.workgroup != other.workgroup || self.epoch == other.epoch;
        is_unordered && !self.is_same_invocation(other) && !(self.is_atomic && other.is_atomic)
    }
}

/// What is known of a number in memory. Of many reads two are kept by workgroup and two within it,
/// by different invocations: a write races with some read just if it races with one of these.
#[derive(Clone, Debug, Default)]
struct Shadow {
    is_written: bool,
    write: Option<Access>,
    reads: [Option<Access>; 2],
    foreign: [Option<Access>; 2],
}

impl Shadow {
    fn remember_read(&mut self, access: Access) {
        if let Some(old) = self.reads[0].filter(|old| old.workgroup != access.workgroup) {
            if self.foreign[0].is_none_or(|first| first.workgroup == old.workgroup) {
                self.foreign[0] = Some(old);
            } else {
                self.foreign[1] = Some(old);
            }
            self.reads = [None; 2];
        }
        if !self.reads[0]
            .is_some_and(|old| old.is_same_invocation(access) && old.is_atomic == access.is_atomic)
        {
            self.reads[1] = self.reads[0];
        }
        self.reads[0] = Some(access);
    }

    /// The access that this one races with, if any.
    fn rival(&self, access: Access, is_write: bool) -> Option<Access> {
        let reads = self.reads.into_iter().chain(self.foreign).filter(|_| is_write);
        [self.write].into_iter().chain(reads).flatten().find(|other| access.races(*other))
    }
}

/// Numbers that invocations share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) slots: Vec<u64>,
    shadows: Vec<Shadow>,
}

/// What an access to a number of memory comes upon.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) rival: Option<Access>,
    /// Nothing has been written here.
    pub(crate) is_unwritten: bool,
}

impl Shared {
    /// Memory that holds these numbers; those are defined for which `is_written` is true.
    pub(crate) fn new(slots: Vec<u64>, is_written: impl Fn(usize) -> bool) -> Self {
        let shadow = |slot| Shadow { is_written: is_written(slot), ..Shadow::default() };
        Self { shadows: (0..slots.len()).map(shadow).collect(), slots }
    }

    pub(crate) fn is_written(&self, slot: usize) -> bool {
        self.shadows[slot].is_written
    }

    pub(crate) fn note_read(&mut self, slot: usize, access: Access) -> Seen {
        let shadow = &mut self.shadows[slot];
        let seen = Seen { rival: shadow.rival(access, false), is_unwritten: !shadow.is_written };
        shadow.remember_read(access);
        seen
    }

    pub(crate) fn note_write(&mut self, slot: usize, access: Access) -> Seen {
        let shadow = &mut self.shadows[slot];
        let rival = shadow.rival(access, true);
        shadow.is_written = true;
        shadow.write = Some(access);
        Seen { rival, is_unwritten: false }
    }
}
