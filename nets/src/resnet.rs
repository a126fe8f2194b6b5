//! Residual networks (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016), with
//! convolutions of any kind in their blocks.

use std::sync::Arc;

use dynconv::layers::WindowPool;
use dynconv::problem::Pooling;
use dynconv::{Activation, Checkpoint, Context, ConvDesc, Error, Result};

use crate::walk::{At, Map, Walk};
use crate::{Network, Options};

/// A residual network of any depth: ODConv's (OSVAI/ODConv), KernelWarehouse's of one warehouse a
/// stage (OSVAI/KernelWarehouse), DY-CNN's (kaijieshi7), or an ordinary one, under the names of
/// torchvision.
///
/// ```text
/// relu(bn1(conv1 x)) 7 x 7, stride 2 -> max pool 3 x 3, stride 2 -> layer1 to layer4 -> mean -> fc
/// block: conv1, bn1, relu, conv2, bn2 (, relu, conv3, bn3), plus the input or its downsample, relu
/// ```
///
/// Widths, depths, K and classes come from the shapes. Strides are the published ones: 2 in the
/// first block of layer2 to layer4, in a bottleneck at its 3 x 3.
///
/// # Errors
/// [`MissingKey`](dynconv::Error::MissingKey), [`Shape`](dynconv::Error::Shape) and what else
/// readers of layers refuse; [`UnreadKeys`](dynconv::Error::UnreadKeys) for tensors that are no
/// part of such a network; [`Value`](dynconv::Error::Value) without a temperature that is needed.
pub fn resnet(
    context: &Context,
    checkpoint: &Checkpoint<'_>,
    options: &Options,
) -> Result<Network> {
    let mut walk = Walk::new(context, checkpoint, options);
    // Variants for small images have other strides, which no tensor tells.
    if let &[_, _, height, width] = walk.sizes("conv1.weight")?
        && [height, width] != [7, 7]
    {
        return Err(Error::Shape {
            what: "kernel of conv1.weight".into(),
            expected: "7 x 7".into(),
            found: format!("{height} x {width}"),
        });
    }
    let stem = At::new("conv1.").norm("bn1.").before("bn1").stride(2);
    let mut x = walk.conv(stem.activation(Activation::Relu), Map::input(3))?;
    walk.name("stem", x);
    let windows = ConvDesc::new(x.channels, x.channels, [3, 3]).groups(x.channels);
    let windows = windows.stride([2, 2]).padding([1, 1]);
    x = walk.step(Arc::new(WindowPool::new(context, &windows, Pooling::Max)?), x, &[]);
    for stage in 1..=4 {
        let name = format!("layer{stage}");
        let mut block = 0;
        while block == 0 || walk.contains(&format!("{name}.{block}.bn1.weight")) {
            let prefix = format!("{name}.{block}.");
            x = push_block(&mut walk, Block { prefix: &prefix, stage, is_first: block == 0 }, x)?;
            block += 1;
        }
        walk.name(&name, x);
    }
    x = walk.mean(x);
    walk.dense("fc.", x, Activation::None)?;
    walk.finish()
}

/// Where a block is.
#[derive(Clone, Copy)]
struct Block<'a> {
    prefix: &'a str,
    /// 1 to 4.
    stage: usize,
    is_first: bool,
}

impl Block<'_> {
    /// The warehouse of a convolution: one a stage, but what a stage's first block makes of the
    /// stage before takes its cells from there.
    fn warehouse(self, hands_over: bool) -> usize {
        let own = self.stage - 1;
        if self.is_first && hands_over { own.saturating_sub(1) } else { own }
    }
}

/// Adds a block, basic or a bottleneck.
fn push_block(walk: &mut Walk<'_>, block: Block<'_>, input: Map) -> Result<Map> {
    let prefix = block.prefix;
    let stride = if block.stage > 1 && block.is_first { 2 } else { 1 };
    let is_bottleneck = walk.contains(&format!("{prefix}bn3.weight"));
    let kernels: &[usize] = if is_bottleneck { &[1, 3, 1] } else { &[3, 3] };
    let mut x = input;
    for (number, &kernel) in (1..).zip(kernels) {
        let [conv, norm] = ["conv", "bn"].map(|name| format!("{prefix}{name}{number}."));
        let has_stride = number == if is_bottleneck { 2 } else { 1 };
        let at = At::new(&conv)
            .norm(&norm)
            .stride(if has_stride { stride } else { 1 })
            .house(kernel, block.warehouse(number == 1))
            .activation(Activation::Relu);
        if number < kernels.len() {
            x = walk.conv(at, x)?;
            continue;
        }
        // The last convolution adds the shortcut, which therefore comes before it.
        let residual = shortcut(walk, block, stride, input)?;
        x = walk.conv_add(at, x, Some(residual))?;
        if x.channels != residual.channels {
            return Err(Error::Shape {
                what: format!("channels of the shortcut of {prefix}"),
                expected: x.channels.to_string(),
                found: residual.channels.to_string(),
            });
        }
    }
    Ok(x)
}

/// What a block adds to its output: its input, or what `downsample` makes of it.
fn shortcut(walk: &mut Walk<'_>, block: Block<'_>, stride: usize, input: Map) -> Result<Map> {
    let [conv, norm] = ["0", "1"].map(|part| format!("{}downsample.{part}.", block.prefix));
    if walk.contains(&format!("{norm}weight")) {
        let at = At::new(&conv).norm(&norm).stride(stride).house(1, block.warehouse(true));
        return walk.conv(at, input);
    }
    if stride == 1 {
        return Ok(input);
    }
    Err(Error::Shape {
        what: format!("shortcut of {}", block.prefix),
        expected: format!("{norm}weight, as the stride is {stride}"),
        found: "none".into(),
    })
}
