//! ConvNeXt (Liu et al., "A ConvNet for the 2020s", CVPR 2022), of KernelWarehouse's layers.

use dynconv::{Activation, Checkpoint, Context, Result};

use crate::walk::{At, Map, Walk};
use crate::{Network, Options};

/// Epsilon of the layer norms beside the attention's.
const EPSILON: f64 = 1e-6;

/// A ConvNeXt of any width and depth, as KernelWarehouse has it (OSVAI/KernelWarehouse).
///
/// ```text
/// norm(conv x) 4 x 4, stride 4 -> stage -> (conv 2 x 2, stride 2, of a norm -> stage) three times
///   -> mean -> norm -> head
/// block: x + gamma * (pwconv2 * gelu(pwconv1 * norm(dwconv * x)))       dwconv depthwise 7 x 7
/// ```
///
/// Norms are over the channels, also in the attention. Pointwise convolutions of a stage share a
/// warehouse, and so do its depthwise ones.
///
/// # Errors
/// As [`resnet`](crate::resnet()).
pub fn convnext(
    context: &Context,
    checkpoint: &Checkpoint<'_>,
    options: &Options,
) -> Result<Network> {
    let walk = &mut Walk::new(context, checkpoint, options);
    let none = Activation::None;
    let down = |stage: usize, part: usize| format!("downsample_layers.{stage}.{part}.");
    let mut x = Map::input(3);
    for stage in 0..4 {
        // Warehouses are numbered as layers ask for them: those between the stages first.
        if stage == 0 {
            let conv = down(0, 0);
            x = walk.conv(At::new(&conv).stride(4).padding(0).house(4, 0), x)?;
            x = walk.layer_norm(&down(0, 1), x, EPSILON, none)?;
        } else {
            x = walk.layer_norm(&down(stage, 0), x, EPSILON, none)?;
            let conv = down(stage, 1);
            x = walk.conv(At::new(&conv).stride(2).padding(0).house(2, stage), x)?;
        }
        walk.name(&format!("downsample_layers.{stage}"), x);
        let mut block = 0;
        while block == 0 || walk.contains(&format!("stages.{stage}.{block}.gamma")) {
            x = push_block(walk, &format!("stages.{stage}.{block}."), 4 + 2 * stage, x)?;
            block += 1;
        }
        walk.name(&format!("stages.{stage}"), x);
    }
    x = walk.mean(x);
    x = walk.layer_norm("norm.", x, EPSILON, none)?;
    walk.dense("head.", x, none)?;
    walk.finish()
}

/// A block, whose depthwise convolution has its cells in warehouse `house`, the others in the next.
fn push_block(walk: &mut Walk<'_>, prefix: &str, house: usize, input: Map) -> Result<Map> {
    let key = |name: &str| format!("{prefix}{name}");
    let [depthwise, wide, narrow] = ["dwconv.", "pwconv1.", "pwconv2."].map(key);
    let mut x = walk.conv(At::new(&depthwise).depthwise(true).house(7, house), input)?;
    x = walk.layer_norm(&key("norm."), x, EPSILON, Activation::None)?;
    let at = At::new(&wide).house(1, house + 1);
    x = walk.conv(at.activation(Activation::Gelu), x)?;
    walk.conv_scaled(At::new(&narrow).house(1, house + 1), x, &key("gamma"), input)
}
