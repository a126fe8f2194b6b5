//! What can be proved without a GPU.

#[path = "../common/mod.rs"]
mod common;

mod barriers;
#[cfg(feature = "safetensors")]
mod checkpoint;
mod errors;
mod inventory;
mod noop;
mod plan;
mod shaders;
