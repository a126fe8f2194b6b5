//! A file of weights, and what it does not tell.

use std::path::Path;

use anyhow::{Context as _, Error, Result, anyhow};
use clap::Args;
use dynconv::{Checkpoint, Context};
use dynconv_nets::{Family, Network, Options as NetOptions, PytorchFile, load};

use crate::map::map;
use crate::say::warn;

/// What no checkpoint holds.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Untold {
    /// What divides the logits of the attention; published networks of ODConv have 1
    #[arg(long, value_name = "T")]
    pub(super) temperature: Option<f32>,
    /// Epsilon of all batch norms, where it is not the published one
    #[arg(long, value_name = "E")]
    pub(super) epsilon: Option<f64>,
    /// Stride of a MobileNetV3's first convolution and block
    #[arg(long, value_name = "STRIDE")]
    pub(super) stem_stride: Option<usize>,
}

impl Untold {
    fn options(self) -> NetOptions {
        let Self { temperature, epsilon, stem_stride } = self;
        let published = NetOptions::default().attention_epsilon;
        let attention_epsilon = epsilon.unwrap_or(published);
        NetOptions { temperature, epsilon, attention_epsilon, stem_stride }
    }
}

/// Bytes of a safetensors file: mapped, or made of a PyTorch file.
pub(super) enum Bytes {
    Mapped(memmap2::Mmap),
    Made(Vec<u8>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Made(bytes) => bytes,
        }
    }
}

/// Whether a file's name says that it is one of safetensors.
pub(super) fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"))
}

/// Reads a file of weights, by what its name ends in.
pub(super) fn read(path: &Path) -> Result<Bytes> {
    if is_safetensors(path) { map(path).map(Bytes::Mapped) } else { pytorch(path).map(Bytes::Made) }
}

/// Reads a PyTorch file, and says what was left out of it.
fn pytorch(path: &Path) -> Result<Vec<u8>> {
    // The reader's own words for a file that is not there do not name it.
    std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file =
        PytorchFile::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if let Some(place) = file.under {
        warn(format_args!("read {place} of {}\n", path.display()));
    }
    for object in &file.skipped {
        warn(format_args!("left out {object}, which is no tensor\n"));
    }
    Ok(file.safetensors)
}

/// The tensors of a file, and the family of networks that they are of.
pub(super) fn open<'a>(path: &Path, bytes: &'a Bytes) -> Result<(Checkpoint<'a>, Family)> {
    let name = || path.display().to_string();
    let checkpoint = Checkpoint::new(bytes.as_ref()).with_context(name)?;
    let family = Family::detect(&checkpoint).with_context(name)?;
    Ok((checkpoint, family))
}

/// The network, or what is wrong with it in the words of the options.
pub(super) fn network(
    context: &Context,
    (path, checkpoint, family): (&Path, &Checkpoint<'_>, Family),
    untold: Untold,
) -> Result<Network> {
    let name = path.display();
    load(context, checkpoint, &untold.options()).map_err(|error| match &error {
        dynconv::Error::Value { what, found, .. } if found == "none" => {
            let option = if what.contains("temperature") {
                "--temperature T"
            } else if what.contains("stride") {
                "--stem-stride STRIDE"
            } else {
                return Error::new(error).context(name.to_string());
            };
            anyhow!("{name}: {error}; say it with {option}")
        }
        dynconv::Error::UnreadKeys { keys } => {
            let (some, rest) = keys.split_at(keys.len().min(KEYS));
            let more = if rest.is_empty() { "" } else { ", .." };
            anyhow!(
                "{name}: {} of its tensors are no part of a known {family}, and may change what it \
                 computes: {}{more}",
                keys.len(),
                some.join(", "),
            )
        }
        _ => Error::new(error).context(name.to_string()),
    })
}

/// Unread tensors to name.
const KEYS: usize = 6;
