//! Whole networks, from their checkpoints.

mod answers;
pub(crate) mod classify;
pub(crate) mod convert;
pub(crate) mod inspect;
mod photo;
mod preparation;
pub(crate) mod tag;
mod weights;
