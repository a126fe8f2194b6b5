//! Whole networks, from their checkpoints.

pub(crate) mod classify;
pub(crate) mod convert;
pub(crate) mod inspect;
mod photo;
mod preparation;
mod weights;
