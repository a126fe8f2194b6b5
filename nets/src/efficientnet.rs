//! EfficientNet (Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
//! Networks", ICML 2019) with CondConv in its last three groups of blocks.

use std::sync::Arc;

use dynconv::layers::AnyLayer;
use dynconv::{
    Activation, BankConv2d, BatchNorm, Checkpoint, Context, ConvDesc, ModulatedConv2d, Result,
    StaticConv2d,
};

use crate::walk::{Map, Walk};
use crate::{Network, Options};

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
    let walk = &mut Walk::new(context, checkpoint, options);
    walk.set_epsilon(BatchNorm::EPSILON_TENSORFLOW);
    let stem = Conv::new("conv_stem.", "bn1.", 3).stride(2);
    let mut x = conv(walk, stem, None, Map::input(3))?;
    walk.name("stem", x);
    for (group, (kernel, first)) in GROUPS.into_iter().enumerate() {
        let mut block = 0;
        while block == 0 || walk.contains(&format!("blocks.{group}.{block}.bn1.weight")) {
            let stride = if block == 0 { first } else { 1 };
            x = push_block(walk, &format!("blocks.{group}.{block}."), (kernel, stride), x)?;
            block += 1;
        }
        walk.name(&format!("blocks.{group}"), x);
    }
    x = conv(walk, Conv::new("conv_head.", "bn2.", 1), None, x)?;
    walk.name("head", x);
    x = walk.mean(x);
    walk.dense("classifier.", x, Activation::None)?;
    walk.finish()
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

impl<'a> Conv<'a> {
    fn new(prefix: &'a str, norm: &'a str, kernel: usize) -> Self {
        Self { prefix, norm, kernel, stride: 1, is_depthwise: false }
    }

    fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    fn depthwise(self) -> Self {
        Self { is_depthwise: true, ..self }
    }
}

fn push_block(
    walk: &mut Walk<'_>,
    prefix: &str,
    (kernel, stride): (usize, usize),
    input: Map,
) -> Result<Map> {
    let key = |name: &str| format!("{prefix}{name}");
    let routing = routing(walk, &key("routing_fn."), input)?;
    let expands = walk.contains(&key("bn3.weight"));
    let names = if expands {
        ["conv_pw.", "bn1.", "conv_dw.", "bn2.", "conv_pwl.", "bn3."]
    } else {
        ["", "", "conv_dw.", "bn1.", "conv_pw.", "bn2."]
    };
    let [wide, wide_norm, depthwise, depthwise_norm, narrow, narrow_norm] = names.map(key);
    let mut x = input;
    if expands {
        x = conv(walk, Conv::new(&wide, &wide_norm, 1), routing, x)?;
    }
    let depthwise = Conv::new(&depthwise, &depthwise_norm, kernel).stride(stride).depthwise();
    x = conv(walk, depthwise, routing, x)?;
    let silu = Activation::Silu;
    let both = [(key("se.conv_reduce."), silu), (key("se.conv_expand."), Activation::Sigmoid)];
    let gains = walk.excitation(both, x)?;
    let residual = (stride == 1).then_some(input);
    projection(walk, (&narrow, &narrow_norm), (x, gains), routing, residual)
}

/// A convolution and silu, its experts mixed by a routing where there is one.
fn conv(walk: &mut Walk<'_>, conv: Conv<'_>, routing: Option<Map>, x: Map) -> Result<Map> {
    let Conv { prefix, norm, kernel, stride, is_depthwise } = conv;
    let &[c_out] = walk.sizes(&format!("{norm}weight"))?;
    let groups = if is_depthwise { x.channels } else { 1 };
    let desc = ConvDesc::new(x.channels, c_out, [kernel; 2]).groups(groups);
    let desc = desc.stride([stride; 2]).padding_same();
    let of_group = x.channels / groups.max(1);
    let (key, context) = (format!("{prefix}weight"), walk.context);
    let silu = Activation::Silu;
    let layer: Arc<dyn AnyLayer> = match routing {
        Some(Map { channels: experts, .. }) => {
            let len = c_out.saturating_mul(of_group).saturating_mul(kernel * kernel);
            let bank = walk.tensor(key, &[experts, len])?;
            let norm = walk.norm(norm, c_out)?;
            let layer = BankConv2d::new(context, &desc.kernels(experts), &bank, None)?;
            Arc::new(layer.batch_norm(&norm)?.activation(silu))
        }
        None => {
            let weight = walk.tensor(key, &[c_out, of_group, kernel, kernel])?;
            let bn = walk.norm(norm, c_out)?;
            let layer = StaticConv2d::new(context, &desc, &weight, None)?.batch_norm(&bn)?;
            if !norm.starts_with("blocks.") {
                // The published modules have the activation beside the norm.
                let before = Arc::new(layer.clone());
                walk.network.aside(norm.trim_end_matches('.'), before, x.slot, &[]);
            }
            Arc::new(layer.activation(silu))
        }
    };
    let given: Vec<_> = routing.iter().map(|routing| routing.slot).collect();
    Ok(Map { channels: c_out, ..walk.step(layer, x, &given) })
}

/// The last convolution of a block, on an input whose channels have gains: a static one takes them
/// as a style, a mixed one in its attention.
fn projection(
    walk: &mut Walk<'_>,
    (prefix, norm): (&str, &str),
    (x, gains): (Map, Map),
    routing: Option<Map>,
    input: Option<Map>,
) -> Result<Map> {
    let &[c_out] = walk.sizes(&format!("{norm}weight"))?;
    let (key, context) = (format!("{prefix}weight"), walk.context);
    let desc = ConvDesc::new(x.channels, c_out, [1, 1]);
    let residual = input.filter(|input| input.channels == c_out).map(|input| input.slot);
    let (layer, given): (Arc<dyn AnyLayer>, _) = match routing {
        None => {
            let weight = walk.tensor(key, &[c_out, x.channels, 1, 1])?;
            let norm = walk.norm(norm, c_out)?;
            let layer = ModulatedConv2d::new(context, &desc, &weight, false)?.batch_norm(&norm)?;
            (Arc::new(layer), gains.slot)
        }
        Some(Map { slot, channels: experts }) => {
            let bank = walk.tensor(key, &[experts, c_out.saturating_mul(x.channels)])?;
            let norm = walk.norm(norm, c_out)?;
            let desc = desc.kernels(experts);
            let layer = BankConv2d::with_channel_gains(context, &desc, &bank, None)?;
            (Arc::new(layer.batch_norm(&norm)?), walk.network.concat(&[gains.slot, slot], 1))
        }
    };
    let slot = walk.network.layer_given(layer, x.slot, &[given], residual);
    Ok(Map { slot, channels: c_out })
}

/// Attention over the experts of a block.
fn routing(walk: &mut Walk<'_>, prefix: &str, x: Map) -> Result<Option<Map>> {
    if !walk.contains(&format!("{prefix}weight")) {
        return Ok(None);
    }
    let mean = walk.mean(x);
    walk.dense(prefix, mean, Activation::Sigmoid).map(Some)
}
