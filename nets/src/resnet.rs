//! Residual networks (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016), with
//! convolutions of any kind in their blocks.

use std::sync::Arc;

use dynconv::layers::{GlobalPool, WindowPool};
use dynconv::problem::Pooling;
use dynconv::{Activation, Checkpoint, Context, ConvDesc, Error, Result};

use crate::walk::{At, Walk};
use crate::{Network, Options, Slot};

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
    let mut network = Network::new(context);
    let stem = At {
        conv: "conv1.",
        norm: "bn1.",
        channels: 3,
        stride: 2,
        is_depthwise: false,
        cells: None,
        activation: Activation::Relu,
    };
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
    let (layer, mut channels) = walk.conv(stem)?;
    let mut x = network.layer(layer, Slot::INPUT);
    network.name("stem", x);
    let windows = ConvDesc::new(channels, channels, [3, 3]).groups(channels);
    let windows = windows.stride([2, 2]).padding([1, 1]);
    let pool = WindowPool::new(context, &windows, Pooling::Max)?;
    x = network.layer(Arc::new(pool), x);
    for stage in 1..=4 {
        let name = format!("layer{stage}");
        let mut block = 0;
        while block == 0 || walk.contains(&format!("{name}.{block}.bn1.weight")) {
            let prefix = format!("{name}.{block}.");
            let at = Block { prefix: &prefix, stage, is_first: block == 0 };
            (x, channels) = push_block(&mut walk, &mut network, at, (x, channels))?;
            block += 1;
        }
        network.name(&name, x);
    }
    x = network.layer(Arc::new(GlobalPool::new(context)), x);
    let classifier = walk.dense("fc.", channels, Activation::None)?.0;
    network.layer(classifier, x);
    walk.finish()?;
    Ok(network.flat())
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
fn push_block(
    walk: &mut Walk<'_>,
    network: &mut Network,
    block: Block<'_>,
    (input, c_in): (Slot, usize),
) -> Result<(Slot, usize)> {
    let prefix = block.prefix;
    let stride = if block.stage > 1 && block.is_first { 2 } else { 1 };
    let is_bottleneck = walk.contains(&format!("{prefix}bn3.weight"));
    let kernels: &[usize] = if is_bottleneck { &[1, 3, 1] } else { &[3, 3] };
    // A shortcut is added by the last convolution, and so comes before it.
    let shortcut = format!("{prefix}downsample.0.");
    let (mut residual, mut added) = (input, c_in);
    let norm = format!("{prefix}downsample.1.");
    if walk.contains(&format!("{norm}weight")) {
        let activation = Activation::None;
        let cells = Some((1, block.warehouse(true)));
        let (conv, norm, channels, is_depthwise) = (&*shortcut, &*norm, c_in, false);
        let at = At { conv, norm, channels, stride, is_depthwise, cells, activation };
        let (layer, channels) = walk.conv(at)?;
        residual = network.layer(layer, input);
        added = channels;
    } else if stride != 1 {
        return Err(Error::Shape {
            what: format!("shortcut of {prefix}"),
            expected: format!("{norm}weight, as the stride is {stride}"),
            found: "none".into(),
        });
    }
    let (mut x, mut channels) = (input, c_in);
    for (number, &kernel) in (1..).zip(kernels) {
        let [conv, norm] = ["conv", "bn"].map(|name| format!("{prefix}{name}{number}."));
        let has_stride = number == if is_bottleneck { 2 } else { 1 };
        let at = At {
            conv: &conv,
            norm: &norm,
            channels,
            stride: if has_stride { stride } else { 1 },
            is_depthwise: false,
            cells: Some((kernel, block.warehouse(number == 1))),
            activation: Activation::Relu,
        };
        let (layer, c_out) = walk.conv(at)?;
        x = match number == kernels.len() {
            true => network.layer_add(layer, x, residual),
            false => network.layer(layer, x),
        };
        channels = c_out;
    }
    if channels != added {
        return Err(Error::Shape {
            what: format!("channels of the shortcut of {prefix}"),
            expected: channels.to_string(),
            found: added.to_string(),
        });
    }
    Ok((x, channels))
}
