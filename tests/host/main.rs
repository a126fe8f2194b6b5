//! What can be proved without a GPU.

#[path = "../common/mod.rs"]
mod common;

mod arrows;
mod builder;
#[cfg(feature = "safetensors")]
mod checkpoint;
mod columns;
mod emission;
mod empty;
mod errors;
mod imports;
mod interface;
mod inventory;
mod lints;
mod mixing;
mod noop;
mod pipelines;
mod plan;
mod shaders;
mod spirv_val;
mod tune;
