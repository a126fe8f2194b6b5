//! The correctness suite of dynconv.

pub mod cases;
pub mod noise;
pub mod replay;
pub mod variants;
pub mod web;
pub mod weights;
