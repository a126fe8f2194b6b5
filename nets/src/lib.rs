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

mod efficientnet;
mod mobilenet;
mod mobilenet_v3;
mod network;
#[cfg(feature = "pytorch")]
mod pytorch;
mod resnet;
mod walk;

use std::fmt;

use dynconv::{BatchNorm, Checkpoint, Context, Error, Result};

pub use efficientnet::efficientnet_cc;
pub use mobilenet::mobilenet_v2;
pub use mobilenet_v3::mobilenet_v3_small;
pub use network::{Network, Slot};
#[cfg(feature = "pytorch")]
pub use pytorch::PytorchFile;
pub use resnet::resnet;

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
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ResNet => "ResNet",
            Self::MobileNetV2 => "MobileNetV2",
            Self::MobileNetV3Small => "MobileNetV3 small",
            Self::EfficientNetCc => "EfficientNet with CondConv",
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
        if has("features.18.0.weight") || has("features.layers.0.layers.0.weight") {
            return Ok(Self::MobileNetV2);
        }
        if has("conv_stem.weight") && has("blocks.4.0.routing_fn.weight") {
            return Ok(Self::EfficientNetCc);
        }
        let keys: Vec<&str> = checkpoint.keys().take(4).collect();
        Err(Error::Checkpoint {
            message: format!(
                "no network that is known here: expected the keys of a ResNet (layer1.0.bn1), \
                 a MobileNetV2 or V3 (features.18.0, features.layers.0) or an EfficientNet with \
                 CondConv (blocks.4.0.routing_fn), found {} and more",
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
    }
}
