//! MobileNetV2 (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR
//! 2018), with convolutions of any kind in its blocks.

use dynconv::{Activation, Checkpoint, Context, Error, Result};

use crate::mobilenet_houses::{self, Houses};
use crate::walk::{At, Map, Walk};
use crate::{Network, Options};

/// Published numbers of blocks in each group.
pub(crate) const GROUPS: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];
/// Stride of the first block of each group.
const STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];

/// A MobileNetV2 of any width: ODConv's (OSVAI/ODConv), KernelWarehouse's, or DY-CNN's by
/// TArdelean, each under its own names.
///
/// ```text
/// relu6(bn(conv x)) 3 x 3, stride 2 -> 17 blocks -> relu6(bn(conv)) 1 x 1 -> mean -> classifier
/// block: 1 x 1 to more channels, bn, relu6 (but in the first), 3 x 3 depthwise with the stride,
///        bn, relu6, 1 x 1, bn, plus the input where stride is 1 and channels agree
/// ```
///
/// Of KernelWarehouse's the sizes of warehouses and attentions tell which layers share cells, and
/// where groups of blocks begin. Its smallest ones have ordinary 1 x 1 convolutions in their early
/// blocks, and a classifier that takes cells.
///
/// # Errors
/// As [`resnet`](crate::resnet()).
pub fn mobilenet_v2(
    context: &Context,
    checkpoint: &Checkpoint<'_>,
    options: &Options,
) -> Result<Network> {
    let walk = &mut Walk::new(context, checkpoint, options);
    let names = Names::of(walk);
    let houses = match checkpoint.contains("warehouse_manager.weights.0") {
        true => mobilenet_houses::find(checkpoint, names)?,
        false => Houses::none(),
    };
    let relu6 = Activation::Relu6;
    let [conv, norm] = names.plain(&names.stage(0));
    let at = At::new(&conv).norm(&norm).stride(2).activation(relu6);
    let mut x = walk.conv(at.house(3, houses.first), Map::input(3))?;
    walk.name(&names.stage(0), x);
    let strides = houses.groups.into_iter().zip(STRIDES).flat_map(|(blocks, first)| {
        (0..blocks).map(move |block| if block == 0 { first } else { 1 })
    });
    let mut blocks = 0;
    for stride in strides {
        blocks += 1;
        let of_block = houses.blocks.get(blocks - 1).copied().unwrap_or_default();
        x = push_block(walk, (names, blocks), (stride, of_block), x)?;
        walk.name(&names.stage(blocks), x);
    }
    let last = names.last(blocks);
    let [conv, norm] = names.plain(&last);
    let at = At::new(&conv).norm(&norm).activation(relu6);
    x = walk.conv(at.house(1, houses.last), x)?;
    walk.name(&last, x);
    x = walk.mean(x);
    if let Some(house) = houses.classifier {
        walk.conv(At::new(mobilenet_houses::CLASSIFIER).house(1, house), x)?;
    } else {
        // Behind a dropout, where there is one.
        let behind = walk.contains("classifier.1.weight");
        walk.dense(if behind { "classifier.1." } else { "classifier." }, x, Activation::None)?;
    }
    walk.finish()
}

/// Whose names a checkpoint has.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Names {
    /// torchvision's, which ODConv and KernelWarehouse have.
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

    /// What a step is called: 0 is the first convolution.
    fn stage(self, number: usize) -> String {
        match self {
            Self::Layers => format!("features.layers.{number}"),
            Self::Nested => format!("features.{number}"),
        }
    }

    /// What the last convolution is called, behind so many blocks.
    fn last(self, blocks: usize) -> String {
        if self == Self::Layers { "conv".into() } else { self.stage(blocks + 1) }
    }

    /// A convolution that stands alone, and its norm.
    fn plain(self, stage: &str) -> [String; 2] {
        let inside = if self == Self::Layers { ".layers" } else { "" };
        ["0", "1"].map(|part| format!("{stage}{inside}.{part}."))
    }

    /// Convolutions and norms of a block: expansion, if it has one, depthwise, projection.
    pub(crate) fn block(self, number: usize, expands: bool) -> Vec<(String, String)> {
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
}

fn push_block(
    walk: &mut Walk<'_>,
    (names, number): (Names, usize),
    (stride, houses): (usize, [usize; 3]),
    input: Map,
) -> Result<Map> {
    let steps = names.block(number, number > 1);
    let (depthwise, projection) = (steps.len() - 2, steps.len() - 1);
    let houses = &houses[3 - steps.len()..];
    let mut x = input;
    for (step, (conv, norm)) in steps.iter().enumerate() {
        let is_depthwise = step == depthwise;
        let mut at = At::new(conv).norm(norm).depthwise(is_depthwise);
        at = at.house(if is_depthwise { 3 } else { 1 }, houses[step]);
        if is_depthwise {
            at = at.stride(stride);
        }
        if step < projection {
            at = at.activation(Activation::Relu6);
        }
        let is_added =
            step == projection && stride == 1 && walk.channels_out(at)? == input.channels;
        let out = walk.conv_add(at, x, is_added.then_some(input))?;
        if is_depthwise && out.channels != x.channels {
            return Err(Error::Shape {
                what: format!("channels out of {conv}"),
                expected: x.channels.to_string(),
                found: out.channels.to_string(),
            });
        }
        x = out;
    }
    Ok(x)
}
