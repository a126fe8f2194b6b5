//! The correctness suite of dynconv.

pub mod cases;
pub mod noise;
pub mod variants;
pub mod weights;
