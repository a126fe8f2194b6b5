//! FDY-CRNN (Nam et al., "Frequency Dynamic Convolution: Frequency-Adaptive Pattern Recognition for
//! Sound Event Detection", Interspeech 2022).

use std::sync::Arc;

use dynconv::device::Builder;
use dynconv::kernels::Value;
use dynconv::layers::{
    AnyLayer, Gains, Gate, Gru, GruWeights, Io, Softmax, WeightedMean, WindowPool,
};
use dynconv::problem::{Layout, Pooling};
use dynconv::{
    Activation, BatchNorm, Checkpoint, Context, ConvDesc, FdyConv2d, Result, StaticConv2d,
};

use crate::walk::{Map, Walk};
use crate::{Network, Options};

/// Windows of the pools, along frames and bands: they leave one of the 128 bands.
const POOLS: [[usize; 2]; 7] = [[2, 2], [2, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2]];
const BANDS: usize = 128;
/// Published temperature, in training and inference alike.
const TEMPERATURE: f32 = 31.0;
/// Least weight of a frame in the weak output.
const LEAST: f32 = 1e-7;

/// An FDY-CRNN of any width (frednam93/FDY-SED). Its input is `[batch, 128 mel bands, frames]`. Its
/// output are the probabilities of events in the clip (weak, `[batch, classes]`); the stage
/// `strong` has those of each frame, `[batch, classes, frames / 4]`.
///
/// ```text
/// seven times: g = bn(conv x), the first conv static, the others frequency-dynamic
///              x = mean pool of g * sigmoid(linear g)
/// h      = gated recurrent units in both directions, two layers
/// strong = sigmoid(dense h)
/// weak   = sum over frames of strong * w / sum of w         w = softmax of (dense_softmax h)
/// ```
///
/// # Errors
/// As [`resnet`](crate::resnet()).
pub fn fdy_crnn(
    context: &Context,
    checkpoint: &Checkpoint<'_>,
    options: &Options,
) -> Result<Network> {
    let walk = &mut Walk::new(context, checkpoint, options);
    walk.set_epsilon(BatchNorm::EPSILON_TENSORFLOW);
    let turn = Gate::<1>::new(context, BANDS, Gains::None)?;
    let turn = Turn(turn.layouts(Layout::ChannelsFirst, Layout::ChannelsLast));
    let mut x = Map { channels: 1, ..walk.step(Arc::new(turn), Map::input(BANDS), &[]) };
    for (number, window) in POOLS.into_iter().enumerate() {
        x = if number == 0 { first(walk, x)? } else { dynamic(walk, number, x)? };
        x = gated(walk, number, x)?;
        let windows = ConvDesc::new(x.channels, x.channels, window).groups(x.channels);
        let pool = WindowPool::new(context, &windows.stride(window), Pooling::Mean)?;
        // What is recurrent takes f32.
        let is_last = number + 1 == POOLS.len();
        let pool = Arc::new(pool);
        x = if is_last { walk.step_in_f32(pool, x) } else { walk.step(pool, x, &[]) };
        walk.name(&format!("cnn.cnn.pooling{number}"), x);
    }
    let mut layer = 0;
    while layer == 0 || walk.contains(&format!("rnn.rnn.weight_ih_l{layer}")) {
        x = recurrent(walk, layer, x)?;
        layer += 1;
    }
    walk.name("rnn", x);
    let strong = walk.dense("dense.", x, Activation::Sigmoid)?;
    walk.name("strong", strong);
    let share = walk.dense("dense_softmax.", x, Activation::None)?;
    let share = walk.step(Arc::new(Softmax::new(context, 1.0)?), share, &[]);
    let mean = WeightedMean::new(context, LEAST)?;
    let weak = walk.step(Arc::new(mean), strong, &[share.slot]);
    walk.name("weak", weak);
    walk.finish()
}

/// From bands of frames to frames of bands: the bands go last, and what is left is a map of one
/// channel.
#[derive(Clone, Debug)]
struct Turn(Gate<1>);

impl AnyLayer for Turn {
    fn context(&self) -> &Context {
        self.0.context()
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let mut shape = self.0.output_shape(input)?;
        shape.insert(1, 1);
        Ok(shape)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        self.0.lower(builder, io)
    }
}

/// The first convolution, which is static.
fn first(walk: &mut Walk<'_>, x: Map) -> Result<Map> {
    let key = "cnn.cnn.conv0.weight";
    let &[c_out, _, height, width] = walk.sizes(key)?;
    let weight = walk.tensor(key.into(), &[c_out, 1, height, width])?;
    let bias = walk.tensor("cnn.cnn.conv0.bias".into(), &[c_out])?;
    let desc = ConvDesc::new(1, c_out, [height, width]).padding([height / 2, width / 2]);
    let layer = StaticConv2d::new(walk.context, &desc, &weight, Some(&bias))?;
    let layer = layer.batch_norm(&walk.norm("cnn.cnn.batchnorm0.", c_out)?)?;
    Ok(Map { channels: c_out, ..walk.step(Arc::new(layer), x, &[]) })
}

fn dynamic(walk: &mut Walk<'_>, number: usize, x: Map) -> Result<Map> {
    let prefix = format!("cnn.cnn.conv{number}.");
    let (desc, weights) = walk.checkpoint.fdy(&prefix, walk.options.attention_epsilon)?;
    walk.has_read(&prefix);
    let g = desc.geometry()?;
    x.check(&format!("{prefix}weight"), g.c_in)?;
    let desc = desc.padding([g.kernel[1] / 2, g.kernel[2] / 2]);
    let temperature = walk.options.temperature.unwrap_or(TEMPERATURE);
    let layer = FdyConv2d::new(walk.context, &desc, &weights, temperature)?;
    let norm = walk.norm(&format!("cnn.cnn.batchnorm{number}."), g.c_out)?;
    let layer = Arc::new(layer.batch_norm(&norm)?);
    Ok(Map { channels: g.c_out, ..walk.step(layer, x, &[]) })
}

/// The context gate: `x * sigmoid(linear x)`.
fn gated(walk: &mut Walk<'_>, number: usize, x: Map) -> Result<Map> {
    let prefix = format!("cnn.cnn.cg{number}.linear.");
    let gains = walk.dense(&prefix, x, Activation::Sigmoid)?;
    x.check(&format!("{prefix}weight"), gains.channels)?;
    let gate = Gate::<2>::new(walk.context, x.channels, Gains::Positions)?;
    Ok(walk.step(Arc::new(gate), x, &[gains.slot]))
}

/// A layer of recurrent units, in both directions.
fn recurrent(walk: &mut Walk<'_>, layer: usize, x: Map) -> Result<Map> {
    let &[rows, hidden] = walk.sizes(&format!("rnn.rnn.weight_hh_l{layer}"))?;
    let mut directions = Vec::new();
    for ending in ["", "_reverse"] {
        let key = |name: &str| format!("rnn.rnn.{name}_l{layer}{ending}");
        if ending.is_empty() || walk.contains(&key("weight_hh")) {
            directions.push(GruWeights {
                input: walk.tensor(key("weight_ih"), &[rows, x.channels])?,
                state: walk.tensor(key("weight_hh"), &[rows, hidden])?,
                input_bias: walk.tensor(key("bias_ih"), &[rows])?,
                state_bias: walk.tensor(key("bias_hh"), &[rows])?,
            });
        }
    }
    let gru = Gru::new(walk.context, x.channels, hidden, &directions)?;
    Ok(Map { channels: hidden * directions.len(), ..walk.step(Arc::new(gru), x, &[]) })
}
