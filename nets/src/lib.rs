//! Published networks of dynamic convolutions: a checkpoint becomes one program.
//!
//! ```no_run
//! use dynconv::{Checkpoint, Context};
//! use dynconv_nets::{Options, load};
//!
//! # fn f(bytes: &[u8], image: &[f32]) -> dynconv::Result<()> {
//! let context = Context::request_blocking()?;
//! let checkpoint = Checkpoint::new(bytes)?;
//! let network = load(&context, &checkpoint, &Options::default())?;
//! let logits = network.run(&[1, 3, 224, 224], image)?;
//! # Ok(())
//! # }
//! ```
//!
//! [`load`] tells the family by its keys. Widths, kernels in a bank and classes come from shapes,
//! and so do depths where a family has several. What no checkpoint holds is in [`Options`]. A
//! network that is not in the list is built with [`Network`], as these are.

#[cfg(feature = "audio")]
pub mod audio;
mod convnext;
mod dymn;
mod efficientnet;
mod fdy_crnn;
mod mobilenet;
mod mobilenet_houses;
mod mobilenet_v3;
mod network;
mod plain;
#[cfg(feature = "pytorch")]
mod pytorch;
mod resnet;
mod vgg;
mod walk;
mod warehouses;

use std::fmt;

use dynconv::{BatchNorm, Checkpoint, Context, Error, Result};

pub use convnext::convnext;
pub use dymn::dymn;
pub use efficientnet::efficientnet_cc;
pub use fdy_crnn::fdy_crnn;
pub use mobilenet::mobilenet_v2;
pub use mobilenet_v3::mobilenet_v3_small;
pub use network::{Network, Slot};
pub use plain::plain;
#[cfg(feature = "pytorch")]
pub use pytorch::PytorchFile;
pub use resnet::resnet;
pub use vgg::vgg;

/// What no checkpoint tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// What divides the logits of the attention. `None` takes the published value where there is
    /// one: 1 for ODConv and TArdelean's networks. Those of kaijieshi7 need one.
    pub temperature: Option<f32>,
    /// Epsilon of the batch norms behind layers. `None` takes the published value: 1e-3 in
    /// EfficientNets, else 1e-5.
    pub epsilon: Option<f64>,
    /// Epsilon of the batch norms in the attention.
    pub attention_epsilon: f64,
    /// Stride of a MobileNetV3's first convolution and of its first block, which it needs: 1 was
    /// published for Tiny ImageNet, 2 for Imagenette.
    pub stem_stride: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        let epsilon = BatchNorm::EPSILON_PYTORCH;
        Self { temperature: None, epsilon: None, attention_epsilon: epsilon, stem_stride: None }
    }
}

/// A family of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// [`resnet`](resnet()).
    ResNet,
    /// [`mobilenet_v2`].
    MobileNetV2,
    /// [`mobilenet_v3_small`].
    MobileNetV3Small,
    /// [`efficientnet_cc`].
    EfficientNetCc,
    /// [`vgg`](vgg()).
    Vgg,
    /// [`convnext`](convnext()).
    ConvNext,
    /// [`dymn`](dymn()).
    DyMn,
    /// [`fdy_crnn`](fdy_crnn()).
    FdyCrnn,
    /// [`plain`](plain()).
    Plain,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ResNet => "ResNet",
            Self::MobileNetV2 => "MobileNetV2",
            Self::MobileNetV3Small => "MobileNetV3 small",
            Self::EfficientNetCc => "EfficientNet with CondConv",
            Self::Vgg => "VGG",
            Self::ConvNext => "ConvNeXt",
            Self::DyMn => "DyMN",
            Self::FdyCrnn => "FDY-CRNN",
            Self::Plain => "plain network",
        })
    }
}

impl Family {
    /// The family of a checkpoint, by its keys.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is none of them.
    pub fn detect(checkpoint: &Checkpoint<'_>) -> Result<Self> {
        let has = |key: &str| checkpoint.contains(key);
        if has("conv1.weight") && has("layer1.0.bn1.weight") {
            return Ok(Self::ResNet);
        }
        if has("features.layers.14.kernels_weights") {
            return Ok(Self::MobileNetV3Small);
        }
        if has("features.1.conv.0.1.weight") || has("features.layers.0.layers.0.weight") {
            return Ok(Self::MobileNetV2);
        }
        if has("features.0.weight") && has("classifier.0.weight") {
            return Ok(Self::Vgg);
        }
        if has("downsample_layers.0.1.weight") && has("stages.0.0.gamma") {
            return Ok(Self::ConvNext);
        }
        if has("layers.0.context_gen.joint_conv.weight") {
            return Ok(Self::DyMn);
        }
        if has("cnn.cnn.conv1.attention.conv1d1.weight") {
            return Ok(Self::FdyCrnn);
        }
        if has("conv1.weight") && has("bn1.weight") && has("conv2.weight") && has("fc.weight") {
            return Ok(Self::Plain);
        }
        if has("conv_stem.weight") && has("blocks.4.0.routing_fn.weight") {
            return Ok(Self::EfficientNetCc);
        }
        let keys: Vec<&str> = checkpoint.keys().take(4).collect();
        Err(Error::Checkpoint {
            message: format!(
                "no network that is known here: expected the keys of a ResNet (layer1.0.bn1), \
                 a MobileNetV2 or V3 (features.1.conv, features.layers.0), an EfficientNet with \
                 CondConv (blocks.4.0.routing_fn), a VGG (features.0.weight), a ConvNeXt \
                 (stages.0.0.gamma), a DyMN (layers.0.context_gen), an FDY-CRNN (cnn.cnn.conv1) \
                 or a plain network (conv1, bn1, conv2), found {} and more",
                keys.join(", ")
            ),
        })
    }
}

/// Makes a network of a checkpoint, whatever its family.
///
/// # Errors
/// As [`Family::detect`], and as the function of the family.
pub fn load(context: &Context, checkpoint: &Checkpoint<'_>, options: &Options) -> Result<Network> {
    match Family::detect(checkpoint)? {
        Family::ResNet => resnet(context, checkpoint, options),
        Family::MobileNetV2 => mobilenet_v2(context, checkpoint, options),
        Family::MobileNetV3Small => mobilenet_v3_small(context, checkpoint, options),
        Family::EfficientNetCc => efficientnet_cc(context, checkpoint, options),
        Family::Vgg => vgg(context, checkpoint, options),
        Family::ConvNext => convnext(context, checkpoint, options),
        Family::DyMn => dymn(context, checkpoint, options),
        Family::FdyCrnn => fdy_crnn(context, checkpoint, options),
        Family::Plain => plain(context, checkpoint, options),
    }
}
