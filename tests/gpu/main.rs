//! What only an adapter can show. Without one these tests fail.

#[path = "../common/mod.rs"]
mod common;

mod buffers;
mod builder;
mod faults;
mod matrices;
mod mixing;
mod norms;
mod rebind;
mod replace;
mod special;
mod tune;
mod ways;
