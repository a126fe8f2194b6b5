//! A plain network: convolutions one behind the other.

use dynconv::{Activation, Checkpoint, Context, Result};

use crate::walk::{At, Map, Walk};
use crate::{Network, Options};

/// A network without branches, for small images: the one that the demo shows, static, with DY-CNN
/// or with ODConv.
///
/// ```text
/// relu(bn(conv x)) 3 x 3: conv1, bn1, conv2, bn2, .. -> mean -> fc
/// ```
///
/// The second and third convolution have stride 2. Depth, widths, K and classes come from the
/// shapes.
///
/// # Errors
/// As [`resnet`](crate::resnet()).
pub fn plain(context: &Context, checkpoint: &Checkpoint<'_>, options: &Options) -> Result<Network> {
    let walk = &mut Walk::new(context, checkpoint, options);
    let &[_, channels, _, _] = walk.sizes("conv1.weight")?;
    let mut x = Map::input(channels);
    let mut number = 1;
    while number == 1 || walk.contains(&format!("conv{number}.weight")) {
        let [conv, norm] = ["conv", "bn"].map(|name| format!("{name}{number}."));
        let stride = if matches!(number, 2 | 3) { 2 } else { 1 };
        x = walk.conv(At::new(&conv).norm(&norm).stride(stride).activation(Activation::Relu), x)?;
        walk.name(&format!("conv{number}"), x);
        number += 1;
    }
    x = walk.mean(x);
    walk.name("pool", x);
    x = walk.dense("fc.", x, Activation::None)?;
    walk.name("fc", x);
    walk.finish()
}
