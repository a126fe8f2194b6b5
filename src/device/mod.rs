//! The device: contexts, tensors, and programs bound to them.

mod bound;
mod builder;
mod context;
mod home;
mod tensor;
#[cfg(not(target_arch = "wasm32"))]
mod timer;

pub(crate) use bound::check_elem;
pub use bound::{Bound, Step};
pub use builder::Builder;
pub(crate) use context::lock;
pub use context::{AdapterChoice, Context, ContextOptions, choose_adapter};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use context::{PollFault, poll};
pub(crate) use home::Home;
pub use tensor::{TENSOR_USAGE, Tensor};
#[cfg(not(target_arch = "wasm32"))]
pub use timer::PassTimer;

pub use crate::caps::{MatrixShape, Missing};
pub use crate::error::Unit;
