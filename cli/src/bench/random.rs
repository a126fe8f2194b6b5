//! Networks of published sizes with random weights, to be measured.

use std::collections::BTreeMap;

use dynconv_suite::noise::Noise;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

/// Tensors of a checkpoint in the making: shapes and values under their published keys.
pub(super) struct Weights {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    noise: Noise,
}

/// Kind of the convolutions in the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ordinary ones.
    Static,
    /// ODConv with so many kernels, reduction 1/16 and at least 16 hidden units.
    Od(usize),
}

impl Weights {
    fn new() -> Self {
        Self { tensors: BTreeMap::new(), noise: Noise::new(17) }
    }

    /// Uniform numbers of this variance around `mean`.
    fn add(&mut self, key: String, shape: &[usize], mean: f32, variance: f32) {
        let width = (3.0 * variance).sqrt();
        let values = self.noise.floats(shape.iter().product());
        let values = values.into_iter().map(|value| mean + width * value).collect();
        self.tensors.insert(key, (shape.to_vec(), values));
    }

    /// Weights that keep the size of activations behind a ReLU.
    fn kernel(&mut self, key: String, shape: &[usize], fan: usize) {
        self.add(key, shape, 0.0, 2.0 / fan as f32);
    }

    fn norm(&mut self, prefix: &str, channels: usize) {
        for (name, mean, variance) in [
            ("weight", 1.0, 0.01),
            ("bias", 0.0, 0.01),
            ("running_mean", 0.0, 0.01),
            ("running_var", 1.0, 0.01),
        ] {
            self.add(format!("{prefix}{name}"), &[channels], mean, variance);
        }
    }

    fn linear(&mut self, prefix: &str, [out, width]: [usize; 2]) {
        self.add(format!("{prefix}weight"), &[out, width], 0.0, 1.0 / width as f32);
        self.add(format!("{prefix}bias"), &[out], 0.0, 0.01);
    }

    /// A convolution of `[channels out, channels in]`, of a kind.
    fn conv(
        &mut self,
        prefix: &str,
        [out, width]: [usize; 2],
        side: usize,
        groups: usize,
        kind: Kind,
    ) {
        let of_group = width / groups;
        let fan = of_group * side * side;
        let shape = [out, of_group, side, side];
        let key = |name: &str| format!("{prefix}{name}");
        let Kind::Od(kernels) = kind else {
            return self.kernel(key("weight"), &shape, fan);
        };
        // Gains are around a half, of channels and of filters, and of taps.
        self.kernel(key("weight"), &[&[kernels], &shape[..]].concat(), fan);
        let hidden = (width / 16).max(16);
        self.kernel(key("attention.fc.weight"), &[hidden, width, 1, 1], width);
        self.norm(&key("attention.bn."), hidden);
        let is_depthwise = width == groups && out == groups;
        let heads = [
            ("channel_fc", width, true),
            ("filter_fc", out, !is_depthwise),
            ("spatial_fc", side * side, side > 1),
            ("kernel_fc", kernels, kernels > 1),
        ];
        for (name, outputs, _) in heads.into_iter().filter(|(_, _, is_there)| *is_there) {
            self.linear(&key(&format!("attention.{name}.")), [outputs, hidden]);
        }
    }

    /// The file.
    ///
    /// # Errors
    /// Those of the format's own.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, SafeTensorError> {
        let bytes: Vec<Vec<u8>> = self
            .tensors
            .values()
            .map(|(_, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        let views = self.tensors.iter().zip(&bytes).map(|((key, (shape, _)), bytes)| {
            Ok((key.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?))
        });
        let views = views.collect::<Result<Vec<_>, SafeTensorError>>()?;
        safetensors::serialize(views, None)
    }
}

/// ResNet18 or ResNet50 of width 64 with 1000 classes.
pub(super) fn resnet(depth: usize, kind: Kind) -> Weights {
    let mut weights = Weights::new();
    let (counts, is_bottleneck) =
        if depth == 18 { ([2, 2, 2, 2], false) } else { ([3, 4, 6, 3], true) };
    weights.conv("conv1.", [64, 3], 7, 1, Kind::Static);
    weights.norm("bn1.", 64);
    let mut c_in = 64;
    for (stage, count) in counts.into_iter().enumerate() {
        let c = 64 << stage;
        let c_out = if is_bottleneck { 4 * c } else { c };
        for block in 0..count {
            let prefix = format!("layer{}.{block}.", stage + 1);
            let convs: &[([usize; 2], usize)] = if is_bottleneck {
                &[([c, c_in], 1), ([c, c], 3), ([c_out, c], 1)]
            } else {
                &[([c, c_in], 3), ([c, c], 3)]
            };
            for (number, &(channels, side)) in (1..).zip(convs) {
                weights.conv(&format!("{prefix}conv{number}."), channels, side, 1, kind);
                weights.norm(&format!("{prefix}bn{number}."), channels[0]);
            }
            if block == 0 && (stage > 0 || is_bottleneck) {
                weights.conv(&format!("{prefix}downsample.0."), [c_out, c_in], 1, 1, Kind::Static);
                weights.norm(&format!("{prefix}downsample.1."), c_out);
            }
            c_in = c_out;
        }
    }
    weights.linear("fc.", [1000, c_in]);
    weights
}

/// MobileNetV2 of width 1 with 1000 classes.
pub(super) fn mobilenet_v2(kind: Kind) -> Weights {
    let mut weights = Weights::new();
    let plain = |weights: &mut Weights, stage: usize, channels, side, kind| {
        weights.conv(&format!("features.{stage}.0."), channels, side, 1, kind);
        weights.norm(&format!("features.{stage}.1."), channels[0]);
    };
    plain(&mut weights, 0, [32, 3], 3, Kind::Static);
    let groups =
        [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)];
    let (mut number, mut c_in) = (0, 32);
    for (expansion, c_out, count) in groups {
        for _ in 0..count {
            number += 1;
            let stage = format!("features.{number}.conv.");
            let wide = c_in * expansion;
            let mut part = 0;
            if expansion > 1 {
                weights.conv(&format!("{stage}0.0."), [wide, c_in], 1, 1, kind);
                weights.norm(&format!("{stage}0.1."), wide);
                part = 1;
            }
            weights.conv(&format!("{stage}{part}.0."), [wide, wide], 3, wide, kind);
            weights.norm(&format!("{stage}{part}.1."), wide);
            weights.conv(&format!("{stage}{}.", part + 1), [c_out, wide], 1, 1, kind);
            weights.norm(&format!("{stage}{}.", part + 2), c_out);
            c_in = c_out;
        }
    }
    plain(&mut weights, 18, [1280, c_in], 1, kind);
    weights.linear("classifier.1.", [1000, 1280]);
    weights
}

/// EfficientNet b0 with so many experts in its last three groups of blocks, none if 0.
pub(super) fn efficientnet_b0(experts: usize) -> Weights {
    let mut weights = Weights::new();
    weights.conv("conv_stem.", [32, 3], 3, 1, Kind::Static);
    weights.norm("bn1.", 32);
    let groups = [
        (3, 1, 16, 1),
        (3, 6, 24, 2),
        (5, 6, 40, 2),
        (3, 6, 80, 3),
        (5, 6, 112, 3),
        (5, 6, 192, 4),
        (3, 6, 320, 1),
    ];
    let mut c_in = 32;
    for (group, (side, expansion, c_out, count)) in groups.into_iter().enumerate() {
        let experts = if group >= 4 { experts } else { 0 };
        for block in 0..count {
            let prefix = format!("blocks.{group}.{block}.");
            let wide = c_in * expansion;
            let names: [(&str, &str); 3] = match expansion {
                1 => [("", ""), ("conv_dw.", "bn1."), ("conv_pw.", "bn2.")],
                _ => [("conv_pw.", "bn1."), ("conv_dw.", "bn2."), ("conv_pwl.", "bn3.")],
            };
            let convs = [([wide, c_in], 1, 1), ([wide, wide], side, wide), ([c_out, wide], 1, 1)];
            let all = names.into_iter().zip(convs).filter(|((conv, _), _)| !conv.is_empty());
            for ((conv, norm), (channels, side, groups)) in all {
                let conv = format!("{prefix}{conv}");
                match experts {
                    0 => weights.conv(&conv, channels, side, groups, Kind::Static),
                    _ => {
                        let fan = channels[1] / groups * side * side;
                        let shape = [experts, channels[0] * fan];
                        weights.kernel(format!("{conv}weight"), &shape, fan);
                    }
                }
                weights.norm(&format!("{prefix}{norm}"), channels[0]);
            }
            let squeezed = c_in.div_ceil(4);
            for (name, [out, width]) in
                [("conv_reduce", [squeezed, wide]), ("conv_expand", [wide, squeezed])]
            {
                weights.linear(&format!("{prefix}se.{name}."), [out, width]);
            }
            if experts > 0 {
                weights.linear(&format!("{prefix}routing_fn."), [experts, c_in]);
            }
            c_in = c_out;
        }
    }
    weights.conv("conv_head.", [1280, c_in], 1, 1, Kind::Static);
    weights.norm("bn2.", 1280);
    weights.linear("classifier.", [1000, 1280]);
    weights
}
