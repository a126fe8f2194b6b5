//! What is made of a photo before a network sees it, and what each family was trained with.

use std::fmt;

use clap::Args;
use dynconv::Checkpoint;
use dynconv_nets::Family;
use image::RgbImage;

use super::photo::{self, Filter};
use crate::Usage;

/// What the user knows better than the family.
#[derive(Debug, Args)]
pub(super) struct PreparationArgs {
    /// What the shorter side is resized to, if not as published for the family
    #[arg(long, value_name = "SIDE")]
    resize: Option<u32>,
    /// Side of the square that is cut out of the middle, if not as published
    #[arg(long, value_name = "SIDE")]
    size: Option<u32>,
    /// How to resize, if not as published
    #[arg(long, value_enum)]
    filter: Option<Filter>,
    /// Mean of red, green and blue in training, if not as published
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    mean: Option<Vec<f32>>,
    /// Their standard deviations
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    std: Option<Vec<f32>>,
}

/// What is made of a photo before a network sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Preparation {
    resize: u32,
    size: u32,
    filter: Filter,
    mean: [f32; 3],
    std: [f32; 3],
}

/// torchvision's for ImageNet, which most codes have.
const IMAGENET: Preparation = Preparation {
    resize: 256,
    size: 224,
    filter: Filter::Bilinear,
    mean: [0.485, 0.456, 0.406],
    std: [0.229, 0.224, 0.225],
};

impl Preparation {
    /// What a family was trained with.
    fn published(family: Family, checkpoint: &Checkpoint<'_>) -> Self {
        let has_warehouses = checkpoint.keys().any(|key| key.starts_with("warehouse_manager."));
        let is_mobile = matches!(family, Family::MobileNetV2 | Family::MobileNetV3Small);
        match family {
            Family::EfficientNetCc => {
                // b1, which is deeper than b0.
                let is_b1 = checkpoint.contains("blocks.0.1.bn1.weight");
                let [resize, size] = if is_b1 { [272, 240] } else { [256, 224] };
                Self { resize, size, filter: Filter::Bicubic, mean: [0.5; 3], std: [0.5; 3] }
            }
            // KernelWarehouse's ResNets and ConvNeXt.
            _ if has_warehouses && !is_mobile => Self { filter: Filter::Bicubic, ..IMAGENET },
            _ => IMAGENET,
        }
    }

    /// A photo's numbers as the network wants them: red, then green, then blue.
    pub(super) fn apply(&self, image: &RgbImage) -> anyhow::Result<Vec<f32>> {
        let square = photo::middle(image, self.resize, self.size, self.filter)?;
        let normalised = |channel: usize| {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            square.pixels().map(move |pixel| (f32::from(pixel.0[channel]) / 255.0 - mean) / std)
        };
        Ok((0..3).flat_map(normalised).collect())
    }

    /// Side of what the network sees.
    pub(super) fn side(&self) -> usize {
        self.size as usize
    }
}

impl PreparationArgs {
    /// Refuses what no photo can be made into, before anything is read.
    pub(super) fn check(&self) -> Result<(), Usage> {
        triple("--mean", self.mean.as_deref(), [0.0; 3])?;
        let std = triple("--std", self.std.as_deref(), [1.0; 3])?;
        let is_positive = std.iter().all(|&std| std > 0.0);
        Usage::unless(is_positive, || format!("--std: expected numbers above 0, found {std:?}"))?;
        let sides = [("--resize", self.resize), ("--size", self.size)];
        for (option, side) in sides {
            Usage::unless(side != Some(0), || format!("{option}: expected at least 1, found 0"))?;
        }
        Ok(())
    }

    /// What the family was trained with, but for what is said here.
    pub(super) fn of(
        &self,
        family: Family,
        checkpoint: &Checkpoint<'_>,
    ) -> Result<Preparation, Usage> {
        let published = Preparation::published(family, checkpoint);
        let all = Preparation {
            resize: self.resize.unwrap_or(published.resize),
            size: self.size.unwrap_or(published.size),
            filter: self.filter.unwrap_or(published.filter),
            mean: triple("--mean", self.mean.as_deref(), published.mean)?,
            std: triple("--std", self.std.as_deref(), published.std)?,
        };
        let Preparation { resize, size, .. } = all;
        Usage::unless(size <= resize, || {
            format!("--size: expected at most {resize}, which --resize is, found {size}")
        })?;
        Ok(all)
    }
}

/// Three finite numbers.
fn triple(option: &str, found: Option<&[f32]>, published: [f32; 3]) -> Result<[f32; 3], Usage> {
    let Some(found) = found else { return Ok(published) };
    let numbers = <[f32; 3]>::try_from(found).ok();
    let numbers = numbers.filter(|numbers| numbers.iter().all(|number| number.is_finite()));
    numbers.ok_or_else(|| Usage(format!("{option}: expected three numbers, found {found:?}")))
}

impl fmt::Display for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resize, size, filter, mean, std } = self;
        let filter = match filter {
            Filter::Bilinear => "bilinear",
            Filter::Bicubic => "bicubic",
        };
        write!(
            f,
            "shorter side to {resize} ({filter}), middle {size} x {size}, mean {mean:?}, \
             std {std:?}"
        )
    }
}
