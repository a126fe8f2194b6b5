//! MobileNetV2 (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR
//! 2018), with convolutions of any kind in its blocks.

use std::sync::Arc;

use dynconv::layers::GlobalPool;
use dynconv::{Activation, Checkpoint, Context, Error, Result};

use crate::walk::{At, Walk};
use crate::{Network, Options, Slot};

/// Blocks of each group, and the stride of its first.
const GROUPS: [(usize, usize); 7] = [(1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)];

/// A MobileNetV2 of any width: ODConv's (OSVAI/ODConv), or DY-CNN's by TArdelean, each under its
/// own names.
///
/// ```text
/// relu6(bn(conv x)) 3 x 3, stride 2 -> 17 blocks -> relu6(bn(conv)) 1 x 1 -> mean -> classifier
/// block: 1 x 1 to more channels, bn, relu6 (but in the first), 3 x 3 depthwise with the stride,
///        bn, relu6, 1 x 1, bn, plus the input where stride is 1 and channels agree
/// ```
///
/// # Errors
/// As [`resnet`](crate::resnet()).
pub fn mobilenet_v2(
    context: &Context,
    checkpoint: &Checkpoint<'_>,
    options: &Options,
) -> Result<Network> {
    let mut walk = Walk::new(context, checkpoint, options);
    let names = Names::of(&walk);
    let mut network = Network::new(context);
    let (conv, norm) = names.plain(0);
    let channels = 3;
    let activation = Activation::Relu6;
    let (layer, mut channels) = walk.conv(At {
        conv: &conv,
        norm: &norm,
        channels,
        stride: 2,
        is_depthwise: false,
        cells: None,
        activation,
    })?;
    let mut x = network.layer(layer, Slot::INPUT);
    network.name(&names.stage(0), x);
    let strides = GROUPS.into_iter().flat_map(|(blocks, first)| {
        (0..blocks).map(move |block| if block == 0 { first } else { 1 })
    });
    for (number, stride) in (1..).zip(strides) {
        (x, channels) =
            push_block(&mut walk, &mut network, (names, number), (x, channels), stride)?;
        network.name(&names.stage(number), x);
    }
    let (conv, norm) = names.plain(18);
    let (layer, channels) = walk.conv(At {
        conv: &conv,
        norm: &norm,
        channels,
        stride: 1,
        is_depthwise: false,
        cells: None,
        activation,
    })?;
    x = network.layer(layer, x);
    network.name(&names.stage(18), x);
    x = network.layer(Arc::new(GlobalPool::new(context)), x);
    let classifier = walk.dense(names.classifier(), channels, Activation::None)?.0;
    network.layer(classifier, x);
    walk.finish()?;
    Ok(network.flat())
}

/// Whose names a checkpoint has.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    /// torchvision's, which ODConv has.
    Nested,
    /// TArdelean's.
    Layers,
}

impl Names {
    fn of(walk: &Walk<'_>) -> Self {
        match walk.contains("features.layers.0.layers.0.weight") {
            true => Self::Layers,
            false => Self::Nested,
        }
    }

    /// What a step is called: 0 is the first convolution, 18 the last.
    fn stage(self, number: usize) -> String {
        match (self, number) {
            (Self::Layers, 18) => "conv".into(),
            (Self::Layers, _) => format!("features.layers.{number}"),
            (Self::Nested, _) => format!("features.{number}"),
        }
    }

    /// First or last convolution and its norm.
    fn plain(self, number: usize) -> (String, String) {
        let inside = if self == Self::Layers { ".layers" } else { "" };
        let stage = self.stage(number);
        (format!("{stage}{inside}.0."), format!("{stage}{inside}.1."))
    }

    /// Convolutions and norms of a block: expansion, if it has one, depthwise, projection.
    fn block(self, number: usize, expands: bool) -> Vec<(String, String)> {
        let stage = self.stage(number);
        let at = |conv: &str, norm: &str| {
            (format!("{stage}.conv.{conv}."), format!("{stage}.conv.{norm}."))
        };
        match (self, expands) {
            (Self::Nested, true) => vec![at("0.0", "0.1"), at("1.0", "1.1"), at("2", "3")],
            (Self::Nested, false) => vec![at("0.0", "0.1"), at("1", "2")],
            (Self::Layers, true) => {
                vec![
                    at("layers.0", "layers.1"),
                    at("layers.3", "layers.4"),
                    at("layers.6", "layers.7"),
                ]
            }
            (Self::Layers, false) => vec![at("layers.0", "layers.1"), at("layers.3", "layers.4")],
        }
    }

    fn classifier(self) -> &'static str {
        if self == Self::Layers { "classifier." } else { "classifier.1." }
    }
}

fn push_block(
    walk: &mut Walk<'_>,
    network: &mut Network,
    (names, number): (Names, usize),
    (input, c_in): (Slot, usize),
    stride: usize,
) -> Result<(Slot, usize)> {
    let steps = names.block(number, number > 1);
    let (depthwise, projection) = (steps.len() - 2, steps.len() - 1);
    let (mut x, mut channels) = (input, c_in);
    for (step, (conv, norm)) in steps.iter().enumerate() {
        let at = At {
            conv,
            norm,
            channels,
            stride: if step == depthwise { stride } else { 1 },
            is_depthwise: step == depthwise,
            cells: None,
            activation: if step == projection { Activation::None } else { Activation::Relu6 },
        };
        let (layer, c_out) = walk.conv(at)?;
        if step == depthwise && c_out != channels {
            return Err(Error::Shape {
                what: format!("channels out of {conv}"),
                expected: channels.to_string(),
                found: c_out.to_string(),
            });
        }
        x = match step == projection && stride == 1 && c_out == c_in {
            true => network.layer_add(layer, x, input),
            false => network.layer(layer, x),
        };
        channels = c_out;
    }
    Ok((x, channels))
}
