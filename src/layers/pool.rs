//! Global average pooling as a step of its own.

use crate::device::{Bound, Builder, Context, Tensor, check_elem};
use crate::elem::Elem;
use crate::error::{Error, Result};
use crate::kernels::average_pool::Pool;
use crate::problem::Layout;

/// Binds the mean over all positions: `y[b, c] = mean(x[b, c, ..])`. `x` is `[batch, channels,
/// spatial..]`, `y` is `[batch, channels, 1..]` of the same rank.
///
/// # Errors
/// [`Error::Shape`], [`Error::OtherDevice`], [`Error::AliasedBuffers`], [`Error::Limit`] if a
/// tensor passes the binding limit.
pub fn global_average_pool(context: &Context, x: &Tensor, y: &Tensor) -> Result<Bound> {
    let [batch, channels, spatial @ ..] = x.shape() else {
        return Err(Error::Shape {
            what: "input".into(),
            expected: "[batch, channels, spatial..]".into(),
            found: format!("{:?}", x.shape()),
        });
    };
    let mut expected = vec![1; x.shape().len()];
    expected[..2].copy_from_slice(&[*batch, *channels]);
    if y.shape() != expected {
        return Err(Error::shape("output", &expected, y.shape()));
    }
    check_elem("output", y.elem(), Elem::F32)?;
    let mut builder = Builder::new(context);
    let values = [builder.tensor("input", x), builder.tensor("output", y)];
    let pool = Pool::global(*channels, spatial.iter().product(), Layout::ChannelsFirst);
    pool.push(&mut builder, values, *batch)?;
    builder.bind(values[1])
}
