//! The correctness suite of dynconv: problems drawn whole, laws that they must keep, faults that it
//! must find.

pub mod cases;
pub mod catalogue;
pub mod check;
pub mod data;
mod dcd;
pub mod draw;
pub mod expect;
pub mod fuzz;
pub mod interpreter;
pub mod laws;
pub mod matrices;
pub mod mutants;
pub mod noise;
pub mod ops;
pub mod recorded;
pub mod replay;
pub mod report;
pub mod run;
pub mod sanitize;
pub mod spec;
mod strain;
pub mod truth;
pub mod twin;
pub mod variants;
pub mod web;
pub mod weights;
