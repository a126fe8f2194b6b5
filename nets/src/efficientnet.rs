//! EfficientNet (Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
//! Networks", ICML 2019) with CondConv in its last three groups of blocks.

use std::sync::Arc;

use dynconv::layers::{AnyLayer, GlobalPool};
use dynconv::{
    Activation, BankConv2d, BatchNorm, Checkpoint, Context, ConvDesc, ModulatedConv2d, Result,
    StaticConv2d,
};

use crate::walk::Walk;
use crate::{Network, Options, Slot};

/// Kernel size and first stride of each group of blocks.
const GROUPS: [(usize, usize); 7] = [(3, 1), (3, 2), (5, 2), (3, 2), (5, 1), (5, 2), (3, 1)];

/// An EfficientNet with CondConv, as timm publishes it: `tf_efficientnet_cc_b0_4e`, `.._b0_8e`,
/// `.._b1_8e`.
///
/// ```text
/// silu(bn1(conv_stem x)) 3 x 3, stride 2 -> 7 groups of blocks -> silu(bn2(conv_head)) 1 x 1
///   -> mean -> classifier
/// block: conv_pw 1 x 1, bn1, silu (but in the first group), conv_dw depthwise, bn2, silu, se,
///        conv_pwl 1 x 1, bn3, plus the input where stride is 1 and channels agree
/// se:    x * sigmoid(conv_expand * silu(conv_reduce * mean(x)))
/// ```
///
/// In a block with experts one routing, `sigmoid(routing_fn * mean(input of the block))`, mixes the
/// experts of all three convolutions. Padding is TensorFlow's "SAME". Depths, widths, experts and
/// classes come from the shapes.
///
/// # Errors
/// As [`resnet`](crate::resnet()).
pub fn efficientnet_cc(
    context: &Context,
    checkpoint: &Checkpoint<'_>,
    options: &Options,
) -> Result<Network> {
    let walk = Walk::new(context, checkpoint, options);
    let mut maker = Maker {
        walk: walk.with_epsilon(BatchNorm::EPSILON_TENSORFLOW),
        network: Network::new(context),
    };
    let stem =
        Conv { prefix: "conv_stem.", norm: "bn1.", kernel: 3, stride: 2, is_depthwise: false };
    let (mut x, mut channels) = maker.conv(stem, None, (Slot::INPUT, 3), Activation::Silu)?;
    maker.network.name("stem", x);
    for (group, (kernel, first)) in GROUPS.into_iter().enumerate() {
        let mut block = 0;
        while block == 0 || maker.walk.contains(&format!("blocks.{group}.{block}.bn1.weight")) {
            let stride = if block == 0 { first } else { 1 };
            let prefix = format!("blocks.{group}.{block}.");
            (x, channels) = maker.block(&prefix, kernel, stride, (x, channels))?;
            block += 1;
        }
        maker.network.name(&format!("blocks.{group}"), x);
    }
    let head =
        Conv { prefix: "conv_head.", norm: "bn2.", kernel: 1, stride: 1, is_depthwise: false };
    let (x, channels) = maker.conv(head, None, (x, channels), Activation::Silu)?;
    let Maker { mut walk, mut network } = maker;
    network.name("head", x);
    let x = network.layer(Arc::new(GlobalPool::new(context)), x);
    let classifier = walk.dense("classifier.", channels, Activation::None)?.0;
    network.layer(classifier, x);
    walk.finish()?;
    Ok(network.flat())
}

/// A convolution and its norm, whose channels are the channels out.
#[derive(Clone, Copy)]
struct Conv<'a> {
    prefix: &'a str,
    norm: &'a str,
    kernel: usize,
    stride: usize,
    is_depthwise: bool,
}

/// What blocks are added with.
struct Maker<'a> {
    walk: Walk<'a>,
    network: Network,
}

impl Maker<'_> {
    fn block(
        &mut self,
        prefix: &str,
        kernel: usize,
        stride: usize,
        (input, c_in): (Slot, usize),
    ) -> Result<(Slot, usize)> {
        let key = |name: &str| format!("{prefix}{name}");
        let silu = Activation::Silu;
        let routing = self.routing(&key("routing_fn."), (input, c_in))?;
        let expands = self.walk.contains(&key("bn3.weight"));
        let names = if expands {
            ["conv_pw.", "bn1.", "conv_dw.", "bn2.", "conv_pwl.", "bn3."]
        } else {
            ["", "", "conv_dw.", "bn1.", "conv_pw.", "bn2."]
        };
        let [wide, wide_norm, depthwise, depthwise_norm, narrow, narrow_norm] = names.map(key);
        let mut x = (input, c_in);
        if expands {
            let (prefix, norm) = (&wide, &wide_norm);
            let conv = Conv { prefix, norm, kernel: 1, stride: 1, is_depthwise: false };
            x = self.conv(conv, routing, x, silu)?;
        }
        let (prefix, norm) = (&depthwise, &depthwise_norm);
        let conv = Conv { prefix, norm, kernel, stride, is_depthwise: true };
        let (x, channels) = self.conv(conv, routing, x, silu)?;
        let both = [(key("se.conv_reduce."), silu), (key("se.conv_expand."), Activation::Sigmoid)];
        let gains = self.walk.excitation(both, channels)?;
        let gains = self.network.layer(gains, x);
        self.projection(&narrow, &narrow_norm, (x, channels, gains), routing, |c_out| {
            (stride == 1 && c_out == c_in).then_some(input)
        })
    }

    /// A convolution, its experts mixed by a routing where there is one.
    fn conv(
        &mut self,
        conv: Conv<'_>,
        routing: Option<(Slot, usize)>,
        (x, c_in): (Slot, usize),
        activation: Activation,
    ) -> Result<(Slot, usize)> {
        let Conv { prefix, norm, kernel, stride, is_depthwise } = conv;
        let &[c_out] = self.walk.sizes(&format!("{norm}weight"))?;
        let groups = if is_depthwise { c_in } else { 1 };
        let desc = ConvDesc::new(c_in, c_out, [kernel; 2]).groups(groups);
        let desc = desc.stride([stride; 2]).padding_same();
        let of_group = c_in / groups.max(1);
        let (key, context) = (format!("{prefix}weight"), self.walk.context);
        let layer: Arc<dyn AnyLayer> = match routing {
            Some((_, experts)) => {
                let len = c_out.saturating_mul(of_group).saturating_mul(kernel * kernel);
                let bank = self.walk.tensor(key, &[experts, len])?;
                let norm = self.walk.norm(norm, c_out)?;
                let layer = BankConv2d::new(context, &desc.kernels(experts), &bank, None)?;
                Arc::new(layer.batch_norm(&norm)?.activation(activation))
            }
            None => {
                let weight = self.walk.tensor(key, &[c_out, of_group, kernel, kernel])?;
                let norm = self.walk.norm(norm, c_out)?;
                let layer = StaticConv2d::new(context, &desc, &weight, None)?;
                Arc::new(layer.batch_norm(&norm)?.activation(activation))
            }
        };
        let given = routing.map(|(slot, _)| slot);
        Ok((self.network.layer_given(layer, x, given, None), c_out))
    }

    /// The last convolution of a block, on an input whose channels have gains. A static one takes
    /// them as it loads; where experts are mixed they are a pass of their own.
    fn projection(
        &mut self,
        prefix: &str,
        norm: &str,
        (x, c_in, gains): (Slot, usize, Slot),
        routing: Option<(Slot, usize)>,
        residual: impl Fn(usize) -> Option<Slot>,
    ) -> Result<(Slot, usize)> {
        let &[c_out] = self.walk.sizes(&format!("{norm}weight"))?;
        let (key, context) = (format!("{prefix}weight"), self.walk.context);
        let desc = ConvDesc::new(c_in, c_out, [1, 1]);
        let Some((routing, experts)) = routing else {
            let weight = self.walk.tensor(key, &[c_out, c_in, 1, 1])?;
            let norm = self.walk.norm(norm, c_out)?;
            let layer = ModulatedConv2d::new(context, &desc, &weight, false)?.batch_norm(&norm)?;
            let y = self.network.layer_given(Arc::new(layer), x, Some(gains), residual(c_out));
            return Ok((y, c_out));
        };
        let scale = self.walk.scaled(c_in, Activation::None)?;
        let x = self.network.layer_given(scale, x, Some(gains), None);
        let bank = self.walk.tensor(key, &[experts, c_out.saturating_mul(c_in)])?;
        let norm = self.walk.norm(norm, c_out)?;
        let layer = BankConv2d::new(context, &desc.kernels(experts), &bank, None)?;
        let layer = Arc::new(layer.batch_norm(&norm)?);
        Ok((self.network.layer_given(layer, x, Some(routing), residual(c_out)), c_out))
    }

    /// Attention over the experts of a block, and how many these are.
    fn routing(&mut self, prefix: &str, x: (Slot, usize)) -> Result<Option<(Slot, usize)>> {
        if !self.walk.contains(&format!("{prefix}weight")) {
            return Ok(None);
        }
        let mut routing = Network::new(self.walk.context);
        let mean = routing.layer(Arc::new(GlobalPool::new(self.walk.context)), Slot::INPUT);
        let (layer, experts) = self.walk.dense(prefix, x.1, Activation::Sigmoid)?;
        routing.layer(layer, mean);
        Ok(Some((self.network.layer(Arc::new(routing.flat()), x.0), experts)))
    }
}
