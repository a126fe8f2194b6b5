//! VGG (Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
//! Recognition", ICLR 2015), with convolutions of any kind.

use std::sync::Arc;

use dynconv::device::Builder;
use dynconv::kernels::Value;
use dynconv::layers::{AnyLayer, Io, Resample, WindowPool};
use dynconv::problem::{Pooling, Sampling};
use dynconv::{Activation, Checkpoint, Context, ConvDesc, Error, Result, StaticConv2d};

use crate::walk::{At, Map, Walk};
use crate::{Network, Options};

/// Rows and columns that the classifier sees.
const SEEN: usize = 7;

/// A VGG of any depth and width, with batch norms or without, as kaijieshi7 has it with DY-CNN.
///
/// ```text
/// relu(bn(conv x)) 3 x 3, after some of them a max pool 2 x 2 -> 7 x 7 means -> classifier.0
/// ```
///
/// Where the pools are shows in the numbers of the layers. A map whose sides are 7 times whole
/// numbers, or divide 7, can be seen as 7 x 7 means.
///
/// # Errors
/// As [`resnet`](crate::resnet()).
pub fn vgg(context: &Context, checkpoint: &Checkpoint<'_>, options: &Options) -> Result<Network> {
    let walk = &mut Walk::new(context, checkpoint, options);
    let is_conv = |walk: &Walk<'_>, number: usize| {
        // Norms have one axis.
        let shape = walk.checkpoint.shape(&format!("features.{number}.weight"));
        shape.is_some_and(|shape| shape.len() > 1)
    };
    let last = checkpoint
        .keys()
        .filter_map(|key| key.strip_prefix("features.")?.split('.').next()?.parse::<usize>().ok());
    let last = last.max().unwrap_or(0);
    let mut x = Map::input(3);
    let mut number = 0;
    while number <= last {
        let conv = format!("features.{number}.");
        let norm = format!("features.{}.", number + 1);
        let mut at = At::new(&conv).activation(Activation::Relu);
        let has_norm = walk.contains(&format!("{norm}running_mean"));
        if has_norm {
            at = at.norm(&norm);
        }
        x = walk.conv(at, x)?;
        // Behind it maybe a norm, the activation, and maybe a pool.
        number += if has_norm { 3 } else { 2 };
        walk.name(&format!("features.{}", number - 1), x);
        if !is_conv(walk, number) {
            let windows = ConvDesc::new(x.channels, x.channels, [2, 2]).groups(x.channels);
            let pool = WindowPool::new(context, &windows.stride([2, 2]), Pooling::Max)?;
            x = walk.step(Arc::new(pool), x, &[]);
            walk.name(&format!("features.{number}"), x);
            number += 1;
        }
    }
    let seen = Seen { context: context.clone(), channels: x.channels };
    x = walk.step(Arc::new(seen), x, &[]);
    // Fully connected over 7 x 7 positions: a convolution whose kernel covers them.
    let key = "classifier.0.weight";
    let &[classes, _] = walk.sizes(key)?;
    let weight = walk.tensor(key.into(), &[classes, x.channels.saturating_mul(SEEN * SEEN)])?;
    let bias = walk.tensor("classifier.0.bias".into(), &[classes])?;
    let desc = ConvDesc::new(x.channels, classes, [SEEN, SEEN]);
    let layer = StaticConv2d::new(context, &desc, &weight, Some(&bias))?;
    walk.step(Arc::new(layer), x, &[]);
    walk.finish()
}

/// A map as 7 x 7 means: adaptive pooling, as far as it is pooling in windows, or enlarging.
#[derive(Clone, Debug)]
struct Seen {
    context: Context,
    channels: usize,
}

impl Seen {
    fn layer(&self, input: &[usize]) -> Result<Arc<dyn AnyLayer>> {
        let channels = self.channels;
        let &[_, _, height, width] = input else {
            return Err(Error::Shape {
                what: "input".into(),
                expected: format!("[batch, {channels}, height, width]"),
                found: format!("{input:?}"),
            });
        };
        let sizes = [height, width];
        if sizes.iter().all(|&size| size > 0 && SEEN.is_multiple_of(size)) {
            let factors = sizes.map(|size| SEEN / size);
            let layer = Resample::enlarge(&self.context, channels, factors, Sampling::Nearest)?;
            return Ok(Arc::new(layer));
        }
        if sizes.iter().all(|&size| size > 0 && size.is_multiple_of(SEEN)) {
            let window = sizes.map(|size| size / SEEN);
            let windows = ConvDesc::new(channels, channels, window).groups(channels);
            let pool = WindowPool::new(&self.context, &windows.stride(window), Pooling::Mean)?;
            return Ok(Arc::new(pool));
        }
        Err(Error::Shape {
            what: "map that the classifier sees".into(),
            expected: format!("sides that are {SEEN} times whole numbers, or divide {SEEN}"),
            found: format!("{height} x {width}"),
        })
    }
}

impl AnyLayer for Seen {
    fn context(&self) -> &Context {
        &self.context
    }

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.layer(input)?.output_shape(input)
    }

    fn lower(&self, builder: &mut Builder, io: Io<'_>) -> Result<Option<Value>> {
        let input = builder.info(io.x)?.shape.clone();
        self.layer(&input)?.lower(builder, io)
    }
}
