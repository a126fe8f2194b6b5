#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../docs/front.md")]

mod caps;
#[cfg(feature = "safetensors")]
mod checkpoint;
mod context;
mod desc;
mod elem;
mod error;
mod home;
mod kernels;
mod layers;
#[cfg(not(target_arch = "wasm32"))]
mod matrices;
pub mod plan;
pub mod reference;
mod tensor;
#[cfg(not(target_arch = "wasm32"))]
mod timer;
pub mod tune;
mod winograd;

pub use bytemuck;
pub use wgpu;

pub use caps::{Caps, MatrixShape, Missing};
#[cfg(feature = "safetensors")]
pub use checkpoint::Checkpoint;
pub use context::{AdapterChoice, Context, ContextOptions, choose_adapter};
pub use desc::{ConvDesc, Geometry, WeightOrder};
pub use elem::Elem;
pub use error::{Error, Result, Unit};
pub use kernels::aggregate::AttentionRow;
pub use kernels::aggregate::Cells;
pub use kernels::conv::{Activation, Epilogue, Layout};
pub use kernels::{Const, Dispatch, Kernel, KernelDef, Operand, Slice, Slot, Variant};
pub use layers::{
    BankConv2d, BatchNorm, Bound, CondConv, CondConv2d, CondConvWeights, Dcd2d, DcdWeights, DyCnn, DyCnnWeights,
    DynConv2d, FdyConv2d, FdyWeights, Given, KernelWarehouse, KernelWarehouse2d, KernelWarehouseWeights, Layer, Linear,
    Map, MapConv2d, ModulatedConv2d, Od, OdConv2d, OdWeights, OwnAttention, PerSample, PerSampleConv2d, PixelMix2d,
    PixelMixWeights, Routing, Static, StaticConv2d, Step, TemperatureSchedule, Warehouse, global_average_pool,
    published_heads,
};
pub use tensor::{TENSOR_USAGE, Tensor};
#[cfg(not(target_arch = "wasm32"))]
pub use timer::PassTimer;
pub use winograd::Winograd;

// So that the code of README.md is compiled as that of the documentation is.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
