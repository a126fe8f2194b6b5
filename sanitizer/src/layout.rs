//! How a type's scalars lie: as slots, one after another, and as bytes in a buffer.

use naga::{ArraySize, Handle, Scalar, Type, TypeInner, UniqueArena};

use crate::Error;

/// The types of a module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout<'m> {
    pub(crate) types: &'m UniqueArena<Type>,
}

/// A scalar in a buffer: its first byte, and what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) byte: usize,
    pub(crate) scalar: Scalar,
}

impl Layout<'_> {
    /// Slots of a value. An array of any length counts as one of a single element.
    pub(crate) fn slots(self, inner: &TypeInner) -> Result<usize, Error> {
        Ok(match *inner {
            TypeInner::Scalar(_) | TypeInner::Atomic(_) => 1,
            TypeInner::Vector { size, .. } => size as usize,
            TypeInner::Matrix { columns, rows, .. } => columns as usize * rows as usize,
            TypeInner::CooperativeMatrix { columns, rows, .. } => columns as usize * rows as usize,
            TypeInner::Array { base, size, .. } => self.slots_of(base)? * length(size).unwrap_or(1),
            TypeInner::Struct { ref members, .. } => members
                .iter()
                .map(|member| self.slots_of(member.ty))
                .sum::<Result<usize, Error>>()?,
            ref other => return Err(Error::unsupported(format!("{other:?}"))),
        })
    }

    pub(crate) fn slots_of(self, ty: Handle<Type>) -> Result<usize, Error> {
        self.slots(&self.types[ty].inner)
    }

    /// Slots of a struct before a member.
    pub(crate) fn slots_before(self, inner: &TypeInner, member: u32) -> Result<usize, Error> {
        match inner {
            TypeInner::Struct { members, .. } => {
                members.iter().take(member as usize).map(|member| self.slots_of(member.ty)).sum()
            }
            TypeInner::Array { base, .. } => Ok(self.slots_of(*base)? * member as usize),
            TypeInner::Matrix { rows, .. } => Ok(*rows as usize * member as usize),
            _ => Ok(member as usize),
        }
    }

    /// The scalars of a type that begins at `first` in a buffer of `size` bytes.
    pub(crate) fn places(
        self,
        ty: Handle<Type>,
        first: usize,
        size: usize,
    ) -> Result<Vec<Place>, Error> {
        let bytes = |scalar: Scalar| usize::from(scalar.width);
        Ok(match self.types[ty].inner {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => {
                vec![Place { byte: first, scalar }]
            }
            TypeInner::Vector { size, scalar } => (0..size as usize)
                .map(|i| Place { byte: first + i * bytes(scalar), scalar })
                .collect(),
            TypeInner::Array { base, size: count, stride } => {
                let stride = stride as usize;
                let count = length(count).unwrap_or(size.saturating_sub(first) / stride);
                let mut all = Vec::new();
                for i in 0..count {
                    all.extend(self.places(base, first + i * stride, size)?);
                }
                all
            }
            TypeInner::Struct { ref members, .. } => {
                let mut all = Vec::new();
                for member in members {
                    all.extend(self.places(member.ty, first + member.offset as usize, size)?);
                }
                all
            }
            ref other => return Err(Error::unsupported(format!("{other:?} in a buffer"))),
        })
    }
}

/// Elements of an array, if its type says.
pub(crate) fn length(size: ArraySize) -> Option<usize> {
    match size {
        ArraySize::Constant(count) => Some(count.get() as usize),
        _ => None,
    }
}

/// The scalar that a type is made of.
pub(crate) fn scalar(inner: &TypeInner) -> Result<Scalar, Error> {
    match *inner {
        TypeInner::Scalar(scalar)
        | TypeInner::Atomic(scalar)
        | TypeInner::Vector { scalar, .. }
        | TypeInner::Matrix { scalar, .. }
        | TypeInner::CooperativeMatrix { scalar, .. } => Ok(scalar),
        ref other => Err(Error::unsupported(format!("{other:?} where numbers are wanted"))),
    }
}

/// Bits of an all-zero scalar are 0 in every type.
pub(crate) fn read(bytes: &[u8], place: Place) -> u64 {
    let mut word = [0; 8];
    let width = usize::from(place.scalar.width);
    word[..width].copy_from_slice(&bytes[place.byte..place.byte + width]);
    u64::from_le_bytes(word)
}

pub(crate) fn write(bytes: &mut [u8], place: Place, bits: u64) {
    let width = usize::from(place.scalar.width);
    bytes[place.byte..place.byte + width].copy_from_slice(&bits.to_le_bytes()[..width]);
}
