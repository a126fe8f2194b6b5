//! DyMN (Schmid et al., "Dynamic Convolutional Neural Networks as Efficient Pre-trained Audio
//! Models", 2023): MobileNetV3 on spectrograms, with attention from a context of each block.

use std::sync::Arc;

use dynconv::layers::{AxisPool, Contextual, Gains, Gate, Layer, WindowPool};
use dynconv::problem::Pooling;
use dynconv::{Activation, BatchNorm, Checkpoint, Context, ConvDesc, Result, StaticConv2d};

use crate::walk::{At, Map, Walk};
use crate::{Network, Options};

/// Kernel size, stride, and whether the activation is hard swish, of each block.
const BLOCKS: [(usize, usize, bool); 15] = [
    (3, 1, false),
    (3, 2, false),
    (3, 1, false),
    (5, 2, false),
    (5, 1, false),
    (5, 1, false),
    (3, 2, true),
    (3, 1, true),
    (3, 1, true),
    (3, 1, true),
    (3, 1, true),
    (3, 1, true),
    (5, 2, true),
    (5, 1, true),
    (5, 1, true),
];

/// A DyMN of any width (fschmid56/EfficientAT). Its input is `[batch, 1, mel bands, frames]`, its
/// output logits of the classes; the stage `embedding` is what these are made of.
///
/// ```text
/// hswish(bn(in_c x)) 3 x 3, stride 2 -> 15 blocks -> hswish(bn(out_c)) 1 x 1 -> mean
///   -> hswish(classifier.2) -> classifier.5
/// block:   exp_conv 1 x 1 where there is one, bn, act; depth_conv depthwise with the stride, bn,
///          dynamic ReLU, gains along bands and frames; proj_conv 1 x 1, bn, plus the input where
///          stride is 1 and channels agree. Each mixes its kernels by a head on the context.
/// f, t     = hswish(bn(joint_conv * means over frames, over bands))
/// context  = mean of f and t together
/// gains    = sigmoid(conv_f * f), sigmoid(conv_t * t), f and t pooled where the stride is 2
/// ```
///
/// # Errors
/// As [`resnet`](crate::resnet()).
pub fn dymn(context: &Context, checkpoint: &Checkpoint<'_>, options: &Options) -> Result<Network> {
    let walk = &mut Walk::new(context, checkpoint, options);
    walk.set_epsilon(BatchNorm::EPSILON_TENSORFLOW);
    let hswish = Activation::HardSwish;
    let at = At::new("in_c.0.").norm("in_c.1.").activation(hswish);
    let mut x = walk.conv(at.stride(2), Map::input(1))?;
    walk.name("in_c", x);
    for (number, (kernel, stride, is_hard_swish)) in BLOCKS.into_iter().enumerate() {
        let activation = if is_hard_swish { hswish } else { Activation::Relu };
        let block = Block { prefix: format!("layers.{number}."), kernel, stride, activation };
        x = block.push(walk, x)?;
        walk.name(&format!("layers.{number}"), x);
    }
    x = walk.conv(At::new("out_c.0.").norm("out_c.1.").activation(hswish), x)?;
    walk.name("out_c", x);
    x = walk.mean(x);
    walk.name("embedding", x);
    x = walk.dense("classifier.2.", x, hswish)?;
    walk.dense("classifier.5.", x, Activation::None)?;
    walk.finish()
}

/// Where a block is, and what no tensor tells of it.
struct Block {
    prefix: String,
    kernel: usize,
    stride: usize,
    activation: Activation,
}

/// What a block makes of its input before its convolutions.
struct Made {
    context: Map,
    /// Gains along bands and frames.
    gains: [Map; 2],
}

impl Block {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn push(&self, walk: &mut Walk<'_>, input: Map) -> Result<Map> {
        let made = self.context(walk, input)?;
        let mut x = input;
        if walk.contains(&self.key("exp_conv.weight")) {
            x = self.conv(
                walk,
                ["exp_conv.", "exp_norm."],
                (1, 1),
                self.activation,
                [made.context, x],
                None,
            )?;
        }
        let (kernel, stride, none) = (self.kernel, self.stride, Activation::None);
        x = self.conv(
            walk,
            ["depth_conv.", "depth_norm."],
            (kernel, stride),
            none,
            [made.context, x],
            None,
        )?;
        let coefficients = self.coefficients(walk, made.context)?;
        // Bands are the rows of the map, frames its columns.
        let gate = Gate::<2>::new(walk.context, x.channels, Gains::Axes([1, 2]))?.dynamic_relu();
        let given = [coefficients, made.gains[0], made.gains[1]].map(|map| map.slot);
        x = walk.step(Arc::new(gate), x, &given);
        let residual = (stride == 1).then_some(input);
        self.conv(walk, ["proj_conv.", "proj_norm."], (1, 1), none, [made.context, x], residual)
    }

    fn context(&self, walk: &mut Walk<'_>, x: Map) -> Result<Made> {
        let [conv, norm] =
            ["context_gen.joint_conv.", "context_gen.joint_norm."].map(|name| self.key(name));
        let at = At::new(&conv).norm(&norm).activation(Activation::HardSwish);
        let mut joint = Vec::new();
        for axis in [3, 2] {
            let mean = walk.step(Arc::new(AxisPool::new(walk.context, axis)?), x, &[]);
            joint.push(walk.conv(at, mean)?);
        }
        let both = walk.network.concat(&[joint[0].slot, joint[1].slot], 2);
        let context = walk.mean(Map { slot: both, ..joint[0] });
        let mut gains = Vec::new();
        for (part, name) in joint.into_iter().zip(["conv_f.", "conv_t."]) {
            let part = if self.stride == 1 { part } else { self.pooled(walk, part)? };
            let conv = self.key(&format!("context_gen.{name}"));
            gains.push(walk.conv(At::new(&conv).activation(Activation::Sigmoid), part)?);
        }
        Ok(Made { context, gains: [gains[0], gains[1]] })
    }

    /// Means of three neighbours along the rows, those outside the map counted as zeros.
    fn pooled(&self, walk: &mut Walk<'_>, x: Map) -> Result<Map> {
        let windows = ConvDesc::new(x.channels, x.channels, [3, 1]).groups(x.channels);
        let windows = windows.stride([self.stride, 1]).padding([1, 0]);
        let pool = WindowPool::new(walk.context, &windows, Pooling::MeanWithPadding)?;
        Ok(walk.step(Arc::new(pool), x, &[]))
    }

    /// A convolution whose kernels a head on the context mixes, and its norm.
    fn conv(
        &self,
        walk: &mut Walk<'_>,
        names: [&str; 2],
        (kernel, stride): (usize, usize),
        activation: Activation,
        [context, x]: [Map; 2],
        residual: Option<Map>,
    ) -> Result<Map> {
        let [conv, norm] = names.map(|name| self.key(name));
        let &[c_out] = walk.sizes(&format!("{norm}weight"))?;
        let groups = if names[0] == "depth_conv." { x.channels } else { 1 };
        let weight = format!("{conv}weight");
        let &[_, _, kernels, len] = walk.sizes(&weight)?;
        let bank = walk.tensor(weight, &[1, 1, kernels, len])?;
        let head = walk.linear(&format!("{conv}residuals.0."), [kernels, context.channels])?;
        let desc = ConvDesc::new(x.channels, c_out, [kernel; 2]).groups(groups).kernels(kernels);
        let desc = desc.stride([stride; 2]).padding([(kernel - 1) / 2; 2]);
        let temperature = walk.options.temperature.unwrap_or(1.0);
        let layer =
            Layer::<2, Contextual>::new(walk.context, &desc, &bank, None, &head, temperature)?;
        let layer = layer.batch_norm(&walk.norm(&norm, c_out)?)?.activation(activation);
        let residual = residual.filter(|map| map.channels == c_out).map(|map| map.slot);
        let layer = Arc::new(layer);
        let slot = walk.network.layer_given(layer, x.slot, &[context.slot], residual);
        Ok(Map { slot, channels: c_out })
    }

    /// Coefficients of the dynamic ReLU: `(2 sigmoid(coef_net * context) - 1) * lambdas + init_v`.
    fn coefficients(&self, walk: &mut Walk<'_>, context: Map) -> Result<Map> {
        let raw = walk.dense(&self.key("depth_act.coef_net.0."), context, Activation::Sigmoid)?;
        let lambdas = walk.tensor(self.key("depth_act.lambdas"), &[4])?;
        let init = walk.tensor(self.key("depth_act.init_v"), &[4])?;
        let of = |value: &dyn Fn(usize) -> f32| -> Vec<f32> {
            (0..raw.channels).map(|i| value(i % 4)).collect()
        };
        let scale = of(&|i| 2.0 * lambdas[i]);
        let shift = of(&|i| init[i] - lambdas[i]);
        let desc = ConvDesc::new(raw.channels, raw.channels, [1, 1]).groups(raw.channels);
        let layer = StaticConv2d::new(walk.context, &desc, &scale, Some(&shift))?;
        Ok(walk.step(Arc::new(layer), raw, &[]))
    }
}
