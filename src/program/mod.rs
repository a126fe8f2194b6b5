//! Programs: values and the steps that compute them, as plain data. No GPU object is touched, so
//! that anything can be asked what would run anywhere.

mod arena;
mod choose;
mod host;
mod operands;
mod operation;
mod plan;
mod strips;

use std::fmt;
use std::ops::RangeInclusive;

use crate::caps::Caps;
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::{Dispatch, Value};
use crate::problem::product;

pub use arena::{Arena, Place};
pub use operands::{Operands, Weights};
pub use operation::Operation;
pub(crate) use operation::{OfChannels, What};
pub use plan::Plan;

/// Values, and the steps that compute them, in order.
///
/// A value is a tensor of the caller's, which is bound, or scratch memory, which lives from the
/// first step that names it to the last. What does not live at the same time shares memory: see
/// [`Arena`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    values: Vec<ValueInfo>,
    steps: Vec<Dispatch>,
    operations: Vec<Operation>,
}

/// What a program knows of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    /// The value.
    pub value: Value,
    /// Axis sizes, outermost first.
    pub shape: Vec<usize>,
    /// Element type.
    pub elem: Elem,
    /// Whose memory it is.
    pub memory: Memory,
}

/// Whose memory a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The caller's.
    External,
    /// Scratch memory.
    Scratch,
    /// Scratch memory that holds the value after the last step, too.
    Kept,
}

impl ValueInfo {
    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        product(&self.shape)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes, in whole words.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = (self.len() as u64).saturating_mul(self.elem.bytes());
        bytes.checked_next_multiple_of(4).unwrap_or(u64::MAX)
    }
}

impl Program {
    /// A new value.
    pub(crate) fn add(
        &mut self,
        value: Value,
        shape: &[usize],
        elem: Elem,
        memory: Memory,
    ) -> Value {
        let index = u32::try_from(self.values.len()).expect("a program of less than 2^32 values");
        let value = value.at(index);
        self.values.push(ValueInfo { value, shape: shape.into(), elem, memory });
        value
    }

    pub(crate) fn push(&mut self, step: Dispatch) {
        self.steps.push(step);
    }

    /// Says what the steps from `first` on compute.
    pub(crate) fn mark(&mut self, first: usize, what: What) {
        self.operations.push(Operation { steps: first..self.steps.len(), what });
    }

    /// Steps of another program behind those of this one: each value of that one as a value of this
    /// one. The first of a pair, which is external there, becomes the second; all others become
    /// scratch memory.
    pub(crate) fn inline(&mut self, other: Self, pairs: &[(Value, Value)]) -> Result<Vec<Value>> {
        let mut own = Vec::with_capacity(other.values.len());
        for info in other.values {
            own.push(match pairs.iter().find(|(theirs, _)| *theirs == info.value) {
                Some(&(_, value)) => {
                    self.info(value)?.check_fits(&info)?;
                    value
                }
                None if info.memory == Memory::External => return Err(info.is_missing()),
                None => self.add(info.value, &info.shape, info.elem, Memory::Scratch),
            });
        }
        for mut step in other.steps {
            for slice in &mut step.slices {
                slice.value = own[slice.value.index()];
            }
            self.steps.push(step);
        }
        Ok(own)
    }

    /// Leaves scratch memory as it is after the last step.
    pub(crate) fn keep(&mut self, value: Value) {
        let info = &mut self.values[value.index()];
        if info.memory == Memory::Scratch {
            info.memory = Memory::Kept;
        }
    }

    /// All values.
    #[must_use]
    pub fn values(&self) -> &[ValueInfo] {
        &self.values
    }

    /// What is known of a value.
    ///
    /// # Errors
    /// [`Error::Value`] for a value of another program, where that shows.
    pub fn info(&self, value: Value) -> Result<&ValueInfo> {
        self.values.get(value.index()).filter(|info| info.value == value).ok_or_else(|| {
            Error::Value {
                what: "value".into(),
                needed: "one of this program".into(),
                found: format!("number {} of another, the {}", value.index(), value.name()),
            }
        })
    }

    /// What is computed, in order: each operation by some of the steps.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// What runs, in order.
    #[must_use]
    pub fn steps(&self) -> &[Dispatch] {
        &self.steps
    }

    /// First and last step that names each value; `None` for one that no step names.
    #[must_use]
    pub fn lifetimes(&self) -> Vec<Option<RangeInclusive<usize>>> {
        let mut lives: Vec<Option<RangeInclusive<usize>>> = vec![None; self.values.len()];
        for (step, dispatch) in self.steps.iter().enumerate() {
            for slice in &dispatch.slices {
                let life = &mut lives[slice.value.index()];
                *life = Some(life.as_ref().map_or(step, |life| *life.start())..=step);
            }
        }
        for (life, info) in lives.iter_mut().zip(&self.values) {
            if info.memory == Memory::Kept {
                *life = life.as_ref().map(|life| *life.start()..=usize::MAX);
            }
        }
        lives
    }

    /// Bytes of scratch memory that lives at the same time, at most: what no arena can do without.
    #[must_use]
    pub fn most_alive(&self) -> u64 {
        let lives = self.lifetimes();
        let alive = |step: usize| -> u64 {
            let values = self.values.iter().zip(&lives);
            let alive = values.filter(|(info, life)| {
                info.memory != Memory::External
                    && life.as_ref().is_some_and(|life| life.contains(&step))
            });
            alive.map(|(info, _)| info.bytes()).sum()
        };
        (0..self.steps.len()).map(alive).max().unwrap_or(0)
    }

    /// Refuses a step that reads scratch memory which no step before it has written.
    pub(crate) fn check_written(&self) -> Result<()> {
        let mut is_written = vec![false; self.values.len()];
        for step in &self.steps {
            let bound = || step.slices.iter().zip(step.variant.kernel.def().storage);
            for (slice, _) in bound().filter(|(_, writes)| !**writes) {
                let info = &self.values[slice.value.index()];
                if info.memory != Memory::External && !is_written[slice.value.index()] {
                    return Err(Error::Value {
                        what: info.value.name().into(),
                        needed: "a step that writes it before one reads it".into(),
                        found: format!("none before {}", step.variant.kernel.name()),
                    });
                }
            }
            for (slice, _) in bound().filter(|(_, writes)| **writes) {
                is_written[slice.value.index()] = true;
            }
        }
        Ok(())
    }

    /// Where its scratch memory lies on a device with these caps.
    #[must_use]
    pub fn arena(&self, caps: &Caps) -> Arena {
        Arena::new(self, caps)
    }
}

impl ValueInfo {
    pub(crate) fn is_missing(&self) -> Error {
        Error::Value {
            what: self.value.name().into(),
            needed: format!("a value {:?}", self.shape),
            found: "none".into(),
        }
    }

    /// Refuses to stand for a value of another number or type of elements.
    fn check_fits(&self, other: &Self) -> Result<()> {
        if self.elem != other.elem {
            let what = format!("element type of the {}", self.value.name());
            let [expected, found] = [other.elem, self.elem].map(|elem| format!("{elem:?}"));
            return Err(Error::Shape { what, expected, found });
        }
        if self.len() != other.len() {
            return Err(Error::shape(self.value.name(), &other.shape, &self.shape));
        }
        Ok(())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lives = self.values.iter().zip(self.lifetimes());
        for (info, life) in lives.filter(|(info, _)| info.memory != Memory::External) {
            let Some(life) = life else { continue };
            let ValueInfo { value, shape, elem, .. } = info;
            let last = match info.memory {
                Memory::Kept => "kept".into(),
                _ => format!("to step {}", life.end()),
            };
            writeln!(
                f,
                "{} {shape:?} of {elem:?}: from step {} {last}",
                value.name(),
                life.start()
            )?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{number:>3}  {step}")?;
        }
        Ok(())
    }
}
