//! What only an adapter can show. Without one these tests fail.

#[path = "../common/mod.rs"]
mod common;

mod buffers;
mod builder;
mod close;
mod elems;
mod exact;
mod faults;
mod laws;
mod matrices;
mod mixing;
mod norms;
mod rebind;
mod replace;
mod tune;
mod ways;
