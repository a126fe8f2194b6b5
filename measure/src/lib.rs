//! How fast dynamic convolution is on an adapter, and beside what.
//!
//! Every result is checked against the f64 reference before it is timed. Each layer is measured in
//! turns with our own static convolution of the same shape and with the batch as groups, so that
//! what drifts on a machine drifts for all of them.

mod contest;
mod error;
mod groups;
mod layer;
mod peak;
mod results;
mod shapes;
mod verify;

pub use contest::{Spread, median};
pub use error::{Error, Result};
pub use layer::{Case, Options, Outcome, measure};
pub use peak::Peak;
pub use results::{Change, Comparison, ENOUGH, Refusal, Results, Row, VERSION, Verdict};
pub use shapes::{SETS, Shape, load, parse};
