//! MobileNetV3 small (Howard et al., "Searching for MobileNetV3", ICCV 2019), with DY-CNN.

use dynconv::{Activation, Checkpoint, Context, Error, Result};

use crate::walk::{At, Map, Walk};
use crate::{Network, Options};

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
    let hswish = Activation::HardSwish;
    let first_stride = options.stem_stride.ok_or_else(|| Error::Value {
        what: "stride of the first convolution".into(),
        needed: "that of the training, 1 or 2, which no checkpoint holds".into(),
        found: "none".into(),
    })?;
    let plain = |walk: &mut Walk<'_>, stage: &str, stride: usize, x: Map| -> Result<Map> {
        let [conv, norm] = ["0", "1"].map(|part| format!("{stage}.layers.{part}."));
        let x = walk.conv(At::new(&conv).norm(&norm).stride(stride).activation(hswish), x)?;
        walk.name(stage, x);
        Ok(x)
    };
    let mut x = plain(&mut walk, "features.layers.0", first_stride, Map::input(3))?;
    let first = std::iter::once((first_stride, false));
    for (number, (stride, is_hard_swish)) in (1..).zip(first.chain(BLOCKS)) {
        let activation = if is_hard_swish { hswish } else { Activation::Relu };
        let stage = format!("features.layers.{number}");
        x = push_block(&mut walk, (&stage, stride, activation), x)?;
        walk.name(&stage, x);
    }
    x = plain(&mut walk, "features.layers.12", 1, x)?;
    x = walk.mean(x);
    let last = At::new("features.layers.14.").before("features.layers.14");
    x = walk.conv(last.activation(hswish), x)?;
    walk.name("embedding", x);
    walk.dense("classifier.layers.1.", x, Activation::None)?;
    walk.finish()
}

fn push_block(
    walk: &mut Walk<'_>,
    (stage, stride, activation): (&str, usize, Activation),
    input: Map,
) -> Result<Map> {
    let key = |number: usize| format!("{stage}.conv.layers.{number}.");
    let names = [0, 1, 3, 4, 7, 8].map(key);
    let [wide, wide_norm, depthwise, depthwise_norm, narrow, narrow_norm] = &names;
    let gate = key(5);
    let is_gated = walk.contains(&format!("{gate}fc.0.weight"));
    let mut x = walk.conv(At::new(wide).norm(wide_norm).activation(activation), input)?;
    // The gate comes before the activation.
    let before = if is_gated { Activation::None } else { activation };
    let at = At::new(depthwise).norm(depthwise_norm).stride(stride).depthwise(true);
    x = walk.conv(at.activation(before), x)?;
    if is_gated {
        let [squeeze, excite] = ["fc.0.", "fc.2."].map(|name| format!("{gate}{name}"));
        let both = [(squeeze, Activation::Relu), (excite, Activation::HardSigmoid)];
        let gains = walk.excitation(both, x)?;
        x = walk.scaled(x, gains, activation)?;
    }
    let at = At::new(narrow).norm(narrow_norm);
    let is_added = walk.channels_out(at)? == input.channels && stride == 1;
    walk.conv_add(at, x, is_added.then_some(input))
}
