//! Tuning: which convolution kernel is the fastest is measured on the user's own adapter, and
//! remembered.
//!
//! The planner chooses by rules that were found on a few adapters. An app that knows its layers can
//! do better: [`tune()`] measures every kernel that can compute a problem, a [`Tuning`] keeps what
//! was the fastest, and a [`Context`](crate::Context) that was given it
//! ([`Context::with_tuning`](crate::Context::with_tuning)) plans by it. Nothing is measured and no
//! file is read unless the app asks for it.
//!
//! Every sample is the same to the bit in whatever batch it comes, tuned or not: a choice holds for
//! all batches of a problem, whichever was measured. Between a tuned and an untuned context results
//! may differ by rounding, as kernels sum in orders of their own.
//!
//! ```no_run
//! use dynconv::{Context, ConvDesc, StaticConv2d, tune::Tuning};
//!
//! let context = Context::request_blocking()?;
//! let folder = std::path::Path::new("tuning");
//! let weights = vec![0.5; 64 * 64 * 9];
//! let desc = ConvDesc::new(64, 64, [3, 3]).padding([1, 1]);
//!
//! let loaded = Tuning::load(folder, context.caps())?;
//! let mut tuning = loaded.unwrap_or_else(|| Tuning::new(context.caps()));
//! let layer = StaticConv2d::new(&context, &desc, &weights, None)?;
//! if tuning.choice(layer.plan(8, [56, 56])?.problem()).is_none() {
//!     tuning.add(&layer.tune(8, [56, 56])?);
//!     tuning.save(folder, context.caps())?;
//! }
//! let context = context.with_tuning(tuning)?;
//! let layer = StaticConv2d::new(&context, &desc, &weights, None)?;
//! println!("{}", layer.plan(8, [56, 56])?);
//! # Ok::<(), dynconv::Error>(())
//! ```

#[cfg(not(target_arch = "wasm32"))]
mod measure;
#[cfg(not(target_arch = "wasm32"))]
mod verify;

#[cfg(not(target_arch = "wasm32"))]
pub use measure::tune;

pub use crate::tuning::{Key, Outcome, Trial, Tuned, Tuning, candidates, kernel_version};
