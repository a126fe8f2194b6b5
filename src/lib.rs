#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]

mod caps;
#[cfg(feature = "safetensors")]
mod checkpoint;
mod context;
mod desc;
mod error;
mod kernels;
mod layers;
pub mod plan;
pub mod reference;
mod tensor;

pub use bytemuck;
pub use wgpu;

pub use caps::Caps;
#[cfg(feature = "safetensors")]
pub use checkpoint::Checkpoint;
pub use context::{AdapterChoice, Context, ContextOptions, choose_adapter};
pub use desc::{ConvDesc, Geometry};
pub use error::{Error, Result};
pub use kernels::aggregate::AttentionRow;
pub use kernels::conv::Activation;
pub use kernels::{Const, Dispatch, Kernel, KernelDef, Operand, Slice, Variant};
pub use layers::{
    BankConv2d, BatchNorm, Bound, DyCnn, DyCnnWeights, DynConv2d, Given, Layer, Linear, Od, OdConv2d, OdWeights,
    OwnAttention, Static, StaticConv2d, global_average_pool, published_heads,
};
pub use tensor::{Elem, TENSOR_USAGE, Tensor};
