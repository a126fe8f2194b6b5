#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../docs/front.md")]

mod caps;
#[cfg(feature = "safetensors")]
mod checkpoint;
pub mod device;
mod elem;
mod error;
pub mod kernels;
pub mod layers;
pub mod problem;
pub mod program;
pub mod reference;
mod registry;
pub mod tune;
mod tuning;

pub use wgpu;

pub use caps::Caps;
#[cfg(feature = "safetensors")]
pub use checkpoint::Checkpoint;
pub use device::{Bound, Context, Tensor};
pub use elem::Elem;
pub use error::{Error, Result};
pub use layers::{
    BankConv2d, BatchNorm, CondConv2d, CondConvWeights, Dcd2d, DcdWeights, DyCnnWeights, DynConv2d,
    FdyConv2d, FdyWeights, KernelWarehouse2d, KernelWarehouseWeights, Layer, Linear, MapConv2d,
    ModulatedConv2d, OdConv2d, OdWeights, PerSampleConv2d, PixelMix2d, PixelMixWeights,
    StaticConv2d, Warehouse,
};
pub use problem::{Activation, Algorithm, ConvDesc, Winograd};

// So that the code of README.md is compiled as that of the documentation is.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
