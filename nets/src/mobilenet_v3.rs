//! MobileNetV3 small (Howard et al., "Searching for MobileNetV3", ICCV 2019), with DY-CNN.

use std::sync::Arc;

use dynconv::layers::GlobalPool;
use dynconv::{Activation, Checkpoint, Context, Error, Result};

use crate::walk::{At, Walk};
use crate::{Network, Options, Slot};

/// Stride of each block but the first, which has the stem's, and whether its activation is hard
/// swish.
const BLOCKS: [(usize, bool); 10] = [
    (2, false),
    (1, false),
    (2, true),
    (1, true),
    (1, true),
    (1, true),
    (1, true),
    (2, true),
    (1, true),
    (1, true),
];

/// A MobileNetV3 small of any width with DY-CNN, by TArdelean. Its output is logits: the published
/// code takes their logarithmic softmax, which changes no order and no probability.
///
/// ```text
/// hswish(bn(conv x)) 3 x 3 -> 11 blocks -> hswish(bn(conv)) 1 x 1 -> mean
///   -> hswish(conv) 1 x 1 with a dynamic bias -> classifier
/// block: 1 x 1, bn, act, depthwise with the stride, bn, gate where there is one, act, 1 x 1, bn,
///        plus the input where stride is 1 and channels agree
/// gate:  x * hsigmoid(fc.2 * relu(fc.0 * mean(x)))
/// ```
///
/// # Errors
/// As [`resnet`](crate::resnet()).
pub fn mobilenet_v3_small(
    context: &Context,
    checkpoint: &Checkpoint<'_>,
    options: &Options,
) -> Result<Network> {
    let mut walk = Walk::new(context, checkpoint, options);
    let mut network = Network::new(context);
    let hswish = Activation::HardSwish;
    let first_stride = options.stem_stride.ok_or_else(|| Error::Value {
        what: "stride of the first convolution".into(),
        needed: "that of the training, 1 or 2, which no checkpoint holds".into(),
        found: "none".into(),
    })?;
    let stem = At {
        conv: "features.layers.0.layers.0.",
        norm: "features.layers.0.layers.1.",
        channels: 3,
        stride: first_stride,
        is_depthwise: false,
        cells: None,
        activation: hswish,
    };
    let (layer, mut channels) = walk.conv(stem)?;
    let mut x = network.layer(layer, Slot::INPUT);
    network.name("features.layers.0", x);
    let first = std::iter::once((first_stride, false));
    for (number, (stride, is_hard_swish)) in (1..).zip(first.chain(BLOCKS)) {
        let activation = if is_hard_swish { hswish } else { Activation::Relu };
        let stage = format!("features.layers.{number}");
        let block = (stage.as_str(), stride, activation);
        (x, channels) = push_block(&mut walk, &mut network, block, (x, channels))?;
        network.name(&stage, x);
    }
    let last = At {
        conv: "features.layers.12.layers.0.",
        norm: "features.layers.12.layers.1.",
        channels,
        stride: 1,
        ..stem
    };
    let (layer, channels) = walk.conv(last)?;
    x = network.layer(layer, x);
    network.name("features.layers.12", x);
    x = network.layer(Arc::new(GlobalPool::new(context)), x);
    let (layer, channels) = walk.conv_alone("features.layers.14.", channels, hswish)?;
    x = network.layer(layer, x);
    network.name("embedding", x);
    let classifier = walk.dense("classifier.layers.1.", channels, Activation::None)?.0;
    network.layer(classifier, x);
    walk.finish()?;
    Ok(network.flat())
}

fn push_block(
    walk: &mut Walk<'_>,
    network: &mut Network,
    (stage, stride, activation): (&str, usize, Activation),
    (input, c_in): (Slot, usize),
) -> Result<(Slot, usize)> {
    let key = |number: usize| format!("{stage}.conv.layers.{number}.");
    let names = [0, 1, 3, 4, 7, 8].map(key);
    let [wide, wide_norm, depthwise, depthwise_norm, narrow, narrow_norm] = &names;
    let gate = key(5);
    let is_gated = walk.contains(&format!("{gate}fc.0.weight"));
    let at = At {
        conv: wide,
        norm: wide_norm,
        channels: c_in,
        stride: 1,
        is_depthwise: false,
        cells: None,
        activation,
    };
    let (layer, channels) = walk.conv(at)?;
    let mut x = network.layer(layer, input);
    // The gate comes before the activation.
    let before = if is_gated { Activation::None } else { activation };
    let at = At {
        conv: depthwise,
        norm: depthwise_norm,
        channels,
        stride,
        is_depthwise: true,
        activation: before,
        ..at
    };
    let (layer, channels) = walk.conv(at)?;
    x = network.layer(layer, x);
    if is_gated {
        let [squeeze, excite] = ["fc.0.", "fc.2."].map(|name| format!("{gate}{name}"));
        let both = [(squeeze, Activation::Relu), (excite, Activation::HardSigmoid)];
        let gains = network.layer(walk.excitation(both, channels)?, x);
        let scale = walk.scaled(channels, activation)?;
        x = network.layer_given(scale, x, Some(gains), None);
    }
    let activation = Activation::None;
    let at = At {
        conv: narrow,
        norm: narrow_norm,
        channels,
        stride: 1,
        is_depthwise: false,
        activation,
        ..at
    };
    let (layer, c_out) = walk.conv(at)?;
    let residual = (stride == 1 && c_out == c_in).then_some(input);
    Ok((network.layer_given(layer, x, None, residual), c_out))
}
